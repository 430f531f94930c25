"""Throughput of workers that had all the work they could take; times in seconds, rates per second.

A stretch is saturated while jobs wait and the number of places does not change. Attempts count in it by the share of
their time that lies inside: whole completions would count each stretch's last one too often, by 1/c of a job with
equal service times, which matters in short stretches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import Codes, Flags, Floats, firsts
from bulkscope_studio.analysis.timeline.timeline import Steps, Timeline, steps

# A stretch begins with jobs that were taken before it and ends when the last waiting one is taken: over fewer service
# times these ends weigh more than what lies between.
LEAST_SERVICES = 3.0
# Of 20 jobs whose service times vary as an exponential's do, the mean is known to 45 %.
LEAST_COMPLETIONS = 20
# Places are free between two jobs; below this share of their time something else than work held the jobs up.
LEAST_BUSY = 0.75
# Batches of two service times and more are nearly independent; more than 20 of them say no more of the scatter
# (Schmeiser 1982).
BATCH_SERVICES = 2.0
MOST_BATCHES = 20
_FEWEST_BATCHES = 3
_FEWEST_OTHERS = 8
# A worker's first inference of a model reads its weights. It is left out, with its time, when it took longer than the
# third quartile of the others by this many interquartile ranges (Tukey 1977): of exponential times 0.9 % do by chance.
WARM_UP = 3.0
_LEAST_S = 1e-6  # of an attempt, so that none has an infinite rate


@dataclass(frozen=True, slots=True)
class Jobs:
    """Attempts that ended, by row: when, where, of which model (-1: none known), and what came of them.

    ``given`` are the input tokens that were not cached, ``tokens`` the output tokens, ``cpu`` the CPU-seconds of the
    inferences (NaN: not recorded). One that will be tried again is neither ``ok`` nor ``failed``.
    """

    start: Floats
    end: Floats
    ready: Floats
    worker: Codes
    model: Codes
    given: Floats
    tokens: Floats
    cpu: Floats
    ok: Flags
    failed: Flags


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen of one model with one number of places.

    ``rate`` and ``tokens`` are per second of the time in which all places worked on this model beside a backlog, None
    where that was not ``reached`` long enough; ``bound`` is then what the places did at least. ``completions`` and
    ``seconds`` are of that time, ``busy`` is the share of it in which the places worked, ``gap`` the seconds a place
    stood free between two jobs. ``mixed``: other models ran beside, and the time was shared out by place-seconds.
    ``batches`` are the rates of equal parts of it. ``service`` are the seconds of each attempt that ended, ``cpu`` the
    mean CPU-seconds of its inferences, of the attempts that recorded them (NaN: none did).
    """

    places: int
    reached: bool
    rate: Estimate | None
    tokens: Estimate | None
    bound: float | None
    completions: float
    seconds: float
    busy: float
    gap: float
    mixed: bool
    batches: Floats
    service: Floats
    cpu: float

    @property
    def ceiling(self) -> float | None:
        """c/S, if more jobs at once do not slow each other: what waits for no proof."""
        return self.places / float(np.mean(self.service)) if len(self.service) and np.any(self.service > 0) else None


