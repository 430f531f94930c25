"""How much two sides differ, with an interval at any level: ratios by the bootstrap, shares by Newcombe's score method.

A ratio is of B to A. Its interval is the standard bootstrap one on the logarithm (Efron and Tibshirani 1993, ch. 13):
the spread of resampled logarithms, times sqrt(n / (n - k)) for the k numbers that were fitted, times Student's
quantile. Percentiles of the resamples would need hundreds of thousands of them at the levels of a comparison of many
numbers, and are too narrow for ten jobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Floats

RESAMPLES = 2000
SEED = 20251126
# Rows above this many are put together in so many random groups, which are resampled: the same spread in bounded time.
GROUPS = 2000
POWER = 0.8
_SINGULAR = 1e-9
# Central 68.27 % of a normal distribution lie within one standard deviation; outlying resamples do not move them.
_ONE_SIGMA = (0.158655, 0.841345)
# At most so many resamples may have no logarithm before the interval is given up.
_LEAST_FINITE = 0.9


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect and its interval. ``smallest``: the effect that these jobs would show in 4 of 5 cases.

    For a ratio ``value`` is B over A and ``smallest`` a share (0.1: 10 % more); for a difference of shares all are
    shares, B minus A.
    """

    value: float
    low: float
    high: float
    smallest: float

    def inverse(self) -> Effect:
        """Return the effect on a rate, of one on a time."""
        return Effect(1 / self.value, 1 / self.high, 1 / self.low, self.smallest)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is resampled: rows of numbers of each side (n, f), whose sums are all that the statistic needs.

    ``paired``: row i of both sides is the same prompt, and they are drawn together. ``fitted``: parameters a side.
    """

    a: Floats
    b: Floats
    paired: bool
    fitted: int


def ratio(rows: Rows, logarithm: Callable[[Floats], Floats], level: float) -> Effect | None:
    """Return exp(logarithm of B - logarithm of A) of the sums of the rows, with its interval at ``level`` (0..1).

    ``logarithm`` takes sums of a side (r, f) and returns (r,). Pairs are drawn together; else each side is drawn by
    itself, the variances add, and the degrees of freedom are Welch's. None where the sums have no logarithm, or more
    than a tenth of the resamples have none.
    """
    whole = [float(logarithm(side.sum(axis=0)[None, :])[0]) for side in (rows.a, rows.b)]
    free = [len(side) - rows.fitted for side in (rows.a, rows.b)]
    if not all(map(math.isfinite, whole)) or min(free) < 1:
        return None
    value = whole[1] - whole[0]
    if rows.paired:
        both, columns = _resampled(np.concatenate([rows.a, rows.b], axis=1)), rows.a.shape[1]
        drawn = [logarithm(both[:, columns:]) - logarithm(both[:, :columns])]
        free = free[:1]
    else:
        drawn = [logarithm(_resampled(side)) for side in (rows.a, rows.b)]
    variances = []
    for draws, left in zip(drawn, free, strict=True):
        finite = draws[np.isfinite(draws)]
        if len(finite) < _LEAST_FINITE * len(draws):
            return None
        low, high = np.quantile(finite, _ONE_SIGMA)
        variances.append((float(high - low) / 2) ** 2 * (left + rows.fitted) / left)
    spread = math.sqrt(sum(variances))
    below = sum(variance**2 / left for variance, left in zip(variances, free, strict=True))
    degrees = int(sum(variances) ** 2 / below) if below > 0 else min(free)
    reach = estimates.student(degrees, (1 + level) / 2)
    # Beyond e^50 in either direction there is nothing to say but that nothing is known.
    half = min(reach * spread, 50.0)
    smallest = math.expm1(min((reach + estimates.student(degrees, POWER)) * spread, 50.0))
    return Effect(math.exp(value), math.exp(value - half), math.exp(value + half), smallest)


def _resampled(rows: Floats) -> Floats:
    """Return sums of rows drawn with replacement (RESAMPLES, f)."""
    random = np.random.default_rng(SEED)
    count = len(rows)
    if count > GROUPS:
        group = random.permutation(count) % GROUPS
        rows = np.column_stack([np.bincount(group, column, GROUPS) for column in rows.T])
        count = GROUPS
    drawn = random.integers(0, count, (RESAMPLES, count))
    drawn += np.arange(RESAMPLES)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)
    found: Floats = times @ rows
    return found


def of_logarithms(a: Floats, b: Floats, paired: bool, level: float) -> Effect | None:
    """Ratio of the geometric means of two columns of positive numbers: of pairs, that of the typical pair."""

    def logarithm(sums: Floats) -> Floats:
        found: Floats = sums[:, 0] / sums[:, 1]
        return found

    log_a, log_b = np.log(a), np.log(b)
    rows = Rows(np.column_stack([log_a, np.ones_like(a)]), np.column_stack([log_b, np.ones_like(b)]), paired, 1)
    return ratio(rows, logarithm, level)


@dataclass(frozen=True, slots=True)
class AtEqualTokens:
    """A cost that is linear in tokens, on both sides, at one and the same job.

    ``at`` is that job, one number a column of the design; ``a`` and ``b`` what it costs on each side.
    """

    effect: Effect | None
    at: tuple[float, ...]
    a: float
    b: float


def at_equal_tokens(
    designs: tuple[Floats, Floats], costs: tuple[Floats, Floats], paired: bool, level: float
) -> AtEqualTokens | None:
    """Fit cost = design @ weights on each side and compare them at the mean row of both.

    The fit weighs by 1/cost^2 of a first fit, since the error of a job's time grows with its size. None where a side
    does not determine the cost of the mean row (its own rows do not span it), or makes it 0 or less.
    """
    at = (designs[0].mean(axis=0) + designs[1].mean(axis=0)) / 2
    if not np.all(at > 0):
        return None
    scaled = [design / at for design in designs]  # so that the job to compare at is (1, ..., 1)
    features = []
    for design, cost in zip(scaled, costs, strict=True):
        if not _spans_ones(design):
            return None
        weights = _weights(design, cost)
        features.append(_normal_rows(design, cost, weights))
    columns = len(at)

    def logarithm(sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.log(_solve(sums, columns).sum(axis=1))
        return found

    found = [_solve(feature.sum(axis=0)[None, :], columns)[0] for feature in features]
    if min(float(each.sum()) for each in found) <= 0:
        return None
    effect = ratio(Rows(features[0], features[1], paired, columns), logarithm, level)
    return AtEqualTokens(effect, tuple(map(float, at)), float(found[0].sum()), float(found[1].sum()))


def _spans_ones(design: Floats) -> bool:
    """Whether the rows determine design @ w at the row of ones: it lies in their span."""
    ones = np.ones(design.shape[1])
    gram = design.T @ design / len(design)
    projected = np.linalg.pinv(gram, rcond=_SINGULAR, hermitian=True) @ gram @ ones
    return bool(np.allclose(projected, ones, atol=1e-4))


def _weights(design: Floats, cost: Floats) -> Floats:
    """Return 1/fit^2, from two rounds of reweighting; a fit near 0 must not outweigh all others."""
    floor = 0.05 * float(np.mean(cost))
    weights = np.ones_like(cost)
    for _ in range(3):
        sums = _normal_rows(design, cost, weights).sum(axis=0)[None, :]
        fit = design @ _solve(sums, design.shape[1])[0]
        weights = 1 / np.maximum(fit, max(floor, 1e-12)) ** 2
    return weights / float(np.mean(weights))


def _normal_rows(design: Floats, cost: Floats, weights: Floats) -> Floats:
    """Return each row's part of the normal equations: k * k products of the columns, then k with the cost."""
    products = design[:, :, None] * design[:, None, :] * weights[:, None, None]
    return np.concatenate([products.reshape(len(design), -1), design * (weights * cost)[:, None]], axis=1)


