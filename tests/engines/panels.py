"""Panels of the built dashboards, run on a real Elasticsearch as Kibana runs them.

The engine is 8.19, which has no ``SET unmapped_fields="nullify"``. What 9.5 does with it is done here by hand: a field
of ours that no index has is put in as null, without a type, before the first pipe.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from kibana import build
from tests.engines.servers import ask
from tests.production.dashboards import BUILT, fields

Rows = list[dict[str, Any]]


def config(dashboard: str, title: str) -> dict[str, Any]:
    panels = [*BUILT[dashboard]["panels"], *BUILT[dashboard].get("pinned_panels", [])]
    return next(panel["config"] for panel in panels if panel["config"]["title"] == title)


def query(dashboard: str, title: str) -> str | None:
    """Return a panel's query; None when it has none."""
    found = config(dashboard, title)
    holder = (found.get("layers") or found.get("tabs") or [found])[0]
    text: str | None = found.get("esql_query") or holder.get("data_source", {}).get("query")
    return text


def nullified(url: str, text: str) -> str:
    """Return ``text`` as 8.19 runs it, with what ``SET unmapped_fields="nullify"`` means."""
    head, text = text.split("\n", 1)
    assert head == build.HEAD
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    pattern = lines[at].removeprefix("FROM ").strip()
    options = "fields=*&ignore_unavailable=true&allow_no_indices=true&filters=-metadata"
    known = set(ask("GET", f"{url}/{pattern}/_field_caps?{options}")["fields"])
    missing = [f"| EVAL {field.replace('.1m', '.`1m`')} = NULL" for field in sorted(fields(text) - known)]
    return "\n".join([*lines[: at + 1], *missing, *lines[at + 1 :]])


def run(url: str, text: str, window: tuple[int, int], bulk: Any = "*") -> tuple[dict[str, str], Rows]:
    """Return a query's columns with their types, and its rows; Kibana puts the same parameters beside it."""
    text = nullified(url, text)
    values = {"_tstart": iso(window[0]), "_tend": iso(window[1]), "bulk": bulk}
    # A value that the text does not name is an error to ES|QL.
    params = [{name: value} for name, value in values.items() if re.search(rf"\?{name}\b", text)]
    answer = ask("POST", f"{url}/_query", {"query": text, "params": params})
    names = [column["name"] for column in answer["columns"]]
    types = {column["name"]: column["type"] for column in answer["columns"]}
    return types, [dict(zip(names, row, strict=True)) for row in answer["values"]]


def panel(url: str, dashboard: str, title: str, window: tuple[int, int], bulk: Any = "*") -> Rows:
    text = query(dashboard, title)
    assert text is not None
    return run(url, text, window, bulk)[1]


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
