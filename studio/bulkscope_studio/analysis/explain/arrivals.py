"""Whether more arrived than the workers could do: of one bulk, and of what stood in the queue before it.

Times in seconds, shares 0..1, absent is NaN.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import HISTORY_NS, Facts, Flags, Floats
from bulkscope_studio.analysis.timeline.timeline import Timeline, capacity, steps

# More steps make a trend no more precise, and each must be long compared with a burst.
_MOST_POINTS, _JOBS_A_POINT, _FEWEST_POINTS = 20, 5, 3
# The window before a bulk starts at an empty queue and ends at a waiting job, so it is biased towards a rising backlog:
# 7 of 16 simulated queues at 95 % load on 4 slots looked overloaded, by 1.0 to 1.7 half-intervals; queues at 160 % load
# have at least 3.1. The interval is therefore doubled.
_WIDER = 2.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Whether a backlog grew while jobs arrived: drifts per second over ``points`` steps of the ``window``.

    ``rate``: jobs/s that came. ``service``: growth of the service time over the window, relative to its mean;
    ``offered``: arrivals over what the slots can do at the service time at the start of the window; too low where jobs
    are retried or other jobs run at the same time. ``places``: mean number of slots; ``busy``: their busy share.
    ``load``: time that the jobs that came took of the slots, gaps before them included, and that others took meanwhile,
    over the time that the slots had until the last came; ``left``: jobs that waited when the last came, and ``drain``
    seconds until they had begun.
    """

    window: float
    points: int
    rate: float
    backlog: Estimate | None
    wait: Estimate | None
    service: Estimate | None
    offered: Estimate | None
    places: float
    busy: float
    load: float
    left: int
    drain: float

    @property
    def piles_up(self) -> bool:
        """Whether the backlog rose by more than chance."""
        return self.backlog is not None and self.backlog.low > thresholds.RISES.value

    @property
    def slowed(self) -> float:
        """Growth of the service time over the window, relative to its mean; 0 where it may have been flat."""
        grew = self.service is not None and self.service.low > thresholds.SERVICE_GROWTH.value
        return self.service.value if self.service is not None and grew else 0.0


def own(facts: Facts, timeline: Timeline) -> Arrivals:
    """Compute it of the bulk, from its first enqueue to its last."""
    mine = facts.attempts.mine
    return _of(facts, timeline, mine, _puts(facts, mine))


def over_time(facts: Facts, timeline: Timeline, found: Arrivals) -> bool:
    """Tell whether a bulk's jobs arrived over time; one that is enqueued at once has a backlog by design."""
    # Many requests at once are a bulk enqueued at once. Without the API's spans the times of the sends decide.
    sending = int(np.sum(~(facts.requests.size == 0)))
    long = found.window >= thresholds.OVERLOAD_S.value or found.window > 0.2 * (timeline.last - timeline.first)
    return long and (sending >= thresholds.SENDING.value or not len(facts.requests.size))


def ahead(facts: Facts, timeline: Timeline) -> Arrivals | None:
    """Compute it of other bulks' jobs on the bulk's queues and workers, as they stood before it.

    From when the queue was last empty to the last arrival before the bulk's first job was ready; None where there are
    too few for a trend. Jobs that have not begun do not count.
    """
    a = facts.attempts
    queues = np.unique(a.queue[a.mine & (a.queue >= 0)])
    rows = ~a.mine & np.isfinite(a.start) & np.isfinite(a.ready) & (np.isin(a.queue, queues) | timeline.ours)
    # Only jobs that waited, and that the bulk did not overtake.
    stood = rows & (a.start > a.ready) & (a.start <= _first_start(facts))
    queue = steps(a.ready[stood], a.start[stood])
    empty = np.flatnonzero((queue.count == 0) & (queue.at <= timeline.first))
    filled = queue.at[empty[-1] + 1 :] if len(empty) else queue.at  # from the first job that stood in it since
    since = max(facts.heard_first, -HISTORY_NS / 1e9, float(filled[0]) if len(filled) else np.inf)
    put = _puts(facts, rows)
    put = put[(put >= since) & (put <= timeline.first)]
    if len(put) < _FEWEST_POINTS * _JOBS_A_POINT:
        return None
    first, last = float(put[0]), float(put[-1])
    # The workers of that time: the bulk itself may have had others.
    there = rows & (timeline.end >= first) & (a.start <= last)
    workers = np.unique(a.worker[there & (a.worker >= 0)])
    busy = np.isfinite(a.start) & np.isin(a.worker, workers)
    then = dataclasses.replace(
        timeline,
        backlog=steps(a.ready[rows], np.maximum(a.start, a.ready)[rows]),
        every=steps(a.start[busy], timeline.end[busy]),
        capacity=capacity(facts, timeline.end, workers, timeline.places),
    )
    found = _of(facts, then, rows, put)
    return dataclasses.replace(found, backlog=_wider(found.backlog), wait=_wider(found.wait))


