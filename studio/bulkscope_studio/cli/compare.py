"""``bulkscope compare`` and ``bulkscope runs``."""

from __future__ import annotations

import argparse
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bulkscope_studio.rendering import comparison as render_compare
from bulkscope_studio.rendering.output import Output, say
from bulkscope_studio.services import comparisons, reports
from bulkscope_studio.sources import elasticsearch, resolve
from bulkscope_studio.storage import saved_runs
from bulkscope_studio.storage.paths import default_db
from bulkscope_studio.storage.store import Store


def command(argv: list[str]) -> int:
    """Run ``bulkscope compare``; 0 when printed, 2 when there are no such sides or no store."""
    parser = argparse.ArgumentParser(
        "bulkscope compare",
        description="Compare two models, two runs or two settings, number by number, each with its interval.",
        epilog="A side is the id of a bulk, the name of a kept run, or 'latest'; add @MODEL for one of its models.",
    )
    parser.add_argument("a", nargs="?", metavar="A", help="the baseline")
    parser.add_argument("b", nargs="?", metavar="B", help="the side that is compared with the baseline")
    parser.add_argument("--models", action="store_true", help="compare the two models of one bulk or run")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    resolve.arguments(parser)
    options = parser.parse_args(argv)
    return resolve.printed(
        "compare",
        options,
        lambda: _compared(options),
        lambda found: render_compare.text(found, Output()),
        render_compare.markdown,
    )


def _compared(options: argparse.Namespace) -> Any:
    if options.a is None or (options.b is None and not options.models):
        kept = "" if options.source == "elasticsearch" else _kept(options.db)
        raise resolve.Trouble("name two sides, or one and --models. " + resolve.known(resolve.bulks(options)) + kept)
    if options.source == "elasticsearch":
        asked = elasticsearch.client()
        place = comparisons.of_elasticsearch(elasticsearch.Elastic(asked))
        found = _local(lambda: comparisons.compare(place, options.a, options.b, options.models))
        where = asked.url
    else:
        query = {"a": options.a} | ({} if options.b is None else {"b": options.b})
        query |= {"models": "true"} if options.models else {}
        found = resolve.studio(
            options.db,
            "/api/compare?" + urllib.parse.urlencode(query),
            lambda store: _local(
                lambda: comparisons.compare(comparisons.of_store(store), options.a, options.b, options.models)
            ),
        )
        where = str(options.db or default_db())
    return _known(found, where)


def _kept(db: Path | None) -> str:
    found = saved_runs.names(db or default_db())
    return ". Kept runs: " + ", ".join(found) if found else ""


def _local(ask: Callable[[], Any]) -> Any:
    """Answer as a studio does: what is not known with the nearest names, what is wrong as Trouble."""
    try:
        return ask()
    except reports.Unknown as unknown:
        return unknown.answer
    except (reports.Wrong, saved_runs.Trouble) as wrong:
        raise resolve.Trouble(str(wrong)) from wrong


def _known(found: Any, where: str) -> Any:
    """Return an answer, or raise Trouble for one that only says what is near to an unknown name."""
    if not isinstance(found, dict) or "nearest" not in found:
        return found
    what = found["error"].removeprefix("unknown ")
    near = resolve.nearest(found["nearest"])
    if what == "run" and not found["nearest"]:
        near = "No run is kept yet: bulkscope runs keep NAME BULK"
    raise resolve.Trouble(f"no {what} {found['id']!r} in {where}. {near}")


def runs_command(argv: list[str]) -> int:
    """Run ``bulkscope runs``; 0 when done, 2 when there is no such bulk, run or store."""
    parser = argparse.ArgumentParser(
        "bulkscope runs", description="Bulks kept under a name beside the store; the retention does not delete them."
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--db", type=Path, default=argparse.SUPPRESS, help="the studio's file")
    shared.add_argument("--format", choices=("text", "json"), default=argparse.SUPPRESS)
    parser.add_argument("--db", type=Path, default=None, help="the studio's file")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", parents=[shared], help="list all kept runs (the default)")
    keep = actions.add_parser("keep", parents=[shared], help="keep one or several bulks under a name")
    keep.add_argument("name", metavar="NAME", help="letters, digits, '.', '_' and '-'")
    keep.add_argument("bulks", metavar="BULK", nargs="+", help="id of a bulk, or 'latest'")
    keep.add_argument("--replace", action="store_true", help="replace a run of that name")
    for action, says in (("show", "show one kept run"), ("drop", "delete a kept run")):
        actions.add_parser(action, parents=[shared], help=says).add_argument("name", metavar="NAME")
    options = parser.parse_args(argv)

    def text(found: Any) -> None:
        if options.action == "drop":
            say(f"Dropped {options.name}.")
        elif options.action == "keep":
            say(render_compare.kept(found))
        elif options.action == "show":
            say(render_compare.run(found))
        elif found:
            render_compare.runs(found, Output())
        else:
            say("No run is kept yet: bulkscope runs keep NAME BULK")

    return resolve.printed("runs", options, lambda: _run_action(options), text)


def _run_action(options: argparse.Namespace) -> Any:
    path, body, method = "/api/runs", None, "GET"
    if options.action == "keep":
        body = {"name": options.name, "bulks": options.bulks, "replace": options.replace}
        method = "POST"
    elif options.action in ("show", "drop"):
        path += "/" + urllib.parse.quote(options.name, safe="")
        method = "GET" if options.action == "show" else "DELETE"

    def local(store: Store) -> Any:
        if options.action == "keep":
            return comparisons.keep(store, options.name, options.bulks, options.replace)
        if options.action == "show":
            return comparisons.show(store, options.name)
        if options.action == "drop":
            return comparisons.drop(store, options.name)
        return comparisons.every(store)

    found = resolve.studio(options.db, path, lambda store: _local(lambda: local(store)), body, method)
    return _known(found, str(options.db or default_db()))
