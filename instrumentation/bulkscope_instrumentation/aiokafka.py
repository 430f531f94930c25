"""aiokafka: a PRODUCER span where a record that is a job is sent, a CONSUMER span where it is worked on.

Which records are jobs says ``_messages``. An attempt lasts until the consumer asks for the next record, commits this
one or is stopped, and on as long as the tasks and the calls in threads that were started with it.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.send import sending
from bulkscope._safe import guarded
from bulkscope_instrumentation import _kafka
from bulkscope_instrumentation._messages import Attempt, InLoop, Parcel, failure_of, parcel, watch, went_without

_SEND = ("topic", "value", "key", "partition", "timestamp_ms", "headers")
_ATTEMPTS = "_bulkscope_attempts"


class AiokafkaInstrumentor(Instrumentor):
    """Instruments aiokafka 0.10 and later."""

    module = "aiokafka"
    requires = ("aiokafka >= 0.10",)

    def patch(self, module: ModuleType) -> None:
        """Wrap where records are sent, asked for and committed."""
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

        self.wrap(AIOKafkaProducer, "send", _send)
        self.wrap(AIOKafkaProducer, "send_and_wait", _send)
        self.wrap(AIOKafkaConsumer, "getone", _getone)
        self.wrap(AIOKafkaConsumer, "getmany", _getmany)
        self.wrap(AIOKafkaConsumer, "commit", _commit)
        self.wrap(AIOKafkaConsumer, "stop", _stop)


async def _send(wrapped: Callable[..., Any], producer: Any, args: Any, kwargs: Any) -> Any:
    given = {**dict(zip(_SEND, args, strict=False)), **kwargs}
    found = _parcel(given)
    if found is None:
        return await wrapped(*args, **kwargs)
    with sending(found.send) as sent:
        ours = [(name, value.encode()) for name, value in found.headers(sent).items()]
        if not ours:
            return await wrapped(*args, **kwargs)
        before = [pair for pair in given.get("headers") or () if not pair[0].startswith("bulkscope-")]
        result = None
        try:
            result = await wrapped(**{**given, "headers": [*before, *ours]})
        except Exception as error:
            if getattr(error, "errno", None) not in _kafka.OURS_TO_BLAME:
                raise
        if result is None:  # refused as a whole, so that it cannot come twice
            result = await wrapped(*args, **kwargs)
            went_without("Kafka")
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda future: _delivered(future, found, sent))
        return result


@guarded
def _delivered(future: Any, found: Parcel, sent: Any) -> None:
    if failure_of(future) is not None:
        found.undelivered(sent)


@guarded
def _parcel(given: dict[str, Any]) -> Parcel | None:
    topic = str(given["topic"])
    return parcel("kafka", topic, topic, given.get("headers"), given.get("value"))


def _attempts(consumer: Any) -> _kafka.Attempts:
    found = vars(consumer).get(_ATTEMPTS)
    if found is None:
        found = vars(consumer)[_ATTEMPTS] = _kafka.Attempts(str(consumer._group_id or ""))
    return found  # type: ignore[no-any-return]


@guarded
def _take(consumer: Any, record: Any) -> Attempt | None:
    attempt = _attempts(consumer).take(
        record.topic, record.partition, record.offset, record.headers, record.value, record
    )  # fmt: skip
    if attempt is not None:
        _watch(consumer, record.topic)
    return attempt


async def _getone(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    _attempts(consumer).move_on()
    record = await wrapped(*args, **kwargs)
    if record.headers:
        _take(consumer, record)
    return record


async def _getmany(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    _attempts(consumer).move_on()
    records = await wrapped(*args, **kwargs)
    for partition, batch in records.items():
        if any(record.headers and _kafka.has_jobs(record.headers) for record in batch):
            records[partition] = _kafka.Batch(batch, lambda record: _take(consumer, record))
    return records


async def _commit(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    result = await wrapped(*args, **kwargs)
    _committed(consumer, args[0] if args else kwargs.get("offsets"))
    return result


@guarded
def _committed(consumer: Any, offsets: Any) -> None:
    up_to = None
    if offsets:
        up_to = {
            (partition.topic, partition.partition): int(each[0] if isinstance(each, tuple) else each)
            for partition, each in offsets.items()
        }
    _attempts(consumer).committed(up_to)


async def _stop(wrapped: Callable[..., Any], consumer: Any, args: Any, kwargs: Any) -> Any:
    _stopped(consumer)
    return await wrapped(*args, **kwargs)


@guarded
def _stopped(consumer: Any) -> None:
    error = sys.exc_info()[1]
    # What was not committed is delivered again; with automatic commits it is committed as the consumer stops.
    _attempts(consumer).close(error, retry=bool(consumer._group_id) and not consumer._enable_auto_commit)


@guarded
def _watch(consumer: Any, topic: str) -> None:
    if consumer._group_id:
        loop = asyncio.get_running_loop()
        watch((consumer._group_id, topic), lambda: _Lag(consumer, loop))


class _Lag(InLoop):
    """Asks for what a consumer's group has not committed of a topic, until the consumer is stopped."""

    def __init__(self, consumer: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._consumer = weakref.ref(consumer)

    def is_open(self) -> bool:
        consumer = self._consumer()
        return consumer is not None and not consumer._closed

    async def ask(self, topic: str) -> float | None:
        from aiokafka import TopicPartition

        consumer = self._consumer()
        if consumer is None:
            return None
        partitions = [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic) or ()]
        ends, begins = await consumer.end_offsets(partitions), await consumer.beginning_offsets(partitions)
        lag = 0
        for each in partitions:
            committed = await consumer.committed(each)
            lag += max(0, ends[each] - (begins[each] if committed is None else committed))
        return float(lag)
