"""Which records were stored already: OTLP delivers at least once, so what is sent again must not count again."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkscope_studio.ingest import otlp_decode

Keys = npt.NDArray[np.uint64]

# A record's identity. A span has an id; a log record and a point are told apart by all they say, as DuckDB hashes it:
# two requests that differ in nothing, not even in the nanosecond, come from one that was sent twice.
_IDS = {"trace_id": 32, "span_id": 16}  # characters
_HASHED = {
    name: f"hash({', '.join(column for column, _ in columns)}, '{name}')"
    for name, columns in (("logs", otlp_decode.LOGS), ("points", otlp_decode.POINTS))
}
NAMES = ("spans", *_HASHED)
# Drawn anew by each process, so that nobody can make ids whose keys are equal.
_SALT = np.array([secrets.randbits(64) for _ in range(sum(_IDS.values()) // 8)], np.uint64)

# What one generation of keys holds, of which there are two: 2 to 4 million records (64 MB) are remembered, 5 minutes at
# 10,000 a second. Of that many the chance that any two differ and share a key of 64 bits is 1 in 2 million.
GENERATION = 2**21
# After an opening, so many of each table's newest rows: what was committed and not answered is among them.
RECALLED = 2**18


class Recent:
    """The keys of the records that were stored last."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._most = generation
        self._now, self._before = _Table(), _Table()

    def known(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Return which of ``keys`` were added before."""
        return self._now.known(keys) | self._before.known(keys)

    def add(self, keys: Keys) -> None:
        """Remember ``keys``; the oldest are forgotten."""
        for start in range(0, len(keys), self._most):
            some = keys[start : start + self._most]
            if self._now.count + len(some) > self._most:
                self._before, self._now = self._now, _Table()
            self._now.add(some)


class _Table:
    """A hash table of 64-bit keys with linear probing, at most half full; whole arrays are looked up at once."""

    def __init__(self, slots: int = 2**12) -> None:
        self._slots: Keys = np.zeros(slots, np.uint64)
        self.count = 0

    def known(self, keys: Keys) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(keys), np.bool_)
        keys = _filled(keys)
        left = np.arange(len(keys))
        at = self._home(keys)
        while len(left):
            there = self._slots[at]
            found[left[there == keys[left]]] = True
            on = (there != 0) & (there != keys[left])
            left, at = left[on], (at[on] + 1) % len(self._slots)
        return found

    def add(self, keys: Keys) -> None:
        keys = np.unique(_filled(keys))
        if 2 * (self.count + len(keys)) > len(self._slots):
            old = self._slots[self._slots != 0]
            self._slots = np.zeros(_power(4 * (self.count + len(keys))), np.uint64)
            self._put(old)
        self.count += self._put(keys)

    def _put(self, keys: Keys) -> int:
        """Put distinct keys; return how many were not there."""
        new = 0
        at = self._home(keys)
        while len(keys):
            there = self._slots[at]
            present = there == keys
            free = there == 0
            self._slots[at[free]] = keys[free]  # of several for one slot the last stays
            placed = free & (self._slots[at] == keys)
            new += int(placed.sum())
            on = ~(present | placed)
            keys, at = keys[on], (at[on] + 1) % len(self._slots)
        return new

    def _home(self, keys: Keys) -> npt.NDArray[np.int64]:
        return (keys & np.uint64(len(self._slots) - 1)).astype(np.int64)


def _filled(keys: Keys) -> Keys:
    return np.where(keys == 0, np.uint64(1), keys)  # 0 is a free slot


def _power(least: int) -> int:
    return 1 << (least - 1).bit_length()


def keys(connection: Any, name: str, rows: pa.Table) -> Keys:
    """Return the key of each record that is to be stored in the table ``name``."""
    if name == "spans":  # in numpy: for DuckDB to return them from the insert costs 0.8 us a span
        return _of_ids(rows)
    numbered = rows.append_column("row", pa.array(np.arange(len(rows))))  # DuckDB keeps no order
    found = connection.from_arrow(numbered).project(f"row, {_HASHED[name]} AS key").fetchnumpy()
    made: Keys = np.empty(len(rows), np.uint64)
    made[found["row"]] = found["key"]
    return made


def _of_ids(rows: pa.Table) -> Keys:
    try:
        ids = [rows[name].combine_chunks().cast(pa.binary(width)) for name, width in _IDS.items()]
    except pa.ArrowInvalid:  # of other lengths: they come from no decoder
        pairs = zip(*(rows[name].to_pylist() for name in _IDS), strict=True)
        return np.array([hash(pair) for pair in pairs], np.int64).view(np.uint64)
    words = [
        np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, column.type.byte_width // 8)[: len(rows)]
        for column in ids
    ]
    # As MurmurHash3 ends, for each eight characters, and once more for their sum.
    return _mixed(_mixed(np.concatenate(words, axis=1) ^ _SALT).sum(axis=1, dtype=np.uint64))


def _mixed(words: Keys) -> Keys:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        words = (words ^ (words >> np.uint64(33))) * np.uint64(factor)
    return words ^ (words >> np.uint64(33))


def recalled(connection: Any) -> Keys:
    """Return the keys of the newest rows of a store."""
    newest = "FROM {0} WHERE rowid > (SELECT max(rowid) FROM {0}) - $most"
    found = [
        connection.execute(f"SELECT {identity} AS key {newest.format(name)}", {"most": RECALLED}).fetchnumpy()["key"]
        for name, identity in _HASHED.items()
    ]
    made_here = " AND ".join(f"length({name}) = {width}" for name, width in _IDS.items())
    spans = f"SELECT {', '.join(_IDS)} {newest.format('spans')} AND {made_here}"
    found.append(_of_ids(connection.sql(spans, params={"most": RECALLED}).to_arrow_table()))
    return np.concatenate(found).astype(np.uint64)
