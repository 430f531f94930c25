"""Procrastinate: a PRODUCER span where a job is deferred, a CONSUMER span where a worker processes it.

A job is a row of a table with a fixed set of columns; an argument more would break a worker without Bulkscope. What
must travel stands in ``queueing_lock``, or in ``lock``, of a job that has none: a lock that no other job has locks
nothing. It is taken out as a row is read, so that neither the task nor the application sees it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from uuid import uuid4

from bulkscope._export import drops
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import headers as travelled
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, Unsent, entered, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded, log_once
from bulkscope_instrumentation import _postgres

_PREFIX = "bulkscope:"
_PLACES = ("queueing_lock", "lock")
_HEADERS = "_bulkscope"
# An entry of PostgreSQL's index, in which each lock stands, has 2,700 bytes; bulk, trace and times need 700 at most.
_MOST_BYTES = 2000
_working: ContextVar[Work | None] = ContextVar("bulkscope-procrastinate-working", default=None)


class ProcrastinateInstrumentor(Instrumentor):
    """Instruments Procrastinate 2 and later."""

    module = "procrastinate"
    requires = ("procrastinate >= 2.0",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where jobs are written and read, and where a worker processes them."""
        from procrastinate import jobs, manager, worker

        if hasattr(manager.JobManager, "batch_defer_jobs"):  # where there are batches, one job is a batch of one
            self.wrap(manager.JobManager, "batch_defer_jobs", _defer_batch)
            self.wrap(manager.JobManager, "batch_defer_jobs_async", _defer_batch_async)
        else:
            self.wrap(manager.JobManager, "defer_job", _defer)
            self.wrap(manager.JobManager, "defer_job_async", _defer_async)
        self.replace(jobs.Job, "from_row", classmethod(functools.partial(_from_row, jobs.Job.from_row.__func__)))
        if hasattr(worker.Worker, "_process_job"):
            self.wrap(worker.Worker, "_process_job", _process)
            self.wrap(worker.Worker, "_log_job_outcome", _note_outcome)
        else:
            self.wrap(worker.Worker, "run_job", _run)
        self.wrap(worker.Worker, "run", _start)


def _job(job: Any) -> Job:
    return Job(
        system="postgres",
        queue=job.queue,
        id=None if job.id is None else str(job.id),
        task=job.task_name,
        payload=job.task_kwargs,
    )


def _send(job: Any, share: int) -> Send:
    moment = job.scheduled_at
    delay = 0.0 if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return Send(_job(job), delay=delay, share=share)


@guarded
def _carrying(job: Any, headers: dict[str, str]) -> Any:
    """Return ``job`` with ``headers`` in one of its locks; as it is where there is no room."""
    if not headers:
        return job
    # Two of the same name would be a lock.
    text = f"{_PREFIX}{uuid4().hex}:{json.dumps(headers, separators=(',', ':'))}"
    free = next((place for place in _PLACES if getattr(job, place) is None), None)
    size = len(text.encode())
    if free is None or size > _MOST_BYTES:
        why = "has both locks" if free is None else f"would need {size} bytes of a lock, and {_MOST_BYTES} is the most"
        drops.count("headers", 1, "no_room")
        log_once("a job's locks", "A job of Procrastinate %s: its wait and its bulk do not travel with it", why)
        return job
    return job.evolve(**{free: text})


class _Deferring:
    """Jobs that one call hands over: ``jobs`` are to be given to it."""

    def __init__(self, given: list[Any]) -> None:
        self._given = given
        self._sents = [sending(functools.partial(_send, job, len(given))) for job in given]
        self.jobs = [_carrying(job, sent.headers) or job for job, sent in zip(given, self._sents, strict=True)]

    @contextmanager
    def sending(self) -> Iterator[None]:
        with entered(self._sents):
            try:
                yield
            except Exception as error:
                if type(error).__name__ == "AlreadyEnqueued":
                    for sent in self._sents:
                        sent.refused()
                raise

    def made(self, jobs: list[Any]) -> list[Any]:
        """Return what the call returned, as it would have been without us."""
        return [_made(job, given, sent) or job for job, given, sent in zip(jobs, self._given, self._sents, strict=True)]


@guarded
def _made(job: Any, given: Any, sent: Send | Unsent) -> Any:
    sent.identify(str(job.id))
    return job.evolve(**{place: getattr(given, place) for place in _PLACES})


