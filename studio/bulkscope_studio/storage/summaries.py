"""The table of bulks: kept up as spans come and go, so that listing bulks does not read the spans of all of them.

Whoever adds spans or log records notes in the same transaction which bulks changed and by how many records (``note``),
whoever deletes them does too (``forget``). A bulk that has come to rest is summed up anew (``refresh``). Readers take
the rows of bulks that have not changed, and sum up the others from their spans, by the same SQL
(``queries/bulk_summary.sql``), in one statement: the answer is that of a query over all spans, at any moment and after
any end of the process. One thread alone writes.

The table counts what it knows of. Where that is not what is stored (records that an older version has added, or that
nobody has noted), or where its rows were made by other rules (``RULES``), it is not read, and ``ensure`` begins it
again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa

from bulkscope_studio.storage import credible, sql, views
from bulkscope_studio.storage.store import Store

TIMES = {"spans": ("start_ns", "end_ns"), "logs": ("time_ns", "time_ns")}
# So long after its last change a bulk is summed up. One that runs is not, again and again: its readers do it.
REST_S = 10.0
# Spans that are summed up at once, 0.1 s of one core: the writer does it, and what comes meanwhile waits.
MOST_SPANS = 200_000
# Notes of one commit are one row a bulk; more rows than this are added up.
MOST_CHANGES = 10_000
# Up to so many rows are faster as values than as an Arrow table, 0.5 ms of CPU against 1.5.
FEW = 8

_CHANGES = ("bulk_id", "first_ns", "last_ns", "spans", "logs", "noted_ns")
_SUMMARY = (
    "start_ns, end_ns, sent, jobs, done, failed, domains, models, tokens, wait, cancelled, not_sent, duplicate, "
    "expires_ns, services, hosts, workers, wait_p95, work_p95, tokens_per_s"
)
_BEGUN = "bulk_id, job, failure_domain, rank, attempt, start_ns, end_ns, seen_ns, wait, delay, state AS attempt_state"
# A mark of the rules by which rows are made: another version of any of them makes another.
RULES = hashlib.blake2b(
    re.sub(r"\s*--.*", "", views.VIEWS + credible.macros() + sql.part("bulk_summary")).encode(), digest_size=8
).hexdigest()
# `reach` is bounds of time: DuckDB reads the row groups of that time alone.
_EXPIRED = "SELECT bulk_id FROM bulks WHERE expires_ns < rules.now_ns()"
_CHANGED = f"""changed AS (
    SELECT bulk_id FROM bulk_changes WHERE bulk_id IS NOT NULL UNION {_EXPIRED}
)"""
_THESE = f"""reach AS (
    SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns
    FROM (SELECT bulk_id, first_ns, last_ns FROM bulks UNION ALL SELECT bulk_id, first_ns, last_ns FROM bulk_changes)
    WHERE bulk_id IN (SELECT bulk_id FROM changed)
), these AS NOT MATERIALIZED (
    SELECT * FROM rules.recorded_spans
    WHERE start_ns BETWEEN (SELECT first_ns FROM reach) AND (SELECT last_ns FROM reach)
      AND bulk_id IN (SELECT bulk_id FROM changed)
), begun AS (
    SELECT {_BEGUN}
    FROM rules.begun_attempts(
        (SELECT list(bulk_id) FROM changed), (SELECT first_ns FROM reach), (SELECT last_ns FROM reach))
)"""
# Where the table is not of what is stored.
_ALL = f"""these AS NOT MATERIALIZED (
    SELECT * FROM rules.recorded_spans WHERE bulk_id IS NOT NULL
), begun AS (
    SELECT {_BEGUN}
    FROM rules.begun_attempts([], 0, 4611686018427387904, every_job := true) WHERE bulk_id IS NOT NULL
)"""


def note(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Note which bulks ``rows`` change, which have been added to the table ``name`` in this transaction."""
    if name not in TIMES or not len(rows):
        return
    first, last = TIMES[name]
    # Twice the same column would be one.
    wanted = rows.select(list(dict.fromkeys(("bulk_id", first, last))))
    found = wanted.group_by("bulk_id").aggregate([(first, "min"), (last, "max"), (first, "count")])
    count, none = found[f"{first}_count"], pa.nulls(len(found), pa.int64()).fill_null(0)
    now = pa.nulls(len(found), pa.int64()).fill_null(time.time_ns())
    of = {"spans": none, "logs": none} | {name: count}
    columns = [found["bulk_id"], found[f"{first}_min"], found[f"{last}_max"], of["spans"], of["logs"], now]
    changes = pa.table(columns, names=list(_CHANGES))
    if len(changes) <= FEW:
        values = [value for row in changes.to_pylist() for value in row.values()]
        places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(changes))
        connection.execute(f"INSERT INTO bulk_changes VALUES {places}", values)
    else:
        connection.register("changes", changes)
        connection.execute("INSERT INTO bulk_changes SELECT * FROM changes")
        connection.unregister("changes")


