"""What travels with a job beside its payload: names, writing, reading."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bulkscope._jobs import clock

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


def texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return those headers whose values are texts: what propagators can read."""
    return {key: value for key, value in headers.items() if isinstance(value, str)}


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