def _first_start(facts: Facts) -> float:
    """Return when the bulk's first job began; infinite when none has."""
    a = facts.attempts
    return float(np.min(a.start[a.mine & np.isfinite(a.start)], initial=np.inf))


def _wider(found: Estimate | None) -> Estimate | None:
    if found is None:
        return None
    value = found.value
    return Estimate(value, value - _WIDER * (value - found.low), value + _WIDER * (found.high - value))


def _puts(facts: Facts, rows: Flags) -> Floats:
    """Return when the first attempts among ``rows`` could be taken, ascending."""
    a = facts.attempts
    return np.sort(a.ready[rows & np.isfinite(a.ready) & (a.attempt <= 1)])


def _of(facts: Facts, timeline: Timeline, rows: Flags, put: Floats) -> Arrivals:
    """Compute it from the first of ``put`` to the last, of ``rows``, whose backlog and workers ``timeline`` has."""
    a = facts.attempts
    first, last = (float(put[0]), float(put[-1])) if len(put) else (0.0, 0.0)
    window = last - first
    points = min(_MOST_POINTS, len(put) // _JOBS_A_POINT)
    if window <= 0:
        return Arrivals(window, points, np.nan, None, None, None, None, np.nan, np.nan, np.nan, 0, np.nan)
    there = timeline.capacity.between(first, last)  # of the workers that were there then
    busy = timeline.every.between(first, last) / there if there > 0 else np.nan
    rate = (len(put) - 1) / window
    load, left, drain = _load(facts, timeline, rows, first, last, there)
    if points < _FEWEST_POINTS:
        return Arrivals(window, points, rate, None, None, None, None, there / window, busy, load, left, drain)
    edges = np.linspace(first, last, points + 1)
    step = window / points
    begun = np.flatnonzero(rows & np.isfinite(a.start) & np.isfinite(a.ready))
    begun = begun[(a.start[begun] >= first) & (a.start[begun] <= last)]
    waited, worked = a.start[begun] - a.ready[begun], timeline.end[begun] - a.start[begun]
    finished = a.ended[begun]
    bins = np.clip(np.searchsorted(edges, a.start[begun], "right") - 1, 0, points - 1)
    counts = np.bincount(bins, minlength=points)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.bincount(bins, waited, points) / counts
    means = means[np.isfinite(means)]
    took = worked[finished]
    growth = estimates.slope(a.start[begun][finished], took)
    # Only the first step: a line through all steps is too high at the start where jobs slow down once, early.
    at_first = estimates.mean(took[a.start[begun][finished] <= edges[1]])
    usual = float(np.mean(took)) if len(took) else np.nan
    return Arrivals(
        window=window,
        points=min(points, len(means)),
        rate=rate,
        backlog=estimates.drift(timeline.backlog.value(edges), step),
        wait=estimates.drift(means, step),
        service=_scaled(growth, window / usual) if growth is not None and usual > 0 else None,
        offered=_scaled(at_first, rate * window / there) if at_first is not None and there > 0 else None,
        places=there / window,
        busy=busy,
        load=load,
        left=left,
        drain=drain,
    )


def _load(
    facts: Facts, timeline: Timeline, rows: Flags, first: float, last: float, there: float
) -> tuple[float, int, float]:
    """Return the offered load of what came before the last arrival, and what was left when it came."""
    a = facts.attempts
    known = rows & np.isfinite(a.ready)
    came = known & (a.ready >= first) & (a.ready < last) & np.isfinite(a.start)
    gap = np.nan_to_num(np.minimum(a.start - np.maximum(a.ready, timeline.places.free), a.start - a.ready))
    work = float(np.sum((timeline.end - a.start)[came] + np.maximum(gap, 0.0)[came]))
    others = timeline.every.between(first, last) - timeline.mine.between(first, last)
    began = np.where(np.isfinite(a.start), a.start, timeline.last)
    left = known & (a.ready <= last) & (began > last)
    drain = float(np.max(began[left]) - last) if left.any() else 0.0
    return (work + max(0.0, others)) / there if there > 0 else np.nan, int(left.sum()), drain


def _scaled(estimate: Estimate, by: float) -> Estimate:
    return Estimate(estimate.value * by, estimate.low * by, estimate.high * by)
