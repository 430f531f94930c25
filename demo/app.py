"""The API: ``uvicorn demo.app:app``."""

from __future__ import annotations

import logging
import uuid
from typing import Annotated, Any

import redis
from celery.result import AsyncResult
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from kombu.exceptions import OperationalError
from pydantic import BaseModel, ConfigDict, Field

from demo import models, settings, tasks
from demo.bulks import Bulks

logger = logging.getLogger("uvicorn.error")
app = FastAPI(title="Bulks of prompts")
bulks = Bulks(redis.Redis.from_url(settings.BROKER, decode_responses=True, socket_timeout=5))

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Prompt = Annotated[str, Field(min_length=1, max_length=100_000)]


class BulkRequest(BaseModel):
    """A bulk: prompts for one model."""

    model_config = ConfigDict(extra="forbid")

    bulkId: Id | None = None
    model: str
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, reason, headers={"Retry-After": str(settings.RETRY_AFTER_S)})


@app.exception_handler(redis.ConnectionError)
@app.exception_handler(redis.TimeoutError)
@app.exception_handler(OperationalError)
def broker_away(_: Request, error: Exception) -> JSONResponse:
    """The broker does not answer: come back later."""
    logger.error("the broker does not answer: %s", error)
    headers = {"Retry-After": str(settings.RETRY_AFTER_S)}
    return JSONResponse({"detail": "the broker does not answer"}, 503, headers=headers)


@app.post("/bulks", status_code=202)
def send(request: BulkRequest) -> dict[str, Any]:
    """Put one job per prompt on the queue."""
    known = sorted(models.catalogue())
    if request.model not in known:
        raise HTTPException(422, f"there is no model {request.model!r}; there is: {', '.join(known)}")
    waiting = bulks.queue_length()
    if waiting > settings.MAX_QUEUE:
        raise _busy(f"{waiting} jobs wait already, more than {settings.MAX_QUEUE}")
    bulk_id = request.bulkId or uuid.uuid4().hex
    if not bulks.reserve(bulk_id, request.model, len(request.prompts)):
        raise HTTPException(409, f"there is a bulk {bulk_id!r} already")
    job_ids: list[str] = []
    try:
        for prompt in request.prompts:
            job = tasks.generate.apply_async(
                kwargs={
                    "prompt": prompt,
                    "bulk_id": bulk_id,
                    "model": request.model,
                    "max_tokens": request.max_tokens,
                }
            )
            job_ids.append(job.id)
    finally:
        # Also when the broker went away half-way: what was sent will be worked on.
        if job_ids:
            bulks.add_jobs(bulk_id, job_ids)
    logger.info("bulk %s: %d jobs for %s", bulk_id, len(job_ids), request.model)
    return {"bulkId": bulk_id, "jobIds": job_ids}


@app.get("/bulks/{bulk_id}")
def progress(bulk_id: str) -> dict[str, Any]:
    """How far a bulk is, and the answers that are there."""
    found = bulks.find(bulk_id)
    if found is None:
        raise HTTPException(404, f"there is no bulk {bulk_id!r}")
    model, size, job_ids = found
    jobs = [_job(job_id) for job_id in job_ids]
    counts = {state: sum(job["state"] == state for job in jobs) for state in ("done", "failed", "running", "waiting")}
    return {"bulkId": bulk_id, "model": model, "size": size, **counts, "jobs": jobs}


def _job(job_id: str) -> dict[str, Any]:
    result = AsyncResult(job_id, app=tasks.app)
    state, value = result.state, result.result
    if state == "SUCCESS":
        return {"jobId": job_id, "state": "done", "result": value}
    if state == "FAILURE":
        return {"jobId": job_id, "state": "failed", "error": f"{type(value).__name__}: {value}"}
    return {"jobId": job_id, "state": "running" if state == "STARTED" else "waiting"}


@app.get("/healthz")
def health() -> dict[str, Any]:
    """200 with the number of waiting jobs while the broker answers, else 503."""
    return {"status": "ok", "queue": bulks.queue_length()}
