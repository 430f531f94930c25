"""The verdict on a bulk: a card on its page, and ``/explain/{id}`` with all the evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nicegui import ui

from bulkscope_studio.rendering import explained
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.pages import fmt, layout
from bulkscope_studio.server.pages.data import Data
from bulkscope_studio.services import explanations
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.text.wording import percent

# A bulk that goes on is looked at again after this many seconds: 100,000 jobs take 0.7 s of one core.
EVERY_S = 10.0
EVIDENCE = {"holds": "holds", "text": "evidence"}


async def _ask(data: Data, bulk_id: str) -> dict[str, Any] | None:
    """Return the explanation; None when the bulk is not there, or there no longer."""
    try:
        return await asyncio.to_thread(explanations.bulk_explanation, data.store, bulk_id)
    except NotFound:
        return None


def card(data: Data, bulk_id: str) -> None:
    """Add the verdict in short, with a link to the rest."""
    with layout.card("What held it up") as box:
        title = ui.label().classes("bs-title").mark("verdict")
        lines = ui.element("div")
        ui.link("evidence, and where the time went", fmt.link("explain", bulk_id))
    state = ""

    async def show() -> None:
        nonlocal state
        if state == "complete":
            return
        found = await _ask(data, bulk_id)
        if found is None:
            return
        state = found["state"]
        title.set_text(_title(found))
        _sentences(lines, found)

    layout.live(show, box, EVERY_S)


def register(data: Data) -> None:
    """Add the page."""

    @ui.page(f"/explain/{any_id('bulk_id')}")
    async def explain(bulk_id: str) -> None:
        with layout.frame(data, "Explanation", ""):
            try:
                first = await layout.computed(lambda: explanations.bulk_explanation(data.store, bulk_id))
            except NotFound:
                with layout.card("No such bulk"):
                    ui.label(bulk_id).classes("bs-wrap")
                    ui.link("All bulks", "/bulks")
                return
            with layout.card("Bulk"):
                ui.link(bulk_id, fmt.link("bulk", bulk_id)).classes("bs-wrap")
            with layout.card("Verdict") as box:
                title = ui.label().classes("bs-title").mark("verdict")
                lines = ui.element("div")
                evidence = layout.table(EVIDENCE, [], "key", long="text")
            with ui.element("div").classes("bs-pair"):
                tables = []
                for name, _ in explained.times(first):
                    with layout.card(name):
                        columns = {"part": "", "seconds": "seconds", "share": "share"}
                        tables.append(layout.table(columns, [], "part", "seconds", long="part"))
            with layout.card("Length, waits, stragglers"):
                chain = ui.element("div")
            others = layout.card("Looked at, in this order", "The first that holds is the verdict.")
            state = ""

            async def show() -> None:
                nonlocal state
                found = first if not state else None if state == "complete" else await _ask(data, bulk_id)
                if found is None:
                    return
                state = found["state"]
                title.set_text(_title(found))
                _sentences(lines, found)
                _fill(evidence, _evidence(found["verdict"]))
                for table, (_, parts) in zip(tables, explained.times(found), strict=True):
                    _fill(table, _parts(parts))
                chain.clear()
                with chain:
                    for line in explained.chain(found):
                        ui.label(line)
                others.clear()
                with others:
                    ui.label("Looked at, in this order").classes("bs-title")
                    ui.label("The first that holds is the verdict.").classes("bs-mute")
                    for finding in found["findings"]:
                        _finding(finding)

            layout.live(show, box, EVERY_S)


def _title(found: Mapping[str, Any]) -> str:
    partial = "" if found["state"] == "complete" else f" ({found['state']}: partial)"
    title = found["verdict"]["title"]
    return f"{title[0].upper()}{title[1:]}{partial}"


def _sentences(place: ui.element, found: Mapping[str, Any]) -> None:
    place.clear()
    with place:
        for line in explained.summary(found):
            ui.label(line)


def _finding(finding: Mapping[str, Any]) -> None:
    name = f"{explained.MARKS[finding['holds']]} – {finding['title']}: {finding['text']}"
    with ui.expansion(name).classes("w-full").props("dense"):
        layout.table(EVIDENCE, _evidence(finding), "key", long="text")


def _evidence(finding: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": n, "holds": explained.MARKS[item["holds"]], "text": item["text"]}
        | ({"text_href": item["link"]} if item["link"] else {})
        for n, item in enumerate(finding["evidence"])
    ]


def _parts(parts: list[explained.Part]) -> list[dict[str, Any]]:
    total = sum(value or 0.0 for _, value in parts)
    rows = []
    for label, value in parts:
        share = value / total if value is not None and total > 0 else None
        rows.append(
            {
                "part": label, "seconds": fmt.seconds(value), "share": fmt.ABSENT if share is None else percent(share),
                "share_bar": [100 * (share or 0.0), 0],
            }
        )  # fmt: skip
    return rows


def _fill(table: ui.table, rows: list[dict[str, Any]]) -> None:
    table.rows = rows
    table.update()