class Saturation:
    """The stretches of one set of workers, and what each model did in them."""

    def __init__(self, jobs: Jobs, line: Timeline, windows: Sequence[tuple[float, float]]) -> None:
        self._jobs = jobs
        self._busy = line.every
        self._places = line.capacity
        self._warm = _warm_ups(jobs)
        self._pieces = _pieces(jobs, line, windows, self._warm)
        # Places as each job began: with thousands of them one look for each number of places would take minutes.
        self._begun = self._there(jobs.start)

    def counts(self) -> tuple[int, ...]:
        """Return the numbers of places there have been while something was worked on."""
        at, until, places, _ = self._pieces
        worked = (self._busy.integral(until) - self._busy.integral(at)) > 0
        return tuple(sorted({int(n) for n in places[worked] if n >= 1}))

    def level(self, model: int, places: int) -> Level:
        """Return what was seen of ``model`` (-1: attempts without one) with so many places."""
        rows = np.flatnonzero((self._jobs.model == model) & self.usual(places))
        service = self._jobs.end[rows] - self._jobs.start[rows]
        spent = self._jobs.cpu[rows]
        spent = spent[np.isfinite(spent)]
        usual = float(np.mean(service)) if len(service) else math.nan
        work = _Work.of(self._jobs, model, self._busy)
        batches = work.over(*self._batches(places, usual))
        batches = batches.only(batches.share > 0)
        mixed = bool(np.sum(batches.length) > 1.05 * np.sum(batches.own))
        completions = float(np.sum(batches.jobs))
        reached = completions >= LEAST_COMPLETIONS
        scatter = _variation(service)
        rate = _ratio(batches.jobs, batches.own, _relative(scatter, completions)) if reached else None
        seconds = float(np.sum(batches.own))
        busy = float(np.sum(batches.busy) / np.sum(batches.length)) / places if seconds > 0 else math.nan
        tokens = None
        if reached and bool(np.isfinite(batches.tokens).all()) and float(np.sum(batches.tokens)) > 0:
            spread = _variation(self._jobs.tokens[rows] / np.maximum(service, _LEAST_S))
            tokens = _ratio(batches.tokens, batches.own, _relative(spread, completions))
        return Level(
            places=places,
            reached=reached,
            rate=rate,
            tokens=tokens,
            bound=None if reached else self._bound(work, places, scatter),
            completions=completions,
            seconds=seconds,
            busy=busy,
            gap=self.gap(places),
            mixed=mixed,
            batches=batches.jobs / batches.own if reached else np.zeros(0),
            service=service,
            cpu=float(np.mean(spent)) if len(spent) else math.nan,
        )

    @property
    def warm_ups(self) -> int:
        """How many attempts loaded a model."""
        return int(np.sum(self._warm))

    def usual(self, places: int) -> Flags:
        """Tell which jobs began with so many places, and loaded no model."""
        return np.asarray((self._begun == places) & ~self._warm)

    @property
    def begun(self) -> Floats:
        """Return how many places there were as each job began (jobs,); NaN outside of the windows, and in a warm-up."""
        return self._begun

    def usually(self) -> Floats:
        """Return ``begun`` of jobs that loaded no model, NaN of the others."""
        return np.where(self._warm, np.nan, self._begun)

    def gap(self, places: int) -> float:
        """Return the seconds that a place stands free between two jobs though others wait; NaN where none was seen."""
        rows = self.usual(places)
        if not rows.any():
            return math.nan
        usual = float(np.mean((self._jobs.end - self._jobs.start)[rows]))
        begin, until = self._batches(places, usual)
        begun = np.searchsorted(np.sort(self._jobs.start), np.stack([begin, until]))
        count = int(np.sum(begun[1] - begun[0]))
        if count < LEAST_COMPLETIONS:
            return math.nan
        busy = float(np.sum(self._busy.integral(until) - self._busy.integral(begin)))
        return max(0.0, places * float(np.sum(until - begin)) - busy) / count

    def at(self, places: int, times: Floats) -> Flags:
        """Tell of each time whether it lies in the windows, with so many places and no warm-up."""
        return np.asarray(self._there(times) == places)

    def _there(self, times: Floats) -> Floats:
        begin, until, there, _ = self._pieces
        if not len(begin):
            return np.full(len(times), np.nan)
        index = np.searchsorted(begin, times, "right") - 1
        inside = (index >= 0) & (times <= until[np.maximum(index, 0)])
        return np.where(inside, there[np.maximum(index, 0)], np.nan)

    def _batches(self, places: int, usual: float) -> tuple[Floats, Floats]:
        """Return begins and ends of the parts of the saturated time in which the places worked, all about as long."""
        found = [
            stretch for stretch in self._stretches(places)
            if stretch[1] - stretch[0] >= LEAST_SERVICES * usual
        ]  # fmt: skip
        total = sum(until - begin for begin, until in found)
        if not found or not total > 0:
            return np.zeros(0), np.zeros(0)
        length = max(BATCH_SERVICES * usual, total / MOST_BATCHES)
        edges = [
            np.linspace(begin, until, max(1, round((until - begin) / length)) + 1) for begin, until in found
        ]  # fmt: skip
        begins, ends = np.concatenate([e[:-1] for e in edges]), np.concatenate([e[1:] for e in edges])
        busy = self._busy.mean(begins, ends) / places
        return begins[busy >= LEAST_BUSY], ends[busy >= LEAST_BUSY]

    def _stretches(self, places: int) -> Iterator[tuple[float, float]]:
        begin, until, there, backlog = self._pieces
        return _joined(begin, until, (there == places) & (backlog > 0))

    def _bound(self, work: _Work, places: int, scatter: float) -> float | None:
        """Return the low end of what was done while the most places were busy at once, for long enough.

        With n of c places busy the rate is n/S: no more than what all c can do.
        """
        begin, until, _, _ = self._pieces
        edges = np.unique(np.concatenate([begin, until, self._busy.at]))
        middle = (edges[:-1] + edges[1:]) / 2
        busy, there = self._busy.value(middle), self.at(places, middle)
        for least in range(_enough(busy[there], work.over(edges[:-1][there], edges[1:][there]).jobs, places), 0, -1):
            chosen = (busy >= least) & there
            found = work.over(edges[:-1][chosen], edges[1:][chosen])
            done = float(np.sum(found.jobs))
            if done >= LEAST_COMPLETIONS or (least == 1 and done >= 2):
                seconds = float(np.sum(found.own))
                half = _relative(scatter, done)
                return max(0.0, done / seconds * (1 - half)) if seconds > 0 and math.isfinite(half) else None
        return None


