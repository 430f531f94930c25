"""Summaries of columns in which absent values are absent, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

QUANTILE_METHOD = "linear interpolation between order statistics (Hyndman and Fan type 7)"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Count of the values that were there and their summary, in the unit of the values."""

    count: int
    mean: float
    p50: float
    p95: float
    max: float


def present(values: pa.ChunkedArray | Iterable[float | None]) -> list[float]:
    """Return the finite values of a column, without the absent ones."""
    raw = values.to_pylist() if isinstance(values, pa.ChunkedArray | pa.Array) else values
    return [float(value) for value in raw if value is not None and math.isfinite(value)]


def distribution(values: pa.ChunkedArray | Iterable[float | None]) -> Distribution | None:
    """Summarise a column; None when it holds no value."""
    found = present(values)
    if not found:
        return None
    p50, p95 = np.quantile(found, (0.5, 0.95))
    return Distribution(len(found), float(np.mean(found)), float(p50), float(p95), max(found))


def mean(values: pa.ChunkedArray | Iterable[float | None]) -> float | None:
    """Mean of the values that are there."""
    found = present(values)
    return math.fsum(found) / len(found) if found else None


def total(values: pa.ChunkedArray | Iterable[float | None]) -> float | None:
    """Sum of the values that are there; None (not 0) when there are none."""
    found = present(values)
    return math.fsum(found) if found else None


def highest(values: pa.ChunkedArray | Iterable[float | None]) -> float | None:
    """Highest value that is there."""
    return max(present(values), default=None)


def share(values: pa.ChunkedArray) -> float | None:
    """Share of true among the booleans that are there, 0..1."""
    return mean(values.cast(pa.int8()))


def ratio(above: float | None, below: float | None) -> float | None:
    """Quotient; None when either is absent or the divisor is not positive."""
    return None if above is None or below is None or below <= 0 else above / below


def paired(above: pa.ChunkedArray, below: pa.ChunkedArray) -> float | None:
    """Sum over sum, over the rows that hold both: a missing numerator must not count in the divisor."""
    rows = [
        (a, b) for a, b in zip(above.to_pylist(), below.to_pylist(), strict=True) if a is not None and b is not None
    ]
    return ratio(total(a for a, _ in rows), total(b for _, b in rows))
