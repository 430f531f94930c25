"""The exporters behind ``OTEL_{TRACES,METRICS,LOGS}_EXPORTER=bulkscope``: OTLP over HTTP, encoded directly.

``otlp`` in those variables names OpenTelemetry's own exporters, which work as well and cost more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from importlib import import_module
from typing import Any

from opentelemetry.sdk import metrics
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from bulkscope import _drops, _otlp, _otlp_metrics, _pipeline
from bulkscope._otlp_http import Client, RefusedError
from bulkscope._safe import report

logger = logging.getLogger("bulkscope")

_TOO_LARGE = 413


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
    """Delivers requests of one signal. An outage is said once, and once that it is over."""

    def __init__(self, signal: str) -> None:
        self.signal = signal
        self.client = Client(signal)
        self.down = False

    def send(self, request: bytes) -> bool:
        """Deliver a request; False when it was not. Raises ``RefusedError`` for one that is too large."""
        try:
            answer = self.client.post(request)
        except RefusedError as refused:
            if refused.status == _TOO_LARGE:
                raise
            return self.failed(refused)
        except (OSError, HTTPException) as error:
            return self.failed(error)
        if self.down:
            self.down = False
            logger.warning("%s are delivered again to %s", self.signal, self.client.shown)
        lost, reason = rejected(answer)
        if lost:
            _drops.count(self.signal, lost, "rejected")
            logger.warning("%s rejected %d records of %s: %s", self.client.shown, lost, self.signal, reason)
        return True

    def failed(self, error: Exception) -> bool:
        """Say that something was not delivered, once an outage; returns False."""
        logger.log(
            logging.DEBUG if self.down else logging.WARNING,
            "%s could not be delivered to %s: %s; what is dropped is counted, and said when it answers again",
            self.signal,
            self.client.shown,
            error,
        )
        self.down = True
        return False


class _Records:
    """Spans or log records on their way out.

    ``early`` turns a record into bytes as soon as it has ended. A queue of the SDK's objects, thousands that
    live for half a second, sends Python's garbage collector through the whole heap again and again: 30 ms in which
    no request is served, p99 of the empty application under ``wrk``; 5 ms with bytes, which it need not visit.
    """

    _MOST_GROUPS = 1 << 16

    def __init__(self, signal: str, field: Callable[[Any], bytes], official: str) -> None:
        self.sender = _Sender(signal)
        self._field, self._official = field, official
        # What each record belongs to, (resource, scope), and by their identities its number as two bytes.
        self._groups: list[tuple[Any, Any]] = []
        self._numbers: dict[tuple[int, int], bytes] = {}

    def early(self, record: Any) -> Any:
        """Return the record as bytes; the record itself when it cannot be encoded here."""
        try:
            resource, scope = record.resource, record.instrumentation_scope
            number = self._numbers.get((id(resource), id(scope)))
            if number is None:
                if len(self._groups) == self._MOST_GROUPS:
                    return record
                self._groups.append((resource, scope))  # kept, so that the identities stay taken
                number = self._numbers[id(resource), id(scope)] = (len(self._groups) - 1).to_bytes(2, "big")
            return number + self._field(record)
        except Exception:
            report(f"encoding {self.sender.signal}, which go through the official encoder")
            return record

    def _encoded(self, batch: Sequence[Any]) -> bytes:
        items = [item if type(item) is bytes else self.early(item) for item in batch]
        ours = _otlp.request(
            (*self._groups[int.from_bytes(item[:2], "big")], item[2:]) for item in items if type(item) is bytes
        )
        others = [item for item in items if type(item) is not bytes]
        # Two requests on end are one request with the records of both: all that is in them is a repeated field.
        return ours + (_official(self._official, others) if others else b"")

    def send(self, batch: Sequence[Any]) -> bool:
        """Deliver a batch, in halves where it is too large; False when not all of it was. Counts what was not."""
        try:
            delivered = self.sender.send(self._encoded(batch))
        except RefusedError as refused:
            half = len(batch) // 2
            if half:
                return all([self.send(batch[:half]), self.send(batch[half:])])
            delivered = self.sender.failed(refused)
        if not delivered:
            _drops.count(self.sender.signal, len(batch), "export_failed")
        return delivered


class _Exporter:
    """What the SDK asks of an exporter beside exporting."""

    counts_drops = True

    client: Client

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, and give up what is being tried again."""
        self.client.close()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Nothing is held back here."""
        return True

    def renew(self) -> None:
        """Start without the connection that a forked child has inherited."""
        self.client.renew()


class BulkscopeSpanExporter(_Exporter, SpanExporter):
    """Sends spans."""

    def __init__(self) -> None:
        encoder = "opentelemetry.exporter.otlp.proto.common.trace_encoder:encode_spans"
        self.records = _Records("traces", _otlp.span_field, encoder)
        self.client = self.records.sender.client

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send ``spans``; FAILURE when the end point did not take them in time."""
        return SpanExportResult.SUCCESS if self.records.send(spans) else SpanExportResult.FAILURE


class BulkscopeLogExporter(_Exporter, logs_export.LogRecordExporter):
    """Sends log records."""

    def __init__(self) -> None:
        encoder = "opentelemetry.exporter.otlp.proto.common._log_encoder:encode_logs"
        self.records = _Records("logs", _otlp.log_field, encoder)
        self.client = self.records.sender.client

    def export(self, batch: Sequence[Any]) -> logs_export.LogRecordExportResult:
        """Send log records; FAILURE when the end point did not take them in time."""
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
        self._sender = _Sender("metrics")
        self.client = self._sender.client

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Send one collection; FAILURE when the end point did not take it in time."""
        try:
            request = _otlp_metrics.encode_metrics(metrics_data)
        except Exception:
            report("encoding metrics, which go through the official encoder")
            request = _official("opentelemetry.exporter.otlp.proto.common.metrics_encoder:encode_metrics", metrics_data)
        try:
            delivered = self._sender.send(request)
        except RefusedError as refused:
            delivered = self._sender.failed(refused)
        if not delivered and self._preferred_temporality:
            # Sums that go on come again with the next interval; of an interval's own, delta, nothing does.
            groups = (scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics)
            points = sum(len(metric.data.data_points) for scope in groups for metric in scope.metrics)
            _drops.count("metrics", points, "export_failed")
        return MetricExportResult.SUCCESS if delivered else MetricExportResult.FAILURE


def encode_early() -> None:
    """Let the batch queues of our exporters hold bytes."""
    for _, processor, exporter in _pipeline.exporters():
        if isinstance(exporter, BulkscopeSpanExporter | BulkscopeLogExporter) and hasattr(processor, "emit"):
            _encode_early(processor, exporter.records)


def _encode_early(processor: Any, records: _Records) -> None:
    original = processor.emit

    def emit(record: Any) -> None:
        original(records.early(record))

    processor.emit = emit
