"""A time in bins of equal length, and what was recorded in each: the axis that all series of a page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import credible

Floats = NDArray[np.float64]
MOST_BINS = 2000
# Moments of records: within, their differences are numbers of 64 bits.
_FIRST_NS, _LAST_NS = 0, 2**62
# A sample stands for the time since the one before it, unless that is longer ago than twice what is usual.
_USUAL = 2
# Where bins are so wide that each has a sample, one without is a gap.
_GAP_S = 60.0


@dataclass(frozen=True, slots=True)
class Axis:
    """``bins`` of equal length from ``first_ns`` to ``last_ns``."""

    first_ns: int
    last_ns: int
    bins: int

    @classmethod
    def of(cls, first_ns: int, last_ns: int, bins: int) -> Axis:
        """Return the axis; raises ``InvalidQuery`` for one that has no length, or too many bins."""
        if not 1 <= bins <= MOST_BINS:
            raise InvalidQuery(f"bins are from 1 to {MOST_BINS}")
        first_ns, last_ns = (min(max(moment, _FIRST_NS), _LAST_NS) for moment in (first_ns, last_ns))
        if first_ns >= last_ns:
            raise InvalidQuery("from_ns must be before to_ns, both in ns since the Unix epoch")
        return cls(first_ns, last_ns, bins)

    @property
    def bin_s(self) -> float:
        """Return the length of a bin, s."""
        return (self.last_ns - self.first_ns) / 1e9 / self.bins

    @property
    def named(self) -> dict[str, int]:
        """Return the parameters of queries that put records into bins: $from_ns, $to_ns, $bins."""
        return {"from_ns": self.first_ns, "to_ns": self.last_ns, "bins": self.bins}

    @property
    def said(self) -> dict[str, Any]:
        """Say it as an answer does."""
        return {"from_ns": self.first_ns, "to_ns": self.last_ns, "bins": self.bins, "bin_s": self.bin_s}

    def counts(self, rows: pa.Table, name: str) -> Floats:
        """Return a column of counts by bin (bins,); 0 where there is no row. Rows beyond the axis are left out."""
        found = np.zeros(self.bins)
        at, values = _column(rows, "bin"), np.nan_to_num(_column(rows, name))
        inside = (at >= 0) & (at < self.bins)
        np.add.at(found, at[inside].astype(int), values[inside])
        return found

    def values(self, rows: pa.Table, name: str) -> Floats:
        """Return a column of values by bin (bins,), of which there is one a bin; NaN where there is none."""
        found = np.full(self.bins, np.nan)
        at, values = _column(rows, "bin"), _column(rows, name)
        inside = (at >= 0) & (at < self.bins)
        found[at[inside].astype(int)] = values[inside]
        return found

    def sampled(self, rows: pa.Table, name: str) -> Floats:
        """Return a sampled value by bin (bins,): a bin without a sample has that of the next one.

        A sample stands for the time since the one before it; where one was missed, or none was taken, is NaN. Rows
        after the axis tell of its end.
        """
        at, values = _column(rows, "bin"), _column(rows, name)
        known = np.isfinite(values) & (at >= 0)
        order = np.argsort(at[known], kind="stable")
        at, values = at[known][order].astype(int), values[known][order]
        found = np.full(self.bins, np.nan)
        if not len(at):
            return found
        apart = np.diff(at)
        usual = float(np.median(apart)) if len(apart) else 1.0
        gaps = np.concatenate([[usual], apart])
        limit = max(_GAP_S, 1.5 * usual * self.bin_s)
        held = np.where((gaps <= max(_USUAL, _USUAL * usual)) & (gaps * self.bin_s <= limit), gaps, 1)
        held[0] = max(1, round(usual))
        for end, length, value in zip(at.tolist(), held.astype(int).tolist(), values.tolist(), strict=True):
            found[max(0, end - length + 1) : end + 1] = value
        return found

    def rates(self, rows: pa.Table, name: str) -> Floats:
        """Return the mean of a rate by bin (bins,), of its changes: ``NAME_rate`` (1/s) and ``NAME_moment`` (rate times
        the seconds since the begin of the axis), summed in ``bin``; -1 is before the axis."""
        rate, moment = np.zeros(self.bins + 2), np.zeros(self.bins + 2)
        at = np.clip(_column(rows, "bin"), -1, self.bins).astype(int) + 1
        np.add.at(rate, at, np.nan_to_num(_column(rows, f"{name}_rate")))
        np.add.at(moment, at, np.nan_to_num(_column(rows, f"{name}_moment")))
        edges = np.arange(self.bins + 1) * self.bin_s
        so_far = edges * np.cumsum(rate)[:-1] - np.cumsum(moment)[:-1]
        return np.maximum(np.diff(so_far) / self.bin_s, 0.0)


def _column(rows: pa.Table, name: str) -> Floats:
    return np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def plain(values: Floats, digits: int = 4) -> list[float | None]:
    """Return values as an answer has them, rounded; NaN is None."""
    return [None if value != value else value for value in np.round(values, digits).tolist()]


def sizes(values: Floats) -> list[int | None]:
    """Return bytes as an answer has them, as integers; NaN is None, as is what nothing can have measured."""
    low, high = credible.BYTES
    return [round(value) if low <= value <= high else None for value in values.tolist()]
