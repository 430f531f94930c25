"""aio-pika: a PRODUCER span where a message that is a job is published, a CONSUMER span where it is worked on.

Which messages are jobs says ``_messages``. A callback is an attempt; of an iterator and of ``get`` the attempt lasts
until the message is settled, as ``message.process()`` does at its end, and without acknowledgements until the next one
is asked for, or the tasks that were started with it have ended.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.send import sending
from bulkscope._safe import guarded
from bulkscope_instrumentation import _amqp
from bulkscope_instrumentation._messages import (
    Attempt,
    InLoop,
    Parcel,
    Pulled,
    Unsettled,
    parcel,
    reason,
    received,
    watch,
)

_unsettled = Unsettled()


class AioPikaInstrumentor(Instrumentor):
    """Instruments aio-pika 9.0 and later."""

    module = "aio_pika"
    requires = ("aio-pika >= 9.0",)

    def patch(self, module: ModuleType) -> None:
        """Wrap exchanges, queues, their iterators and what settles a message."""
        from aio_pika import robust_queue
        from aio_pika.exchange import Exchange
        from aio_pika.message import IncomingMessage
        from aio_pika.queue import Queue, QueueIterator

        self._iterator = QueueIterator
        self._pulled: WeakKeyDictionary[Any, Pulled] = WeakKeyDictionary()
        self.wrap(Exchange, "publish", _publish)
        self.wrap(Queue, "consume", self._consume)
        self.wrap(Queue, "get", self._get)
        for iterator in {QueueIterator, getattr(robust_queue, "RobustQueueIterator", QueueIterator)}:
            if "__anext__" in vars(iterator):  # from 9.6 on that of a robust connection has one of its own
                self.wrap(iterator, "__anext__", self._next)
        self.wrap(QueueIterator, "close", self._close)
        self.wrap(IncomingMessage, "ack", _ack)
        self.wrap(IncomingMessage, "nack", _nack)
        self.wrap(IncomingMessage, "reject", _reject)

    def _consume(self, wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
        callback = args[0] if args else kwargs.get("callback")
        # An iterator takes what it hands out by a callback of its own.
        if not callable(callback) or isinstance(getattr(callback, "__self__", None), self._iterator):
            return wrapped(*args, **kwargs)
        no_ack = bool(args[1] if len(args) > 1 else kwargs.get("no_ack"))
        ours = _around(callback, queue, no_ack)
        return wrapped(ours, *args[1:], **kwargs) if args else wrapped(**{**kwargs, "callback": ours})

    async def _get(self, wrapped: Callable[..., Any], queue: Any, args: Any, kwargs: Any) -> Any:
        self._move_on(queue)
        message = await wrapped(*args, **kwargs)
        if message is not None:
            self._take(queue, queue, message, bool(kwargs.get("no_ack")))
        return message

    async def _next(self, wrapped: Callable[..., Any], iterator: Any, args: Any, kwargs: Any) -> Any:
        self._move_on(iterator)
        message = await wrapped(*args, **kwargs)
        self._took(iterator, message)
        return message

    async def _close(self, wrapped: Callable[..., Any], iterator: Any, args: Any, kwargs: Any) -> Any:
        self._move_on(iterator)
        return await wrapped(*args, **kwargs)

    @guarded
    def _move_on(self, source: Any) -> None:
        pulled = self._pulled.get(source)
        if pulled is not None:
            pulled.move_on()

    @guarded
    def _took(self, iterator: Any, message: Any) -> None:
        self._take(iterator, iterator._amqp_queue, message, bool(iterator._consume_kwargs.get("no_ack")))

    @guarded
    def _take(self, source: Any, queue: Any, message: Any, no_ack: bool) -> None:
        attempt = _received(queue, message, no_ack)
        if attempt is not None:
            self._pulled.setdefault(source, Pulled()).add(attempt, message if no_ack else None)


def _around(callback: Callable[..., Any], queue: Any, no_ack: bool) -> Callable[..., Any]:
    """Return a callback of the same kind, a coroutine function or a plain one, that is an attempt."""
    if inspect.iscoroutinefunction(callback):

        @functools.wraps(callback)
        async def coroutine(message: Any) -> Any:
            attempt = _received(queue, message, no_ack)
            if attempt is None:
                return await callback(message)
            with attempt.running():
                return await callback(message)

        return coroutine

    @functools.wraps(callback)
    def function(message: Any) -> Any:
        attempt = _received(queue, message, no_ack)
        if attempt is None:
            return callback(message)
        attempt.hold()
        with attempt.running():
            result = callback(message)
        if inspect.isawaitable(result):
            return _to_its_end(attempt, result)
        attempt.release()
        return result

    return function


async def _to_its_end(attempt: Attempt, result: Awaitable[Any]) -> Any:
    attempt.enter()
    try:
        return await result
    except BaseException as error:
        attempt.end(error, retry=attempt.settles and not attempt.settled)
        raise
    finally:
        attempt.leave()
        attempt.release()


@guarded
def _received(queue: Any, message: Any, no_ack: bool) -> Attempt | None:
    headers = message.headers
    if not headers:
        return None
    attempt = received(
        "rabbitmq", queue.name, headers, message.body,
        came_from=_amqp.came_from(message.exchange, message.routing_key, queue.name, headers),
        names=(message.exchange or "", message.routing_key or ""),
        again=_amqp.again(headers), put_back=bool(message.redelivered), settles=not no_ack,
    )  # fmt: skip
    if attempt is None:
        return None
    if not no_ack:
        channel = message.channel
        if _unsettled.add(channel, message.delivery_tag, attempt):
            channel.closing.add_done_callback(lambda _: guarded(_unsettled.closed)(channel))
    _watch(message.channel, queue.name)
    return attempt


async def _publish(wrapped: Callable[..., Any], exchange: Any, args: Any, kwargs: Any) -> Any:
    found = _parcel(exchange, args, kwargs)
    if found is None:
        return await wrapped(*args, **kwargs)
    with sending(found.send) as sent:
        message = _with(args[0] if args else kwargs["message"], found.headers(sent))
        if message is None:
            return await wrapped(*args, **kwargs)
        if args:
            return await wrapped(message, *args[1:], **kwargs)
        return await wrapped(**{**kwargs, "message": message})


@guarded
def _parcel(exchange: Any, args: Any, kwargs: Any) -> Parcel | None:
    message = args[0] if args else kwargs["message"]
    key = args[1] if len(args) > 1 else kwargs.get("routing_key") or ""
    name = exchange.name or ""
    return parcel(
        "rabbitmq", name or key, _amqp.place(name, key), message.headers, message.body, names=(key,),
        message_id=message.message_id, task=message.type, delay=_amqp.delay(message.headers),
        expires=_amqp.expires(message.properties.expiration),
    )  # fmt: skip


@guarded
def _with(message: Any, headers: Mapping[str, str]) -> Any:
    """Return a copy of the message with our headers; the application may send its own once more."""
    if not headers:
        return None
    ours = copy.copy(message)
    ours.headers = {**(message.headers or {}), **headers}
    return ours


def _channel(message: Any) -> Any:
    try:
        return message.channel
    except Exception:  # closed: what follows raises and says so
        return None


@guarded
def _settle(channel: Any, message: Any, multiple: Any, refused: bool | None = None) -> None:
    error = None if refused is None else reason(refused)
    _unsettled.settle(channel, message.delivery_tag or 0, bool(multiple), error=error, retry=bool(refused))


def _argument(args: Any, kwargs: Any, position: int, name: str, default: bool) -> bool:
    return bool(args[position] if len(args) > position else kwargs.get(name, default))


async def _ack(wrapped: Callable[..., Any], message: Any, args: Any, kwargs: Any) -> Any:
    channel = _channel(message)
    result = await wrapped(*args, **kwargs)
    if channel is not None and _unsettled.any(channel):
        _settle(channel, message, _argument(args, kwargs, 0, "multiple", False))
    return result


async def _nack(wrapped: Callable[..., Any], message: Any, args: Any, kwargs: Any) -> Any:
    channel = _channel(message)
    result = await wrapped(*args, **kwargs)
    if channel is not None and _unsettled.any(channel):
        multiple, requeue = _argument(args, kwargs, 0, "multiple", False), _argument(args, kwargs, 1, "requeue", True)
        _settle(channel, message, multiple, refused=requeue)
    return result


async def _reject(wrapped: Callable[..., Any], message: Any, args: Any, kwargs: Any) -> Any:
    channel = _channel(message)
    result = await wrapped(*args, **kwargs)
    if channel is not None and _unsettled.any(channel):
        _settle(channel, message, False, refused=_argument(args, kwargs, 0, "requeue", False))
    return result


@guarded
def _watch(channel: Any, queue: str) -> None:
    """Report the depth of a queue that jobs come from."""
    connection = channel.connection
    url = connection.url
    watch((url.host, url.port, url.path, queue), lambda: _Depth(connection, asyncio.get_running_loop()))


class _Depth(InLoop):
    """Asks the broker by a channel of our own on the application's connection."""

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._connection = connection
        self._channel: Any = None

    def is_open(self) -> bool:
        return not self._connection.is_closed

    async def ask(self, queue: str) -> float | None:
        if self._connection.is_closed:
            return None
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=False)
        declared = await self._channel.queue_declare(queue=queue, passive=True)
        return float(declared.message_count)
