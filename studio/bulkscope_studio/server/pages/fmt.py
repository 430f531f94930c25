"""Numbers as text with their units. What is absent is shown as a dash, never as 0."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TypeGuard
from urllib.parse import quote

from bulkscope_studio.text import wording

ABSENT = wording.ABSENT


def _known(value: float | int | None) -> TypeGuard[float | int]:
    return value is not None and math.isfinite(value)


def number(value: float | int | None, unit: str = "", digits: int = 1) -> str:
    """Return a count or rate with thousands separated."""
    if not _known(value):
        return ABSENT
    text = f"{value:,.{digits}f}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"
    return f"{text} {unit}".strip()


def seconds(value: float | None) -> str:
    """Return a duration given in seconds."""
    if not _known(value):
        return ABSENT
    size = abs(value)
    if size >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    if size >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if size >= 1e-3 or not size else f"{value * 1e6:.0f} µs"


def count(value: float | int | None, one: str) -> str:
    """Return a whole number of things, ``1 job`` or ``2 jobs``."""
    return wording.count(round(value), one) if _known(value) else ABSENT


def size(value: float | int | None) -> str:
    """Return bytes in binary units."""
    return wording.size(value) if _known(value) else ABSENT


def share(value: float | None) -> str:
    """Return a ratio 0..1 in per cent."""
    return f"{value * 100:.1f} %" if _known(value) else ABSENT


def local(ns: int | None) -> str:
    """Return a moment in local time."""
    return ABSENT if ns is None else datetime.fromtimestamp(ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def utc(ns: int | None) -> str:
    """Return a moment in UTC to the nanosecond, for tooltips."""
    if ns is None:
        return ""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 10**9:09d}Z"


def link(kind: str, ident: str) -> str:
    """Return the page of a bulk or trace; everything in the id is quoted, slashes too."""
    return f"/{kind}/{quote(ident, safe='')}"
