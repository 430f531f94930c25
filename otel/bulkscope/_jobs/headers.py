"""What travels with a job beside its payload: names, writing, reading.

Bulk and trace travel in headers of our own, which are read first: a job keeps both whatever ``OTEL_PROPAGATORS`` or
an application has made the global propagator. That one is served too, for whoever else reads it, and for what it
carries of others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bulkscope import conventions as c
from bulkscope._jobs import bulks, clock
from bulkscope._jobs.bulks import Bulk
from bulkscope._safe import guarded, report

propagate: Any = None
try:
    from opentelemetry import propagate
except Exception:  # it raises where OTEL_PROPAGATORS names one that is not installed
    report("loading the propagators of OTEL_PROPAGATORS")

# The bulk's id and how it was learnt; the span that enqueues, as W3C's ``traceparent`` and ``tracestate`` write it.
BULK = "bulkscope-bulk"
SOURCE = "bulkscope-bulk-source"
TRACE = "bulkscope-trace"
STATE = "bulkscope-tracestate"
_OF_TRACE = ("traceparent", "tracestate")

# Wall clock of the enqueue in nanoseconds since the epoch, the scheduled delay in seconds, 1 for the first try.
ENQUEUED = "bulkscope-enqueued"
DELAY = "bulkscope-delay"
ATTEMPT = "bulkscope-attempt"
# Which boot of which machine, and its clock that nobody sets: a worker on the same one takes the wait from it.
CLOCK = "bulkscope-clock"
# For queues that have no place of their own for these two.
JOB = "bulkscope-job"
TASK = "bulkscope-task"


def write_times(headers: dict[str, str], delay: float, attempt: int) -> None:
    """Write that a job is enqueued now, to be done ``delay`` seconds later at the earliest."""
    headers[ENQUEUED] = str(time.time_ns())
    stamped = clock.stamp()
    if stamped is not None:
        headers[CLOCK] = stamped
    headers[DELAY] = repr(delay)
    headers[ATTEMPT] = str(attempt)


def write_origin(headers: dict[str, str], context: Context, bulk: Bulk | None) -> None:
    """Write where a job, or a call in another process, comes from: its bulk and the span of ``context``."""
    _serve_global(headers, context)
    span = trace.get_current_span(context).get_span_context()
    if span.is_valid:
        headers[TRACE] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
        if span.trace_state:
            headers[STATE] = span.trace_state.to_header()
    if bulk is not None and bulk.id is not None and bulk.source is not None:
        headers[BULK], headers[SOURCE] = bulk.id, bulk.source


@guarded
def _serve_global(headers: dict[str, str], context: Context) -> None:
    if propagate is not None:
        propagate.inject(headers, context)


def origin() -> dict[str, str]:
    """Return what work elsewhere needs to go on in the current context; nothing where that is empty."""
    headers: dict[str, str] = {}
    context = otel_context.get_current()
    bulk = bulks.current(context)
    if bulk is None:
        bulk = Bulk()
        bulk.learn(bulks.from_baggage(context), "baggage")
    write_origin(headers, context, bulk)
    return headers


class Origin(NamedTuple):
    """Where a job comes from: a context with the span that enqueued it, and the bulk's id with its source."""

    context: Context
    bulk_id: str | None
    source: str


def read_origin(headers: Mapping[str, Any], here: Context | None = None) -> Origin:
    """Return where a job with these headers comes from; what they do not say is left as it is ``here``."""
    span, bulk_id = _span(headers), bulks.clean(headers.get(BULK))
    context = _ask_global(headers, here or Context(), ours=span is not None and bulk_id is not None)
    if span is not None:
        context = trace.set_span_in_context(NonRecordingSpan(span), context)
    if bulk_id is not None:
        source = headers.get(SOURCE)
        return Origin(context, bulk_id, source if source in bulks.SOURCES else "baggage")
    # Sent by somebody who has OpenTelemetry and not us. An id made of the trace is known by that: it equals it.
    bulk_id = bulks.from_baggage(context)
    trace_id = trace.get_current_span(context).get_span_context().trace_id
    by_trace = bulk_id is not None and trace_id != 0 and bulk_id == trace.format_trace_id(trace_id)
    return Origin(context, bulk_id, "trace" if by_trace else "baggage")


def _span(headers: Mapping[str, Any]) -> SpanContext | None:
    """Return the span that our own header names, or None."""
    try:
        _, trace_id, span_id, flags = headers[TRACE].split("-")
        state = TraceState.from_header([headers[STATE]]) if STATE in headers else None
        span = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    return span if span.is_valid else None


def _ask_global(headers: Mapping[str, Any], context: Context, *, ours: bool) -> Context:
    """Return ``context`` with what the global propagator finds."""
    if propagate is None:
        return context
    # The span is known: Logfire warns the application of one that its propagator finds.
    known = _OF_TRACE if ours else ()
    texts = {key: value for key, value in headers.items() if isinstance(value, str) and key not in known}
    try:
        # Reading W3C's headers again, which say of ours what ours say, was 5 % of a Celery job.
        if ours and _is_w3c(propagate.get_global_textmap()) and _only_our_baggage(texts.get("baggage", "")):
            return context
        found: Context = propagate.extract(texts, context)
    except Exception:
        report("reading a job's headers with the global propagator")
        return context
    return found


def _is_w3c(textmap: Any) -> bool:
    parts = getattr(textmap, "_propagators", (textmap,))
    return all(type(part) in (TraceContextTextMapPropagator, W3CBaggagePropagator) for part in parts)


def _only_our_baggage(baggage: str) -> bool:
    return not baggage or ("," not in baggage and baggage.startswith(c.BULK_ID + "="))


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def delay_of(headers: Mapping[str, Any]) -> float:
    """Return the scheduled delay in seconds; 0 when the headers do not say."""
    return _number(headers.get(DELAY)) or 0.0


def attempt_of(headers: Mapping[str, Any] | None) -> int:
    """Return the attempt that these headers were sent with; 0 when they do not say."""
    return int(_number((headers or {}).get(ATTEMPT)) or 0)


def enqueued_ns(headers: Mapping[str, Any], now_ns: int) -> float | None:
    """Return when a job with these headers was enqueued, by the wall clock; None when they do not say."""
    enqueued = _number(headers.get(ENQUEUED))
    shared = None if enqueued is None else clock.age_ns(headers.get(CLOCK))
    return enqueued if shared is None else now_ns - shared


def age(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds since a job with these headers was enqueued; None when they do not say."""
    now_ns = time.time_ns()
    enqueued = enqueued_ns(headers, now_ns)
    return None if enqueued is None else max(0.0, (now_ns - enqueued) / 1e9)
