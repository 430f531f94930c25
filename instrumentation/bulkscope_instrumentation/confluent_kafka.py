"""confluent-kafka: a PRODUCER span where a record that is a job is produced, a CONSUMER span where it is worked on.

Which records are jobs says ``_messages``. An attempt lasts until the consumer asks for the next record, commits this
one or is closed, and on as long as the calls in threads that were started with it. Both classes are C's and cannot be
patched: subclasses take their places before anything else of the package asks for them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.send import sending
from bulkscope._safe import guarded
from bulkscope_instrumentation import _kafka
from bulkscope_instrumentation._messages import Attempt, Parcel, parcel

_PRODUCE = ("topic", "value", "key", "partition", "callback", "on_delivery", "timestamp", "headers")
_COMMIT = ("message", "offsets", "asynchronous")
_PATIENCE_S = 2.0


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
                reporting = _reporting(given, self._bulkscope_reported, found, sent)
                return produce(**{**given, **reporting, "headers": _with(given.get("headers"), headers)})

    return Producer


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


def _reporting(given: dict[str, Any], of_all: Any, found: Parcel, sent: Any) -> dict[str, Any]:
    """Take the callback of the delivery's report out of ``given``, and return one that hears it too."""
    own = [given.pop(name, None) for name in ("on_delivery", "callback")]
    callback = next((each for each in (*own, of_all) if each is not None), None)

    def reported(error: Any, record: Any) -> Any:
        if error is not None:
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
            return self._bulkscope.batch(self, super().consume(*args, **kwargs))

        def commit(self, *args: Any, **kwargs: Any) -> Any:
            result = super().commit(*args, **kwargs)
            self._bulkscope.committed(dict(zip(_COMMIT, args, strict=False)) | kwargs)
            return result

        def close(self, *args: Any, **kwargs: Any) -> Any:
            self._bulkscope.close()
            return super().close(*args, **kwargs)

    return Consumer


class _Consumer:
    """What is known of one consumer beside itself."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self._attempts = _kafka.Attempts()
        self._closed, self._asking = False, threading.Lock()
        config = _config(args, kwargs)
        self._group = str(config.get("group.id") or "")
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
        with self._asking:
            self._closed = True
        # Offsets of what was handed out are committed by themselves, unless that was switched off.
        self._attempts.close(sys.exc_info()[1], retry=not self._commits)

    @guarded
    def _watch(self, consumer: Any, topic: str) -> None:
        if self._group:
            _kafka.watch((self._group, topic), lambda: lambda name: self._lag(consumer, name))

    def _lag(self, consumer: Any, topic: str) -> float | None:
        with self._asking:  # the library must not lose its handle in the middle of a question
            return None if self._closed else _lag(consumer, topic)


def _lag(consumer: Any, topic: str) -> float:
    """Return how many records of a topic the consumer's group has not committed; asked in another thread."""
    from confluent_kafka import TopicPartition

    found = consumer.list_topics(topic, timeout=_PATIENCE_S).topics[topic].partitions
    lag = 0
    for each in consumer.committed([TopicPartition(topic, number) for number in found], timeout=_PATIENCE_S):
        low, high = consumer.get_watermark_offsets(each, timeout=_PATIENCE_S)
        lag += max(0, high - (each.offset if each.offset >= 0 else low))
    return float(lag)
