"""Stamps the bulk's id, and the job's, onto every span when it starts: ours and everybody else's.

Spans of ours that no sampler wants are handed to the exporters when they end.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from bulkscope._jobs import bulks, sampling
from bulkscope._safe import guarded
from bulkscope.conventions import BULK_ID, BULK_ID_SOURCE, JOB_ID


class BulkSpanProcessor(SpanProcessor):
    """A span processor that is safe to add to any SDK's provider.

    ``exporting`` are the processors that get our spans even when they are not sampled.
    """

    def __init__(self, exporting: Sequence[SpanProcessor] = ()) -> None:
        self._exporting = exporting

    @guarded
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set ``bulk.id`` and ``bulk.job.id`` from the bulk in the context, else from baggage."""
        bulk = bulks.current(parent_context)
        if bulk is None:
            bulk_id = bulks.from_baggage(parent_context)
            if bulk_id is not None:
                span.set_attribute(BULK_ID, bulk_id)
            return
        if bulk.id is not None:
            span.set_attribute(BULK_ID, bulk.id)
            if bulk.source == "trace":
                span.set_attribute(BULK_ID_SOURCE, "trace")
        if bulk.job_id is not None:
            span.set_attribute(JOB_ID, bulk.job_id)

    @guarded
    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a span that is recorded and not sampled, when it is ours."""
        if self._exporting and sampling.is_only_counted(span):
            counted = sampling.as_sampled(span)
            for processor in self._exporting:
                processor.on_end(counted)
