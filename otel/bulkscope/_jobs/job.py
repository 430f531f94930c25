"""One job on its way through a queue: what every queue's module shares.

``Send`` stands around handing a job to the broker, ``Work`` around doing it. A queue's module says what
the queue calls things and carries ``Send.headers`` from one side to the other; spans, metrics, waits and
heartbeats are made here, so that the numbers mean the same for every queue.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._export import pipeline
from bulkscope._export.soon import Soon
from bulkscope._host.proc import Proc
from bulkscope._jobs import bulks, current
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.failures import failure_domain
from bulkscope._safe import guarded, report

# Wall clock of the enqueue in nanoseconds since the epoch, the wanted delay in seconds, 1 for the first try.
ENQUEUED_HEADER = "bulkscope-enqueued"
DELAY_HEADER = "bulkscope-delay"
ATTEMPT_HEADER = "bulkscope-attempt"
# Which boot of which machine, and its clock that nobody sets: a worker on the same one takes the wait from it.
CLOCK_HEADER = "bulkscope-clock"
# For queues that have no place of their own for these two.
JOB_HEADER = "bulkscope-job"
TASK_HEADER = "bulkscope-task"

# A trace of 100,000 spans helps nobody: from the 201st on a job has its own trace, linked to the request.
JOBS_PER_TRACE = 200

HEARTBEAT_SECONDS = 1.0


def error_type(error: BaseException) -> str:
    """Return the value of ``error.type`` for an exception: its class with the module, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _names(error: BaseException) -> str:
    return " ".join(kind.__name__ for kind in type(error).__mro__)


def is_overload(error: BaseException) -> bool:
    """Tell whether a failed enqueue means a full or slow broker rather than a broken one."""
    chain: BaseException | None = error
    seen: set[int] = set()
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        names = _names(chain)
        if "Timeout" in names or "LimitExceeded" in names or "OutOfMemory" in names or "Full" in names.split():
            return True
        chain = chain.__cause__
    return False


