"""Jobs played through slots, one by one: what happens where some are slower, come late, begin cold or share cores.

Times in seconds on one clock. Nothing here knows of records: ``recorded`` makes the jobs and slots of a bulk.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Jobs:
    """One row a job: ``ready`` to be taken, ``gap`` until a free slot begins it, ``seconds`` of work at usual speed.

    ``cores`` is how many cores it keeps busy meanwhile. Of the jobs that are ready the one with the lowest ``key``
    goes first; at equal keys the row decides.
    """

    ready: Floats
    gap: Floats
    seconds: Floats
    cores: Floats
    key: Floats


@dataclass(frozen=True, slots=True)
class Slots:
    """One row a slot: there from ``begin`` to ``end``, after which it takes no job; ``factor`` times the usual seconds
    for a job, and ``cold`` seconds more for its first."""

    begin: Floats
    end: Floats
    factor: Floats
    cold: Floats


@dataclass(frozen=True, slots=True)
class Played:
    """Start and end of each job; NaN for one that no slot was left for."""

    start: Floats
    end: Floats


def play(jobs: Jobs, slots: Slots, cores: float = math.inf) -> Played:
    """Give each free slot, the one that has been free longest first, the next job; exact for the jobs given.

    With ``cores`` all running jobs get the same share of what they want, where that is more than there is (processor
    sharing, Kleinrock 1967): then a job takes longer the more of them run.
    """
    if not math.isfinite(cores):
        return _apart(jobs, slots)
    return _sharing(jobs, slots, cores)


def _apart(jobs: Jobs, slots: Slots) -> Played:
    ready, gap, seconds, key = (column.tolist() for column in (jobs.ready, jobs.gap, jobs.seconds, jobs.key))
    factor, leaves, cold = slots.factor.tolist(), slots.end.tolist(), slots.cold.tolist()
    coming = np.argsort(jobs.ready, kind="stable").tolist()
    starts, ends = [math.nan] * len(ready), [math.nan] * len(ready)
    free = [(at, number) for number, at in enumerate(slots.begin.tolist())]
    heapq.heapify(free)
    waiting: list[tuple[float, int]] = []
    came, before = 0, -math.inf
    for _ in range(len(ready)):
        while free:
            now, slot = free[0]
            now = max(now, before)  # a job that waits came by then
            if not waiting and ready[coming[came]] > now:
                now = ready[coming[came]]
            if now < leaves[slot]:
                break
            heapq.heappop(free)
        else:
            break
        while came < len(coming) and ready[coming[came]] <= now:
            heapq.heappush(waiting, (key[coming[came]], coming[came]))
            came += 1
        before = now
        _, job = heapq.heappop(waiting)
        starts[job] = now + gap[job]
        ends[job] = starts[job] + seconds[job] * factor[slot] + cold[slot]
        cold[slot] = 0.0
        heapq.heapreplace(free, (ends[job], slot))
    return Played(np.array(starts, np.float64), np.array(ends, np.float64))


def _sharing(jobs: Jobs, slots: Slots, cores: float) -> Played:
    """By a clock of work: it runs at the share of their cores that all get, so that the order of ends stays."""
    ready, gap, seconds, key = (column.tolist() for column in (jobs.ready, jobs.gap, jobs.seconds, jobs.key))
    wanted = jobs.cores.tolist()
    factor, leaves, cold = slots.factor.tolist(), slots.end.tolist(), slots.cold.tolist()
    coming = np.argsort(jobs.ready, kind="stable").tolist()
    starts, ends = [math.nan] * len(ready), [math.nan] * len(ready)
    later = sorted(((at, number) for number, at in enumerate(slots.begin.tolist())), reverse=True)
    idle: list[tuple[float, int]] = []
    waiting: list[tuple[float, int]] = []
    begins: list[tuple[float, int, int]] = []  # taken, and not begun for the gap
    running: list[tuple[float, int, int]] = []  # by the clock of work
    now = ready[coming[0]] if coming else 0.0
    clock, demand, came = 0.0, 0.0, 0
    while True:
        while came < len(coming) and ready[coming[came]] <= now:
            heapq.heappush(waiting, (key[coming[came]], coming[came]))
            came += 1
        while later and later[-1][0] <= now:
            heapq.heappush(idle, later.pop())
        while waiting and idle:
            _, slot = heapq.heappop(idle)
            if now >= leaves[slot]:
                continue
            _, job = heapq.heappop(waiting)
            starts[job] = now + gap[job]
            heapq.heappush(begins, (starts[job], job, slot))
        while begins and begins[0][0] <= now:
            _, job, slot = heapq.heappop(begins)
            heapq.heappush(running, (clock + seconds[job] * factor[slot] + cold[slot], job, slot))
            cold[slot] = 0.0
            demand += wanted[job]
        share = min(1.0, cores / demand) if running and demand > 0 else 1.0
        after = [queue[0][0] for queue in (begins,) if queue]
        if came < len(coming):
            after.append(ready[coming[came]])
        if later:
            after.append(later[-1][0])
        done = now + max(0.0, running[0][0] - clock) / share if running else math.inf
        nearest = min(after, default=math.inf)
        if not (running or begins) and (not math.isfinite(nearest) or (came == len(coming) and not waiting)):
            break
        if done <= nearest:
            clock, now = running[0][0], done
            _, job, slot = heapq.heappop(running)
            ends[job] = now
            demand = max(0.0, demand - wanted[job]) if running else 0.0
            heapq.heappush(idle, (now, slot))
        else:
            clock += (nearest - now) * share
            now = nearest
    return Played(np.array(starts, np.float64), np.array(ends, np.float64))
