"""``bulkscope sql``: a question of one's own, of a running studio or of its file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pyarrow as pa

from bulkscope_studio.cli import files, options, running
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.rendering.tables import cells
from bulkscope_studio.sources.source import MOST_ANSWERED, Source

# A terminal's own memory of lines.
SHOWN = 1000
EPILOG = """tables: bulks, jobs('ID'), attempts('ID'), inferences, spans, logs, points, resources, drops

examples:
  bulkscope sql "SELECT model, count(*), avg(work_s) FROM jobs('latest') GROUP BY model"
  bulkscope sql "DESCRIBE spans"
  bulkscope sql "FROM inferences WHERE ttft_s > 2" -o slow.parquet

Columns have their units in their names; docs/sql.md has them all. Only SELECT is run, of these tables. Exit codes: 0
answered; 2 refused, wrong, no store, or nowhere to write it to."""


def command(argv: list[str]) -> int:
    """Run ``bulkscope sql``; 0 when answered, 2 when it is refused or wrong, or there is no store."""
    parser = argparse.ArgumentParser(
        "bulkscope sql", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="One SELECT of what the studio has stored, while it runs or afterwards. It changes nothing.",
    )  # fmt: skip
    parser.add_argument("query", metavar="SELECT", help="the statement; - reads it from the standard input")
    files.add(parser, "text", default="text")
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"most rows (default: {SHOWN} as text, else {MOST_ANSWERED})"
    )
    options.db(parser)
    parser.set_defaults(source="studio")
    given = parser.parse_args(argv)
    kind = files.chosen(given, "text")
    query = sys.stdin.read() if given.query == "-" else given.query
    limit = given.limit if given.limit is not None else SHOWN if kind == "text" else MOST_ANSWERED

    def answered(source: Source) -> int:
        found = source.sql(query, {}, limit)
        if kind == "text":
            _show(found.rows)
        else:
            files.write(found.rows, kind, given.output)
        if found.cut:
            running.warn(f"{found.cut} (--limit, or a file, takes more)" if kind == "text" else found.cut)
        return 0

    return running.asked("sql", given, answered)


def _show(found: pa.Table) -> None:
    numeric: Sequence[int] = [
        at
        for at, field in enumerate(found.schema)
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    ]
    Output().print_table(found.column_names, cells(found), right=numeric)