class Unsent:
    """In place of a ``Send`` that could not be made: the job goes without headers."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def identify(self, job_id: str) -> None:
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


class Send:
    """Handing one job to the broker; use as a context manager.

    Args: what the queue calls its system, itself, the job and the task; ``args`` and ``payload`` (a mapping)
    are what the job is called with, where the bulk's id may be; ``delay`` the wanted delay in seconds;
    ``attempt`` 1 for the first; ``previous`` the headers of the attempt before, whose trace goes on when
    nothing else is current;
    ``share`` how many jobs the one call hands over, each with a ``Send`` of its own. A job without an id
    yet (None) gets it by ``identify``. ``headers`` (string to string) must reach the worker with the job.
    """

    def __init__(
        self,
        *,
        system: str,
        queue: str,
        job_id: str | None,
        task: str,
        args: Sequence[object] = (),
        payload: object = None,
        delay: float = 0.0,
        attempt: int = 1,
        previous: Mapping[str, Any] | None = None,
        share: int = 1,
    ) -> None:
        self._queue, self._system, self._task = queue, system, task
        self.headers: dict[str, str] = {}
        here = otel_context.get_current()
        if previous and not trace.get_current_span(here).get_span_context().is_valid:
            here = propagate.extract(_texts(previous), here)
        parent = trace.get_current_span(here).get_span_context()
        request = bulks.current(here)
        if request is None:
            request = Bulk()
            request.learn(bulks.from_baggage(here), "baggage")
        self._request = request
        own = bulks.find_in_call(args, payload)
        if request.job_id is not None and request.job_id == job_id:
            # A job that enqueues itself again is retried.
            request.resent, attempt = True, max(attempt, request.attempt + 1)
        self._share = share
        alone = parent.is_valid and request.size >= JOBS_PER_TRACE
        job = Bulk(job_id=job_id)
        if request.source == "payload":
            # That was another job's, published by the same caller: this one's own goes before it.
            job.learn(own, "payload")
        request.learn(own, "payload")
        if job.id is None:
            job.id, job.source = request.id, request.source
        base = trace.set_span_in_context(trace.INVALID_SPAN, here) if alone else here
        self._span = _instruments.tracer().start_span(
            f"send {queue}",
            context=bulks.bind(job, base),
            kind=SpanKind.PRODUCER,
            links=[Link(parent)] if alone else None,
            attributes={
                c.MESSAGING_SYSTEM: system,
                c.MESSAGING_OPERATION_NAME: "send",
                c.MESSAGING_OPERATION_TYPE: "send",
                c.MESSAGING_DESTINATION: queue,
                c.TASK_NAME: task,
                c.JOB_ATTEMPT: attempt,
                c.JOB_DELAY: delay,
            },
        )
        if job_id is not None:
            self._span.set_attribute(c.MESSAGING_MESSAGE_ID, job_id)
        if job.id is None:
            # Nobody named the bulk: the trace that enqueues it is its id, and is marked as such.
            span_context = parent if parent.is_valid else self._span.get_span_context()
            request.learn(trace.format_trace_id(span_context.trace_id), "trace")
            job.learn(request.id, "trace")
            self._span.set_attributes({c.BULK_ID: str(job.id), c.BULK_ID_SOURCE: "trace"})
        self._context = trace.set_span_in_context(self._span, bulks.bind(job, base))
        propagate.inject(self.headers, self._context)
        self.headers[ENQUEUED_HEADER] = str(time.time_ns())
        boot = _boot()
        if boot is not None:
            self.headers[CLOCK_HEADER] = f"{boot}:{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}"
        self.headers[DELAY_HEADER] = repr(delay)
        self.headers[ATTEMPT_HEADER] = str(attempt)

    @guarded
    def identify(self, job_id: str) -> None:
        """Set the id that the broker has given the job."""
        self._span.set_attributes({c.MESSAGING_MESSAGE_ID: job_id, c.JOB_ID: job_id})

    def __enter__(self) -> Send:
        self._token = current.enter(self._context)
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._finish(error)

    @guarded
    def _finish(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started
        current.leave(self._token)
        labels: _instruments.AttributeValues = {
            c.MESSAGING_SYSTEM: self._system,
            c.MESSAGING_OPERATION_NAME: "send",
            c.MESSAGING_DESTINATION: self._queue,
            c.TASK_NAME: self._task,
        }
        self._request.enqueue_seconds += seconds / self._share
        if error is None:
            self._request.size += 1
        else:
            labels[c.ERROR_TYPE] = error_type(error)
            self._request.overload = self._request.overload or is_overload(error)
            self._span.set_attributes({c.ERROR_TYPE: error_type(error), c.BULK_FAILURE_DOMAIN: "infra"})
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        _instruments.record(c.M_CLIENT_OPERATION_DURATION, seconds, labels)
        _instruments.add(c.M_SENT_MESSAGES, 1, labels)


class Work:
    """Doing one job, from ``start`` to ``finish``, both in the thread that does it; or ``tell`` of another process'."""

    def __init__(
        self,
        *,
        system: str,
        queue: str,
        job_id: str,
        task: str,
        headers: Mapping[str, Any],
        args: Sequence[object] = (),
        payload: object = None,
    ) -> None:
        self._labels: _instruments.AttributeValues = {
            c.MESSAGING_SYSTEM: system,
            c.MESSAGING_OPERATION_NAME: "process",
            c.MESSAGING_DESTINATION: queue,
            c.TASK_NAME: task,
        }
        self._queue = queue
        self.error: BaseException | None = None
        self.retry = self.sent = False  # sent: that it began has left
        context = propagate.extract(_texts(headers))
        self.bulk = Bulk(job_id=job_id)
        # An id made of the trace stays marked through baggage: it equals the parent's trace id.
        carried = bulks.from_baggage(context)
        trace_id = trace.get_current_span(context).get_span_context().trace_id
        by_trace = carried is not None and trace_id != 0 and carried == trace.format_trace_id(trace_id)
        self.bulk.learn(carried, "trace" if by_trace else "baggage")
        self.bulk.learn(bulks.find_in_call(args, payload), "payload")
        self._parent = bulks.bind(self.bulk, context)
        self._headers = headers
        self._delay = _number(headers.get(DELAY_HEADER)) or 0.0
        self._attempt = attempt_of(headers) or 1

    def _begin(self, started_ns: int, attempt: int | None) -> None:
        self.bulk.attempt = attempt or self._attempt
        self.started_ns = started_ns
        self._enqueued_ns = _enqueued_ns(self._headers, time.time_ns())
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

    def start(self, attempt: int | None = None) -> Work:
        """Begin the CONSUMER span, say that the job has started, and make its context the current one."""
        now_ns = time.time_ns()
        self.clock = time.perf_counter()
        self._cpu = time.process_time()
        self._begin(now_ns, attempt)
        self.context: Context = trace.set_span_in_context(self.span, self._parent)
        self._token = current.enter(self.context)
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
            self.event(c.EVENT_JOB_STARTED, _kernel())
            _heartbeat.add(self)
            _soon.ask()

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
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
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body=f"{name} {self.bulk.job_id}",
                attributes=values,
                event_name=name,
            )
        )

    def elapsed(self) -> dict[str, float | int]:
        """Return seconds since the start, CPU seconds of the process since then, and what the kernel says now."""
        found: dict[str, float | int] = {
            **_kernel(),
            c.JOB_ELAPSED: time.perf_counter() - self.clock,
            c.CPU_TIME: time.process_time() - self._cpu,
        }
        status = _proc().status()
        if status.rss is not None:
            found[c.M_PROCESS_MEMORY_USAGE] = status.rss
        return found

    def _domain(self, error: BaseException) -> str:
        domain = failure_domain(error)
        # Engines answer with an error instead of raising; what the job makes of that may be any exception.
        return self.bulk.inference_failure or domain if domain == "code" else domain

    @guarded
    def finish(self, error: BaseException | None = None, *, retry: bool = False) -> None:
        """End the span. ``error`` is what the job failed with; ``retry`` says that it will be tried again.

        A retried attempt carries its error but is no failure of the job: its status stays unset.
        """
        current.leave(self._token)
        _heartbeat.remove(self)
        retry = retry or (error is not None and self.bulk.resent)
        seconds = time.perf_counter() - self.clock
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
        started_ns: int,
        ended_ns: int,
        attempt: int | None = None,
        domain: str | None = None,
        retry: bool = False,
    ) -> None:
        """Record an attempt that process ``pid`` began and cannot end any more; instead of ``start`` and ``finish``.

        Times in ns since the epoch. ``domain`` goes before what the error says by itself. That the job was taken
        is not counted: its process has done so.
        """
        self._begin(started_ns, attempt)
        self.span.set_attribute(c.PROCESS_PID, pid)
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


