"""Waits to expect at an arrival rate: by formula where its conditions hold, else by simulation. Times in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.statistics import estimates, queueing, simulation
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import Floats
from bulkscope_studio.text.wording import agree, between, count, number, percent, times_as

# Below it neither a variance nor a percentile of the service times is known.
LEAST_JOBS = 20
# A simulation's time grows with the places: with so many, nine in ten of them busy, one takes 1.2 CPU-s.
MOST_PLACES = 1000
# Gaps between arrivals of at least half the mean, and service times that the arrivals last: with fewer of either, jobs
# came in a few bursts and not in a stream.
LEAST_BURSTS = 10
# What the formula asks for.
FORMULA_JOBS = 100
POISSON_SCV = (0.5, 2.0)
# Variance of ten times between arrivals together, over ten times that of one: 1 when they are independent.
POISSON_DISPERSION = (0.4, 2.5)
_LAG = 10
# Growth of the service time over the window that still counts as flat, as in thresholds.SERVICE_GROWTH.
FLAT = 0.2


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Jobs that arrived over time: when (s, rising) and the times between them, those across windows left out."""

    at: Floats
    gaps: Floats

    def rate(self, service: float) -> float | None:
        """Jobs/s; None where there is no steady one: they came in fewer than ``LEAST_BURSTS`` bursts, or within as many
        times the ``service`` of one, as a bulk enqueued at once does."""
        total = float(np.sum(self.gaps))
        if len(self.gaps) < LEAST_JOBS or not total >= LEAST_BURSTS * service:
            return None
        middle = total / len(self.gaps)
        return 1 / middle if int(np.sum(self.gaps >= middle / 2)) >= LEAST_BURSTS else None

    @property
    def dispersion(self) -> float:
        """Index of dispersion for intervals at lag ten (Cox and Lewis 1966) over that at lag one; NaN for too few."""
        if len(self.gaps) < 3 * _LAG:
            return math.nan
        sums = np.convolve(self.gaps, np.ones(_LAG), "valid")
        single = float(np.var(self.gaps, ddof=1))
        return float(np.var(sums, ddof=1)) / (_LAG * single) if single > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What the formula asks for, and whether it holds."""

    name: str
    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits at one arrival rate, with their intervals; ``method`` is ``formula`` or ``simulation``."""

    method: str
    mean: Estimate
    p50: Estimate
    p95: Estimate


@dataclass(frozen=True, slots=True)
class Forecast:
    """What to expect at ``rate`` jobs/s with so many places.

    ``service`` is the seconds that a job takes of a place while all are busy, the time between two jobs included, and
    ``utilization`` what the rate needs of what the places can do then; ``dispatch`` the wait of
    jobs that found a place free, which is added to every wait. ``wait`` is None where there are too few jobs or the
    places are saturated; ``problem`` says which. ``other`` is the other method's answer where their intervals of p95
    do not meet.
    """

    rate: float | None
    observed: bool
    places: int
    service: float | None
    dispatch: float
    utilization: Estimate | None
    conditions: tuple[Condition, ...]
    wait: Wait | None
    other: Wait | None
    problem: str | None


