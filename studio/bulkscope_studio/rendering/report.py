"""A report (the JSON of the API) as terminal tables or markdown: numbers in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bulkscope_studio.analysis.wording import likely
from bulkscope_studio.rendering.output import Output, inline

ABSENT = "–"
Section = tuple[str, list[tuple[str, list[str]]]]  # title, rows of label and one cell a group


def text(report: Mapping[str, Any], console: Output) -> None:
    """Print the report; tables of many workers are cut into as many as the width holds."""
    console.print(Text.assemble((f"Bulk {report['id']}", "bold"), f"  {_state(report)}"))
    for line in _head(report):
        console.print(line)
    groups = _groups(report)
    fit = max(1, (console.width - 30) // 24)
    for first in range(0, len(groups), fit):
        part = groups[first : first + fit]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("", overflow="fold")
        for label, _ in part:
            table.add_column(label, justify="right", overflow="fold")
        for number, (title, rows) in enumerate(_sections([group for _, group in part])):
            if number:
                table.add_section()
            table.add_row(title, style="bold")
            for label, cells in rows:
                table.add_row(f"  {label}", *cells)
        console.print(table)
    console.print(f"Quantiles: {report['quantiles']}. {ABSENT}: not recorded. ~: estimate.")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as markdown."""
    lines = [f"# Bulk {inline(report['id'])}", "", _state(report), ""]
    lines += [f"- {inline(line)}" for line in _head(report)]
    groups = _groups(report)
    for title, rows in _sections([group for _, group in groups]):
        lines += ["", f"## {title}", "", "| | " + " | ".join(inline(label) for label, _ in groups) + " |"]
        lines.append("|---|" + "---:|" * len(groups))
        lines += [f"| {inline(label)} | " + " | ".join(map(inline, cells)) + " |" for label, cells in rows]
    lines += ["", f"Quantiles: {report['quantiles']}. {ABSENT}: not recorded. ~: estimate.", ""]
    return "\n".join(lines)


def bulks(rows: Sequence[Mapping[str, Any]], console: Output) -> None:
    """Print the list of bulks."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("bulk", overflow="fold")
    table.add_column("started (UTC)")
    for name in ("jobs", "done", "failed", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("models", overflow="fold")
    for row in rows:
        counts = (str(row[name]) for name in ("jobs", "done", "failed"))
        models = ", ".join(row["models"]) or ABSENT
        table.add_row(row["id"], _when(row["start_ns"]), *counts, number(row["duration_s"]), models)
    console.print(table)


def number(value: float | None) -> str:
    """Three significant digits, whole numbers whole, absent as a dash."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == int(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f} %"


def _mib(value: float | None) -> str:
    return ABSENT if value is None else f"{value / 2**20:.0f} MiB"


def _when(ns: int | None) -> str:
    return ABSENT if ns is None else f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"


def _state(report: Mapping[str, Any]) -> str:
    if report["complete"]:
        return "complete"
    p = report["progress"]
    if not p["sent"]:
        return "no job was recorded"
    if p["running"] or p["waiting"] or p["retrying"]:
        return "PARTIAL: not every job has ended"
    return f"PARTIAL: no job is left at work; lost {p['lost']:,}, without a recorded end {p['unknown']:,}"


def _quantiles(of: Mapping[str, Any] | None) -> str:
    return ABSENT if of is None else " / ".join(number(of[name]) for name in ("p50", "p95", "max"))


def _head(report: Mapping[str, Any]) -> list[str]:
    requests, progress = report["requests"], report["progress"]
    outcomes = ", ".join(f"{count} {name}" for name, count in requests["outcomes"].items())
    latency = _quantiles(requests["latency_s"])
    lines = [
        f"Recorded {_when(report['start_ns'])} to {_when(report['end_ns'])} UTC",
        "Jobs: " + ", ".join(f"{count} {name}" for name, count in progress.items()),
        f"1 API requests: {requests['count']}, {number(requests['rate_per_s'])} per s",
        f"2 API outcomes: {outcomes}",
        f"3 API latency p50 / p95 / max: {latency} s; spent on enqueueing: {number(requests['enqueue_s'])} s",
    ]
    for host in report["hosts"]:
        lines.append(
            f"Host {host['name']}: CPU mean {_percent(host['cpu_mean_share'])}, max "
            f"{_percent(host['cpu_max_share'])}; memory mean {_percent(host['memory_mean_share'])}, max "
            f"{_percent(host['memory_max_share'])}"
        )
    if (check := report["little"]) is not None:
        lines.append(
            f"Data check (Little's law): L {number(check['in_system'])} against λW "
            f"{number(check['rate'] * check['time'])}, {_percent(check['deviation'])} off"
        )
    lines += [
        f"Lost: job {lost['job_id']}, attempt {lost['attempt']}, worker {lost['worker']}, model "
        f"{lost['model'] or ABSENT}{likely(lost['model_likely'])}, after {number(lost['elapsed_s'])} s with "
        f"{_mib(lost['memory_bytes'])} resident{_limit(lost)}: {lost['domain']}{likely(lost['likely'])}"
        for lost in report["lost"]
    ]
    return lines + [f"Note: {note}" for note in report["notes"]]


