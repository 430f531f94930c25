"""The SDK with exporters in memory, for tests in process. Set up once: providers are global."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bulkscope import _instruments
from bulkscope._export import pipeline
from bulkscope._jobs.processor import BulkSpanProcessor


class Telemetry:
    """What was recorded since ``clear``: ended spans in the order of their ends, log records, metric points."""

    def __init__(self) -> None:
        os.environ.setdefault("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")  # as every launched process has it
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        tracing = TracerProvider()
        tracing.add_span_processor(BulkSpanProcessor())
        tracing.add_span_processor(SimpleSpanProcessor(self._spans))
        trace.set_tracer_provider(tracing)
        logging = LoggerProvider()
        logging.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        _logs.set_logger_provider(logging)
        self._reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider(metric_readers=[self._reader]))

    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    def logs(self) -> list[Any]:
        return list(self._logs.get_finished_logs())

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for group in (data.resource_metrics if data else [])
            for scope in group.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        }

    def clear(self) -> None:
        self._spans.clear()
        self._logs.clear()
        _instruments.forget()
        pipeline.forget_metrics()


@cache
def telemetry() -> Telemetry:
    return Telemetry()