def conditions(
    starts: Floats, services: Floats, arrivals: Arrivals | None, slowing: simulation.Slowing | None
) -> tuple[Condition, ...]:
    """Return what Erlang C asks for, with what is there; without ``arrivals`` a Poisson stream is taken."""
    found = [
        Condition(
            "jobs",
            len(services) >= FORMULA_JOBS,
            f"{count(len(services), 'job')} observed (needed: at least {FORMULA_JOBS})",
        )
    ]
    slope = estimates.slope(starts, services)
    usual, window = float(np.mean(services)), float(np.ptp(starts)) if len(starts) else 0.0
    if slope is None or usual <= 0:
        found.append(Condition("flat", True, "the service time has no detectable trend"))
    else:
        growth = slope.value * window / usual
        clear = (slope.low > 0) == (slope.high > 0)
        found.append(
            Condition(
                "flat", not (clear and abs(growth) > FLAT),
                f"the service time changed by {percent(growth)} over the time observed (needed: under {percent(FLAT)}, "
                "or no more than chance)",
            )
        )  # fmt: skip
    alike = "busy slots do not detectably slow each other"
    if slowing is not None:
        alone, most = float(slowing.speeds[0]), min(len(slowing.speeds), slowing.seen)
        which = f"all {most}" if most == len(slowing.speeds) else f"{most}, the most observed,"
        alike = f"one busy slot alone is {times_as(alone, 'fast')} as one of {which} busy (needed: equally fast)"
    found.append(Condition("alike", slowing is None, alike))
    if arrivals is None:
        return tuple(found)
    scv, dispersion = queueing.squared_variation(arrivals.gaps), arrivals.dispersion
    near = POISSON_SCV[0] <= scv <= POISSON_SCV[1]
    apart = POISSON_DISPERSION[0] <= dispersion <= POISSON_DISPERSION[1]
    found.append(
        Condition(
            "poisson", near and apart,
            f"times between arrivals: squared coefficient of variation {_told(scv)} (needed: {between(*POISSON_SCV)}), "
            f"index of dispersion at lag {_LAG} {_told(dispersion)} (needed: {between(*POISSON_DISPERSION)}; 1 if they "
            "are independent)",
        )
    )  # fmt: skip
    middle = (arrivals.at[0] + arrivals.at[-1]) / 2
    early = int(np.sum(arrivals.at < middle))
    late = len(arrivals.at) - early
    steady = abs(early - late) <= 2 * math.sqrt((early + late) * max(1.0, scv))
    found.append(
        Condition("steady", steady, f"{count(early, 'arrival')} in the first half of the time, {late:,} in the second")
    )
    return tuple(found)


def _told(value: float) -> str:
    return number(value) if math.isfinite(value) else "not known"


def forecast(
    rate: float | None, observed: bool, places: int, starts: Floats, services: Floats, arrivals: Arrivals | None,
    dispatch: float, slowing: simulation.Slowing | None = None,
) -> Forecast:  # fmt: skip
    """Predict the waits; ``services`` (jobs,) are the seconds that jobs which began at ``starts`` took of a place.

    ``arrivals`` give the pattern, scaled to ``rate``; None: Poisson. ``slowing`` as in ``simulation.predicted_waits``;
    ``services`` are then those with all places busy.
    """
    if rate is None:
        few = "the jobs arrived in a few bursts, which have no steady rate: give an arrival rate"
        return Forecast(None, observed, places, None, dispatch, None, (), None, None, few)
    if (problem := _impossible(places, services)) is not None:
        return Forecast(rate, observed, places, None, dispatch, None, (), None, None, problem)
    service = float(np.mean(services))
    asked = conditions(starts, services, arrivals, slowing)
    gaps = None if arrivals is None else arrivals.gaps
    try:
        by_formula = queueing.expected_waits(rate, services, places, gaps)
        by_simulation = simulation.predicted_waits(rate, services, places, gaps, slowing=slowing)
    except queueing.Saturated as saturated:
        use = Estimate(saturated.utilization, saturated.utilization, saturated.utilization)
        return Forecast(rate, observed, places, service, dispatch, use, asked, None, None, str(saturated))
    later = math.inf if _beyond(slowing) else 0.0
    answers = [_wait("formula", by_formula, dispatch, later), _wait("simulation", by_simulation, dispatch, later)]
    if not all(condition.holds for condition in asked):
        answers.reverse()
    chosen, other = answers
    apart = chosen.p95.high < other.p95.low or other.p95.high < chosen.p95.low
    return Forecast(
        rate, observed, places, service, dispatch, by_simulation.utilization, asked, chosen, other if apart else None,
        None,
    )  # fmt: skip


