"""BullMQ for Python: a PRODUCER span where a job is added, a CONSUMER span where it is processed.

What must travel is the job's option ``tm``, where BullMQ for Node keeps the same: a worker in the other
language goes on in the same trace.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import headers as travelled
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, entered, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _redis

OPTION = "tm"
# Options by which an application chooses what is one job.
_CHOSEN = {"jobId", "deduplication", "debounce"}


class BullmqInstrumentor(Instrumentor):
    """Instruments BullMQ for Python 2 and later."""

    module = "bullmq"
    requires = ("bullmq >= 2.0",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where jobs are added, and the worker's processor."""
        from bullmq import Job, Queue, Worker

        self.wrap(Queue, "add", _add)
        self.wrap(Queue, "addBulk", _add_bulk)
        self.wrap(Worker, "__init__", _made)
        self.wrap(Job, "remove", _remove)
        if hasattr(Queue, "remove"):
            self.wrap(Queue, "remove", _remove_by_id)


def _send(queue: Any, name: Any, data: Any, options: dict[str, Any], share: int = 1) -> Send:
    return Send(
        Job(
            system="redis",
            queue=queue.name,
            id=str(options["jobId"]) if options.get("jobId") else None,
            task=str(name),
            payload=data,
        ),
        delay=float(options.get("delay") or 0) / 1e3,
        share=share,
    )


async def _add(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("name", "data", "opts"), args, strict=False)) | kwargs
    options = dict(given.get("opts") or {})
    with sending(lambda: _send(queue, given.get("name"), given.get("data"), options)) as sent:
        if sent.headers:
            given["opts"] = {OPTION: json.dumps(sent.headers), **options}
        job = await wrapped(**given)
        sent.identify(str(job.id))
        if sent.headers and _CHOSEN & options.keys() and await _is_other(queue, job):
            sent.refused()
        return job


async def _add_bulk(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    jobs = [dict(job) for job in (args[0] if args else kwargs["jobs"])]
    sents = []
    for job in jobs:
        options = dict(job.get("opts") or {})
        sent = sending(functools.partial(_send, queue, job.get("name"), job.get("data"), options, len(jobs)))
        if sent.headers:
            job["opts"] = {OPTION: json.dumps(sent.headers), **options}
        sents.append(sent)
    with entered(sents):
        added = await wrapped(jobs)
        for sent, job in zip(sents, added, strict=False):
            sent.identify(str(job.id))
            if sent.headers and _CHOSEN & job.opts.keys() and await _is_other(queue, job):
                sent.refused()
        return added


async def _is_other(queue: Any, job: Any) -> bool:
    """Tell whether the broker keeps another job under this one's id, and has not taken this one.

    It answers with the id in either case, so it is asked, and only where the application chooses ids.
    """
    try:
        stored = await queue.client.hget(queue.toKey(str(job.id)), "opts")
        return stored is not None and json.loads(stored).get(OPTION) != job.opts.get(OPTION)
    except Exception:
        report("asking the broker for a job that may be a duplicate")
        return False


async def _remove(wrapped: Callable[..., Any], job: Any, args: Any, kwargs: Any) -> Any:
    result = await wrapped(*args, **kwargs)
    _removed(job.queue.name, job)
    return result


async def _remove_by_id(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    job = await _ask_for(queue, args[0] if args else kwargs["job_id"])
    result = await wrapped(*args, **kwargs)
    if result and job is not None:
        _removed(queue.name, job)
    return result


async def _ask_for(queue: Any, job_id: str) -> Any:
    """Return a job that is about to be removed: afterwards nobody knows its bulk. None where there is none."""
    try:
        from bullmq import Job

        return await Job.fromId(queue, job_id)
    except Exception:
        report("asking the broker for a job that is removed")
        return None


@guarded
def _removed(queue: str, job: Any) -> None:
    if not getattr(job, "processedOn", None):
        headers = json.loads(job.opts.get(OPTION) or "{}")
        cancelled(_job(queue, job), headers, "removed")


def _job(queue: str, job: Any) -> Job:
    return Job(system="redis", queue=queue, id=str(job.id), task=str(job.name), payload=job.data)


def _made(wrapped: Callable[..., None], worker: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    _wrap_processor(worker)
    _watch(worker)


@guarded
def _watch(worker: Any) -> None:
    pool = getattr(getattr(worker, "client", None), "connection_pool", None)
    if pool is None:
        return  # a cluster, or no Redis
    client, prefix = _redis.beside(pool), f"{worker.prefix}:"

    def depth(name: str) -> float:
        """Return the jobs that are due: waiting ones, and those with a priority, which are kept apart."""
        lists = sum(client.llen(f"{prefix}{name}:{each}") for each in ("wait", "paused"))
        return float(lists + client.zcard(f"{prefix}{name}:prioritized"))

    def oldest_age(name: str) -> float | None:
        """Return the age of the oldest waiting job; None where some have priorities, which are not in order of age."""
        if client.zcard(f"{prefix}{name}:prioritized"):
            return None
        # With the option "lifo" a job is put at the end that is taken from.
        ends = {client.lindex(f"{prefix}{name}:wait", position) for position in (0, -1)} - {None}
        found = (client.hmget(f"{prefix}{name}:{job_id.decode()}", "timestamp", "delay") for job_id in ends)
        due = [int(since) + int(delay or 0) for since, delay in found if since is not None]
        return max(0.0, time.time() - min(due) / 1e3) if due else None

    queues.watch([worker.name], depth, oldest_age)


@guarded
def _wrap_processor(worker: Any) -> None:
    original = worker.processor

    @functools.wraps(original)
    async def processor(job: Any, *rest: Any) -> Any:
        attempt = int(getattr(job, "attemptsMade", 0) or 0) + 1

        def begin() -> Work:
            headers = json.loads(job.opts.get(OPTION) or "{}")
            if attempt > 1:
                headers.pop(travelled.ENQUEUED, None)  # put back by the broker, which does not say when
            return Work(_job(worker.name, job), headers)

        def retried(error: BaseException) -> bool:
            if type(error).__name__ in ("WaitingChildrenError", "DelayedError"):
                return True  # put aside by its own wish
            limit = int(job.opts.get("attempts") or getattr(job, "attempts", None) or 1)
            return type(error).__name__ != "UnrecoverableError" and attempt < limit

        with working(begin, retried, attempt):
            return await original(job, *rest)

    worker.processor = processor