@dataclass(frozen=True, slots=True)
class _Done:
    """Of parts of the time (parts,): length, how much of it was this model's, busy place-seconds, jobs, tokens."""

    length: Floats
    own: Floats
    share: Floats
    busy: Floats
    jobs: Floats
    tokens: Floats

    def only(self, chosen: Flags) -> _Done:
        return _Done(*(column[chosen] for column in (
            self.length, self.own, self.share, self.busy, self.jobs, self.tokens
        )))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Work:
    """One model's work as counts over time: its jobs and tokens per second, its busy places, and all busy places."""

    jobs: Steps
    tokens: Steps
    own: Steps
    every: Steps

    @classmethod
    def of(cls, jobs: Jobs, model: int, every: Steps) -> _Work:
        rows = jobs.model == model
        start, end, ok = jobs.start[rows], jobs.end[rows], jobs.ok[rows]
        length = np.maximum(end - start, _LEAST_S)
        end = start + length
        tokens = jobs.tokens[rows]
        told = np.isfinite(tokens)
        # Engines that do not tell some of their tokens would be shown as slow.
        if not told[ok].all():
            tokens = np.full(len(start), np.nan)
        return cls(
            _weighted(start[ok], end[ok], 1 / length[ok]),
            _weighted(start[ok], end[ok], tokens[ok] / length[ok]),
            steps(start, end),
            every,
        )

    def over(self, begin: Floats, until: Floats) -> _Done:
        busy = self.every.integral(until) - self.every.integral(begin)
        own = self.own.integral(until) - self.own.integral(begin)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(busy > 0, np.clip(own / busy, 0.0, 1.0), 0.0)
        share[share < 1e-9] = 0.0
        length = until - begin
        jobs = self.jobs.integral(until) - self.jobs.integral(begin)
        tokens = self.tokens.integral(until) - self.tokens.integral(begin)
        return _Done(length, length * share, share, busy, np.maximum(jobs, 0.0), tokens)


def _enough(busy: Floats, jobs: Floats, places: int) -> int:
    """Return the most busy places, up to ``places``, beside which enough jobs were done; 1 where they never were."""
    order = np.argsort(-busy, kind="stable")
    # Sums in another order than the one that decides may differ by their rounding.
    reached = np.flatnonzero(np.cumsum(jobs[order]) >= LEAST_COMPLETIONS - 1e-6)
    return max(1, min(places, int(busy[order[reached[0]]]))) if len(reached) else 1


