"""arq: a PRODUCER span where a job is enqueued, a CONSUMER span where its coroutine runs.

A job is stored as a serialized dictionary. What must travel is one more key of it, which a worker without
Bulkscope does not read.
"""

from __future__ import annotations

import asyncio
import functools
import pickle
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import headers as travelled
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded

_KEY = "bulkscope"
# Running jobs are among the first of the queue; more than these are never run at once.
_LOOKED_AT = 1000
_sent: ContextVar[dict[str, str] | None] = ContextVar("bulkscope-arq-sent", default=None)
_received: ContextVar[dict[str, Any] | None] = ContextVar("bulkscope-arq-received", default=None)
_taken: ContextVar[_Taken | None] = ContextVar("bulkscope-arq-taken", default=None)


class _Taken:
    """A job that the worker has taken from the queue: what was stored of it, and what it came to without a start."""

    def __init__(self) -> None:
        self.stored: Any = None
        self.begun = False
        self.result: Any = None


class ArqInstrumentor(Instrumentor):
    """Instruments arq 0.25 and later."""

    module = "arq"
    requires = ("arq >= 0.25",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where jobs are enqueued, serialized and given to the worker's functions."""
        from arq import connections, worker

        self.wrap(connections.ArqRedis, "enqueue_job", _enqueue)
        self.wrap(connections, "serialize_job", _serialize)
        self.wrap(worker, "deserialize_job_raw", _deserialize)
        self.wrap(worker.Worker, "__init__", _made)
        self.wrap(worker.Worker, "main", _main)
        self.wrap(worker.Worker, "run_job", _run_job)
        self.wrap(worker, "serialize_result", _serialize_result)


def _seconds(value: Any) -> float:
    return float(value.total_seconds() if isinstance(value, timedelta) else value or 0)


def _delay(options: dict[str, Any]) -> float:
    until = options.get("_defer_until")
    if until is None:
        return _seconds(options.get("_defer_by"))
    # A naive moment is local time to arq.
    return max(0.0, _seconds(until.astimezone(UTC) - datetime.now(UTC)))


def _expires(redis: Any, options: dict[str, Any]) -> float:
    # Redis forgets the job then.
    return _seconds(options.get("_expires")) or _delay(options) + float(redis.expires_extra_ms) / 1e3


async def _enqueue(wrapped: Callable[..., Any], redis: Any, args: Any, kwargs: Any) -> Any:
    # An id given here is one that arq would have made a moment later in the same way.
    options = {**kwargs, "_job_id": kwargs.get("_job_id") or uuid4().hex}

    def begin() -> Send:
        return Send(
            Job(
                system="redis",
                queue=options.get("_queue_name") or redis.default_queue_name,
                id=options["_job_id"],
                task=args[0] if args else options["function"],
                args=args[1:],
                payload={key: value for key, value in options.items() if not key.startswith("_")},
            ),
            delay=_delay(options),
            attempt=int(options.get("_job_try") or 1),
            expires=_expires(redis, options),
        )

    with sending(begin) as sent:
        token = _sent.set(sent.headers)
        try:
            job = await wrapped(*args, **options)
        finally:
            _sent.reset(token)
        if job is None:
            sent.refused()
        return job


def _serialize(wrapped: Callable[..., bytes], instance: Any, args: Any, kwargs: Any) -> bytes:
    headers = _sent.get()
    if not headers:
        return wrapped(*args, **kwargs)
    serializer = kwargs.get("serializer") or pickle.dumps
    return wrapped(*args, **{**kwargs, "serializer": lambda data: serializer({**data, _KEY: headers})})


def _deserialize(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    deserializer = kwargs.get("deserializer") or pickle.loads
    _received.set(None)

    def read(raw: bytes) -> Any:
        data = deserializer(raw)
        _received.set(data.get(_KEY) if isinstance(data, dict) else None)
        return data

    stored = wrapped(*args, **{**kwargs, "deserializer": read})
    taken = _taken.get()
    if taken is not None:
        taken.stored = stored
    return stored


async def _run_job(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    taken = _Taken()
    _taken.set(taken)  # in a task of the job's own
    try:
        return await wrapped(*args, **kwargs)
    finally:
        if not taken.begun and taken.stored is not None:
            _not_begun(worker, str(args[0] if args else kwargs["job_id"]), taken)


def _serialize_result(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    taken = _taken.get()
    if taken is not None:
        taken.result = kwargs["result"] if "result" in kwargs else args[6] if len(args) > 6 else None
    return wrapped(*args, **kwargs)


@guarded
def _not_begun(worker: Any, job_id: str, taken: _Taken) -> None:
    if taken.result is None:
        return  # the worker has put it back, or is on its way out
    task, args, kwargs = taken.stored[:3]
    if isinstance(taken.result, asyncio.CancelledError):
        reason = "aborted"
    else:
        reason = "retries" if task in worker.functions else "unregistered"
    job = Job(system="redis", queue=worker.queue_name, id=job_id, task=task, args=args, payload=kwargs)
    cancelled(job, _received.get() or {}, reason)


def _made(wrapped: Callable[..., None], worker: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    _wrap_functions(worker)


@guarded
def _wrap_functions(worker: Any) -> None:
    for function in worker.functions.values():
        if not getattr(function.coroutine, "_bulkscope", False):
            function.coroutine = _working(worker, function, function.coroutine)


def _working(worker: Any, function: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def coroutine(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        taken = _taken.get()
        if taken is not None:
            taken.begun = True
        attempt = int(ctx.get("job_try") or 1)
        began = time.monotonic()
        timeout = worker.job_timeout_s if function.timeout_s is None else function.timeout_s

        def begin() -> Work:
            headers = dict(_received.get() or {})
            if attempt > 1 and headers:
                # arq puts the same job back, to be run from this moment on.
                headers.pop(travelled.CLOCK, None)
                headers |= {travelled.ENQUEUED: str(int(ctx["score"]) * 1_000_000), travelled.DELAY: "0"}
            return Work(
                Job(
                    system="redis",
                    queue=worker.queue_name,
                    id=str(ctx["job_id"]),
                    task=function.name,
                    args=args,
                    payload=kwargs,
                ),
                headers,
            )

        def retried(error: BaseException) -> bool:
            limit = worker.max_tries if function.max_tries is None else function.max_tries
            if not worker.retry_jobs or attempt >= limit or ctx["job_id"] in worker.aborting_tasks:
                return False
            kinds = {kind.__name__ for kind in type(error).__mro__}
            return bool(kinds & {"Retry", "RetryJob"}) or ("CancelledError" in kinds and not timed_out())

        def timed_out() -> bool:
            # arq's clock began a moment before the coroutine's.
            return timeout is not None and time.monotonic() - began >= timeout - 0.1

        with working(begin, retried, attempt) as work:
            try:
                return await original(ctx, *args, **kwargs)
            except asyncio.CancelledError:
                # The coroutine is cancelled at its time limit; arq fails the job with TimeoutError.
                if work is not None and timed_out():
                    work.error = TimeoutError()
                raise

    coroutine._bulkscope = True  # type: ignore[attr-defined]
    return coroutine


async def _main(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    _watch(worker)
    return await wrapped(*args, **kwargs)


@guarded
def _watch(worker: Any) -> None:
    settings = worker.redis_settings
    if settings is None or not isinstance(settings.host, str):
        return  # made from a pool, or behind a sentinel: the depth is not reported
    from redis import Redis

    # The worker's own connections belong to its event loop; metrics are read in another thread.
    client = Redis(
        host=settings.host, port=settings.port, db=settings.database, username=settings.username,
        password=settings.password, ssl=settings.ssl, unix_socket_path=settings.unix_socket_path,
    )  # fmt: skip

    def due(name: str) -> tuple[float, float | None]:
        """Return how many jobs wait and the oldest one's age: running ones stay in arq's queue."""
        now = time.time() * 1e3
        first = client.zrangebyscore(name, 0, now, start=0, num=_LOOKED_AT, withscores=True)
        running = client.pipeline(transaction=False)
        for job_id, _ in first:
            running.exists(b"arq:in-progress:" + job_id)
        flags = running.execute() if first else []
        oldest = next((score for (_, score), busy in zip(first, flags, strict=True) if not busy), None)
        return client.zcount(name, 0, now) - sum(flags), None if oldest is None else (now - oldest) / 1e3

    queues.watch([worker.queue_name], lambda name: due(name)[0], lambda name: due(name)[1])
