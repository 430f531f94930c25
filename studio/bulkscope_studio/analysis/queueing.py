"""What pure queueing gives, to hold the measured waits against; times in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """N jobs put at once on c workers with equal service time S: the least that queueing alone costs."""

    jobs: int
    workers: int
    service: float
    mean_wait: float
    wait_ratio: float
    makespan: float


def put_at_once(jobs: int, workers: int, service: float | None) -> Expected | None:
    """Mean wait S(N/c-1)/2, ratio (N/c-1)/(N/c+1) of mean wait over mean total, makespan N*S/c.

    With N < c nobody waits: N/c is then taken as 1. None without jobs, workers or a service time.
    """
    if jobs < 1 or workers < 1 or service is None:
        return None
    rounds = max(1.0, jobs / workers)
    return Expected(jobs, workers, service, service * (rounds - 1) / 2, (rounds - 1) / (rounds + 1), service * rounds)


@dataclass(frozen=True, slots=True)
class Little:
    """L = lambda * W over a window that starts and ends empty: a check on the data, not a result.

    ``in_system`` is L, integrated over enqueue and end times; ``rate`` is lambda in jobs/s; ``time`` is W,
    the mean of wait + delay + work as the workers recorded them; ``deviation`` is |L - lambda W| / L.
    """

    in_system: float
    rate: float
    time: float
    deviation: float
    ok: bool


LITTLE_TOLERANCE = 0.05


def little(
    arrivals: Sequence[int], departures: Sequence[int], times: Sequence[float], window_ns: tuple[int, int]
) -> Little | None:
    """Check recorded times against the count of jobs in the system; None for an empty window.

    L and lambda come from the enqueue times of the senders, W from what the workers recorded, so lost spans,
    a skewed clock and a cut window show as a difference. A retry has no sender's record: it always agrees.
    """
    length = (window_ns[1] - window_ns[0]) / 1e9
    if length <= 0 or not times or not arrivals:
        return None
    changes = sorted([(at, 1) for at in arrivals] + [(at, -1) for at in departures])
    area, inside, before = 0.0, 0, window_ns[0]
    for at, change in changes:
        area += inside * (at - before) / 1e9
        inside, before = inside + change, at
    area += inside * (window_ns[1] - before) / 1e9
    in_system, rate, time = area / length, len(arrivals) / length, sum(times) / len(times)
    if in_system <= 0:
        return None
    deviation = abs(in_system - rate * time) / in_system
    return Little(in_system, rate, time, deviation, deviation <= LITTLE_TOLERANCE)