@cache
def _boot() -> str | None:
    """Return what names this boot of this machine, the same in all its containers; None where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:18] or None
    except OSError:
        return None


def _shared_age(sent: object) -> int | None:
    """Return the nanoseconds since a job was enqueued by the clock of the boot; None if it was another's."""
    boot, _, clock = str(sent or "").partition(":")
    if not clock.isdecimal() or boot != _boot():
        return None
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(clock)


@cache
def _proc() -> Proc:
    return Proc()


def oom_kills() -> int | None:
    """Return how many processes the kernel has killed for memory, ever, in our cgroup, else on the host."""
    return _proc().oom_kills()


_kernels: tuple[float, dict[str, float | int]] = (0.0, {})


def _kernel() -> dict[str, float | int]:
    """Return what the kernel says beside a job: kills for memory, resident bytes, and how full the cgroup is.

    Read at most twice a second, 0.1 ms each time.
    """
    global _kernels
    now = time.monotonic()
    if now - _kernels[0] > HEARTBEAT_SECONDS / 2:
        proc = _proc()
        said = {
            c.OOM_KILLS: oom_kills(), c.M_PROCESS_MEMORY_USAGE: proc.status().rss,
            c.M_WORKER_MEMORY_UTILIZATION: proc.memory_utilization(),
        }  # fmt: skip
        _kernels = (now, {name: value for name, value in said.items() if value is not None})
    return _kernels[1]


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if isinstance(value, str)}


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def attempt_of(headers: Mapping[str, Any] | None) -> int:
    """Return the attempt that these headers were sent with; 0 when they do not say."""
    return int(_number((headers or {}).get(ATTEMPT_HEADER)) or 0)


def _enqueued_ns(headers: Mapping[str, Any], now_ns: int) -> float | None:
    """Return when a job with these headers was enqueued, by the wall clock; None when they do not say."""
    enqueued = _number(headers.get(ENQUEUED_HEADER))
    shared = None if enqueued is None else _shared_age(headers.get(CLOCK_HEADER))
    return enqueued if shared is None else now_ns - shared


def age(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds since a job with these headers was enqueued; None when they do not say."""
    now_ns = time.time_ns()
    enqueued = _enqueued_ns(headers, now_ns)
    return None if enqueued is None else max(0.0, (now_ns - enqueued) / 1e9)


class _Heartbeat:
    """One daemon thread a process that reports every running job once a second."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Work] = set()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, work: Work) -> None:
        with self._lock:
            self._running.add(work)
            if self._thread is None:
                thread = threading.Thread(target=self._beat, name="bulkscope-heartbeat", daemon=True)
                thread.start()
                self._thread = thread  # only one that runs: "can't start new thread" may pass
        self._awake.set()

    def remove(self, work: Work) -> None:
        with self._lock:
            self._running.discard(work)
            if not self._running:
                self._awake.clear()

    def unsent(self, seconds: float) -> tuple[bool, bool]:
        """Tell whether a job has run for so long whose beginning has not left yet, and whether a younger one runs.

        Whoever asks sends the former.
        """
        until = time.perf_counter() - seconds
        with self._lock:
            young = {work for work in self._running if not work.sent and work.clock > until}
            due = [work for work in self._running - young if not work.sent]
            for work in due:
                work.sent = True
        return bool(due), bool(young)

    def _beat(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(HEARTBEAT_SECONDS)
            with self._lock:
                running = list(self._running)
            for work in running:
                self._report(work)

    @guarded
    def _report(self, work: Work) -> None:
        elapsed = work.elapsed()
        # A job younger than a beat has just said that it started.
        if elapsed[c.JOB_ELAPSED] >= HEARTBEAT_SECONDS:
            work.event(c.EVENT_JOB_HEARTBEAT, elapsed)


_heartbeat = _Heartbeat()
_soon = Soon(_heartbeat.unsent)
