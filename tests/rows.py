"""Rows of the store's five tables, made by the names of their columns: what is not given is absent.

Every store that a test fills without the receiver is filled here, so that a new column is known to all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from bulkscope_studio.ingest import otlp_decode

Tables = dict[str, pa.Table]
_EMPTY = {
    name: otlp_decode.to_arrow(name, [[None] * len(columns)]).slice(0, 0)
    for name, columns in otlp_decode.TABLES.items()
}


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
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows_of_a_test")
        connection.unregister("rows_of_a_test")
