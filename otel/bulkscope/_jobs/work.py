"""Doing one job: the CONSUMER span, the metrics, the queue wait, and the word that it runs.

What every queue's module shares, so that the numbers mean the same for every queue; ``send`` is the other side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._export import pipeline
from bulkscope._host import kernel
from bulkscope._jobs import bulks, current
from bulkscope._jobs import headers as travelled
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.failures import error_type, failure_domain
from bulkscope._jobs.heartbeat import heartbeat
from bulkscope._jobs.job import Job
from bulkscope._safe import guarded, report


def starting(make: Callable[[], Work], attempt: int | None = None) -> Work | None:
    """Begin the job that ``make`` describes and return it; ``make`` as in ``sending``, None when it failed."""
    try:
        return make().start(attempt)
    except Exception:
        report("the start of a job")
        return None


@contextmanager
def working(
    make: Callable[[], Work], retried: Callable[[BaseException], bool] | None = None, attempt: int | None = None
) -> Iterator[Work | None]:
    """Do a job inside; ``make`` as in ``sending``, None is yielded when it failed.

    What the job raises ends it and passes on; ``retried`` tells whether the library will try it again;
    ``attempt`` (1 for the first) is known to libraries that put the same message back.
    A library that keeps a job's exception to itself says so through ``Work.error`` and ``Work.retry``.
    """
    work = starting(make, attempt)
    try:
        yield work
    except BaseException as error:
        if work is not None:
            work.finish(work.error or error, retry=bool(retried and guarded(retried)(error)))
        raise
    if work is not None:
        work.finish(work.error, retry=work.retry)


def received(job: Job, headers: Mapping[str, Any]) -> tuple[Bulk, Context]:
    """Return the bulk of a job that came with these headers, and the context that it goes on in."""
    context, carried, source = travelled.read_origin(headers)
    # Who sends may not have the function at hand, and has then given the job another id.
    bulk = Bulk(job_id=job.id, named=job.named_bulk(by_position=carried is None))
    bulk.learn(carried, source)
    bulk.learn(bulk.named, "payload")
    return bulk, bulks.bind(bulk, context)


class Work:
    """Doing one job, from ``start`` to ``finish``, both in the thread that does it; or ``tell`` of another process'."""

    def __init__(self, job: Job, headers: Mapping[str, Any]) -> None:
        self._labels = job.labels("process")
        self._queue = job.queue
        self.error: BaseException | None = None
        self.retry = self.sent = False  # sent: that it began has left
        self.bulk, self._parent = received(job, headers)
        self._headers = headers
        self._delay = travelled.delay_of(headers)
        self._attempt = travelled.attempt_of(headers) or 1

    def _begin(self, started_ns: int, attempt: int | None) -> None:
        self.bulk.attempt = attempt or self._attempt
        self.started_ns = started_ns
        self._enqueued_ns = travelled.enqueued_ns(self._headers, time.time_ns())
        self.span: Span = _instruments.tracer().start_span(
            f"process {self._queue}",
            context=self._parent,
            kind=SpanKind.CONSUMER,
            start_time=started_ns,
            attributes={
                **self._labels,
                c.MESSAGING_OPERATION_TYPE: "process",
                c.MESSAGING_MESSAGE_ID: str(self.bulk.job_id),
                c.JOB_ATTEMPT: self.bulk.attempt,
                c.JOB_DELAY: self._delay,
            },
        )

    def start(self, attempt: int | None = None, *, enter: bool = True) -> Work:
        """Begin the CONSUMER span, say that the job has started, and make its context the current one.

        Without ``enter`` the context is the caller's to make current, and ``finish`` may be in any thread.
        """
        now_ns = time.time_ns()
        self.clock = time.perf_counter()
        self._cpu = time.process_time()
        self._begin(now_ns, attempt)
        self.context: Context = trace.set_span_in_context(self.span, self._parent)
        self._token = current.enter(self.context) if enter else None
        try:
            self._announce()
        except Exception as error:  # a time limit of the library, which is not ours to keep
            self.finish(error)
            raise
        return self

    @guarded
    def _announce(self) -> None:
        _instruments.add(c.M_WORKER_BUSY, 1, {c.MESSAGING_DESTINATION: self._queue})
        _instruments.add(c.M_CONSUMED_MESSAGES, 1, self._labels)
        # Without a span to come, a sampled-out job's, the job would look lost.
        if self.span.is_recording():
            self.event(c.EVENT_JOB_STARTED, kernel.beside_a_job())
            heartbeat.add(self)

    def event(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        severity: SeverityNumber = SeverityNumber.INFO,
    ) -> None:
        """Emit a log event with the ids of this job and of its span."""
        values: dict[str, Any] = {
            c.JOB_ID: str(self.bulk.job_id),
            c.JOB_ATTEMPT: self.bulk.attempt,
            **self._labels,
            **(attributes or {}),
        }
        if self.bulk.inference_model is not None:
            values[c.GEN_AI_MODEL] = self.bulk.inference_model
        if self.bulk.id is not None:
            values[c.BULK_ID] = self.bulk.id
        _instruments.logger().emit(
            LogRecord(
                timestamp=time.time_ns(),
                context=self.context,
                severity_number=severity,
                severity_text=severity.name,
                body=f"{name} {self.bulk.job_id}",
                attributes=values,
                event_name=name,
            )
        )

    def elapsed(self) -> dict[str, float | int]:
        """Return seconds since the start, CPU seconds of the process since then, and what the kernel says now."""
        found: dict[str, float | int] = {
            **kernel.beside_a_job(),
            c.JOB_ELAPSED: time.perf_counter() - self.clock,
            c.CPU_TIME: time.process_time() - self._cpu,
        }
        resident = kernel.resident()
        if resident is not None:
            found[c.M_PROCESS_MEMORY_USAGE] = resident
        return found

    def _domain(self, error: BaseException) -> str:
        domain = failure_domain(error)
        # Engines answer with an error instead of raising; what the job makes of that may be any exception.
        return self.bulk.inference_failure or domain if domain == "code" else domain

    @guarded
    def finish(self, error: BaseException | None = None, *, retry: bool = False, at: float | None = None) -> None:
        """End the span. ``error`` is what the job failed with; ``retry`` says that it will be tried again.

        ``at`` is when it ended (``perf_counter``) where that is not now.
        A retried attempt carries its error but is no failure of the job: its status stays unset.
        """
        current.leave(self._token)
        heartbeat.remove(self)
        retry = retry or (error is not None and self.bulk.resent)
        seconds = max(0.0, (time.perf_counter() if at is None else at) - self.clock)
        ended_ns = self.started_ns + int(seconds * 1e9)
        labels = dict(self._labels)
        try:
            self._describe(labels, ended_ns, error, retry)
        finally:
            self.span.end(ended_ns)
            _instruments.add(c.M_WORKER_BUSY, -1, {c.MESSAGING_DESTINATION: self._queue})
            _instruments.record(c.M_PROCESS_DURATION, seconds, labels)

    def tell(
        self,
        error: BaseException,
        *,
        pid: int,
        slot: str | None = None,
        started_ns: int,
        ended_ns: int,
        attempt: int | None = None,
        domain: str | None = None,
        retry: bool = False,
    ) -> None:
        """Record an attempt that process ``pid`` began and cannot end any more; instead of ``start`` and ``finish``.

        Times in ns since the epoch. ``slot`` is the one that the process filled in its pool. ``domain`` goes before
        what the error says by itself. That the job was taken is not counted: its process has done so.
        """
        self._begin(started_ns, attempt)
        self.span.set_attribute(c.PROCESS_PID, pid)
        if slot is not None:
            self.span.set_attribute(c.WORKER_SLOT, slot)
        labels = dict(self._labels)
        ended_ns = max(started_ns, ended_ns)
        try:
            self._describe(labels, ended_ns, error, retry, domain)
        finally:
            self.span.end(ended_ns)
            _instruments.record(c.M_PROCESS_DURATION, (ended_ns - started_ns) / 1e9, labels)

    def _describe(
        self,
        labels: _instruments.AttributeValues,
        ended_ns: int,
        error: BaseException | None,
        retry: bool,
        domain: str | None = None,
    ) -> None:
        """Set what is known at the end on the span, and what the metric needs of it in ``labels``."""
        values: dict[str, Any] = {}
        if self.bulk.id is not None:
            values[c.BULK_ID] = self.bulk.id
        if self.bulk.import_seconds is not None:
            values[c.JOB_IMPORT] = self.bulk.import_seconds
        if self._enqueued_ns is not None:
            wait = (self.started_ns - self._enqueued_ns) / 1e9 - self._delay
            total = (ended_ns - self._enqueued_ns) / 1e9
            values[c.TIME_IN_QUEUE] = wait
            if wait < 0:
                values[c.JOB_WAIT_NEGATIVE] = True
            else:
                _instruments.record(c.M_QUEUE_WAIT, wait, self._labels)
                if total > 0:
                    ratio = values[c.JOB_WAIT_RATIO] = min(1.0, wait / total)
                    _instruments.record(c.M_WAIT_RATIO, ratio, self._labels)
        if error is not None:
            values[c.ERROR_TYPE] = labels[c.ERROR_TYPE] = error_type(error)
            values[c.BULK_FAILURE_DOMAIN] = labels[c.BULK_FAILURE_DOMAIN] = domain or self._domain(error)
        if error is None or retry:
            values[c.BULK_OUTCOME] = labels[c.BULK_OUTCOME] = "retry" if retry else "ok"
        else:
            values[c.BULK_OUTCOME] = labels[c.BULK_OUTCOME] = "internal_error"
            self.span.set_status(StatusCode.ERROR)
        pipeline.set_attributes(self.span, values)
