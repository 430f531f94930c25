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

from bulkscope import _drops, _otlp, _otlp_metrics
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


class _Sender:
    """What the three exporters do alike. An outage is said once, and once that it is over."""

    def __init__(self, signal: str, encode: Callable[[Any], bytes], official: str) -> None:
        self.signal, self.encode, self.official = signal, encode, official
        self.client = Client(signal)
        self.down = False

    def _encoded(self, records: Any) -> bytes:
        try:
            return self.encode(records)
        except Exception:
            report(f"encoding {self.signal}, which go through the official encoder")
            module, _, function = self.official.partition(":")
            return bytes(getattr(import_module(module), function)(records).SerializeToString())

    def send(self, records: Any) -> bool:
        """Deliver a batch; False when it was not."""
        try:
            answer = self.client.post(self._encoded(records))
        except RefusedError as refused:
            if refused.status == _TOO_LARGE and isinstance(records, Sequence) and len(records) > 1:
                half = len(records) // 2
                return all([self.send(records[:half]), self.send(records[half:])])
            return self._failed(refused)
        except (OSError, HTTPException) as error:
            return self._failed(error)
        if self.down:
            self.down = False
            logger.warning("%s are delivered again to %s", self.signal, self.client.url)
        lost, reason = rejected(answer)
        if lost:
            _drops.count(self.signal, lost, "rejected")
            logger.warning("%s rejected %d records of %s: %s", self.client.url, lost, self.signal, reason)
        return True

    def _failed(self, error: Exception) -> bool:
        logger.log(
            logging.DEBUG if self.down else logging.WARNING,
            "%s could not be delivered to %s: %s; what is dropped is counted, and said when it answers again",
            self.signal,
            self.client.url,
            error,
        )
        self.down = True
        return False


class _Exporter:
    """What the SDK asks of an exporter beside exporting."""

    sender: _Sender

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, and give up what is being tried again."""
        self.sender.client.close()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Nothing is held back here."""
        return True

    def renew(self) -> None:
        """Start without the connection that a forked child has inherited."""
        self.sender.client.renew()


class BulkscopeSpanExporter(_Exporter, SpanExporter):
    """Sends spans."""

    def __init__(self) -> None:
        self.sender = _Sender(
            "traces", _otlp.encode_spans, "opentelemetry.exporter.otlp.proto.common.trace_encoder:encode_spans"
        )

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send ``spans``; FAILURE when the end point did not take them in time."""
        return SpanExportResult.SUCCESS if self.sender.send(spans) else SpanExportResult.FAILURE


class BulkscopeLogExporter(_Exporter, logs_export.LogRecordExporter):
    """Sends log records."""

    def __init__(self) -> None:
        self.sender = _Sender(
            "logs", _otlp.encode_logs, "opentelemetry.exporter.otlp.proto.common._log_encoder:encode_logs"
        )

    def export(self, batch: Sequence[Any]) -> logs_export.LogRecordExportResult:
        """Send log records; FAILURE when the end point did not take them in time."""
        result = logs_export.LogRecordExportResult
        return result.SUCCESS if self.sender.send(batch) else result.FAILURE


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
        self.sender = _Sender(
            "metrics",
            _otlp_metrics.encode_metrics,
            "opentelemetry.exporter.otlp.proto.common.metrics_encoder:encode_metrics",
        )

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Send one collection; FAILURE when the end point did not take it in time."""
        return MetricExportResult.SUCCESS if self.sender.send(metrics_data) else MetricExportResult.FAILURE
