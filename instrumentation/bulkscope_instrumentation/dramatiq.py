"""Dramatiq: a PRODUCER span where a message is enqueued, a CONSUMER span where it is processed.

The broker's ``enqueue`` is wrapped on each broker that is made, so that any broker's is, RabbitMQ's and third
parties' too. What must travel is an option of the message, which actors never see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work, working
from bulkscope._safe import guarded

OPTION = "bulkscope"
_ERROR = "_bulkscope_error"
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
    )


def _process(wrapped: Callable[..., Any], thread: Any, args: Any, kwargs: Any) -> Any:
    message = args[0] if args else kwargs["message"]

    def begin() -> Work:
        return Work(
            _job(thread.broker, message),
            message.options.get(OPTION) or {},
        )

    # The thread keeps what an actor raises to itself, on the message; by then it has been enqueued again
    # if it is to be, from inside this job's context.
    with working(begin) as work:
        result = wrapped(*args, **kwargs)
        if work is not None:
            work.error = vars(message).pop(_ERROR, None)
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
