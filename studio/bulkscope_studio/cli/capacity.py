"""``bulkscope capacity``: what a system sustains, from what it did or from a sweep that is run for it."""

from __future__ import annotations

import argparse
import urllib.parse
from pathlib import Path
from typing import Any

from bulkscope_studio.analysis.capacity.capacity import Asked
from bulkscope_studio.rendering import capacity
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.services import capacities, reports
from bulkscope_studio.sources import elasticsearch, resolve
from bulkscope_studio.storage.paths import default_db
from bulkscope_studio.storage.store import Store
from bulkscope_studio.sweep import runner


def command(argv: list[str]) -> int:
    """Run it; 0 when printed, 1 when a sweep could not be ended, 2 for bad usage or no store, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        return resolve.printed(
            "capacity",
            options,
            lambda: _swept(options) if options.sweep is not None else _capacity(options),
            lambda found: capacity.text(found, Output()),
            capacity.markdown,
        )
    except runner.Failed as failed:
        say(f"bulkscope capacity: {failed}", error=True)
        return 1
    except runner.Stopped:
        say("bulkscope capacity: stopped; the same command continues with the next step", error=True)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bulkscope capacity",
        description="What a system sustains: rates by model and concurrency slots, queue waits, the best load.",
        epilog="--sweep runs the commands that the plan names: use only plans that you trust.",
    )
    parser.add_argument("bulks", nargs="*", metavar="BULK", help="bulks to look at, or 'latest' (default: --last 1h)")
    parser.add_argument("--last", metavar="TIME", help="look at the last TIME of what was recorded, such as 30m or 2h")
    parser.add_argument("--model", help="only this model, as if it had the workers to itself")
    parser.add_argument("--rate", type=float, help="arrival rate in jobs/s to predict waits for (default: observed)")
    parser.add_argument("--workers", type=int, help="concurrency slots to predict for (default: as many as at last)")
    parser.add_argument("--slo", metavar="TIME", help="find the highest rate with queue waits under TIME, such as 30s")
    parser.add_argument("--quantile", type=float, help="share of the jobs that must keep --slo (default: 0.95)")
    parser.add_argument("--sweep", type=Path, metavar="PLAN.toml", help="run the sweep that the plan describes")
    parser.add_argument("--restart", action="store_true", help="with --sweep: repeat steps that are done already")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    resolve.arguments(parser)
    return parser


def _capacity(options: argparse.Namespace) -> dict[str, Any]:
    if options.restart:
        raise resolve.Trouble("--restart goes with --sweep PLAN.toml")
    asked = _asked(options)
    if options.source == "elasticsearch":
        return _from_elasticsearch(options, asked)

    def local(store: Store) -> dict[str, Any]:
        try:
            return capacities.system_capacity(store, options.bulks, options.last, asked)
        except reports.Unknown as unknown:
            return unknown.answer
        except reports.Wrong as wrong:
            raise resolve.Trouble(str(wrong)) from wrong

    found = dict(resolve.studio(options.db, "/api/capacity?" + query(options.bulks, options.last, asked), local))
    if "nearest" in found:
        near = resolve.nearest(found["nearest"])
        raise resolve.Trouble(f"no bulk {found['id']!r} in {options.db or default_db()}. {near}")
    return found


def query(bulks: list[str], last: str | None, asked: Asked) -> str:
    """Return the query of ``/api/capacity`` that asks for the same."""
    given: list[tuple[str, object]] = [("bulk", bulk) for bulk in bulks]
    given += [
        (name, value)
        for name, value in (
            ("last", last), ("rate", asked.rate), ("slo", None if asked.slo is None else f"{asked.slo:.9f}s"),
            ("quantile", asked.quantile), ("model", asked.model), ("workers", asked.workers),
        )
        if value is not None
    ]  # fmt: skip
    return urllib.parse.urlencode(given)


def _asked(options: argparse.Namespace) -> Asked:
    try:
        quantile = 0.95 if options.quantile is None else options.quantile
        return capacities.asked(options.rate, options.slo, quantile, options.model, options.workers)
    except reports.Wrong as wrong:
        raise resolve.Trouble(str(wrong)) from wrong


def _from_elasticsearch(options: argparse.Namespace, asked: Asked) -> dict[str, Any]:
    if len(options.bulks) != 1 or options.last is not None:
        raise resolve.Trouble(
            "from Elasticsearch one bulk at a time is read: name one. " + resolve.known(resolve.bulks(options))
        )
    client = elasticsearch.client()

    def read(there: elasticsearch.Elastic, bulk: str) -> dict[str, Any] | None:
        with there.loaded(bulk) as (store, more):
            try:
                found = capacities.system_capacity(store, [bulk], None, asked, more.add_beside)
            except reports.Unknown:
                return None
            except reports.Wrong as wrong:
                raise resolve.Trouble(str(wrong)) from wrong
            for pool in found["pools"][:1]:
                pool["notes"] += more.notes()
            return found

    found, near = elasticsearch.of_bulk(client, options.bulks[0], read)
    if found is None:
        raise resolve.Trouble(f"no bulk {options.bulks[0]!r} in {client.url}. {resolve.nearest(near)}")
    return found


def _swept(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("bulks", "last", "rate", "workers"):
        if getattr(options, name):
            raise resolve.Trouble(
                f"{'BULK' if name == 'bulks' else '--' + name} does not go with --sweep: the plan says it"
            )
    if options.source == "elasticsearch":
        raise resolve.Trouble("a sweep asks a running studio how far its jobs are: leave --source out")
    try:
        slo = None if options.slo is None else capacities.seconds(options.slo)
    except reports.Wrong as wrong:
        raise resolve.Trouble(str(wrong)) from wrong
    return runner.run(
        options.sweep, options.db or default_db(), restart=options.restart, model=options.model, slo=slo,
        quantile=options.quantile,
    )  # fmt: skip
