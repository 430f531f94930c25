"""Numbers, durations, sizes and shares as text. The same number gives the same text on a page, in the terminal and in
Markdown. What is absent (None, NaN) is ``ABSENT``, never 0; an infinite number is ``∞``; an estimate has ``ESTIMATE``
before it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol, TypeGuard

ABSENT = "–"
ESTIMATE = "~"
PARTIAL = "PARTIAL"
UNKNOWN = "unknown"  # for a name that is absent
# Where there is no model at all to choose from.
NO_MODEL = "No inference was recorded there."
# Below every page and every table in which one of them can stand.
LEGEND = f"{ABSENT}: not recorded. {ESTIMATE}: estimate."


def known(value: float | None) -> TypeGuard[float]:
    """Tell whether there is a number at all."""
    return value is not None and math.isfinite(value)


def _unknown(value: float | None) -> str:
    return ABSENT if value is None or math.isnan(value) else "∞" if value > 0 else "-∞"


def number(value: float | None) -> str:
    """Three significant digits, whole numbers whole; six decimal places at most."""
    if not known(value):
        return _unknown(value)
    if abs(value) < 1e-6:
        return "0"
    if value == int(value) or abs(value) >= 999.5:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}".rstrip("0").rstrip(".")


def seconds(value: float | None) -> str:
    """A duration given in seconds; under a millionth of one is 0."""
    if not known(value):
        return _unknown(value)
    if abs(value) < 1e-6:
        return "0 s"
    if abs(value) >= 7200:
        return f"{value / 3600:.1f} h"
    if abs(value) >= 120:
        return f"{value / 60:.1f} min"
    # What would be written as 1,000 of a unit is 1 of the next.
    if abs(value) >= 0.9995:
        return f"{number(float(f'{value:.3g}'))} s"
    return f"{number(float(f'{value * 1e3:.3g}'))} ms" if abs(value) >= 0.9995e-3 else f"{number(value * 1e6)} µs"


def percent(share: float | None) -> str:
    """A share 0..1. Only 1 is written as 100 %, and only 0 as 0 %."""
    if not known(share):
        return _unknown(share)
    if 0 < abs(share) < 0.001:
        return "under 0.1 %" if share > 0 else "0 %"
    if 0.99 < share < 1:
        return "over 99.9 %" if share > 0.999 else f"{100 * share:.3g} %"
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if not known(value):
        return _unknown(value)
    for unit, scale in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{number(float(f'{value / scale:.3g}'))} {unit}"
    return f"{value:z.0f} B"


def moment(ns: int | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in UTC, given in nanoseconds since 1970."""
    return ABSENT if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).strftime(form)


def estimate(text: str, estimated: bool = True) -> str:
    """``text`` with the sign of an estimate where it is one, and where it is known."""
    return f"{ESTIMATE}{text}" if estimated and text != ABSENT else text


def unless_exact(text: str, exact_share: float | None) -> str:
    """``text`` with the sign of an estimate where only a share below 1 of what it sums up was measured exactly."""
    return estimate(text, exact_share is not None and exact_share < 1)


def agree(value: float | None, one: str, more: str) -> str:
    """The word for so many: ``one`` where the number is written as 1, else ``more``."""
    return one if number(value) == "1" else more


def count(value: float | None, one: str, more: str = "") -> str:
    """A number of things: ``1 job``, ``2 jobs``, ``1.5 cores``."""
    if not known(value):
        return ABSENT
    return f"{number(value)} {agree(value, one, more or one + 's')}"


def part(some: int, whole: int, one: str) -> str:
    """A part of things that are counted: ``2 of 7 jobs``, ``1 of 1 job``."""
    return f"{some:,} of {count(whole, one)}"


def between(low: float, high: float, words: Callable[[float], str] = number) -> str:
    """A range, by its ends as ``words`` writes them: ``2 to 4``; ``2`` where both are written alike."""
    first, last = words(low), words(high)
    return first if first == last else f"{first} to {last}"


def times(factor: float) -> str:
    """How many times as much, near 1 by three decimal places; beyond a thousandfold it is not told apart."""
    if not known(factor):
        return _unknown(factor)
    if factor >= 1000 or factor < 0.001:
        return "over 1000" if factor >= 1000 else "under 0.001"
    return f"{factor:.3f}" if abs(factor - 1) < 0.05 else f"{factor:.2f}" if factor >= 0.1 else f"{factor:.2g}"


def times_between(low: float, high: float) -> str:
    """The interval of a factor; one that leaves everything open is not known."""
    return "interval not known" if low < 0.001 and high >= 1000 else between(low, high, times)


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


class Unbegun(Protocol):
    """How many jobs came to nothing before anybody began them, or once more under the id of another."""

    @property
    def cancelled(self) -> int: ...
    @property
    def not_sent(self) -> int: ...
    @property
    def duplicate(self) -> int: ...


def unbegun(of: Unbegun, called_off: Iterable[str], not_sent: Iterable[str]) -> list[str]:
    """Say what jobs came to nothing, and why: ``3 jobs were cancelled (2 expired, 1 revoked)``.

    ``called_off`` and ``not_sent`` have a reason for each of these jobs.
    """
    said = []
    for number, what, why in ((of.cancelled, "cancelled", called_off), (of.not_sent, "not sent", not_sent)):
        if number:
            reasons = ", ".join(f"{times:,} {reason}" for reason, times in sorted(Counter(why).items()))
            said.append(f"{count(number, 'job')} {agree(number, 'was', 'were')} {what} ({reasons})")
    if of.duplicate:
        said.append(
            f"{count(of.duplicate, 'job')} {agree(of.duplicate, 'is a duplicate', 'are duplicates')}: one of the same "
            "id had been sent, and counts"
        )
    return said


def printable(text: str) -> str:
    """Ids and names come from outside: no escape of theirs may reach a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


_UNITS: dict[str, Callable[[float | None], str]] = {"share": percent, "s": seconds, "By": size, "1": number}


def value(amount: float | None, unit: str) -> str:
    """A number with its unit: ``share``, ``s``, ``By``, ``1``, ``1/s``, or what stands behind it (``jobs/s``)."""
    if unit in _UNITS:
        return _UNITS[unit](amount)
    if not known(amount):
        return ABSENT
    return f"{number(amount)}/s" if unit == "1/s" else f"{number(amount)} {unit}"


def sampled(sampler: str, ratio: float | None) -> str:
    """Say that spans were left to a sampler, and how much it keeps (a share; None: a caller decides)."""
    return f"sampled, {'as callers decide' if ratio is None else 'about ' + percent(ratio)} ({printable(sampler)})"
