"""Numbers with their 95 % intervals, from samples; every interval is two-sided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; above that the expansion below is within 1e-4.
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
    2.0452, 2.0423,
)  # fmt: skip
RESAMPLES = 2000
SEED = 20250131


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, all in one unit."""

    value: float
    low: float
    high: float


def student(degrees: int) -> float:
    """97.5 % quantile of Student's t (Cornish-Fisher expansion above 30 degrees of freedom)."""
    if degrees < 1:
        return math.inf
    if degrees <= len(_T):
        return _T[degrees - 1]
    return _Z + (_Z**3 + _Z) / (4 * degrees) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * degrees**2)


def mean(values: Floats) -> Estimate | None:
    """Mean of independent values with Student's interval; None for none, an infinite interval for one."""
    if len(values) == 0:
        return None
    middle = float(np.mean(values))
    if len(values) == 1:
        return Estimate(middle, -math.inf, math.inf)
    half = student(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(middle, middle - half, middle + half)


def proportion(hits: int, of: int) -> Estimate | None:
    """Share of hits with Wilson's score interval (Wilson 1927), which holds for few hits too; None of none."""
    if of < 1:
        return None
    p, z2 = hits / of, _Z**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * math.sqrt(p * (1 - p) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half))


def drift(levels: Floats, step: float) -> Estimate | None:
    """Slope per unit of ``step`` of a level seen at equal steps, as the mean of its increments; None below 3 levels.

    A backlog is a random walk: its levels depend on each other and a least-squares line through them claims far too
    narrow an interval. Its increments do not, so they carry Student's interval.
    """
    return None if len(levels) < 3 else mean(np.diff(levels) / step)


def slope(x: Floats, y: Floats) -> Estimate | None:
    """Least-squares slope of y over x with White's interval, HC3 (MacKinnon and White 1985).

    The residuals of service times grow with their size, which an ordinary interval takes for certainty. None below
    three points, or where x does not vary.
    """
    if len(x) < 3 or float(np.ptp(x)) == 0:
        return None
    return coefficients(np.column_stack([np.ones_like(x), x]), y)[1]


def coefficients(design: Floats, y: Floats) -> list[Estimate]:
    """Least-squares coefficients of ``design`` (rows x columns) with HC3 intervals; the interval is infinite where
    the design does not determine a coefficient or no degree of freedom is left."""
    rows, columns = design.shape
    inverse = np.linalg.pinv(design.T @ design)
    found = inverse @ design.T @ y
    determined = rows > columns and int(np.linalg.matrix_rank(design)) == columns
    if not determined:
        return [Estimate(float(value), -math.inf, math.inf) for value in found]
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    weights = ((y - design @ found) / np.maximum(1 - leverage, 1e-9)) ** 2
    spread = np.sqrt(np.maximum(np.diag(inverse @ (design.T * weights) @ design @ inverse), 0))
    half = student(rows - columns) * spread
    return [Estimate(float(v), float(v - h), float(v + h)) for v, h in zip(found, half, strict=True)]


def bootstrap(statistic: Callable[..., Any], *columns: Floats, resamples: int = RESAMPLES) -> Estimate | None:
    """``statistic(*columns)`` with the percentile interval of resampled rows (Efron 1979); None without rows.

    The columns are resampled together, row by row, with a fixed seed. Resamples for which the statistic is not
    finite are left out; when they are the majority, the interval is infinite.
    """
    rows = len(columns[0]) if columns else 0
    if rows == 0:
        return None
    value = float(statistic(*columns))
    random = np.random.default_rng(SEED)
    drawn = [
        float(statistic(*(column[index] for column in columns)))
        for index in (random.integers(0, rows, rows) for _ in range(resamples))
    ]
    finite = [draw for draw in drawn if math.isfinite(draw)]
    if rows < 2 or len(finite) * 2 <= len(drawn):
        return Estimate(value, -math.inf, math.inf)
    low, high = np.quantile(finite, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
