"""confluent-kafka: a PRODUCER span where a record that is a job is produced, a CONSUMER span where it is worked on.

Which records are jobs says ``_messages``. An attempt lasts until the consumer asks for the next record, commits this
one or is closed, and on as long as the calls in threads that were started with it. Both classes are C's and cannot be
patched: subclasses take their places before anything else of the package asks for them.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from bulkscope import _lifecycle
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.send import sending
from bulkscope._safe import guarded
from bulkscope_instrumentation import _kafka
from bulkscope_instrumentation._messages import Attempt, Parcel, parcel, watch, went_without

_PRODUCE = ("topic", "value", "key", "partition", "callback", "on_delivery", "timestamp", "headers")
_BATCH = ("topic", "messages")
_COMMIT = ("message", "offsets", "asynchronous")
# What the end of a consumer waits for is one such question.
_PATIENCE_S = 1.0


class ConfluentKafkaInstrumentor(Instrumentor):
    """Instruments confluent-kafka 2.0 and later."""

    module = "confluent_kafka.cimpl"
    name = "confluent_kafka"
    requires = ("confluent-kafka >= 2.0",)

    def patch(self, module: ModuleType) -> None:
        """Put subclasses in the places of the two classes."""
        ours = {"Producer": _producer(module.Producer), "Consumer": _consumer(module.Consumer)}
        # The package itself is there where it was imported before us.
        for place in filter(None, (module, sys.modules.get("confluent_kafka"))):
            for name, kind in ours.items():
                if hasattr(place, name):
                    self.replace(place, name, kind)


def _named_like(kind: type) -> Callable[[type], type]:
    def named(ours: type) -> type:
        ours.__name__, ours.__qualname__, ours.__module__, ours.__doc__ = (
            kind.__name__, kind.__qualname__, kind.__module__, kind.__doc__
        )  # fmt: skip
        return ours

    return named


def _producer(kind: Any) -> type:
    @_named_like(kind)
    class Producer(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Of all messages; one of a message's own would take its place.
            self._bulkscope_reported = _config(args, kwargs).get("on_delivery")
            super().__init__(*args, **kwargs)

        def produce(self, *args: Any, **kwargs: Any) -> Any:
            produce = super().produce
            given = _given(args, kwargs)
            found = None if given is None else _parcel(given)
            if given is None or found is None:
                return produce(*args, **kwargs)
            with sending(found.send) as sent:
                headers = found.headers(sent)
                if not headers:
                    return produce(*args, **kwargs)
                reporting = _reporting(produce, given, self._bulkscope_reported, found, sent)
                try:
                    return produce(**{**given, **reporting, "headers": _with(given.get("headers"), headers)})
                except Exception as error:
                    if _code(error) not in _kafka.OURS_TO_BLAME:
                        raise
                # Not to be sent as it is, so that it cannot come twice.
                result = produce(**{**given, **reporting})
                went_without("Kafka")
                return result

    if hasattr(kind, "produce_batch"):  # since 2.13; it takes no headers, so that these jobs go without

        def produce_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.produce_batch(self, *args, **kwargs)
            _count_batch(args, kwargs)
            return result

        Producer.produce_batch = produce_batch
    return Producer


@guarded
def _count_batch(args: Any, kwargs: Any) -> None:
    given = {**dict(zip(_BATCH, args, strict=False)), **kwargs}
    for message in given["messages"]:
        if "_error" not in message and _parcel({**message, "topic": given["topic"]}) is not None:
            went_without("Kafka")


@guarded
def _given(args: Any, kwargs: Any) -> dict[str, Any] | None:
    return {**dict(zip(_PRODUCE, args, strict=False)), **kwargs}


@guarded
def _parcel(given: dict[str, Any]) -> Parcel | None:
    topic = str(given["topic"])
    return parcel("kafka", topic, topic, given.get("headers"), given.get("value"))


def _with(before: Any, headers: dict[str, str]) -> list[tuple[str, Any]]:
    pairs = before.items() if isinstance(before, dict) else before or ()
    kept = [(name, value) for name, value in pairs if not name.startswith("bulkscope-")]
    return [*kept, *((name, value.encode()) for name, value in headers.items())]


def _config(args: Any, kwargs: Any) -> dict[str, Any]:
    return {**(args[0] if args and isinstance(args[0], dict) else {}), **kwargs}


def _code(error: Any) -> Any:
    """Return the number of an error, which an exception of the library carries."""
    inner = next(iter(getattr(error, "args", ())), None)
    code = getattr(error, "code", None) or getattr(inner, "code", None)
    return code() if callable(code) else None


def _reporting(
    produce: Callable[..., Any], given: dict[str, Any], of_all: Any, found: Parcel, sent: Any
) -> dict[str, Any]:  # fmt: skip
    """Take the callback of the delivery's report out of ``given``, and return one that hears it too.

    A record that the broker has refused for what we may have added is sent again as it was.
    """
    own = [given.pop(name, None) for name in ("on_delivery", "callback")]
    callback = next((each for each in (*own, of_all) if each is not None), None)

    # What is large the library has a copy of, and gives it back with the report.
    small = {name: value for name, value in given.items() if name not in ("value", "key")}

    @guarded
    def sent_again(error: Any, record: Any) -> bool:
        if _code(error) not in _kafka.OURS_TO_BLAME:
            return False
        produce(**small, value=record.value(), key=record.key(), on_delivery=functools.partial(reported, again=True))
        went_without("Kafka")
        return True

    def reported(error: Any, record: Any, again: bool = False) -> Any:
        if error is not None:
            if not again and sent_again(error, record):
                return None
            found.undelivered(sent)
        return callback(error, record) if callback is not None else None

    return {"on_delivery": reported}


def _consumer(kind: Any) -> type:
    @_named_like(kind)
    class Consumer(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bulkscope = _Consumer(args, kwargs)
            super().__init__(*args, **kwargs)

        def poll(self, *args: Any, **kwargs: Any) -> Any:
            self._bulkscope.move_on()
            record = super().poll(*args, **kwargs)
            if record is not None:
                self._bulkscope.take(self, record)
            return record

        def consume(self, *args: Any, **kwargs: Any) -> Any:
            self._bulkscope.move_on()
            records = super().consume(*args, **kwargs)
            return self._bulkscope.batch(self, records) or records

        def commit(self, *args: Any, **kwargs: Any) -> Any:
            result = super().commit(*args, **kwargs)
            self._bulkscope.committed(dict(zip(_COMMIT, args, strict=False)) | kwargs)
            return result

        def close(self, *args: Any, **kwargs: Any) -> Any:
            self._bulkscope.close()
            return super().close(*args, **kwargs)

    if hasattr(kind, "__exit__"):  # since 2.13; C's own calls no close of a subclass

        def leave(self: Any, *error: Any) -> Any:
            self._bulkscope.close()
            return kind.__exit__(self, *error)

        Consumer.__exit__ = leave
    return Consumer


class _Consumer:
    """What is known of one consumer beside itself."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.closed, self.asking = False, threading.Lock()
        config = _config(args, kwargs)
        self._group = str(config.get("group.id") or "")
        self._attempts = _kafka.Attempts(self._group)
        self._commits = str(config.get("enable.auto.commit", True)).lower() != "false"

    def move_on(self) -> None:
        self._attempts.move_on()

    @guarded
    def take(self, consumer: Any, record: Any) -> Attempt | None:
        if record.error() is not None or not (headers := record.headers()):
            return None
        attempt = self._attempts.take(
            record.topic(), record.partition(), record.offset(), headers, record.value(), record
        )  # fmt: skip
        if attempt is not None:
            self._watch(consumer, record.topic())
        return attempt

    @guarded
    def batch(self, consumer: Any, records: Any) -> Any:
        if any(record.error() is None and _kafka.has_jobs(record.headers()) for record in records):
            return _kafka.Batch(records, lambda record: self.take(consumer, record))
        return records

    @guarded
    def committed(self, given: dict[str, Any]) -> None:
        message, offsets = given.get("message"), given.get("offsets")
        up_to = None
        if message is not None:
            up_to = {(message.topic(), message.partition()): message.offset() + 1}
        elif offsets is not None:
            up_to = {(each.topic, each.partition): each.offset for each in offsets}
        self._attempts.committed(up_to)

    @guarded
    def close(self) -> None:
        self.closed = True
        with self.asking:  # a question that is under way, of at most _PATIENCE_S; no other follows
            pass
        # Offsets of what was handed out are committed by themselves, unless that was switched off.
        self._attempts.close(sys.exc_info()[1], retry=not self._commits)

    @guarded
    def _watch(self, consumer: Any, topic: str) -> None:
        if self._group:
            watch((self._group, topic), lambda: _Lag(consumer, self))


