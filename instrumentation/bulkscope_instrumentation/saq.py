"""SAQ on Redis and PostgreSQL: a PRODUCER span where a job is enqueued, a CONSUMER span where its function runs.

A job is stored as a serialized dictionary. What must travel is a key of its ``meta`` there, put in as the job is
written and taken out as it is read: a job's ``meta`` never has it, and a worker without Bulkscope hands it on. Whoever
calls ``Job.to_dict`` sees it as ``meta.bulkscope``: that is what SAQ stores.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import headers as travelled
from bulkscope._jobs import queues
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, Unsent, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded
from bulkscope_instrumentation import _postgres, _redis

_KEY = "bulkscope"
_HEADERS = "_bulkscope"
# The stack that the sending of the job being enqueued is left by; None where there is nothing to send.
_enqueuing: ContextVar[ExitStack | None] = ContextVar("bulkscope-saq-enqueuing", default=None)
_of_cron: ContextVar[bool] = ContextVar("bulkscope-saq-cron", default=False)


class SaqInstrumentor(Instrumentor):
    """Instruments SAQ 0.16 and later."""

    module = "saq"
    requires = ("saq >= 0.16",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where jobs are enqueued, written and read, and the worker's functions."""
        from saq import job, worker
        from saq.queue.base import Queue

        self.wrap(Queue, "enqueue", _enqueue)
        self.wrap(Queue, "_before_enqueue", _before_enqueue)
        self.wrap(Queue, "deserialize", _deserialize)
        self.wrap(job.Job, "to_dict", _to_dict)
        self.wrap(job.Job, "next_retry_delay", _next_retry_delay)
        self.wrap(worker.Worker, "__init__", _made)
        self.wrap(worker.Worker, "schedule", _schedule)
        self.wrap(worker.Worker, "start", _start)


def _on_postgres(queue: Any) -> bool:
    return type(queue).__name__ == "PostgresQueue"


def _job(queue: Any, job: Any) -> Job:
    return Job(
        system="postgres" if _on_postgres(queue) else "redis",
        queue=queue.name,
        id=job.key,
        task=job.function,
        payload=job.kwargs,
    )


