"""Bulks are accounting, not samples: our spans are recorded whatever a caller's flag or a sampler says.

A span of ours that would be dropped is recorded without being sampled. So nothing else changes: its children of other
instrumentations and the services it calls see the flag that they would have seen, and only the exporters that
telemetry was set up with get it. ``BULKSCOPE_SAMPLING=respect`` leaves our spans to the sampler too; the resource says
so then, since bulks look smaller than they are.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState

from bulkscope import _instruments
from bulkscope import conventions as c


def respected() -> bool:
    """Tell whether the user wants our spans sampled like all others."""
    return os.environ.get("BULKSCOPE_SAMPLING", "").strip().lower() == "respect"


class CountAll(Sampler):
    """Has recorded, and not sampled, what ``inner`` would have dropped."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return what ``inner`` says, but never to drop a span."""
        result = self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    def get_description(self) -> str:
        """Return the description of ``inner``, which this leaves as it is for everybody else."""
        return str(self._inner.get_description())


def count_all() -> None:
    """Let our tracer record each of its spans; no other tracer changes."""
    tracer: Any = _instruments.tracer()
    if isinstance(getattr(tracer, "sampler", None), Sampler) and not isinstance(tracer.sampler, CountAll):
        tracer.sampler = CountAll(tracer.sampler)


def is_only_counted(span: ReadableSpan) -> bool:
    """Tell whether a span is ours and not sampled, so that processors leave it out."""
    context, scope = span.context, span.instrumentation_scope
    return (
        context is not None
        and not context.trace_flags & TraceFlags.SAMPLED
        and scope is not None
        and scope.name == _instruments.SCOPE
    )


def as_sampled(span: ReadableSpan) -> ReadableSpan:
    """Return a copy that processors export."""
    found, old = copy.copy(span), span.context
    flags = TraceFlags(old.trace_flags | TraceFlags.SAMPLED)
    found._context = SpanContext(old.trace_id, old.span_id, old.is_remote, flags, old.trace_state)
    return found


def resource_attributes(provider: Any) -> dict[str, Any]:
    """Return what the records must say of the sampler of ``provider`` that is respected; nothing where all is counted.

    ``bulk.sampling.ratio`` is 0 to 1, left out where the sampler has no ratio of its own: a caller decides then.
    """
    sampler = getattr(provider, "sampler", None)
    if not respected() or sampler is None:
        return {}
    root = getattr(sampler, "_root", sampler)  # a ParentBased asks it where there is no parent
    ratio = getattr(root, "rate", None)
    found: dict[str, Any] = {c.SAMPLING: str(sampler.get_description())}
    return found | ({c.SAMPLING_RATIO: float(ratio)} if isinstance(ratio, int | float) else {})
