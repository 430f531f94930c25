"""The speed of one concurrency slot by the number of busy slots: they share cores, caches and the memory bus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Floats
from bulkscope_studio.analysis.statistics.simulation import Slowing
from bulkscope_studio.analysis.timeline.facts import Codes
from bulkscope_studio.analysis.timeline.timeline import Steps

# Fewest jobs that began with a given number of busy slots; with fewer, neighbouring numbers are merged.
LEAST_BEGUN = 20
_MOST_GROUPS = 8
_RESAMPLES = 1000
_BATCHES = 50
_SOLVED = 0.9
# Two-sided 1 %, not 5 %: groups are merged until the speeds fall, a selection that gave 8 % false positives at 5 %.
_CHANCE = 0.005
_HIGH = 0.975


@dataclass(frozen=True, slots=True)
class Speeds:
    """The speed of a slot by the number of busy slots: ``groups`` (groups,) has the lowest number of each group.

    ``found`` (groups,) over that of the last group, falling; ``draws`` (draws, groups) the same from resamples of the
    jobs. ``most`` is the highest number of busy slots at the start of a job, itself included.
    """

    groups: Codes
    found: Floats
    draws: Floats
    most: int

    def _with(self, busy: Floats | Codes) -> Codes:
        """Return the group of each number of busy slots; of a number that did not occur, the nearest."""
        return np.clip(np.searchsorted(self.groups, busy, "right") - 1, 0, len(self.groups) - 1)

    def work(self, start: Floats, end: Floats, busy: Steps, places: int) -> Floats:
        """Return how long each job would have taken with ``places`` slots busy all the time (jobs,), in s."""
        times = _times(start, end, busy, self.groups)
        return np.asarray(times @ self.found / self.found[self._with(np.array(places))])

    def slowing(self, start: Floats, end: Floats, busy: Steps, places: int) -> Slowing | None:
        """Return how up to ``places`` busy slots slow each other; None where they do not. The jobs as in ``work``."""
        number = self._with(np.arange(1, places + 1))
        if number[0] == number[-1]:
            return None
        times = _times(start, end, busy, self.groups).mean(axis=0)
        all_busy = np.concatenate([[self.found[number[-1]]], self.draws[:, number[-1]]])
        usual = (np.vstack([self.found, self.draws]) @ times) / all_busy
        return Slowing(
            self.found[number] / all_busy[0],
            self.draws[:, number] / all_busy[1:, None],
            usual[1:] / usual[0],
            self.most,
        )


@dataclass(frozen=True, slots=True)
class Crowd:
    """Jobs by which it is seen how slots slow each other, as in ``speeds``, and what that gives."""

    start: Floats
    end: Floats
    expected: Floats
    busy: Steps
    within: bool
    speeds: Speeds | None

    @classmethod
    def of(cls, start: Floats, end: Floats, expected: Floats, busy: Steps, *, within: bool) -> Crowd:
        """Look for it."""
        return cls(start, end, expected, busy, within, speeds(start, end, expected, busy, within=within))

    def fastest(self, places: int) -> float:
        """Return how many times as fast a slot may be beside fewer than ``places`` busy ones, as is not excluded.

        It is the equation of ``speeds`` for two groups, without asking that slowing be sure: the upper end of a 95 %
        interval, and no less than 1. It is 1 too where too few jobs began beside fewer, or beside all, to tell.
        """
        order = np.argsort(self.start, kind="stable")
        order = order[self.end[order] > self.start[order]]
        start, end, expected = self.start[order], self.end[order], self.expected[order]
        full = self.busy.value(start) >= places
        if min(int(np.sum(full)), int(np.sum(~full))) < LEAST_BEGUN:
            return 1.0
        times = _times(start, end, self.busy, np.array([0, places])) / expected[:, None]
        sums, jobs = _by_batch(times, full.astype(np.int64))
        found = _draws(sums, jobs, self.within)[:, 0]
        return max(1.0, float(np.quantile(found, _HIGH))) if len(found) >= _SOLVED * _RESAMPLES else 1.0


def speeds(start: Floats, end: Floats, expected: Floats, busy: Steps, *, within: bool) -> Speeds | None:
    """Return the speed of a slot while 1, 2 and more are busy.

    ``start`` and ``end`` (jobs,) are in s, ``expected`` (jobs,) what a job of its size usually takes, in s; ``busy``
    counts the busy slots over time. ``within``: only jobs of about the same time are compared, so that a host that was
    slow for a while does not look like slots that slow each other; else also jobs of times with other numbers of slots.
    None where no slowing is detected: too few jobs, always as many busy, or a 99 % interval of the fastest over the
    slowest that includes 1.

    The queue does not choose a job by its size, so jobs that begin with n busy slots have on average as much work,
    relative to what is expected of them, as those that begin with any other number. The work of a job is the sum over k
    of its time with k busy slots times their speed v_k. So for each n the sum over k of v_k times the covariance of the
    time with k busy and "began with n busy" is 0: as many equations as ratios of speeds. (The number at the start is
    the instrument, Wald 1940; its mean in each of 50 batches is subtracted where ``within``.) Speeds may only fall with
    more busy slots: where they do not, neighbours are merged. Numbers that did not occur have the nearest one's speed.
    """
    order = np.argsort(start, kind="stable")
    order = order[end[order] > start[order]]
    start, end, expected = start[order], end[order], expected[order]
    begun = busy.value(start)
    groups = _groups(begun)
    while len(groups) > 1:
        times = _times(start, end, busy, groups) / expected[:, None]
        sums, jobs = _by_batch(times, np.searchsorted(groups, begun, "right") - 1)
        found = _solved(sums, jobs, within)
        if found is None:  # the last group occurs for too short a time
            groups = groups[:-1]
            continue
        rising = np.flatnonzero(np.diff(found) >= 0)
        if not len(rising):
            draws = _draws(sums, jobs, within)
            sure = len(draws) >= _SOLVED * _RESAMPLES and np.quantile(draws[:, 0] / draws[:, -1], _CHANCE) > 1
            most = int(np.max(begun))
            return Speeds(groups, found, np.minimum.accumulate(draws, axis=1), most) if sure else None
        groups = np.delete(groups, rising[0] + 1)
    return None


def _groups(begun: Floats) -> Codes:
    """Return the lowest number of busy slots of each group (rising); enough jobs began in each group."""
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
    """Return how long each job ran in each group of numbers of busy slots (jobs, groups), in s."""
    group = np.clip(np.searchsorted(groups, busy.count, "right") - 1, 0, len(groups) - 1)
    columns = []
    for number in range(len(groups)):
        inside = np.concatenate([[0.0], np.cumsum(np.diff(busy.at) * (group[:-1] == number))])
        columns.append(np.interp(end, busy.at, inside) - np.interp(start, busy.at, inside))
    return np.stack(columns, axis=1)


def _by_batch(times: Floats, of: Codes) -> tuple[Floats, Floats]:
    """Return, of batches of the jobs in their order, the time in each group of jobs begun in each, and their number.

    Shapes (batches, groups begun in, groups run in) and (batches, groups). Batches, since jobs of the same time are not
    independent on a host that is slow for a while.
    """
    groups = times.shape[1]
    batch = np.arange(len(times)) * _BATCHES // len(times)
    sums, jobs = np.zeros((_BATCHES, groups, groups)), np.zeros((_BATCHES, groups))
    np.add.at(sums, (batch, of), times)
    np.add.at(jobs, (batch, of), 1.0)
    return sums, jobs


def _solved(sums: Floats, jobs: Floats, within: bool) -> Floats | None:
    """Return the speeds over that of the last group (groups,); None where the equations have no valid solution."""
    found = _speeds(sums, jobs, np.ones((1, _BATCHES)), within)
    return found[0] if len(found) else None


def _speeds(sums: Floats, jobs: Floats, times: Floats, within: bool) -> Floats:
    """Solve the equations with each batch taken so many ``times`` (draws, batches), all draws at once.

    Returns (draws, groups) of those with a valid solution.
    """
    groups = jobs.shape[1]
    if within:
        moved = times @ _moved(sums, jobs).reshape(_BATCHES, -1)
    else:
        moved = _moved((times @ sums.reshape(_BATCHES, -1)).reshape(-1, groups, groups), times @ jobs)
    moved = moved.reshape(-1, groups, groups)
    found = np.ones((len(times), groups))
    left, right = moved[:, :-1, :-1], -moved[:, :-1, -1:]
    # A group that is in none of the batches drawn leaves a row of zeros.
    there = np.linalg.matrix_rank(left) == groups - 1
    found[there, :-1] = np.linalg.solve(left[there], right[there])[:, :, 0]
    valid: Floats = found[there & np.all(np.isfinite(found) & (found > 0), axis=1)]
    return valid


def _moved(sums: Floats, jobs: Floats) -> Floats:
    """Return the covariances of time run in a group and begun in one, times the jobs; shapes as in ``_by_batch``."""
    share = jobs / np.maximum(jobs.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(sums - share[:, :, None] * sums.sum(axis=1)[:, None, :])


def _draws(sums: Floats, jobs: Floats, within: bool) -> Floats:
    """Return the speeds of resamples of the batches (draws, groups), where the equations have a valid solution.

    A number of slots that occurred for a short time may be in none of the batches drawn.
    """
    drawn = np.random.default_rng(estimates.SEED).integers(0, _BATCHES, (_RESAMPLES, _BATCHES))
    times = np.zeros((_RESAMPLES, _BATCHES))
    np.add.at(times, (np.arange(_RESAMPLES)[:, None], drawn), 1.0)
    return _speeds(sums, jobs, times, within)
