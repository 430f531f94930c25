"""What all commands do: open a source, ask it, print the answer, and tell what went wrong in one place."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bulkscope_studio.rendering.output import Waiting, as_json, say
from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.source import Answer, Conflict, InvalidQuery, NotFound, Source, Trouble, Unnamed
from bulkscope_studio.text.wording import NO_MODEL, count, printable

MOST_NAMED = 5
NO_BULK = (
    "The store holds no bulk yet: keep 'bulkscope studio' running, start the services with 'bulkscope run <command>' "
    "and send a bulk."
)
NO_RUN = "No run is kept yet: bulkscope runs keep NAME BULK"
ERRORS = (Trouble, NotFound, InvalidQuery, Conflict)


def run(
    command: str,
    options: argparse.Namespace,
    ask: Callable[[Source], Any],
    text: Callable[[Any], None],
    markdown: Callable[[Any], str] | None = None,
    code: Callable[[Any], int] = lambda _: 0,
) -> int:
    """Print what ``ask`` has from the source as ``options.format`` says; its ``code``, or 2 when there is no answer.

    What takes longer than a second says so on a terminal.
    """
    waiting = Waiting(f"bulkscope {command}: reading,")

    def answered(source: Source) -> int:
        found = ask(source)
        waiting.over()
        printed(options, found, text, markdown)
        return code(found)

    return asked(command, options, answered, waiting)


def asked(
    command: str,
    options: argparse.Namespace,
    answered: Callable[[Source], int],
    waiting: AbstractContextManager[object] | None = None,
) -> int:
    """Return the exit code that ``answered`` gives of the source; 2, and say why, where there is no answer; 130 after
    Ctrl-C. ``waiting`` lasts until then."""
    try:
        told(options)
        with waiting or nullcontext(), resolve.open(options, warn) as source:
            try:
                return answered(source)
            except (NotFound, Unnamed) as error:
                raise Trouble(_helpful(error, source)) from error
    except ERRORS as error:
        return failed(command, error)
    except KeyboardInterrupt:
        return 130


def told(options: argparse.Namespace) -> None:
    """Raise ``InvalidQuery`` for an argument whose bytes are no UTF-8: no id or name that was recorded has such."""
    for value in vars(options).values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _is_text(text):
                raise InvalidQuery(f"{text!a} is not UTF-8: give the name as 'bulkscope bulks --format json' has it")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printed(
    options: argparse.Namespace,
    found: Any,
    text: Callable[[Any], None],
    markdown: Callable[[Any], str] | None = None,
) -> None:
    """Print an answer as ``options.format`` says."""
    if options.format == "json":
        say(as_json(found))
    elif options.format == "md" and markdown is not None:
        say(markdown(found), end="")
    else:
        text(found)


def failed(command: str, error: Exception) -> int:
    """Say why a command has no answer; return its exit code."""
    say(f"bulkscope {command}: {error}", error=True)
    return 2


def warn(message: str) -> None:
    """Say what an answer does not."""
    say(f"bulkscope: {message}", error=True)


def _helpful(error: NotFound | Unnamed, source: Source) -> str:
    if isinstance(error, NotFound):
        helpful = nearest(error)
        if helpful == NO_BULK:
            helpful = no_bulk(source)
        return f"no {error.what} {error.name!r} in {source.place}. {helpful}"
    kept = [run["name"] for run in source.runs()] if error.runs else []
    return f"{error}. {known(source.bulks())}" + (f". Kept runs: {names(kept)}" if kept else "")


def no_bulk(source: Source) -> str:
    """Say that there is no bulk, what there is instead, and what is missing for one."""
    there = source.outside()
    parts = [] if there is None else [
        count(there[name], one, many)
        for name, one, many in (
            ("requests", "API request", "API requests"), ("sent", "sent job", "sent jobs"),
            ("attempts", "attempt at a job", "attempts at jobs"), ("inferences", "inference", "inferences"),
        )
        if there[name]
    ]  # fmt: skip
    if there is None or not parts:
        return NO_BULK
    of = f" of {names(there['services'][:MOST_NAMED])}" if there["services"] else ""
    missing = "start what sends the jobs with 'bulkscope run <command>' too, or give each job an argument 'bulk_id'"
    if there["sent"]:
        missing = "give the request or each job an id 'bulk_id'"
    elif not there["attempts"]:
        missing = (
            "no queue was seen that Bulkscope knows: give the request an id 'bulk_id', and see docs/own-code.md for a "
            "queue of your own"
        )
    return f"The store holds no bulk yet, but {', '.join(parts)}{of} that belong to none: {missing}."


def known(rows: Sequence[Answer]) -> str:
    """Say which bulks there are, or how to get one."""
    return "Last bulks: " + names(row["id"] for row in rows[:MOST_NAMED]) if rows else NO_BULK


def nearest(error: NotFound) -> str:
    """Say which names are near to one that nothing has, or how to get one."""
    if error.nearest:
        return "Nearest: " + names(error.nearest)
    if error.what == "run":
        return NO_RUN
    return NO_BULK if error.what.startswith("bulk") else NO_MODEL


def names(found: Iterable[str]) -> str:
    """Return names in a row, without what a terminal would take for commands."""
    return ", ".join(map(printable, found))
