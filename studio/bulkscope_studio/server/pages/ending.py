"""When a running bulk ends: a card on its page, and a column of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicegui import ui

from bulkscope_studio.rendering import ending
from bulkscope_studio.server.pages import layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.text import wording

EVERY_S = 2.0


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
            found = await data.asked(lambda: data.ends.of(bulk_id))
        except NotFound:  # deleted meanwhile
            return
        ended = found["state"] == "complete"
        box.set_visibility(not ended)
        lines.clear()
        with lines:
            for line in () if ended else (ending.line(found, name=False), *ending.sentences(found)):
                ui.label(line)

    layout.live(show, box, EVERY_S)


async def of(data: Data, rows: Sequence[Row]) -> Mapping[str, str]:
    """Return what a list shows for those that run, by id; rows are of ``page_bulks.sql``."""
    named = [row | {"id": row["bulk_id"]} for row in rows]
    found = await data.asked(lambda: data.ends.of_running(named))
    return {bulk: ending.left(end) for bulk, end in found.items() if end["left_s"] is not None}


def shown(ends: Mapping[str, str], bulk_id: str) -> str:
    """Return the cell of one bulk."""
    return ends.get(bulk_id, wording.ABSENT)
