"""A service with known numbers, run under ``bulkscope run``: ``api FILE`` or ``work FILE FIRST LAST``.

``api`` answers seven requests (four 200, one each of 422, 429 and a failure), enqueues three jobs for each that it
accepts, and writes the jobs to FILE, one JSON line each; one job more its broker does not take. ``work`` does the jobs
of lines FIRST to LAST of such a file; who begins at 0 finds two more that have expired.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from fastapi import FastAPI, HTTPException

import bulkscope
from bulkscope._export import drops
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.job import Job

app = FastAPI()
jobs: list[dict[str, str]] = []


@app.post("/bulks/{number}")
async def bulks(number: int) -> dict[str, int]:
    if number == 429:
        raise HTTPException(429)
    if number == 500:
        raise RuntimeError("out of order")
    for _ in range(3):
        with bulkscope.enqueue("prompts", bulk_id="b-1", task="answer") as job:
            pass
        jobs.append(job.headers)
    return {"number": number}


async def serve() -> None:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for number in ("1", "2", "3", "4", "none", "429", "500"):
            await client.post(f"/bulks/{number}")


def work(number: int, headers: dict[str, str]) -> None:
    with bulkscope.dequeue("prompts", headers=headers):
        with bulkscope.inference(model="large" if number % 3 == 0 else "small") as call:
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
            time.sleep(0.02)
            call.tokens(input=100 if number % 3 == 0 else 10, output=50 if number % 3 == 0 else 20)
        if number == 1:
            raise MemoryError
        if number == 10:
            raise KeyError(number)


def main() -> None:
    role, file = sys.argv[1], Path(sys.argv[2])
    if role == "api":
        asyncio.run(serve())
        with suppress(ConnectionError), bulkscope.enqueue("prompts", bulk_id="b-1", task="answer"):
            raise ConnectionError("the broker is down")
        file.write_text("".join(json.dumps(headers) + "\n" for headers in jobs))
        drops.count("traces", 5, "queue_full")
        return
    first, last = int(sys.argv[3]), int(sys.argv[4])
    lines = file.read_text().splitlines()
    for number in range(first, last + 1):
        try:
            work(number, json.loads(lines[number]))
        except (MemoryError, KeyError):
            continue
    # What a queue's own module does: with a job that it will not begin, and with its broker.
    for number in range(2 if first == 0 else 0):
        cancelled(Job(system="bulkscope", queue="prompts", id=f"old-{number}", task="answer"), {}, "expired")
    queues.watch(["prompts"], lambda name: 7.0, lambda name: 3.5)


if __name__ == "__main__":
    main()
