"""Queues whose places slow each other by a known law, played event by event."""

from __future__ import annotations

import heapq
import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def played(arrivals: Floats, work: Floats, speeds: Floats) -> tuple[Floats, Floats]:
    """Starts and ends of jobs, first come first served, where n busy places each work at ``speeds[n - 1]``."""
    clock, now = 0.0, 0.0
    busy: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    starts, ends = np.zeros(len(arrivals)), np.zeros(len(arrivals))
    coming = 0
    while coming < len(arrivals) or busy:
        leaves = now + (busy[0][0] - clock) / speeds[len(busy) - 1] if busy else math.inf
        if coming < len(arrivals) and arrivals[coming] <= leaves:
            if busy:
                clock += (arrivals[coming] - now) * speeds[len(busy) - 1]
            now = arrivals[coming]
            waiting.append(coming)
            coming += 1
        else:
            now = leaves
            clock, done = heapq.heappop(busy)
            ends[done] = now
        while waiting and len(busy) < len(speeds):
            job = waiting.popleft()
            starts[job] = now
            heapq.heappush(busy, (clock + work[job], job))
    return starts, ends


def slowing(places: int, by: float) -> Floats:
    """Each further busy place makes all slower by a share ``by`` of what one alone takes; 1 with all busy."""
    alone = 1 / (1 + by * np.arange(places))
    return np.asarray(alone / alone[-1])


def stream(jobs: int, load: float, speeds: Floats, seed: int) -> tuple[Floats, Floats, Floats]:
    """Arrivals, starts and ends of a Poisson stream; a job takes about 1 s with all places busy."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / (load * len(speeds)), jobs))
    return arrivals, *played(arrivals, random.gamma(8, 1 / 8, jobs), speeds)
