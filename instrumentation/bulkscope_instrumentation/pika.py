"""pika: a PRODUCER span where a message that is a job is published, a CONSUMER span where it is worked on.

Which messages are jobs says ``_messages``. A callback is an attempt, which lasts on where it hands the message to a
thread that acknowledges it later. Of ``basic_get`` and ``consume`` the attempt ends with the message's
acknowledgement, with ``auto_ack`` when the next message is asked for.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.send import sending
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _amqp
from bulkscope_instrumentation._messages import Attempt, Parcel, Pulled, Unsettled, parcel, reason, received, watch

_PUBLISH = ("exchange", "routing_key", "body", "properties", "mandatory")
_CONSUME = ("queue", "on_message_callback", "auto_ack")
_GET = ("queue", "auto_ack")
_GET_BY_CALLBACK = ("queue", "callback", "auto_ack")
# Seconds that a question for the depth of a queue may take.
_PATIENCE_S = 2

_unsettled = Unsettled()


class PikaInstrumentor(Instrumentor):
    """Instruments pika 1.2 and later: ``BlockingConnection``, ``SelectConnection`` and its like."""

    module = "pika"
    requires = ("pika >= 1.2",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the channels of both kinds; a blocking one sends and settles through the other."""
        from pika.adapters import blocking_connection
        from pika.channel import Channel

        self._blocking = blocking_connection.BlockingChannel
        self._connection = blocking_connection.BlockingConnection
        for kind in (self._blocking, Channel):
            self.wrap(kind, "basic_publish", self._publish)
            self.wrap(kind, "basic_consume", self._basic_consume)
        self.wrap(self._blocking, "basic_get", self._get)
        self.wrap(self._blocking, "consume", self._consume)
        self.wrap(Channel, "basic_get", self._get_by_callback)
        self.wrap(Channel, "basic_ack", _ack)
        self.wrap(Channel, "basic_nack", _nack)
        self.wrap(Channel, "basic_reject", _reject)
        self.wrap(Channel, "basic_recover", _recover)

    def _publish(self, wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
        given = {**dict(zip(_PUBLISH, args, strict=False)), **kwargs}
        found = _parcel(given)
        if found is None:
            return wrapped(*args, **kwargs)
        with sending(found.send) as sent:
            properties = _with(given.get("properties"), found.headers(sent))
            if properties is None:
                return wrapped(*args, **kwargs)
            return wrapped(**{**given, "properties": properties})

    def _basic_consume(self, wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
        given = {**dict(zip(_CONSUME, args, strict=False)), **kwargs}
        callback = given.get("on_message_callback")
        # A blocking channel takes what it is given from the other kind, and hands it on.
        if not callable(callback) or isinstance(getattr(callback, "__self__", None), self._blocking):
            return wrapped(*args, **kwargs)
        given["on_message_callback"] = self._around(callback, str(given.get("queue") or ""), given.get("auto_ack"))
        if len(args) <= len(_CONSUME):
            return wrapped(**given)
        return wrapped(*(given[name] for name in _CONSUME), *args[len(_CONSUME) :], **kwargs)

    def _get_by_callback(self, wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
        given = {**dict(zip(_GET_BY_CALLBACK, args, strict=False)), **kwargs}
        callback = given.get("callback")
        if not callable(callback) or type(getattr(callback, "__self__", None)).__name__ == "_CallbackResult":
            return wrapped(*args, **kwargs)
        given["callback"] = self._around(callback, str(given.get("queue") or ""), given.get("auto_ack"))
        return wrapped(**given)

    def _around(self, callback: Callable[..., Any], queue: str, auto_ack: Any) -> Callable[..., Any]:
        @_like(callback)
        def on_message(channel: Any, method: Any, properties: Any, body: Any) -> Any:
            attempt = self._received(channel, queue, bool(auto_ack), method, properties, body)
            if attempt is None:
                return callback(channel, method, properties, body)
            with attempt.running():
                return callback(channel, method, properties, body)

        return on_message

    @guarded
    def _received(
        self, channel: Any, queue: str, auto_ack: bool, method: Any, properties: Any, body: Any
    ) -> Attempt | None:
        headers = getattr(properties, "headers", None)
        if not headers or method is None:
            return None
        queue = queue or method.routing_key
        attempt = received(
            "rabbitmq", queue, headers, body,
            came_from=_amqp.came_from(method.exchange, method.routing_key, queue, headers),
            names=(method.exchange, method.routing_key), again=_amqp.again(headers), put_back=bool(method.redelivered),
            settles=not auto_ack,
        )  # fmt: skip
        if attempt is None:
            return None
        channel = getattr(channel, "_impl", channel)
        if not auto_ack and _unsettled.add(channel, method.delivery_tag, attempt):
            channel.add_on_close_callback(_closed)
        self._watch(channel, queue)
        return attempt

    def _get(self, wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
        given = {**dict(zip(_GET, args, strict=False)), **kwargs}
        pulled = _pulled(channel)
        pulled.move_on()
        found = wrapped(*args, **kwargs)
        self._took(pulled, channel, str(given.get("queue") or ""), bool(given.get("auto_ack")), found)
        return found

    def _consume(self, wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Iterator[Any]:
        given = {**dict(zip(_GET, args, strict=False)), **kwargs}
        pulled, messages = _pulled(channel), wrapped(*args, **kwargs)
        try:
            for message in messages:
                self._took(pulled, channel, str(given.get("queue") or ""), bool(given.get("auto_ack")), message)
                yield message
                pulled.move_on()
        finally:
            pulled.move_on()
            messages.close()

    @guarded
    def _took(self, pulled: Pulled, channel: Any, queue: str, auto_ack: bool, message: Any) -> None:
        attempt = self._received(channel, queue, auto_ack, *message)
        if attempt is not None:
            pulled.add(attempt)

    @guarded
    def _watch(self, channel: Any, queue: str) -> None:
        """Report the depth of a queue that jobs come from; the broker is asked over a connection of our own."""
        params = channel.connection.params
        connection = channel.connection
        watch(
            (params.host, params.port, params.virtual_host, queue),
            lambda: _Depth(self._connection, params, connection),
        )  # fmt: skip


class _Depth:
    """Asks the broker for the ready messages of a queue; after an error the next question opens a fresh connection.

    A broker that does not answer is given up after ``_PATIENCE_S``: the reader of all metrics waits for it.
    """

    def __init__(self, connection: Any, params: Any, of: Any) -> None:
        self._make, self._params, self._of = connection, copy.copy(params), weakref.ref(of)
        self._connection: Any = None
        self._channel: Any = None
        self._params.socket_timeout = self._params.stack_timeout = _PATIENCE_S
        self._params.blocked_connection_timeout = _PATIENCE_S
        self._params.connection_attempts, self._params.retry_delay = 1, 0  # what is waited between two
        self._params.heartbeat = 0  # nobody reads between two questions

    def usable(self) -> bool:
        """Tell whether the application's connection, whose parameters these are, is open."""
        of = self._of()
        return of is not None and not of.is_closed

    def __call__(self, queue: str) -> float | None:
        try:
            if self._connection is None:
                self._connection = self._make(self._params)
            loop = self._connection._impl
            timer = loop._adapter_call_later(_PATIENCE_S, _give_up)
            try:
                if self._channel is None:
                    self._channel = self._connection.channel()
                return float(self._channel.queue_declare(queue=queue, passive=True).method.message_count)
            finally:
                loop._adapter_remove_timeout(timer)
        except Exception:
            self._connection = self._channel = None
            raise


def _give_up() -> None:
    """Raise out of whatever the connection waits for."""
    raise TimeoutError("RabbitMQ has not said in time how many messages wait")


def _like(callback: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def named(ours: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return functools.wraps(callback)(ours)
        except Exception:
            report("naming a callback")
            return ours

    return named


@guarded
def _parcel(given: Mapping[str, Any]) -> Parcel | None:
    exchange, key, properties = given.get("exchange") or "", given.get("routing_key") or "", given.get("properties")
    headers = getattr(properties, "headers", None)
    return parcel(
        "rabbitmq", exchange or key, _amqp.place(exchange, key), headers, given.get("body"), names=(key,),
        message_id=getattr(properties, "message_id", None), task=getattr(properties, "type", None),
        delay=_amqp.delay(headers), expires=_amqp.expires(getattr(properties, "expiration", None)),
    )  # fmt: skip


@guarded
def _with(properties: Any, headers: Mapping[str, str]) -> Any:
    """Return a copy of the properties with our headers; what the application has is left as it is."""
    if not headers:
        return None
    if properties is None:
        from pika import BasicProperties

        return BasicProperties(headers=dict(headers))
    ours = copy.copy(properties)
    ours.headers = {**(properties.headers or {}), **headers}
    return ours


_PULLED = "_bulkscope_pulled"


def _pulled(channel: Any) -> Pulled:
    found = vars(channel).get(_PULLED)
    if found is None:
        found = vars(channel)[_PULLED] = Pulled()
    return found  # type: ignore[no-any-return]


def _closed(channel: Any, *_: Any) -> None:
    guarded(_unsettled.closed)(channel)


@guarded
def _settle(channel: Any, tag: Any, multiple: Any, refused: bool | None = None) -> None:
    """Settle messages; ``refused`` is None for those that went well, else whether they are put back."""
    error = None if refused is None else reason(refused)
    _unsettled.settle(channel, int(tag or 0), bool(multiple), error=error, retry=bool(refused))


def _argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _ack(wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    if _unsettled.any(channel):
        _settle(channel, _argument(args, kwargs, 0, "delivery_tag", 0), _argument(args, kwargs, 1, "multiple", False))
    return result


def _nack(wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    if _unsettled.any(channel):
        _settle(
            channel, _argument(args, kwargs, 0, "delivery_tag", 0), _argument(args, kwargs, 1, "multiple", False),
            refused=bool(_argument(args, kwargs, 2, "requeue", True)),
        )  # fmt: skip
    return result


def _reject(wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    if _unsettled.any(channel):
        tag = _argument(args, kwargs, 0, "delivery_tag", 0)
        _settle(channel, tag, False, refused=bool(_argument(args, kwargs, 1, "requeue", True)))
    return result


def _recover(wrapped: Callable[..., Any], channel: Any, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    if _unsettled.any(channel):
        _settle(channel, 0, True, refused=True)
    return result
