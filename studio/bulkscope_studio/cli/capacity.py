"""``bulkscope capacity``: what a system sustains, from what it did or from a sweep that is run for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import capacity
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.source import InvalidQuery, Question
from bulkscope_studio.sweep import runner
from bulkscope_studio.text import parse


def command(argv: list[str]) -> int:
    """Run it; 0 when printed, 1 when a sweep could not be ended, 2 for bad usage or no store, 130 after Ctrl-C."""
    given = _parser().parse_args(argv)
    problem = _misused(given)
    if problem is not None:
        return running.failed("capacity", InvalidQuery(problem))
    if given.sweep is not None:
        return _sweep(given)
    # A system is more than its newest bulk: the last hour is the better default, where it can be read.
    bulks = given.bulks
    if given.source == "elasticsearch" and not bulks and given.last is None:
        bulks = [options.LATEST]
    question = Question(
        bulks, given.last, given.rate, given.slo, given.quantile, given.model, given.workers
    )  # fmt: skip
    return running.run("capacity", given, lambda source: source.capacity(question), _text, capacity.markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bulkscope capacity",
        description="What a system sustains: rates by model and concurrency slots, queue waits, the best load.",
        epilog="--sweep runs the commands that the plan names: use only plans that you trust.",
    )
    parser.add_argument(
        "bulks", nargs="*", metavar="BULK",
        help="bulks to look at, or 'latest' (default: --last 1h; from Elasticsearch, which is read by bulk: latest)",
    )  # fmt: skip
    parser.add_argument("--last", metavar="TIME", help="look at the last TIME of what was recorded, such as 30m or 2h")
    parser.add_argument("--model", help="only this model, as if it had the workers to itself")
    parser.add_argument("--rate", type=float, help="arrival rate in jobs/s to predict waits for (default: observed)")
    parser.add_argument("--workers", type=int, help="concurrency slots to predict for (default: as many as at last)")
    parser.add_argument("--slo", metavar="TIME", help="find the highest rate with queue waits under TIME, such as 30s")
    parser.add_argument("--quantile", type=float, help="share of the jobs that must keep --slo (default: 0.95)")
    parser.add_argument("--sweep", type=Path, metavar="PLAN.toml", help="run the sweep that the plan describes")
    parser.add_argument("--restart", action="store_true", help="with --sweep: repeat steps that are done already")
    options.output(parser, "md")
    options.source(parser)
    return parser


def _text(found: Any) -> None:
    capacity.text(found, Output())


def _misused(given: argparse.Namespace) -> str | None:
    if given.sweep is None:
        return "--restart goes with --sweep PLAN.toml" if given.restart else None
    for name in ("bulks", "last", "rate", "workers"):
        if getattr(given, name):
            return f"{'BULK' if name == 'bulks' else '--' + name} does not go with --sweep: the plan says it"
    if given.source == "elasticsearch":
        return "a sweep asks a running studio how far its jobs are: leave --source out"
    return None


def _sweep(given: argparse.Namespace) -> int:
    try:
        slo = None if given.slo is None else parse.duration(given.slo)
    except ValueError as error:
        return running.failed("capacity", error)
    try:
        running.told(given)
        found = runner.run(
            given.sweep, resolve.place(given.db), restart=given.restart, model=given.model, slo=slo,
            quantile=given.quantile,
        )  # fmt: skip
    except running.ERRORS as error:
        return running.failed("capacity", error)
    except runner.Failed as failed:
        say(f"bulkscope capacity: {failed}", error=True)
        return 1
    except runner.Stopped:
        say("bulkscope capacity: stopped; the same command continues with the next step", error=True)
        return 130
    running.printed(given, found, _text, capacity.markdown)
    return 0
