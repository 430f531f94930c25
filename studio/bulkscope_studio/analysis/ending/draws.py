"""How long jobs will take, drawn from how long others took: nothing is assumed of their law.

Hill's A(n) (Hill 1968, Coolen 2006): each further job falls with the same probability between any two neighbours of
those seen, below the shortest, or above the longest. A job that is still at work is one of these that is longer than
it has lasted so far: of the jobs that have ended alone, the short ones are too many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.statistics.estimates import Floats

# Beyond the longest job seen: a Pareto tail. Its index is Hill's (Hill 1975) of the longest of them, as uncertain as so
# few leave it: the inverse of a gamma, which counts jobs still at work as well. What is believed before weighs as one
# job that is exp(0.35) times as long as the others: tails of prompts of chats have an index of 0.3 to 0.6.
_USUAL_JOBS, _USUAL_LOG, _HEAVIEST = 1.0, 0.35, 0.9
_LEAST_LONGEST = 3
_FARTHEST = 30.0  # times the longest job seen
# So many are imputed one after the other, each from those before; with more jobs seen one more makes no difference.
_FEW = 200
_FAR = 4.0  # standard deviations that a level may be off: Student's of one degree of freedom has no end


class Law:
    """What ``draws`` runs each believe of the jobs to come: (draws, seen + 1) cells and how likely each is."""

    def __init__(self, seen: Floats, still: Floats, draws: int, random: np.random.Generator) -> None:
        """``seen`` (n,) are whole times in s, n >= 1; ``still`` (m,) how long those at work have lasted."""
        self._random = random
        self._tail = _tail_indices(seen, still, draws, random)
        pool = np.tile(np.sort(seen), (draws, 1))
        self.still = np.empty((draws, len(still)))
        one_by_one = len(seen) + len(still) <= _FEW
        for at in np.argsort(still):
            self.still[:, at] = self._beyond(pool, float(still[at]))
            if one_by_one:
                pool = np.sort(np.column_stack([pool, self.still[:, at]]), axis=1)
        if not one_by_one:
            pool = np.sort(np.column_stack([pool, self.still]), axis=1)
        lowest = np.maximum(0.0, 2 * pool[:, :1] - pool[:, 1:2]) if pool.shape[1] > 1 else pool * 0.5
        self._edges = np.column_stack([lowest, pool])
        weights = random.exponential(size=(draws, self._edges.shape[1]))
        self._sums = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)

    def _above(self, longest: Floats) -> Floats:
        index = self._tail if longest.ndim == 1 else self._tail[:, None]
        reach = np.minimum(self._random.random(longest.shape) ** -index, _FARTHEST)
        return np.asarray(longest * reach)

    def _beyond(self, pool: Floats, lasted: float) -> Floats:
        """Draw the whole time (draws,) of a job that has lasted so long."""
        runs, size = pool.shape
        longer = np.sum(pool > lasted, axis=1)
        cell = np.floor(self._random.random(runs) * (longer + 1)).astype(np.int64)
        place = size - longer + cell
        rows = np.arange(runs)
        high = pool[rows, np.minimum(place, size - 1)]
        low = np.maximum(pool[rows, np.maximum(place - 1, 0)], lasted)
        inside = low + self._random.random(runs) * (high - low)
        return np.asarray(np.where(cell == longer, self._above(np.maximum(pool[:, -1], lasted)), inside))

    def draw(self, jobs: int) -> Floats:
        """Return the times (draws, jobs) of jobs to come."""
        runs, cells = self._edges.shape
        points = self._random.random((runs, jobs))
        # One search for all runs: each has its own unit interval.
        flat = (self._sums + np.arange(runs)[:, None]).ravel()
        cell = np.searchsorted(flat, (points + np.arange(runs)[:, None]).ravel()).reshape(runs, jobs)
        cell = np.clip(cell - np.arange(runs)[:, None] * cells, 0, cells - 1)
        low = np.take_along_axis(self._edges, cell, axis=1)
        high = np.take_along_axis(self._edges, np.minimum(cell + 1, cells - 1), axis=1)
        inside = low + self._random.random((runs, jobs)) * (high - low)
        return np.asarray(np.where(cell == cells - 1, self._above(low), inside))

    def total(self, jobs: int) -> Floats:
        """Return the sum (draws,) of the times of so many jobs to come, which are too many to draw."""
        middles, weights = self._cells()
        mean = self.mean
        spread = np.sqrt(np.maximum(np.sum(weights * middles**2, axis=1) - mean**2, 0.0) * jobs)
        return np.asarray(np.maximum(jobs * mean + spread * self._random.standard_normal(len(mean)), 0.0))

    @property
    def mean(self) -> Floats:
        """Return the mean time (draws,) of a job to come."""
        middles, weights = self._cells()
        return np.asarray(np.sum(weights * middles, axis=1))

    def _cells(self) -> tuple[Floats, Floats]:
        """Return the mean time in each cell and its probability, both (draws, cells)."""
        # Of the tail the mean as far as it reaches; that of an index near 1 is of no job that was ever seen.
        beyond = self._edges[:, -1] / (1 - np.minimum(self._tail, 0.5))
        middles = np.column_stack([(self._edges[:, :-1] + self._edges[:, 1:]) / 2, beyond])
        return middles, np.diff(self._sums, axis=1, prepend=0.0)


def _tail_indices(seen: Floats, still: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Draw the index (draws,) of the tail, from the longest sqrt(n) of ``seen`` (n,) and what is ``still`` longer."""
    ordered = np.sort(seen[seen > 0])[::-1]
    count = min(max(int(np.ceil(np.sqrt(len(ordered)))), _LEAST_LONGEST), len(ordered) - 1)
    jobs, logs = _USUAL_JOBS, _USUAL_LOG
    if count > 0:
        jobs += count
        logs += float(np.sum(np.log(ordered[:count] / ordered[count])))
        logs += float(np.sum(np.log(np.maximum(still, ordered[count]) / ordered[count])))
    return np.minimum(1 / random.gamma(jobs, 1 / logs, draws), _HEAVIEST)


@dataclass(frozen=True, slots=True)
class Wandering:
    """How far the mean of jobs' times moves beyond chance, as a share of it, and by how much it lately stood off."""

    share: float
    degrees: int
    lately: float

    @classmethod
    def of(cls, times: Floats) -> Wandering:
        """Compare the means of up to ten blocks of ``times`` (n,), in the order of their starts; none below 16 jobs.

        ``share`` is the standard deviation of these means less what independent jobs would give them. ``lately`` is the
        mean of the last third over that of all, drawn to 1 as far as chance explains the difference.
        """
        blocks = min(10, len(times) // 8)
        mean = float(np.mean(times)) if len(times) else 0.0
        if blocks < 2 or mean <= 0:
            return cls(0.0, 1, 1.0)
        parts = np.array_split(times, blocks)
        between = float(np.var([np.mean(part) for part in parts], ddof=1))
        within = float(np.mean([np.var(part, ddof=1) / len(part) for part in parts]))
        beyond = max(0.0, between - within)
        last = times[-(len(times) // 3) :]
        chance = float(np.var(last, ddof=1)) / len(last)
        weight = beyond / (beyond + chance) if beyond > 0 else 0.0
        return cls(float(np.sqrt(beyond)) / mean, blocks - 1, 1 + weight * (float(np.mean(last)) / mean - 1))

    def levels(self, draws: int, random: np.random.Generator) -> Floats:
        """Return by which factors (draws,) the times to come may differ from those that were."""
        return np.asarray(
            self.lately * np.exp(self.share * np.clip(random.standard_t(self.degrees, draws), -_FAR, _FAR))
        )
