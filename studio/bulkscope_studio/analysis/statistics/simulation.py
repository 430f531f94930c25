"""Queues played through job by job: exact for the jobs given, and a prediction where no formula holds.

Times in seconds, rates in jobs/s. Every draw is seeded: the same data give the same result.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bulkscope_studio.analysis.statistics import estimates, queueing
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats
from bulkscope_studio.analysis.statistics.queueing import Waits

REPLICATIONS = 100
_LONGEST = 20_000  # jobs of a replication: 200 of them need 10 MB per 1,000 jobs
_STEPS = 14  # halvings of the utilization: to 1/16,384
# Servers that slow each other cost 0.1 ms a job where others cost 8 us, from 64 of them on more than 0.2: shorter runs
# then, fewer halvings, and for more servers none at all: waits by the speed with all busy are too long, not too short.
_CROWDED_LONGEST, _CROWDED_STEPS, _CROWDED_SERVERS = 5_000, 7, 64


@dataclass(frozen=True, slots=True)
class Slowing:
    """Servers that slow each other: ``speeds`` (servers,) of each with 1..c busy, over that with all busy.

    ``draws`` (draws, servers) are other speeds that it may as well be; ``scale`` (draws,) is the service times with
    all servers busy that follow from them, over those that follow from ``speeds``. With up to ``seen`` busy servers it
    was seen; beyond, speeds are those with so many, which they can only be below.
    """

    speeds: Floats
    draws: Floats
    scale: Floats
    seen: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Jobs played through, in the order in which they were given; NaN for a job that no server was left for.

    ``makespan`` is the last end minus the first arrival; None without jobs or with one that never starts.
    """

    starts: Floats
    ends: Floats
    waits: Floats
    makespan: float | None
    unserved: int


def replay(
    arrivals: Floats | Sequence[float], services: Floats | Sequence[float], servers: int | Sequence[tuple[float, float]]
) -> Replay:
    """First come, first served on c servers (G/G/c): exact, by the recursion of Kiefer and Wolfowitz (1955).

    ``arrivals`` and ``services`` (jobs,) in s, arrivals on any clock and in any order; equal arrivals go in the order
    given. ``servers`` is their number, or a (start, end) on the arrivals' clock for each one that was there for part
    of the time (infinite where open): at its end a server finishes its job and takes no other. Of several idle
    servers the one that has been idle longest takes the job.
    """
    put = np.asarray(arrivals, dtype=np.float64)
    work = np.asarray(services, dtype=np.float64)
    if put.ndim != 1 or put.shape != work.shape:
        raise ValueError(f"one arrival and one service time per job: got {put.shape} and {work.shape}")
    if not bool(np.all(np.isfinite(put)) and np.all(np.isfinite(work) & (work >= 0))):
        raise ValueError("arrivals and services must be finite, services not negative: leave jobs without them out")
    order = np.argsort(put, kind="stable")
    starts = np.full(len(put), np.nan)
    begun = _starts(put[order].tolist(), work[order].tolist(), _presences(servers))
    starts[order[: len(begun)]] = begun
    ends = starts + work
    unserved = len(put) - len(begun)
    makespan = float(np.max(ends) - np.min(put)) if len(put) and not unserved else None
    return Replay(starts, ends, starts - put, makespan, unserved)


