"""``bulkscope explain``: why a bulk took as long as it did."""

from __future__ import annotations

import argparse

from bulkscope_studio import api, elastic, render_explain, source
from bulkscope_studio.output import Output


def command(argv: list[str]) -> int:
    """Run it; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser(
        "bulkscope explain", description="What held a bulk up: one verdict, its evidence, and where the time went."
    )
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    parser.add_argument(
        "--all", action="store_true", help="print the evidence of every finding, not only the verdict's"
    )
    source.arguments(parser)
    options = parser.parse_args(argv)
    return source.printed(
        "explain",
        options,
        lambda: source.of_bulk(options, "explain", api.bulk_explanation, elastic.Elastic.explanation),
        lambda found: render_explain.text(found, Output(), everything=options.all),
        render_explain.markdown,
    )