async def _enqueue(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    if _of_cron.get():
        return await wrapped(*args, **kwargs)
    with ExitStack() as stack:
        token = _enqueuing.set(stack)
        try:
            job = await wrapped(*args, **kwargs)
        finally:
            _enqueuing.reset(token)
        if job is None:
            _refused(stack)
        return job


@guarded
def _refused(stack: ExitStack) -> None:
    sent: Send | Unsent | None = vars(stack).get(_HEADERS)
    if sent is not None:
        sent.refused()


async def _before_enqueue(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    await wrapped(*args, **kwargs)  # the application's own hooks, which may change the job
    _begin_to_send(queue, args[0] if args else kwargs["job"])


@guarded
def _begin_to_send(queue: Any, job: Any) -> None:
    stack = _enqueuing.get()
    if stack is None:
        return
    sent = sending(lambda: Send(_job(queue, job), delay=max(0.0, job.scheduled - time.time()) if job.scheduled else 0))
    stack.enter_context(sent)
    vars(stack)[_HEADERS] = sent
    if sent.headers:
        vars(job)[_HEADERS] = sent.headers


async def _schedule(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    # Each worker enqueues each cron job anew every second, and all but one of these are refused: nobody sent them.
    token = _of_cron.set(True)
    try:
        return await wrapped(*args, **kwargs)
    finally:
        _of_cron.reset(token)


def _to_dict(wrapped: Callable[..., Any], job: Any, args: Any, kwargs: Any) -> Any:
    fields = wrapped(*args, **kwargs)
    headers = vars(job).get(_HEADERS)
    if headers:
        fields["meta"] = {**(fields.get("meta") or {}), _KEY: headers}
    return fields


def _deserialize(wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
    job = wrapped(*args, **kwargs)
    _take_out(job)
    return job


@guarded
def _take_out(job: Any) -> None:
    if job is not None and job.meta and _KEY in job.meta:
        vars(job)[_HEADERS] = dict(job.meta[_KEY])
        job.meta = {key: value for key, value in job.meta.items() if key != _KEY}


def _next_retry_delay(wrapped: Callable[..., float], job: Any, args: Any, kwargs: Any) -> float:
    delay = wrapped(*args, **kwargs)
    _note_retry(job, delay)
    return delay


@guarded
def _note_retry(job: Any, delay: float) -> None:
    """Say that the job waits from now on: SAQ asks for the delay as it writes the job back into its queue."""
    headers = vars(job).get(_HEADERS)
    if not headers:
        return
    if delay and _on_postgres(job.queue):
        now = time.time()
        delay = max(0.0, int(now + delay) - now)  # kept there in whole seconds
    travelled.write_times(headers, delay, job.attempts + 1)


def _made(wrapped: Callable[..., None], worker: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    _wrap_functions(worker)


@guarded
def _wrap_functions(worker: Any) -> None:
    from saq.worker import ensure_coroutine_function

    for name, function in worker.functions.items():
        if getattr(function, "_bulkscope", False):
            continue
        # Plain functions too, as SAQ runs them: what a time limit or an abort ends is the coroutine around them.
        pool = (worker.pool,) if hasattr(worker, "pool") else ()
        worker.functions[name] = _working(worker, function, ensure_coroutine_function(function, *pool))


def _working(worker: Any, function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def coroutine(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        job, began = ctx["job"], time.monotonic()

        def begin() -> Work:
            described = _job(worker.queue, job)
            described.function = function
            return Work(described, vars(job).get(_HEADERS) or _times_of(job))

        def timed_out() -> bool:
            # SAQ's clock began a moment before the coroutine's.
            return bool(job.timeout) and time.monotonic() - began >= job.timeout - 0.1

        def retried(error: BaseException) -> bool:
            if isinstance(error, asyncio.CancelledError) and not timed_out():
                return not _is_aborted(worker, job)  # the worker shuts down
            return bool(job.retryable)

        with working(begin, retried, max(1, job.attempts)) as work:
            try:
                return await original(ctx, *args, **kwargs)
            except asyncio.CancelledError:
                # The coroutine is cancelled at its time limit; SAQ fails the job with TimeoutError.
                if work is not None and timed_out():
                    work.error = TimeoutError()
                raise

    coroutine._bulkscope = True  # type: ignore[attr-defined]
    return coroutine


def _is_aborted(worker: Any, job: Any) -> bool:
    return (worker.job_task_contexts.get(job) or {}).get("aborted") is not None


def _times_of(job: Any) -> dict[str, str]:
    """Return what SAQ itself knows of a job without headers, a cron job for one; its clock has milliseconds."""
    if job.attempts > 1 or not job.queued:
        return {}
    enqueued = job.queued / 1e3
    delay = max(0.0, job.scheduled - enqueued) if job.scheduled else 0.0
    return {travelled.ENQUEUED: str(int(enqueued * 1e9)), travelled.DELAY: repr(delay)}


async def _start(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    _watch(worker.queue)
    return await wrapped(*args, **kwargs)


@guarded
def _watch(queue: Any) -> None:
    if _on_postgres(queue):
        _watch_postgres(queue)
    elif type(queue).__name__ == "RedisQueue":
        _watch_redis(queue)


def _watch_redis(queue: Any) -> None:
    client = _redis.beside(queue.redis.connection_pool)
    waiting = f"saq:{queue.name}:queued"

    def oldest_age(name: str) -> float | None:
        # Jobs are pushed on the right and taken from the left.
        first: Any = client.lindex(waiting, 0)
        raw: Any = None if first is None else client.get(first)
        headers = (queue._load(raw).get("meta") or {}).get(_KEY) or {} if raw else {}
        age = travelled.age(headers)
        return None if age is None else max(0.0, age - travelled.delay_of(headers))

    def depth(name: str) -> float:
        found: Any = client.llen(waiting)
        return float(found)

    queues.watch([queue.name], depth, oldest_age)


def _watch_postgres(queue: Any) -> None:
    options = queue.pool.kwargs
    if callable(options):
        return  # a password that is asked for anew each time: the depth is not reported
    from psycopg.sql import SQL

    # In whole seconds there.
    question = SQL(
        "SELECT count(*), extract(epoch FROM now()) - min(scheduled) FROM {} "
        "WHERE status = 'queued' AND queue = %s AND scheduled <= extract(epoch FROM now())"
    ).format(queue.jobs_table)

    def ask(connection: Any, name: str) -> Any:
        return connection.execute(question, (name,)).fetchone()

    _postgres.watch([queue.name], queue.pool.conninfo, options or {}, ask)
