"""Streams and bulks on slots whose sustained rate is known, played event by event: nothing of the product, of the
simulator or of the other queues here is in it.

An agenda of events moves the clock. A slot that has ended a job rests for ``gap`` s, then takes the job that has waited
longest. The truth is ``slots / (mean of the law of the works + gap)``: of the law, not of the works that were drawn.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bulkscope_studio.analysis.capacity import capacity
from bulkscope_studio.analysis.capacity.forecast import MOST_PLACES
from bulkscope_studio.analysis.capacity.saturation import Level
from bulkscope_studio.analysis.timeline.facts import Attempts, Facts, Hosts, Inferences, Requests, Worker

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

LOGNORMAL = 1.0  # sigma: three in a hundred are longer than four means

# Laws of the works, each of mean 1 s.
WORKS: Mapping[str, Draw] = {
    "equal": lambda random, n: np.ones(n),
    "gamma 4": lambda random, n: random.gamma(4.0, 0.25, n),
    "exponential": lambda random, n: random.exponential(1.0, n),
    "lognormal": lambda random, n: random.lognormal(-(LOGNORMAL**2) / 2, LOGNORMAL, n),
    "bimodal": lambda random, n: np.where(random.random(n) < 0.9, 0.5, 5.5),
}


def _poisson(random: np.random.Generator, jobs: int, mean: float) -> Floats:
    return np.cumsum(random.exponential(mean, jobs))


def _paced(random: np.random.Generator, jobs: int, mean: float) -> Floats:
    return random.random() * mean + mean * np.arange(jobs)


def _bursty(random: np.random.Generator, jobs: int, mean: float) -> Floats:
    """Bursts of ten on average (geometric), a job every tenth of the mean, and long pauses."""
    inside = random.random(jobs) < 0.9
    return np.cumsum(np.where(inside, 0.1 * mean, random.exponential(9.1 * mean, jobs)))


ARRIVALS: Mapping[str, Callable[[np.random.Generator, int, float], Floats]] = {
    "poisson": _poisson,
    "paced": _paced,
    "bursty": _bursty,
}


@dataclass(frozen=True, slots=True)
class Played:
    """Jobs in the order of their arrivals (jobs,): times in s, slot, number of the bulk; and how many slots there are.

    It is looked at when all have ended, or at ``until``.
    """

    put: Floats
    start: Floats
    end: Floats
    slot: NDArray[np.int64]
    bulk: NDArray[np.int64]
    slots: int
    until: float = math.inf

    @property
    def now(self) -> float:
        return min(self.until, float(np.max(self.end)))


def played(put: Floats, works: Floats, slots: int, gap: float = 0.0, bulk: NDArray[np.int64] | None = None) -> Played:
    """Play jobs through, first come first served."""
    order = itertools.count()
    agenda: list[tuple[float, int, str, int]] = [
        (float(at), next(order), "comes", n) for n, at in enumerate(put)
    ]  # fmt: skip
    heapq.heapify(agenda)
    queue: deque[int] = deque()
    resting = list(range(slots))
    start, end, where = np.full(len(put), np.nan), np.full(len(put), np.nan), np.full(len(put), -1, np.int64)
    while agenda:
        now, _, what, number = heapq.heappop(agenda)
        if what == "comes":
            queue.append(number)
        elif what == "done":
            heapq.heappush(agenda, (now + gap, next(order), "free", int(where[number])))
        else:
            resting.append(number)
        # Those that come at one time come before any is taken.
        while queue and resting and not (agenda and agenda[0][0] == now):
            job = queue.popleft()
            start[job], where[job] = now, resting.pop(0)
            end[job] = now + works[job]
            heapq.heappush(agenda, (float(end[job]), next(order), "done", job))
    return Played(put, start, end, where, np.zeros(len(put), np.int64) if bulk is None else bulk, slots)


def stream(
    seed: int, jobs: int, slots: int, load: float, work: str, arrivals: str = "poisson", gap: float = 0.0
) -> Played:  # fmt: skip
    """A stream that asks ``load`` of what the slots can do."""
    random = np.random.default_rng(seed)
    mean = (1.0 + gap) / slots / load
    return played(ARRIVALS[arrivals](random, jobs, mean), WORKS[work](random, jobs), slots, gap)


def bulks(seed: int, number: int, size: int, slots: int, work: str, gap: float = 0.0) -> Played:
    """Bulks put at once, each when the one before has long been done."""
    random = np.random.default_rng(seed)
    works = WORKS[work](random, number * size)
    apart = 4.0 * float(np.sum(works))
    put = np.repeat(apart * np.arange(number), size)
    return played(put, works, slots, gap, np.repeat(np.arange(number), size))


def seen(of: Played) -> capacity.Seen:
    """What the studio would have read of it at ``of.now``: of jobs that go on then no end is known."""
    now = of.now
    there = of.put <= now
    put, end = of.put[there], of.end[there]
    begun, ended = of.start[there] <= now, end <= now
    start = np.where(begun, of.start[there], np.nan)
    n = len(put)
    attempts = _filled(
        Attempts, n, mine=np.ones(n, np.bool_), job=np.arange(n), attempt=np.ones(n), put=put, enqueue=put, ready=put,
        start=start, end=np.where(ended, end, np.nan), seen=np.where(ended, end, np.where(begun, now, np.nan)),
        wait=start - put, worker=np.where(begun, of.slot[there], -1), host=np.zeros(n, np.int64),
        queue=np.zeros(n, np.int64), ok=ended, ended=ended,
    )  # fmt: skip
    workers = tuple(
        Worker(slot, f"h:{slot}", 0, -1.0, now, math.nan, None, math.nan, None) for slot in range(of.slots)
    )  # fmt: skip
    facts = Facts(
        id="", origin_ns=0, now=now, heard_first=0.0, unheard=0.0, attempts=attempts,
        inferences=_filled(
            Inferences, int(ended.sum()), mine=np.ones(int(ended.sum()), np.bool_), job=np.flatnonzero(ended),
            model=np.zeros(int(ended.sum()), np.int64), worker=attempts.worker[ended], host=attempts.host[ended],
            start=start[ended], end=end[ended], ok=ended[ended],
        ),
        requests=Requests(np.zeros(0), np.zeros(0), np.zeros(0), ()),
        workers=workers, hosts=_filled(Hosts, 0), drops=None, lost=(), models=("m",),
        worker_names=tuple(worker.name for worker in workers), host_names=("h",),
        job_ids=tuple(str(job) for job in range(n)),
    )  # fmt: skip
    names = tuple(f"b{number}" for number in range(int(np.max(of.bulk)) + 1))
    return capacity.Seen(facts, attempts.queue, ("q",), of.bulk[there], names, ((0.0, now),))


def _filled(table: Any, rows: int, **known: Any) -> Any:
    """A table of facts: the columns that are known, and nothing in the others."""
    empty = {
        "Floats": np.full(rows, np.nan), "Codes": np.full(rows, -1, np.int64), "Flags": np.zeros(rows, np.bool_),
        "pa.ChunkedArray": pa.chunked_array([pa.nulls(rows, pa.string())]),
    }  # fmt: skip
    return table(**{field.name: empty[field.type] for field in dataclasses.fields(table)} | known)


def sustained(of: Played) -> Level:
    """What is said of all slots. The waits take most of the time: none are predicted for so many slots."""
    (pool,) = capacity.capacity(seen(of), capacity.Asked(workers=MOST_PLACES + 1)).pools
    (level,) = (level for level in pool.models[0].levels if level.places == of.slots)
    return level
