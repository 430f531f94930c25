"""Everything that a command writes. Names come from senders: none may take effect where it is shown.

``say``, ``Output`` and ``as_json``, and ``text.markdown`` for files, are the only ways out;
`tests/studio/test_output.py` looks for others.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bulkscope_studio.text.wording import printable

# A pipe has no width of its own: sentences are cut into lines of so many cells, tables and rows are not.
_WIDE = 120
# What answers sooner needs no word that it is coming.
PATIENCE_S = 1.0
# A table's edges take a cell each, and three stand between two columns.
_EDGES, _BETWEEN = 2, 3


def lines(message: str) -> str:
    """Return a message for a terminal: what ids and answers in it could do there is taken out, its lines stay."""
    return message if message.isprintable() else "\n".join(map(printable, message.split("\n")))


def say(message: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a message at once, to the standard output or where errors go."""
    print(lines(message), file=sys.stderr if error else sys.stdout, end=end, flush=True)


def deliver(data: bytes, file: Path | None, binary: bool) -> None:
    """Write a file's content to ``file``, or to the standard output: byte by byte, but on a terminal as ``say`` does.

    Raises ``OSError``, and ``Unreadable`` for what is ``binary`` on a terminal.
    """
    if file is not None:
        file.write_bytes(data)
    elif not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif binary:
        raise Unreadable
    else:
        say(data.decode(errors="replace"), end="")


class Unreadable(Exception):
    """What is to be shown on a terminal is binary."""


class Output(Console):
    """Where text goes, with rich's tables and styles, and without its markup: a model may be named ``[/bold]``.

    Strings, in tables and titles too, become text through ``render_str``, and whatever is written passes ``render``.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        self.piped = width is None and not (file or sys.stdout).isatty()
        width = _WIDE if self.piped else width
        super().__init__(file=file, width=width, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as rich does, but a word that is longer than a line stays whole: it may be an id."""
        texts = [str(each) for each in objects if isinstance(each, (str, Text))]
        with self.at_least(max((cell_len(word) for text in texts for word in text.split()), default=0)):
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        """Leave it to the command's caller, as ``say`` does, that nobody reads any more."""
        raise BrokenPipeError

    def render_str(self, text: str, **how: Any) -> Text:
        """Return ``text`` as it is, whatever markup or emoji it names."""
        shape = {name: how[name] for name in ("style", "justify", "overflow") if name in how}
        return Text(printable(text), **shape)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is written, nothing of which is an escape but rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(lines(segment.text), segment.style)

    def print_table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: Iterable[int] = (),
        title: str = "",
        spare: Sequence[int] = (),
    ) -> None:
        """Print a table; ``right`` are the columns set to the right, by number.

        On a terminal that is too narrow the ``spare`` columns are left out, the first of them first; then cells are
        cut between words. A word, which may be an id, stays whole, and in a pipe nothing is left out or cut.
        """
        numeric, cells = set(right), [list(row) for row in rows]
        kept, widths = fitted([columns, *cells], self.piped, self.width, spare)
        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left", title_style="bold"
        )
        for number, width in zip(kept, widths, strict=True):
            justify = "right" if number in numeric else "left"
            table.add_column(columns[number], justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*(row[number] for number in kept))
        with self.at_least(table_width(widths)):
            self.print(table)

    @contextmanager
    def at_least(self, cells: int) -> Iterator[None]:
        """Be as wide as ``cells`` while the block prints what must not be cut."""
        was = self._width
        self.width = max(cells, self.width)
        try:
            yield
        finally:
            self._width = was


def table_width(widths: Sequence[int]) -> int:
    """Return how many cells a table of such columns takes."""
    return _EDGES + sum(widths) + _BETWEEN * (len(widths) - 1)


def fitted(
    rows: Sequence[Sequence[str]], unbound: bool, width: int, spare: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return which columns of a table stay, by number, and how wide each is, in cells.

    ``rows`` begin with the heads. A column is as wide as its widest cell, and at least as its longest word.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(*shown, strict=True))
    whole = [max(1, *map(cell_len, cells)) for cells in columns]
    least = [max(1, *(cell_len(word) for cell in cells for word in cell.split(" "))) for cells in columns]
    kept = list(range(len(columns)))

    def fits(numbers: Sequence[int]) -> bool:
        return unbound or table_width([whole[number] for number in numbers]) <= width

    for number in spare:
        if not fits(kept):
            kept.remove(number)
    for number in reversed(spare):  # a narrow one may have room where a wide one had none
        if number not in kept and fits([*kept, number]):
            kept = sorted([*kept, number])
    widths = [whole[number] for number in kept]
    while not unbound and table_width(widths) > width:
        roomy = [place for place, number in enumerate(kept) if widths[place] > least[number]]
        if not roomy:
            break
        widths[max(roomy, key=lambda place: widths[place])] -= 1
    return kept, widths


class Waiting:
    """Says on a terminal, where errors go, that an answer is on its way, once that takes longer than a second."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._over = threading.Event()
        shown = sys.stderr is not None and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal
        self._thread = threading.Thread(target=self._tell, daemon=True) if shown else None

    def __enter__(self) -> Waiting:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        """Take the line away."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _tell(self) -> None:
        waited = 0
        while not self._over.wait(PATIENCE_S):
            waited += 1
            print(f"\r{lines(self._message)} {waited} s", end="", file=sys.stderr, flush=True)
        if waited:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


class Renewed:
    """A line that renews itself on a terminal; elsewhere, and for ``lines``, a line for each change."""

    def __init__(self, console: Output, lines: bool = False) -> None:
        self._console = console
        renews = console.is_terminal and not console.is_dumb_terminal and not lines
        self._live = Live(console=console, auto_refresh=False) if renews else None
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
