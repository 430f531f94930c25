"""``bulkscope export``: the records of one bulk as a file."""

from __future__ import annotations

import argparse

from bulkscope_studio.cli import files, options, running
from bulkscope_studio.sources.source import WHAT, Source

EPILOG = """examples:
  bulkscope export -o jobs.parquet
  bulkscope export nightly-7 --what spans --format csv | head

In Python the same is bulkscope_studio.read("nightly-7"). Columns have their units in their names; docs/sql.md has them
all. Exit codes: 0 written; 2 no such bulk, no store, or nowhere to write it to."""


def command(argv: list[str]) -> int:
    """Run ``bulkscope export``; 0 when written, 2 when there is no such bulk, no store, or no place for it."""
    parser = argparse.ArgumentParser(
        "bulkscope export", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="The jobs of one bulk as a table, one row each, or what was recorded of it.",
    )  # fmt: skip
    parser.add_argument("bulk", nargs="?", default="latest", help="id of the bulk (default: latest, the newest one)")
    parser.add_argument("--what", choices=WHAT, default=WHAT[0], help="which records (default: jobs)")
    files.add(parser, default="csv")
    options.source(parser)
    given = parser.parse_args(argv)

    def answered(source: Source) -> int:
        files.write(source.export(given.bulk, given.what), files.chosen(given, "csv"), given.output)
        return 0

    return running.asked("export", given, answered)
