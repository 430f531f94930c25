"""How Elasticsearch is asked: queries of ``queries/esql``, a page at a time, over fields that may not exist yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from bulkscope_studio.setup.client import Client, Trouble

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
    text = files("bulkscope_studio").joinpath("queries", "esql", f"{name}.esql").read_text(encoding="utf-8")
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
        if not found or len(next(iter(found.values()))) < ROWS:
            yield found
            return
        keys = list(zip(*(found[column] for column, _ in after.values()), strict=True))
        # Of the last there may be more: they come again, whole.
        whole = next((number for number in range(len(keys), 0, -1) if keys[number - 1] != keys[-1]), len(keys))
        yield {column: values[:whole] for column, values in found.items()}
        last = dict(zip(after, keys[whole - 1], strict=True))


def several(prefix: str, values: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return ``values`` as parameters, and the text that names them all inside ``IN ()``."""
    params = {f"{prefix}{number}": value for number, value in enumerate(sorted(values))}
    return params, ", ".join(f"?{key}" for key in params)


def date(milliseconds: int) -> str:
    """Return a time as ES|QL compares dates with, UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
