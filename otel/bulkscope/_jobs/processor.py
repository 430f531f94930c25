"""Stamps the bulk's id, and the job's, onto every span when it starts: ours and everybody else's."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from bulkscope._jobs import bulks
from bulkscope._safe import guarded
from bulkscope.conventions import BULK_ID, BULK_ID_SOURCE, JOB_ID


class BulkSpanProcessor(SpanProcessor):
    """A span processor without state; safe to add to any SDK's provider."""

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
