"""Dramatiq: a PRODUCER span where a message is enqueued, a CONSUMER span where it is processed.

The broker's ``enqueue`` is wrapped on each broker that is made, so that any broker's is, RabbitMQ's and third
parties' too. What must travel is an option of the message, which actors never see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded

OPTION = "bulkscope"
_ERROR = "_bulkscope_error"
_processing = threading.local()
_SYSTEMS = {"RedisBroker": "redis", "RabbitmqBroker": "rabbitmq", "StubBroker": "in_memory", "SQSBroker": "aws_sqs"}


def _system(broker: Any) -> str:
    name = type(broker).__name__
    return _SYSTEMS.get(name, name.removesuffix("Broker").lower() or "dramatiq")


class DramatiqInstrumentor(Instrumentor):
    """Instruments Dramatiq 1.15 and later."""

    module = "dramatiq"
    requires = ("dramatiq >= 1.15",)

    def patch(self, module: ModuleType) -> None:
        """Wrap brokers as they are made, and the worker's threads."""
        from dramatiq import worker
        from dramatiq.broker import Broker, MessageProxy

        self._consumer: type = worker._ConsumerThread if hasattr(worker, "_ConsumerThread") else worker.ConsumerThread
        processing = worker._WorkerThread if hasattr(worker, "_WorkerThread") else worker.WorkerThread
        self.wrap(Broker, "__init__", self._made)
        self.wrap(Broker, "emit_before", _emit_before)
        self.wrap(self._consumer, "handle_message", _handle_message)
        self.wrap(processing, "process_message", _process)
        self.wrap(MessageProxy, "stuff_exception", _stuff_exception)
        self.wrap(worker.Worker, "start", _start)

    def _made(self, wrapped: Callable[..., None], broker: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        original = broker.enqueue

        def enqueue(message: Any, *, delay: int | None = None) -> Any:
            # A consumer moves a delayed message to its queue when its time has come: it was sent before.
            if not self._active or isinstance(threading.current_thread(), self._consumer):
                return original(message, delay=delay)
            with sending(lambda: _send(broker, message, delay)) as sent:
                return original(message.copy(options={OPTION: sent.headers}), delay=delay)

        broker.enqueue = enqueue


def _job(broker: Any, message: Any) -> Job:
    return Job(
        system=_system(broker),
        queue=message.queue_name,
        id=message.message_id,
        task=message.actor_name,
        args=message.args,
        payload=message.kwargs,
        function=getattr(broker.actors.get(message.actor_name), "fn", None),
    )


def _send(broker: Any, message: Any, delay: int | None) -> Send:
    options = message.options
    return Send(
        _job(broker, message),
        delay=(delay or 0) / 1e3,
        attempt=int(options.get("retries") or 0) + 1,
        previous=options.get(OPTION),
        expires=_expires(broker, message),
    )


def _expires(broker: Any, message: Any) -> float | None:
    """Return the seconds after which the middleware for it drops a message, None where it never does."""
    limit = next((one for one in broker.middleware if type(one).__name__ == "AgeLimit"), None)
    if limit is None:
        return None
    actor = broker.actors.get(message.actor_name)
    of_actor = actor.options.get("max_age", limit.max_age) if actor is not None else limit.max_age
    most = message.options.get("max_age") or of_actor
    return float(most) / 1e3 if most else None


class _Processing:
    """A message in its thread: its work begins when every middleware has let it through."""

    def __init__(self, broker: Any, message: Any) -> None:
        self._broker, self._message = broker, message
        self.stack = ExitStack()
        self.work: Work | None = None

    def begin(self) -> None:
        self.work = self.stack.enter_context(
            working(lambda: Work(_job(self._broker, self._message), self._message.options.get(OPTION) or {}))
        )

    @guarded
    def skip(self) -> None:
        reason = "expired" if self._message.failed else "skipped"
        cancelled(_job(self._broker, self._message), self._message.options.get(OPTION) or {}, reason)


def _handle_message(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    _tell_if_unregistered(consumer.broker, args[0] if args else kwargs["message"])
    return result


@guarded
def _tell_if_unregistered(broker: Any, message: Any) -> None:
    """Tell of a message that the consumer has rejected: no actor of its name is declared, and no thread gets it."""
    if message.failed and message.actor_name not in broker.actors:
        cancelled(_job(broker, message), message.options.get(OPTION) or {}, "unregistered")


def _process(wrapped: Callable[..., Any], thread: Any, args: Any, kwargs: Any) -> Any:
    message = args[0] if args else kwargs["message"]
    _processing.of = of = _Processing(thread.broker, message)
    # The thread keeps what an actor raises to itself, on the message; by then it has been enqueued again
    # if it is to be, from inside this job's context.
    with of.stack:
        try:
            result = wrapped(*args, **kwargs)
        finally:
            _processing.of = None
        if of.work is not None:
            of.work.error = vars(message).pop(_ERROR, None)
        return result


def _emit_before(wrapped: Callable[..., Any], broker: Any, args: Any, kwargs: Any) -> Any:
    of = getattr(_processing, "of", None) if args and args[0] == "process_message" else None
    if of is None:
        return wrapped(*args, **kwargs)
    try:
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        if type(error).__name__ == "SkipMessage":
            of.skip()
        else:
            of.begin()  # and fails
        raise
    of.begin()
    return result


def _stuff_exception(wrapped: Callable[..., Any], message: Any, args: Any, kwargs: Any) -> Any:
    # The message forgets it again before the thread is done with it.
    vars(message)[_ERROR] = args[0] if args else kwargs.get("exception")
    return wrapped(*args, **kwargs)


def _start(wrapped: Callable[..., Any], worker: Any, args: Any, kwargs: Any) -> Any:
    _watch(worker.broker)
    return wrapped(*args, **kwargs)


@guarded
def _watch(broker: Any) -> None:
    if hasattr(broker, "do_qsize"):
        queues.watch(broker.get_declared_queues(), lambda name: float(broker.do_qsize(name)))
