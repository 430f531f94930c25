"""A report (the JSON of the API) as terminal tables or markdown: numbers in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bulkscope_studio.rendering import ending
from bulkscope_studio.rendering.output import Output, fitted, table_width
from bulkscope_studio.text.markdown import bullets, inline, table
from bulkscope_studio.text.wording import (
    ABSENT,
    LEGEND,
    PARTIAL,
    UNKNOWN,
    estimate,
    likely,
    moment,
    number,
    percent,
    seconds,
    size,
    unless_exact,
)

Section = tuple[str, list[tuple[str, list[str]]]]  # title, rows of label and one cell a group
KINDS = ("model", "worker", "host")
BY = (
    "", "done", "failed", "jobs/s", "wait p50", "wait p95", "work p50", "work p95", "inferences", "tokens/s",
    "CPU of its cores", "RAM peak",
)  # fmt: skip
# Of models in Markdown; more of them are rows, as workers always are: a table of 66 columns is read nowhere.
MOST_COLUMNS = 4
# Of a host also how it was while the bulk ran, whoever used it.
HOST = ("host CPU", "host RAM")
# What a narrow terminal does without, the first of them first.
SPARE = (8, 11, 10, 13, 12, 6, 4, 3, 9, 2, 5, 1)


def text(report: Mapping[str, Any], console: Output) -> None:
    """Print the whole report; tables of many workers are cut into as many as the width holds."""
    console.print(Text.assemble((f"Bulk {report['id']}", "bold"), f"  {state(report)}"))
    for line in _head(report):
        console.print(line)
    groups = _groups(report)
    fit = max(1, (console.width - 30) // 24)
    for first in range(0, len(groups), fit):
        _print_groups(groups[first : first + fit], console)
    console.print(_foot(report))


def _print_groups(groups: Sequence[tuple[str, Mapping[str, Any]]], console: Output) -> None:
    rows: list[tuple[bool, list[str]]] = []  # whether it is a title, and its cells
    for section, of in _sections([group for _, group in groups]):
        rows.append((True, [section, *([""] * len(groups))]))
        rows += [(False, [f"  {label}", *cells]) for label, cells in of]
    heads = ["", *(label for label, _ in groups)]
    _, widths = fitted([heads, *(cells for _, cells in rows)], console.piped, console.width, ())
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, (head, width) in enumerate(zip(heads, widths, strict=True)):
        grid.add_column(head, justify="right" if column else "left", width=width)
    for n, (title, cells) in enumerate(rows):
        if n and title:
            grid.add_section()
        grid.add_row(*cells, style="bold" if title else None)
    with console.at_least(table_width(widths)):
        console.print(grid)


def by(report: Mapping[str, Any], kind: str, console: Output) -> None:
    """Print a line for each model, worker or host."""
    columns, rows = _by(report, kind)
    console.print(Text.assemble((f"Bulk {report['id']}", "bold"), f"  {state(report)}"))
    console.print_table(columns, rows, right=range(1, len(columns)), spare=[n for n in SPARE if n < len(columns)])
    console.print(LEGEND)


def by_markdown(report: Mapping[str, Any], kind: str) -> str:
    """Return the same as markdown."""
    columns, rows = _by(report, kind)
    lines = [f"# Bulk {inline(report['id'])}", "", state(report), "", *table(columns, rows, range(1, len(columns)))]
    return "\n".join([*lines, "", LEGEND, ""])


def _by(report: Mapping[str, Any], kind: str) -> tuple[list[str], list[list[str]]]:
    groups = report["by_host" if kind == "host" else f"{kind}s"]
    hosts = {host["name"]: host for host in report["hosts"]}
    none = dict.fromkeys(("cpu_mean_share", "memory_mean_share"))
    rows = []
    for group in (*groups, report["total"]):
        jobs, work = group["jobs"], group["inferences"]
        rows.append([
            group["name"], number(jobs["done"]), number(jobs["failed"]), number(jobs["rate_per_s"]),
            *(seconds(_of(jobs[name], at)) for name in ("wait_s", "process_s") for at in ("p50", "p95")),
            number(work["count"]), number(work["tokens_per_s"]), percent(_of(work["cpu_utilization"])),
            unless_exact(size(work["memory_peak_bytes"]), work["memory_exact_share"]),
        ])  # fmt: skip
        if kind == "host":
            host = hosts.get(group["name"], none)
            rows[-1] += [percent(host[name]) for name in none]
    return [kind, *BY[1:], *(HOST if kind == "host" else ())], rows


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as markdown: the numbers in total and by model, and a row for each worker."""
    lines = [f"# Bulk {inline(report['id'])}", "", state(report), "", *bullets(_head(report))]
    wide = len(report["models"]) > MOST_COLUMNS
    for kind in ("model", "worker"):
        if report[f"{kind}s"] and (wide or kind == "worker"):
            columns, rows = _by(report, kind)
            lines += ["", f"## By {kind}", "", *table(columns, rows, range(1, len(columns)))]
    groups = _groups({**report, "workers": [], "models": [] if wide else report["models"]})
    columns = ["", *(label for label, _ in groups)]
    for title, of in _sections([group for _, group in groups]):
        cells = ([label, *values] for label, values in of)
        lines += ["", f"## {title}", "", *table(columns, cells, range(1, len(columns)))]
    return "\n".join([*lines, "", _foot(report), ""])


