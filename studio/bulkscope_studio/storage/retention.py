"""Old telemetry goes, by age and by size, and a bulk when its user says so; what went is counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress

import duckdb

from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store

logger = logging.getLogger("bulkscope.studio")

# A cut leaves nine tenths of what may be held: at 1 % an hour it is made twice a day.
AFTER_CUT = 0.9
# A bulk of which something was heard since then is at work.
RUNNING_NS = 600 * 10**9
BINS = 1000

_TABLES = {"spans": "start_ns", "logs": "time_ns", "points": "time_ns", "ingest": "time_ns"}
_OWNED = ("spans", "logs", "points")
# Traces in which a bulk has a record and no other bulk has one: a request that sent jobs of two stays with the other.
_SOLELY = """CREATE OR REPLACE TEMP TABLE solely AS
WITH records AS (SELECT trace_id, bulk_id FROM spans UNION ALL SELECT trace_id, bulk_id FROM logs)
SELECT trace_id FROM records WHERE trace_id IN (SELECT trace_id FROM records WHERE bulk_id = $bulk)
GROUP BY trace_id HAVING bool_and(bulk_id IS NULL OR bulk_id = $bulk)"""
_OF_BULK = "(bulk_id = $bulk OR (bulk_id IS NULL AND trace_id IN (FROM solely)))"


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

        Each deletion leaves a row in ``ingest`` with the outcome ``expired``. For the size no bulk is cut of which
        something was heard in the last ten minutes, as long as the store is not twice as large as it may be.
        """
        now = time.time_ns()
        gone = _expire(self._store, now - int(self._keep * 1e9), "older than the retention")
        _sweep(self._store)
        self._settle(gone)
        held = self._held()
        if held > self._most:
            # The log is not compressed: what it holds takes a third of its size in the file.
            self._checkpoint()
            held = self._held()
        if held > self._most:
            running_since = now - RUNNING_NS if held < 2 * self._most else None
            before = _cut(self._store, 1 - AFTER_CUT * self._most / held, running_since)
            cut = _expire(self._store, before, "over the maximum size", running_since)
            _sweep(self._store)
            self._settle(cut)
            gone += cut
        return gone

    def delete_bulk(self, bulk_id: str) -> dict[str, int]:
        """Delete the records of one bulk, and its row in the table of bulks; return how many went, by table.

        Records without a bulk go with it where they are of its traces alone. Measurements of hosts and processes are of
        no bulk, and stay. Each deletion leaves a row in ``ingest`` with the outcome ``deleted``.
        """
        with self._store.writing() as connection:
            connection.execute(_SOLELY, {"bulk": bulk_id})
            gone = _delete(connection, dict.fromkeys(("spans", "logs"), _OF_BULK), {"bulk": bulk_id}, "deleted", "bulk")
        _sweep(self._store)
        self._settle(sum(gone.values()))
        return gone

    def _held(self) -> float:
        """Return the bytes of the rows that live: those of the file, less the share of rows whose space is not free."""
        rows = _live(self._store)
        return used_bytes(self._store) * rows / max(1, rows + self._deleted)

    def _settle(self, deleted: int) -> None:
        """Give deleted rows' space back, as far as nobody reads them; note how many rows are left that have it."""
        if deleted:
            if not self._deleted:
                self._used_before = used_bytes(self._store)
            self._deleted += deleted
        if not self._deleted:
            return
        self._checkpoint()
        # Half of what was to be expected: the rows at the border of a cut stay in their row groups.
        share = self._deleted / (_live(self._store) + self._deleted)
        if used_bytes(self._store) <= self._used_before * (1 - share / 2):
            self._deleted = 0

    def _checkpoint(self) -> None:
        try:
            with self._store.writing() as connection:
                connection.execute("CHECKPOINT")
        except duckdb.TransactionException as error:  # others are in a transaction: the next time, then
            logger.info("no checkpoint by the retention: %s", error)


def used_bytes(store: Store) -> int:
    """Return the bytes of the file that hold data, its log of uncommitted blocks included."""
    with store.writing() as connection:
        row = connection.execute(
            "SELECT used_blocks * block_size FROM pragma_database_size() WHERE database_name = current_database()"
        ).fetchone()
    wal = store.path.with_name(store.path.name + ".wal")
    return int(row[0] if row else 0) + (wal.stat().st_size if wal.exists() else 0)


