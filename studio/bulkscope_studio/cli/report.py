"""``bulkscope report`` and ``bulkscope bulks``."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.rendering import report as render
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.services import reports
from bulkscope_studio.sources import elasticsearch, resolve


def command(argv: list[str]) -> int:
    """Run ``bulkscope report``; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser("bulkscope report", description="The thirteen numbers of one bulk.")
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    resolve.arguments(parser)
    options = parser.parse_args(argv)
    return resolve.printed(
        "report",
        options,
        lambda: resolve.of_bulk(options, "report", reports.bulk_report, elasticsearch.Elastic.report),
        lambda report: render.text(report, Output()),
        render.markdown,
    )


def bulks_command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = argparse.ArgumentParser("bulkscope bulks", description="The bulks in the store, newest first.")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    resolve.arguments(parser)
    options = parser.parse_args(argv)

    def text(rows: list[dict[str, Any]]) -> None:
        if rows:
            render.bulks(rows, Output())
        else:
            say(resolve.known(rows))

    return resolve.printed("bulks", options, lambda: resolve.bulks(options), text)