def _impossible(places: int, services: Floats) -> str | None:
    """Return why nothing can be predicted of such services with so many places; None where it can."""
    if len(services) < LEAST_JOBS or not np.any(services > 0):
        jobs = f"{count(len(services), 'job')} with {count(places, 'concurrency slot')}"
        return f"{jobs} {agree(len(services), 'is', 'are')} too few (at least {LEAST_JOBS}) to know the service time"
    if places > MOST_PLACES:
        return f"{places:,} concurrency slots are more than the {MOST_PLACES:,} that can be simulated"
    return None


def _beyond(slowing: simulation.Slowing | None) -> bool:
    """Tell whether slots slow each other and more are asked for than were ever busy: then by how much is not known."""
    return slowing is not None and len(slowing.speeds) > slowing.seen


def _wait(method: str, found: queueing.Waits, by: float, later: float) -> Wait:
    values = (found.mean, found.p50, found.p95)
    return Wait(method, *(Estimate(v.value + by, v.low + by, v.high + by + later) for v in values))


# Shares of what the places can do, at which a curve has points: closer together where waits grow fast. Where slots slow
# each other a point costs fifteen times as much.
_SHARES = (*np.linspace(0.05, 0.75, 15).tolist(), *(1 - np.geomspace(0.25, 0.03, 26)[1:]).tolist())
_SHARES_CROWDED = (*np.linspace(0.1, 0.7, 5).tolist(), *(1 - np.geomspace(0.3, 0.03, 8)[1:]).tolist())


@dataclass(frozen=True, slots=True)
class Curve:
    """The p95 of the wait (s) over the arrival rate (jobs/s, rising), up to 97 % of what the places can do.

    ``service`` as in ``Forecast``, and so is ``method``, of its waits; without points ``problem`` says why.
    """

    places: int
    service: float | None
    method: str | None
    rates: tuple[float, ...]
    p95: tuple[Estimate, ...]
    problem: str | None


def curve(
    places: int, starts: Floats, services: Floats, arrivals: Arrivals | None, dispatch: float,
    slowing: simulation.Slowing | None = None,
) -> Curve:  # fmt: skip
    """Predict the waits at many rates, by the method that ``forecast`` takes at each; arguments as there."""
    if (problem := _impossible(places, services)) is not None:
        return Curve(places, None, None, (), (), problem)
    service = float(np.mean(services))
    shares = _SHARES if slowing is None else _SHARES_CROWDED
    rates = tuple(share * places / service for share in shares)
    gaps = None if arrivals is None else arrivals.gaps
    if all(condition.holds for condition in conditions(starts, services, arrivals, slowing)):
        method, waits = "formula", [found.p95 for found in queueing.waits_at(rates, services, places, gaps)]
    else:
        method, waits = "simulation", simulation.p95_at(rates, services, places, gaps, slowing)
    later = math.inf if _beyond(slowing) else 0.0
    p95 = tuple(Estimate(v.value + dispatch, v.low + dispatch, v.high + dispatch + later) for v in waits)
    return Curve(places, service, method, rates, p95, None)


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest arrival rate at which ``quantile`` of the jobs wait ``slo`` s or less; None where none keeps it."""

    slo: float
    quantile: float
    places: int
    rate: Estimate | None
    utilization: float | None


def highest(
    slo: float, quantile: float, places: int, services: Floats, arrivals: Arrivals | None, dispatch: float,
    slowing: simulation.Slowing | None = None,
) -> Highest | None:  # fmt: skip
    """Search it by simulation; None where there are too few jobs to tell."""
    if len(services) < LEAST_JOBS or not np.any(services > 0) or places > MOST_PLACES:
        return None
    room = slo - dispatch
    gaps = None if arrivals is None else arrivals.gaps
    rate = simulation.highest_rate(services, places, room, quantile, gaps, slowing=slowing) if room >= 0 else None
    if rate is not None and _beyond(slowing):
        rate = Estimate(rate.value, 0.0, rate.high)
    use = None if rate is None else rate.value * float(np.mean(services)) / places
    return Highest(slo, quantile, places, rate, use)
