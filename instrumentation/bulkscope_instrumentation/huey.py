"""Huey: a PRODUCER span where a task is enqueued, a CONSUMER span where it is executed.

A message of Huey's has a fixed set of fields. What must travel follows its pickle, where ``pickle.loads``
stops reading: a consumer without Bulkscope never sees it, signed and compressed messages hold it too, and
a serializer of the application's own carries nothing, so that its jobs have no queue wait.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.headers import attempt_of
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded

_ATTRIBUTE = "_bulkscope_headers"
_WORK = "_bulkscope_work"
_FAILED = frozenset(("error", "timeout", "locked", "rate-limited", "canceled", "interrupted"))
_NOT_BEGUN = frozenset(("revoked", "expired"))
_MARK = b"\nbulkscope:"
_passing = threading.local()


class HueyInstrumentor(Instrumentor):
    """Instruments Huey 2.4 and later."""

    module = "huey"
    requires = ("huey >= 2.4",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where tasks are enqueued, serialized, executed and tried again."""
        from huey import consumer
        from huey.api import Huey
        from huey.serializer import Serializer

        self.wrap(Huey, "enqueue", _enqueue)
        self.wrap(Huey, "serialize_task", _serialize_task)
        self.wrap(Huey, "deserialize_task", _deserialize_task)
        self.wrap(Serializer, "_serialize", _serialize)
        self.wrap(Serializer, "_deserialize", _deserialize)
        self.wrap(Huey, "_execute", _execute)
        self.wrap(Huey, "_emit", _emit)
        self.wrap(Huey, "dequeue", _dequeue)
        self.wrap(Huey, "_requeue_task", _requeue)
        self.wrap(consumer.Consumer, "start", _start)


def _system(huey: Any) -> str:
    name = type(huey.storage).__name__
    return next((system for system in ("redis", "sqlite", "file") if system in name.lower()), "in_memory")


def _until(huey: Any, eta: datetime | None) -> float:
    """Return the seconds until an ETA; a naive one is UTC, or local time where Huey is set to that."""
    if eta is None:
        return 0.0
    if eta.tzinfo is not None:
        now = datetime.now(UTC)
    else:
        now = datetime.now(UTC).replace(tzinfo=None) if getattr(huey, "utc", True) else datetime.now()
    return max(0.0, (eta - now).total_seconds())


def _function(task: Any) -> Any:
    """Return the function that Huey has made a task of, None where it is laid out otherwise."""
    execute = type(task).execute
    cells = dict(zip(execute.__code__.co_freevars, execute.__closure__ or (), strict=False))
    return cells["func"].cell_contents if "func" in cells else None


def _job(huey: Any, task: Any) -> Job:
    return Job(
        system=_system(huey),
        queue=huey.name,
        id=str(task.id),
        task=task.name,
        args=task.args,
        payload=task.kwargs,
        function=_function(task),
    )


def _send(huey: Any, task: Any, delay: float) -> Send:
    previous = vars(task).get(_ATTRIBUTE)
    return Send(
        _job(huey, task),
        delay=delay,
        attempt=attempt_of(previous) + 1,
        previous=previous,
        expires=_expires(huey, task),
    )


def _expires(huey: Any, task: Any) -> float | None:
    """Return in how many seconds a task expires, None where it does not."""
    given = getattr(task, "expires_resolved", None) or getattr(task, "expires", None)
    if isinstance(given, datetime):
        return _until(huey, given)
    if isinstance(given, timedelta):
        return given.total_seconds()
    return float(given) if isinstance(given, int | float) else None


