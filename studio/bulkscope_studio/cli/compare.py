"""``bulkscope compare``: two sides, number by number."""

from __future__ import annotations

import argparse
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import comparison
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.sources.source import Source, Unnamed


def command(argv: list[str]) -> int:
    """Run ``bulkscope compare``; 0 when printed, 2 when there are no such sides or no store."""
    parser = argparse.ArgumentParser(
        "bulkscope compare",
        description="Compare two models, two runs or two settings, number by number, each with its interval.",
        epilog="A side is the id of a bulk, the name of a kept run, or 'latest'; add @MODEL for one of its models.",
    )
    parser.add_argument("a", nargs="?", metavar="A", help="the baseline (with --models by default: latest)")
    parser.add_argument(
        "b", nargs="?", metavar="B", help="the side that is compared with the baseline (default: latest)"
    )
    parser.add_argument("--models", action="store_true", help="compare the two models of one bulk or run")
    options.output(parser, "md")
    options.source(parser)
    given = parser.parse_args(argv)

    def ask(source: Source) -> Any:
        if given.models:
            return source.comparison(given.a or options.LATEST, given.b, True)
        if given.a is None:
            raise Unnamed("name the baseline, or use --models", runs=True)
        return source.comparison(given.a, given.b or options.LATEST)

    return running.run("compare", given, ask, lambda found: comparison.text(found, Output()), comparison.markdown)
