"""When a running bulk ends: a card on its page, and a column of the list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from bulkscope_studio.rendering import ending
from bulkscope_studio.server.pages import layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.services import endings
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.text import wording

EVERY_S = 5.0  # 100,000 jobs of a running bulk cost 0.7 CPU-s


def card(data: Data, bulk_id: str) -> None:
    """Add how far the bulk is and when it ends; nothing once it has ended."""
    with layout.card("When it ends") as box:
        lines = ui.element("div").mark("ending")
    box.set_visibility(False)
    ended = False

    async def show() -> None:
        nonlocal ended
        if ended:
            return
        try:
            found = await data.asked(lambda: endings.bulk_ending(data.store, bulk_id))
        except NotFound:  # deleted meanwhile
            return
        ended = found["state"] == "complete"
        box.set_visibility(not ended)
        lines.clear()
        with lines:
            for line in () if ended else (ending.line(found, name=False), *ending.sentences(found)):
                ui.label(line)

    layout.live(show, box, EVERY_S)


class Column:
    """The end of each running bulk of a list, asked for every ``EVERY_S``, however often the list is shown."""

    def __init__(self, data: Data) -> None:
        self._data, self._asked, self._found = data, -EVERY_S, dict[str, dict[str, Any]]()

    async def of(self, rows: Sequence[Row]) -> Mapping[str, str]:
        """Return what to show for those that run, by id; rows are of ``page_bulks.sql``."""
        if time.monotonic() - self._asked >= EVERY_S:
            self._asked = time.monotonic()
            named = [row | {"id": row["bulk_id"], "jobs": row["sent"]} for row in rows]
            self._found = await asyncio.to_thread(endings.of_running, self._data.store, named)
        return {bulk: ending.left(found) for bulk, found in self._found.items() if found["left_s"] is not None}


def shown(ends: Mapping[str, str], bulk_id: str) -> str:
    """Return the cell of one bulk."""
    return ends.get(bulk_id, wording.ABSENT)