def _enqueue(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    task = args[0] if args else kwargs["task"]
    # Groups and chords enqueue their tasks one by one; one with headers comes from the schedule.
    if not hasattr(task, "eta") or huey._immediate or _ATTRIBUTE in vars(task):
        return wrapped(*args, **kwargs)
    with sending(lambda: _send(huey, task, _until(huey, task.eta))) as sent:
        vars(task)[_ATTRIBUTE] = sent.headers
        return wrapped(*args, **kwargs)


def _requeue(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    task = args[0] if args else kwargs["task"]
    # Huey 3 says when, for a task that has asked for a moment of its own.
    eta = args[2] if len(args) > 2 else kwargs.get("retry_eta")
    with sending(lambda: _send(huey, task, _until(huey, eta) if eta else float(task.retry_delay or 0))) as sent:
        vars(task)[_ATTRIBUTE] = sent.headers
        return wrapped(*args, **kwargs)


def _serialize_task(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    task = args[0] if args else kwargs["task"]
    _passing.headers = vars(task).get(_ATTRIBUTE)
    try:
        return wrapped(*args, **kwargs)
    finally:
        _passing.headers = None


def _serialize(wrapped: Callable[..., bytes], serializer: Any, args: Any, kwargs: Any) -> bytes:
    data = wrapped(*args, **kwargs)
    headers = getattr(_passing, "headers", None)
    if headers and isinstance(data, bytes):
        data += _MARK + json.dumps(headers).encode()
    return data


def _deserialize_task(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    _passing.found = None
    task = wrapped(*args, **kwargs)
    if _passing.found:
        vars(task)[_ATTRIBUTE] = _passing.found
    return task


def _deserialize(wrapped: Callable[..., Any], serializer: Any, args: Any, kwargs: Any) -> Any:
    _find(args[0] if args else kwargs.get("data"))
    _passing.message = message = wrapped(*args, **kwargs)
    return message


def _dequeue(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    _passing.message = _passing.found = None
    try:
        return wrapped(*args, **kwargs)
    except Exception as error:
        # The message has left the queue, and Huey knows no task of its name.
        if type(error).__name__ == "HueyException":
            _lost_name(huey)
        raise


@guarded
def _lost_name(huey: Any) -> None:
    message, headers = _passing.message, getattr(_passing, "found", None)
    if message is not None and hasattr(message, "id"):
        job = Job(
            system=_system(huey), queue=huey.name, id=str(message.id), task=str(message.name),
            args=message.args or (), payload=message.kwargs,
        )  # fmt: skip
        cancelled(job, headers or {}, "unregistered")


@guarded
def _find(data: Any) -> None:
    _, mark, trailer = bytes(data).rpartition(_MARK)
    _passing.found = json.loads(trailer) if mark else None


def _execute(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    task = args[0] if args else kwargs["task"]
    if huey._immediate:
        return wrapped(*args, **kwargs)

    def begin() -> Work:
        return Work(
            _job(huey, task),
            vars(task).get(_ATTRIBUTE) or {},
        )

    with working(begin) as work:
        vars(task)[_WORK] = work
        try:
            return wrapped(*args, **kwargs)
        finally:
            vars(task).pop(_WORK, None)


def _emit(wrapped: Callable[..., Any], huey: Any, args: Any, kwargs: Any) -> Any:
    _note(huey, *args)
    return wrapped(*args, **kwargs)


@guarded
def _note(huey: Any, signal: str, task: Any = None, *rest: Any) -> None:
    """Learn from Huey's signals how a task ends: it keeps what a task raises to itself."""
    work = vars(task).get(_WORK) if task is not None else None
    if work is None:
        if signal in _NOT_BEGUN and task is not None and not huey._immediate:
            cancelled(_job(huey, task), vars(task).get(_ATTRIBUTE) or {}, signal)
        return
    if signal in _FAILED:
        # With a signal that does not bring it, the exception is the one being handled.
        work.error = rest[0] if rest and isinstance(rest[0], BaseException) else sys.exc_info()[1]
    elif signal == "retrying":
        work.retry = True


def _start(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    _watch(consumer.huey)
    return wrapped(*args, **kwargs)


@guarded
def _watch(huey: Any) -> None:
    queues.watch([huey.name], lambda name: float(huey.storage.queue_size()))
