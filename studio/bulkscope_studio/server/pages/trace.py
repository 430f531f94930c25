"""``/trace/{id}``: the waterfall, and what one span carries."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from bulkscope_studio.server.pages import fmt, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.text.wording import ABSENT, UNKNOWN, count, seconds

MOST_SPANS = 2000
NAME = r"""<q-td :props="props">
<span :style="{paddingLeft: Math.min(props.row.depth, 20) * 14 + 'px', cursor: 'pointer'}">
{{ props.row.failed ? '✗ ' : '' }}{{ props.value }}</span></q-td>"""
BAR = r"""<q-td :props="props" style="width:60%;min-width:240px"><div style="position:relative;height:12px">
<div :style="{position: 'absolute', left: props.row.left + '%', width: props.row.width + '%', minWidth: '2px',
 height: '12px', background: props.row.failed ? 'repeating-linear-gradient(45deg,#d55e00 0 4px,#7a3600 4px 6px)'
 : props.row.colour}"></div></div></q-td>"""
# By the kind of span, in the colours of a bulk's lanes: enqueueing amber, work blue, inference light blue.
KIND = {"SERVER": "#009e73", "PRODUCER": "#e69f00", "CONSUMER": "#0072b2"}
INNER = "#56b4e9"


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/trace/{trace_id}")
    async def page(trace_id: str, span: str = "") -> None:
        with layout.frame(data, "Trace", ""):
            found = await data.rows("trace", trace_id=trace_id, limit=MOST_SPANS)
            if not found:
                with layout.card("No such trace"):
                    ui.label(trace_id).classes("bs-wrap")
                    ui.label("It has not arrived yet, or the retention has deleted it.")
                    ui.link("All bulks", "/bulks")
                return
            detail = ui.element("div")

            async def show(span_id: str) -> None:
                whole = await data.rows("span", trace_id=trace_id, span_id=span_id)
                logs = await data.rows("span_logs", trace_id=trace_id, span_id=span_id)
                detail.clear()
                with detail:
                    if whole:
                        _detail(whole[0], logs)

            cut = found[0]["total"] - len(found)
            later = f"; {count(cut, 'later one is', 'later ones are')} not shown" if cut else ""
            note = count(len(found), "span") + later
            with layout.card("Trace", note):
                ui.label(trace_id).classes("bs-wrap")
                bulk = next((row["bulk_id"] for row in found if row["bulk_id"]), None)
                if bulk:
                    ui.link("Bulk", fmt.link("bulk", bulk))
                columns = {
                    "name": "span (click for details)",
                    "service": "service",
                    "duration": "duration",
                    "bar": "time",
                }
                table = layout.table(columns, waterfall(found), "key", "duration")
                table.props("virtual-scroll").style("max-height:60vh")
                table.add_slot("body-cell-name", NAME)
                table.add_slot("body-cell-bar", BAR)
                table.on("row-click", lambda e: show(e.args[1]["key"]), [[], ["key"], None])
            detail.move(target_index=-1)
            if span:
                await show(span)


def waterfall(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the spans in tree order with depth and place (%); parents that are missing or circular make roots."""
    known = {row["span_id"] for row in rows}
    children: dict[str | None, list[Row]] = {}
    for row in rows:
        parent = row["parent_span_id"] if row["parent_span_id"] in known else None
        children.setdefault(parent, []).append(row)
    first, last = min(r["start_ns"] for r in rows), max(r["end_ns"] for r in rows)
    whole = max(last - first, 1)
    made: list[dict[str, Any]] = []
    seen: set[str] = set()

    def walk(roots: list[Row]) -> None:
        stack = [(row, 0) for row in reversed(roots)]
        while stack:
            row, depth = stack.pop()
            if row["span_id"] in seen:
                continue
            seen.add(row["span_id"])
            made.append({
                "key": row["span_id"], "name": row["name"] or UNKNOWN, "service": row["service_name"] or UNKNOWN,
                "duration": seconds((row["end_ns"] - row["start_ns"]) / 1e9), "depth": depth, "bar": "",
                "failed": row["status"] == "ERROR", "colour": KIND.get(row["kind"], INNER),
                "left": 100 * (row["start_ns"] - first) / whole,
                "width": 100 * (row["end_ns"] - row["start_ns"]) / whole,
            })  # fmt: skip
            stack += [(child, depth + 1) for child in reversed(children.get(row["span_id"], []))]

    walk(children.get(None, []))
    walk(rows)  # what only a circle leads to
    return made


def _detail(span: Row, logs: list[Row]) -> None:
    long = ("attributes", "events", "links", "resource")
    with layout.card(f"Span {span['name'] or span['span_id']}").mark("span"):
        rows = [
            {"key": name, "value": f"{value} ({fmt.utc(value)})" if name in ("start_ns", "end_ns") else str(value)}
            for name, value in span.items()
            if value is not None and name not in long
        ]
        layout.table({"key": "attribute", "value": "value"}, rows, long="value")
        for name in long:
            if span[name]:
                ui.label(name).classes("bs-title")
                ui.label(span[name]).classes("bs-wrap")
    with layout.card("Logs of this span", "at most 200" if logs else "none"):
        if logs:
            shown = [
                {
                    "key": n,
                    "time": fmt.local(r["time_ns"]),
                    "severity": r["severity"] or ABSENT,
                    "body": r["body"] or r["event_name"],
                }
                for n, r in enumerate(logs)
            ]
            layout.table({"time": "time", "severity": "severity", "body": "text"}, shown, long="body")
