"""``bulkscope check``: whether a bulk is slower than another or a kept run, as an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering.output import say
from bulkscope_studio.sources.source import Source, Unnamed
from bulkscope_studio.text.markdown import bullets, inline
from bulkscope_studio.text.wording import printable

CODES = {"fine": 0, "slower": 1, "unknown": 2}
EPILOG = """exit codes: 0 not slower than allowed; 1 slower than allowed, for certain; 2 cannot be said from these jobs,
no such bulk or run, wrong usage (where it cannot be said, the answer is on the standard output all the same)"""


def command(argv: list[str]) -> int:
    """Run it; the exit codes are those of ``EPILOG``."""
    parser = argparse.ArgumentParser(
        "bulkscope check",
        description="Whether a bulk's jobs take longer than those of another bulk or a kept run, at equal tokens.",
        epilog=EPILOG,
    )
    options.bulk(parser)
    parser.add_argument("--against", metavar="RUN", help="a kept run or a bulk; add @MODEL for one of its models")
    parser.add_argument("--max-slower", metavar="SHARE", default="10%", help="what is allowed (default: 10%%)")
    options.output(parser, "md")
    options.source(parser)
    given = parser.parse_args(argv)

    def ask(source: Source) -> Any:
        if given.against is None:
            raise Unnamed("say --against which bulk or kept run it is held", runs=True)
        return source.check(given.bulk, given.against, given.max_slower)

    return running.run("check", given, ask, _text, _markdown, lambda found: CODES[found["result"]])


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield found["text"]
    yield from (f"Caution: {each['text']}" for each in found["cautions"])
    yield from (f"Note: {each}" for each in found["notes"])


def _text(found: Mapping[str, Any]) -> None:
    for line in _lines(found):
        say(printable(line))


def _markdown(found: Mapping[str, Any]) -> str:
    return "\n".join([f"# Bulk {inline(found['bulk'])}: {found['result']}", "", *bullets(_lines(found)), ""])