def _given(name: str, args: Any, kwargs: Any) -> dict[str, Any]:
    return {**dict(zip((name, "connection"), args, strict=False)), **kwargs}


def _defer_batch(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
    given = _given("jobs", args, kwargs)
    deferring = _Deferring(list(given["jobs"]))
    with deferring.sending():
        return deferring.made(wrapped(**{**given, "jobs": deferring.jobs}))


async def _defer_batch_async(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
    given = _given("jobs", args, kwargs)
    deferring = _Deferring(list(given["jobs"]))
    with deferring.sending():
        return deferring.made(await wrapped(**{**given, "jobs": deferring.jobs}))


def _defer(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
    deferring = _Deferring([_given("job", args, kwargs)["job"]])
    with deferring.sending():
        return deferring.made([wrapped(deferring.jobs[0])])[0]


async def _defer_async(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
    deferring = _Deferring([_given("job", args, kwargs)["job"]])
    with deferring.sending():
        return deferring.made([await wrapped(deferring.jobs[0])])[0]


def _from_row(original: Callable[..., Any], kind: type, row: dict[str, Any]) -> Any:
    place, headers = _found(row) or (None, None)
    if place is None:
        return original(kind, row)
    job = original(kind, {**row, place: None})
    vars(job)[_HEADERS] = headers
    return job


@guarded
def _found(row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    for place in _PLACES:
        text = row.get(place)
        if isinstance(text, str) and text.startswith(_PREFIX):
            return place, json.loads(text.removeprefix(_PREFIX).partition(":")[2])
    return None


def _work(job: Any) -> Work:
    headers = dict(vars(job).get(_HEADERS) or {})
    if job.attempts and headers:
        # The same row is put back, to be processed from this moment on.
        headers.pop(travelled.CLOCK, None)
        headers.pop(travelled.ENQUEUED, None)
        if job.scheduled_at is not None:
            headers |= {travelled.ENQUEUED: str(int(job.scheduled_at.timestamp() * 1e9)), travelled.DELAY: "0"}
    return Work(_job(job), headers)


async def _process(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    job = (args[0] if args else kwargs["context"]).job
    # The worker keeps what a task raises to itself, and says in its log what came of the job.
    with working(lambda: _work(job), attempt=job.attempts + 1) as work:
        token = _working.set(work)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            _working.reset(token)


def _note_outcome(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    work = _working.get()
    if work is not None:
        names = ("status", "context", "job_result", "job_retry", "exc_info")
        _read_outcome(work, **dict(zip(names, args, strict=False)) | kwargs)
    return wrapped(*args, **kwargs)


@guarded
def _read_outcome(work: Work, job_retry: Any = None, exc_info: Any = None, **_: Any) -> None:
    if isinstance(exc_info, BaseException):
        work.error, work.retry = exc_info, job_retry is not None


async def _run(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    job = args[0] if args else kwargs["job"]
    with working(lambda: _work(job), _is_retried, job.attempts + 1) as work:
        try:
            return await wrapped(*args, **kwargs)
        except Exception as error:
            # What a task raises is the cause of what the worker raises.
            if work is not None and hasattr(error, "retry_exception"):
                work.error = error.__cause__
            raise


def _is_retried(error: BaseException) -> bool:
    return getattr(error, "retry_exception", None) is not None


async def _start(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    _watch(worker)
    return await wrapped(*args, **kwargs)


# What waits, and how long the one that is taken next has done so: since it was written, put back, or due.
_DUE = "status = 'todo' AND queue_name = %(queue)s AND (scheduled_at IS NULL OR scheduled_at <= now())"
_QUESTION = f"""
SELECT count(*), (
    SELECT extract(epoch FROM now() - greatest(
        job.scheduled_at, (SELECT max(at) FROM procrastinate_events WHERE job_id = job.id)
    )) FROM procrastinate_jobs job WHERE {_DUE} ORDER BY id LIMIT 1
) FROM procrastinate_jobs WHERE {_DUE}
"""


@guarded
def _watch(worker: Any) -> None:
    pool = getattr(worker.app.connector, "_async_pool", None)
    if pool is None or callable(pool.kwargs):
        return  # another driver, or a password that is asked for anew each time: the depth is not reported
    names = worker.queues or {task.queue for task in worker.app.tasks.values()}

    def ask(connection: Any, name: str) -> Any:
        return connection.execute(_QUESTION, {"queue": name}).fetchone()

    _postgres.watch(sorted(names), pool.conninfo, pool.kwargs or {}, ask)
