"""Handing one job to its queue: the PRODUCER span, the metrics, and the headers that must reach the worker.

What every queue's module shares, so that the numbers mean the same for every queue; ``work`` is the other side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._jobs import bulks, current, headers
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.failures import error_type, is_overload
from bulkscope._jobs.job import Job
from bulkscope._safe import guarded, report

# A trace of 100,000 spans helps nobody: from the 201st on a job has its own trace, linked to the request.
JOBS_PER_TRACE = 200

_UNDER_WAY = create_key("bulkscope-sending")


def under_way() -> bool:
    """Tell whether a job is being handed over here: what its queue's client sends meanwhile is that job."""
    send = get_value(_UNDER_WAY)
    return isinstance(send, Send) and send.under_way


class Unsent:
    """In place of a ``Send`` that could not be made: the job goes without headers."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.failed: BaseException | None = None

    def identify(self, job_id: str) -> None:
        """Do nothing."""

    def refused(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Unsent:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Do nothing."""


def sending(make: Callable[[], Send]) -> Send | Unsent:
    """Return a context in which a job is handed to the broker; its ``headers`` must travel with the job.

    ``make`` reads the library's objects; what it raises is ours, is reported, and the job goes without.
    """
    try:
        return make()
    except Exception:
        report("the publishing of a job")
        return Unsent()


def entered(sents: Iterable[Send | Unsent]) -> ExitStack:
    """Enter what ``sending`` returned of the jobs of one call, and return what leaves them in the opposite order.

    All are made before: each has the caller's span as its parent, not the one before.
    """
    stack = ExitStack()
    for sent in list(sents):
        stack.enter_context(sent)
    return stack


def _caller(here: Context, before: headers.Origin | None) -> Bulk:
    """Return the bulk of whoever enqueues, a request or a job; outside of both that of the attempt ``before``."""
    found = bulks.current(here)
    if found is None:
        found = Bulk()
        if before is None:
            found.learn(bulks.from_baggage(here), "baggage")
        else:
            found.learn(before.bulk_id, before.source)
    return found


def _bulk_of(job: Job, caller: Bulk) -> Bulk:
    """Return the bulk of ``job``; a ``caller`` that is no job learns an id that the job names."""
    bulk, own = Bulk(job_id=job.id), job.named_bulk()
    if caller.job_id is not None:
        # A job that sends jobs stays where it is: an id that they name is theirs, but for one that it was given itself
        # and hands on, or that it is tried again with.
        if own is None or own == caller.named or job.id == caller.job_id:
            bulk.id, bulk.source = caller.id, caller.source
        bulk.learn(own, "payload")
        return bulk
    if caller.source == "payload":
        # That was another job's, published by the same caller: this one's own goes before it.
        bulk.learn(own, "payload")
    caller.learn(own, "payload")
    if bulk.id is None:
        bulk.id, bulk.source = caller.id, caller.source
    return bulk


