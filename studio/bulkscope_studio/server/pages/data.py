"""What pages ask of the store: always in a thread, so that a slow query never stops the event loop."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from bulkscope_studio.services.endings import Ends
from bulkscope_studio.services.times import CLOCKS_NS
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.sql import sampled
from bulkscope_studio.storage.store import Store
from bulkscope_studio.storage.summaries import Extent

Row = dict[str, Any]
Answer = TypeVar("Answer")
# Seconds of CPU of the threads that asked for what is being shown; DuckDB's own thread takes about as much.
SPENT: ContextVar[list[float] | None] = ContextVar("spent", default=None)
# Queries of pages that read the list of bulks.
LISTS = ("bulks", "bulk_progress")


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
    """The store, the receiver's counts, and when running bulks end."""

    store: Store
    status: Callable[[], Mapping[str, object]]
    ends: Ends

    async def rows(self, name: str, /, **params: object) -> list[Row]:
        """Return the rows of ``queries/page_<name>.sql``; parameters it does not use are left out.

        ``$credible_ns`` is given: up to when a record can have been made by now.
        """
        return await self.sampled(name, 1.0, **params)

    async def sampled(self, name: str, share: float, /, **params: object) -> list[Row]:
        """Return as ``rows``; with a ``share`` below 1, of a sample of blocks of the table before ``/*sample*/``."""
        sql = sampled(f"page_{name}", share)
        params = {"credible_ns": time.time_ns() + CLOCKS_NS, **params}
        used = {key: params[key] for key in set(re.findall(r"\$([a-z]\w*)", sql)) if key in params}

        def run() -> list[Row]:
            ask = summaries.query if name in LISTS else Store.query
            found: list[Row] = _plain(ask(self.store, sql, used)).to_pylist()
            return found

        return await self.asked(run)

    async def asked(self, work: Callable[[], Answer]) -> Answer:
        """Return what ``work`` gives, which asks the store, from a thread."""
        spent = SPENT.get()

        def run() -> Answer:
            began = time.thread_time()
            found = work()
            if spent is not None:
                spent.append(time.thread_time() - began)
            return found

        return await asyncio.to_thread(run)

    async def extent(self, bulk_id: str) -> Extent | None:
        """Return where the records of a bulk are; None when there are none."""
        return await asyncio.to_thread(summaries.extent, self.store, bulk_id)

    async def stored(self) -> Row:
        """Return the first and last credible moment of all that is stored (ns), and how many records there are."""
        found = await self.row("extent_any")
        if found["n"] and found["last_ns"] > time.time_ns() + CLOCKS_NS:
            found = await self.row("extent")
        return found

    async def row(self, name: str, **params: object) -> Row:
        """Return the only row."""
        return (await self.rows(name, **params))[0]
