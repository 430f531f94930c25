"""``/logs``: search, newest first."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from bulkscope_studio.server.pages import fmt, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.text import wording

LEVELS = {0: "all", 5: "debug and up", 9: "info and up", 13: "warning and up", 17: "error and up"}
PAGE = 100
# A text is searched in so many logs at once, the newest first: 0.15 s of CPU. In all of 6.7 million it took 0.5 s.
SEARCHED = 2_000_000
NEWEST_NS = 2**63 - 1  # later than any log


async def search(
    data: Data, before_ns: int = NEWEST_NS, *, text: str | None = None, heartbeats: bool = False, **given: object
) -> tuple[list[Row], Row]:
    """Return the logs before a time that match, newest first, and how far back was looked: ``from_ns``, ``older``.

    Heartbeats are one a second of every running job: left out, unless wanted.
    ``older`` logs are not among those that were looked through; they are where a text is searched in very many.
    """
    reach: Row = {"from_ns": 0, "older": 0}
    if text is not None:
        reach = await data.row("logs_reach", before_ns=before_ns, most=SEARCHED)
    found = await data.rows(
        "logs", from_ns=reach["from_ns"], before_ns=before_ns, text=text, heartbeats=heartbeats, **given
    )
    return found, reach


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/logs")
    async def page(bulk: str = "") -> None:
        with layout.frame(data, "Logs", "/logs"):
            extent = await data.stored()
            if not extent["n"]:
                layout.hint(data)
            offset = 0
            # Where the searches began that led here, the newest first; a text in very many logs is searched in parts.
            begun = [NEWEST_NS]
            reach: Row = {"from_ns": 0, "older": 0}
            more = False
            with ui.element("div").classes("bs-card bs-filters"):
                text = ui.input("text").props("dense clearable")
                level = ui.select(LEVELS, value=0, label="severity").props("dense").style("min-width:140px")
                bulk_in = ui.input("bulk", value=bulk).props("dense clearable")
                service = ui.input("service").props("dense clearable")
                heartbeats = ui.switch("heartbeats").props("dense")
            box = layout.card("Logs, newest first")
            with box:
                note = ui.label().classes("bs-mute")
                columns = {
                    "time": "time",
                    "severity": "severity",
                    "service": "service",
                    "bulk": "bulk",
                    "trace": "trace",
                    "body": "text",
                }
                table = layout.table(columns, [], long="body")
                with ui.row():
                    newer = ui.button("newer").props("dense flat no-caps")
                    older = ui.button("older").props("dense flat no-caps")

            async def show() -> None:
                nonlocal reach, more
                found, reach = await search(
                    data, begun[-1], text=text.value or None, severity=level.value or None,
                    bulk_id=bulk_in.value or None, service=service.value or None, offset=offset,
                    heartbeats=heartbeats.value,
                )  # fmt: skip
                table.rows = [_row(n, row) for n, row in enumerate(found[:PAGE])]
                table.update()
                more = len(found) > PAGE
                said = "No log matches"
                if found:
                    said = wording.between(offset + 1, offset + len(found[:PAGE]))
                    said += ", older ones follow" if more else ""
                if reach["older"]:
                    left = wording.count(reach["older"], "older one is", "older ones are")
                    said += f"; searched back to {fmt.local(reach['from_ns'])}, {left} not searched yet"
                note.set_text(f"{said}.")
                newer.set_enabled(offset > 0 or len(begun) > 1)
                older.set_enabled(more or reach["older"] > 0)
                older.set_text("older" if more or not reach["older"] else "search older ones")

            async def forth() -> None:
                nonlocal offset
                if more:
                    offset += PAGE
                else:
                    begun.append(reach["from_ns"])
                    offset = 0
                await show()

            async def back() -> None:
                nonlocal offset
                if offset:
                    offset -= PAGE
                else:
                    begun.pop()
                await show()

            async def again() -> None:
                nonlocal offset
                offset = 0
                begun[:] = [NEWEST_NS]
                await show()

            newer.on_click(back)
            older.on_click(forth)
            for field in (text, level, bulk_in, service, heartbeats):
                field.on_value_change(again)
            layout.live(show, box, None)


def _row(n: int, row: Row) -> dict[str, Any]:
    made = {
        "key": n, "time": fmt.local(row["time_ns"]), "time_tip": fmt.utc(row["time_ns"]),
        "severity": row["severity"] or wording.ABSENT, "service": row["service_name"] or wording.UNKNOWN,
        "bulk": row["bulk_id"] or wording.ABSENT, "trace": (row["trace_id"] or wording.ABSENT)[:8],
        "body": row["body"] or row["event_name"] or wording.ABSENT,
    }  # fmt: skip
    if row["bulk_id"]:
        made["bulk_href"] = fmt.link("bulk", row["bulk_id"])
    if row["trace_id"]:
        made["trace_href"] = fmt.link("trace", row["trace_id"])
    return made
