"""``bulkscope explain``: why a bulk took as long as it did."""

from __future__ import annotations

import argparse

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import explanation
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources import verdicts
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.sources.source import InvalidQuery, Source
from bulkscope_studio.text.wording import printable


def command(argv: list[str]) -> int:
    """Run it; 0 when printed or published, 2 when there is no such bulk, no store, or it cannot be written to."""
    parser = argparse.ArgumentParser(
        "bulkscope explain",
        description="Why a bulk took its time: one verdict, its evidence, where the time went.",
    )
    options.bulk(parser, default=None)
    options.output(parser, "md")
    parser.add_argument(
        "--all", action="store_true", help="print the evidence of every finding, not only the verdict's"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"with --source elasticsearch: write the verdict into the data stream {verdicts.STREAM}, once a bulk",
    )
    parser.add_argument("--last", metavar="TIME", help="with --publish: every bulk of the last TIME, such as 30m or 2h")
    options.source(parser)
    given = parser.parse_args(argv)
    if given.publish or given.last is not None:
        return _publish(given)
    return running.run(
        "explain", given, lambda source: source.explanation(given.bulk or options.LATEST),
        lambda found: explanation.text(found, Output(), everything=given.all),
        explanation.markdown,
    )  # fmt: skip


def _publish(given: argparse.Namespace) -> int:
    problem = _misused(given)
    if problem is not None:
        return running.failed("explain", InvalidQuery(problem))

    def published(source: Source) -> int:
        assert isinstance(source, ElasticsearchSource)
        bulk, last = given.bulk, given.last
        chosen = verdicts.ended(source, last) if last is not None else verdicts.named(source, bulk or options.LATEST)
        found = []
        for one in verdicts.publish_all(source, chosen):
            found.append({"bulk": one.bulk, "state": one.state, "verdict": one.verdict})
            if given.format != "json":  # a line when it is done: of many bulks the last may take minutes
                verdict = "" if one.verdict is None else f": {one.verdict}"
                say(f"{one.state:<10} {printable(one.bulk)}{verdict}")
        running.printed(given, found, lambda found: None if found else say("no bulk to publish"))
        return 0

    return running.asked("explain", given, published)


def _misused(given: argparse.Namespace) -> str | None:
    if not given.publish:
        return "--last goes with --publish"
    if given.source != "elasticsearch":
        return "--publish writes into Elasticsearch, from what is there: add --source elasticsearch"
    if given.bulk is not None and given.last is not None:
        return "name a bulk to publish, or all of a time with --last, as in --last 1h: not both"
    return None
