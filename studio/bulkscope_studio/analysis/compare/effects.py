"""How much two sides differ, with an interval at any level: ratios by the bootstrap, shares by Newcombe's score method.

A ratio is of B to A. Its interval is the standard bootstrap one on the logarithm (Efron and Tibshirani 1993, ch. 13):
the spread of resampled logarithms, times sqrt(n / (n - k)) for the k numbers that were fitted, times Student's
quantile. Percentiles of the resamples would need hundreds of thousands of them at the levels of a comparison of many
numbers, and are too narrow for ten jobs.

Jobs of one run are not independent where the machine drifts, and runs differ by more than their jobs do. So the
variance is raised by how much jobs that began one after another are alike (``_factor``), and where a side has several
bulks, an interval by the jackknife over bulks is taken when it is the wider one.
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
_LEAST_FIT = 0.05  # as of the mean cost in ``_weights``
# Central 68.27 % of a normal distribution lie within one standard deviation; outlying resamples do not move them.
_ONE_SIGMA = (0.158655, 0.841345)
# At most so many resamples may have no logarithm before the interval is given up.
_LEAST_FINITE = 0.9
# Jobs that began one after another are put together in at most so many groups, of which the likeness is taken.
ORDERED = 200
# r of n independent numbers is -1/n on the mean, and too small by 3 r / n (Kendall 1954, Biometrika 41:403).
_MOST_ALIKE = 0.9
# Peaks of processes of one program differ by about 1 %: as much as four more processes would tell.
PROCESSES_APART = 0.01
_PROCESSES_KNOWN = 4


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

    def allowing(self, by: float) -> Effect:
        """Return the ratio with an interval that is wider by the factor e^``by`` each way."""
        wider = math.exp(by)
        return Effect(self.value, self.low / wider, self.high * wider, (1 + self.smallest) * wider - 1)


@dataclass(frozen=True, slots=True)
class Drawn:
    """How the rows of a side came about: when each began (n,), in any unit, and the bulk of each (n,), as a number."""

    began: Floats
    bulk: Floats


@dataclass(frozen=True, slots=True)
class Rows:
    """What is resampled: rows of numbers of each side (n, f), whose sums are all that the statistic needs.

    ``paired``: row i of both sides is the same prompt, and they are drawn together. ``fitted``: parameters a side.
    ``drawn``: of both sides; without it the rows are taken for independent, and for those of one run a side.
    """

    a: Floats
    b: Floats
    paired: bool
    fitted: int
    drawn: tuple[Drawn, Drawn] | None = None


Logarithm = Callable[[Floats], Floats]


def ratio(rows: Rows, logarithm: Logarithm, level: float) -> Effect | None:
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
    alike = _alike(rows, logarithm)
    variances = [variance * factor for variance, factor in zip(variances, alike, strict=True)]
    free = [max(1, int(left / factor)) for left, factor in zip(free, alike, strict=True)]
    spread = math.sqrt(sum(variances))
    below = sum(variance**2 / left for variance, left in zip(variances, free, strict=True))
    degrees = int(sum(variances) ** 2 / below) if below > 0 else min(free)
    of_jobs = _reach(spread, degrees, level)
    of_runs = _between_runs(rows, logarithm)
    half, detectable = max(of_jobs, _reach(*of_runs, level)) if of_runs is not None else of_jobs
    return Effect(math.exp(value), math.exp(value - half), math.exp(value + half), math.expm1(detectable))


def _reach(spread: float, degrees: int, level: float) -> tuple[float, float]:
    """Return half the interval of a logarithm, and what would be detected in 4 of 5 cases."""
    reach = estimates.student(degrees, (1 + level) / 2)
    # Beyond e^50 in either direction there is nothing to say but that nothing is known.
    return min(reach * spread, 50.0), min((reach + estimates.student(degrees, POWER)) * spread, 50.0)


def _alike(rows: Rows, logarithm: Logarithm) -> list[float]:
    """Return by what factor the variance is more than of independent jobs: of the pairs, or of each side."""
    if rows.drawn is None:
        return [1.0] if rows.paired else [1.0, 1.0]
    if rows.paired:
        columns = rows.a.shape[1]
        both = np.concatenate([rows.a, rows.b], axis=1)
        began = _ranks(rows.drawn[0].began) + _ranks(rows.drawn[1].began)  # whichever side is called A
        return [_factor(both, began, lambda s: logarithm(s[:, columns:]) - logarithm(s[:, :columns]))]
    return [_factor(side, drawn.began, logarithm) for side, drawn in zip((rows.a, rows.b), rows.drawn, strict=True)]


def _factor(rows: Floats, began: Floats, logarithm: Logarithm) -> float:
    """Return by what factor the variance of the logarithm is more than of independent jobs; at least 1.

    The larger of that of a first-order autoregression, (1 + r) / (1 - r), and of the correlations over a quarter of the
    jobs (Bartlett's weights). Of 40 independent jobs the interval is 1.04 times as wide on the median. A speed that
    wanders over ten jobs and more cannot be told from a difference by 40: 15 % of such pairs still have a winner.
    """
    count = min(len(rows), ORDERED)
    place = np.empty(len(rows), np.int64)
    place[np.argsort(began, kind="stable")] = np.arange(len(rows)) * count // len(rows)
    sums = np.column_stack([np.bincount(place, column, count) for column in rows.T])
    without = logarithm(sums.sum(axis=0)[None, :] - sums)
    if count < 4 or not np.all(np.isfinite(without)):
        return 1.0
    apart = without - without.mean()
    of_all = float(apart @ apart)
    if of_all == 0:
        return 1.0
    found = float(apart[:-1] @ apart[1:]) / of_all
    r = min(_MOST_ALIKE, max(0.0, (found + 1 / count) / max(0.1, 1 - 3 / count)))
    most = count // 4
    together = 1.0
    for lag in range(1, most + 1):
        together += 2 * (1 - lag / (most + 1)) * (float(apart[:-lag] @ apart[lag:]) / of_all + 1 / count)
    return max((1 + r) / (1 - r), together)


def _between_runs(rows: Rows, logarithm: Logarithm) -> tuple[float, int] | None:
    """Return the standard error of the ratio's logarithm by the jackknife over bulks, and its degrees of freedom.

    A side of one bulk is taken to vary as the other's do; None of one bulk on each side. Where both sides are of the
    same bulks, these are left out on both sides at once.
    """
    if rows.drawn is None:
        return None
    codes = [np.unique(drawn.bulk) for drawn in rows.drawn]
    same = len(codes[0]) > 1 and np.array_equal(codes[0], codes[1])

    def without(side: int, code: float) -> float:
        kept = (rows.a, rows.b)[side][rows.drawn[side].bulk != code]  # type: ignore[index]
        return float(logarithm(kept.sum(axis=0)[None, :])[0]) if len(kept) else math.nan

    if same:
        deleted = [np.array([without(1, code) - without(0, code) for code in codes[0]])]
    else:
        deleted = [np.array([without(n, code) for code in side]) for n, side in enumerate(codes) if len(side) > 1]
    if not deleted or not all(np.all(np.isfinite(each)) for each in deleted):
        return None
    degrees = sum(len(each) - 1 for each in deleted)
    # The jackknife's pseudo-values spread (m - 1) times as far, and are one a run.
    of_a_run = sum((len(each) - 1) ** 2 * float(np.sum((each - each.mean()) ** 2)) for each in deleted) / degrees
    share = 1 / len(codes[0]) if same else sum(1 / len(each) for each in codes)
    return math.sqrt(of_a_run * share), degrees


def of_processes(a: Floats, b: Floats, level: float) -> Effect:
    """Ratio of the geometric means of peaks of processes, one number each.

    What a process peaks at is one number, however many jobs it has: the interval is Student's over processes, with what
    is known of processes in general beside the few that there are.
    """
    logs = np.log(a), np.log(b)
    seen = sum(float(np.sum((each - each.mean()) ** 2)) for each in logs)
    degrees = len(a) + len(b) - 2 + _PROCESSES_KNOWN
    variance = (seen + _PROCESSES_KNOWN * PROCESSES_APART**2) / degrees
    value = float(logs[1].mean() - logs[0].mean())
    half, detectable = _reach(math.sqrt(variance * (1 / len(a) + 1 / len(b))), degrees, level)
    return Effect(math.exp(value), math.exp(value - half), math.exp(value + half), math.expm1(detectable))


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


def of_logarithms(
    a: Floats, b: Floats, paired: bool, level: float, drawn: tuple[Drawn, Drawn] | None = None
) -> Effect | None:
    """Ratio of the geometric means of two columns of positive numbers: of pairs, that of the typical pair."""

    def logarithm(sums: Floats) -> Floats:
        found: Floats = sums[:, 0] / sums[:, 1]
        return found

    log_a, log_b = np.log(a), np.log(b)
    columns = [np.column_stack([each, np.ones_like(each)]) for each in (log_a, log_b)]
    rows = Rows(columns[0], columns[1], paired, 1, drawn)
    return ratio(rows, logarithm, level)


@dataclass(frozen=True, slots=True)
class AtEqualTokens:
    """A cost that is linear in tokens, on both sides, at one and the same job.

    ``at`` is that job, one number a column of the design; ``a`` and ``b`` what it costs on each side. ``costs`` are
    those of each side's jobs, each times what that job should cost over what one of its own tokens should (jobs,).
    """

    effect: Effect | None
    at: tuple[float, ...]
    a: float
    b: float
    costs: tuple[Floats, Floats]


def at_equal_tokens(
    designs: tuple[Floats, Floats],
    costs: tuple[Floats, Floats],
    paired: bool,
    level: float,
    drawn: tuple[Drawn, Drawn] | None = None,
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
    effect = ratio(Rows(features[0], features[1], paired, columns, drawn), logarithm, level)
    each = [_at_ones(design, cost, weights) for design, cost, weights in zip(scaled, costs, found, strict=True)]
    return AtEqualTokens(
        effect, tuple(map(float, at)), float(found[0].sum()), float(found[1].sum()), (each[0], each[1])
    )


def _at_ones(design: Floats, cost: Floats, weights: Floats) -> Floats:
    """Return the costs as of the row of ones; of a job that should cost next to nothing the cost says nothing."""
    fit = design @ weights
    usual = float(weights.sum())
    kept = fit > _LEAST_FIT * usual
    return np.asarray(cost[kept] * usual / fit[kept])


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