def forget(connection: duckdb.DuckDBPyConnection, name: str, condition: str, params: Mapping[str, object]) -> None:
    """Note which bulks have rows of the table ``name`` that this transaction is about to delete: by ``condition``."""
    if name not in TIMES:
        return
    connection.execute(
        f"INSERT INTO bulk_changes SELECT bulk_id, NULL, NULL, {_counts(name, '-count(*)')}, 0"
        f" FROM {name} WHERE {condition} GROUP BY bulk_id",
        dict(params),
    )


def _counts(name: str, count: str) -> str:
    return ", ".join(count if name == each else "0" for each in TIMES)


def ensure(connection: duckdb.DuckDBPyConnection) -> None:
    """Begin the table anew where it is not of what is stored, or of other rules: every bulk has changed.

    10 million spans take 0.5 s.
    """
    if _covers(connection):
        return
    connection.execute("BEGIN")
    try:
        connection.execute("DELETE FROM bulks")
        connection.execute("DELETE FROM bulk_changes")
        connection.execute("DELETE FROM bulk_rules")
        connection.execute("INSERT INTO bulk_rules VALUES (?)", [RULES])
        for name, (first, last) in TIMES.items():
            # Noted at 0: they have rested, as far as is known.
            connection.execute(
                f"INSERT INTO bulk_changes SELECT bulk_id, min({first}), max({last}), {_counts(name, 'count(*)')}, 0"
                f" FROM {name} GROUP BY bulk_id"
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def refresh(connection: duckdb.DuckDBPyConnection, limit: int = MOST_SPANS, rest_s: float = REST_S) -> int:
    """Sum up bulks that have not changed for ``rest_s`` seconds, the oldest first, up to about ``limit`` spans.

    Returns how many bulks there were.
    """
    connection.execute("BEGIN")
    try:
        # A waiting job of theirs has expired: nothing came, and yet they have changed.
        connection.execute(
            "INSERT INTO bulk_changes SELECT bulk_id, NULL, NULL, 0, 0, 0 FROM bulks WHERE expires_ns < rules.now_ns()"
        )
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE resting AS "
            "WITH noted AS (SELECT bulk_id, min(first_ns) AS first_ns, max(last_ns) AS last_ns, sum(spans) AS spans,"
            " sum(logs) AS logs, max(noted_ns) AS noted_ns, count(*) AS notes FROM bulk_changes GROUP BY bulk_id"
            "), known AS (SELECT bulk_id, first_ns, last_ns, spans, logs FROM bulks), together AS ("
            " SELECT n.bulk_id, least(n.first_ns, k.first_ns) AS first_ns, greatest(n.last_ns, k.last_ns) AS last_ns,"
            " n.spans + coalesce(k.spans, 0) AS spans, n.logs + coalesce(k.logs, 0) AS logs, n.notes, n.noted_ns"
            " FROM noted n LEFT JOIN known k ON k.bulk_id IS NOT DISTINCT FROM n.bulk_id)"
            " SELECT bulk_id, first_ns, last_ns, spans::BIGINT AS spans, logs::BIGINT AS logs FROM together"
            " WHERE noted_ns <= $before QUALIFY coalesce(sum(spans) OVER (ORDER BY first_ns, bulk_id"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < $limit",
            {"before": time.time_ns() - int(rest_s * 1e9), "limit": limit},
        )
        (count,) = connection.execute("SELECT count(*) FROM resting").fetchone() or (0,)
        if count:
            changed = "changed AS (SELECT bulk_id FROM resting WHERE bulk_id IS NOT NULL)"
            none = "bulk_id IS NULL AND EXISTS (FROM resting WHERE bulk_id IS NULL)"
            same = f"bulk_id IN (SELECT bulk_id FROM resting) OR {none}"
            summed = (
                f"WITH {changed}, {_THESE}, {sql.part('bulk_summary')}"
                f"SELECT r.*, {_SUMMARY} FROM resting r LEFT JOIN summary s USING (bulk_id) WHERE spans > 0 OR logs > 0"
            )
            connection.execute(f"CREATE OR REPLACE TEMP TABLE summed AS {summed}")
            connection.execute(f"DELETE FROM bulks WHERE {same}")
            connection.execute(f"DELETE FROM bulk_changes WHERE {same}")
            connection.execute("INSERT INTO bulks SELECT * FROM summed")
        _add_up(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return int(count)


def _add_up(connection: duckdb.DuckDBPyConnection) -> None:
    """Make one row a bulk of the notes, where they have become many."""
    notes, bulks = connection.execute("SELECT count(*), count(DISTINCT bulk_id) FROM bulk_changes").fetchone() or (0, 0)
    if notes < max(MOST_CHANGES, 2 * bulks):
        return
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE added AS SELECT bulk_id, min(first_ns), max(last_ns), sum(spans), sum(logs),"
        " max(noted_ns) FROM bulk_changes GROUP BY bulk_id"
    )
    connection.execute("DELETE FROM bulk_changes")
    connection.execute("INSERT INTO bulk_changes SELECT * FROM added")


