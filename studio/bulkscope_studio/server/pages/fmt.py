"""What only pages write: moments for a reader and for a tooltip, and links."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from bulkscope_studio.text.wording import ABSENT


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
