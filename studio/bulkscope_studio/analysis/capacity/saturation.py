"""Throughput of slots that had all the work they could take; times in seconds, rates per second.

What counts are whole jobs that began while all other slots were taken. Whether they were, is settled by what came
before and does not know how long the job will be, so these jobs are as long on average as all are (the sum of their
times less its expectation is a martingale: Wald 1944). Time in which jobs waited is not so fair: below saturation it is
there because long jobs sit in the slots, and what is done in it is up to 40 % less than what the slots can do.

    rate = c * sum(w a) / sum(w (s + g))

with c slots, and of each such job: a, 1 if it was done and 0 if it failed; s, how long it took, as if all slots had
been busy all the time (``crowding``); g, how long its slot had stood free before it though the job waited; w, what it
stands for, itself and jobs that go on (Kaplan and Meier 1958). That is the long-run rate of c slots with work without
end (renewal-reward theorem: Cox 1962). For tokens per second a is the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.capacity.crowding import Crowd
from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import Attempts, Codes, Flags, Floats, firsts
from bulkscope_studio.analysis.timeline.timeline import Steps, Timeline, steps
from bulkscope_studio.text.wording import count, percent

# Of 20 jobs whose service times vary as an exponential's do, the mean is known to 45 %.
LEAST_COMPLETIONS = 20
# Slots are free between two jobs; below this share of their time something else than work held the jobs up.
LEAST_BUSY = 0.75
# A slot that stood free beside its next job for more service times than these stood still. Where no more than this
# share of the jobs had such a wait, it is left out: it is not what the system does all the time.
_STILL_SERVICES, _STILL = 3.0, 0.05
_FEWEST_GAPS = 5
# More than 20 batches say no more of the scatter (Schmeiser 1982). Each has two jobs for each slot, so that batches are
# nearly independent, and five at least.
MOST_BATCHES = 20
_BATCH_ROUNDS, _BATCH_JOBS = 2, 5
_FEWEST_BATCHES = 3
_FEWEST_OTHERS = 8
# A worker's first inference of a model reads its weights. It is left out, with its time, when it took longer than the
# third quartile of the others by this many interquartile ranges (Tukey 1977): of exponential times 0.9 % do by chance.
WARM_UP = 3.0
# What other models take of the busy slots before it is said that they ran beside.
_MIXED = 0.05


@dataclass(frozen=True, slots=True)
class Jobs:
    """Attempts that ended, by row: when, where, of which model (-1: none known), and what came of them.

    ``free`` is when its slot ended the job before (NaN: not known), ``given`` are the input tokens that were
    not cached, ``tokens`` the output tokens, ``cpu`` the CPU-seconds of the inferences (NaN: not recorded). One that
    will be tried again is neither ``ok`` nor ``failed``.
    """

    start: Floats
    end: Floats
    ready: Floats
    free: Floats
    worker: Codes
    model: Codes
    given: Floats
    tokens: Floats
    cpu: Floats
    ok: Flags
    failed: Flags


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen of one model with one number of slots (``places``).

    ``rate`` and ``tokens`` are per second with all slots busy with this model; None where too few jobs began so, or
    slots stood free for too long between jobs (not ``reached``). ``problem`` says which, and ``bound`` is then what the
    slots do at least.
    ``completions`` are those jobs that were done, ``seconds`` how long they keep all slots busy, ``busy`` the share of
    it in which slots work, ``gap`` the seconds that a slot stands free between two jobs. ``mixed``: other models ran
    beside. ``batches`` are the rates of equal parts. ``service`` are the seconds of each attempt that ended, with
    however many slots busy, ``cpu`` the mean CPU-seconds of its inferences, of the attempts that recorded them (NaN:
    none did).
    """

    places: int
    reached: bool
    rate: Estimate | None
    tokens: Estimate | None
    bound: float | None
    problem: str | None
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
    """The jobs of one set of workers, and which of them began while all other slots were taken.

    ``attempts`` are all of these workers', also those that go on.
    """

    def __init__(self, jobs: Jobs, attempts: Attempts, line: Timeline, windows: Sequence[tuple[float, float]]) -> None:
        self._jobs = jobs
        self._busy = line.every
        self._warm = _warm_ups(jobs)
        self._pieces = _pieces(jobs, line, windows, self._warm)
        # Places as each job began: with thousands of them one look for each number of places would take minutes.
        self._begun = self._there(jobs.start)
        taken = _taken(attempts, line)
        self._beside = taken.value(jobs.start)
        # NaN where the job was not there yet as the slot became free.
        self._stood = np.where(jobs.ready <= jobs.free, np.maximum(jobs.start - jobs.free, 0.0), np.nan)
        going = line.ours & ~attempts.ended & ~attempts.silent
        begun = attempts.start[going]
        self._going = _Going(self._there(begun), taken.value(begun), line.end[going] - begun)

    def counts(self) -> tuple[int, ...]:
        """Return the numbers of places there have been while something was worked on."""
        at, until, places, _ = self._pieces
        worked = (self._busy.integral(until) - self._busy.integral(at)) > 0
        return tuple(sorted({int(n) for n in places[worked] if n >= 1}))

    def level(self, model: int, places: int, crowd: Crowd | None = None) -> Level:
        """Return what was seen of ``model`` (-1: attempts without one) with so many slots.

        ``crowd`` tells how slots slow each other (None: they do not): a job that began beside all others ran beside
        fewer later on, the more so the lower the load.
        """
        rows = np.flatnonzero((self._jobs.model == model) & self.usual(places))
        spent = self._jobs.cpu[rows]
        spent = spent[np.isfinite(spent)]
        full = self._full(model, places, places, crowd)
        completions = float(np.sum(full.done))
        reached = completions >= LEAST_COMPLETIONS and full.busy >= LEAST_BUSY
        few = count(round(completions), "job")
        problem = f"only {few} began when no other slot was free; {LEAST_COMPLETIONS} are needed"
        if completions >= LEAST_COMPLETIONS:
            problem = f"slots were free for {percent(1 - full.busy)} of the time though jobs waited"
        tokens = full.tokens if reached and full.tokens is not None and np.sum(full.tokens) > 0 else None
        return Level(
            places=places,
            reached=reached,
            rate=full.rate(full.done) if reached else None,
            tokens=None if tokens is None else full.rate(tokens),
            bound=None if reached else self._bound(model, places, crowd),
            problem=None if reached else problem,
            completions=completions,
            seconds=full.seconds,
            busy=full.busy,
            gap=self.gap(places),
            mixed=self._mixed(model, full.rows),
            batches=full.batches() if reached else np.zeros(0),
            service=self._jobs.end[rows] - self._jobs.start[rows],
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
        """Return the seconds that a slot stands free between two jobs though others wait; NaN where few did."""
        stood = self._gaps(places)
        stood = stood[np.isfinite(stood)]
        return float(np.mean(stood)) if len(stood) >= _FEWEST_GAPS else math.nan

    def _gaps(self, places: int) -> Floats:
        """Return how long each job's slot had stood free beside it (jobs,); NaN where that tells nothing."""
        rows = self.usual(places)
        stood = np.where(rows, self._stood, np.nan)
        known = int(np.sum(np.isfinite(stood)))
        if not known:
            return stood
        still = stood > _STILL_SERVICES * float(np.mean((self._jobs.end - self._jobs.start)[rows]))
        return np.where(still, np.nan, stood) if np.sum(still) <= _STILL * known else stood

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

    def _full(self, model: int, places: int, least: int, crowd: Crowd | None) -> _Full:
        """Return the jobs of ``model`` that began with ``least`` of so many slots taken or more, their own included."""
        jobs, going = self._jobs, self._going
        chosen = np.flatnonzero(self.usual(places) & (self._beside >= least))
        chosen = chosen[np.argsort(jobs.start[chosen], kind="stable")]
        lasted = (jobs.end - jobs.start)[chosen]
        weight = _weights(lasted, going.age[(going.begun == places) & (going.beside >= least)])
        own = jobs.model[chosen] == model
        rows, service, weight = chosen[own], lasted[own], weight[own]
        sure, slower = 0.0, 0.0
        if crowd is not None and len(rows):
            begin, until = jobs.start[rows], jobs.end[rows]
            with_all = self._full_time(begin, until, least)
            longest = float(np.sum(with_all + (service - with_all) * crowd.fastest(least)))
            if crowd.speeds is not None:
                service = crowd.speeds.work(begin, until, self._busy, least)
                slowing = crowd.speeds.slowing(begin, until, self._busy, least)
                sure = 0.0 if slowing is None else estimates.normal() * float(np.std(np.log(slowing.scale)))
            worked = float(np.sum(service))
            slower = max(0.0, math.log(longest / worked)) if worked > 0 else 0.0
        ok, tokens, usual = jobs.ok[rows], jobs.tokens[rows], self.gap(places)
        gap = self._gaps(places)[rows]
        gap[np.isnan(gap)] = usual if math.isfinite(usual) else 0.0
        # Engines that do not tell some of their tokens would be shown as slow.
        told = np.where(ok, tokens, 0.0) if np.isfinite(tokens[ok]).all() else None
        return _Full(rows, least, service, gap, weight, ok.astype(np.float64), told, (max(sure, slower), sure))

    def _full_time(self, begin: Floats, until: Floats, least: int) -> Floats:
        """Return how much of each time had ``least`` busy slots or more, in s."""
        busy = self._busy
        full = np.concatenate([[0.0], np.cumsum(np.diff(busy.at) * (busy.count[:-1] >= least))])
        return np.asarray(np.interp(until, busy.at, full) - np.interp(begin, busy.at, full))

    def _mixed(self, model: int, rows: Codes) -> bool:
        """Tell whether slots worked on other models while these jobs ran."""
        jobs = self._jobs
        mine = jobs.model == model
        own = steps(jobs.start[mine], jobs.end[mine])
        times = (jobs.start[rows], jobs.end[rows])
        every, mine_only = (float(np.sum(of.integral(times[1]) - of.integral(times[0]))) for of in (self._busy, own))
        return every > (1 + _MIXED) * mine_only

    def _bound(self, model: int, places: int, crowd: Crowd | None) -> float | None:
        """Return the low end of what as many slots do as were taken while enough jobs began; None for fewer than two.

        n of c slots do no more than all c can do.
        """
        began = np.sort(self._beside[self.usual(places) & (self._jobs.model == model) & self._jobs.ok])
        if len(began) < 2:
            return None
        least = int(began[-LEAST_COMPLETIONS]) if len(began) >= LEAST_COMPLETIONS else 1
        full = self._full(model, places, max(1, min(places, least)), crowd)
        found = full.rate(full.done)
        return None if found is None else found.low


@dataclass(frozen=True, slots=True)
class _Going:
    """Attempts that go on: slots there were as each began, how many of them were taken, and its seconds so far."""

    begun: Floats
    beside: Floats
    age: Floats


@dataclass(frozen=True, slots=True)
class _Full:
    """Jobs that began with ``slots`` taken, in the order of their starts.

    Of each (jobs,) there are its row, its seconds as if all these slots had been busy, the seconds that its slot had
    stood free before it, its weight, 1 if it was done, and its tokens (None: not told of all). ``doubt`` is how far
    the logarithm of the rate may go down and up since slots slow each other: also as far as it was not seen surely that
    they do, but is not excluded.
    """

    rows: Codes
    slots: int
    service: Floats
    gap: Floats
    weight: Floats
    done: Floats
    tokens: Floats | None
    doubt: tuple[float, float]

    @property
    def seconds(self) -> float:
        """How long these jobs keep all slots busy."""
        return float(np.sum(self.weight * (self.service + self.gap))) / self.slots

    @property
    def busy(self) -> float:
        """Share of the time in which the slots work; NaN without a job."""
        seconds = self.seconds
        return float(np.sum(self.weight * self.service)) / self.slots / seconds if seconds > 0 else math.nan

    def rate(self, amounts: Floats) -> Estimate | None:
        """Amount per second of all slots, with the wider of two 95 % intervals; None where it took no time.

        One is of independent jobs, by the variance of a ratio of means (Cochran 1977, 6.4), of the logarithm of the
        rate, and longer where few long jobs weigh most (``_skewed``). The other is of the ratio of batch means (Law
        2015, 9.5.3), which sees what changes slowly. The value is less than the ratio by its relative variance: of few
        jobs the mean of 1 / mean is too high by that (Tin 1965; of k exponential times by 1/k).
        """
        seconds = self.seconds
        if not seconds > 0:
            return None
        value = float(np.sum(self.weight * amounts)) / seconds
        if value <= 0:
            return Estimate(0.0, 0.0, _UNSEEN / seconds)
        left = self._left(amounts, value) / (value * seconds)
        down, up = _skewed(left)
        parts = self._parts(left)
        if len(parts) >= _FEWEST_BATCHES:
            half = estimates.student(len(parts) - 1) * _error(parts)
            down, up = max(down, half), max(up, half)
        down, up = math.hypot(down, self.doubt[0]), math.hypot(up, self.doubt[1])
        low, high = value * math.exp(-down), value * math.exp(up) if up < _OPEN else math.inf
        error = _error(left)
        return Estimate(max(low, value / (1 + error * error)) if error < math.inf else value, low, high)

    def batches(self) -> Floats:
        """Return the rates of batches of jobs in their order (batches,), linear in the times: their mean is the rate.

        A batch's own ratio would be too high, of k exponential times by 1/(k-1).
        """
        value = float(np.sum(self.weight * self.done)) / self.seconds
        parts = self._parts(self._left(self.done, value))
        return np.asarray(value + parts * len(parts) / self.seconds)

    def _left(self, amounts: Floats, value: float) -> Floats:
        """Return what each job did more than the rate leaves for its time (jobs,); their sum is 0."""
        return self.weight * (amounts - value * (self.service + self.gap) / self.slots)

    def _parts(self, left: Floats) -> Floats:
        """Return the sums of batches (batches,)."""
        count = min(MOST_BATCHES, len(left) // max(_BATCH_ROUNDS * self.slots, _BATCH_JOBS))
        return np.array([float(np.sum(part)) for part in np.array_split(left, max(1, count))])


# Of what was not seen once, as much is missed by chance in 2.5 %: -ln 0.025.
_UNSEEN = 3.69
_OPEN = 50.0  # of the logarithm: such an end is not known


def _error(left: Floats) -> float:
    """Standard error of the sum of so many independent residuals; infinite for one."""
    n = len(left)
    return math.sqrt(n / (n - 1) * float(np.sum(left**2))) if n > 1 else math.inf


def _skewed(left: Floats) -> tuple[float, float]:
    """How far the 95 % interval of a rate's logarithm goes down and up, from what each job did more than its share.

    Of few long jobs among many short ones most samples hold too few, and their scatter is then too small as well: the
    rate seems too high, and more exact than it is. Student's statistic is moved by skewness * (2 z^2 + 1) / 6 sqrt(n)
    (Johnson 1978; Hall 1992), that of the logarithm of a mean back by cv * z^2 / 2 sqrt(n); the end to that side is set
    further out by it, the other is left where it is.
    """
    n, error = len(left), _error(left)
    if not 0 < error < math.inf:
        return error, error
    z = estimates.student(n - 1)
    skewness = float(np.mean(left**3)) / float(np.mean(left**2)) ** 1.5
    moved = (-skewness * (2 * z * z + 1) / 6 - error * math.sqrt(n) * z * z / 2) / math.sqrt(n)
    return (z + max(0.0, moved)) * error, (z + max(0.0, -moved)) * error


def _taken(attempts: Attempts, line: Timeline) -> Steps:
    """Count the slots that are taken: by a job from when its slot was free and it was there, until it ends."""
    there = np.fmin(np.maximum(attempts.ready, line.places.free), attempts.start)
    return steps(there[line.ours], line.end[line.ours])


def _weights(lasted: Floats, ages: Floats) -> Floats:
    """Return what each job that ended stands for (jobs,), beside others that have lasted for ``ages`` and go on.

    Those are the longer ones, and would be missed: each counts as the ones that lasted longer than it has so far
    (Kaplan and Meier 1958; "redistributed to the right", Efron 1967), or as the longest where none did.
    """
    ended = len(lasted)
    if not ended or not len(ages):
        return np.ones(ended)
    length = np.concatenate([lasted, ages])
    event = np.arange(len(length)) < ended
    order = np.lexsort((~event, length))
    hazard = event[order] / (len(length) - np.arange(len(length)))
    left = np.cumprod(1 - hazard)
    found = np.zeros(len(length))
    found[order] = hazard * np.concatenate([[1.0], left[:-1]])
    found[int(np.argmax(lasted))] += left[-1]
    return np.asarray(found[:ended] * len(length))


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
