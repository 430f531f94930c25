"""How Elasticsearch is asked: queries of ``queries/esql``, a page at a time, over fields that may not exist yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from bulkscope_studio.elastic.client import Client, Trouble

# ES|QL gives at most 10,000 rows an answer unless the cluster's settings say otherwise.
ROWS = 10_000

Columns = dict[str, list[Any]]


def fields(client: Client, pattern: str) -> set[str]:
    """Return the fields that documents may have; none where no data stream is there yet."""
    options = "fields=*&ignore_unavailable=true&allow_no_indices=true&filters=-metadata"
    answer = client.get(f"/{pattern}/_field_caps?{options}", allowed=(404,))
    return set(answer.body["fields"]) if answer.status == 200 else set()


def query(
    client: Client, name: str, params: Mapping[str, Any], absent: Iterable[tuple[str, str]] = (), **texts: object
) -> Columns:
    """Return the columns of ``queries/esql/<name>.esql``; ``texts`` go into the query, ``params`` beside it.

    ``absent`` are (field, type) that no document has had yet: to ES|QL an unknown column is an error.
    Raises ``Trouble`` for an answer in part.
    """
    text = files("bulkscope_studio.storage").joinpath("queries", "esql", f"{name}.esql").read_text(encoding="utf-8")
    nothing = "".join(f"\n| EVAL {path} = TO_{kind}(null)" for path, kind in sorted(absent))
    text = re.sub(r"^FROM .*$", lambda line: line[0] + nothing, text, count=1, flags=re.MULTILINE)
    for key, value in texts.items():
        text = text.replace(f"{{{key}}}", str(value))
    # A value that the text does not name is an error to ES|QL.
    used = [{key: value} for key, value in params.items() if re.search(rf"\?{key}\b", text)]
    answer = client.request("POST", "/_query", {"query": text, "params": used, "columnar": True}).body
    if answer.get("is_partial"):
        raise Trouble(f"{client.url} answered in part only: a shard is away; see GET /_cat/shards, then again")
    values = answer["values"] or [[] for _ in answer["columns"]]  # no rows: no columns of values either
    return dict(zip((column["name"] for column in answer["columns"]), values, strict=True))


def pages(
    client: Client,
    name: str,
    params: Mapping[str, Any],
    after: Mapping[str, tuple[str, Any]],
    absent: Iterable[tuple[str, str]] = (),
    **texts: object,
) -> Iterator[Columns]:
    """Yield a query's answers until one is not full.

    ``after`` names the parameters that say where a page begins: the column of the last row that gives each, and what
    comes before any. Rows that are equal in these come in one answer, as long as they are fewer than a page.
    """
    last = {key: least for key, (_, least) in after.items()}
    absent = list(absent)
    while True:
        found = query(client, name, {**params, **last}, absent, rows=ROWS, **texts)
        if not found or _length(found) < ROWS:
            yield found
            return
        found = _whole(found, after)
        yield found
        last = {key: found[column][-1] for key, (column, _) in after.items()}


def pages_in_time(
    client: Client,
    name: str,
    params: Mapping[str, Any],
    after: Mapping[str, tuple[str, Any]],
    times: tuple[int, int, int],
    unit: int,
    absent: Iterable[tuple[str, str]] = (),
    **texts: object,
) -> Iterator[Columns]:
    """Yield the answers of a query from one time to another, each about three quarters of a page, none empty.

    For a query that sorts by time, of which the first column of ``after`` has ``unit`` to a millisecond. Each answer is
    of a time of its own, ``?since`` to before ``?until``, by which Elasticsearch finds its records without looking at
    the others: asked for page after page of one sorted whole, it reads all of that for each. ``times`` are the first
    and the last, in ms, and how many rows are likely between them.
    """
    since, end, likely = times[0], times[1] + 1, times[2]
    wanted = ROWS * 3 // 4
    width = max((end - since) * wanted // max(likely, wanted), 1)
    last = {key: least for key, (_, least) in after.items()}
    absent = list(absent)
    while since < end:
        until = min(since + width, end)
        window = {"since": date(since), "until": date(until)}
        found = query(client, name, {**params, **last, **window}, absent, rows=ROWS, **texts)
        number = _length(found)
        if number < ROWS:
            since, width = until, width * min(wanted // max(number, 1), _WIDER) if number < wanted else width
        else:
            found = _whole(found, after)
            last = {key: found[column][-1] for key, (column, _) in after.items()}
            reached = next(iter(last.values())) // unit
            since, width = reached, max((reached - since) * 3 // 4, 1)
        if number:
            yield found


# By how much the time of an answer may grow over that of the one before.
_WIDER = 10


def _length(found: Columns) -> int:
    return len(next(iter(found.values()), ()))


def _whole(found: Columns, after: Mapping[str, tuple[str, Any]]) -> Columns:
    """Return a full page without the rows that are equal to its last: there may be more, and they come again, whole."""
    keys = list(zip(*(found[column] for column, _ in after.values()), strict=True))
    whole = next((number for number in range(len(keys), 0, -1) if keys[number - 1] != keys[-1]), len(keys))
    return {column: values[:whole] for column, values in found.items()}


def several(prefix: str, values: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return ``values`` as parameters, and the text that names them all inside ``IN ()``."""
    params = {f"{prefix}{number}": value for number, value in enumerate(sorted(values))}
    return params, ", ".join(f"?{key}" for key in params)


def date(milliseconds: int) -> str:
    """Return a time as ES|QL compares dates with, UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