def _limit(lost: Mapping[str, Any]) -> str:
    limit = lost["memory_limit_bytes"]
    return f", limit {_mib(limit)}" if limit else ""


def _groups(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [("total", report["total"])]
    found += [(f"model {group['name']}", group) for group in report["models"]]
    return found + [(f"worker {group['name']}", group) for group in report["workers"]]


def _sections(groups: Sequence[Mapping[str, Any]]) -> list[Section]:
    jobs, work = [group["jobs"] for group in groups], [group["inferences"] for group in groups]

    def against(job: Mapping[str, Any], name: str) -> str:
        return number(job["expected"][name]) if job["expected"] is not None else ABSENT

    def estimate(cell: str, share: float | None) -> str:
        return f"~{cell}" if share is not None and share < 1 and cell != ABSENT else cell

    def counts(of: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in of.items()) or "0"

    def of(what: Mapping[str, Any] | None) -> float | None:
        return None if what is None else what["mean"]

    return [
        ("4 Jobs", [
            ("done", [str(j["done"]) for j in jobs]),
            ("jobs per s", [number(j["rate_per_s"]) for j in jobs]),
            ("makespan s", [number(j["makespan_s"]) for j in jobs]),
        ]),
        ("5 Failures", [
            ("failed", [str(j["failed"]) for j in jobs]),
            ("by domain", [counts(j["failures_by_domain"]) for j in jobs]),
            ("errors of attempts", [counts(j["errors"]) for j in jobs]),
            ("retries", [str(j["retries"]) for j in jobs]),
        ]),
        ("6 Time to process", [
            ("wait mean s", [number(of(j["wait_s"])) for j in jobs]),
            ("wait p50 / p95 / max s", [_quantiles(j["wait_s"]) for j in jobs]),
            ("negative waits", [str(j["negative_waits"]) for j in jobs]),
            ("work mean s", [number(of(j["process_s"])) for j in jobs]),
            ("work p50 / p95 / max s", [_quantiles(j["process_s"]) for j in jobs]),
            ("wanted delay s", [number(j["delay_s"]) for j in jobs]),
        ]),
        ("7 Inference time", [
            ("inferences", [str(w["count"]) for w in work]),
            ("p50 / p95 / max s", [_quantiles(w["duration_s"]) for w in work]),
            ("first token s", [_quantiles(w["ttft_s"]) for w in work]),
            ("prefill s", [_quantiles(w["prefill_s"]) for w in work]),
            ("decode s", [_quantiles(w["decode_s"]) for w in work]),
        ]),
        ("8 CPU", [
            ("CPU-s", [estimate(number(w["cpu_s"]), w["cpu_exact_share"]) for w in work]),
            ("CPU-s per output token", [
                estimate(number(w["cpu_s_per_output_token"]), w["cpu_exact_share"]) for w in work]),
            ("of its cores", [_percent(of(w["cpu_utilization"])) for w in work]),
            ("measured exactly", [_percent(w["cpu_exact_share"]) for w in work]),
            ("waiting for CPU", [_percent(w["cpu_pressure_share"]) for w in work]),
            ("throttled s", [number(w["cpu_throttled_s"]) for w in work]),
        ]),
        ("9 RAM", [
            ("start, mean", [_mib(w["memory_start_bytes"]) for w in work]),
            ("peak", [estimate(_mib(w["memory_peak_bytes"]), w["memory_exact_share"]) for w in work]),
            ("growth, max", [
                estimate(_mib(w["memory_growth_max_bytes"]), w["memory_exact_share"]) for w in work]),
            ("file / anonymous", [
                f"{_mib(w['memory_file_bytes'])} / {_mib(w['memory_anon_bytes'])}" for w in work]),
            ("limit", [_mib(w["memory_limit_bytes"]) for w in work]),
            ("measured exactly", [_percent(w["memory_exact_share"]) for w in work]),
        ]),
        ("10 Tokens generated", [("output tokens", [number(w["output_tokens"]) for w in work])]),
        ("11 Tokens used", [
            ("input tokens", [number(w["input_tokens"]) for w in work]),
            ("of these cached", [number(w["cached_tokens"]) for w in work]),
        ]),
        ("12 Tokens per second", [
            ("output / inference time", [number(w["tokens_per_s"]) for w in work]),
            ("decode only", [number(w["decode_tokens_per_s"]) for w in work]),
        ]),
        ("13 Wait ratio", [
            ("mean", [number(of(j["wait_ratio"])) for j in jobs]),
            ("median", [ABSENT if j["wait_ratio"] is None else number(j["wait_ratio"]["p50"]) for j in jobs]),
            ("if put at once", [against(j, "wait_ratio") for j in jobs]),
            ("mean wait then, s", [against(j, "mean_wait") for j in jobs]),
            ("makespan at least, s", [against(j, "makespan") for j in jobs]),
        ]),
    ]  # fmt: skip
