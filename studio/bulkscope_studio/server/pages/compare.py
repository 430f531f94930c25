"""``/compare``: two models, two runs or two settings side by side, and the runs that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from bulkscope_studio.rendering import comparison as render_compare
from bulkscope_studio.server.pages import fmt, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.services import bulks as bulk_list
from bulkscope_studio.services import comparisons, runs
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.text import wording

# Names to choose from; older bulks can be typed.
CHOICES = 50
ROWS = dict(zip(("number", "a", "b", "effect", "verdict", "jobs"), render_compare.HEADS, strict=True))
RUNS = {"run": "run", "ran": "ran (UTC)", "kept": "kept (UTC)", "jobs": "jobs", "size": "size", "models": "models"}


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/compare")
    async def page(a: str = "", b: str = "") -> None:
        with layout.frame(data, "Compare", "/compare"):
            bulks, kept = await asyncio.to_thread(
                lambda: (bulk_list.list_bulks(data.store, CHOICES), runs.every(data.store))
            )
            if not bulks and not kept:
                layout.hint(data)
            _form(a, b, names(bulks, kept))
            if a and b:
                await _result(data, a, b)
            with layout.card(
                "Kept runs", "The retention does not delete them. To keep one: bulkscope runs keep NAME BULK"
            ):
                layout.table(RUNS, [_run_row(row) for row in kept], "run", "jobs size", long="models")


def names(bulks: list[Row], kept: list[Row]) -> list[str]:
    """Return what can be compared, runs first; of several models each by itself too."""
    all_of = [(row["name"], row["models"]) for row in kept] + [(row["id"], row["models"]) for row in bulks]
    found = []
    for name, models in all_of:
        found.append(name)
        if len(models) > 1:
            found += [f"{name}@{model}" for model in models]
    return found


def _form(a: str, b: str, known: list[str]) -> None:
    with layout.card(
        "Compare", "The id of a bulk, the name of a kept run, or 'latest'; add @MODEL for one of its models."
    ):
        with ui.element("div").classes("bs-filters"):
            fields = [
                ui.input(name, value=value, autocomplete=known).props("dense").style("min-width:min(100%,300px)")
                for name, value in (("A", a), ("B", b))
            ]

            def go() -> None:
                values = [(field.value or "").strip() for field in fields]
                if all(values):
                    ui.navigate.to("/compare?" + urlencode(dict(zip(("a", "b"), values, strict=True))))

            for field in fields:
                field.on("keydown.enter", go)
            ui.button("compare", on_click=go).props("dense flat no-caps")
        if known and not (a and b):
            ui.label("Available: " + ", ".join(known[: bulk_list.NEAREST])).classes("bs-wrap bs-mute")


async def _result(data: Data, a: str, b: str) -> None:
    try:
        found = await layout.computed(lambda: comparisons.compare(StoredSides(data.store), a, b))
    except NotFound as unknown:
        with layout.card("No such side"):
            layout.nearest(unknown)
        return
    except InvalidQuery as trouble:
        with layout.card("This cannot be compared"):
            ui.label(str(trouble)).classes("bs-wrap bs-error")
        return
    with layout.card("Answer"):
        ui.label(found["answer"]).classes("bs-title").style("overflow-wrap:anywhere").mark("answer")
        for line in [*render_compare.sides(found), *render_compare.pairing(found)]:
            ui.label(line).classes("bs-mute").style("overflow-wrap:anywhere")
        with ui.row():
            for side in ("a", "b"):
                for bulk in found[side]["bulks"]:
                    ui.link(f"{side.upper()}: bulk {bulk}", fmt.link("bulk", bulk)).style("overflow-wrap:anywhere")
    if found["cautions"]:
        with layout.card("Cautions"):
            for caution in found["cautions"]:
                ui.label(caution["text"]).style("overflow-wrap:anywhere")
    if found["rows"]:
        with layout.card("Number by number", render_compare.method(found)):
            layout.table(ROWS, [_row(row) for row in found["rows"]], "number", "a b", long="number effect")
            for line in [*render_compare.notes(found), render_compare.FOOT]:
                ui.label(line).classes("bs-mute").style("overflow-wrap:anywhere")


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(ROWS, render_compare.cells(row), strict=True))


def _run_row(row: Row) -> dict[str, Any]:
    return {
        "run": row["name"], "run_tip": ", ".join(row["bulks"]), "ran": render_compare.when(row["start_ns"]),
        "kept": render_compare.when(row["kept_ns"]), "jobs": wording.number(row["jobs"]),
        "size": wording.size(row["bytes"]),
        "models": row["damaged"] or ", ".join(row["models"]) or wording.ABSENT,
    }  # fmt: skip
