"""``/capacity``: what the system sustains, the waits to expect at a rate, and the best load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query
from nicegui import ui

from bulkscope_studio.rendering import capacity
from bulkscope_studio.server.pages import charts, fmt, layout
from bulkscope_studio.server.pages.data import Data
from bulkscope_studio.services import capacities
from bulkscope_studio.services.errors import InvalidQuery, NotFound

FIELDS = {
    "bulk": "bulks (comma-separated)", "last": f"or the last time, such as 2h (default: {capacities.LAST})",
    "model": "model", "rate": "arrival rate, jobs/s", "workers": "concurrency slots",
    "slo": "longest queue wait, such as 30s", "quantile": "share of the jobs, such as 0.95",
}  # fmt: skip


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/capacity")
    async def page(
        bulk: Annotated[list[str] | None, Query()] = None, last: str = "", model: str = "", rate: str = "",
        workers: str = "", slo: str = "", quantile: str = "",
    ) -> None:  # fmt: skip
        given = {"last": last, "model": model, "rate": rate, "workers": workers, "slo": slo, "quantile": quantile}
        bulks = [name for text in bulk or () for name in text.split(",") if name]
        with layout.frame(data, "Capacity", "/capacity"):
            _form({"bulk": ",".join(bulks)} | given)
            try:
                found = await layout.computed(lambda: _ask(data, bulks, given))
            except NotFound as unknown:
                with layout.card("No such bulk"):
                    layout.nearest(unknown)
                return
            except InvalidQuery as wrong:
                with layout.card("No answer").mark("problem"):
                    ui.label(str(wrong)).classes("bs-wrap bs-error")
                return
            for pool in found["pools"]:
                _pool(pool)


def _ask(data: Data, bulks: Sequence[str], given: Mapping[str, str]) -> dict[str, Any]:
    try:
        rate = float(given["rate"]) if given["rate"] else None
        quantile = float(given["quantile"]) if given["quantile"] else None
        workers = int(given["workers"]) if given["workers"] else None
    except ValueError as error:
        raise InvalidQuery(
            f"arrival rate and share are numbers, concurrency slots are a whole number: {error}"
        ) from error
    last, slo, model = (given[name] or None for name in ("last", "slo", "model"))
    question = capacities.Question(bulks, last, rate, slo, quantile, model, workers)
    return capacities.system_capacity(data.store, question)


def _form(values: Mapping[str, str]) -> None:
    note = "The rate that workers sustained while jobs waited, and the queue waits to expect at other loads."
    with layout.card("Capacity", note), ui.element("div").classes("bs-filters"):
        fields = {name: ui.input(label, value=values[name]).props("dense") for name, label in FIELDS.items()}

        def go() -> None:
            given = {name: (field.value or "").strip() for name, field in fields.items()}
            ui.navigate.to("/capacity?" + urlencode({name: value for name, value in given.items() if value}))

        for field in fields.values():
            field.on("keydown.enter", go)
        ui.button("show", on_click=go).props("dense flat no-caps")


def _pool(pool: Mapping[str, Any]) -> None:
    with layout.card(capacity.title(pool)).mark("capacity"):
        for line in capacity.sentences(pool):
            ui.label(line)
    for model in pool["models"]:
        columns = dict(zip(_KEYS, capacity.LEVELS, strict=True))
        rows = [dict(zip(_KEYS, row, strict=True)) for row in capacity.levels(model)]
        with layout.card(f"By number of concurrency slots: {capacity.name(model)}"):
            layout.table(columns, rows, "workers", " ".join(_KEYS[1:]))
            if len(model["levels"]) > 1:
                ui.echart(_chart(model)).style("height:240px;width:100%").props(
                    'aria-label="jobs/s by concurrency slots"'
                )
    if pool["bulks"]:
        keys = ("bulk", "workers", "rate", "jobs", "p50", "p95", "mean")
        rows = [dict(zip(keys, row, strict=True)) for row in capacity.bulks(pool)]
        with layout.card("Measured by bulk"):
            linked = [row | {"bulk_href": fmt.link("bulk", str(row["bulk"]))} for row in rows]
            layout.table(dict(zip(keys, capacity.BULKS, strict=True)), linked, "bulk", " ".join(keys[1:]), long="bulk")


_KEYS = ("workers", "rate", "interval", "tokens", "service", "saturated", "jobs")


def _chart(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return measured throughput over the number of workers, with the law or the ceiling beside it."""
    measured = [
        [level["places"], level["rate_per_s"]["value"]] for level in model["levels"] if level["rate_per_s"] is not None
    ]
    shown = model["scaling"]
    beside: list[list[float]] = []
    name = "upper bound"
    if shown is not None and shown["kind"] == "law":
        name = "universal scalability law"
        beside = [[point["places"], point["rate_per_s"]["value"]] for point in shown["curve"]]
    elif shown is not None:
        beside = [[point["places"], point["most_per_s"]] for point in shown["ceilings"]]
    axis = {"axisLabel": {"color": charts.GREY}, "splitLine": {"lineStyle": {"color": charts.FAINT}}, "min": 0}
    return {
        "animation": False, "backgroundColor": "transparent", "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 50, "right": 16, "top": 34, "bottom": 34},
        "legend": {"top": 0, "textStyle": {"color": charts.GREY}},
        "xAxis": {
            "type": "value", "name": "concurrency slots", "nameLocation": "middle", "nameGap": 22,
            "minInterval": 1, **axis,
        },
        "yAxis": {"type": "value", **axis},
        "series": [
            {"type": "scatter", "name": "measured jobs/s", "data": measured, "itemStyle": {"color": charts.CYCLE[0]}},
            {"type": "line", "name": name, "data": beside, "showSymbol": False,
             "lineStyle": {"width": 1.5, "type": "dashed", "color": charts.CYCLE[1]},
             "itemStyle": {"color": charts.CYCLE[1]}},
        ],
    }  # fmt: skip
