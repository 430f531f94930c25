"""``bulkscope bulks``: the list of bulks."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import report as render
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources.source import Source


def command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = argparse.ArgumentParser("bulkscope bulks", description="The bulks in the store, newest first.")
    options.output(parser)
    options.source(parser)

    nothing = running.NO_BULK

    def ask(source: Source) -> list[dict[str, Any]]:
        nonlocal nothing
        rows = source.bulks()
        if not rows:
            nothing = running.no_bulk(source)
        return rows

    def text(rows: list[dict[str, Any]]) -> None:
        if rows:
            render.bulks(rows, Output())
        else:
            say(nothing)

    return running.run("bulks", parser.parse_args(argv), ask, text)