def _solve(sums: Floats, columns: int) -> Floats:
    """Solve sums of normal equations (r, k * k + k) for the weights (r, k)."""
    grams = sums[:, : columns * columns].reshape(-1, columns, columns)
    inverse = np.linalg.pinv(grams, rcond=_SINGULAR, hermitian=True)
    found: Floats = np.einsum("rij,rj->ri", inverse, sums[:, columns * columns :])
    return found


def difference_of_shares(a: NDArray[np.bool_], b: NDArray[np.bool_], paired: bool, level: float) -> Effect | None:
    """Share of true in ``b`` minus that in ``a``, with Newcombe's score interval; None of none.

    Two samples: Newcombe 1998, Statistics in Medicine 17:873, method 10. Pairs: the same, 17:2635, method 10, which
    takes the correlation within pairs into account.
    """
    if len(a) == 0 or len(b) == 0:
        return None
    z = estimates.normal((1 + level) / 2)
    share_a, share_b = float(a.mean()), float(b.mean())
    low_a, high_a = estimates.wilson(int(a.sum()), len(a), z)
    low_b, high_b = estimates.wilson(int(b.sum()), len(b), z)
    phi = _phi(a, b) if paired else 0.0

    def reach(of_b: float, of_a: float) -> float:
        return math.sqrt(max(0.0, of_b**2 + of_a**2 - 2 * phi * of_b * of_a))

    value = share_b - share_a
    low = value - reach(share_b - low_b, high_a - share_a)
    high = value + reach(high_b - share_b, share_a - low_a)
    # Wilson's middle is never 0 or 1, where no failure seen would mean that any could have been told.
    hits, of = int(a.sum() + b.sum()), len(a) + len(b)
    pooled = (hits + z * z / 2) / (of + z * z)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / len(a) + 1 / len(b)))
    smallest = min(1.0, (z + estimates.normal(POWER)) * spread)
    return Effect(value, max(-1.0, low), min(1.0, high), smallest)


def _phi(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Correlation of two columns of pairs; where positive, with the correction for continuity of that method."""
    n = len(a)
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    below = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if below == 0:
        return 0.0
    above = both * neither - only_a * only_b
    shrunk = max(0.0, above - n / 2) if above > 0 else float(above)
    return shrunk / math.sqrt(below)


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where a side does not vary."""
    ranks = [_ranks(values) for values in (a, b)]
    if any(float(np.ptp(rank)) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Floats = (last - (counts - 1) / 2)[place]
    return found
