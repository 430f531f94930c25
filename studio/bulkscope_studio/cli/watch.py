"""``bulkscope watch``: how far a bulk is, and when it ends, until it has."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import ending
from bulkscope_studio.rendering.output import Output, Renewed, as_json
from bulkscope_studio.sources.file import FileSource
from bulkscope_studio.sources.source import InvalidQuery, NotFound, Source
from bulkscope_studio.text import parse

EPILOG = """exit codes: 0 every job is done; 1 a job has failed or was cancelled; 2 no such bulk, no store, wrong
usage; 3 nothing more is heard of the bulk and not all of its jobs have ended; 130 after Ctrl-C"""
# What is asked takes at most so much of the time, however large the bulk is.
_SHARE = 0.1


def command(argv: list[str]) -> int:
    """Run it until the bulk has ended; the exit codes are those of ``EPILOG``."""
    parser = argparse.ArgumentParser(
        "bulkscope watch",
        description="How far a bulk is, at what rate, what has failed, and when it ends: one line that renews itself "
        "on a terminal, a line for each change elsewhere.",
        epilog=EPILOG,
    )
    options.bulk(parser)
    parser.add_argument("--every", metavar="TIME", default="2s", help="how often to look (default: 2s)")
    parser.add_argument(
        "--give-up", metavar="TIME", default="60s",
        help="how long to wait for the first record of the bulk, or for more of one that has stopped (default: 60s)",
    )  # fmt: skip
    options.output(parser)
    options.source(parser)
    given = parser.parse_args(argv)
    try:
        every, patience = (parse.duration(text) for text in (given.every, given.give_up))
    except ValueError as error:
        return running.failed("watch", InvalidQuery(str(error)))

    def ask(source: Source) -> int:
        with Renewed(Output(), lines=given.format != "text") as line:
            return _watched(source, given, line, every, patience)

    return running.asked("watch", given, ask)


def _watched(source: Source, given: argparse.Namespace, line: Renewed, every: float, patience: float) -> int:
    """Show one bulk until it has ended, or for ``patience`` s nothing was heard; ``latest`` is the one of the start."""
    name, quiet_since = given.bulk, time.monotonic()
    moves = not isinstance(source, FileSource)  # the file of a studio that does not run stays as it is
    while True:
        began = time.monotonic()
        try:
            found = source.ending(name)
        except NotFound:
            if not moves or began - quiet_since >= patience:
                raise
        else:
            name = found["id"]
            text = as_json(found, indent=None) if given.format == "json" else ending.line(found)
            line.show(text, _change(found))
            if found["state"] == "complete":
                return 1 if found["progress"]["failed"] or found["progress"]["cancelled"] else 0
            if found["state"] == "running":
                quiet_since = began
            if not moves or began - quiet_since >= patience:
                return 3
        took = time.monotonic() - began
        time.sleep(max(every - took, took / _SHARE, 0.0))


def _change(found: Mapping[str, Any]) -> object:
    return found["state"], found["progress"], found["why"]
