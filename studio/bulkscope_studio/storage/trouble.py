"""How a running studio tells of its store's trouble beside an answer that can be had all the same: in a header."""

from __future__ import annotations

from urllib.parse import quote, unquote

HEADER = "bulkscope-trouble"


def encoded(trouble: str) -> str:
    """Return what ``HEADER`` says of a trouble."""
    return quote(trouble)


def decoded(header: str | None) -> str | None:
    """Return the trouble that ``HEADER`` tells of; None where it is absent."""
    return None if header is None else unquote(header)