def _foot(report: Mapping[str, Any]) -> str:
    return f"Quantiles: {report['quantiles']}. {LEGEND}"


def state(report: Mapping[str, Any]) -> str:
    """Say whether the bulk is complete, with the sign of what is partial."""
    if report["complete"]:
        return "complete"
    p = report["progress"]
    if report["sampled"] is not None:
        return str(report["sampled"])
    if not p["sent"]:
        return "no jobs"
    if p["running"] or p["waiting"] or p["retrying"]:
        return PARTIAL
    return f"PARTIAL: no job is left at work; lost {p['lost']:,}, without a recorded end {p['unknown']:,}"


def _each_second(number_of: float | None, taken: float | None) -> float | None:
    return None if number_of is None or not taken else number_of / taken


def _of(what: Mapping[str, Any] | None, name: str = "mean") -> float | None:
    return None if what is None else what[name]


def quantiles(of: Mapping[str, Any] | None) -> str:
    """Return median, 95th percentile and maximum of a distribution of seconds."""
    return ABSENT if of is None else " / ".join(seconds(of[name]) for name in ("p50", "p95", "max"))


def _head(report: Mapping[str, Any]) -> list[str]:
    requests = report["requests"]
    outcomes = ", ".join(f"{n:,} {name}" for name, n in requests["outcomes"].items()) or "none"
    lines = [
        f"Recorded {moment(report['start_ns'])} to {moment(report['end_ns'])} UTC",
        *(f"Part of bulk {bulk}" for bulk in report["part_of"]),
        *([f"Nested bulks: {', '.join(report['nested'])}"] if report["nested"] else []),
        "Jobs: " + ", ".join(counted(report["progress"])),
        *_ending(report),
        f"1 API requests: {number(requests['count'])}" + _per_second(requests["rate_per_s"]),
        f"2 API outcomes: {outcomes}",
        f"3 API latency p50 / p95 / max: {quantiles(requests['latency_s'])}; "
        f"time spent on enqueueing: {seconds(requests['enqueue_s'])}",
    ]
    for host in report["hosts"]:
        lines.append(
            f"Host {host['name']}: CPU mean {percent(host['cpu_mean_share'])}, max {percent(host['cpu_max_share'])}; "
            f"memory mean {percent(host['memory_mean_share'])}, max {percent(host['memory_max_share'])}"
        )
    if (check := report["little"]) is not None:
        lines.append(
            f"Data check (Little's law, L = λW): L {number(check['in_system'])}, λW "
            f"{number(check['rate'] * check['time'])}, deviation {percent(check['deviation'])}"
        )
    lines += map(_lost, report["lost"])
    return lines + [f"Note: {note}" for note in report["notes"]]


def _ending(report: Mapping[str, Any]) -> list[str]:
    return [] if report["ending"] is None else ending.sentences(report["ending"])


def counted(progress: Mapping[str, int]) -> Iterator[str]:
    """Yield how many jobs are in which state; of the rarer states only those that there are."""
    for name, jobs in progress.items():
        if jobs or name in ("sent", "done", "failed"):
            yield f"{jobs:,} {name.replace('_', ' ')}"


def _per_second(rate: float | None) -> str:
    return "" if rate is None else f", {number(rate)}/s"


def _lost(lost: Mapping[str, Any]) -> str:
    """Say which attempt was lost with its worker, when it was last heard of, and why."""
    model = f"{lost['model'] or UNKNOWN}{likely(lost['model_likely'])}"
    parts = [f"Lost: job {lost['job_id']}, attempt {lost['attempt']}, worker {lost['worker']}, model {model}"]
    if lost["elapsed_s"] is not None:
        parts.append(f"last heard of {seconds(lost['elapsed_s'])} after its start")
    if lost["memory_bytes"] is not None:
        limit = f" (limit {size(lost['memory_limit_bytes'])})" if lost["memory_limit_bytes"] else ""
        parts.append(f"RAM then {size(lost['memory_bytes'])}{limit}")
    return "; ".join([*parts, f"cause {lost['domain'] or UNKNOWN}{likely(lost['likely'])}"])


