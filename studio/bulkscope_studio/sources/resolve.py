"""Where a command reads from: a running studio, its file when none runs, or Elasticsearch."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from bulkscope_studio.rendering.output import as_json, lines, say
from bulkscope_studio.server import unwell
from bulkscope_studio.services import reports
from bulkscope_studio.sources import elasticsearch
from bulkscope_studio.storage import address, storefile
from bulkscope_studio.storage.paths import default_db
from bulkscope_studio.storage.store import Store, StoreLocked, TooLong, Unavailable
from bulkscope_studio.text.wording import printable

TIMEOUT_S = 60.0
# Asked on the machine itself: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Trouble(Exception):
    """What went wrong and what to do about it; the command ends with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(lines(message))


TROUBLES = (Trouble, elasticsearch.Trouble)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--source`` and ``--db``."""
    parser.add_argument(
        "--source",
        choices=("studio", "elasticsearch"),
        default="studio",
        help="where the bulk is stored: the studio's file, or Elasticsearch at ELASTICSEARCH_URL, asked with "
        "ELASTIC_PASSWORD or ELASTICSEARCH_API_KEY (default: studio)",
    )
    parser.add_argument("--db", type=Path, default=None, help="the studio's file")


def printed(
    command: str,
    options: argparse.Namespace,
    ask: Callable[[], Any],
    text: Callable[[Any], None],
    markdown: Callable[[Any], str] | None = None,
) -> int:
    """Print what ``ask`` returns as ``options.format`` says, and return 0; 2 when it raises one of ``TROUBLES``."""
    try:
        found = ask()
    except TROUBLES as trouble:
        say(f"bulkscope {command}: {trouble}", error=True)
        return 2
    if options.format == "json":
        say(as_json(found))
    elif options.format == "md" and markdown is not None:
        say(markdown(found), end="")
    else:
        text(found)
    return 0


def known(rows: list[dict[str, Any]]) -> str:
    """Say which bulks there are, or how to get one."""
    if not rows:
        return (
            "The store holds no bulk yet: keep 'bulkscope studio' running, start the services with "
            "'bulkscope run <command>' and send a bulk."
        )
    return "Last bulks: " + _named(row["id"] for row in rows[: reports.NEAREST])


def nearest(names: Sequence[str]) -> str:
    """Say which names are near to an unknown one, or how to get a bulk."""
    return "Nearest: " + _named(names) if names else known([])


def _named(names: Iterable[str]) -> str:
    return ", ".join(map(printable, names))


def bulks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every bulk, newest first."""
    if options.source == "elasticsearch":
        return elasticsearch.Elastic(elasticsearch.client()).bulks()
    rows: list[dict[str, Any]] = studio(options.db, "/api/bulks", reports.list_bulks)
    return rows


def of_bulk(
    options: argparse.Namespace,
    what: str,
    local: Callable[[Store, str], dict[str, Any] | None],
    remote: Callable[[elasticsearch.Elastic, str], dict[str, Any] | None],
) -> dict[str, Any]:
    """Return ``/api/bulks/<id>/<what>`` of ``options.bulk``; ``local`` and ``remote`` answer where no studio runs."""
    if options.bulk is None:
        raise Trouble("name a bulk, or say 'latest'. " + known(bulks(options)))
    if options.source == "elasticsearch":
        asked = elasticsearch.client()
        answer, near = elasticsearch.of_bulk(asked, options.bulk, remote)
        place = asked.url
    else:

        def read(store: Store) -> dict[str, Any]:
            return local(store, options.bulk) or reports.unknown(store, options.bulk).answer

        found = studio(options.db, f"/api/bulks/{urllib.parse.quote(options.bulk, safe='')}/{what}", read)
        answer, near = (None, found["nearest"]) if "nearest" in found else (dict(found), [])
        place = str(options.db or default_db())
    if answer is None:
        raise Trouble(f"no bulk {options.bulk!r} in {place}. {nearest(near)}")
    return answer


def studio(db: Path | None, path: str, local: Callable[[Store], Any], body: object = None, method: str = "GET") -> Any:
    """Return what a running studio answers to ``path``, or what ``local`` reads from the file when none runs.

    An answer of 404 with the key ``nearest`` and one of 400, 409 or 503 with the key ``error`` are answers; the latter
    three raise Trouble with what they say.
    """
    place = db or default_db()
    running = address.read(place)
    if running is not None:
        return _ask(running, path, body, method)
    with _reading(place) as store:
        return local(store)


@contextmanager
def _reading(db: Path) -> Iterator[Store]:
    store = _open(db)
    try:
        yield store
    except (TooLong, Unavailable) as error:
        raise Trouble(str(error)) from error
    except duckdb.BinderException as error:
        raise Trouble(
            f"{db} was written by an older version and lacks what is asked for; 'bulkscope studio --db {db}' brings "
            f"it up to date ({str(error).splitlines()[0]})"
        ) from error
    except duckdb.Error as error:  # a DuckDB file, but not one of ours
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
    except (duckdb.Error, storefile.Unfit) as error:
        raise Trouble(f"{db} cannot be read as a store: {error}") from error


def _ask(running: address.Runtime, path: str, body: object, method: str) -> Any:
    url = running.web.rstrip("/") + path
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    if running.token:
        headers["Authorization"] = f"Bearer {running.token}"
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            trouble = unwell.told(answer.headers.get(unwell.HEADER))
            if trouble is not None:
                say(f"bulkscope: the studio has trouble: {trouble}", error=True)
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            said = json.load(error)
        except ValueError:
            said = None
        if error.code == 404 and isinstance(said, dict) and "nearest" in said:
            return said
        if error.code in (400, 409, 503) and isinstance(said, dict) and "error" in said:
            raise Trouble(str(said["error"])) from error
        raise Trouble(f"the studio at {running.web} answered {error.code} to {path}; its log says why") from error
    except (OSError, ValueError) as error:
        raise Trouble(f"the studio (process {running.pid}) does not answer at {url}: {error}; restart it") from error
