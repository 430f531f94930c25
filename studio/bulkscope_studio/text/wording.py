"""Numbers as words of a sentence. The same number always gives the same text."""

from __future__ import annotations

import math
from collections.abc import Callable

ABSENT = "–"


def number(value: float) -> str:
    """Three significant digits, whole numbers whole; six decimal places at most."""
    if not math.isfinite(value):
        return ABSENT
    if abs(value) < 1e-6:
        return "0"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}".rstrip("0").rstrip(".")


def seconds(value: float) -> str:
    """A duration given in seconds."""
    if not math.isfinite(value):
        return ABSENT
    if abs(value) >= 7200:
        return f"{value / 3600:.1f} h"
    if abs(value) >= 120:
        return f"{value / 60:.1f} min"
    if abs(value) >= 1 or value == 0:
        return f"{number(value)} s"
    return f"{number(value * 1e3)} ms"


def percent(share: float) -> str:
    """A share 0..1."""
    if not math.isfinite(share):
        return ABSENT
    if 0 < abs(share) < 0.001:
        return "under 0.1 %" if share > 0 else "0 %"
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def size(value: float) -> str:
    """Bytes in binary units."""
    if not math.isfinite(value):
        return ABSENT
    for unit, scale in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{number(float(f'{value / scale:.3g}'))} {unit}"
    return f"{value:.0f} B"


def agree(value: float, one: str, more: str) -> str:
    """The word for so many: ``one`` where the number is written as 1, else ``more``."""
    return one if number(value) == "1" else more


def count(value: float, one: str, more: str = "") -> str:
    """A number of things: ``1 job``, ``2 jobs``, ``1.5 cores``."""
    return f"{number(value)} {agree(value, one, more or one + 's')}"


def part(some: int, whole: int, one: str) -> str:
    """A part of things that are counted: ``2 of 7 jobs``, ``1 of 1 job``."""
    return f"{some:,} of {count(whole, one)}"


def between(low: float, high: float, words: Callable[[float], str] = number) -> str:
    """A range, by its ends as ``words`` writes them: ``2 to 4``; ``2`` where both are written alike."""
    first, last = words(low), words(high)
    return first if first == last else f"{first} to {last}"


def times_as(factor: float, how: str) -> str:
    """A factor of two things: ``as long``, ``1.5 times as long``."""
    return agree(factor, f"as {how}", f"{number(factor)} times as {how}")


def likely(so: bool) -> str:
    """The mark of what is not proved."""
    return " (likely)" if so else ""


def unended(left: int, sent: int) -> str:
    """How many jobs are still open: ``2 of 7 jobs have not ended``."""
    if sent == 1:
        return "its only job has not ended"
    return f"{part(left, sent, 'job')} {agree(left, 'has', 'have')} not ended"


def printable(text: str) -> str:
    """Ids and names come from outside: no escape of theirs may reach a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


_UNITS = {"share": percent, "s": seconds, "By": size}


def value(amount: float, unit: str) -> str:
    """A number with its unit; ``share``, ``s``, ``By`` and ``1`` are written as people do."""
    if unit in _UNITS:
        return _UNITS[unit](amount)
    return number(amount) if unit == "1" else f"{number(amount)} {unit}"
