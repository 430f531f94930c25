"""When a bulk ends (the JSON of the API) as sentences, and as the one line that ``bulkscope watch`` renews."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bulkscope_studio.text.wording import ABSENT, between, count, estimate, known, moment, number, seconds

CLOCK = "%H:%M:%S"
DAY = "%Y-%m-%d %H:%M:%S"
_SAME_DAY_S = 20 * 3600
_ONGOING = ("running", "waiting", "retrying", "lost", "unknown")


def rough(value: float | None) -> str:
    """A duration in s by two digits: the interval beside it is wider than a third one."""
    return seconds(float(f"{value:.2g}")) if known(value) else ABSENT


def left(found: Mapping[str, Any]) -> str:
    """Return the time that is left with its interval, ``~62 s (45 s to 1.6 min)``; absent where it is not known."""
    of = found["left_s"]
    return ABSENT if of is None else f"{estimate(rough(of['value']))} ({between(of['low'], of['high'], rough)})"


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Return when a bulk will end, what that rests on, and what it leaves out; nothing of one that has ended."""
    if found["state"] == "complete":
        return []
    if found["left_s"] is None:
        return [f"Its end is not known: {found['why']}", *found["notes"]]
    lines = [f"Ends in {left(found)}, {moments(found)}; 95 % interval"]
    basis = f"{count(found['slots'], 'slot')}, {_rate(found)} while all are busy"
    if found["ahead"]:
        basis += f"; {count(found['ahead'], 'job')} of other bulks first"
    elif found["ahead"] is None:
        basis += "; waiting jobs of other bulks are not known"
    return [*lines, f"Counted on: {basis}", *found["notes"]]


def line(found: Mapping[str, Any], name: bool = True) -> str:
    """Return how far a bulk is, in one line."""
    p = found["progress"]
    parts = [f"{p['done'] + p['failed'] + p['cancelled']:,} of {count(p['sent'], 'job')}"]
    if p["failed"]:
        domains = ", ".join(f"{domain} {jobs:,}" for domain, jobs in found["failures_by_domain"].items())
        parts.append(f"{p['failed']:,} failed ({domains})")
    if p["cancelled"]:
        parts.append(f"{p['cancelled']:,} cancelled")
    if found["state"] == "complete":
        parts.append("complete")
        return _named(found, parts, name)
    parts += [f"{p[state]:,} {state}" for state in _ONGOING if p[state]]
    if found["rate_per_s"] is not None:
        parts.append(_rate(found))
    parts.append(f"ends in {left(found)}" if found["left_s"] is not None else f"end not known: {found['why']}")
    return _named(found, parts, name)


def _rate(found: Mapping[str, Any]) -> str:
    rate = found["rate_per_s"]["value"]
    return f"{estimate(number(float(f'{rate:.2g}')))} jobs/s"


def _named(found: Mapping[str, Any], parts: list[str], name: bool) -> str:
    said = ", ".join(parts)
    return f"{found['id']}: {said}" if name else said


def moments(found: Mapping[str, Any]) -> str:
    """Return when a bulk will end, whose end is known, with the interval."""
    end = found["end_ns"]
    form = CLOCK if found["left_s"]["high"] < _SAME_DAY_S else DAY
    low, high = (moment(end[name], form) for name in ("low", "high"))
    return f"at {moment(end['value'], form)} UTC" + ("" if low == high else f" ({low} to {high})")
