"""``/``: everything at once, on one time axis, live."""

from __future__ import annotations

import asyncio
import time

from nicegui import ui

from bulkscope_studio.server.pages import charts, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.text import wording

RANGES = {"5 min": 300, "15 min": 900, "1 h": 3600, "24 h": 86400, "all": 0}
PANELS = [
    "API requests, 1/s",
    "queue",
    "jobs, attempts/s",
    "output tokens, 1/s",
    "queue wait, s",
    "busy workers",
    "host, %",
]
# Gauges are exported every 60 s where nobody asks for another interval: what a reporter said before is not how it is.
FRESH_NS = 60 * 10**9
# A sample of so many attempts gives the quantiles of their waits in 150 bins to 1 %.
MOST_WAITS = 500_000
_C, _N = charts.COLOURS, charts.CYCLE
KEYS = {
    0: [("ok", _C["ok"]), ("client error", _C["client_error"]), ("overload", _C["overload"]),
        ("internal error", _C["internal_error"]), ("unknown", charts.GREY)],
    1: [("waiting jobs", _N[0]), ("age of the oldest, s", _N[3])],
    2: [("done", _C["done"]), ("failed", _C["failed"])],
    4: [("p50", _N[4]), ("p95", _N[0])],
    6: [("CPU", _N[0]), ("RAM", _N[2]), ("CPU pressure", _N[3])],
}  # fmt: skip


