"""``/logs``: search, newest first."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from bulkscope_studio.analysis import wording
from bulkscope_studio.web import fmt, layout
from bulkscope_studio.web.data import Data, Row

LEVELS = {0: "all", 5: "debug and up", 9: "info and up", 13: "warning and up", 17: "error and up"}
PAGE = 100


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/logs")
    async def page(bulk: str = "") -> None:
        with layout.frame(data, "Logs", "/logs"):
            extent = await data.row("extent")
            if not extent["n"]:
                layout.hint(data)
            offset = 0
            with ui.element("div").classes("bs-card bs-filters"):
                text = ui.input("text").props("dense clearable")
                level = ui.select(LEVELS, value=0, label="severity").props("dense").style("min-width:140px")
                bulk_in = ui.input("bulk", value=bulk).props("dense clearable")
                service = ui.input("service").props("dense clearable")
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
                found = await data.rows(
                    "logs", text=text.value or None, severity=level.value or None, bulk_id=bulk_in.value or None,
                    service=service.value or None, offset=offset,
                )  # fmt: skip
                table.rows = [_row(n, row) for n, row in enumerate(found[:PAGE])]
                table.update()
                more = len(found) > PAGE
                note.set_text(
                    wording.between(offset + 1, offset + len(found[:PAGE])) + (", older ones follow" if more else "")
                    if found else "No log matches."
                )  # fmt: skip
                newer.set_enabled(offset > 0)
                older.set_enabled(more)

            async def turn(by: int) -> None:
                nonlocal offset
                offset = max(0, offset + by)
                await show()

            async def again() -> None:
                await turn(-offset)

            newer.on_click(lambda: turn(-PAGE))
            older.on_click(lambda: turn(PAGE))
            for field in (text, level, bulk_in, service):
                field.on_value_change(again)
            layout.live(show, box, None)


def _row(n: int, row: Row) -> dict[str, Any]:
    made = {
        "key": n, "time": fmt.local(row["time_ns"]), "time_tip": fmt.utc(row["time_ns"]),
        "severity": row["severity"] or fmt.ABSENT, "service": row["service_name"] or fmt.ABSENT,
        "bulk": row["bulk_id"] or fmt.ABSENT, "trace": (row["trace_id"] or fmt.ABSENT)[:8],
        "body": row["body"] or row["event_name"] or fmt.ABSENT,
    }  # fmt: skip
    if row["bulk_id"]:
        made["bulk_href"] = fmt.link("bulk", row["bulk_id"])
    if row["trace_id"]:
        made["trace_href"] = fmt.link("trace", row["trace_id"])
    return made
