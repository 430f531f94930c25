"""Saying that a job ended before a worker began it: expired, revoked, removed.

Whoever sees it says it, a worker or who calls the job off; the span is of the job's own trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._jobs.job import Job
from bulkscope._jobs.work import received
from bulkscope._safe import guarded


@guarded
def cancelled(job: Job, headers: Mapping[str, Any], reason: str) -> None:
    """Record that ``job``, which came with ``headers``, will not be begun; ``reason`` is one of few words."""
    _, context = received(job, headers)
    labels = {**job.labels("cancel"), c.ERROR_TYPE: reason}
    span = _instruments.tracer().start_span(
        f"cancel {job.queue}",
        context=context,
        kind=SpanKind.CLIENT,
        attributes={
            **labels,
            c.MESSAGING_OPERATION_TYPE: "settle",
            c.MESSAGING_MESSAGE_ID: str(job.id),
            c.BULK_OUTCOME: "cancelled",
        },
    )
    span.end()
    _instruments.add(c.M_CANCELLED_JOBS, 1, labels)
