"""What pages ask of the store: always in a thread, so that a slow query never stops the event loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bulkscope_studio.sql import load
from bulkscope_studio.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """The store and the receiver's counts."""

    store: Store
    status: Callable[[], Mapping[str, object]]

    async def rows(self, name: str, **params: object) -> list[Row]:
        """Return the rows of ``queries/page_<name>.sql``; parameters it does not use are left out."""
        sql = load(f"page_{name}")
        used = {key: params[key] for key in set(re.findall(r"\$([a-z]\w*)", sql)) if key in params}

        def run() -> list[Row]:
            found: list[Row] = self.store.query(sql, used).to_pylist()
            return found

        return await asyncio.to_thread(run)

    async def row(self, name: str, **params: object) -> Row:
        """Return the only row."""
        return (await self.rows(name, **params))[0]
