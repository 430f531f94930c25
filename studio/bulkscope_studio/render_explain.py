"""An explanation (the JSON of the API) as terminal text or markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bulkscope_studio.analysis.wording import ABSENT, count, percent, seconds
from bulkscope_studio.render import cell, safe

MARKS = {True: "yes", False: "no", None: "?"}
_BAR = 24
Part = tuple[str, float | None]


def text(found: Mapping[str, Any], console: Console, *, everything: bool = False) -> None:
    """Print it; ``everything`` adds the evidence of the findings that are not the verdict."""
    verdict = found["verdict"]
    console.print(f"[bold]Bulk {safe(found['id'])}[/bold]  {found['state']}", highlight=False)
    console.print(f"[bold]Verdict: {verdict['title']}[/bold]", highlight=False)
    for line in _summary(found):
        console.print(safe(line), highlight=False)
    console.print()
    _evidence(verdict, console)
    for title, parts in times(found):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for name, justify in (("", "left"), ("seconds", "right"), ("share", "right"), ("", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        total = sum(value or 0.0 for _, value in parts)
        for label, value in parts:
            share = value / total if value is not None and total > 0 else None
            table.add_row(label, _number(value), ABSENT if share is None else percent(share), _bar(share))
        console.print(table, highlight=False)
    for line in _chain(found):
        console.print(safe(line), highlight=False)
    console.print("\n[bold]Looked at, in this order[/bold]", highlight=False)
    for finding in found["findings"]:
        console.print(f"  {MARKS[finding['holds']]:<4} {finding['title']}: {safe(finding['text'])}", highlight=False)
        if everything and finding["code"] != verdict["code"]:
            _evidence(finding, console)


def markdown(found: Mapping[str, Any]) -> str:
    """Return it as markdown, evidence of all findings included."""
    verdict = found["verdict"]
    lines = [f"# Bulk {cell(found['id'])}: {verdict['title']}", "", found["state"], ""]
    lines += [f"{cell(line)}\n" for line in _summary(found)]
    for title, parts in times(found):
        total = sum(value or 0.0 for _, value in parts)
        lines += [f"## {title}", "", "| | seconds | share |", "|---|---:|---:|"]
        for label, value in parts:
            share = ABSENT if value is None or total <= 0 else percent(value / total)
            lines.append(f"| {label} | {_number(value)} | {share} |")
        lines.append("")
    lines += [f"- {cell(line)}" for line in _chain(found)]
    for finding in found["findings"]:
        lines += ["", f"## {finding['title']}: {MARKS[finding['holds']]}", "", cell(finding["text"]), ""]
        lines += [f"- {MARKS[item['holds']]}: {cell(item['text'])}" for item in finding["evidence"]]
    return "\n".join([*lines, ""])


def _evidence(finding: Mapping[str, Any], console: Console) -> None:
    for item in finding["evidence"]:
        console.print(f"       {MARKS[item['holds']]:<4} {safe(item['text'])}", highlight=False)


def _summary(found: Mapping[str, Any]) -> list[str]:
    lines = [found["verdict"]["text"]]
    titles = {finding["code"]: finding["title"] for finding in found["findings"]}
    if found["also"]:
        lines.append("Beside it: " + ", ".join(titles[code] for code in found["also"]) + ".")
    if found["next"]:
        lines += [f"Next: {item['text']} (estimate)" for item in found["next"]]
    return lines + list(found["notes"])


def times(found: Mapping[str, Any]) -> list[tuple[str, list[Part]]]:
    """Return where the seconds of the jobs and of the workers went, as titled lists of label and seconds."""
    t, w = found["time_s"], found["workers"]
    jobs: list[Part] = [
        ("wanted delay", t["delay"]),
        ("wait: workers busy with this bulk", t["wait_own"]),
        ("wait: workers busy with other bulks", t["wait_others"]),
        ("wait: a worker was free", t["wait_dispatch"]),
        ("wait: before its worker was first seen", t["wait_absent"]),
        ("prefill", t["prefill"]),
        ("decode", t["decode"]),
        ("rest of the inference", t["inference_rest"]),
        ("work around the inference", t["other_work"]),
    ]
    if t["other_work"] is None:
        jobs = [*jobs[:5], ("work", t["work"])]
    workers: list[Part] = [
        ("busy with this bulk", w["own_s"]),
        ("busy with other bulks", w["others_s"]),
        ("free beside a waiting job", w["dispatch_s"]),
        ("free, no job of the bulk waiting", w["idle_s"]),
    ]
    return [("Where the jobs' time went", jobs), ("Where the workers' time went", workers)]


def _chain(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if (m := found["makespan"]) is not None:
        lines.append(
            f"Makespan {seconds(m['measured'])}; the same work takes at least {seconds(m['floor'])} on "
            f"{count(m['places'], 'place')}; the longest job {seconds(m['longest_job'])}, "
            f"{seconds(m['tail'])} lost as workers ran out of jobs at the end."
        )
    if (p := found["path"]) is not None:
        others = f", {seconds(p['work_others'])} of other bulks' jobs" if p["work_others"] else ""
        delay = f", {seconds(p['delay'])} wanted delay" if p["delay"] else ""
        lines.append(
            f"Longest chain, {seconds(p['length'])}: {seconds(p['start'])} until its first job was put, "
            f"{count(p['jobs'], 'job')} one after the other with {seconds(p['work_own'])} of work{others}{delay}, "
            f"{seconds(p['dispatch'])} between them."
        )
    if (w := found["wait"]) is not None:
        against = "" if w["expected"] is None else f"; queueing alone gives {seconds(w['expected'])}"
        ratio = "" if w["ratio"] is None else f", measured / expected {w['ratio']:.2f}"
        lines.append(f"Mean wait {seconds(w['measured'])}{against}{ratio}.")
    for s in found["stragglers"]:
        reason = f": {s['reason']}" if s["reason"] else ""
        lines.append(f"Straggler: job {s['job']} took {seconds(s['seconds'])}, usual {seconds(s['usual_s'])}{reason}.")
    return lines


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.2f}"


def _bar(share: float | None) -> str:
    return "" if share is None else "█" * round(share * _BAR)
