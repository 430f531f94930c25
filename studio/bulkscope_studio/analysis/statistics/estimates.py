"""Numbers with their 95 % intervals, from samples; every interval is two-sided, an infinite end says "not known"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SURE = 0.975  # of both sides together 95 %
_EXACT_DEGREES = 60  # above, the expansion of Student's quantile is within 1e-5 of it
RESAMPLES = 2000
_ALONE = 1e-9  # of a leverage of 1: below that a row is fitted exactly, whatever its error
SEED = 20250131


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, all in one unit."""

    value: float
    low: float
    high: float


def normal(probability: float = _SURE) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)


@cache
def student(degrees: int, probability: float = _SURE) -> float:
    """Quantile of Student's t for ``probability`` above 0.5 (Abramowitz and Stegun 26.7.3, 26.7.4 and 26.7.5)."""
    if degrees < 1:
        return math.inf
    if degrees > _EXACT_DEGREES:
        z = normal(probability)
        g1 = (z**3 + z) / 4
        g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3
    inside, low, high = 2 * probability - 1, 0.0, 1.0
    while _student_inside(high, degrees) < inside:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_inside(middle, degrees) < inside else (low, middle)
    return (low + high) / 2


def _student_inside(t: float, degrees: int) -> float:
    """Probability that Student's t lies within +-t."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    if degrees % 2:
        term, total = cosine, cosine if degrees > 1 else 0.0
        for k in range(2, degrees - 1, 2):
            term *= cosine**2 * k / (k + 1)
            total += term
        return 2 / math.pi * (angle + sine * total)
    term = total = 1.0
    for k in range(1, degrees - 2, 2):
        term *= cosine**2 * k / (k + 1)
        total += term
    return sine * total


def mean(values: Floats) -> Estimate | None:
    """Mean of independent ``values`` (n,) with Student's interval; absent ones (NaN) are left out.

    None without a value; an infinite interval for a single one, which says nothing on its spread.
    """
    found = values[np.isfinite(values)]
    if len(found) == 0:
        return None
    middle = float(np.mean(found))
    if len(found) == 1:
        return Estimate(middle, -math.inf, math.inf)
    half = student(len(found) - 1) * float(np.std(found, ddof=1)) / math.sqrt(len(found))
    return Estimate(middle, middle - half, middle + half)


def proportion(hits: int, of: int) -> Estimate | None:
    """Share of ``hits`` among ``of``, 0..1, with Wilson's score interval (Wilson 1927), which holds for few hits too.

    None of none.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} hits of {of} are no share: hits must be from 0 to the number of tries")
    if of == 0:
        return None
    return Estimate(hits / of, *wilson(hits, of, normal()))


def wilson(hits: int, of: int, z: float) -> tuple[float, float]:
    """Ends of the interval of a share, ``z`` standard deviations to each side (Wilson 1927)."""
    p = hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    # At no hits and at all hits the ends are exactly 0 and 1; rounding must not put them past the share.
    return 0.0 if hits == 0 else middle - half, 1.0 if hits == of else middle + half


def drift(levels: Floats, step: float) -> Estimate | None:
    """Slope of a level per unit of ``step``, from ``levels`` (n,) seen ``step`` apart; None below 3 levels.

    It is the mean of the increments. A backlog that grows is a random walk: its levels depend on each other, and a
    least-squares line through them claims far too narrow an interval (it leaves 0 out in most walks without drift).
    Its increments do not, so they carry Student's interval. A backlog that stays about a level has increments that
    undo each other: the interval is then too wide, never too narrow. ``step`` must be long against a burst.
    """
    if not step > 0:
        raise ValueError(f"levels must be a step above 0 apart, not {step}")
    return None if len(levels) < 3 else mean(np.diff(levels) / step)


def slope(x: Floats, y: Floats) -> Estimate | None:
    """Least-squares slope of ``y`` over ``x``, both (n,), with White's interval, HC3 (MacKinnon and White 1985).

    The residuals of service times grow with their size, which an ordinary interval takes for certainty. Rows with an
    absent value (NaN) are left out; None below three, or where x does not vary.
    """
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if len(x) < 3 or float(np.ptp(x)) == 0:
        return None
    centred = x - np.mean(x)  # times since 1970 would leave no digit for their differences
    return coefficients(np.column_stack([np.ones_like(x), centred]), y)[1]


def coefficients(design: Floats, y: Floats) -> list[Estimate]:
    """Least-squares coefficients of ``y`` (rows,) on ``design`` (rows, columns) with HC3 intervals.

    Rows with an absent value (NaN) are left out. An interval is infinite where the data do not tell: the columns
    depend on each other, no degree of freedom is left, or one row alone decides the coefficient, so that no residual
    shows its error.
    """
    there = np.isfinite(y) & np.isfinite(design).all(axis=1)
    design, y = design[there], y[there]
    rows, columns = design.shape
    size = np.linalg.norm(design, axis=0)
    size[size == 0] = 1
    solve = np.linalg.pinv(design / size)
    found = solve @ y / size
    if rows <= columns or int(np.linalg.matrix_rank(design / size)) < columns:
        return [Estimate(float(value), -math.inf, math.inf) for value in found]
    leverage = np.sum(design / size * solve.T, axis=1)
    alone = leverage > 1 - _ALONE
    weights = ((y - design @ found) / np.where(alone, 1, 1 - leverage)) ** 2
    half = student(rows - columns) * np.sqrt(solve**2 @ weights) / size
    half[(np.abs(solve[:, alone]) > _ALONE * np.max(np.abs(solve), axis=1)[:, None]).any(axis=1)] = math.inf
    return [Estimate(float(v), float(v - h), float(v + h)) for v, h in zip(found, half, strict=True)]


def percentiles(value: float, draws: Floats) -> Estimate:
    """``value`` with the 2.5 % and 97.5 % percentiles of ``draws`` (n,), some of which may be infinite.

    The ends are draws (the outer neighbours, no mean with infinity), and the interval always holds the value.
    """
    low, high = np.quantile(draws, 0.025, method="lower"), np.quantile(draws, 0.975, method="higher")
    return Estimate(value, min(value, float(low)), max(value, float(high)))
