"""Old telemetry goes, by age and by size; what went is counted."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from typing import Any

import duckdb

from bulkscope_studio.store import Store

logger = logging.getLogger("bulkscope.studio")

# A cut leaves nine tenths of what may be held: at 1 % an hour it is made twice a day.
AFTER_CUT = 0.9
# A bulk of which something was heard since then is at work.
RUNNING_NS = 600 * 10**9
BINS = 1000

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# 27 years and 9 EB: counted back from now in ns, and in bytes, both stay in 64 bits.
_LONGEST, _LARGEST = 10_000 * 86_400, 2**63 - 1
_TABLES = {"spans": "start_ns", "logs": "time_ns", "points": "time_ns", "ingest": "time_ns"}
_OWNED = ("spans", "logs", "points")


def duration(text: str) -> float:
    """Return ``7d``, ``12h``, ``30m`` in seconds. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration; write for example 7d, 12h or 30m")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{text[:20]!r} is too long: 10000d is the most, as in 30m, 12h or 7d")
    return seconds


def size(text: str) -> int:
    """Return ``2GB``, ``500MB``, ``1GiB`` in bytes. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2].upper() not in _BYTES or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a size; write for example 2GB or 500MB")
    most = float(found[1]) * _BYTES[found[2].upper()]
    if most > _LARGEST:
        raise ValueError(f"{text[:20]!r} is too large; write for example 2GB or 500MB")
    return int(most)


class Retention:
    """Deletes what is older than ``keep_seconds``, then the oldest when more than ``max_bytes`` are held.

    To be applied by the thread that writes, or while nobody writes.
    """

    def __init__(self, store: Store, keep_seconds: float, max_bytes: int) -> None:
        self._store, self._keep, self._most = store, keep_seconds, max_bytes
        # DuckDB gives the space of deleted rows back at a checkpoint when nobody reads them any longer, and by whole
        # row groups. Until then they count in the file's size, and must not be taken for a reason to delete more.
        self._deleted = 0
        self._used_before = 0

    def apply(self) -> int:
        """Delete what is over the limits, by one cut each; return how many records went.

        Each deletion leaves a row in ``ingest`` with the outcome ``expired``. A bulk of which something was heard in
        the last ten minutes stays, as long as the store is not twice as large as it may be.
        """
        now = time.time_ns()
        with self._store.writing() as connection:
            gone = _delete(connection, now - int(self._keep * 1e9), "older than the retention")
            _sweep(connection)
            self._settle(connection, gone)
            held = self._held(connection)
            if held > self._most:
                cut = _delete(
                    connection,
                    _cut(connection, 1 - AFTER_CUT * self._most / held, held < 2 * self._most, now),
                    "over the maximum size",
                )
                _sweep(connection)
                self._settle(connection, cut)
                gone += cut
        return gone

    def _held(self, connection: Any) -> float:
        """Return the bytes of the rows that live: those of the file, less the share of rows whose space is not free."""
        rows = _live(connection)
        return _used(connection, self._store) * rows / max(1, rows + self._deleted)

    def _settle(self, connection: Any, deleted: int) -> None:
        """Give deleted rows' space back, as far as nobody reads them; note how many rows are left that have it."""
        if deleted:
            if not self._deleted:
                self._used_before = _used(connection, self._store)
            self._deleted += deleted
        if not self._deleted:
            return
        try:
            connection.execute("CHECKPOINT")
        except duckdb.Error as error:  # others are in a transaction: the next time, then
            logger.info("no checkpoint after a deletion: %s", error)
        # Half of what was to be expected: the rows at the border of a cut stay in their row groups.
        share = self._deleted / (_live(connection) + self._deleted)
        if _used(connection, self._store) <= self._used_before * (1 - share / 2):
            self._deleted = 0


def apply(store: Store, keep_seconds: float, max_bytes: int) -> int:
    """Apply the limits once, as ``Retention.apply``."""
    return Retention(store, keep_seconds, max_bytes).apply()


def used_bytes(store: Store) -> int:
    """Return the bytes of the file that hold data, its log of uncommitted blocks included."""
    with store.writing() as connection:
        return _used(connection, store)


def _used(connection: Any, store: Store) -> int:
    row = connection.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchone()
    wal = store.path.with_name(store.path.name + ".wal")
    return int(row[0]) + (wal.stat().st_size if wal.exists() else 0)


def _live(connection: Any) -> int:
    total = 0
    for table in (*_TABLES, "resources"):
        total += int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    return total


def _cut(connection: Any, share: float, spare: bool, now: int) -> int:
    """Return the time before which to delete so that ``share`` of all rows go; ``spare`` running bulks."""
    connection.execute("CREATE OR REPLACE TEMP TABLE running (bulk_id VARCHAR)")
    if spare:
        connection.execute(
            "INSERT INTO running SELECT DISTINCT bulk_id FROM ("
            " SELECT bulk_id FROM spans WHERE end_ns > $since UNION ALL SELECT bulk_id FROM logs WHERE time_ns > $since"
            ") WHERE bulk_id IS NOT NULL",
            {"since": now - RUNNING_NS},
        )
    times = " UNION ALL ".join(
        f"SELECT {column} AS t FROM {table} WHERE {_spared(table)}" for table, column in _TABLES.items()
    )
    first, last = connection.execute(f"SELECT min(t), max(t) FROM ({times})").fetchone()
    if first is None:
        return 0
    wanted = share * _live(connection)
    # Bins of a thousandth each, then of a thousandth of the one in which the cut lies, to the row.
    while True:
        width = max(1, (last - first) // BINS + 1)
        bins = connection.execute(
            "SELECT bin, sum(n) OVER (ORDER BY bin) - n, n FROM ("
            f" SELECT (t - $first) // $width AS bin, count(*) AS n FROM ({times}) WHERE t BETWEEN $first AND $last"
            " GROUP BY bin) ORDER BY bin",
            {"first": first, "last": last, "width": width},
        ).fetchall()
        within = next((number for number, before, count in bins if before + count >= wanted), None)
        if within is None:
            return int(last) + 1
        if width == 1:
            return int(first + within + 1)
        wanted -= next(before for number, before, _ in bins if number == within)
        first, last = first + within * width, min(last, first + (within + 1) * width - 1)


def _spared(table: str) -> str:
    return "bulk_id IS NULL OR bulk_id NOT IN (FROM running)" if table in ("spans", "logs") else "true"


def _delete(connection: Any, before_ns: int, reason: str) -> int:
    """Delete what is older, in one transaction; return how many records went."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS running (bulk_id VARCHAR)")
    total = 0
    connection.execute("BEGIN")
    try:
        for table, column in _TABLES.items():
            row = connection.execute(
                f"DELETE FROM {table} WHERE {column} < $before AND ({_spared(table)})", {"before": before_ns}
            ).fetchone()
            count = int(row[0])
            if count and table != "ingest":
                connection.execute(
                    "INSERT INTO ingest VALUES ($now, $signal, 'studio', 'expired', $reason, $count)",
                    {"now": time.time_ns(), "signal": table, "reason": reason, "count": count},
                )
            total += count
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    return total


def _sweep(connection: Any) -> None:
    """Delete resources that no record has any longer: under RQ each job has one of its own."""
    connection.execute(
        "DELETE FROM resources WHERE resource_id NOT IN ("
        + " UNION ".join(f"SELECT resource_id FROM {table} WHERE resource_id IS NOT NULL" for table in _OWNED)
        + ")"
    )
