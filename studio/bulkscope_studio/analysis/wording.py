"""Numbers as words of a sentence. The same number always gives the same text."""

from __future__ import annotations

import math

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


def count(value: int, one: str, more: str = "") -> str:
    """A number of things: ``1 job``, ``2 jobs``."""
    return f"{value:,} {one if value == 1 else more or one + 's'}"


def unended(left: int, sent: int) -> str:
    """How many jobs are still open: ``2 of 7 jobs have not ended``."""
    if sent == 1:
        return "its only job has not ended"
    return f"{left:,} of {sent:,} jobs {'has' if left == 1 else 'have'} not ended"


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