class _Lag:
    """Asks how many records of a topic a consumer's group has not committed, in another thread.

    None after the consumer was closed. One that the application drops is not kept by us.
    """

    def __init__(self, consumer: Any, known: _Consumer) -> None:
        self._consumer, self._known = weakref.ref(consumer), known

    def usable(self) -> bool:
        """Tell whether the consumer is open."""
        return not self._known.closed and self._consumer() is not None

    def __call__(self, topic: str) -> float | None:
        consumer = self._consumer()
        if consumer is None:
            return None
        lag = 0
        for each in self._answers(consumer, topic):
            if each is None:
                return None
            lag += each
        return float(lag)

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Ask one question; None once the consumer is closed: the library must not lose its handle meanwhile.

        None also when the process ends: its signal interrupts ``poll``, and beside that 2.16 let a question wait for as
        long as the flush did, so that no metric of the process left.
        """
        with self._known.asking:
            if self._known.closed or _lifecycle.ending():
                return None
            return question(*args, timeout=_PATIENCE_S)

    def _answers(self, consumer: Any, topic: str) -> Iterator[int | None]:
        from confluent_kafka import TopicPartition

        found = self._ask(consumer.list_topics, topic)
        partitions = found and [TopicPartition(topic, number) for number in found.topics[topic].partitions]
        committed = partitions and self._ask(consumer.committed, partitions)
        if committed is None:
            yield None
            return
        for each in committed:
            marks = self._ask(consumer.get_watermark_offsets, each)
            yield None if marks is None else max(0, marks[1] - (each.offset if each.offset >= 0 else marks[0]))
