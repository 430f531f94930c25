"""The list of bulks (a page of the API) as a terminal table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bulkscope_studio.rendering import ending
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text.wording import ABSENT, count, moment, number, seconds

LIST = (
    "bulk", "started (UTC)", "state", "jobs", "done", "failed", "took", "mean wait", "ends in", "verdict", "models",
)  # fmt: skip
ENDS, VERDICT, RIGHT = LIST.index("ends in"), LIST.index("verdict"), range(3, 8)
# What a narrow terminal does without, the first of them first.
SPARE = [LIST.index(name) for name in (
    "models", "mean wait", "done", "started (UTC)", "verdict", "ends in", "state", "took", "failed", "jobs",
)]  # fmt: skip

NOT_YET = "?"


def text(found: Mapping[str, Any], console: Output) -> None:
    """Print a page of the list, and say what is not in it."""
    rows = found["bulks"]
    if not rows:
        console.print("No bulk is like that.")
        return
    # A column of which nothing is known says nothing.
    absent = {ENDS} if all(row["ending"] is None for row in rows) else set()
    absent |= {VERDICT} if all(row["verdict"] is None for row in rows) else set()
    kept = [number for number in range(len(LIST)) if number not in absent]
    console.print_table(
        [LIST[number] for number in kept],
        ([cell for number, cell in enumerate(_cells(row)) if number in kept] for row in rows),
        right=[kept.index(number) for number in RIGHT],
        spare=[kept.index(number) for number in SPARE if number in kept],
    )
    for line in _missing(found):
        console.print(line)


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    return [
        row["id"], moment(row["start_ns"]), row["state"],
        *(number(row[name]) for name in ("sent_jobs", "done_jobs", "failed_jobs")),
        seconds(row["took_s"]), seconds(row["wait_mean_s"]),
        ABSENT if row["ending"] is None else ending.left(row["ending"]),
        NOT_YET if row["verdict"] is None else row["verdict"]["title"],
        ", ".join(row["models"]) or ABSENT,
    ]  # fmt: skip


def _missing(found: Mapping[str, Any]) -> list[str]:
    rows, lines = found["bulks"], []
    if found["looked_at"] is not None:
        lines.append(f"Of the newest {count(found['looked_at'], 'bulk')} that fit otherwise.")
    if found["total"] > len(rows):
        lines.append(f"{len(rows):,} of {count(found['total'], 'bulk')}; --last {found['total']} lists all.")
    if found["verdicts_pending"]:
        pending = count(found["verdicts_pending"], "verdict")
        lines.append(f"{NOT_YET}: {pending} would have taken longer; 'bulkscope explain ID' finds one.")
    return lines
