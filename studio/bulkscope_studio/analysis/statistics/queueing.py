"""What pure queueing gives, to hold the measured waits against; times in seconds, rates in jobs/s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats
from bulkscope_studio.text.wording import count, number, seconds, times_as


@dataclass(frozen=True, slots=True)
class Expected:
    """N jobs enqueued at once on c slots with equal service time S: the least that queueing alone costs."""

    jobs: int
    places: int
    service: float
    mean_wait: float
    wait_ratio: float
    makespan: float


def put_at_once(jobs: int, places: int, service: float | None) -> Expected | None:
    """Mean wait S(N/c-1)/2, ratio (N/c-1)/(N/c+1) of mean wait over mean total, makespan N*S/c.

    With N < c nobody waits: N/c is then taken as 1. None without jobs, slots (``places``) or a service time.
    """
    if jobs < 1 or places < 1 or service is None:
        return None
    rounds = max(1.0, jobs / places)
    return Expected(jobs, places, service, service * (rounds - 1) / 2, (rounds - 1) / (rounds + 1), service * rounds)


@dataclass(frozen=True, slots=True)
class Little:
    """L = lambda * W over a window that starts and ends empty: a check on the data, not a result.

    ``in_system`` is L, integrated over enqueue and end times; ``rate`` is lambda in jobs/s; ``time`` is W,
    the mean of wait + delay + work as the workers recorded them; ``deviation`` is |L - lambda W| / L.
    """

    in_system: float
    rate: float
    time: float
    deviation: float
    ok: bool


LITTLE_TOLERANCE = 0.05


def little(
    arrivals: Sequence[int] | NDArray[np.int64],
    departures: Sequence[int] | NDArray[np.int64],
    times: Sequence[float] | Floats,
    window_ns: tuple[int, int],
) -> Little | None:
    """Check recorded times against the count of jobs in the system; None for an empty window.

    L and lambda come from the enqueue times of the senders, W from what the workers recorded, so lost spans,
    a skewed clock and a cut window show as a difference. A retry has no sender's record: it always agrees.
    Where jobs left before they came, L is no number of jobs and the deviation is 1.
    """
    length = (window_ns[1] - window_ns[0]) / 1e9
    if length == 0 or not len(times) or not len(arrivals):
        return None
    time = float(np.mean(times))
    if length < 0:
        return Little(0.0, 0.0, time, 1.0, False)
    # Each arrival adds one job until the window's end, each departure takes one away.
    inside = _total(window_ns[1] - np.asarray(arrivals)) - _total(window_ns[1] - np.asarray(departures))
    in_system, rate = inside / 1e9 / length, len(arrivals) / length
    deviation = abs(in_system - rate * time) / in_system if in_system > 0 else 1.0
    return Little(in_system, rate, time, deviation, deviation <= LITTLE_TOLERANCE)


def _total(times_ns: NDArray[np.int64]) -> int:
    """Return a sum exactly: 200,000 jobs that wait 13 h on average are 2^63 ns, more than 64 bits hold."""
    whole, rest = np.divmod(times_ns, 10**9)
    return int(np.sum(whole)) * 10**9 + int(np.sum(rest))


class Saturated(ValueError):
    """More work arrives than the servers can do: the queue grows without end and no wait can be given."""

    def __init__(self, rate: float, service: float, servers: int) -> None:
        self.utilization = rate * service / servers
        self.growth = rate - servers / service
        needed = math.floor(rate * service) + 1
        super().__init__(
            f"{number(rate)} jobs/s of {seconds(service)} each are {times_as(self.utilization, 'much')} as "
            f"{count(servers, 'concurrency slot')} can do: the queue grows by {number(self.growth)} jobs/s. Lower the "
            f"rate below {number(servers / service)} jobs/s, or use at least {count(needed, 'slot')}."
        )


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits to expect in the steady state, in s; ``utilization`` is the busy share of the servers, 0..1.

    An upper end of infinity says that the data do not exclude saturation.
    """

    utilization: Estimate
    mean: Estimate
    p50: Estimate
    p95: Estimate


def erlang_c(load: Floats | float, servers: int) -> Floats:
    """Probability that a job waits in M/M/c (Erlang 1917), for each ``load`` = rate * service, in erlangs.

    It comes from Erlang B by the recursion B(k) = aB(k-1) / (k + aB(k-1)), which only adds and divides positive
    numbers: no factorial, no overflow and no cancellation, tested to 1,000 servers. NaN where load >= servers.
    """
    a = np.asarray(load, dtype=np.float64)
    if servers < 1:
        raise ValueError(f"servers must be 1 or more, not {servers}")
    if bool(np.any(a < 0)):
        raise ValueError("a load must not be negative: give arrival rate times service time")
    lost = np.ones_like(a)
    for k in range(1, servers + 1):
        lost = a * lost / (k + a * lost)
    stable = a < servers
    rho = np.where(stable, a, np.nan) / servers
    return np.asarray(lost / (1 - rho * (1 - lost)))


def mean_wait(
    rate: Floats | float,
    service: Floats | float,
    servers: int,
    arrival_scv: Floats | float = 1.0,
    service_scv: Floats | float = 1.0,
) -> Floats:
    """Mean wait in G/G/c, in s: that of M/M/c times (Ca^2 + Cs^2) / 2, elementwise; NaN where saturated.

    The factor is Lee and Longton's (1959) for M/G/c and Allen and Cunneen's (Allen 1990) for G/G/c; ``arrival_scv``
    and ``service_scv`` are the squared coefficients of variation Ca^2 and Cs^2 of the times between arrivals and of
    the service times. Exact for M/M/c and for M/G/1 (Pollaczek and Khinchine); an approximation elsewhere, good at
    high load and a few per cent off for M/D/c, worst for bursts, whose times between arrivals are not independent:
    take ``simulation.predicted_waits`` there.
    """
    load = np.asarray(rate, dtype=np.float64) * service
    return np.asarray(erlang_c(load, servers) * _conditional(load, service, servers, arrival_scv, service_scv))


