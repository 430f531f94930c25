"""``bulkscope bulks``: the list of bulks, filtered and sorted."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import bulks as render
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources.source import MOST_ROWS, STATES, Answer, InvalidQuery, Source, Wanted
from bulkscope_studio.text import parse

# What a list is sorted by, as users call it, and the column; names of the first letters on begin with the first.
SORTS = {
    "start": "start_ns", "end": "end_ns", "took": "took_s", "jobs": "sent_jobs", "done": "done_jobs",
    "failed": "failed_jobs", "wait": "wait_mean_s", "tokens": "output_tokens", "id": "id", "state": "state",
}  # fmt: skip
ALPHABETIC = ("id", "state")
SHOWN = 20
# An answer has the verdicts that it finds in a second, and the next one those that are left.
VERDICTS_S = 10.0
FILTERS = ("last", "since", "failed", "search", "service", "host", "worker", "model", "state", "verdict", "sort")


def command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.last is not None and given.last < 1:
        return running.failed("bulks", InvalidQuery(f"--last is a number of bulks from 1 on, not {given.last}"))
    nothing = ""

    def ask(source: Source) -> Any:
        nonlocal nothing
        wanted = _wanted(given)
        filtered = any(getattr(given, name) is not None for name in FILTERS) or given.reverse
        if given.format == "json" and not filtered:
            return source.bulks()
        found = _listed(source, wanted, None if given.format == "json" and given.last is None else given.last or SHOWN,
                        verdicts=given.format == "text" or given.verdict is not None)  # fmt: skip
        if given.format == "json":
            rows = {row["id"]: row for row in source.bulks()}
            return [rows[row["id"]] for row in found["bulks"] if row["id"] in rows]
        if not found["bulks"] and not filtered:
            nothing = running.no_bulk(source)
        return found

    def text(found: Any) -> None:
        if nothing:
            say(nothing)
        else:
            render.text(found, Output())

    return running.run("bulks", given, ask, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bulkscope bulks",
        description="The bulks in the store, newest first.",
        epilog="Bulks in Elasticsearch are not looked through by service, host, worker or verdict.",
    )
    parser.add_argument("--last", type=int, metavar="N", help=f"so many bulks (default: {SHOWN}; as JSON all)")
    parser.add_argument("--since", metavar="TIME", help="of which something was recorded in the last TIME, as in 2h")
    parser.add_argument("--failed", action="store_const", const=True, help="with a job that has failed")
    parser.add_argument("--state", choices=STATES)
    parser.add_argument("--search", metavar="TEXT", help="with TEXT in the id")
    for name in ("service", "host", "worker", "model"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"in which this {name} took part")
    parser.add_argument("--verdict", metavar="CODE", help="of this verdict, of the newest that fit otherwise")
    parser.add_argument("--sort", choices=SORTS, help="the highest first, names from A on (default: start)")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    options.output(parser)
    options.source(parser)
    return parser


def _wanted(given: argparse.Namespace) -> Wanted:
    since_ns = None
    if given.since is not None:
        try:
            since_ns = time.time_ns() - int(parse.duration(given.since) * 1e9)
        except ValueError as error:
            raise InvalidQuery(f"--since: {error}") from error
    by = given.sort or "start"
    highest_first = (by not in ALPHABETIC) != given.reverse
    return Wanted(
        search=given.search, since_ns=since_ns, service=given.service, host=given.host, worker=given.worker,
        model=given.model, state=given.state, failed=given.failed, verdict=given.verdict,
        sort=("-" if highest_first else "") + SORTS[by],
    )  # fmt: skip


def _listed(source: Source, wanted: Wanted, most: int | None, verdicts: bool) -> Answer:
    """Return ``most`` bulks, or all, in pages of as many as one may have."""
    found: Answer | None = None
    until = time.monotonic() + VERDICTS_S
    while found is None or (len(found["bulks"]) < (found["total"] if most is None else min(most, found["total"]))):
        there = 0 if found is None else len(found["bulks"])
        limit = MOST_ROWS if most is None else min(MOST_ROWS, most - there)
        part = replace(wanted, limit=limit, offset=there)
        page = source.listed(part, verdicts)
        while page["verdicts_pending"] and time.monotonic() < until:
            page = source.listed(part, verdicts)
        if found is None:
            found = page
        elif not page["bulks"]:  # deleted meanwhile
            break
        else:
            found["bulks"] += page["bulks"]
            found["verdicts_pending"] += page["verdicts_pending"]
    return found
