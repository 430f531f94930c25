"""What would have become of a bulk under a change (the JSON of the API), as terminal text or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bulkscope_studio.rendering.ending import rough
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text.markdown import bullets, inline, table
from bulkscope_studio.text.wording import LEGEND, between, count, estimate, number, percent, seconds

COLUMNS = ("change", "makespan", "mean queue wait", "mean time to the end", "saved")
# What a narrow terminal does without, the first of them first.
SPARE = (3, 2, 4)
TITLE = "What ends first, within the cores and memory that are there"


def text(found: Mapping[str, Any], console: Output) -> None:
    """Print it."""
    console.print(f"Bulk {found['id']}", style="bold")
    for line in _head(found):
        console.print(line)
    if found["change"] is not None:
        console.print_table(COLUMNS, [_was(found), _row(found, found["change"])], right=range(1, 5), spare=SPARE)
    console.print_table(COLUMNS, [_was(found), *_rows(found)], right=range(1, 5), title=TITLE, spare=SPARE)
    console.print(LEGEND)


def markdown(found: Mapping[str, Any]) -> str:
    """Return it as Markdown."""
    lines = [f"# Bulk {inline(found['id'])}: what if", "", *bullets(_head(found)), ""]
    if found["change"] is not None:
        lines += [*table(COLUMNS, [_was(found), _row(found, found["change"])], range(1, 5)), ""]
    lines += [f"## {TITLE}", "", *table(COLUMNS, [_was(found), *_rows(found)], range(1, 5)), ""]
    return "\n".join([*lines, LEGEND, ""])


def _head(found: Mapping[str, Any]) -> list[str]:
    room = found["room"]
    there = f"{count(room['workers'], 'worker')} of {count(room['threads'], 'concurrency slot')}"
    if room["cores"] is not None:
        there += f", {count(room['cores'], 'core')}"
        if room["cores_each"] is not None:
            there += f" of which a job keeps {number(round(room['cores_each'], 2))} busy"
    if room["fit"] >= 0:
        there += f", memory for {count(room['fit'], 'worker')}"
    lines = [f"There were: {there}"]
    if found["asked"] is not None and found["change"] is None:
        lines.append("The change cannot be played: jobs would be left that no slot takes")
    return lines + [f"Note: {note}" for note in found["notes"]]


def _was(found: Mapping[str, Any]) -> list[str]:
    m = found["measured"]
    return ["as measured", seconds(m["makespan"]), seconds(m["mean_wait"]), seconds(m["stay"]), ""]


def _rows(found: Mapping[str, Any]) -> Sequence[list[str]]:
    return [_row(found, one) for one in found["combinations"]]


def _row(found: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    results = [_interval(one["results"][of]) for of in ("makespan", "mean_wait", "stay")]
    saved = one["saved"]
    return [_name(found["room"], one), *results, "nothing" if abs(saved) < 0.005 else percent(round(saved, 2))]


def _interval(of: Mapping[str, float]) -> str:
    return f"{estimate(rough(of['value']))} ({between(of['low'], of['high'], rough)})"


def _name(room: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    parts = []
    if (one["workers"], one["threads"]) != (room["workers"], room["threads"]):
        parts.append(count(one["workers"], "worker"))
        if one["threads"] != room["threads"] or one["threads"] > 1:
            parts[-1] += f" of {count(one['threads'], 'slot')}"
    if one["longest"]:
        parts.append("longest first")
    if one["preload"]:
        parts.append("model loaded before")
    if one["speed"] != 1:
        parts.append(f"{number(one['speed'])} times as fast")
    if not one["reserves"] and not parts:
        parts.append("prefetch 1")
    return ", ".join(parts) or "nothing"