def window(extent: Row, length: int, now_ns: int) -> tuple[int, int, int]:
    """Return (from, to, bin) in ns; length 0 is all there is. About 150 bins, none under 1 s."""
    to_ns = now_ns if length else extent["last_ns"]
    from_ns = to_ns - length * 10**9 if length else extent["first_ns"]
    return from_ns, to_ns, max(10**9, (to_ns - from_ns) // 150 // 10**9 * 10**9)


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/")
    async def page() -> None:
        with layout.frame(data, "Overview", "/"):
            extent = await data.stored()
            recent = extent["n"] and extent["last_ns"] > time.time_ns() - 900 * 10**9
            choice = ui.toggle(list(RANGES), value="15 min" if recent or not extent["n"] else "all")
            choice.props("dense no-caps size=sm").classes("bs-toggle")
            empty = ui.element("div")
            with empty:
                layout.hint(data)
            tiles = ui.element("div").classes("bs-tiles")
            box = ui.element("div").classes("bs-card")
            with box:
                chart = ui.echart(charts.panels(PANELS, keys=KEYS)).mark("chart")
                chart.style(f"height:{charts.height(PANELS)};width:100%")
                ui.label(
                    "Ctrl + wheel zooms. API requests are those that can send jobs: reads (GET) that went well and "
                    "sent none are counted apart. "
                    f"Queue waits are of a sample where over {MOST_WAITS:,} attempts ended."
                ).classes("bs-mute")

            async def show() -> None:
                known = await data.stored()
                empty.set_visibility(not known["n"])
                box.set_visibility(bool(known["n"]))
                tiles.set_visibility(bool(known["n"]))
                if not known["n"]:
                    return
                from_ns, to_ns, bin_ns = window(known, RANGES[choice.value], time.time_ns())
                at = {"from_ns": from_ns, "to_ns": to_ns, "bin_ns": bin_ns}
                requests, jobs, tokens, points = await asyncio.gather(
                    *(data.rows(n, **at) for n in ("requests", "jobs", "tokens", "points"))
                )
                ended = sum(row["done"] + row["failed"] + row["retried"] for row in jobs)
                waits = await data.sampled("waits", MOST_WAITS / max(1, ended), **at)
                chart.options["series"] = _series(requests, jobs, waits, tokens, points, bin_ns / 1e9)
                for axis in chart.options["xAxis"]:
                    axis["min"], axis["max"] = from_ns // 10**6, to_ns // 10**6
                chart.update()
                _tiles(tiles, totals(requests, jobs, tokens), latest(points, to_ns, bin_ns), (to_ns - from_ns) / 1e9)

            layout.live(show, box, 2.0)
            choice.on_value_change(show)


def _pairs(rows: list[Row], key: str, scale: float = 1.0) -> list[list[float]]:
    return [[row["t_ms"], row[key] * scale] for row in rows if row[key] is not None]


def totals(requests: list[Row], jobs: list[Row], tokens: list[Row]) -> Row:
    """Return what was counted in all bins; tokens are None where no inference told of any.

    ``requests`` are those that could send jobs, and those that failed; ``reads`` asked for something, and got it.
    """
    by = {name: sum(row["n"] for row in requests if row["series"] == name) for name in ("overload", "internal_error")}
    failed = sum(row["failed"] for row in jobs)
    return {
        "requests": sum(row["n"] for row in requests if row["series"] != "read"),
        "reads": sum(row["n"] for row in requests if row["series"] == "read"),
        "overload": by["overload"], "internal": by["internal_error"],
        "attempts": sum(row["done"] + row["retried"] for row in jobs) + failed, "failed": failed,
        "tokens": sum(row["n"] for row in tokens) if tokens else None,
    }  # fmt: skip


def _series(
    requests: list[Row], jobs: list[Row], waits: list[Row], tokens: list[Row], points: list[Row], bin_s: float
) -> list[dict[str, object]]:
    rate = 1 / bin_s

    def of(name: str, rows: list[Row] = points) -> list[Row]:
        return [row for row in rows if row["series"] == name]

    colour = charts.COLOURS
    made = [
        charts.series(
            0,
            f"{name.replace('_', ' ')} /s",
            _pairs(of(name, requests), "n", rate),
            colour.get(name, charts.GREY),
            "bar",
            "api",
        )
        for name in ("ok", "client_error", "overload", "internal_error", "unknown")
    ]
    made += [
        charts.series(1, "waiting jobs", _pairs(of("depth"), "value"), charts.CYCLE[0]),
        charts.series(1, "oldest, s", _pairs(of("age"), "value"), charts.CYCLE[3]),
        charts.series(2, "done /s", _pairs(jobs, "done", rate), colour["done"], "bar", "jobs"),
        charts.series(2, "failed /s", _pairs(jobs, "failed", rate), colour["failed"], "bar", "jobs"),
        charts.series(3, "tokens /s", _pairs(tokens, "n", rate), charts.CYCLE[2], "bar", "tokens"),
        charts.series(4, "wait p50, s", _pairs(waits, "wait_p50"), charts.CYCLE[4]),
        charts.series(4, "wait p95, s", _pairs(waits, "wait_p95"), charts.CYCLE[0]),
        charts.series(5, "busy workers", _pairs(of("busy"), "value"), charts.CYCLE[2]),
        charts.series(6, "CPU %", _pairs(of("cpu"), "value", 100), charts.CYCLE[0]),
        charts.series(6, "RAM %", _pairs(of("ram"), "value", 100), charts.CYCLE[2]),
        charts.series(6, "CPU pressure %", _pairs(of("psi"), "value", 100), charts.CYCLE[3]),
    ]
    return made


def latest(points: list[Row], to_ns: int, bin_ns: int) -> Row:
    """Return each series' value at the end of the time; none where nothing was reported for ``FRESH_NS`` before it."""
    return {row["series"]: row["value"] for row in points if row["t_ms"] * 10**6 + bin_ns >= to_ns - FRESH_NS}


def _tiles(place: ui.element, total: Row, last: Row, length: float) -> None:
    rate = total["tokens"] / length if total["tokens"] is not None and length else None
    shown = (
        ("requests", wording.number(total["requests"])),
        ("reads: polling, health checks", wording.number(total["reads"])),
        ("overload failures", wording.number(total["overload"])),
        ("internal failures", wording.number(total["internal"])),
        ("attempts, failed", f"{wording.number(total['attempts'])}, {wording.number(total['failed'])}"),
        ("output tokens", wording.value(rate, "tokens/s")),
        ("waiting at the end", wording.count(last.get("depth"), "job")),
        ("workers busy", wording.number(last.get("busy"))),
        ("host CPU", wording.percent(last.get("cpu"))),
        ("host RAM", wording.percent(last.get("ram"))),
    )
    place.clear()
    with place:
        for name, value in shown:
            with ui.element("div").classes("bs-card bs-tile"):
                ui.label(name).classes("bs-mute")
                with ui.element("b"):
                    ui.label(value)
