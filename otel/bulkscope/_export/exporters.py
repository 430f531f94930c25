"""The exporters behind ``OTEL_{TRACES,METRICS,LOGS}_EXPORTER=bulkscope``: OTLP over HTTP, encoded directly.

``otlp`` in those variables names OpenTelemetry's own exporters, which work as well and cost more.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import count
from typing import Any

from opentelemetry.sdk import metrics
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from bulkscope._export import drops, otlp, otlp_metrics, pipeline
from bulkscope._export.otlp_http import Client
from bulkscope._export.outbox import Outbox
from bulkscope._safe import log, report

logger = logging.getLogger("bulkscope")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of a protobuf message's varint and length-delimited fields."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 2:
            size = varint()
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[tag & 7]


def rejected(answer: bytes) -> tuple[int, str]:
    """Return (records, reason) that an ``Export…ServiceResponse`` says were not accepted; (0, "") for none."""
    try:
        partial = dict(_fields(answer)).get(1, b"")
        found = dict(_fields(partial)) if isinstance(partial, bytes) else {}
    except (IndexError, KeyError):
        return 0, ""  # not protobuf: a proxy's page, or a server that answers JSON
    records, reason = found.get(1, 0), found.get(2, b"")
    return records if isinstance(records, int) else 0, reason.decode(errors="replace") if reason else ""  # type: ignore[union-attr]


def _official(where: str, records: Any) -> bytes:
    """Encode with OpenTelemetry's own encoder, ``module:function``, what ours cannot."""
    module, _, function = where.partition(":")
    return bytes(getattr(import_module(module), function)(records).SerializeToString())


class _Sender:
    """Delivers the records of one signal. An outage is said once, and once that it is over.

    ``encode`` makes a request of items; ``newest_only`` as of ``Outbox``.
    """

    def __init__(self, signal: str, encode: Callable[[list[bytes]], bytes], *, newest_only: bool = False) -> None:
        self.signal, self._encode, self._newest_only = signal, encode, newest_only
        self.client = Client(signal)
        self.down = False
        self.outbox = Outbox(self._deliver, self._dropped, self._failed, self._delivered, newest_only=newest_only)

    def _deliver(self, items: list[bytes]) -> None:
        answer = self.client.post(self._encode(items))
        lost, reason = rejected(answer)
        if lost:
            drops.count(self.signal, lost, "rejected")
            log(logging.WARNING, "%s rejected %d records of %s: %s", self.client.shown, lost, self.signal, reason)

    def _dropped(self, records: int, reason: str) -> None:
        if not self._newest_only:  # sums that go on come again with the next collection
            drops.count(self.signal, records, reason)

    def _delivered(self) -> None:
        if self.down:
            self.down = False
            log(logging.WARNING, "%s are delivered again to %s", self.signal, self.client.shown)

    def _failed(self, error: Exception) -> None:
        log(
            logging.DEBUG if self.down else logging.WARNING,
            "%s could not be delivered to %s: %s; what may still be taken is kept and tried again, what is dropped is "
            "counted, and said when it answers again",
            self.signal,
            self.client.shown,
            error,
        )
        self.down = True


class _Records:
    """Spans or log records on their way out.

    ``early`` turns a record into bytes as soon as it has ended. A queue of the SDK's objects, thousands that
    live for half a second, sends Python's garbage collector through the whole heap again and again: 30 ms in which
    no request is served, p99 of the empty application under ``wrk``; 5 ms with bytes, which it need not visit.
    """

    # The number of what was encoded by OpenTelemetry's encoder: such an item is a request of its own.
    _WHOLE = b"\xff\xff"
    _MOST_GROUPS = 0xFFFF

    def __init__(self, signal: str, field: Callable[[Any], bytes], official: str) -> None:
        self.sender = _Sender(signal, self._request)
        self._field, self._official = field, official
        # What each record belongs to, (resource, scope), by its number; by their identities its number as two bytes.
        self._groups: dict[int, tuple[Any, Any]] = {}
        self._numbers: dict[tuple[int, int], bytes] = {}
        self._next = count()

    def early(self, record: Any) -> Any:
        """Return the record as bytes; the record itself when it cannot be encoded here."""
        try:
            resource, scope = record.resource, record.instrumentation_scope
            number = self._numbers.get((id(resource), id(scope))) or self._number(resource, scope)
            return number + self._field(record) if number else record
        except Exception:
            report(f"encoding {self.sender.signal}, which go through the official encoder")
            return record

    def _number(self, resource: Any, scope: Any) -> bytes | None:
        # No lock: the application's thread may be stopped here by a signal whose handler logs, and a child forked.
        # Two threads have two numbers, of which the first to arrive is kept.
        if len(self._groups) >= self._MOST_GROUPS or (number := next(self._next)) >= self._MOST_GROUPS:
            return None
        self._groups[number] = resource, scope  # kept, so that the identities stay taken
        return self._numbers.setdefault((id(resource), id(scope)), number.to_bytes(2, "big"))

    def _item(self, record: Any) -> bytes:
        item = record if type(record) is bytes else self.early(record)
        return item if type(item) is bytes else self._WHOLE + _official(self._official, [item])

    def _request(self, items: list[bytes]) -> bytes:
        ours = otlp.request(
            (*self._groups[int.from_bytes(item[:2], "big")], item[2:]) for item in items if item[:2] != self._WHOLE
        )
        # Requests on end are one request with the records of all: all that is in them is a repeated field.
        return ours + b"".join(item[2:] for item in items if item[:2] == self._WHOLE)

    def send(self, batch: Sequence[Any]) -> bool:
        """Hand a batch over; False when not all of it is delivered yet. Counts what will not be."""
        items = []
        for record in batch:
            try:
                items.append(self._item(record))
            except Exception:
                report(f"encoding {self.sender.signal}")
        if len(items) < len(batch):
            drops.count(self.sender.signal, len(batch) - len(items), "export_failed")
        return (not items or self.sender.outbox.send(items)) and len(items) == len(batch)


