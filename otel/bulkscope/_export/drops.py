"""Counts what could not be delivered, and reports it with the next metrics that get through."""

from __future__ import annotations

from typing import Any

from bulkscope import _instruments
from bulkscope._export import pipeline
from bulkscope._safe import guarded
from bulkscope.conventions import ERROR_TYPE, M_DROPPED


@guarded
def count(signal: str, records: int, reason: str) -> None:
    """Count ``records`` of ``signal`` that are lost; ``reason`` is the metric's ``error.type``."""
    _instruments.add(M_DROPPED, records, {"signal": signal, ERROR_TYPE: reason})


def _watch_exporter(signal: str, exporter: Any) -> None:
    original = exporter.export
    if getattr(exporter, "counts_drops", False):
        return  # ours knows what of a batch was lost

    def export(batch: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(batch, *args, **kwargs)
        except Exception:
            if signal != "metrics":
                count(signal, len(batch), "export_failed")
            raise
        # Cumulative metrics come again with the next interval: a failed export of them loses nothing.
        if signal != "metrics" and getattr(result, "name", "SUCCESS") != "SUCCESS":
            count(signal, len(batch), "export_failed")
        return result

    exporter.export = export


def _watch_queue(signal: str, processor: Any) -> None:
    """Count records that a full queue pushed out; the queue is a deque that drops its oldest."""
    original = processor.emit

    def emit(record: Any) -> None:
        queue = processor._queue
        if len(queue) == queue.maxlen:
            count(signal, 1, "queue_full")
        original(record)

    processor.emit = emit


def watch() -> None:
    """Watch every exporter and batch queue of the global providers."""
    for signal, processor, exporter in list(pipeline.exporters()):
        _watch_exporter(signal, exporter)
        if hasattr(processor, "_queue") and hasattr(processor, "emit"):
            _watch_queue(signal, processor)
