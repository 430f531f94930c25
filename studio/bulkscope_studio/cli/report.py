"""``bulkscope report``: one bulk in short, whole, or by model, worker or host."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import digest, frozen
from bulkscope_studio.rendering import report as render
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources.source import InvalidQuery, Source

EPILOG = """As text the bulk is told in short, in 14 lines however large it is. Markdown and JSON, which are kept and
sent on, have all of the thirteen numbers, as --full has them; html is the page of the bulk as one file."""


def command(argv: list[str]) -> int:
    """Run ``bulkscope report``; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser(
        "bulkscope report",
        description="One bulk: state, verdict, where the time went, waits, work, rates, what failed, what was slow.",
        epilog=EPILOG,
    )
    options.bulk(parser)
    parser.add_argument("--by", choices=render.KINDS, help="a line for each model, worker or host")
    parser.add_argument("--full", action="store_true", help="all thirteen numbers, in total, by model and by worker")
    options.output(parser, "md", "html")
    options.source(parser)
    given = parser.parse_args(argv)
    if given.full and given.by is not None:
        return running.failed("report", InvalidQuery("--by and --full are two forms of a report: choose one"))
    short = given.format == "text" and given.by is None and not given.full

    def ask(source: Source) -> Any:
        if given.format == "html":
            return source.frozen(given.bulk)
        return source.digest(given.bulk) if short else source.report(given.bulk, given.by == "host")

    def text(found: Any) -> None:
        if given.format == "html":
            say(frozen.document(found), end="")
        elif given.by is not None:
            render.by(found, given.by, Output())
        elif given.full:
            render.text(found, Output())
        else:
            bulk = "" if given.bulk == options.LATEST else given.bulk
            digest.text(found, Output(), bulk, _also(given))

    def markdown(found: Any) -> str:
        return render.markdown(found) if given.by is None else render.by_markdown(found, given.by)

    return running.run("report", given, ask, text, markdown)


def _also(given: argparse.Namespace) -> str:
    """Return the options that another command on the same bulk needs."""
    if given.source == "elasticsearch":
        return "--source elasticsearch"
    return "" if given.db is None else f"--db {shlex.quote(str(given.db))}"
