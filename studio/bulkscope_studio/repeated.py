"""Which records were stored already: OTLP delivers at least once, so what is sent again must not count again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bulkscope_studio import decode

Keys = npt.NDArray[np.uint64]


def _hash(table: str, columns: list[str]) -> str:
    return f"hash({', '.join(columns)}, '{table}')"


# A record's identity, as DuckDB hashes it. A span has an id; a log record and a point are told apart by all they say:
# two requests that differ in nothing, not even in the nanosecond, come from one that was sent twice.
IDENTITY = {
    "spans": _hash("spans", ["trace_id", "span_id"]),
    "logs": _hash("logs", [name for name, _ in decode.LOGS]),
    "points": _hash("points", [name for name, _ in decode.POINTS]),
}

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


def recalled(connection: Any) -> Keys:
    """Return the keys of the newest rows of a store."""
    parts = [
        connection.execute(
            f"SELECT {identity} AS key FROM {table} WHERE rowid > (SELECT max(rowid) FROM {table}) - $most",
            {"most": RECALLED},
        ).fetchnumpy()["key"]
        for table, identity in IDENTITY.items()
    ]
    return np.concatenate(parts).astype(np.uint64)
