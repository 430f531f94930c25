"""Whether more arrived than the workers could do: of one bulk, and of what stood in the queue before it.

Times in seconds, shares 0..1, absent is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import estimates, thresholds
from bulkscope_studio.analysis.estimates import Estimate
from bulkscope_studio.analysis.facts import HISTORY_NS, Facts, Flags, Floats
from bulkscope_studio.analysis.timeline import Steps, Timeline, steps

# A slope over more steps than these is no surer, and each must be long against a burst.
_MOST_POINTS, _JOBS_A_POINT, _FEWEST_POINTS = 20, 5, 3
# Of the time that a bulk's jobs waited: for less, other bulks' jobs are not what held it up.
_FOR_OTHERS = 0.5


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Whether a backlog grew while jobs arrived: drifts per second over ``points`` steps of the ``window``.

    ``rate``: jobs/s that came. ``service``: growth of the service time over the window, relative to its mean;
    ``offered``: jobs that came over those that the places can do at the service time that the window began with, below
    the truth where jobs are retried or others run beside them. ``places``: mean number of those; ``busy``: share of it.
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

    @property
    def piles_up(self) -> bool:
        """Whether the backlog surely rose."""
        return self.backlog is not None and self.backlog.low > thresholds.RISES.value

    @property
    def slowed(self) -> float:
        """Growth of the service time over the window, relative to its mean; 0 where it may have been flat."""
        grew = self.service is not None and self.service.low > thresholds.SERVICE_GROWTH.value
        return self.service.value if self.service is not None and grew else 0.0


def own(facts: Facts, timeline: Timeline) -> Arrivals:
    """Compute it of the bulk, from its first enqueue to its last."""
    put = _puts(facts, facts.attempts.mine)
    first, last = (float(put[0]), float(put[-1])) if len(put) else (0.0, 0.0)
    return _between(facts, timeline, facts.attempts.mine, timeline.backlog, first, last)


def over_time(facts: Facts, timeline: Timeline, found: Arrivals) -> bool:
    """Tell whether a bulk came in several requests over time; one that is put at once has a backlog by design."""
    # Many requests at once are a bulk put at once. Without the API's spans it is the producers' times that tell.
    sending = int(np.sum(~(facts.requests.size == 0)))
    long = found.window >= thresholds.OVERLOAD_S.value or found.window > 0.2 * (timeline.last - timeline.first)
    return long and (sending >= thresholds.SENDING.value or not len(facts.requests.size))


def waited_for_others(timeline: Timeline) -> bool:
    """Tell whether it was mostly other bulks' jobs that the bulk's jobs waited for."""
    w = timeline.waits
    for_others = float(np.sum(w.others))
    return for_others > _FOR_OTHERS * (for_others + float(np.sum(w.own) + np.sum(w.dispatch) + np.sum(w.absent)))


def ahead(facts: Facts, timeline: Timeline) -> Arrivals | None:
    """Compute it of other bulks' jobs, from when the queue was last empty until the bulk's first job could be taken.

    None where it is not they that the bulk's jobs waited for: their backlog is then no matter of this bulk; and where
    they are too few to see a slope.
    """
    if not waited_for_others(timeline):
        return None
    a = facts.attempts
    queues = np.unique(a.queue[a.mine])
    begun = ~a.mine & np.isfinite(a.start) & np.isfinite(a.ready) & np.isin(a.queue, queues)
    backlog = steps(a.ready[begun], np.maximum(a.start, a.ready)[begun])
    empty = backlog.at[(backlog.count == 0) & (backlog.at <= timeline.first)]
    before = max(facts.heard_first, -HISTORY_NS / 1e9, float(empty[-1]) if len(empty) else -np.inf)
    put = _puts(facts, begun)
    put = put[(put >= before) & (put <= timeline.first)]
    if len(put) < _FEWEST_POINTS * _JOBS_A_POINT:
        return None
    return _between(facts, timeline, begun, backlog, float(put[0]), timeline.first)


def _puts(facts: Facts, rows: Flags) -> Floats:
    """Return when the first attempts among ``rows`` could be taken, ascending."""
    a = facts.attempts
    return np.sort(a.ready[rows & np.isfinite(a.ready) & (a.attempt <= 1)])


def _between(facts: Facts, timeline: Timeline, rows: Flags, backlog: Steps, first: float, last: float) -> Arrivals:
    """Compute it of the jobs among ``rows``, whose waiting ones ``backlog`` counts."""
    a, window = facts.attempts, last - first
    put = _puts(facts, rows)
    count = int(np.sum((put >= first) & (put <= last)))
    points = min(_MOST_POINTS, count // _JOBS_A_POINT)
    if window <= 0:
        return Arrivals(window, points, np.nan, None, None, None, None, np.nan, np.nan)
    there = timeline.capacity.between(first, last)  # of the workers that were there, not of all that ever were
    busy = timeline.every.between(first, last) / there if there > 0 else np.nan
    rate = (count - 1) / window
    if points < _FEWEST_POINTS:
        return Arrivals(window, points, rate, None, None, None, None, there / window, busy)
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
    line = estimates.line(a.start[begun][finished], took)
    usual = float(np.mean(took)) if len(took) else np.nan
    return Arrivals(
        window=window,
        points=min(points, len(means)),
        rate=rate,
        backlog=estimates.drift(backlog.value(edges), step),
        wait=estimates.drift(means, step),
        service=_scaled(line[1], window / usual) if line is not None and usual > 0 else None,
        offered=_scaled(line[0], rate * window / there) if line is not None and there > 0 else None,
        places=there / window,
        busy=busy,
    )


def _scaled(estimate: Estimate, by: float) -> Estimate:
    return Estimate(estimate.value * by, estimate.low * by, estimate.high * by)
