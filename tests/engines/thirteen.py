"""A service with known numbers, under ``bulkscope run``: ``api FILE``, then ``work FILE NUMBER...`` by each worker.

``api`` answers one request of bulk ``b`` in each of four ways and one that only asks for progress, enqueues the
``JOBS``, and writes them to FILE, one JSON line each. ``work`` does the jobs of those lines.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import bulkscope

BULK, QUEUE = "b", "prompts"


@dataclass(frozen=True)
class Job:
    """What an inference says, and what the job fails with: ``inside`` its inference, ``before`` it, or ``once``."""

    model: str = "small"
    input: int = 0
    cached: int = 0
    output: int = 0
    decode: float = 0.0
    fails: str = ""


JOBS = (
    Job(input=10, output=20, decode=0.015),
    Job(input=10, cached=4, output=30, decode=0.02),
    Job(input=10, output=5, decode=0.004, fails="once"),
    Job("large", input=100, cached=60, output=50, decode=0.03),
    Job("large", input=100, output=80, decode=0.035),
    Job("large", input=100, fails="inside"),
    Job(fails="before"),
    Job("large", input=100, output=1, decode=0.0),
)
# Which worker does what, in turn; the second does what failed at the first.
FIRST, SECOND = (0, 2, 3, 5), (1, 4, 6, 7, 2)

app = FastAPI()
sent: list[dict[str, str]] = []


class Asked(BaseModel):
    """A request."""

    bulkId: str
    answer: str


@app.post("/bulks", status_code=202)
def bulks(asked: Asked) -> dict[str, int]:
    if asked.answer == "busy":
        raise HTTPException(503)
    if asked.answer == "broken":
        raise RuntimeError("out of order")
    for _ in JOBS:
        with bulkscope.enqueue(QUEUE, bulk_id=asked.bulkId, task="answer") as job:
            pass
        sent.append(job.headers)
    return {"jobs": len(JOBS)}


@app.get("/bulks/{bulk_id}")
def progress(bulk_id: str) -> dict[str, int]:
    return {"done": 0}


async def serve() -> None:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for body in ({"answer": "ok"}, {"answer": "busy"}, {"answer": "broken"}, {}):
            await client.post("/bulks", json={"bulkId": BULK, **body})
        await client.get(f"/bulks/{BULK}")


def work(job: Job, headers: dict[str, Any], *, first: bool) -> None:
    with bulkscope.dequeue(QUEUE, headers=headers) as taken:
        if job.fails == "before":
            raise KeyError("no such prompt")
        if job.fails == "once" and first:
            taken.retry()
        with bulkscope.inference(model=job.model) as call:
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
            time.sleep(0.02)
            if job.fails == "inside":
                raise MemoryError
            if job.fails == "once" and first:
                raise TimeoutError
            call.tokens(input=job.input, output=job.output, cached=job.cached or None)
            call.times(first_token=0.005, prefill=0.005, decode=job.decode or None)


def main() -> None:
    role, file, *numbers = sys.argv[1:]
    if role == "api":
        asyncio.run(serve())
        Path(file).write_text("".join(json.dumps(headers) + "\n" for headers in sent))
        return
    lines = Path(file).read_text().splitlines()
    for number in map(int, numbers):
        try:
            work(JOBS[number], json.loads(lines[number]), first=FIRST[0] == int(numbers[0]))
        except (MemoryError, KeyError, TimeoutError):
            continue


if __name__ == "__main__":
    main()