def _live(store: Store) -> int:
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in (*_TABLES, "resources"))
    with store.writing() as connection:
        row = connection.execute(f"SELECT {counts}").fetchone()
    return int(row[0] if row else 0)


def _running(connection: duckdb.DuckDBPyConnection, since_ns: int | None) -> None:
    """Make the table of the bulks of which something was heard since; an empty one without a time."""
    connection.execute("CREATE OR REPLACE TEMP TABLE running (bulk_id VARCHAR)")
    if since_ns is not None:
        connection.execute(
            "INSERT INTO running SELECT DISTINCT bulk_id FROM ("
            " SELECT bulk_id FROM spans WHERE end_ns > $since UNION ALL SELECT bulk_id FROM logs WHERE time_ns > $since"
            ") WHERE bulk_id IS NOT NULL",
            {"since": since_ns},
        )


def _old(table: str) -> str:
    """Return the condition on the rows of ``table`` that may be deleted."""
    return "(bulk_id IS NULL OR bulk_id NOT IN (FROM running))" if table in ("spans", "logs") else "true"


def _cut(store: Store, share: float, running_since: int | None) -> int:
    """Return the time (ns) before which to delete, so that ``share`` of all rows go."""
    times = " UNION ALL ".join(
        f"SELECT {column} AS t FROM {table} WHERE {_old(table)}" for table, column in _TABLES.items()
    )
    wanted = share * _live(store)
    with store.writing() as connection:
        _running(connection, running_since)
        first, last = connection.execute(f"SELECT min(t), max(t) FROM ({times})").fetchone() or (None, None)
        # Bins of a thousandth each, then of a thousandth of the one in which the cut lies, to the nanosecond.
        while first is not None:
            width = (last - first) // BINS + 1
            bins = connection.execute(
                "SELECT bin, sum(n) OVER (ORDER BY bin) - n, n FROM ("
                f" SELECT (t - $first) // $width AS bin, count(*) AS n FROM ({times}) WHERE t BETWEEN $first AND $last"
                " GROUP BY bin) ORDER BY bin",
                {"first": first, "last": last, "width": width},
            ).fetchall()
            within = next(((number, before) for number, before, count in bins if before + count >= wanted), None)
            if within is None:
                return int(last or 0) + 1
            if width == 1:
                return int(first + within[0] + 1)
            wanted -= within[1]
            first, last = first + within[0] * width, min(last, first + (within[0] + 1) * width - 1)
    return 0


def _expire(store: Store, before_ns: int, reason: str, running_since: int | None = None) -> int:
    """Delete what is older; return how many records went."""
    with store.writing() as connection:
        _running(connection, running_since)
        old = {table: f"{column} < $before AND {_old(table)}" for table, column in _TABLES.items()}
        return sum(_delete(connection, old, {"before": before_ns}, "expired", reason).values())


def _delete(
    connection: duckdb.DuckDBPyConnection, which: Mapping[str, str], params: Mapping[str, object], outcome: str,
    reason: str,
) -> dict[str, int]:  # fmt: skip
    """Delete the rows of each table that fit its condition, in one transaction; return how many went."""
    gone = {}
    connection.execute("BEGIN")
    try:
        for table, condition in which.items():
            summaries.forget(connection, table, condition, params)
            row = connection.execute(f"DELETE FROM {table} WHERE {condition}", dict(params)).fetchone()
            gone[table] = int(row[0]) if row else 0
            if gone[table] and table != "ingest":
                connection.execute(
                    "INSERT INTO ingest VALUES ($now, $signal, 'studio', $outcome, $reason, $count)",
                    {"now": time.time_ns(), "signal": table, "outcome": outcome, "reason": reason}
                    | {"count": gone[table]},
                )
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    return gone


def _sweep(store: Store) -> None:
    """Delete resources that no record has any longer: under RQ each job has one of its own."""
    owned = " UNION ".join(f"SELECT resource_id FROM {table} WHERE resource_id IS NOT NULL" for table in _OWNED)
    with store.writing() as connection:
        connection.execute(f"DELETE FROM resources WHERE resource_id NOT IN ({owned})")
