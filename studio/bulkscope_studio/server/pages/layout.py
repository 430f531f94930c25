"""What every page has: navigation, the strip of what was accepted and lost, cards, tables, hints."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

from nicegui import Client, ui

from bulkscope_studio.server.pages.data import SPENT, Data
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.text import wording

T = TypeVar("T")
# Of a core, for each part of a page that refreshes itself, by the clocks of the threads that ask: DuckDB's second
# thread takes as much again. And of the time, whoever else kept the machine busy.
MOST_CPU, MOST_TIME = 0.01, 0.1
CONNECTED_S = 30.0  # until a browser has loaded the page and opened its socket
logger = logging.getLogger("bulkscope.studio.web")
PAGES = (
    ("Overview", "/"), ("Bulks", "/bulks"), ("Capacity", "/capacity"), ("Compare", "/compare"),
    ("Inference", "/inference"), ("Logs", "/logs"),
)  # fmt: skip
CSS = """
body{font-family:system-ui,sans-serif;font-size:14px;background:#f5f6f8;color:#1c2430}
.body--dark{background:#12161c;color:#dde3ea}
.nicegui-content{padding:12px;max-width:1600px;margin:0 auto;width:100%;gap:12px;align-items:stretch}
.bs-card{background:#fff;border:1px solid #dfe3e8;border-radius:8px;padding:12px;width:100%;min-width:0;overflow:hidden}
.body--dark .bs-card{background:#1a2028;border-color:#2c3541}
.bs-head{background:#fff!important;color:#1c2430!important;border-bottom:1px solid #dfe3e8;
  padding:6px 12px;gap:4px 14px;flex-wrap:wrap;align-items:center}
.body--dark .bs-head{background:#1a2028!important;color:#dde3ea!important;border-color:#2c3541}
.bs-head a{color:inherit;text-decoration:none;padding:4px 2px} .bs-head a.on{border-bottom:2px solid #0072b2}
.bs-tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(135px,1fr));gap:8px;width:100%}
.bs-tile{padding:8px 12px}.bs-tile b{font-size:19px;font-weight:600;display:block;font-variant-numeric:tabular-nums}
.bs-mute{color:#5c6673;font-size:12px}.body--dark .bs-mute{color:#98a4b3}
.bs-title{font-weight:600}.bs-strip{display:flex;flex-wrap:wrap;gap:2px 16px;width:100%;overflow-wrap:anywhere}
.bs-card a{color:#0067a3}.body--dark .bs-card a{color:#6cb8ee}
.bs-card .q-table__container{box-shadow:none;background:transparent;width:100%;max-width:100%}
.bs-wrap{overflow-wrap:anywhere;white-space:pre-wrap;font-family:ui-monospace,monospace;font-size:12px}
.bs-card .q-table th,.bs-card .q-table td{white-space:nowrap}
.bs-card .q-table td.bs-long{white-space:normal;min-width:240px;overflow-wrap:anywhere}
.bs-card .q-table__bottom--nodata .q-icon{display:none}.bs-toggle{width:fit-content}
.bs-pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));gap:8px;width:100%}
.bs-filters{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:end}
.bs-error{color:#b23c00}.body--dark .bs-error{color:#ff9d6b}
@media(max-width:600px){
.bs-card .q-table thead{display:none}
.bs-card .q-table,.bs-card .q-table tbody{display:block;width:100%}
.bs-card .q-table tbody tr{display:block;height:auto;padding:6px 0;border-bottom:1px solid rgba(128,128,128,.35)}
.bs-card .q-table tbody td,.bs-card .q-table td.bs-long{display:flex;justify-content:space-between;gap:16px;border:0;
  height:auto!important;min-width:0;padding:2px 0!important;text-align:right;white-space:normal;overflow-wrap:anywhere}
.bs-card .q-table tbody td::before{content:attr(data-label) / "";position:static!important;background:none!important;
  opacity:1!important;color:#808a96;text-align:left;white-space:nowrap}
}
"""
VISIBLE = """<script>document.addEventListener('visibilitychange',
() => emitEvent('bulkscope_visible', document.visibilityState === 'visible'));</script>"""
# Pages whose tabs are hidden.
_hidden: WeakSet[Client] = WeakSet()
CELL = r"""
<q-td :props="props" role="cell" :title="props.row[props.col.name + '_tip']" :data-label="props.col.label"
  :class="props.col.long ? 'bs-long' : ''">
  <a v-if="props.row[props.col.name + '_href']" :href="props.row[props.col.name + '_href']">{{ props.value }}</a>
  <div v-else-if="props.row[props.col.name + '_bar'] !== undefined" style="min-width:110px">
    {{ props.value }}
    <div style="height:5px;background:rgba(128,128,128,.25);display:flex;border-radius:3px;overflow:hidden">
      <div :style="{width: props.row[props.col.name + '_bar'][0] + '%', background: '#0072b2'}"></div>
      <div :style="{width: props.row[props.col.name + '_bar'][1] + '%',
        background: 'repeating-linear-gradient(45deg,#d55e00 0 3px,#7a3600 3px 5px)'}"></div>
    </div>
  </div>
  <span v-else>{{ props.value }}</span>
</q-td>"""


@contextmanager
def frame(data: Data, title: str, here: str) -> Iterator[None]:
    """Lay out one page around what the block adds."""
    ui.page_title(f"{title} – Bulkscope")
    ui.add_css(CSS)
    ui.add_body_html(VISIBLE)
    client = ui.context.client
    ui.on("bulkscope_visible", lambda event: _hidden.discard(client) if event.args else _hidden.add(client))
    dark = ui.dark_mode(None)
    with ui.header(elevated=False).classes("bs-head"):
        ui.label("Bulkscope").classes("bs-title")
        for name, path in PAGES:
            ui.link(name, path).classes("on" if path == here else "")
        ui.space()
        # The switch names the modes rather than an icon: the icon font is not needed for it.
        ui.toggle(
            {None: "auto", False: "light", True: "dark"}, value=None, on_change=lambda e: dark.set_value(e.value)
        ).props("dense flat no-caps size=sm")
    yield
    strip = ui.element("div").classes("bs-card bs-strip bs-mute").mark("strip")

    async def show() -> None:
        lost = await data.rows("ingest")
        now = dict(data.status())
        strip.clear()
        with strip:
            if now.get("trouble"):
                ui.label(str(now["trouble"])).classes("bs-error").mark("trouble")
            for kind in ("accepted", "repeated", "refused", "truncated", "dropped"):
                value = now.get(kind)
                if isinstance(value, dict):
                    text = ", ".join(f"{k} {wording.number(v)}" for k, v in value.items()) or "0"
                else:
                    text = wording.ABSENT if value is None else str(value)
                if kind in now or kind != "dropped":
                    ui.label(f"{kind} since start: {text}")
            for row in lost:
                records = f"{wording.number(row['records'])} {row['signal']}"
                ui.label(f"{row['outcome']}: {records} ({row['transport']}: {row['reason']})")
            ui.label(f"store {wording.size(now.get('db_bytes'))}")  # type: ignore[arg-type]

    live(show, strip, 5.0)
    ui.label(wording.LEGEND).classes("bs-mute")


async def computed(work: Callable[[], T]) -> T:
    """Send the page as far as it is, and return what ``work`` computes in a thread.

    A page that is not sent within 3 s is an error to NiceGUI, and a search for the highest rate takes longer. Where no
    browser opens the page's socket, NiceGUI ends it by the time-out that this raises.
    """
    with ui.row() as waiting:
        ui.spinner(size="sm")
        ui.label("computing").classes("bs-mute")
    await ui.context.client.connected(timeout=CONNECTED_S)
    try:
        return await asyncio.to_thread(work)
    finally:
        waiting.delete()


def nearest(unknown: NotFound) -> None:
    """Say what is not there, and which names are near."""
    ui.label(str(unknown)).classes("bs-wrap")
    none = "The store holds no bulk yet." if unknown.what.startswith("bulk") else wording.NO_MODEL
    near = "Nearest: " + ", ".join(unknown.nearest) if unknown.nearest else none
    ui.label(near).classes("bs-wrap")


def live(show: Callable[[], Awaitable[None]], place: ui.element, every: float | None) -> None:
    """Run ``show`` now and every so many seconds; its failure is said in ``place``, and does not end the page.

    Less often where it takes more than ``MOST_CPU`` of a core or ``MOST_TIME`` of the time; not while the page's tab is
    hidden.
    """
    with place:
        pass
    problem = ui.label().classes("bs-error bs-wrap")
    problem.set_visibility(False)
    busy = False
    due = 0.0
    client = ui.context.client

    async def guarded() -> None:
        nonlocal busy, due
        began = time.monotonic()
        if busy or began < due or client in _hidden:  # a query slower than the timer must not pile up
            return
        busy = True
        spent: list[float] = []
        SPENT.set(spent)
        try:
            await show()
            problem.set_visibility(False)
        except Exception as error:
            logger.warning("a page could not be refreshed", exc_info=True)
            problem.set_text(f"This part could not be read: {error}")
            problem.set_visibility(True)
        finally:
            busy = False
            due = began + max(sum(spent) / MOST_CPU, (time.monotonic() - began) / MOST_TIME)

    if every:
        ui.timer(every, guarded)
    else:
        ui.timer(0.01, guarded, once=True)


def card(title: str, note: str = "") -> ui.element:
    """Return a titled card."""
    box = ui.element("div").classes("bs-card")
    with box:
        ui.label(title).classes("bs-title")
        if note:
            ui.label(note).classes("bs-mute")
    return box


def table(
    columns: dict[str, str], rows: list[dict[str, Any]], key: str = "key", numeric: str = "", long: str = ""
) -> ui.table:
    """Return a table that scrolls inside itself; ``<name>_href``, ``_tip``, ``_bar`` of a row dress its cells.

    ``numeric`` names the columns set to the right, ``long`` those whose text is wrapped.
    """
    right, wrapped = set(numeric.split()), set(long.split())
    made = ui.table(
        columns=[
            {
                "name": n,
                "label": label,
                "field": n,
                "align": "right" if n in right else "left",
                "long": n in wrapped,
            }
            for n, label in columns.items()
        ],
        rows=rows,
        row_key=key,
    ).props('dense flat hide-pagination no-data-label="none" :rows-per-page-options="[0]"')
    made.add_slot("body-cell", CELL)
    return made


def hint(data: Data) -> None:
    """Say how to get data into an empty store."""
    with card("Nothing here yet").mark("hint"):
        ui.label("Run your service under Bulkscope: bulkscope run <your command>").classes("bs-wrap")
        otlp = data.status().get("otlp_http", "http://127.0.0.1:4318")
        ui.label(f"Or send OpenTelemetry data (OTLP over HTTP) from any SDK to {otlp}").classes("bs-wrap")