class _Exporter:
    """What the SDK, and the end of a process, ask of an exporter beside exporting."""

    counts_drops = True

    sender: _Sender

    @property
    def client(self) -> Client:
        """Where to."""
        return self.sender.client

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Give up what is not delivered yet."""
        self._said_left(self.sender.outbox.close())
        self.client.close()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what waits; False when that took too long."""
        return self.drain(time.monotonic() + timeout_millis / 1e3)

    def drain(self, deadline: float) -> bool:
        """As ``force_flush``, until ``deadline`` (``time.monotonic``)."""
        return self.sender.outbox.drain(deadline)

    def left(self) -> None:
        """Say how much the process takes with it at its end: nothing will carry the count of it."""
        self._said_left(self.sender.outbox.waiting())

    def _said_left(self, records: int) -> None:
        if records:
            log(
                logging.WARNING,
                "%s lost at the end of the process, not delivered to %s: %d",
                self.sender.signal,
                self.client.shown,
                records,
            )

    def renew(self) -> None:
        """Start without the connection that a forked child has inherited, and without what its parent will send."""
        self.client.renew()
        self.sender.outbox.renew()
        self.sender.down = False


class _RecordExporter(_Exporter):
    """An exporter of what ends one by one."""

    records: _Records


class BulkscopeSpanExporter(_RecordExporter, SpanExporter):
    """Sends spans."""

    def __init__(self) -> None:
        encoder = "opentelemetry.exporter.otlp.proto.common.trace_encoder:encode_spans"
        self.records = _Records("traces", otlp.span_field, encoder)
        self.sender = self.records.sender

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Hand ``spans`` over; FAILURE when they are not delivered yet, or never will be."""
        return SpanExportResult.SUCCESS if self.records.send(spans) else SpanExportResult.FAILURE


class BulkscopeLogExporter(_RecordExporter, logs_export.LogRecordExporter):
    """Sends log records."""

    def __init__(self) -> None:
        encoder = "opentelemetry.exporter.otlp.proto.common._log_encoder:encode_logs"
        self.records = _Records("logs", otlp.log_field, encoder)
        self.sender = self.records.sender

    def export(self, batch: Sequence[Any]) -> logs_export.LogRecordExportResult:
        """Hand log records over; FAILURE when they are not delivered yet, or never will be."""
        result = logs_export.LogRecordExportResult
        return result.SUCCESS if self.records.send(batch) else result.FAILURE


def _temporality() -> dict[type, AggregationTemporality]:
    """Return the temporality by instrument of ``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``."""
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    preference = os.environ.get(variable, "").strip().lower() or "cumulative"
    delta: tuple[type, ...] = ()
    if preference == "delta":
        delta = (metrics.Counter, metrics.Histogram, metrics.ObservableCounter)
    elif preference == "lowmemory":
        delta = (metrics.Counter, metrics.Histogram)
    elif preference != "cumulative":
        logger.warning("%s is %r; set it to cumulative, delta or lowmemory. Using cumulative.", variable, preference)
    return dict.fromkeys(delta, AggregationTemporality.DELTA)


def _aggregation() -> dict[type, Any]:
    """Return the aggregation of ``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION``."""
    variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    wanted = os.environ.get(variable, "").strip().lower() or "explicit_bucket_histogram"
    if wanted == "base2_exponential_bucket_histogram":
        return {metrics.Histogram: ExponentialBucketHistogramAggregation()}
    if wanted != "explicit_bucket_histogram":
        logger.warning("%s is %r, which is not known. Using explicit_bucket_histogram.", variable, wanted)
    return {metrics.Histogram: ExplicitBucketHistogramAggregation()}


class BulkscopeMetricExporter(_Exporter, MetricExporter):
    """Sends metrics."""

    def __init__(self) -> None:
        super().__init__(_temporality(), _aggregation())
        # Of sums that go on the newest collection says all that the ones before it would have.
        self.sender = _Sender("metrics", b"".join, newest_only=not self._preferred_temporality)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand one collection over; FAILURE when it is not delivered yet, or never will be."""
        try:
            request = otlp_metrics.encode_metrics(metrics_data)
        except Exception:
            report("encoding metrics, which go through the official encoder")
            request = _official("opentelemetry.exporter.otlp.proto.common.metrics_encoder:encode_metrics", metrics_data)
        groups = (scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics)
        points = sum(len(metric.data.data_points) for scope in groups for metric in scope.metrics)
        delivered = self.sender.outbox.send([request], points)
        return MetricExportResult.SUCCESS if delivered else MetricExportResult.FAILURE


def encode_early() -> None:
    """Let the batch queues of our exporters hold bytes."""
    for _, processor, exporter in pipeline.exporters():
        if isinstance(exporter, _RecordExporter) and hasattr(processor, "emit"):
            _encode_early(processor, exporter.records)


def _encode_early(processor: Any, records: _Records) -> None:
    original = processor.emit

    def emit(record: Any) -> None:
        original(records.early(record))

    processor.emit = emit
