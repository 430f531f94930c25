"""Taskiq: a PRODUCER span where a task is kicked, a CONSUMER span where it runs.

What must travel is a label of the message, which any broker and any worker hands on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.failures import error_type
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _redis

LABEL = "bulkscope"
_REQUEUED = "X-Taskiq-requeue"
_SYSTEMS = ("redis", "rabbitmq", "nats", "kafka", "sqs", "postgres", "zero_mq")
_raised: ContextVar[list[BaseException] | None] = ContextVar("bulkscope-taskiq-raised", default=None)
# Of the message that is being received: whether its task was run.
_ran: ContextVar[list[bool] | None] = ContextVar("bulkscope-taskiq-ran", default=None)
# The stack that the sending of the task being kicked is left by.
_kicking: ContextVar[ExitStack | None] = ContextVar("bulkscope-taskiq-kicking", default=None)


class TaskiqInstrumentor(Instrumentor):
    """Instruments Taskiq 0.11 and later."""

    module = "taskiq"
    requires = ("taskiq >= 0.11",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where messages are made and kicked, and where the worker runs their tasks."""
        from taskiq.kicker import AsyncKicker
        from taskiq.receiver import Receiver

        self.wrap(AsyncKicker, "kiq", _kiq)
        self.wrap(AsyncKicker, "_prepare_message", _prepare_message)
        self.wrap(Receiver, "__init__", _made)
        self.wrap(Receiver, "callback", _callback)
        self.wrap(Receiver, "run_task", _run_task)
        self.wrap(Receiver, "listen", _listen)


def _system(broker: Any) -> str:
    name = f"{type(broker).__module__}.{type(broker).__name__}".lower().replace("aio_pika", "rabbitmq")
    return next((system for system in _SYSTEMS if system in name), "in_memory" if "memory" in name else "taskiq")


def _queue_name(broker: Any, labels: dict[str, Any]) -> str:
    return str(labels.get("queue_name") or getattr(broker, "queue_name", None) or "taskiq")


async def _kiq(wrapped: Callable[..., Any], kicker: Any, args: Any, kwargs: Any) -> Any:
    with ExitStack() as stack:
        token = _kicking.set(stack)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            _kicking.reset(token)


def _prepare_message(wrapped: Callable[..., Any], kicker: Any, args: Any, kwargs: Any) -> Any:
    message = wrapped(*args, **kwargs)
    stack = _kicking.get()
    if stack is None:
        return message  # scheduled: the scheduler kicks it when its time has come
    try:
        sent = sending(lambda: _send(kicker.broker, message))
        stack.enter_context(sent)
        if sent.headers:
            message.labels[LABEL] = json.dumps(sent.headers)
    except Exception:
        report("the message of a Taskiq task")
    return message


def _job(broker: Any, message: Any) -> Job:
    return Job(
        system=_system(broker),
        queue=_queue_name(broker, message.labels),
        id=message.task_id,
        task=message.task_name,
        args=message.args,
        payload=message.kwargs,
        function=getattr(broker.find_task(message.task_name), "original_func", None),
    )


def _send(broker: Any, message: Any) -> Send:
    labels = message.labels
    return Send(
        _job(broker, message),
        delay=float(labels.get("delay") or 0),
        attempt=int(labels.get("_retries") or 0) + 1,
        previous=_headers(labels),
    )


def _headers(labels: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(labels.get(LABEL) or "{}")
    return found


async def _callback(wrapped: Callable[..., Any], receiver: Any, args: Any, kwargs: Any) -> Any:
    ran: list[bool] = []
    token = _ran.set(ran)
    reason: str | None = None
    try:
        answer = await wrapped(*args, **kwargs)
        reason = "unregistered"
        return answer
    except Exception as error:
        reason = error_type(error)
        raise
    finally:
        _ran.reset(token)
        # Cancelled with the worker's end, which is no Exception: the message comes again.
        if reason is not None and not ran:
            _not_run(receiver.broker, args[0] if args else kwargs["message"], reason)


@guarded
def _not_run(broker: Any, message: Any, reason: str) -> None:
    """Tell of a message whose task the worker does not know, or that a middleware has refused."""
    loaded = broker.formatter.loads(message=getattr(message, "data", message))
    loaded.parse_labels()
    cancelled(_job(broker, loaded), _headers(loaded.labels), reason)


async def _run_task(wrapped: Callable[..., Any], receiver: Any, args: Any, kwargs: Any) -> Any:
    ran = _ran.get()
    if ran is not None:
        ran.append(True)
    message = kwargs["message"] if "message" in kwargs else args[1]
    broker = receiver.broker

    def begin() -> Work:
        return Work(
            _job(broker, message),
            _headers(message.labels),
        )

    # The receiver keeps what a task raises to itself, in the result; by then a middleware has kicked the
    # task again if it is to be, from inside this job's context.
    with working(begin) as work:
        requeued = message.labels.get(_REQUEUED)
        raised: list[BaseException] = []
        token = _raised.set(raised)
        try:
            result = await wrapped(*args, **kwargs)
        finally:
            _raised.reset(token)
        if work is not None and result.is_err:
            error = raised[0] if raised else result.error
            # A task that asks for no result, or to be queued again, raises this; it has not failed.
            if type(error).__name__ != "NoResultError":
                work.error = error
            elif message.labels.get(_REQUEUED) != requeued:
                work.retry = True
        return result


def _noting(base: type) -> Any:
    """Return a middleware that notes what a task raised, before one that tries again replaces it."""

    class NoteError(base):  # type: ignore[misc]
        def on_error(self, message: Any, result: Any, exception: BaseException) -> None:
            raised = _raised.get()
            if raised is not None:
                raised.append(exception)

    return NoteError()


def _made(wrapped: Callable[..., None], receiver: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    _note_errors(receiver.broker)


@guarded
def _note_errors(broker: Any) -> None:
    from taskiq import TaskiqMiddleware

    if not any(type(middleware).__name__ == "NoteError" for middleware in broker.middlewares):
        # Last in the list is the first that is told of an error.
        broker.middlewares.append(_noting(TaskiqMiddleware))


async def _listen(wrapped: Callable[..., Any], receiver: Any, args: Any, kwargs: Any) -> Any:
    _watch(receiver.broker)
    return await wrapped(*args, **kwargs)


@guarded
def _watch(broker: Any) -> None:
    pool, kind = getattr(broker, "connection_pool", None), type(broker).__name__
    if pool is None:
        return
    if "ListQueue" in kind:
        client = _redis.beside(pool)
        queues.watch([broker.queue_name], lambda name: float(client.llen(name)))
    elif "Stream" in kind:
        client = _redis.beside(pool)
        queues.watch([broker.queue_name], lambda name: _undelivered(client, name, broker.consumer_group_name))


def _undelivered(client: Any, stream: str, group: str) -> float | None:
    """Return how many entries of a stream no worker of the group has been given; None where Redis cannot say."""
    for each in client.xinfo_groups(stream):
        if each["name"] == group.encode():
            return None if each.get("lag") is None else float(each["lag"])
    return None
