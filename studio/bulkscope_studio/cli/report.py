"""``bulkscope report``: the thirteen numbers of one bulk."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import frozen
from bulkscope_studio.rendering import report as render
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources.source import Source, Unnamed


def command(argv: list[str]) -> int:
    """Run ``bulkscope report``; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser("bulkscope report", description="The thirteen numbers of one bulk.")
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    options.output(parser, "md", "html")
    options.source(parser)
    given = parser.parse_args(argv)

    def ask(source: Source) -> Any:
        if given.bulk is None:
            raise Unnamed("name a bulk, or say 'latest'")
        return source.frozen(given.bulk) if given.format == "html" else source.report(given.bulk)

    def text(found: Any) -> None:
        if given.format == "html":
            say(frozen.document(found), end="")
        else:
            render.text(found, Output())

    return running.run("report", given, ask, text, render.markdown)
