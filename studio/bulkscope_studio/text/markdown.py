"""Markdown: names come from senders, and none may take effect where it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bulkscope_studio.text.wording import printable

# What begins a construct of Markdown inside a line: code, emphasis, links and images, HTML, entities, cells, lines
# through. A bracket alone is none, and an underscore within a word.
_INLINE = re.compile(r"\\|\||`|\*|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|~(?=~)")
# And at the beginning of one: headings, lists, quotations, rules.
_FIRST = re.compile(r"(?=(?:#{1,6}|[-+])(?:\s|$)|>|[-=]+\s*$)")
_NUMBERED = re.compile(r"(\d{1,9})(?=[.)](?:\s|$))")


def inline(text: str) -> str:
    """Return a text for Markdown, in a line or in a cell of a table, that shows as it is."""
    escaped = _INLINE.sub(lambda found: "\\" + found[0], printable(text.replace("\n", " ")).strip())
    if _FIRST.match(escaped):
        return "\\" + escaped
    return _NUMBERED.sub(r"\1\\", escaped, count=1) if _NUMBERED.match(escaped) else escaped


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return the lines of a table; ``right`` are the columns set to the right, by number."""
    numeric = set(right)
    rule = "|" + "|".join("---:" if number in numeric else "---" for number in range(len(columns))) + "|"
    return [_row(columns), rule, *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(inline, cells)) + " |"


def bullets(texts: Iterable[str]) -> list[str]:
    """Return the lines of a list."""
    return [f"- {inline(text)}" for text in texts]
