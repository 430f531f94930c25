"""Summaries of columns in which absent values are absent, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

QUANTILE_METHOD = "linear interpolation between order statistics (Hyndman and Fan type 7)"
Floats = NDArray[np.float64]
Column: TypeAlias = pa.ChunkedArray | pa.Array | Iterable[float | None]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Count of the values that were there and their summary, in the unit of the values."""

    count: int
    mean: float
    p50: float
    p95: float
    max: float


def floats(values: Column) -> Floats:
    """Return a column (n,) as doubles; what is absent or not finite is NaN."""
    if isinstance(values, pa.ChunkedArray | pa.Array):
        # Not through a list: a page asks for 300,000 rows of ten columns.
        numbers = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        found = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        found = np.array([math.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def present(values: Column) -> Floats:
    """Return the finite values of a column, without the absent ones."""
    found = floats(values)
    return found[~np.isnan(found)]


def _sum(values: Floats) -> float:
    # With digits to spare, so that the order of the rows changes nothing: `math.fsum` takes 50 times as long.
    return float(np.sum(values, dtype=np.longdouble))


def distribution(values: Column) -> Distribution | None:
    """Summarise a column; None when it holds no value."""
    found = present(values)
    if not len(found):
        return None
    p50, p95 = np.quantile(found, (0.5, 0.95))
    return Distribution(len(found), _sum(found) / len(found), float(p50), float(p95), float(np.max(found)))


def mean(values: Column) -> float | None:
    """Mean of the values that are there."""
    found = present(values)
    return _sum(found) / len(found) if len(found) else None


def total(values: Column) -> float | None:
    """Sum of the values that are there; None (not 0) when there are none."""
    found = present(values)
    return _sum(found) if len(found) else None


def highest(values: Column) -> float | None:
    """Highest value that is there."""
    found = present(values)
    return float(np.max(found)) if len(found) else None


def share(values: pa.ChunkedArray) -> float | None:
    """Share of true among the booleans that are there, 0..1."""
    return mean(values)


def ratio(above: float | None, below: float | None) -> float | None:
    """Quotient; None when either is absent or the divisor is not positive."""
    return None if above is None or below is None or below <= 0 else above / below


def paired(above: Column, below: Column) -> float | None:
    """Sum over sum, over the rows that hold both: a missing numerator must not count in the divisor."""
    a, b = floats(above), floats(below)
    both = ~np.isnan(a) & ~np.isnan(b)
    return ratio(total(a[both]), total(b[both]))


def after_first(tokens: Floats) -> Floats:
    """Return the output tokens that decode yields: all but the first, which prefill yields; NaN below two tokens."""
    return np.where(tokens >= 2, tokens - 1, np.nan)
