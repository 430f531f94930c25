"""A comparison and kept runs (the JSON of the API) as terminal tables or markdown: numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table

from bulkscope_studio.rendering.output import Output, inline
from bulkscope_studio.text import wording

HEADS = ("number", "A", "B", "B against A", "B is", "jobs A, B")
FOOT = "Nothing here says which answers are better. ~: estimate. –: not recorded."


def text(found: Mapping[str, Any], console: Output) -> None:
    """Print the comparison."""
    console.print(found["answer"], style="bold")
    for line in [*sides(found), *pairing(found)]:
        console.print(line)
    for caution in found["cautions"]:
        console.print(f"Caution: {caution['text']}")
    if not found["rows"]:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(HEADS):
        table.add_column(name, justify="right" if number in (1, 2) else "left", overflow="fold")
    for row in found["rows"]:
        table.add_row(*cells(row))
    console.print(table)
    for line in [*notes(found), method(found), FOOT]:
        console.print(line)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the comparison as markdown."""
    lines = ["# Comparison", "", f"**{inline(found['answer'])}**", ""]
    lines += [f"- {inline(line)}" for line in [*sides(found), *pairing(found)]]
    lines += [f"- Caution: {inline(caution['text'])}" for caution in found["cautions"]]
    if found["rows"]:
        lines += ["", "| " + " | ".join(HEADS) + " |", "|---|---:|---:|---|---|---|"]
        lines += ["| " + " | ".join(map(inline, cells(row))) + " |" for row in found["rows"]]
        lines += ["", *(f"- {inline(line)}" for line in notes(found)), "", method(found), "", FOOT]
    return "\n".join([*lines, ""])


def sides(found: Mapping[str, Any]) -> list[str]:
    """Say of each side what it is and what it ran on, one line each."""
    lines = []
    for name in ("a", "b"):
        side = found[name]
        parts = [
            ", ".join(side["models"]) or "no inferences",
            f"{wording.count(side['sent'], 'job')} sent, {side['ended']:,} ended, {side['failed']:,} failed",
            (wording.count(side["workers"], "worker") if side["workers"] else "no worker seen")
            + (f" on {', '.join(side['hosts'])}" if side["hosts"] else "")
            + (f", {_cores(side)}" if side["cores"] else ""),
        ]
        if side["makespan_s"] is not None:
            parts.append(f"the whole {wording.seconds(side['makespan_s'])}")
        for what in ("input", "output"):
            if side[f"{what}_tokens_mean"] is not None:
                parts.append(f"{wording.count(side[f'{what}_tokens_mean'], f'{what} token')} a job")
        if side["memory_peak_bytes"] is not None:
            parts.append(f"highest peak RAM {wording.size(side['memory_peak_bytes'])}")
        parts.append(f"{when(side['start_ns'])} UTC")
        lines.append(f"{name.upper()}  {side['label']}: " + "; ".join(parts))
    return lines


def _cores(side: Mapping[str, Any]) -> str:
    """Say how many cores a worker may use; where workers may use different numbers, all of these."""
    *others, last = side["cores"]
    numbers = [
        *map(wording.number, others),
        wording.count(last, "core") if not others else f"{wording.number(last)} cores",
    ]
    return " or ".join(numbers) + ("" if side["workers"] == 1 else " each")


def pairing(found: Mapping[str, Any]) -> list[str]:
    """Say how jobs were set against each other, and at which job's size."""
    lines = [found["pairing"]["reason"]]
    if job := found["equal_job"]:
        sizes = " and ".join(f"{wording.number(value)} {name}" for name, value in job.items())
        lines.append(f"Equal tokens: {sizes} a job, the mean of both sides.")
    return lines


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table: number, A, B, effect, verdict, jobs."""
    mark = "~" if row["estimated"] else ""

    def shown(value: float | None) -> str:
        return wording.ABSENT if value is None else mark + amount(value, row["unit"])

    jobs = f"{row['jobs'][0]:,}, {row['jobs'][1]:,}"
    return [row["title"], shown(row["a"]), shown(row["b"]), mark + effect(row), row["verdict"], jobs]


def amount(value: float, unit: str) -> str:
    """Return a number with its unit; small shares and times keep three digits, which is what differs."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "1/s":
        return f"{wording.number(value)}/s"
    return wording.value(value, unit)


def effect(row: Mapping[str, Any]) -> str:
    """Return the effect with its interval, and the smallest one that could have been seen."""
    of = row["effect"]
    if of is None:
        return wording.ABSENT
    if row["kind"] == "ratio":
        said = f"{_times(of['value'])} times ({wording.between(of['low'], of['high'], _times)})"
        smallest = f"{wording.percent(of['smallest'])}" if of["smallest"] < 100 else "a hundredfold"
    else:
        range_ = wording.between(of["low"], of["high"], lambda share: f"{100 * share:+.1f}")
        said = f"{100 * of['value']:+.1f} points ({range_})"
        smallest = f"{100 * of['smallest']:.1f} points"
    return f"{said}; seen from {smallest}"


def _times(value: float) -> str:
    if value >= 1000:
        return "over 1000"
    return f"{value:.3f}" if abs(value - 1) < 0.05 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """Return the notes of what was read, and of the rows; a note that several rows share comes once."""
    by: dict[str, list[str]] = {}
    for row in found["rows"]:
        if row["note"]:
            by.setdefault(row["note"], []).append(row["title"])
    return [*found.get("notes", ()), *(f"{', '.join(titles)}: {note}" for note, titles in by.items())]


def method(found: Mapping[str, Any]) -> str:
    """Say how sure the verdicts are."""
    of = found["intervals"]
    return (
        f"Intervals: {100 * of['each']:.1f} % each, so that all {len(of['tests'])} hold together in "
        f"{100 * of['family']:.0f} % of comparisons; over the jobs of these runs. "
        "'seen from': a difference of that size would be seen in 4 of 5 cases."
    )


def when(ns: int | None) -> str:
    """Return a moment in UTC to the minute."""
    return wording.ABSENT if ns is None else f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M}"


def runs(rows: Sequence[Mapping[str, Any]], console: Output) -> None:
    """Print the list of kept runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("run", "left"), ("ran (UTC)", "left"), ("kept (UTC)", "left"), ("jobs", "right"),
                          ("size", "right"), ("models", "left"), ("bulks", "left")):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        if row["damaged"] is not None:
            table.add_row(row["name"], "", "", "", wording.size(row["bytes"]), "", row["damaged"])
            continue
        names = ", ".join(row["models"]) or wording.ABSENT, ", ".join(row["bulks"])
        table.add_row(
            row["name"], when(row["start_ns"]), when(row["kept_ns"]), f"{row['jobs']:,}",
            wording.size(row["bytes"]), *names,
        )  # fmt: skip
    console.print(table)


def kept(row: Mapping[str, Any]) -> str:
    """Say what was kept."""
    return f"Kept {run(row)}"


def run(row: Mapping[str, Any]) -> str:
    """Return one run as a line."""
    bulks = ", ".join(row["bulks"])
    models = ", ".join(row["models"]) or "no inferences"
    return (
        f"{row['name']}: {wording.count(row['jobs'], 'job')} of {bulks}; {models}; ran {when(row['start_ns'])} UTC, "
        f"kept {when(row['kept_ns'])} UTC, {wording.size(row['bytes'])}"
    )
