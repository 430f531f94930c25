"""``bulkscope runs``: bulks kept under a name, to compare later ones with."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import comparison
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources.source import Source


def command(argv: list[str]) -> int:
    """Run ``bulkscope runs``; 0 when done, 2 when there is no such bulk, run or store."""
    given = _parser().parse_args(argv)

    def ask(source: Source) -> Any:
        if given.action == "keep":
            return source.keep(given.name, given.bulks, given.replace)
        if given.action == "show":
            return source.run(given.name)
        if given.action == "drop":
            return source.drop(given.name)
        return source.runs()

    def text(found: Any) -> None:
        if given.action == "drop":
            say(f"Dropped {given.name}.")
        elif given.action == "keep":
            say(comparison.kept(found))
        elif given.action == "show":
            say(comparison.run(found))
        elif found:
            comparison.runs(found, Output())
        else:
            say(running.NO_RUN)

    return running.run("runs", given, ask, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bulkscope runs", description="Bulks kept under a name beside the store; the retention does not delete them."
    )
    parser.set_defaults(source="studio")
    shared = argparse.ArgumentParser(add_help=False)
    options.db(shared, argparse.SUPPRESS)
    options.output(shared, default=argparse.SUPPRESS)
    options.db(parser)
    options.output(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", parents=[shared], help="list all kept runs (the default)")
    keep = actions.add_parser("keep", parents=[shared], help="keep one or several bulks under a name")
    keep.add_argument("name", metavar="NAME", help="letters, digits, '.', '_' and '-'")
    keep.add_argument(
        "bulks", metavar="BULK", nargs="*", default=[options.LATEST], help="id of a bulk (default: latest, the newest)"
    )
    keep.add_argument("--replace", action="store_true", help="replace a run of that name")
    for action, says in (("show", "show one kept run"), ("drop", "delete a kept run")):
        actions.add_parser(action, parents=[shared], help=says).add_argument("name", metavar="NAME")
    return parser
