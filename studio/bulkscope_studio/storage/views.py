"""The rules by which numbers are derived (``views.sql``), in a database of their own in memory beside the file.

A file holds what was recorded, the code what follows from it: so a file that is open for reading alone, or that an
older version wrote, is read by the same rules as any other, and no rule of before is found in a file. Queries say
``rules.NAME``. Views have the columns that are asked for, no more: each that is bound costs a query 0.1 ms of CPU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa

from bulkscope_studio.storage import credible, storefile, tables

VIEWS = files("bulkscope_studio.storage").joinpath("views.sql").read_text(encoding="utf-8")
# Those of its statements that read no table.
MACROS = "".join(each for each in re.split(r"(?<=;)\n", VIEWS) if "MACRO" in each and "AS TABLE" not in each)

_OWN = (*tables.TABLES, "bulks", "bulk_changes", "bulk_rules")
_SQL_TYPES = {
    "s": "VARCHAR", "i": "BIGINT", "n": "INTEGER", "d": "DOUBLE", "b": "BOOLEAN", "D": "DOUBLE[]", "I": "BIGINT[]",
}  # fmt: skip


def apply(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the views and macros of ``views.sql``, and ``rules.credible_COLUMN`` for each number of a span.

    A column that an older version's file lacks is absent in every row.
    """
    text, of = VIEWS, file(connection)
    for table, added in _missing(connection).items():
        text = _with(text, table, f"(SELECT *, rowid, {added} FROM {of}.{table})")
    text = qualified(text, of)
    connection.execute("ATTACH IF NOT EXISTS ':memory:' AS rules (READ_WRITE)")
    connection.execute(f"{credible.macros()}{text}")


def file(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the name of the store's own schema, as SQL."""
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None
    return '"' + str(row[0]).replace('"', '""') + '".main'


def qualified(text: str, of: str) -> str:
    """Return SQL whose tables are those of the schema ``of``, whatever views a connection has under their names."""
    for table in _OWN:
        text = _with(text, table, f"{of}.{table}")
    return text


def _with(text: str, table: str, instead: str) -> str:
    # By a function: a file's name may hold what a template of `re` would take for a group.
    return re.sub(rf"\b(FROM|JOIN) {table}\b(?!\.)", lambda found: f"{found[1]} {instead}", text)


def decided(attempts: pa.Table) -> pa.Table:
    """Return attempts, which an older version read from a store, with ``decides``, as ``rules.attempts`` has it."""
    with storefile.connect(Path(storefile.MEMORY), read_only=False, config={"threads": 1}) as connection:
        connection.execute(f"ATTACH ':memory:' AS rules; {MACROS}")
        connection.register("kept", attempts.append_column("row", pa.array(range(len(attempts)), pa.int64())))
        found = connection.sql(
            "WITH ranked AS (SELECT *, rules.attempt_rank(attempt, coalesce(start_ns, 0), CASE WHEN end_ns IS NULL"
            " THEN NULL WHEN retried THEN 'retried' WHEN ok THEN 'done' ELSE 'failed' END) AS rank FROM kept)"
            ", last AS (SELECT arg_max(row, rank) AS row FROM ranked"
            " GROUP BY bulk_id, coalesce(rules.job_key(job_id, span_id), row::VARCHAR))"
            " SELECT row IN (FROM last) AS decides FROM ranked ORDER BY row"
        ).to_arrow_table()
    return attempts.append_column("decides", found["decides"])


def together(parts: Sequence[pa.Table]) -> pa.Table:
    """Return attempts that were read in several times, earliest first, as if in one: each once, one decides."""
    if len(parts) == 1:
        return parts[0]
    rows = pa.concat_tables(parts, promote_options="permissive")
    with storefile.connect(Path(storefile.MEMORY), read_only=False, config={"threads": 1}) as connection:
        connection.register("parts", rows.append_column("row", pa.array(range(len(rows)), pa.int64())))
        # One that goes on was last heard of in the last of them.
        found = connection.sql(
            "SELECT * EXCLUDE (row, decides, seen_ns), max(seen_ns) OVER one AS seen_ns FROM parts"
            " WINDOW one AS (PARTITION BY trace_id, span_id, CASE WHEN span_id IS NULL THEN (bulk_id, job_id) END)"
            " QUALIFY row_number() OVER (one ORDER BY row) = 1 ORDER BY enqueue_ns, start_ns, job_id, span_id"
        ).to_arrow_table()
    return decided(found)


def _missing(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return of each table of the file the columns that it lacks, as SQL."""
    found: dict[str, set[str]] = {}
    rows = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
    )
    for table, column in rows.fetchall():
        found.setdefault(table, set()).add(column)
    lacking = {
        table: [f"CAST(NULL AS {_SQL_TYPES[kind]}) AS {name}" for name, kind in columns if name not in found[table]]
        for table, columns in tables.TABLES.items()
        if table in found
    }
    return {table: ", ".join(columns) for table, columns in lacking.items() if columns}
