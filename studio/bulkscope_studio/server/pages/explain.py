"""The verdict on a bulk: a card on its page, and ``/explain/{id}`` with all the evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nicegui import ui

from bulkscope_studio.rendering import explanation
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.pages import fmt, layout
from bulkscope_studio.server.pages.data import Data
from bulkscope_studio.services import explanations
from bulkscope_studio.services.errors import NotFound

# A running bulk is explained again after so many seconds: 100,000 jobs cost 0.7 CPU-s.
EVERY_S = 10.0
EVIDENCE = {"holds": "for / against", "text": "evidence"}
LOOKED_AT, FIRST = "Findings, in the order in which they are looked at", "The first that holds is the verdict."


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
        ui.link("Evidence, and where the time went", fmt.link("explain", bulk_id))
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
                for name, _ in explanation.times(first):
                    with layout.card(name):
                        columns = dict(zip(("part", "time", "share"), explanation.SPENT, strict=True))
                        tables.append(layout.table(columns, [], "part", "time", long="part"))
            with layout.card("Makespan, queue waits, stragglers"):
                chain = ui.element("div")
            others = layout.card(LOOKED_AT, FIRST)
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
                for table, (_, parts) in zip(tables, explanation.times(found), strict=True):
                    _fill(table, _parts(parts))
                chain.clear()
                with chain:
                    for line in explanation.chain(found):
                        ui.label(line)
                others.clear()
                with others:
                    ui.label(LOOKED_AT).classes("bs-title")
                    ui.label(FIRST).classes("bs-mute")
                    for finding in found["findings"]:
                        _finding(finding)

            layout.live(show, box, EVERY_S)


def _title(found: Mapping[str, Any]) -> str:
    title = found["verdict"]["title"]
    partial = "" if found["state"] == "complete" else f" – {explanation.state(found)}"
    return f"{title[0].upper()}{title[1:]}{partial}"


def _sentences(place: ui.element, found: Mapping[str, Any]) -> None:
    place.clear()
    with place:
        for line in explanation.summary(found):
            ui.label(line)


def _finding(finding: Mapping[str, Any]) -> None:
    name = f"{explanation.MARKS[finding['holds']]} – {finding['title']}: {finding['text']}"
    with ui.expansion(name).classes("w-full").props("dense"):
        layout.table(EVIDENCE, _evidence(finding), "key", long="text")


def _evidence(finding: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": n, "holds": explanation.SPEAKS[item["holds"]], "text": item["text"]}
        | ({"text_href": item["link"]} if item["link"] else {})
        for n, item in enumerate(finding["evidence"])
    ]


def _parts(parts: list[explanation.Part]) -> list[dict[str, Any]]:
    return [
        dict(zip(("part", "time", "share"), cells, strict=True)) | {"share_bar": [100 * share, 0]}
        for cells, share in explanation.shares(parts)
    ]


def _fill(table: ui.table, rows: list[dict[str, Any]]) -> None:
    table.rows = rows
    table.update()
