"""Everything that a command writes. Names come from senders: none may take effect where it is shown.

``say``, ``Output`` and ``as_json``, and ``text.markdown`` for files, are the only ways out;
`tests/studio/test_output.py` looks for others.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bulkscope_studio.text.wording import printable

# A pipe has no width of its own; 80 columns would cut a table that a file has room for.
_WIDE = 120


def lines(message: str) -> str:
    """Return a message for a terminal: what ids and answers in it could do there is taken out, its lines stay."""
    return message if message.isprintable() else "\n".join(map(printable, message.split("\n")))


def say(message: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a message at once, to the standard output or where errors go."""
    print(lines(message), file=sys.stderr if error else sys.stdout, end=end, flush=True)


class Output(Console):
    """Where text goes, with rich's tables and styles, and without its markup: a model may be named ``[/bold]``.

    Strings, in tables and titles too, become text through ``render_str``, and whatever is written passes ``render``.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        if width is None and not (file or sys.stdout).isatty():
            width = _WIDE
        super().__init__(file=file, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return ``text`` as it is, whatever markup or emoji it names."""
        shape = {name: how[name] for name in ("style", "justify", "overflow") if name in how}
        return Text(printable(text), **shape)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is written, nothing of which is an escape but rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(lines(segment.text), segment.style)

    def print_table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), title: str = ""
    ) -> None:
        """Print a table; ``right`` are the columns set to the right, by number."""
        numeric = set(right)
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left", title_style="bold"
        )
        for number, name in enumerate(columns):
            table.add_column(name, justify="right" if number in numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.print(table)


class Renewed:
    """A line that renews itself on a terminal; elsewhere, and for ``lines``, a line for each change."""

    def __init__(self, console: Output, lines: bool = False) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal and not lines else None
        self._said: object = None

    def __enter__(self) -> Renewed:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, message: str, change: object = None) -> None:
        """Show a line; where lines stay, only when ``change``, or without one the line, is another than before."""
        if self._live is not None:
            text = self._console.render_str(message, overflow="ellipsis")
            text.no_wrap = True
            self._live.update(text, refresh=True)
            return
        said = message if change is None else change
        if said != self._said:
            say(printable(message))
        self._said = said


def as_json(found: object, indent: int | None = 2) -> str:
    """Return JSON in which what is not printable, C1 controls and bidirectional overrides too, is escaped.

    Without an ``indent`` it is one line.
    """
    return _FOREIGN.sub(
        lambda each: each[0] if each[0].isprintable() else json.dumps(each[0])[1:-1],
        json.dumps(found, indent=indent, ensure_ascii=False),
    )


_FOREIGN = re.compile(r"[^\n -~]")
