"""Bulks in Elasticsearch. What belongs to one is read with ES|QL into tables of the studio, in memory, and from there
on nothing differs: the same SQL, the same formulas, the same report.

Elasticsearch keeps the start of a span in milliseconds and its duration in nanoseconds, so times of day are up to
1 ms early; waits, durations, tokens, CPU and memory are exact.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio import api, decode, sql
from bulkscope_studio.setup import environment
from bulkscope_studio.setup.client import Client, Trouble
from bulkscope_studio.store import Store

# ES|QL gives at most 10,000 rows an answer unless the cluster's settings say otherwise.
ROWS = 10_000
MINUTE_MS = 60_000
SAMPLED_EVERY_MS = 10_000  # collector-config.yaml
PROOFS = 100  # of one kill; the highest counts come first

_RESOURCE = {
    "service_name": c.SERVICE_NAME, "service_instance_id": c.SERVICE_INSTANCE_ID, "host_name": c.HOST_NAME,
    "pid": c.PROCESS_PID,
}  # fmt: skip
_SPAN = {
    "trace_id": "trace_id", "span_id": "span_id", "parent_span_id": "parent_span_id", "name": "name", "kind": "kind",
    "duration": "duration", "status": "status.code", "status_message": "status.message",
    **{column: f"resource.attributes.{name}" for column, name in _RESOURCE.items()},
    **{column: f"attributes.{name}" for name, column in decode.SPAN_ATTRIBUTES.items()},
}  # fmt: skip
# Not columns of the studio's table of logs: they are asked for among the attributes.
_EVENT_ATTRIBUTES = (c.JOB_ATTEMPT, c.JOB_ELAPSED, c.M_PROCESS_MEMORY_USAGE, c.GEN_AI_MODEL, c.OOM_KILLS)
_EVENT = {
    "trace_id": "trace_id", "span_id": "span_id", "event_name": "event_name",
    "bulk_id": f"attributes.{c.BULK_ID}", "job_id": f"attributes.{c.JOB_ID}",
    **{column: f"resource.attributes.{name}" for column, name in _RESOURCE.items()},
    **{name: f"attributes.{name}" for name in _EVENT_ATTRIBUTES},
}  # fmt: skip
# What of each metric counts: idle and waiting for a disk are not work.
_HOSTS = {
    "system.cpu.utilization": 'NOT IN ("idle", "wait", "iowait")',
    "system.memory.utilization": '== "used"',
}
# What `bulks.esql` names beside the bulk's id, and the type that an absent one is given.
_BULKS = {
    f"attributes.{c.JOB_ID}": "STRING", f"attributes.{c.BULK_OUTCOME}": "STRING", f"attributes.{c.JOB_ATTEMPT}": "LONG",
    f"attributes.{c.GEN_AI_MODEL}": "STRING", "status.code": "STRING",
}  # fmt: skip


def client() -> Client:
    """Return a client of ELASTICSEARCH_URL with what ``setup.environment.credentials`` finds, which may be nothing."""
    url = environment.address(os.environ, "ELASTICSEARCH_URL", environment.ELASTICSEARCH)
    return Client("Elasticsearch", url, environment.credentials(os.environ), "ELASTICSEARCH_URL")


class Elastic:
    """Reads the data streams that the Collector writes. Raises ``Trouble`` when Elasticsearch cannot be asked."""

    def __init__(self, asked: Client) -> None:
        self._client = asked

    def _fields(self, pattern: str) -> set[str]:
        """Return the fields that documents may have; none where no data stream is there yet."""
        options = "fields=*&ignore_unavailable=true&allow_no_indices=true&filters=-metadata"
        answer = self._client.get(f"/{pattern}/_field_caps?{options}", allowed=(404,))
        return set(answer.body["fields"]) if answer.status == 200 else set()

    def _query(
        self, name: str, params: dict[str, Any], absent: Iterable[tuple[str, str]] = (), **texts: object
    ) -> dict[str, list[Any]]:
        """Return the columns of ``queries/esql/<name>.esql``; ``texts`` go into the query, ``params`` beside it.

        ``absent`` are (field, type) that no document has had yet: to ES|QL an unknown column is an error.
        """
        text = files("bulkscope_studio").joinpath("queries", "esql", f"{name}.esql").read_text(encoding="utf-8")
        nothing = "".join(f"\n| EVAL {path} = TO_{kind}(null)" for path, kind in sorted(absent))
        text = re.sub(r"^FROM .*$", lambda line: line[0] + nothing, text, count=1, flags=re.MULTILINE)
        for key, value in texts.items():
            text = text.replace(f"{{{key}}}", str(value))
        # A value that the text does not name is an error to ES|QL.
        used = [{key: value} for key, value in params.items() if re.search(rf"\?{key}\b", text)]
        answer = self._client.request("POST", "/_query", {"query": text, "params": used, "columnar": True}).body
        if answer.get("is_partial"):
            raise Trouble(
                f"{self._client.url} answered in part only: a shard is away; see GET /_cat/shards, then again"
            )
        values = answer["values"] or [[] for _ in answer["columns"]]  # no rows: no columns of values either
        return dict(zip((column["name"] for column in answer["columns"]), values, strict=True))

    def _pages(self, name: str, bulk_id: str, sort: tuple[str, str], columns: str) -> Iterator[dict[str, list[Any]]]:
        """Yield a query's answers until one is not full; ``sort`` names the columns that order its rows."""
        time, key = sort
        after = {f"after_{time.rpartition('_')[2]}": -1, "after_id": ""}
        while True:
            found = self._query(name, {"bulk": bulk_id, **after}, rows=ROWS, columns=columns)
            yield found
            if len(found[time]) < ROWS:
                return
            after = dict(zip(after, (found[time][-1], found[key][-1]), strict=True))

    def bulks(self) -> list[dict[str, Any]]:
        """Return every bulk (the newest 10,000), newest first, as ``api.list_bulks``."""
        known = self._fields("traces-*.otel-*")
        if f"attributes.{c.BULK_ID}" not in known:
            return []
        absent = [(path, kind) for path, kind in _BULKS.items() if path not in known]
        found = self._query("bulks", {}, absent, rows=ROWS)
        rows = []
        for row in pa.table(found).to_pylist():
            models = row["models"] if isinstance(row["models"], list) else [row["models"]]
            start_ns = row["start_ms"] * 10**6
            rows.append(
                {
                    "id": row["bulk"], "start_ns": start_ns, "end_ns": row["end_ns"], "jobs": row["jobs"],
                    "done": row["done"], "failed": row["failed"],
                    "models": sorted(model for model in models if model is not None),
                    "duration_s": (row["end_ns"] - start_ns) / 1e9,
                }
            )  # fmt: skip
        return rows

    def report(self, bulk_id: str) -> dict[str, Any] | None:
        """Return the report of one bulk as ``api.bulk_report`` makes it; None when Elasticsearch has none of it."""
        store = Store(Path(":memory:"))
        try:
            spans = self._read_spans(store, bulk_id)
            hosts = set(spans["host_name"].to_pylist()) - {None}
            self._read_events(store, bulk_id)
            return api.bulk_report(store, bulk_id, lambda first, last: self._read_hosts(store, hosts, first, last))
        finally:
            store.close()

    def _read_spans(self, store: Store, bulk_id: str) -> pa.Table:
        known = self._fields("traces-*.otel-*")
        kept = {column: path for column, path in _SPAN.items() if path in known}
        rows: dict[str, list[Any]] = {}  # by span: a retried request may have stored one twice
        if f"attributes.{c.BULK_ID}" in known:
            for page in self._pages("bulk_spans", bulk_id, ("start_ms", "span_id"), ", ".join(kept.values())):
                for number, start_ms in enumerate(page["start_ms"]):
                    row = {column: page[path][number] for column, path in kept.items()}
                    row["start_ns"] = start_ms * 10**6
                    row["end_ns"] = row["start_ns"] + (row.pop("duration", None) or 0)
                    row["kind"] = (row.get("kind") or "unspecified").upper()
                    row["status"] = (row.get("status") or "unset").upper()
                    rows[row["span_id"]] = [row.get(name) for name, _ in decode.SPANS]
        return _insert(store, "spans", list(rows.values()))

    def _read_events(self, store: Store, bulk_id: str) -> None:
        known = self._fields("logs-*.otel-*")
        kept = {column: path for column, path in _EVENT.items() if path in known}
        if not {"bulk_id", "event_name"} <= set(kept):
            return
        columns = ", ".join(kept.values())
        rows: Events = {}
        for page in self._pages("bulk_events", bulk_id, ("time_ns", "event_id"), columns):
            rows |= _events(page, kept)
        _insert(store, "logs", list(rows.values()))
        if not {c.OOM_KILLS, "host_name"} <= set(kept):
            return
        for host, seen in _silent(store, bulk_id):
            window = {"first": _date(seen), "last": _date(seen + MINUTE_MS), "host": host}
            others = _events(self._query("kills", window, rows=PROOFS, columns=columns), kept)
            _insert(store, "logs", [row for key, row in others.items() if key not in rows])
            rows |= others

    def _read_hosts(self, store: Store, hosts: set[str], first_ns: int, last_ns: int) -> None:
        known = self._fields("metrics-hostmetricsreceiver.otel-*")
        first, last = first_ns // 10**6, last_ns // 10**6
        rows = []
        for name, states in _HOSTS.items():
            if not {f"metrics.{name}", "attributes.state", "resource.attributes.host.name"} <= known or not hosts:
                continue
            found = self._samples(name, states, sorted(hosts), first, last + SAMPLED_EVERY_MS)
            # A share is of the time since the sample before: the first one after the end still tells of the bulk.
            after = {row["host"]: row["time_ms"] for row in reversed(found) if row["time_ms"] > last}
            for row in found:
                if row["time_ms"] <= after.get(row["host"], last):
                    point = {
                        "time_ns": min(row["time_ms"] * 10**6, last_ns), "name": name, "type": "gauge",
                        "host_name": row["host"],
                        "value": row["value"],
                    }  # fmt: skip
                    rows.append([point.get(column) for column, _ in decode.POINTS])
        _insert(store, "points", rows)

    def _samples(self, name: str, states: str, hosts: list[str], first: int, last: int) -> list[dict[str, Any]]:
        """Return time_ms, host and value of a metric of hosts, in the order of time."""
        params: dict[str, Any] = {f"host{number}": host for number, host in enumerate(hosts)}
        asked = ", ".join(f"?{key}" for key in params)
        rows: list[dict[str, Any]] = []
        while True:
            window = {"first": _date(first), "last": _date(last), **params}
            texts = {"value": f"metrics.{name}", "states": states, "hosts": asked}
            found: list[dict[str, Any]] = pa.table(self._query("hosts", window, (), rows=ROWS, **texts)).to_pylist()
            if len(found) < ROWS or found[-1]["time_ms"] == found[0]["time_ms"]:
                return rows + found
            first = found[-1]["time_ms"]  # of which some hosts may be missing: it comes again, whole
            rows += [row for row in found if row["time_ms"] < first]