def _presences(servers: int | Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    if isinstance(servers, int):
        if servers < 1:
            raise ValueError(f"servers must be 1 or more, not {servers}")
        return [(-math.inf, math.inf)] * servers
    if not servers or any(not start <= end for start, end in servers):
        raise ValueError("give at least one server, each with a start that is not after its end")
    return list(servers)


def _starts(arrivals: list[float], services: list[float], servers: list[tuple[float, float]]) -> list[float]:
    """Start of each job, arrivals sorted; shorter when the servers leave before all jobs have begun.

    Arrivals only grow, so a server that is past its end for one job is past it for all later ones.
    """
    starts: list[float] = []
    free = sorted(servers)  # when each is free next, and when it leaves: a heap
    for put, work in zip(arrivals, services, strict=True):
        while free:
            ready, leaves = free[0]
            start = max(put, ready)
            if start < leaves:
                break
            heapq.heappop(free)
        else:
            return starts
        starts.append(start)
        heapq.heapreplace(free, (start + work, leaves))
    return starts


def predicted_waits(
    rate: float,
    services: Floats | Sequence[float],
    servers: int,
    gaps: Floats | Sequence[float] | None = None,
    replications: int = REPLICATIONS,
    slowing: Slowing | None = None,
) -> Waits:
    """Waits in the steady state of G/G/c, in s, by simulation; ``Saturated`` from utilization 1 up.

    With ``slowing`` the ``services`` are those with all servers busy; None: servers do not slow each other.

    Service times are drawn from ``services`` (s, as seen); arrivals are Poisson, or blocks of the times between
    arrivals in ``gaps`` (s, in the order seen), each a tenth of the record so that bursts stay whole, scaled to
    ``rate`` (circular block bootstrap, Politis and Romano 1992).

    The values are those of ``replications`` runs on the samples as they are. The intervals are the percentiles of as
    many runs, each on a resample of the samples (Barton and Schruben 1993), so they hold what the samples leave open
    and the noise of a run; a resample that is saturated counts as infinite. A single service time or gap leaves all
    open. Below some 20 values the intervals are too narrow, as the bootstrap's are. From a utilization of about 0.97
    up a queue forgets its start more slowly than a run lasts: the values then lean on ``queueing.wait_quantile``, from
    which the runs start.
    """
    samples = _Samples.of(services, servers, gaps, slowing)
    queueing.stable(rate, samples.service, servers)
    runs = _Runs.draw(samples, rate, replications)
    rates = np.full(2 * replications, rate)
    waits = runs.waits(rates)
    saturated = rates[replications:] * runs.service[replications:] >= servers

    def estimate(value: float, of_runs: Floats) -> Estimate:
        return samples.spread(value, np.where(saturated, np.inf, of_runs[replications:]))

    middle, high = np.quantile(waits, (0.5, 0.95), axis=0)
    plain = waits[:, :replications]
    return Waits(
        samples.spread(rate * samples.service / servers, rate * runs.service[replications:] / servers),
        estimate(float(np.mean(plain)), np.mean(waits, axis=0)),
        estimate(float(np.quantile(plain, 0.5)), middle),
        estimate(float(np.quantile(plain, 0.95)), high),
    )


# A curve has many rates: fewer runs and jobs at each, all on the same draws, so that no wait falls as the rate rises.
# Of 40 rates on 4 servers 1.5 CPU-s, where ``predicted_waits`` takes 6; up to a fifth off
# from a utilization of 0.95 up.
_CURVE_RUNS, _CURVE_BUSY, _CURVE_COLUMNS = 50, 0.9, 500
_CROWDED_CURVE_RUNS, _CROWDED_CURVE_JOBS = 20, 1500


def p95_at(
    rates: Sequence[float],
    services: Floats | Sequence[float],
    servers: int,
    gaps: Floats | Sequence[float] | None = None,
    slowing: Slowing | None = None,
) -> list[Estimate]:
    """The p95 of ``predicted_waits`` at each of several rates, all below saturation, in s; coarser, and much faster."""
    samples = _Samples.of(services, servers, gaps, slowing)
    for rate in rates:
        queueing.stable(rate, samples.service, servers)
    count = _CURVE_RUNS if slowing is None else _CROWDED_CURVE_RUNS
    runs = _Runs.draw(samples, _CURVE_BUSY * servers / samples.service, count)
    if runs.speeds is not None:
        runs = runs.cut(_CROWDED_CURVE_JOBS)
    at_once = max(1, _CURVE_COLUMNS // (2 * count))
    found = []
    for first in range(0, len(rates), at_once):
        several = np.asarray(rates[first : first + at_once])
        waits = runs.times(len(several)).waits(np.repeat(several, 2 * count))
        for rate, of_rate in zip(several.tolist(), np.split(waits, len(several), axis=1), strict=True):
            of_runs = np.quantile(of_rate[:, count:], 0.95, axis=0)
            saturated = rate * runs.service[count:] >= servers
            value = float(np.quantile(of_rate[:, :count], 0.95))
            found.append(samples.spread(value, np.where(saturated, np.inf, of_runs)))
    return found


def highest_rate(
    services: Floats | Sequence[float],
    servers: int,
    slo_s: float,
    quantile: float = 0.95,
    gaps: Floats | Sequence[float] | None = None,
    replications: int = REPLICATIONS,
    slowing: Slowing | None = None,
) -> Estimate | None:
    """Highest arrival rate in jobs/s at which ``quantile`` of the jobs wait ``slo_s`` seconds or less.

    By bisection on the runs of ``predicted_waits``: all rates see the same draws, so that no wait falls when the rate
    rises. The interval is that of each resample's own highest rate. None where no rate keeps it: jobs that come at the
    same time wait for each other however rare their bursts are.
    """
    if not (math.isfinite(slo_s) and slo_s >= 0):
        raise ValueError(f"the wait allowed must be finite seconds from 0 up, not {slo_s}")
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile must be between 0 and 1, such as 0.95, not {quantile}")
    samples = _Samples.of(services, servers, gaps, slowing)
    runs = _Runs.draw(samples, samples.rate_by_formula(slo_s, quantile), replications)
    capacity = servers / runs.service
    kept = np.zeros(2 * replications)  # utilization known to keep the allowed wait, and to miss it
    # Without what servers gain beside fewer busy ones, first: no wait is shorter then, so what is kept is kept with it.
    plain = dataclasses.replace(runs, speeds=None)
    for played, steps in ((plain, _STEPS), (runs, 0 if runs.speeds is None else _CROWDED_STEPS)):
        missed = np.ones(2 * replications)
        for _ in range(steps):
            tried = (kept + missed) / 2
            waits = played.waits(tried * capacity)
            found = np.quantile(waits, quantile, axis=0)
            found[:replications] = np.quantile(waits[:, :replications], quantile)
            kept, missed = np.where(found <= slo_s, tried, kept), np.where(found <= slo_s, missed, tried)
    if kept[0] == 0:
        return None
    rates = kept * capacity
    return samples.spread(float(rates[0]), rates[replications:])


@dataclass(frozen=True, slots=True)
class _Samples:
    """What was seen: service times (s), and times between arrivals scaled to a mean of 1, or None for Poisson."""

    services: Floats
    gaps: Floats | None
    servers: int
    slowing: Slowing | None

    @classmethod
    def of(
        cls, services: Floats | Sequence[float], servers: int, gaps: Floats | Sequence[float] | None,
        slowing: Slowing | None = None,
    ) -> _Samples:  # fmt: skip
        if servers < 1:
            raise ValueError(f"servers must be 1 or more, not {servers}")
        if slowing is not None and not (slowing.speeds.shape == (servers,) and bool(np.all(slowing.speeds > 0))):
            raise ValueError("give a speed above 0 for each number of busy servers")
        between = None if gaps is None else queueing.durations(gaps, "gaps")
        if between is not None:
            between = between / np.mean(between)
        return cls(queueing.durations(services, "services"), between, servers, slowing)

    @property
    def service(self) -> float:
        return float(np.mean(self.services))

    @property
    def arrival_scv(self) -> float:
        return 1.0 if self.gaps is None else queueing.squared_variation(self.gaps)

    def rate_by_formula(self, slo_s: float, quantile: float) -> float:
        """About the highest rate that keeps the wait: it only decides how long the runs are."""
        rho = np.linspace(0.01, 0.99, 99)
        shape = (self.servers, self.arrival_scv, queueing.squared_variation(self.services))
        waits = queueing.wait_quantile(quantile, rho * self.servers / self.service, self.service, *shape)
        return float(rho[max(0, int(np.searchsorted(waits, slo_s)) - 1)] * self.servers / self.service)

    def resampled(self, random: np.random.Generator) -> _Samples:
        """A sample as this one might have been; of zeros only it would have no capacity, and is left as it is."""
        services = self.services[random.integers(0, len(self.services), len(self.services))]
        gaps = None if self.gaps is None else self.between(len(self.gaps), random)
        return _Samples(
            services if np.any(services) else self.services,
            gaps / np.mean(gaps) if gaps is not None and np.any(gaps) else self.gaps,
            self.servers,
            self.slowing,
        )

    def between(self, jobs: int, random: np.random.Generator) -> Floats:
        """Times between arrivals (jobs,), of a mean of 1."""
        if self.gaps is None:
            return random.exponential(size=jobs)
        length = max(1, len(self.gaps) // 10)
        first = random.integers(0, len(self.gaps), -(-jobs // length))
        return np.asarray(self.gaps[((first[:, None] + np.arange(length)) % len(self.gaps)).ravel()[:jobs]])

    def spread(self, value: float, draws: Floats) -> Estimate:
        known = len(self.services) > 1 and (self.gaps is None or len(self.gaps) > 1)
        return estimates.percentiles(value, draws) if known else Estimate(value, 0, math.inf)


@dataclass(frozen=True, slots=True)
class _Runs:
    """Draws of twice as many runs as replications (columns): first on the samples, then each on its own resample.

    ``arrivals`` (jobs, runs) are for a rate of 1; ``work`` (jobs, runs) and the mean ``service`` (runs,) in s.
    ``begun`` (runs,) is the probability whose quantile of the expected wait the first job finds: a run that starts
    near its steady state forgets its start far sooner than one that starts empty.
    """

    arrivals: Floats
    work: Floats
    service: Floats
    service_scv: Floats
    arrival_scv: Floats
    begun: Floats
    servers: int
    speeds: Floats | None  # (runs, servers)
    warm_up: int

    @classmethod
    def draw(cls, samples: _Samples, rate: float, replications: int) -> _Runs:
        """``rate`` decides the length. A queue forgets in about rho / (1 - sqrt(rho))^2 jobs (the relaxation time of
        M/M/1, Cohen 1982) times (Ca^2 + Cs^2) / 2: two of these are dropped, ten are kept, up to 20,000 jobs."""
        if replications < 2:
            raise ValueError(f"an interval needs at least 2 replications, not {replications}")
        rho = min(rate * samples.service / samples.servers, 0.9999)
        scv = (samples.arrival_scv + queueing.squared_variation(samples.services)) / 2
        memory = rho / (1 - math.sqrt(rho)) ** 2 * max(scv, 0.5) + 2 * samples.servers
        slowing = samples.slowing if samples.servers <= _CROWDED_SERVERS else None
        longest = _LONGEST if slowing is None else _CROWDED_LONGEST
        warm_up = min(round(200 + 2 * memory), longest // 2)
        jobs = min(warm_up + round(2000 + 10 * memory), longest)
        random = np.random.default_rng(estimates.SEED)
        runs = 2 * replications
        arrivals = np.empty((jobs, runs))
        work = np.empty((jobs, runs))
        service, service_scv, arrival_scv = np.empty(runs), np.empty(runs), np.empty(runs)
        speeds = None if slowing is None else np.tile(slowing.speeds, (runs, 1))
        for run in range(runs):
            seen = samples if run < replications else samples.resampled(random)
            service[run], service_scv[run] = seen.service, queueing.squared_variation(seen.services)
            arrival_scv[run] = seen.arrival_scv
            work[:, run] = seen.services[random.integers(0, len(seen.services), jobs)]
            if slowing is not None and speeds is not None and run >= replications:
                draw = (run - replications) % len(slowing.draws)
                speeds[run], scale = slowing.draws[draw], slowing.scale[draw]
                service[run] *= scale
                work[:, run] *= scale
            arrivals[:, run] = np.cumsum(seen.between(jobs, random))
        begun = random.random(runs)
        return cls(arrivals, work, service, service_scv, arrival_scv, begun, samples.servers, speeds, warm_up)

    def times(self, count: int) -> _Runs:
        """Return the same runs, ``count`` times beside each other."""
        each = ("arrivals", "work", "service", "service_scv", "arrival_scv", "begun")
        again: dict[str, Any] = {name: np.tile(getattr(self, name), count) for name in each}
        speeds = None if self.speeds is None else np.tile(self.speeds, (count, 1))
        return dataclasses.replace(self, **again, speeds=speeds)

    def cut(self, jobs: int) -> _Runs:
        """Return the runs with so many jobs at most, a third of which warm up."""
        return dataclasses.replace(
            self, arrivals=self.arrivals[:jobs], work=self.work[:jobs], warm_up=min(self.warm_up, jobs // 3)
        )

    def waits(self, rates: Floats) -> Floats:
        """Waits after the warm-up (jobs, runs), in s, with an arrival rate for each run."""
        shape = (self.servers, self.arrival_scv, self.service_scv)
        start = queueing.wait_quantile(
            self.begun, np.minimum(rates, 0.999 * self.servers / self.service), self.service, *shape
        )
        free = np.repeat(start[:, None], self.servers, axis=1)
        if self.speeds is None:
            return waits_of_runs(self.arrivals / rates, self.work, free)[self.warm_up :]
        return _crowded_waits(self.arrivals / rates, self.work, free, self.speeds)[self.warm_up :]


def waits_of_runs(arrivals: Floats, work: Floats, free: Floats) -> Floats:
    """Waits (jobs, runs) in s: ``replay`` of many runs at once (columns), job by job: 200 runs cost 8 us a job, by the
    heap 40 us.

    ``arrivals`` and ``work`` (jobs, runs), the arrivals of each run sorted;
    ``free`` (runs, servers) says when each server is free first, and is used up.
    """
    runs, servers = free.shape
    ready, offset = free.reshape(-1), np.arange(runs) * servers
    waits = np.empty_like(arrivals)
    for put, service, wait in zip(arrivals, work, waits, strict=True):
        server = offset + free.argmin(axis=1)
        start = np.maximum(put, ready[server])
        np.subtract(start, put, out=wait)
        ready[server] = start + service
    return waits


def _crowded_waits(arrivals: Floats, work: Floats, finish: Floats, speeds: Floats) -> Floats:
    """``waits_of_runs`` where the speed of the servers changes with the number of busy ones, departure by departure:
    200 runs of 4 servers cost 0.1 ms a job.

    Each run has a clock of work done per busy server, which goes at their speed: by it a job ends when it began plus
    its ``work``, whoever comes and goes meanwhile. ``finish`` (runs, servers), when each server ends its first job by
    that clock, is used up; infinite where it is idle.
    """
    runs, servers = finish.shape
    number = np.arange(runs)
    now, clock = np.zeros(runs), np.zeros(runs)
    speeds = np.column_stack([np.ones(runs), speeds])  # with none busy the clock stands anyway
    waits = np.empty_like(arrivals)
    for put, job, wait in zip(arrivals, work, waits, strict=True):
        while True:
            busy = np.isfinite(finish).sum(axis=1)
            speed = speeds[number, busy]
            first = finish.argmin(axis=1)
            ends = finish[number, first]
            leaves = now + (ends - clock) / speed
            # Whoever ends before the job comes makes the others faster; with all busy, the job begins at the next end.
            going = np.flatnonzero((leaves <= put) | (busy == servers))
            if not len(going):
                break
            now[going], clock[going] = leaves[going], ends[going]
            finish[going, first[going]] = np.inf
        start = np.maximum(put, now)
        clock += np.where(busy > 0, (start - now) * speed, 0.0)
        now = start
        finish[number, finish.argmax(axis=1)] = clock + job
        np.subtract(start, put, out=wait)
    return waits
