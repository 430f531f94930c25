"""RQ: a PRODUCER span where a job is enqueued, a CONSUMER span where it is performed.

Forking, spawning and simple workers alike. What must travel is a field of its own in the job's hash, not
part of ``job.meta``: the application never sees it, and a worker without Bulkscope ignores it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from bulkscope._host.resource import filling_slot
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import bulks
from bulkscope._jobs import queues as _queue
from bulkscope._jobs.headers import age, attempt_of, origin
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded

FIELD = "bulkscope"
_SCHEDULED = "_bulkscope_scheduled"


class RqInstrumentor(Instrumentor):
    """Instruments RQ 1.16 and later."""

    module = "rq"
    requires = ("rq >= 1.16",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where jobs are enqueued, stored, loaded and performed."""
        from rq import job, worker
        from rq.job import Job
        from rq.queue import Queue

        self.wrap(Queue, "_enqueue_job", _enqueue)
        self.wrap(Queue, "schedule_job", _schedule)
        self.wrap(Queue, "setup_dependencies", _defer)
        if hasattr(Queue, "_enqueue_rate_limited_job"):
            self.wrap(Queue, "_enqueue_rate_limited_job", _enqueue)
        self.wrap(Job, "to_dict", _to_dict)
        self.wrap(Job, "restore", _restore)
        self.wrap(Job, "perform", _perform)
        self.wrap(job, "import_attribute", _import)
        for kind in (worker.Worker, getattr(worker, "SpawnWorker", None)):
            if "fork_work_horse" in vars(kind or object):
                self.wrap(kind, "fork_work_horse", _fork)
        self.wrap(getattr(worker, "BaseWorker", worker.Worker), "work", _work)


def _enqueue(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    job = args[0] if args else kwargs["job"]
    if not queue._is_async:
        # Performed on the spot: no queue is crossed, and what runs belongs to the caller's span.
        job.__dict__[FIELD] = None
        return wrapped(*args, **kwargs)
    if job.__dict__.get(_SCHEDULED):
        # The scheduler's second step for a job whose sending has been recorded.
        return wrapped(*args, **kwargs)
    with sending(lambda: _send(queue, job)) as sent:
        job.__dict__[FIELD] = sent.headers
        return wrapped(*args, **kwargs)


def _schedule(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("job", "datetime"), args, strict=False)) | kwargs
    job, moment = given["job"], given["datetime"]
    with sending(lambda: _send(queue, job, moment)) as sent:
        job.__dict__[FIELD] = {**sent.headers, "scheduled": "1"}
        return wrapped(*args, **kwargs)


def _defer(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    # A job that waits for others is enqueued by a worker, outside of any context: it carries its own.
    _carry(args[0] if args else kwargs.get("job"))
    return wrapped(*args, **kwargs)


@guarded
def _carry(job: Any) -> None:
    if getattr(job, "_dependency_ids", None) and FIELD not in vars(job):
        headers = origin()
        if headers:
            job.__dict__[FIELD] = headers


def _function(name: str) -> Any:
    """Return the function of a job where it is imported already; ``job.func`` would import it, who sends need not."""
    module, _, function = (name or "").rpartition(".")
    return getattr(sys.modules.get(module), function, None)


def _job(job: Any, queue: str) -> Job:
    return Job(
        system="redis",
        queue=queue,
        id=job.id,
        task=job.func_name,
        args=job.args,
        payload=job.kwargs,
        function=_function(job.func_name),
    )


def _send(queue: Any, job: Any, moment: datetime | None = None) -> Send:
    delay = 0.0
    if moment is not None:
        delay = max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    previous = job.__dict__.get(FIELD)
    return Send(
        _job(job, queue.name),
        delay=delay,
        # RQ keeps what is left of the tries, not how many there were.
        attempt=attempt_of(previous) + 1,
        previous=previous,
    )


def _to_dict(wrapped: Callable[..., Any], job: Any, args: Any, kwargs: Any) -> Any:
    fields = wrapped(*args, **kwargs)
    headers = job.__dict__.get(FIELD)
    if headers:
        fields[FIELD] = json.dumps(headers)
    return fields


def _restore(wrapped: Callable[..., Any], job: Any, args: Any, kwargs: Any) -> Any:
    restored = wrapped(*args, **kwargs)
    _load(job, args[0] if args else kwargs.get("raw_data"))
    return restored


@guarded
def _load(job: Any, fields: Any) -> None:
    raw = fields.get(FIELD.encode()) or fields.get(FIELD)
    if raw:
        job.__dict__[FIELD] = headers = json.loads(raw)
        job.__dict__[_SCHEDULED] = bool(headers.pop("scheduled", None))


def _perform(wrapped: Callable[..., Any], job: Any, args: Any, kwargs: Any) -> Any:
    if FIELD in vars(job) and job.__dict__[FIELD] is None:
        return wrapped(*args, **kwargs)
    job.__dict__[_SCHEDULED] = False  # what follows, a retry, is a sending of its own

    def begin() -> Work:
        return Work(
            _job(job, job.origin),
            job.__dict__.get(FIELD) or {},
        )

    with working(begin, lambda error: bool(job.retries_left)) as work:
        result = wrapped(*args, **kwargs)
        if work is not None and type(result).__name__ == "Retry" and type(result).__module__.startswith("rq."):
            if (job.number_of_retries or 0) < result.max:
                work.retry = True
            else:
                work.error = _NoTriesLeft("a job that returns Retry has none left")
        return result


def _import(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap what imports the function of a job; in a work horse that is done for each job anew."""
    bulk, began = bulks.current(), time.perf_counter()
    module = (str(args[0]) if args else "").rpartition(".")[0]
    if bulk is None or bulk.job_id is None or module in sys.modules:
        return wrapped(*args, **kwargs)
    try:
        return wrapped(*args, **kwargs)
    finally:
        bulk.import_seconds = (bulk.import_seconds or 0.0) + time.perf_counter() - began


def _fork(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    """Wrap what starts a work horse: the worker is the one that lives on."""
    with filling_slot(1):
        return wrapped(*args, **kwargs)


class _NoTriesLeft(Exception):
    """What RQ fails a job with that returns ``Retry`` once more than it may; it raises nothing itself."""


def _work(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    _watch(worker)
    return wrapped(*args, **kwargs)


@guarded
def _watch(worker: Any) -> None:
    connection = worker.connection
    queues = {queue.name: queue for queue in worker.queues}

    def oldest_age(name: str) -> float | None:
        # Jobs are pushed on the right and taken from the left.
        first = connection.lindex(queues[name].key, 0)
        if first is None:
            return None
        raw = connection.hget(f"rq:job:{first.decode()}", FIELD)
        return None if raw is None else age(json.loads(raw))

    _queue.watch(queues, lambda name: float(connection.llen(queues[name].key)), oldest_age)
