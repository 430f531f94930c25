"""``bulkscope explain``: why a bulk took as long as it did."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.rendering import explanation
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.services import reports
from bulkscope_studio.setup.plan import VERDICTS
from bulkscope_studio.sources import elasticsearch, resolve, verdicts
from bulkscope_studio.storage import retention
from bulkscope_studio.text.wording import printable


def command(argv: list[str]) -> int:
    """Run it; 0 when printed or published, 2 when there is no such bulk, no store, or it cannot be written to."""
    parser = argparse.ArgumentParser(
        "bulkscope explain",
        description="Why a bulk took its time: one verdict, its evidence, where the time went.",
    )
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    parser.add_argument(
        "--all", action="store_true", help="print the evidence of every finding, not only the verdict's"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"with --source elasticsearch: write the verdict into the data stream {VERDICTS}, once a bulk",
    )
    parser.add_argument("--last", metavar="TIME", help="with --publish: every bulk of the last TIME, such as 30m or 2h")
    resolve.arguments(parser)
    options = parser.parse_args(argv)
    if options.publish or options.last is not None:
        return resolve.printed(
            "explain", options, lambda: _published(options), lambda found: None if found else say("no bulk to publish")
        )
    return resolve.printed(
        "explain",
        options,
        lambda: resolve.of_bulk(options, "explain", reports.bulk_explanation, elasticsearch.Elastic.explanation),
        lambda found: explanation.text(found, Output(), everything=options.all),
        explanation.markdown,
    )


def _published(options: argparse.Namespace) -> list[dict[str, Any]]:
    if not options.publish:
        raise resolve.Trouble("--last goes with --publish")
    if options.source != "elasticsearch":
        raise resolve.Trouble("--publish writes into Elasticsearch, from what is there: add --source elasticsearch")
    if (options.bulk is None) == (options.last is None):
        raise resolve.Trouble("name a bulk to publish, or all of a time with --last, as in --last 1h")
    since_ns = None if options.last is None else _ago_ns(options.last)
    client = elasticsearch.client()
    chosen = [_one(options.bulk, client)] if since_ns is None else _ended_since(since_ns, client)
    found = []
    for one in verdicts.publish_all(client, chosen):
        found.append({"bulk": one.bulk, "state": one.state, "verdict": one.verdict})
        if options.format != "json":  # a line when it is done: of many bulks the last may take minutes
            verdict = "" if one.verdict is None else f": {one.verdict}"
            say(f"{one.state:<10} {printable(one.bulk)}{verdict}")
    return found


def _ago_ns(text: str) -> int:
    """Return the time that was so long ago, in nanoseconds since the epoch."""
    try:
        return time.time_ns() - int(retention.duration(text) * 1e9)
    except ValueError as error:
        raise resolve.Trouble(f"--last: {error}") from error


def _ended_since(since_ns: int, client: Client) -> list[str]:
    """Return the ids of the bulks that ended since then, the oldest first."""
    return [row["id"] for row in reversed(elasticsearch.Elastic(client).bulks()) if row["end_ns"] >= since_ns]


def _one(name: str, client: Client) -> str:
    """Return the id of the bulk that ``name``, an id or 'latest', stands for."""
    known = elasticsearch.Elastic(client).bulks()
    bulk = reports.newest(known) if name == "latest" else name
    names = [row["id"] for row in known]
    if bulk is None or bulk not in names:
        raise resolve.Trouble(f"no bulk {name!r} in {client.url}. {resolve.nearest(reports.nearest(name, names))}")
    return bulk
