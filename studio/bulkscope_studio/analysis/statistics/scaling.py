"""Throughput against the number of workers: the universal scalability law, or bounds where it cannot be fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats

FEWEST_COUNTS = 5
_PARAMETERS = 3
_RESAMPLES = 1000
_ITERATIONS = 500
_SETTLED = 1e-12  # relative fall of the squared error at which a fit has arrived
_STIFF = 1e10  # damping at which no step lowers the error any more


@dataclass(frozen=True, slots=True)
class Law:
    """Universal scalability law X(n) = lambda n / (1 + sigma (n-1) + kappa n (n-1)) (Gunther 2007), fitted.

    ``rate`` is lambda, the throughput of one worker in jobs/s; ``contention`` is sigma, the share of the work that
    goes one at a time; ``coherency`` is kappa, the price of each pair of workers. ``peak`` is the worker count of the
    highest throughput, sqrt((1 - sigma) / kappa), and 1 where even a second worker lowers it; ``peak_throughput`` is
    X there. Both are infinite, or X has the limit lambda / sigma, where kappa is 0: no peak. ``highest_count`` is
    the highest worker count measured; a peak above it is ``extrapolated``. ``r_squared`` is None where the throughput
    does not vary.
    """

    rate: Estimate
    contention: Estimate
    coherency: Estimate
    peak: Estimate
    peak_throughput: Estimate
    r_squared: float | None
    highest_count: float
    _draws: Floats = field(repr=False, compare=False)

    @property
    def extrapolated(self) -> bool:
        return self.peak.value > self.highest_count

    def throughput(self, workers: float) -> Estimate:
        """Mean throughput of ``workers`` in jobs/s with its interval; a single measurement scatters about it."""
        count = _counted([workers])
        fitted = np.array([[self.rate.value, self.contention.value, self.coherency.value]])
        return estimates.percentiles(float(_law(fitted, count)[0, 0]), _law(self._draws, count)[:, 0])


@dataclass(frozen=True, slots=True)
class Bounds:
    """What fewer than five worker counts tell: no curve, only a ceiling and what was reached.

    ``counts`` are the worker counts measured (rising), ``throughputs`` the mean throughput at each, in jobs/s;
    ``best`` is the highest of these and ``best_count`` its workers: the system does at least that.
    """

    counts: tuple[float, ...]
    throughputs: tuple[float, ...]
    best: float
    best_count: float

    def ceiling(self, workers: float) -> float | None:
        """Most that ``workers`` can do in jobs/s: n X(1), or n X(m) / m, from the best share of the counts m <= n.

        A worker is not faster for having others beside it. None below the lowest count measured, where a worker may
        be faster than any that was measured.
        """
        limit = float(_counted([workers])[0])
        shares = [x / n for n, x in zip(self.counts, self.throughputs, strict=True) if n <= limit]
        return limit * max(shares) if shares else None


def fit(workers: Floats | Sequence[float], throughput: Floats | Sequence[float]) -> Law | Bounds:
    """Fit the law to measurements (n,) of ``throughput`` in jobs/s at ``workers``; ``Bounds`` below five counts.

    Least squares over all three parameters with sigma, kappa >= 0, by the method of Levenberg (1944) and Marquardt
    (1963). The intervals come from refits to resampled residuals, each enlarged by its leverage (Davison and Hinkley
    1997, 6.2) and, as few measurements do not tell their own scatter, times sqrt(d / chi^2(d)) with the d degrees of
    freedom left: for a straight line that is Student's interval. A throughput counts jobs, so the scatter is taken to
    grow with its square root: with 5 to 10 measurements the intervals then hold the truth in 94 to 99 % where the
    scatter does so or is alike at all counts, and in 86 to 99 % where it grows with the throughput itself.
    """
    n, x = _counted(workers), np.asarray(throughput, dtype=np.float64)
    if n.shape != x.shape:
        raise ValueError(f"one throughput per worker count: got {n.shape} and {x.shape}")
    if not bool(np.all(np.isfinite(x) & (x > 0))):
        raise ValueError("throughput must be finite and above 0: leave out measurements in which nothing was done")
    counts = np.unique(n)
    if len(counts) < FEWEST_COUNTS:
        means = [float(np.mean(x[n == count])) for count in counts]
        best = int(np.argmax(means))
        return Bounds(tuple(counts.tolist()), tuple(means), means[best], float(counts[best]))
    unit = float(np.max(x))
    found = _least_squares(n, x[None] / unit) * (unit, 1, 1)
    draws = _resampled(n, x, found)
    rate, contention, coherency = (
        estimates.percentiles(float(value), draws[:, column]) for column, value in enumerate(found[0])
    )
    (peak, top), (peaks, tops) = _peaks(found), _peaks(draws)
    scatter = float(np.sum((x - np.mean(x)) ** 2))
    missed = float(np.sum((x - _law(found, n)[0]) ** 2))
    return Law(
        rate, contention, coherency,
        estimates.percentiles(float(peak[0]), peaks), estimates.percentiles(float(top[0]), tops),
        1 - missed / scatter if scatter > 0 else None, float(counts[-1]), draws,
    )  # fmt: skip


def _counted(workers: Floats | Sequence[float]) -> Floats:
    found = np.asarray(workers, dtype=np.float64)
    if found.ndim != 1 or len(found) == 0 or not bool(np.all(np.isfinite(found) & (found >= 1))):
        raise ValueError("worker counts must be 1 or more, at least one of them")
    return found


def _law(parameters: Floats, n: Floats) -> Floats:
    """X (fits, counts) for ``parameters`` (fits, 3)."""
    rate, sigma, kappa = parameters.T[:, :, None]
    return np.asarray(rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)))


def _jacobian(parameters: Floats, n: Floats) -> Floats:
    """Derivatives of X by lambda, sigma and kappa (fits, counts, 3)."""
    x, rate = _law(parameters, n), parameters[:, :1]
    slower = x * x / (rate * n)
    return np.stack([x / rate, -slower * (n - 1), -slower * n * (n - 1)], axis=2)


def _peaks(parameters: Floats) -> tuple[Floats, Floats]:
    """Worker count and throughput of the peak, each (fits,)."""
    rate, sigma, kappa = parameters.T
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.maximum(np.sqrt(np.maximum(1 - sigma, 0) / kappa), 1)  # 0 / 0 is NaN: flat from the first worker on
        n = np.where(np.isnan(n) | (sigma >= 1), 1, n)
        at = np.where(np.isinf(n), rate / sigma, rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)))
    return n, at


def _least_squares(n: Floats, x: Floats) -> Floats:
    """Parameters (fits, 3) of the least squared error to ``x`` (fits, counts), all fits at once.

    It is searched without bounds; where it then lies outside, the least error is on a face where sigma, kappa or
    both are 0, and the best of these is taken. Cutting steps off at the bounds instead stopped above the least error
    in 26 of 200 curves with 8 % noise, because the parameters depend on each other so strongly.
    """
    best, _ = _descend(n, x, [0, 1, 2])
    outside = np.any(best < 0, axis=1)
    if not bool(np.any(outside)):
        return best
    x = x[outside]
    inner, least = np.maximum(best[outside], 0), np.full(len(x), np.inf)
    for free in ([0], [0, 1], [0, 2]):
        found, error = _descend(n, x, free)
        taken = (error < least) & np.all(found >= 0, axis=1)
        inner, least = np.where(taken[:, None], found, inner), np.where(taken, error, least)
    best[outside] = inner
    return best


def _descend(n: Floats, x: Floats, free: list[int]) -> tuple[Floats, Floats]:
    """Parameters (fits, 3), of which all but the ``free`` ones are 0, and the squared error (fits,)."""
    found = _start(n, x, free)
    error = _error(found, n, x)
    damping = np.full(len(x), 1e-3)
    moving = np.ones(len(x), dtype=bool)
    for _ in range(_ITERATIONS):
        on = np.flatnonzero(moving)
        if len(on) == 0:
            break
        slopes = _jacobian(found[on], n)[:, :, free]
        across = slopes.transpose(0, 2, 1)
        push = across @ (x[on] - _law(found[on], n))[:, :, None]
        normal = across @ slopes
        scale = np.diagonal(normal, axis1=1, axis2=2) * damping[on, None]
        tried = found[on]
        tried[:, free] += np.linalg.solve(normal + scale[:, :, None] * np.eye(len(free)), push)[:, :, 0]
        new = _error(tried, n, x[on])
        better = new < error[on]
        moving[on] = np.where(better, error[on] - new > _SETTLED * error[on], damping[on] < _STIFF)
        damping[on] = np.where(better, damping[on] / 10, damping[on] * 10)
        found[on[better]], error[on[better]] = tried[better], new[better]
    return found, error


def _error(parameters: Floats, n: Floats, x: Floats) -> Floats:
    """Squared error (fits,); infinite where the law has a pole or a sign of its own between the counts."""
    _, sigma, kappa = parameters.T[:, :, None]
    sound = np.all(1 + sigma * (n - 1) + kappa * n * (n - 1) > 0, axis=1) & (parameters[:, 0] > 0)
    with np.errstate(all="ignore"):
        return np.where(sound, np.sum((x - _law(parameters, n)) ** 2, axis=1), np.inf)


def _start(n: Floats, x: Floats, free: list[int]) -> Floats:
    """n / X is linear in 1/lambda, sigma/lambda and kappa/lambda: its least squares are near those of X."""
    design = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)])[:, free]
    size = np.linalg.norm(design, axis=0)
    linear = np.zeros((len(x), _PARAMETERS))
    linear[:, free] = (np.linalg.pinv(design / size) @ (n / x).T).T / size
    usable = linear[:, :1] > 0
    rate = np.where(usable, 1 / np.where(usable, linear[:, :1], 1), np.max(x / n, axis=1, keepdims=True))
    return np.hstack([rate, np.where(usable, np.maximum(linear[:, 1:] * rate, 0), 0)])


def _resampled(n: Floats, x: Floats, found: Floats) -> Floats:
    """Parameters (resamples, 3) fitted to the law as found plus resampled residuals."""
    fitted = _law(found, n)[0]
    slopes = _jacobian(found, n)[0]
    size = np.linalg.norm(slopes, axis=0)
    leverage = np.sum(slopes / size * np.linalg.pinv(slopes / size).T, axis=1)
    noise = np.sqrt(fitted)
    residuals = (x - fitted) / noise / np.sqrt(np.maximum(1 - leverage, 1e-6))
    residuals -= np.mean(residuals)
    random = np.random.default_rng(estimates.SEED)
    free = len(x) - _PARAMETERS
    scatter = np.sqrt(free / random.chisquare(free, (_RESAMPLES, 1)))
    noise = noise * scatter * residuals[random.integers(0, len(x), (_RESAMPLES, len(x)))]
    unit = float(np.max(x))
    lowest = float(np.min(x)) / 100  # a throughput below 0 cannot be measured
    return _least_squares(n, np.maximum(fitted + noise, lowest) / unit) * (unit, 1, 1)
