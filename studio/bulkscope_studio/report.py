"""``bulkscope report`` and ``bulkscope bulks``: ask the running studio, or read the file when none runs."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console

from bulkscope_studio import api, elastic, render, runtime
from bulkscope_studio.paths import default_db
from bulkscope_studio.store import Store, StoreLocked

TIMEOUT_S = 10.0
# Asked on the machine itself: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Trouble(Exception):
    """What went wrong and what to do about it; the command ends with exit code 2."""


TROUBLES = (Trouble, elastic.Trouble)


def command(argv: list[str]) -> int:
    """Run ``bulkscope report``; 0 when printed, 2 when there is no such bulk or no store."""
    parser = argparse.ArgumentParser("bulkscope report", description="The thirteen numbers of one bulk.")
    parser.add_argument("bulk", nargs="?", help="id of the bulk, or 'latest'")
    parser.add_argument("--format", choices=("text", "json", "md"), default="text")
    _source(parser)
    options = parser.parse_args(argv)
    try:
        if options.bulk is None:
            raise Trouble("name a bulk, or say 'latest'. " + _known(_bulks(options)))
        report = _report(options)
    except TROUBLES as trouble:
        print(f"bulkscope report: {trouble}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(report, indent=2, ensure_ascii=False))
    elif options.format == "md":
        print(render.markdown(report), end="")
    else:
        render.text(report, _console())
    return 0


def bulks_command(argv: list[str]) -> int:
    """Run ``bulkscope bulks``; 0 when listed (also when empty), 2 when there is no store."""
    parser = argparse.ArgumentParser("bulkscope bulks", description="The bulks in the store, newest first.")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    _source(parser)
    options = parser.parse_args(argv)
    try:
        rows = _bulks(options)
    except TROUBLES as trouble:
        print(f"bulkscope bulks: {trouble}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        render.bulks(rows, _console())
    else:
        print(_known(rows))
    return 0


def _console() -> Console:
    # A pipe has no width of its own; 80 columns would cut a table that a file has room for.
    return Console() if sys.stdout.isatty() else Console(width=120)


def _known(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return (
            "The store holds no bulk yet: keep 'bulkscope studio' running, start the services with "
            "'bulkscope run <command>' and send a bulk."
        )
    return "Last bulks: " + ", ".join(row["id"] for row in rows[: api.NEAREST])


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        choices=("studio", "elasticsearch"),
        default="studio",
        help="where the bulk is stored: the studio's file, or Elasticsearch at ELASTICSEARCH_URL, asked with "
        "ELASTICSEARCH_API_KEY or ELASTIC_PASSWORD (default: studio)",
    )
    parser.add_argument("--db", type=Path, default=None, help="the studio's file")


def _bulks(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.source == "elasticsearch":
        return elastic.Elastic(elastic.client()).bulks()
    db = options.db or default_db()
    running = runtime.read(db)
    if running is not None:
        rows: list[dict[str, Any]] = _get(running, "/api/bulks")[1]
        return rows
    with _reading(db) as store:
        return api.list_bulks(store)


def _report(options: argparse.Namespace) -> dict[str, Any]:
    if options.source == "elasticsearch":
        asked = elastic.client()
        answer, near = elastic.report(asked, options.bulk)
        place = asked.url
    else:
        db = options.db or default_db()
        answer, near = _studio_report(db, options.bulk)
        place = str(db)
    if answer is None:
        hint = "Nearest: " + ", ".join(near) if near else _known([])
        raise Trouble(f"no bulk {options.bulk!r} in {place}. {hint}")
    return answer


def _studio_report(db: Path, bulk_id: str) -> tuple[dict[str, Any] | None, list[str]]:
    running = runtime.read(db)
    if running is not None:
        status, found = _get(running, f"/api/bulks/{urllib.parse.quote(bulk_id, safe='')}/report")
        return (None, found["nearest"]) if status == 404 else (dict(found), [])
    with _reading(db) as store:
        answer = api.bulk_report(store, bulk_id)
        return answer, [] if answer is not None else api.unknown(store, bulk_id)["nearest"]


@contextmanager
def _reading(db: Path) -> Iterator[Store]:
    store = _open(db)
    try:
        yield store
    except duckdb.Error as error:  # a DuckDB file, but not one of ours or of this version
        raise Trouble(f"{db} cannot be read as a store: {error}") from error
    finally:
        store.close()


def _open(db: Path) -> Store:
    if not db.exists():
        raise Trouble(f"there is no store at {db}; 'bulkscope studio --db {db}' makes one")
    try:
        return Store(db, read_only=True)
    except StoreLocked as locked:
        raise Trouble(
            f"{db} is held by {locked.holder}, which does not say where it answers; stop it, or wait until it is up"
        ) from locked
    except duckdb.Error as error:
        raise Trouble(f"{db} cannot be read as a store: {error}") from error


def _get(running: runtime.Runtime, path: str) -> tuple[int, Any]:
    url = running.web.rstrip("/") + path
    try:
        with _OPENER.open(url, timeout=TIMEOUT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            body = json.load(error)
        except ValueError:
            body = None
        if error.code == 404 and isinstance(body, dict) and "nearest" in body:
            return 404, body
        raise Trouble(f"the studio at {running.web} answered {error.code} to {path}; its log says why") from error
    except (OSError, ValueError) as error:
        raise Trouble(f"the studio (process {running.pid}) does not answer at {url}: {error}; restart it") from error
