"""How busy the workers were and what each job waited for, from the starts and ends of attempts; times in seconds."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.timeline.facts import Attempts, Codes, Facts, Flags, Floats, by_code


@dataclass(frozen=True, slots=True)
class Steps:
    """A count that changes at ``at`` (ascending); ``area`` is its integral up to each change."""

    at: Floats
    count: Floats
    area: Floats

    def integral(self, times: Floats) -> Floats:
        """Return the integral of the count from before its first change to ``times``."""
        if len(self.at) == 0:
            return np.zeros_like(times)
        index = np.searchsorted(self.at, times, "right") - 1
        inside = index >= 0
        index = np.maximum(index, 0)
        return np.where(inside, self.area[index] + self.count[index] * (times - self.at[index]), 0.0)

    def between(self, first: float, last: float) -> float:
        """Return the integral from ``first`` to ``last``."""
        before, after = self.integral(np.array([first, last]))
        return float(after - before)

    def mean(self, first: Floats, last: Floats) -> Floats:
        """Return the time-average of the count from ``first`` to ``last``; NaN where that is no time."""
        length = last - first
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(length > 0, (self.integral(last) - self.integral(first)) / length, np.nan)

    def value(self, times: Floats) -> Floats:
        """Return the count at ``times``."""
        index = np.searchsorted(self.at, times, "right") - 1
        return np.where(index >= 0, self.count[np.maximum(index, 0)], 0.0) if len(self.at) else np.zeros_like(times)

    def highest(self) -> int:
        """Return the highest count."""
        return int(self.count.max(initial=0.0))


def steps(starts: Floats, ends: Floats) -> Steps:
    """Count the intervals that are open: +1 at each start, -1 at each end, at equal times ends first."""
    at = np.concatenate([starts, ends])
    change = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    order = np.lexsort((change, at))
    at, count = at[order], np.cumsum(change[order])
    area = np.concatenate([[0.0], np.cumsum(count[:-1] * np.diff(at))]) if len(at) else at
    return Steps(at, count, area)


@dataclass(frozen=True, slots=True)
class Slots:
    """For each attempt that began: when its concurrency slot had become free, and which attempt had it before.

    ``free`` is NaN where nothing is known of the slot before; ``before`` is a row of attempts, -1 for none.
    ``places`` is the number of slots by worker code: the most attempts that the worker ran at once.
    """

    free: Floats
    before: Codes
    places: dict[int, int]


# Elasticsearch keeps the start of a span in milliseconds, so overlaps of a millisecond are ignored.
_OVERLAP_S = 0.001
# A clock that steps back makes consecutive jobs overlap a little. Overlaps of at most 5 % of the shorter job, in at
# most 5 % of the jobs, are ignored; a real second slot overlaps far more often.
_STEP, _STEPPED = 0.05, 0.05


def _one_at_a_time(start: Floats, end: Floats) -> bool:
    """Tell whether a worker has one slot: its attempts, in the order of their starts, did not overlap."""
    length, over = end - start, end[:-1] - start[1:]
    late = over > _OVERLAP_S
    stepped = over[late] <= _STEP * np.minimum(length[:-1], length[1:])[late]
    return bool(np.all(stepped)) and int(late.sum()) <= max(1, _STEPPED * len(start)) if late.any() else True


def places_of(start: Floats, end: Floats) -> int:
    """Return how many slots a worker has: the most of its attempts (ordered by start) at once, 1 or more."""
    if _one_at_a_time(start, end):
        return 1
    return max(1, steps(start, np.maximum(start, end - _OVERLAP_S)).highest())


def there_at_once(worker: Codes, start: Floats, end: Floats) -> int:
    """Return the most concurrency slots that were there at once, by attempts (rows,); 0 for none.

    A worker's slots are there from its first start to its last end: of processes that are forked for a job each and
    follow one another there is one, of three jobs at once in one process there are three. They are never so few that
    the work would take them longer than it took.
    """
    if not len(start):
        return 0
    taken = float(end.max() - start.min())
    # Overlaps of less than a millisecond are no slots, and jobs that are shorter overlap by no more.
    # A clock that was set back makes the work a little longer than the time that it took: see _STEP.
    least = math.ceil(float((end - start).sum()) / taken / (1 + _STEP * _STEPPED) - 1e-9) if taken > 0 else 1
    begins: list[float] = []
    ends: list[float] = []
    for rows in by_code(worker, np.lexsort((end, start))).values():
        places = places_of(start[rows], end[rows])
        begins += [float(start[rows].min())] * places
        ends += [max(float(start[rows].min()), float(end[rows].max()) - _OVERLAP_S)] * places
    return max(least, steps(np.array(begins, np.float64), np.array(ends, np.float64)).highest())


def slots(attempts: Attempts, end: Floats, alive: dict[int, float]) -> Slots:
    """Assign attempts to the slots of their workers; of several free slots the one that was freed last is taken.

    ``end`` is the attempts' end, or when an open one was last seen; ``alive`` when each worker was first heard of.
    """
    size = len(attempts.start)
    free, before = np.full(size, np.nan), np.full(size, -1, np.int64)
    begun = np.flatnonzero(np.isfinite(attempts.start) & (attempts.worker >= 0))
    order = begun[np.lexsort((end[begun], attempts.start[begun], attempts.worker[begun]))]
    worker, start, until = attempts.worker[order], attempts.start[order], end[order]
    first = np.concatenate([[True], worker[1:] != worker[:-1]]) if len(order) else np.zeros(0, np.bool_)
    places: dict[int, int] = {}
    bounds = np.append(np.flatnonzero(first), len(order))
    for begin, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        who = int(worker[begin])
        rows = order[begin:stop]
        known = alive.get(who, np.nan)
        own_start, own_end = start[begin:stop], until[begin:stop]
        if _one_at_a_time(own_start, own_end):
            places[who] = 1
            free[rows[1:]], before[rows[1:]] = np.minimum(own_end[:-1], own_start[1:]), rows[:-1]
            free[rows[0]] = min(known, own_start[0]) if np.isfinite(known) else np.nan
            continue
        ends: list[tuple[float, int]] = []
        waiting: list[tuple[float, int]] = []  # free slots, the one that was freed last first
        count = 0
        for row, at, leave in zip(rows.tolist(), own_start.tolist(), own_end.tolist(), strict=True):
            while ends and ends[0][0] <= at + _OVERLAP_S:
                freed, other = heapq.heappop(ends)
                heapq.heappush(waiting, (-freed, other))
            if waiting:
                freed, other = heapq.heappop(waiting)
                free[row], before[row] = -freed, other
            else:
                count += 1
                free[row] = min(known, at) if np.isfinite(known) else np.nan
            heapq.heappush(ends, (leave, row))
        places[who] = count
    return Slots(free, before, places)


@dataclass(frozen=True, slots=True)
class Waits:
    """What the bulk's attempts waited for, in seconds by row of attempts (NaN: not known); the parts add up to wait.

    ``own`` and ``others``: the slot was busy, with jobs of this bulk or of other bulks. ``dispatch``: the slot was free
    and the job was ready, but not taken. ``absent``: before anything is known of the worker that took the job.
    """

    rows: Codes
    own: Floats
    others: Floats
    dispatch: Floats
    absent: Floats


def waits(attempts: Attempts, places: Slots, own: Steps, every: Steps) -> Waits:
    """Split each wait of the bulk's own attempts by its cause; ``own`` and ``every`` count the busy slots."""
    rows = np.flatnonzero(attempts.mine & np.isfinite(attempts.start) & np.isfinite(attempts.ready))
    ready, start, free = attempts.ready[rows], attempts.start[rows], places.free[rows]
    wait = np.maximum(start - ready, 0.0)
    known = np.isfinite(free)
    taken = np.where(known, np.clip(free - ready, 0.0, wait), 0.0)
    rest = wait - taken
    # While its slot was busy: the mean share of busy slots that worked for this bulk.
    busy_own = own.integral(ready + taken) - own.integral(ready)
    busy_all = every.integral(ready + taken) - every.integral(ready)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(busy_all > 0, np.clip(busy_own / busy_all, 0.0, 1.0), 1.0)
    return Waits(
        rows, taken * share, taken * (1 - share), np.where(known, rest, 0.0), np.where(known, 0.0, rest)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timeline:
    """The bulk's workers in time. ``end`` is when each attempt ended or was last seen.

    ``mine`` and ``every`` count busy slots of the workers that the bulk had; ``backlog`` its waiting jobs;
    ``crowd`` is 1 while at least three quarters of the usual number of slots were busy;
    ``host_busy`` the busy slots of each host, whatever they worked for; ``capacity`` the slots that were there.
    ``first`` is the first time a job was ready, ``last`` the last end, or now while the bulk runs.
    """

    end: Floats
    ours: Flags
    mine: Steps
    every: Steps
    backlog: Steps
    crowd: Steps
    capacity: Steps
    host_busy: dict[int, Steps]
    places: Slots
    waits: Waits
    first: float
    last: float


def build(facts: Facts, running: bool) -> Timeline:
    """Compute it; ``running``: the bulk is not complete, and open attempts last until now."""
    a = facts.attempts
    begun = np.isfinite(a.start)
    # An open attempt lasts while it is heard of; an ended one has its end.
    end = np.where(a.ended, a.end, np.where(a.silent | ~begun, a.seen, np.maximum(a.seen, facts.now)))
    end = _until_next(a, end)
    mine_rows = begun & a.mine
    first, last = _window(facts, end, running)
    # All workers of its queues, also those that had none of its jobs: they could have taken one.
    beside = begun & (end >= first) & (a.start <= last) & np.isin(a.queue, np.unique(a.queue[a.mine & (a.queue >= 0)]))
    own_workers = np.unique(a.worker[(mine_rows | beside) & (a.worker >= 0)])
    ours = begun & np.isin(a.worker, own_workers)
    alive = {worker.code: worker.first for worker in facts.workers if np.isfinite(worker.first)}
    places = slots(a, end, alive)
    mine, every = steps(a.start[mine_rows], end[mine_rows]), steps(a.start[ours], end[ours])
    waiting = a.mine & np.isfinite(a.ready)
    taken_at = np.where(begun, a.start, max(last, facts.now))
    backlog = steps(a.ready[waiting], np.maximum(taken_at, a.ready)[waiting])
    return Timeline(
        end=end,
        ours=ours,
        mine=mine,
        every=every,
        backlog=backlog,
        crowd=_crowd(every, first, last),
        capacity=capacity(facts, end, own_workers, places),
        host_busy={
            host: steps(a.start[rows], end[rows]) for host, rows in by_code(a.host, np.flatnonzero(begun)).items()
        },
        places=places,
        waits=waits(a, places, mine, every),
        first=first,
        last=last,
    )


def _until_next(attempts: Attempts, end: Floats) -> Floats:
    """Return ``end`` with open attempts ended when their worker began the next, if they were not heard of since.

    The span of a finished job can arrive after its worker's "started" event for the next job. Until it does, the worker
    seems to have two slots, one of which was idle all the time before. An attempt that really goes on is heard of again
    within a second; attempts that began at the same moment were begun together. A start ends one attempt at most, the
    last before it: of several open ones it is known how many had ended, not which.
    """
    begun = np.isfinite(attempts.start) & (attempts.worker >= 0)
    # Only workers with an open attempt, which are few: in a complete bulk there is none.
    rows = np.flatnonzero(begun & np.isin(attempts.worker, np.unique(attempts.worker[begun & ~attempts.ended])))
    order = rows[np.lexsort((attempts.start[rows], attempts.worker[rows]))]
    row, after = order[:-1], order[1:]
    begins = attempts.start[after]
    over = (attempts.worker[row] == attempts.worker[after]) & ~attempts.ended[row] & (attempts.seen[row] < begins)
    found = end.copy()
    found[row[over]] = np.minimum(end[row[over]], begins[over])
    return found


def _window(facts: Facts, end: Floats, running: bool) -> tuple[float, float]:
    """Return when the bulk's first job was ready, or began, and when its last ended."""
    a = facts.attempts
    begun = a.mine & np.isfinite(a.start)
    first = float(np.min(a.ready[a.mine & np.isfinite(a.ready)], initial=np.inf))
    first = min(first, float(np.min(a.start[begun], initial=np.inf)))
    return first, max(facts.now if running else float(np.max(end[begun], initial=-np.inf)), first)


# The usual number of busy slots is reached for at least a tenth of the time: a moment with one more does not count.
_CROWD, _USUAL = 0.75, 0.9


def _crowd(every: Steps, first: float, last: float) -> Steps:
    inside = np.clip(np.append(every.at, last), first, last)
    length = np.diff(inside)
    if not len(length) or length.sum() <= 0:
        return steps(np.zeros(0), np.zeros(0))
    order = np.argsort(every.count, kind="stable")
    reached = np.cumsum(length[order]) / length.sum()
    level = every.count[order][np.searchsorted(reached, _USUAL)]
    busy = (every.count >= _CROWD * level) & (length > 0) & (every.count > 0)
    return steps(inside[:-1][busy], inside[1:][busy])


def first_and_last(facts: Facts, end: Floats, rows: Codes) -> tuple[Floats, Floats]:
    """Return when each worker began the first of ``rows`` and ended the last, by code, -1 for none at the end.

    Infinite where it had none. In one pass: a search through all attempts for each of 10,000 workers takes seconds.
    """
    a, size = facts.attempts, len(facts.worker_names) + 1
    first, last = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(first, a.worker[rows], a.start[rows])
    np.maximum.at(last, a.worker[rows], end[rows])
    return first, last


def capacity(facts: Facts, end: Floats, workers: Codes, places: Slots) -> Steps:
    """Count the slots that are there: those of each worker from when it was first heard of until it was last."""
    said = {worker.code: worker for worker in facts.workers}
    begun, ended = first_and_last(facts, end, np.flatnonzero(np.isfinite(facts.attempts.start)))
    begins: list[float] = []
    ends: list[float] = []
    for code in workers.tolist():
        begin, stop = float(begun[code]), float(ended[code])
        worker = said.get(code)
        if worker is not None and np.isfinite(worker.first):
            begin, stop = min(begin, worker.first), max(stop, worker.last)
        begins += [begin] * places.places.get(code, 1)
        ends += [stop] * places.places.get(code, 1)
    return steps(np.array(begins, np.float64), np.array(ends, np.float64))
