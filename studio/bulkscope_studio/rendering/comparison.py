"""A comparison and kept runs (the JSON of the API) as terminal tables or markdown: numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text import wording
from bulkscope_studio.text.markdown import bullets, inline, table

HEADS = ("number", "A", "B", "B against A", "B is", "jobs A, B")
FOOT = f"The quality of the answers is not judged. {wording.LEGEND}"
RUNS = ("run", "ran (UTC)", "kept (UTC)", "jobs", "size", "models", "bulks")


def text(found: Mapping[str, Any], console: Output) -> None:
    """Print the comparison."""
    console.print(found["answer"], style="bold")
    for caution in found["cautions"]:
        console.print(f"Caution: {caution['text']}")
    for line in [*sides(found), *pairing(found)]:
        console.print(line)
    if not found["rows"]:
        return
    console.print_table(HEADS, map(cells, found["rows"]), right=(1, 2), spare=(5,))
    for line in [*notes(found), method(found), FOOT]:
        console.print(line)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the comparison as markdown."""
    lines = ["# Comparison", "", f"**{inline(found['answer'])}**", ""]
    lines += bullets(f"Caution: {caution['text']}" for caution in found["cautions"])
    lines += bullets([*sides(found), *pairing(found)])
    if found["rows"]:
        lines += ["", *table(HEADS, map(cells, found["rows"]), (1, 2))]
        lines += ["", *bullets(notes(found)), "", method(found), "", FOOT]
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
            parts.append(f"makespan {wording.seconds(side['makespan_s'])}")
        for what in ("input", "output"):
            if side[f"{what}_tokens_mean"] is not None:
                parts.append(f"{wording.count(side[f'{what}_tokens_mean'], f'{what} token')} a job")
        if side["memory_peak_bytes"] is not None:
            parts.append(f"highest peak RAM of a worker {wording.size(side['memory_peak_bytes'])}")
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
        sizes = " and ".join(f"{wording.number(value)} {_TOKENS[name]}" for name, value in job.items())
        lines.append(f"'At equal tokens' means: for a job of {sizes} tokens, the mean of both sides.")
    return lines


_TOKENS = {"prefilled": "prefilled", "generated": "output"}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table: number, A, B, effect, verdict, jobs."""

    def marked(text: str) -> str:
        return wording.estimate(text, row["estimated"])

    a, b = (marked(wording.value(row[side], row["unit"])) for side in ("a", "b"))
    jobs = f"{row['jobs'][0]:,}, {row['jobs'][1]:,}"
    return [row["title"], a, b, marked(effect(row)), row["verdict"], jobs]


def effect(row: Mapping[str, Any]) -> str:
    """Return the effect with its interval, and the smallest one that could have been seen."""
    of = row["effect"]
    if of is None:
        return wording.ABSENT
    if row["kind"] == "ratio":
        said = f"{wording.times(of['value'])} times ({wording.times_between(of['low'], of['high'])})"
        smallest = f"{wording.percent(of['smallest'])}" if of["smallest"] < 100 else "a hundredfold"
    else:
        range_ = wording.between(of["low"], of["high"], lambda share: f"{100 * share:+.1f}")
        said = f"{100 * of['value']:+.1f} points ({range_})"
        smallest = f"{100 * of['smallest']:.1f} points"
    return f"{said}; detectable from {smallest}"


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
    runs = [len(found[side]["bulks"]) for side in ("a", "b")]
    over = (
        "They are over the jobs of these runs, not over repeated runs: to recommend a side, keep three runs of each "
        "(bulkscope runs keep NAME BULK BULK BULK) and compare these."
        if max(runs) == 1
        else "They are over jobs, and where that is wider over runs."
    )
    return (
        f"Each interval is at {100 * of['each']:.1f} %, so that all {len(of['tests'])} hold at once in "
        f"{100 * of['family']:.0f} % of comparisons. {over} "
        "'detectable from': a difference of that size would be found in 4 of 5 comparisons."
    )


def when(ns: int | None) -> str:
    """Return a moment in UTC to the minute."""
    return wording.moment(ns, "%Y-%m-%d %H:%M")


def runs(rows: Sequence[Mapping[str, Any]], console: Output) -> None:
    """Print the list of kept runs."""
    console.print_table(RUNS, map(_run_cells, rows), right=(3, 4), spare=(5, 2, 4, 1))


def _run_cells(row: Mapping[str, Any]) -> list[str]:
    size = wording.size(row["bytes"])
    if row["damaged"] is not None:
        return [row["name"], "", "", "", size, "", row["damaged"]]
    models, bulks = ", ".join(row["models"]) or wording.ABSENT, ", ".join(row["bulks"])
    return [row["name"], when(row["start_ns"]), when(row["kept_ns"]), f"{row['jobs']:,}", size, models, bulks]


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
