"""``bulkscope bulks``: the list of bulks."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import report as render
from bulkscope_studio.rendering.output import Output, say


def command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = argparse.ArgumentParser("bulkscope bulks", description="The bulks in the store, newest first.")
    options.output(parser)
    options.source(parser)

    def text(rows: list[dict[str, Any]]) -> None:
        if rows:
            render.bulks(rows, Output())
        else:
            say(running.NO_BULK)

    return running.run("bulks", parser.parse_args(argv), lambda source: source.bulks(), text)