def waits(store: Store) -> bool:
    """Whether a bulk that has come to rest waits for ``refresh``."""
    since = time.time_ns() - int(REST_S * 1e9)
    text = (
        f"{_EXPIRED} UNION ALL SELECT bulk_id FROM bulk_changes GROUP BY bulk_id HAVING max(noted_ns) <= $since LIMIT 1"
    )
    return len(store.query(text, {"since": since})) > 0


# Sums of nothing are NULL.
_COVERS = f"""SELECT EXISTS (FROM bulk_rules WHERE mark = '{RULES}') AND (SELECT count(*) FROM spans) =
        coalesce((SELECT sum(spans) FROM bulks), 0) + coalesce((SELECT sum(spans) FROM bulk_changes), 0)
    AND (SELECT count(*) FROM logs) =
        coalesce((SELECT sum(logs) FROM bulks), 0) + coalesce((SELECT sum(logs) FROM bulk_changes), 0) AS covers"""


def _covers(connection: duckdb.DuckDBPyConnection) -> bool:
    row = connection.execute(_COVERS).fetchone()
    return bool(row and row[0])


def _read(store: Store) -> tuple[bool, bool]:
    """Return whether the table tells of all that is stored, and whether a bulk has changed."""
    try:
        (row,) = store.query(
            f"{_COVERS}, (SELECT count(bulk_id) > 0 FROM bulk_changes) OR EXISTS ({_EXPIRED}) AS changed"
        ).to_pylist()
        return row["covers"], row["changed"]
    except (duckdb.CatalogException, duckdb.BinderException):  # an older version's file, opened for reading
        return False, False


