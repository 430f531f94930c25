"""Rows of the store's five tables, made by the names of their columns: what is not given is absent.

Every store that a test fills without the receiver is filled here, so that a new column is known to all of them at once.
So are the clock that tests begin at, and the order in which workers take jobs: first come, first served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from bulkscope_studio.ingest import otlp_decode

SECOND = 10**9
MIB = 2**20
BEGIN_NS = 1_760_000_000 * SECOND
Row = dict[str, Any]
Tables = dict[str, pa.Table]
At = TypeVar("At", int, float)
_EMPTY = {
    name: otlp_decode.to_arrow(name, [[None] * len(columns)]).slice(0, 0)
    for name, columns in otlp_decode.TABLES.items()
}


def ns(at: float) -> int:
    """Return nanoseconds since the epoch, of seconds since the tests' begin."""
    return BEGIN_NS + round(at * SECOND)


def span(kind: str, start_ns: int, end_ns: int, **columns: Any) -> Row:
    """Return a row of ``spans``, without an error unless its columns say so."""
    return {"kind": kind, "start_ns": start_ns, "end_ns": end_ns, "status": "UNSET", **columns}


def alive(at_ns: int, value: float = 1.0, **process: Any) -> Row:
    """Return a row of ``points`` by which a process is known to live."""
    return {"time_ns": at_ns, "name": "process.memory.usage", "type": "sum", "value": value, **process}


class Places(Generic[At]):
    """Workers that take jobs first come, first served; of several that are free the first longest."""

    def __init__(self, count: int, since: At) -> None:
        self.free = [since] * count

    def take(self, ready: At) -> tuple[int, At]:
        """Return which of them takes a job that is ready then, and when it can begin."""
        place = min(range(len(self.free)), key=self.free.__getitem__)
        return place, max(self.free[place], ready)


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return a table of ``rows``; raises ``ValueError`` for a column that it does not have."""
    listed = list(rows)
    given = {column for row in listed for column in row}
    return columns(name, len(listed), {column: [row.get(column) for row in listed] for column in given})


def columns(name: str, rows: int, given: Mapping[str, Any]) -> pa.Table:
    """Return a table of ``rows`` rows; a column is a list or an array of that length, or one value for all of them."""
    schema = _EMPTY[name].schema
    strange = sorted(given.keys() - set(schema.names))
    if strange:
        raise ValueError(f"table {name} has no columns {strange}")
    return pa.table([_column(given.get(field.name), field.type, rows) for field in schema], schema=schema)


def _column(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if value is None:
        return pa.nulls(rows, kind)
    if isinstance(value, list | np.ndarray | pa.Array):
        return pa.array(value, kind)
    return pa.repeat(pa.scalar(value, kind), rows)


def insert(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    """Add the rows of tables to those of an open store."""
    for name, content in tables.items():
        connection.register("rows_of_a_test", content)
        known = "OR IGNORE " if name == "resources" else ""  # what a process says of itself it says again
        connection.execute(f"INSERT {known}INTO {name} BY NAME SELECT * FROM rows_of_a_test")
        connection.unregister("rows_of_a_test")


def add(connection: duckdb.DuckDBPyConnection, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to one table of an open store."""
    insert(connection, {name: table(name, rows)})