def _silent(store: Store, bulk_id: str) -> set[tuple[str, int]]:
    """Return (host, last heard of, ms) of jobs that began and have not ended."""
    lost = store.query(sql.load("page_lost"), {"bulk": bulk_id, "silent_ns": 2**62})
    hosts = store.query("SELECT span_id, max(host_name) AS host FROM logs GROUP BY span_id").to_pydict()
    of = dict(zip(hosts["span_id"], hosts["host"], strict=True))
    found = zip(lost["span_id"].to_pylist(), lost["seen_ns"].to_pylist(), strict=True)
    return {(of[span], seen // 10**6) for span, seen in found if of.get(span) is not None}


def _date(milliseconds: int) -> str:
    """Return a time as ES|QL compares dates with, UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


# Rows of the table of logs by (time, span, event): a retried request may have stored one twice.
Events = dict[tuple[Any, ...], list[Any]]


def _events(page: dict[str, list[Any]], kept: dict[str, str]) -> Events:
    rows: Events = {}
    for number, time_ns in enumerate(page["time_ns"]):
        row: dict[str, Any] = {column: page[path][number] for column, path in kept.items()}
        attributes = {name: row[name] for name in _EVENT_ATTRIBUTES if row.get(name) is not None}
        row |= {"time_ns": time_ns, "attributes": orjson.dumps(attributes).decode()}
        key = time_ns, row.get("span_id"), row.get("event_name")
        rows[key] = [row.get(column) for column, _ in decode.LOGS]
    return rows


def _insert(store: Store, table: str, rows: list[list[Any]]) -> pa.Table:
    columns = [name for name, _ in decode.TABLES[table]]
    arrow = decode.to_arrow(table, rows) if rows else pa.table({name: pa.nulls(0) for name in columns})
    if rows:
        store.connection().register("incoming", arrow).execute(f"INSERT INTO {table} SELECT * FROM incoming")
    return arrow


def of_bulk(
    asked: Client, bulk_id: str, read: Callable[[Elastic, str], dict[str, Any] | None]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what ``read`` makes of a bulk (``latest``: the newest with jobs), or None and ids that look like it."""
    source = Elastic(asked)
    if bulk_id == "latest":
        bulk_id = next((row["id"] for row in source.bulks() if row["jobs"]), bulk_id)
    found = read(source, bulk_id)
    return found, [] if found is not None else api.nearest(bulk_id, [row["id"] for row in source.bulks()])


__all__ = ["Elastic", "Trouble", "client", "of_bulk"]