class Send:
    """Handing one job to the broker; use as a context manager.

    Args: ``delay`` the scheduled delay in seconds; ``attempt`` 1 for the first; ``previous`` the headers of the
    attempt before, whose trace goes on when nothing else is current; ``share`` how many jobs the one call hands over,
    each with a ``Send`` of its own; ``expires`` in how many seconds no worker takes it any more (None: never). A job
    without an id yet (None) gets it by ``identify``. ``headers`` (string to string) must reach the worker with the job.
    """

    def __init__(
        self,
        job: Job,
        *,
        delay: float = 0.0,
        attempt: int = 1,
        previous: Mapping[str, Any] | None = None,
        share: int = 1,
        expires: float | None = None,
    ) -> None:
        self._job, self._share, self._refused = job, share, False
        self.under_way = False
        self.headers: dict[str, str] = {}
        self.failed: BaseException | None = None  # of a send that failed before it came here
        here, before = otel_context.get_current(), None
        if previous and not trace.get_current_span(here).get_span_context().is_valid:
            before = headers.read_origin(previous, here)
            here = before.context
        self._caller = caller = _caller(here, before)
        if caller.job_id is not None and caller.job_id == job.id:
            # A job that enqueues itself again is retried.
            caller.resent, attempt = True, max(attempt, caller.attempt + 1)
        self._bulk = bulk = _bulk_of(job, caller)
        parent = trace.get_current_span(here).get_span_context()
        links = None
        if parent.is_valid and caller.jobs >= JOBS_PER_TRACE:
            links = [Link(parent)]
            here = trace.set_span_in_context(trace.INVALID_SPAN, here)
        self._context = here
        self._span = self._start(bulks.bind(bulk, here), links, attempt, delay, expires)
        try:
            self._fill(bulk, parent, delay, attempt)
        except BaseException:  # a time limit of the library, which is not ours to keep
            self._span.end()
            raise

    def _start(
        self, context: Context, links: list[Link] | None, attempt: int, delay: float, expires: float | None
    ) -> Span:
        job = self._job
        attributes = job.labels("send")
        attributes[c.MESSAGING_OPERATION_TYPE] = "send"
        attributes[c.JOB_ATTEMPT] = attempt
        attributes[c.JOB_DELAY] = delay
        if expires is not None:
            attributes[c.JOB_EXPIRES] = expires
        caller = self._caller
        if caller.job_id is not None and caller.id not in (None, self._bulk.id) and caller.source != "trace":
            attributes[c.BULK_PARENT_ID] = str(caller.id)
        if job.id is not None:
            attributes[c.MESSAGING_MESSAGE_ID] = job.id
        return _instruments.tracer().start_span(
            f"send {job.queue}", context=context, kind=SpanKind.PRODUCER, links=links, attributes=attributes
        )

    @guarded  # the span has begun: what fails from here on costs a header, not the job's place in its bulk
    def _fill(self, bulk: Bulk, parent: SpanContext, delay: float, attempt: int) -> None:
        """Give a bulk that nobody has named its id, and fill ``headers``."""
        headers.write_times(self.headers, delay, attempt)
        if bulk.id is None:
            # The trace that enqueues it is its id, and is marked as such.
            span_context = parent if parent.is_valid else self._span.get_span_context()
            if span_context.is_valid:  # not so without an SDK
                made = trace.format_trace_id(span_context.trace_id)
                if self._caller.job_id is None:
                    self._caller.learn(made, "trace")
                    made = str(self._caller.id)
                bulk.learn(made, "trace")
                self._span.set_attributes({c.BULK_ID: str(bulk.id), c.BULK_ID_SOURCE: "trace"})
        self._context = trace.set_span_in_context(self._span, bulks.bind(bulk, self._context))
        headers.write_origin(self.headers, self._context, bulk)

    @guarded
    def identify(self, job_id: str) -> None:
        """Set the id that the broker has given the job."""
        self._span.set_attributes({c.MESSAGING_MESSAGE_ID: job_id, c.JOB_ID: job_id})

    def refused(self) -> None:
        """Say that the broker has a job of this id already, and has not taken this one."""
        self._refused = True

    def __enter__(self) -> Send:
        self.under_way = True
        self._token = current.enter(set_value(_UNDER_WAY, self, self._context))
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._finish(error or self.failed)

    @guarded
    def _finish(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started
        self.under_way = False
        current.leave(self._token)
        labels = self._job.labels("send")
        try:
            self._describe(labels, seconds, error)
        finally:
            self._span.end()
        _instruments.record(c.M_CLIENT_OPERATION_DURATION, seconds, labels)
        _instruments.add(c.M_SENT_MESSAGES, 1, labels)

    def _describe(self, labels: _instruments.AttributeValues, seconds: float, error: BaseException | None) -> None:
        """Tell the caller and the span how it went, and ``labels`` what the metrics need of it."""
        self._caller.enqueue_seconds += seconds / self._share
        if self._refused:
            labels[c.ERROR_TYPE], labels[c.BULK_OUTCOME] = "duplicate", "duplicate"
            self._span.set_attributes({c.ERROR_TYPE: "duplicate", c.BULK_OUTCOME: "duplicate"})
            return
        if error is None:
            self._caller.jobs += 1
            self._caller.size += self._bulk.id == self._caller.id
            return
        labels[c.ERROR_TYPE], labels[c.BULK_OUTCOME] = error_type(error), "not_sent"
        self._caller.overload = self._caller.overload or is_overload(error)
        self._span.set_attributes({**labels, c.BULK_FAILURE_DOMAIN: "infra"})
        self._span.set_status(StatusCode.ERROR)