def wait_quantile(
    probability: Floats | float,
    rate: Floats | float,
    service: Floats | float,
    servers: int,
    arrival_scv: Floats | float = 1.0,
    service_scv: Floats | float = 1.0,
) -> Floats:
    """Quantile of the wait in G/G/c, in s, elementwise; 0 where so many do not wait at all, NaN where saturated.

    The wait of those that wait is taken as exponential with the mean that ``mean_wait`` gives them. Exact for M/M/c
    only; elsewhere, in M/G/1 too, an approximation (exact in the limit of heavy traffic, Kingman 1962).
    """
    p = np.asarray(probability, dtype=np.float64)
    if not bool(np.all((p >= 0) & (p < 1))):
        raise ValueError("a quantile's probability must be from 0 to below 1, such as 0.95")
    load = np.asarray(rate, dtype=np.float64) * service
    beyond = np.maximum(erlang_c(load, servers) / (1 - p), 1.0)  # NaN stays NaN
    return np.asarray(_conditional(load, service, servers, arrival_scv, service_scv) * np.log(beyond))


def _conditional(
    load: Floats, service: Floats | float, servers: int, arrival_scv: Floats | float, service_scv: Floats | float
) -> Floats:
    """Mean wait of those that wait, in s."""
    free = np.where(load < servers, servers - load, np.nan)
    return np.asarray((np.asarray(arrival_scv) + service_scv) / 2 * service / free)


def durations(values: Floats | Sequence[float], name: str) -> Floats:
    """``values`` as an array; an error where one is absent or negative, or where all are 0 or there is none."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not bool(np.all(np.isfinite(found) & (found >= 0))):
        raise ValueError(f"{name} must be finite seconds from 0 up, in one dimension: leave jobs without a value out")
    if not bool(np.any(found > 0)):
        raise ValueError(f"{name} must hold at least one value above 0")
    return found


def squared_variation(values: Floats) -> float:
    """Squared coefficient of variation: unbiased variance over squared mean; 0 for a single value and for all 0."""
    middle = float(np.mean(values))
    return float(np.var(values, ddof=1)) / middle**2 if len(values) > 1 and middle > 0 else 0.0


def expected_waits(
    rate: float, services: Floats | Sequence[float], servers: int, gaps: Floats | Sequence[float] | None = None
) -> Waits:
    """Waits by ``mean_wait`` and ``wait_quantile`` for service times seen, in s; ``Saturated`` from utilization 1 up.

    Arrivals are Poisson, or vary as the times between arrivals in ``gaps`` do (s; only their variation counts). The
    intervals are what the samples leave open, by resampling them; the error of the approximation is not in them. A
    single service time says nothing on its spread: the intervals then reach to infinity.
    """
    return waits_at([rate], services, servers, gaps)[0]


def waits_at(
    rates: Sequence[float], services: Floats | Sequence[float], servers: int, gaps: Floats | Sequence[float] | None
) -> list[Waits]:
    """As ``expected_waits`` at each of several rates, on the same resamples."""
    times = durations(services, "services")
    between = None if gaps is None else durations(gaps, "gaps")
    random = np.random.default_rng(estimates.SEED)
    resamples = max(
        200, min(estimates.RESAMPLES, _RESAMPLED // max(len(times), 0 if between is None else len(between)))
    )
    service, service_scv = _moments(times, resamples, random)
    arrival_scv = np.ones(resamples + 1) if between is None else _moments(between, resamples, random)[1]
    known = len(times) > 1 and (between is None or len(between) > 1)
    found = []
    for rate in rates:
        stable(rate, float(service[0]), servers)
        shape = (rate, service, servers, arrival_scv, service_scv)
        waits = (mean_wait(*shape), wait_quantile(0.5, *shape), wait_quantile(0.95, *shape))
        found.append(Waits(_spread(rate * service / servers, known), *(_spread(values, known) for values in waits)))
    return found


def stable(rate: float, service: float, servers: int) -> None:
    """Raise ``Saturated`` unless ``servers`` can do ``rate`` jobs/s of ``service`` s each, with something to spare."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"the arrival rate must be finite and above 0, not {rate}")
    if servers < 1:
        raise ValueError(f"servers must be 1 or more, not {servers}")
    if rate * service >= servers:
        raise Saturated(rate, service, servers)


_RESAMPLED = 20_000_000  # values drawn for one interval, about 0.2 s: above 10,000 values there are fewer resamples


def _moments(values: Floats, resamples: int, random: np.random.Generator) -> Floats:
    """Mean and squared variation (rows) of the sample (first column) and of its resamples."""
    found = [np.array([[float(np.mean(values))], [squared_variation(values)]])]
    at_once = max(1, 1_000_000 // len(values))
    for first in range(0, resamples, at_once):
        drawn = values[random.integers(0, len(values), (min(at_once, resamples - first), len(values)))]
        middle = np.mean(drawn, axis=1)
        spread = np.var(drawn, axis=1, ddof=1 if len(values) > 1 else 0)
        found.append(np.stack([middle, spread / np.where(middle > 0, middle, 1) ** 2]))
    return np.hstack(found)


def _spread(values: Floats, known: bool) -> Estimate:
    """The first value with the percentile interval of the others, of which the saturated ones (NaN) are infinite."""
    value = float(values[0])
    draws = np.nan_to_num(values[1:], nan=np.inf, posinf=np.inf)
    return estimates.percentiles(value, draws) if known else Estimate(value, 0, math.inf)
