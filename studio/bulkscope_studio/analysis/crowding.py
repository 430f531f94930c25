"""How fast one place works while so many are busy: less where they share cores, caches and the memory bus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import estimates
from bulkscope_studio.analysis.estimates import Floats
from bulkscope_studio.analysis.facts import Codes
from bulkscope_studio.analysis.simulation import Slowing
from bulkscope_studio.analysis.timeline import Steps

# Jobs that began with so many busy places, below which neighbouring numbers are taken together: as for a mean rate.
LEAST_BEGUN = 20
_MOST_GROUPS = 8
_RESAMPLES = 1000
_BATCHES = 50
_SOLVED = 0.9
# Of both sides together 1 %. Not 5 %: of the groups only those are left that fall, and one queue in twelve seemed
# slowed that was not.
_CHANCE = 0.005


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast a place is, by how many are busy: ``groups`` (groups,) has the lowest number of each group of numbers.

    ``found`` (groups,) in mean jobs a second, falling; ``draws`` (draws, groups) the same from resamples of the jobs.
    """

    groups: Codes
    found: Floats
    draws: Floats

    def _with(self, busy: Floats | Codes) -> Codes:
        """Return the group of each number of busy places; of one that was not seen, the nearest."""
        return np.clip(np.searchsorted(self.groups, busy, "right") - 1, 0, len(self.groups) - 1)

    def work(self, start: Floats, end: Floats, busy: Steps, places: int) -> Floats:
        """Return how long each job would have taken with ``places`` busy all the time (jobs,), in s."""
        times = _times(start, end, busy, self.groups)
        return np.asarray(times @ self.found / self.found[self._with(np.array(places))])

    def slowing(self, start: Floats, end: Floats, busy: Steps, places: int) -> Slowing | None:
        """Return what up to ``places`` busy ones do to each other; None where nothing. The jobs as in ``work``."""
        number = self._with(np.arange(1, places + 1))
        if number[0] == number[-1]:
            return None
        times = _times(start, end, busy, self.groups).mean(axis=0)
        all_busy = np.concatenate([[self.found[number[-1]]], self.draws[:, number[-1]]])
        usual = (np.vstack([self.found, self.draws]) @ times) / all_busy
        return Slowing(
            self.found[number] / all_busy[0], self.draws[:, number] / all_busy[1:, None], usual[1:] / usual[0]
        )


def speeds(start: Floats, end: Floats, busy: Steps) -> Speeds | None:
    """Return how fast a place is while 1, 2 and more are busy.

    ``start`` and ``end`` (jobs,) are in s; ``busy`` counts the busy places at each time. None where no slowing is to
    be seen: too few jobs, always as many busy, or a 99 % interval of the fastest over the slowest that reaches 1.

    The queue does not choose a job by its size, so jobs that begin beside n busy places have on average as much work as
    those that begin beside any other number. Work done is the time with k busy places times their speed v_k, so that
    for each n the sum over k of v_k times the mean time with k busy equals one mean work: as many equations as speeds,
    of which the number at the start is the instrument (Wald 1940). Speeds may only fall with more busy places: where
    they do not, neighbours are taken together. Numbers that were not seen have the speed of the nearest that was.
    """
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    begun = busy.value(start)
    groups = _groups(begun)
    while len(groups) > 1:
        sums, jobs = _by_batch(_times(start, end, busy, groups), np.searchsorted(groups, begun, "right") - 1)
        found = _solved(sums.sum(axis=0), jobs.sum(axis=0))
        if found is None:
            return None
        rising = np.flatnonzero(np.diff(found) >= 0)
        if not len(rising):
            draws = _draws(sums, jobs)
            sure = len(draws) >= _SOLVED * _RESAMPLES and np.quantile(draws[:, 0] / draws[:, -1], _CHANCE) > 1
            return Speeds(groups, found, np.minimum.accumulate(draws, axis=1)) if sure else None
        groups = np.delete(groups, rising[0] + 1)
    return None


def _groups(begun: Floats) -> Codes:
    """Return the lowest number of each group of numbers of busy places (rising), each with enough jobs begun in it."""
    numbers, counts = np.unique(begun, return_counts=True)
    least = max(LEAST_BEGUN, len(begun) / (2 * _MOST_GROUPS))
    lowest: list[int] = []
    inside = np.inf
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if inside >= least:
            lowest.append(number)
            inside = 0
        inside += count
    if len(lowest) > 1 and inside < least:
        lowest.pop()
    return np.array(lowest, np.int64)


def _times(start: Floats, end: Floats, busy: Steps, groups: Codes) -> Floats:
    """Return how long each job ran in each group of numbers of busy places (jobs, groups), in s."""
    group = np.clip(np.searchsorted(groups, busy.count, "right") - 1, 0, len(groups) - 1)
    columns = []
    for number in range(len(groups)):
        inside = np.concatenate([[0.0], np.cumsum(np.diff(busy.at) * (group[:-1] == number))])
        columns.append(np.interp(end, busy.at, inside) - np.interp(start, busy.at, inside))
    return np.stack(columns, axis=1)


def _by_batch(times: Floats, of: Codes) -> tuple[Floats, Floats]:
    """Return, of batches of the jobs in their order, the time in each group of jobs begun in each, and their number.

    Shapes (batches, groups begun in, groups run in) and (batches, groups). Batches, since a host that is slow for a
    while makes neighbours alike.
    """
    groups = times.shape[1]
    batch = np.arange(len(times)) * _BATCHES // len(times)
    sums, jobs = np.zeros((_BATCHES, groups, groups)), np.zeros((_BATCHES, groups))
    np.add.at(sums, (batch, of), times)
    np.add.at(jobs, (batch, of), 1.0)
    return sums, jobs


def _solved(sums: Floats, jobs: Floats) -> Floats | None:
    """Return the speeds in mean jobs a second (groups,); None where they do not follow from the times."""
    try:
        found = np.linalg.solve(sums, jobs)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(found) if bool(np.all(np.isfinite(found) & (found > 0))) else None


def _draws(sums: Floats, jobs: Floats) -> Floats:
    """Return the speeds of resamples of the batches (draws, groups), of those of which they follow.

    A number of places that was there for a short time may be in none of the batches drawn.
    """
    random = np.random.default_rng(estimates.SEED)
    drawn = (random.integers(0, _BATCHES, _BATCHES) for _ in range(_RESAMPLES))
    found = [_solved(sums[rows].sum(axis=0), jobs[rows].sum(axis=0)) for rows in drawn]
    return np.array([each for each in found if each is not None]).reshape(-1, jobs.shape[1])
