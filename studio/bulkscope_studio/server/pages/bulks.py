"""``/bulks`` and ``/bulk/{id}``: the list with progress, and one bulk with its lanes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any
from urllib.parse import quote

from nicegui import ui

from bulkscope.conventions import UNBEGUN
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.pages import charts, ending, explain, fmt, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.services import figures
from bulkscope_studio.services.figures import Distribution, Figures, Inferences
from bulkscope_studio.services.times import SILENT_NS
from bulkscope_studio.storage.summaries import Extent
from bulkscope_studio.text import wording

MOST_JOBS = 3000
# A bulk of which nothing new has come for RESTS_S is at rest (host samples of its end come up to 10 s later, lost jobs
# are reported after 15 s); it is read again every RESTING_S.
RESTS_S, RESTING_S = 30.0, 60.0
# What is known of the jobs of a bulk of which there are only log records.
NOTHING: Row = {"sent": None, "jobs": None, "done": None, "failed": None, "domains": None} | dict.fromkeys(UNBEGUN, 0)
# In a worker's lane, above: one thin line a job while it waits, in the order of their starts, so that the queue
# is seen to drain. Below: a solid bar while it works, the inference as a line inside. A failed job differs by
# colour and by a dashed dark border.
WORK_HEIGHT = 22
DRAW = """(params, api) => {
  const y = api.value(0), p = (t) => api.coord([t, y]);
  const lane = api.size([0, 1])[1] * 0.88, h = 22, room = lane - h - 4, clip = params.coordSys;
  const bar = (a, b, dy, hh, style) => {
    const x0 = Math.max(p(a)[0], clip.x), x1 = Math.min(Math.max(p(b)[0], p(a)[0] + 1), clip.x + clip.width);
    if (x1 <= x0) return null;
    return {type: 'rect', shape: {x: x0, y: p(a)[1] + dy, width: x1 - x0, height: hh}, style};
  };
  const step = room / api.value(9), work = lane / 2 - h;
  const style = api.value(6) === 1 ? {fill: '#d55e00', stroke: '#3a1900', lineWidth: 1.5, lineDash: [3, 2]}
    : {fill: '#0072b2', stroke: '#fff', lineWidth: 0.5};
  const parts = [
    bar(api.value(1), api.value(2), -lane / 2 + step * api.value(8), Math.max(1, step * 0.7), {fill: '#e69f00'}),
    bar(api.value(2), api.value(3), work, h, style)];
  if (api.value(4) > 0) parts.push(bar(api.value(4), api.value(5), work + h / 2 - 2, 4, {fill: '#9ad4f5'}));
  return {type: 'group', children: parts.filter((x) => x)};
}"""
# Plain text: job ids come from outside and must not be read as HTML, so tooltips are escaped.
TIP = """(p) => { const e = (s) => String(s).replace(/[&<>"']/g, (c) => '&#' + c.charCodeAt(0) + ';');
  return p.seriesType === 'custom' ? e(p.value[7]) : e(p.seriesName) + ': ' + (+p.value[1]).toPrecision(4); }"""


def register(data: Data) -> None:
    """Add both pages."""

    @ui.page("/bulks")
    async def bulks() -> None:
        with layout.frame(data, "Bulks", "/bulks"):
            empty = ui.element("div")
            with empty:
                layout.hint(data)
            box = layout.card("Bulks, newest first", "The newest 200. A job is done or failed by its last attempt.")
            with box:
                columns = {
                    "bulk": "bulk", "started": "started", "models": "models", "progress": "progress", "done": "done",
                    "failed": "failed", "unbegun": "never begun",
                    "duration": "duration", "ends": "ends in", "wait": "mean queue wait",
                    "tokens": "output tokens",
                }  # fmt: skip
                table = layout.table(columns, [], "bulk", "done failed duration ends wait tokens")

            async def show() -> None:
                found = await data.rows("bulks")
                empty.set_visibility(not found)
                box.set_visibility(bool(found))
                ends = await ending.of(data, found)
                table.rows = [_bulk_row(row, ending.shown(ends, row["bulk_id"])) for row in found]
                table.update()

            layout.live(show, box, 2.0)

    @ui.page(f"/bulk/{any_id('bulk_id')}")
    async def bulk(bulk_id: str) -> None:
        with layout.frame(data, "Bulk", ""):
            known = await data.extent(bulk_id)
            found = known and await data.row("bulk_numbers", bulk_id=bulk_id, **known.bounds)
            if not found or not found["rows"]:
                with layout.card("No such bulk"):
                    ui.label(bulk_id).classes("bs-wrap")
                    ui.label("It has not arrived yet, or the retention has deleted it.")
                    ui.link("All bulks", "/bulks")
                return
            await _bulk(data, bulk_id, found)


def _bulk_row(row: Row, ends: str) -> dict[str, Any]:
    sent, done, failed, cancelled = row["sent"], row["done"], row["failed"], row["cancelled"]
    others = [f"{row[name]:,} {name.replace('_', ' ')}" for name in UNBEGUN if row[name]]
    return {
        "bulk": row["bulk_id"], "bulk_href": fmt.link("bulk", row["bulk_id"]), "started": fmt.local(row["start_ns"]),
        "started_tip": fmt.utc(row["start_ns"]), "models": row["models"] or wording.ABSENT,
        "progress": f"{done + failed + cancelled:,} of {sent:,}" if sent else wording.ABSENT,
        "progress_bar": [100 * done / sent, 100 * failed / sent] if sent else [0, 0],
        "done": wording.number(done), "failed": wording.number(failed),
        "unbegun": ", ".join(others) or wording.ABSENT, "duration": wording.seconds(row["duration"]),
        "ends": ends, "wait": wording.seconds(row["wait"]), "tokens": wording.number(row["tokens"]),
    }  # fmt: skip


async def _bulk(data: Data, bulk_id: str, first: Row) -> None:
    with layout.card("Bulk"):
        ui.label(bulk_id).classes("bs-wrap").mark("bulk-id")
        with ui.row():
            ui.link("Trace", fmt.link("trace", first["trace_id"]))
            ui.link("Logs", f"/logs?bulk={quote(bulk_id, safe='')}")
    ending.card(data, bulk_id)
    explain.card(data, bulk_id)
    lanes = layout.card("Workers")
    with lanes:
        note = ui.label().classes("bs-mute")
        chart = ui.echart({}).style("height:560px;width:100%").mark("lanes")
    with layout.card("The thirteen numbers"):
        numbers = layout.table({"n": "#", "name": "number", "value": "value"}, [], "n", long="value")
    with layout.card("By model"):
        models = layout.table(MODEL_COLUMNS, [], "model", MODEL_NUMERIC)
    columns = {
        "job": "job", "attempt": "attempt", "wait": "queue wait", "work": "work", "worker": "worker", "error": "error",
    }  # fmt: skip
    with layout.card("Slowest 20 attempts"):
        slow = layout.table(columns, [], "key", "attempt wait work")
    with layout.card("Failed attempts, at most 100"):
        bad = layout.table(columns, [], "key", "attempt wait work")
    gone_columns = {
        "job": "job", "attempt": "attempt", "worker": "worker", "model": "model", "elapsed": "worked at least",
        "memory": "last RAM", "limit": "RAM limit", "domain": "cause",
    }  # fmt: skip
    with layout.card(
        "Lost with their workers",
        "The worker's parent process reported its end, or an attempt began, did not end, and was silent for 15 s. "
        "Cause 'resource': the kernel counted a kill for memory; '(likely)': memory was nearly full when the worker "
        "was last heard of.",
    ):
        gone = layout.table(gone_columns, [], "key", "attempt elapsed memory limit")

    last: Extent | None = None
    changed = read = 0.0

    async def show() -> None:
        nonlocal last, changed, read
        known, now = await data.extent(bulk_id), time.monotonic()
        if known != last:
            last, changed = known, now
        elif now - changed > RESTS_S and now - read < RESTING_S:
            return
        read = now
        if known is None:  # the retention has deleted it: what was read last stays
            return
        at = {"bulk_id": bulk_id, **known.bounds}
        total, listed = await asyncio.gather(data.row("bulk_numbers", **at), data.rows("bulk_progress", **at))
        total |= listed[0] if listed else NOTHING
        span = total["to_ns"] - total["from_ns"]
        bin_ns = max(10**9, span // 300 // 10**9 * 10**9)
        jobs, points, counted, slowest, failed, lost = await asyncio.gather(
            data.rows("bulk_jobs", limit=MOST_JOBS, **at),
            data.rows("bulk_points", from_ns=total["from_ns"], to_ns=total["to_ns"], bin_ns=bin_ns, **at),
            data.asked(lambda: figures.of_bulk(data.store, bulk_id, known)),
            data.rows("bulk_worst", failed=False, **at),
            data.rows("bulk_worst", failed=True, **at),
            data.rows("lost", bulk=bulk_id, silent_ns=time.time_ns() - SILENT_NS, **at),
        )
        cut = jobs[0]["total"] - len(jobs) if jobs else 0
        note.set_text(
            "Amber: queue wait, one line a job. Blue: work; light line inside: inference. Vermilion, dashed: failed. "
            + (f"{wording.count(cut, 'later attempt is', 'later attempts are')} not drawn." if cut else "")
        )
        _draw(chart, jobs, points, total)
        numbers.rows = thirteen(total, counted)
        models.rows = [model_row(name, of) for name, of in counted.models.items()]
        slow.rows, bad.rows = [_job_row(r) for r in slowest], [_job_row(r) for r in failed]
        gone.rows = [_lost_row(r) for r in lost if not r["without_end"]]
        for table in (numbers, models, slow, bad, gone):
            table.update()

    layout.live(show, lanes, 3.0)


def _draw(chart: ui.echart, jobs: list[Row], points: list[Row], total: Row) -> None:
    workers = sorted({row["worker"] for row in jobs})
    most = max(Counter(row["worker"] for row in jobs).values(), default=0)
    lane = 60 + (WORK_HEIGHT + 12 + min(60, 3 * most)) * max(1, len(workers))
    names = ["jobs by worker", "CPU, % of the cores each may use; host", "RAM, GiB: workers resident, host used"]
    option = charts.panels(names, 120, lane, left=96)
    option["yAxis"][0] = {
        "type": "category", "gridIndex": 0, "data": workers, "axisTick": {"show": False}, "axisLine": {"show": False},
        "axisLabel": {"color": charts.GREY, "width": 88, "overflow": "truncate", "fontSize": 11},
    }  # fmt: skip
    option["tooltip"] = {"trigger": "item", "confine": True, ":formatter": TIP}
    place = {worker: n for n, worker in enumerate(workers)}
    order: Counter[str] = Counter()
    made = []
    for row in jobs:
        made.append([*_lane(row, place[row["worker"]]), order[row["worker"]], most])
        order[row["worker"]] += 1
    option["legend"] = {
        "data": ["host", *workers], "top": lane + 4, "right": 16, "type": "scroll", "width": "60%",
        "textStyle": {"color": charts.GREY}, "itemHeight": 8,
    }  # fmt: skip
    option["series"] = [
        {"type": "custom", "name": "jobs", "xAxisIndex": 0, "yAxisIndex": 0, ":renderItem": DRAW, "data": made,
         "encode": {"x": [1, 2, 3], "y": 0}}
    ]  # fmt: skip
    for panel, what, scale in ((1, "cpu", 100.0), (2, "ram", 1 / 2**30)):
        for n, who in enumerate(["host", *workers]):
            line = [[r["t_ms"], r["value"] * scale] for r in points if r["what"] == what and r["who"] == who]
            colour = charts.GREY if who == "host" else charts.CYCLE[(n - 1) % 6]
            option["series"].append(charts.series(panel, who, line, colour))
    for axis in option["xAxis"]:
        axis["min"], axis["max"] = total["from_ns"] // 10**6, total["to_ns"] // 10**6
    chart.style(f"height:{charts.height(names, 120, lane)};width:100%")
    chart.options.clear()
    chart.options.update(option)
    chart.update()


def _lane(row: Row, place: int) -> list[Any]:
    start, end = row["start_ns"] / 1e6, row["end_ns"] / 1e6
    waited = max(row["wait"] or 0.0, 0.0)
    text = f"{row['job_id']} attempt {row['attempt']}: queue wait {wording.seconds(row['wait'])}"
    text += f", work {wording.seconds((end - start) / 1e3)}"
    if row["failed"]:
        text += f", failed: {row['failure_domain'] or ''} {row['error_type'] or ''}"
    inner = (row["infer_start"] or 0) / 1e6, (row["infer_end"] or 0) / 1e6
    return [place, start - waited * 1e3, start, end, *inner, 1 if row["failed"] else 0, text]


def _lost_row(row: Row) -> dict[str, Any]:
    return {
        "key": row["span_id"], "job": row["job_id"], "attempt": row["attempt"], "worker": row["worker"],
        "model": (row["model"] or wording.UNKNOWN) + wording.likely(row["model_likely"]),
        "elapsed": wording.seconds(row["elapsed"]), "memory": wording.size(row["memory"]),
        "limit": wording.size(row["memory_limit"]),
        "domain": row["domain"] + wording.likely(row["likely"]),
    }  # fmt: skip


def _job_row(row: Row) -> dict[str, Any]:
    return {
        "key": row["span_id"], "job": row["job_id"] or wording.UNKNOWN,
        "job_href": fmt.link("trace", row["trace_id"]) + f"?span={row['span_id']}",
        "attempt": row["attempt"], "wait": wording.seconds(row["wait"]), "work": wording.seconds(row["work"]),
        "worker": row["worker"] or wording.UNKNOWN,
        "error": " ".join(filter(None, (row["failure_domain"], row["error_type"]))) or wording.ABSENT,
    }  # fmt: skip


def _p50_p95(of: Distribution | None) -> str:
    return wording.ABSENT if of is None else f"p50 {wording.seconds(of.p50)}, p95 {wording.seconds(of.p95)}"


def thirteen(t: Row, found: Figures) -> list[dict[str, Any]]:
    """Return the thirteen numbers as rows of a table; estimates are marked."""
    asked, work = found.requests, found.total
    failures = (f"{name.replace('_', ' ')} {n:,}" for name, n in asked.outcomes.items() if name in figures.FAILURES)
    unknown = sum(n for name, n in asked.outcomes.items() if name not in figures.FAILURES and name != "ok")
    never = [f"{t[name]:,} {name.replace('_', ' ')}" for name in UNBEGUN if t[name]]
    enqueueing = f"enqueueing {wording.seconds(asked.enqueue_s)} for {wording.count(t['sent'], 'job')}"
    cpu = wording.unless_exact(wording.seconds(work.cpu_s), work.cpu_exact_share)
    used = None if work.cpu_utilization is None else work.cpu_utilization.mean
    shown = (
        ("API requests", wording.number(asked.count) + (f", {unknown:,} of unknown outcome" if unknown else "")),
        ("API failures", ", ".join(failures)),
        ("API latency", f"{_p50_p95(asked.latency_s)}; {enqueueing}"),
        ("jobs", ", ".join([f"{wording.number(t['sent'])} sent, {wording.number(t['done'])} done", *never])),
        ("failed jobs", wording.number(t["failed"]) + (f" ({t['domains']})" if t["domains"] else "")),
        ("queue wait", ", ".join(f"{name} {wording.seconds(t[f'wait_{name}'])}" for name in ("mean", "p50", "p95"))),
        ("inference time", _p50_p95(work.duration_s)),
        ("CPU time", f"{cpu}, {wording.percent(used)} of its cores"),
        ("peak RAM", wording.unless_exact(wording.size(work.memory_peak_bytes), work.memory_exact_share)),
        ("output tokens", wording.number(work.output_tokens)),
        ("input tokens", f"{wording.number(work.input_tokens)} ({wording.number(work.cached_tokens)} cached)"),
        (
            "output tokens per second",
            f"{wording.number(work.tokens_per_s)} of inference time, {wording.number(work.decode_tokens_per_s)} in "
            "decode",
        ),
        ("queue wait / total time", wording.percent(t["wait_ratio"])),
    )
    return [{"n": n, "name": name, "value": value} for n, (name, value) in enumerate(shown, 1)]


MODEL_COLUMNS = {
    "model": "model", "n": "inferences", "failed": "failed", "p50": "time p50", "p95": "time p95", "rate": "tokens/s",
    "decode": "decode tokens/s", "cpu": "CPU time / output token", "peak": "peak RAM",
    "exact": "measured exactly: CPU, RAM",
}  # fmt: skip
MODEL_NUMERIC = "n failed p50 p95 rate decode cpu peak exact"


def model_row(name: str, of: Inferences) -> dict[str, Any]:
    """Return one model as a row of a table; estimates are marked."""
    took = of.duration_s
    return {
        "model": name, "n": wording.number(of.count), "failed": wording.number(of.failed),
        "p50": wording.seconds(None if took is None else took.p50),
        "p95": wording.seconds(None if took is None else took.p95),
        "rate": wording.number(of.tokens_per_s), "decode": wording.number(of.decode_tokens_per_s),
        "cpu": wording.unless_exact(wording.seconds(of.cpu_s_per_output_token), of.cpu_exact_share),
        "peak": wording.unless_exact(wording.size(of.memory_peak_bytes), of.memory_exact_share),
        "exact": f"{wording.percent(of.cpu_exact_share)}, {wording.percent(of.memory_exact_share)}",
    }  # fmt: skip
