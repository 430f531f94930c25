"""Whether a bulk is slower than another, or a kept run, by more than is allowed: for a pipeline that has to decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bulkscope_studio.services import comparisons
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.sides import Sides
from bulkscope_studio.text import parse, wording

SCHEMA = "bulkscope.check/1"
MAX_SLOWER = "10%"
FINE, SLOWER, UNKNOWN = "fine", "slower", "unknown"


def allowed(text: str) -> float:
    """Return by which share a bulk may be slower, of ``10%`` or ``0.1``; raises ``InvalidQuery``."""
    try:
        return parse.share(text)
    except ValueError as error:
        raise InvalidQuery(str(error)) from error


def check(among: Sides, bulk: str, against: str, max_slower: str = MAX_SLOWER) -> dict[str, Any]:
    """Return whether the jobs of ``bulk`` take longer than those of ``against`` by more than ``max_slower``.

    By the time of a job at equal tokens and its interval, which is one of a comparison: ``fine`` where all of it is
    within what is allowed, ``slower`` where none of it is, else ``unknown``. Raises ``NotFound``, ``InvalidQuery``.
    """
    most = 1 + allowed(max_slower)
    found = comparisons.compare(among, against, bulk)
    (row,) = (row for row in found["rows"] if row["name"] == "time") if found["rows"] else (None,)
    result, text = _judged(found, row, most)
    b = found["b"]
    notes = []
    if b["ended"] < b["sent"]:
        notes.append(f"partial: {wording.unended(b['sent'] - b['ended'], b['sent'])}")
    if b["failed"]:
        notes.append(f"{wording.part(b['failed'], b['sent'], 'job')} failed; only those that did not are compared")
    return {
        "schema": SCHEMA, "result": result, "text": text, "bulk": b["label"], "against": found["a"]["label"],
        "max_slower": most - 1, "effect": None if row is None else row["effect"],
        "jobs": None if row is None else row["jobs"], "cautions": found["cautions"], "notes": [*notes, *found["notes"]],
    }  # fmt: skip


def _judged(found: Mapping[str, Any], row: Mapping[str, Any] | None, most: float) -> tuple[str, str]:
    models = [sorted(found[side]["models"]) for side in "ab"]
    if models[0] != models[1]:
        names = " and ".join(", ".join(each) or wording.UNKNOWN for each in models)
        return UNKNOWN, f"Cannot be said: the models differ ({names}). 'bulkscope compare' compares models."
    if row is None:
        return FINE, found["answer"]
    effect = row["effect"]
    if effect is None:
        return UNKNOWN, f"Cannot be said. {row['note']}".strip()
    said = (
        f"a job takes {wording.times(effect['value'])} times as long as in {found['a']['label']} "
        f"({wording.times_between(effect['low'], effect['high'])}; allowed are {wording.number(most)})"
    )
    if effect["high"] <= most:
        return FINE, f"Not slower than allowed: {said}."
    if effect["low"] > most:
        return SLOWER, f"Slower than allowed: {said}."
    more = ""
    if effect["smallest"] > most - 1:
        from_ = wording.percent(effect["smallest"]) if effect["smallest"] < 100 else "a hundredfold"
        more = f" These jobs show differences from {from_} on; more of them show smaller ones."
    return UNKNOWN, f"Cannot be said: {said}.{more}"
