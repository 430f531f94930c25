"""``bulkscope report`` and ``bulkscope bulks``."""

from __future__ import annotations

import argparse
import json
import sys

from bulkscope_studio import api, elastic, render, source


def command(argv: list[str]) -> int:
    """Run ``bulkscope report``; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser("bulkscope report", description="The thirteen numbers of one bulk.")
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    source.arguments(parser)
    options = parser.parse_args(argv)
    try:
        report = source.of_bulk(options, "report", api.bulk_report, elastic.Elastic.report)
    except source.TROUBLES as trouble:
        print(f"bulkscope report: {source.lines(str(trouble))}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(report, indent=2, ensure_ascii=False))
    elif options.format == "md":
        print(render.markdown(report), end="")
    else:
        render.text(report, source.console())
    return 0


def bulks_command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = argparse.ArgumentParser("bulkscope bulks", description="The bulks in the store, newest first.")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    source.arguments(parser)
    options = parser.parse_args(argv)
    try:
        rows = source.bulks(options)
    except source.TROUBLES as trouble:
        print(f"bulkscope bulks: {source.lines(str(trouble))}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        render.bulks(rows, source.console())
    else:
        print(source.known(rows))
    return 0