def _weighted(start: Floats, end: Floats, weight: Floats) -> Steps:
    """Return the sum of the weights of what is open: ``steps`` with a weight for each interval."""
    at = np.concatenate([start, end])
    order = np.argsort(at, kind="stable")
    at, count = at[order], np.cumsum(np.concatenate([weight, -weight])[order])
    area = np.concatenate([[0.0], np.cumsum(count[:-1] * np.diff(at))]) if len(at) else at
    return Steps(at, count, area)


def _warm_ups(jobs: Jobs) -> Flags:
    """Tell which attempts loaded their model: a worker's first of it, and much longer than the others."""
    length = jobs.end - jobs.start
    first = firsts(jobs.start, jobs.worker, jobs.model)
    found = np.zeros(len(first), np.bool_)
    for model in np.unique(jobs.model).tolist():
        rows = jobs.model == model
        later = length[rows & ~first]
        if len(later) >= _FEWEST_OTHERS:
            low, high = np.quantile(later, (0.25, 0.75))
            found |= rows & first & (length > high + WARM_UP * max(high - low, 0.1 * high))
    return found


def _pieces(
    jobs: Jobs, line: Timeline, windows: Sequence[tuple[float, float]], warm: Flags
) -> tuple[Floats, Floats, Floats, Floats]:
    """Cut the windows where the backlog or the places change; return begins, ends, places and backlog of the pieces."""
    loading = steps(jobs.start[warm], jobs.end[warm])
    edges = np.unique(
        np.concatenate([line.backlog.at, line.capacity.at, loading.at, np.array(windows, np.float64).ravel()])
    )
    begin, until = edges[:-1], edges[1:]
    middle = (begin + until) / 2
    inside = np.zeros(len(middle), np.bool_)
    for first, last in windows:
        inside |= (middle >= first) & (middle <= last)
    inside &= loading.value(middle) == 0
    return (
        begin[inside],
        until[inside],
        line.capacity.value(middle)[inside],
        line.backlog.value(middle)[inside],
    )


def _joined(begin: Floats, until: Floats, chosen: Flags) -> Iterator[tuple[float, float]]:
    """Yield the chosen pieces, neighbours joined."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    apart = begin[rows[1:]] > until[rows[:-1]]
    firsts = np.concatenate([rows[:1], rows[1:][apart]])
    lasts = np.concatenate([rows[:-1][apart], rows[-1:]])
    yield from zip(begin[firsts].tolist(), until[lasts].tolist(), strict=True)


def _variation(values: Floats) -> float:
    """Coefficient of variation; infinite where fewer than two values tell none."""
    there = values[np.isfinite(values)]
    middle = float(np.mean(there)) if len(there) else 0.0
    return float(np.std(there, ddof=1)) / middle if len(there) > 1 and middle > 0 else math.inf


def _relative(scatter: float, jobs: float) -> float:
    """Half the 95 % interval of a rate, of its value, from as many independent times that vary by ``scatter``."""
    return estimates.student(max(1, int(jobs) - 1)) * scatter / math.sqrt(jobs)


def _ratio(amounts: Floats, seconds: Floats, relative: float) -> Estimate:
    """Amount per second over batches, with the wider of two 95 % intervals.

    One is of the ratio of batch means (Law 2015, 9.5.3), which sees what changes slowly; the other, ``relative``, that
    of independent times (a renewal process: Cox 1962), which few batches do not tell.
    """
    total, time = float(np.sum(amounts)), float(np.sum(seconds))
    value = total / time
    half = relative * value
    if (batches := len(amounts)) >= _FEWEST_BATCHES:
        left = amounts - value * seconds
        error = math.sqrt(batches / (batches - 1) * float(np.sum(left**2))) / time
        half = max(half, estimates.student(batches - 1) * error)
    return Estimate(value, max(0.0, value - half), value + half)
