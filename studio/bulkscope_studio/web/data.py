"""What pages ask of the store: always in a thread, so that a slow query never stops the event loop."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkscope_studio.api import CLOCKS_NS
from bulkscope_studio.sql import load
from bulkscope_studio.store import Store

Row = dict[str, Any]


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with decimals as int64, or as doubles beyond: DuckDB's sum of integers is one of 38 digits."""
    for n, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            table = table.set_column(n, field.name, _number(table.column(n)))
    return table


def _number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.float64())


@dataclass(frozen=True)
class Data:
    """The store and the receiver's counts."""

    store: Store
    status: Callable[[], Mapping[str, object]]

    async def rows(self, name: str, **params: object) -> list[Row]:
        """Return the rows of ``queries/page_<name>.sql``; parameters it does not use are left out.

        ``$credible_ns`` is given: up to when a record can have been made by now.
        """
        sql = load(f"page_{name}")
        params = {"credible_ns": time.time_ns() + CLOCKS_NS, **params}
        used = {key: params[key] for key in set(re.findall(r"\$([a-z]\w*)", sql)) if key in params}

        def run() -> list[Row]:
            found: list[Row] = _plain(self.store.query(sql, used)).to_pylist()
            return found

        return await asyncio.to_thread(run)

    async def row(self, name: str, **params: object) -> Row:
        """Return the only row."""
        return (await self.rows(name, **params))[0]