def query(store: Store, text: str, params: Mapping[str, object] | None = None) -> pa.Table:
    """Return the rows of a SELECT from ``listed``: one for each bulk that has spans (``queries/bulk_summary.sql``)."""
    return store.query(f"WITH {listed(store)} {text}", params)


def listed(store: Store) -> str:
    """Return the parts of a WITH that end in ``listed``, which costs least in the store as it is now."""
    covers, changed = _read(store)
    rows = f"SELECT bulk_id, {_SUMMARY} FROM bulks WHERE bulk_id IS NOT NULL AND start_ns IS NOT NULL"
    if covers and not changed:
        return f"listed AS ({rows})"
    if covers:
        rows += f" AND bulk_id NOT IN (SELECT bulk_id FROM changed) UNION ALL SELECT bulk_id, {_SUMMARY} FROM summary"
        parts = [_CHANGED, _THESE, sql.part("bulk_summary"), f"listed AS ({rows})"]
    else:
        parts = [_ALL, sql.part("bulk_summary"), f"listed AS (SELECT bulk_id, {_SUMMARY} FROM summary)"]
    return ", ".join(parts)


class Extent(NamedTuple):
    """The time from the first to the last of a bulk's spans and log records, in ns, and how many there are."""

    first_ns: int
    last_ns: int
    spans: int
    logs: int

    @property
    def bounds(self) -> dict[str, int]:
        """Return the parameters of queries that read what belongs to the bulk."""
        return {"bulk_first": self.first_ns, "bulk_last": self.last_ns}

    @classmethod
    def around(cls, several: Sequence[Extent]) -> Extent:
        """Return the extent of several, of which there is at least one."""
        first, last, spans, logs = zip(*several, strict=True)
        return cls(min(first), max(last), sum(spans), sum(logs))


# Parameters as of ``Extent.bounds`` that bound nothing, up to the year 2116: minutes are added to them in 64 bits.
EVER = Extent(0, 2**62, 0, 0).bounds


def newest(store: Store) -> str | None:
    """Return the id of the newest bulk that has jobs, None when there is none."""
    return _first(store, "jobs > 0")


def newest_done(store: Store) -> str | None:
    """Return the id of the newest bulk that has done a job, None when there is none."""
    return _first(store, "done > 0")


def _first(store: Store, condition: str) -> str | None:
    text = f"SELECT bulk_id FROM listed WHERE {condition} ORDER BY start_ns DESC, bulk_id LIMIT 1"
    found: list[str] = query(store, text)["bulk_id"].to_pylist()
    return found[0] if found else None


def ids(store: Store) -> list[str]:
    """Return the ids of all bulks, newest first."""
    found: list[str] = query(store, "SELECT bulk_id FROM listed ORDER BY start_ns DESC, bulk_id")["bulk_id"].to_pylist()
    return found


def extent(store: Store, bulk_id: str) -> Extent | None:
    """Return where the records of a bulk are, at least; None when there are none."""
    covers, _ = _read(store)
    if covers:
        of = "SELECT bulk_id, first_ns, last_ns, spans, logs FROM bulks"
        of += " UNION ALL SELECT bulk_id, first_ns, last_ns, spans, logs FROM bulk_changes"
    else:
        of = "SELECT bulk_id, start_ns AS first_ns, end_ns AS last_ns, 1 AS spans, 0 AS logs FROM spans"
        of += " UNION ALL SELECT bulk_id, time_ns, time_ns, 0, 1 FROM logs"
    text = (
        "SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns, coalesce(sum(spans), 0)::BIGINT AS spans,"
        f" coalesce(sum(logs), 0)::BIGINT AS logs FROM ({of}) WHERE bulk_id = $bulk"
    )
    found = Extent(**store.query(text, {"bulk": bulk_id}).to_pylist()[0])
    return found if found.spans or found.logs else None