def _groups(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [("total", report["total"])]
    found += [(f"model {group['name']}", group) for group in report["models"]]
    return found + [(f"worker {group['name']}", group) for group in report["workers"]]


def _sections(groups: Sequence[Mapping[str, Any]]) -> list[Section]:
    jobs, work = [group["jobs"] for group in groups], [group["inferences"] for group in groups]

    def against(job: Mapping[str, Any], name: str) -> float | None:
        return None if job["expected"] is None else job["expected"][name]

    def counts(of: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {n:,}" for name, n in of.items()) or "none"

    return [
        ("4 Jobs", [
            ("done", [number(j["done"]) for j in jobs]),
            ("jobs/s", [number(j["rate_per_s"]) for j in jobs]),
            ("makespan", [seconds(j["makespan_s"]) for j in jobs]),
        ]),
        ("5 Failures", [
            ("failed jobs", [number(j["failed"]) for j in jobs]),
            ("by domain", [counts(j["failures_by_domain"]) for j in jobs]),
            ("errors of attempts", [counts(j["errors"]) for j in jobs]),
            ("retries", [number(j["retries"]) for j in jobs]),
        ]),
        ("6 Time to process", [
            ("queue wait, mean", [seconds(_of(j["wait_s"])) for j in jobs]),
            ("queue wait, p50 / p95 / max", [quantiles(j["wait_s"]) for j in jobs]),
            ("negative waits (clock error)", [number(j["negative_waits"]) for j in jobs]),
            ("work, mean", [seconds(_of(j["process_s"])) for j in jobs]),
            ("work, p50 / p95 / max", [quantiles(j["process_s"]) for j in jobs]),
            *([("of work, importing the task: p50 / p95 / max", [quantiles(j["import_s"]) for j in jobs])]
              if any(j["import_s"] is not None for j in jobs) else []),
            ("scheduled delay", [seconds(j["delay_s"]) for j in jobs]),
        ]),
        ("7 Inference time", [
            ("inferences", [number(w["count"]) for w in work]),
            *([("prompts in them", [number(w["prompts"]) for w in work]),
               ("prompts/s", [
                   number(_each_second(w["prompts"], j["makespan_s"])) for w, j in zip(work, jobs, strict=True)])]
              if any((w["prompts"] or 0) > w["count"] for w in work) else []),
            ("p50 / p95 / max", [quantiles(w["duration_s"]) for w in work]),
            ("time to first token", [quantiles(w["ttft_s"]) for w in work]),
            ("prefill", [quantiles(w["prefill_s"]) for w in work]),
            ("decode", [quantiles(w["decode_s"]) for w in work]),
        ]),
        ("8 CPU", [
            ("CPU time", [unless_exact(seconds(w["cpu_s"]), w["cpu_exact_share"]) for w in work]),
            ("CPU time per output token", [
                unless_exact(seconds(w["cpu_s_per_output_token"]), w["cpu_exact_share"]) for w in work]),
            ("share of its cores", [percent(_of(w["cpu_utilization"])) for w in work]),
            ("inferences measured exactly", [percent(w["cpu_exact_share"]) for w in work]),
            ("CPU pressure (PSI)", [percent(w["cpu_pressure_share"]) for w in work]),
            ("throttled by a quota", [seconds(w["cpu_throttled_s"]) for w in work]),
        ]),
        ("9 RAM", [
            ("at start, mean", [size(w["memory_start_bytes"]) for w in work]),
            ("peak", [unless_exact(size(w["memory_peak_bytes"]), w["memory_exact_share"]) for w in work]),
            ("growth, max", [
                unless_exact(size(w["memory_growth_max_bytes"]), w["memory_exact_share"]) for w in work]),
            ("file / anonymous", [
                f"{size(w['memory_file_bytes'])} / {size(w['memory_anon_bytes'])}" for w in work]),
            ("limit", [size(w["memory_limit_bytes"]) for w in work]),
            ("inferences measured exactly", [percent(w["memory_exact_share"]) for w in work]),
        ]),
        ("10 Tokens generated", [("output tokens", [number(w["output_tokens"]) for w in work])]),
        ("11 Tokens used", [
            ("input tokens", [number(w["input_tokens"]) for w in work]),
            ("of these cached", [number(w["cached_tokens"]) for w in work]),
        ]),
        ("12 Tokens per second", [
            ("output tokens / inference time", [number(w["tokens_per_s"]) for w in work]),
            ("decode only", [number(w["decode_tokens_per_s"]) for w in work]),
        ]),
        ("13 Wait ratio (queue wait / total time)", [
            ("mean", [percent(_of(j["wait_ratio"])) for j in jobs]),
            ("median", [percent(_of(j["wait_ratio"], "p50")) for j in jobs]),
            ("concurrency slots", [number(j["places"] or None) for j in jobs]),
            ("if all enqueued at once: expected ratio", [estimate(percent(against(j, "wait_ratio"))) for j in jobs]),
            ("same: expected mean queue wait", [estimate(seconds(against(j, "mean_wait"))) for j in jobs]),
            ("same: shortest possible makespan", [estimate(seconds(against(j, "makespan"))) for j in jobs]),
        ]),
    ]  # fmt: skip
