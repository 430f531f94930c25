"""Documents of Elasticsearch as rows of the studio's tables.

Elasticsearch keeps the start of a span in milliseconds. What a worker logs as a job begins has nanoseconds, and comes
about 0.1 ms later: by it the start of the job's span, and of what began inside it in the same millisecond, is known
that well. Else two jobs of a worker with less than 1 ms between them could seem to overlap, and the worker to have two
places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from bulkscope import conventions as c
from bulkscope_studio import credible, decode, workers
from bulkscope_studio.esql import Columns
from bulkscope_studio.store import Store

MILLISECOND_NS = 10**6

_IDENTITY = {
    "service_name": c.SERVICE_NAME, "service_instance_id": c.SERVICE_INSTANCE_ID, "host_name": c.HOST_NAME,
    "pid": c.PROCESS_PID,
}  # fmt: skip
# What is read of a resource beside the columns that it gives to its records.
_PLACE = (c.CONTAINER_ID, c.K8S_POD_NAME)
_LIMITS = (c.WORKER_CPUS, c.WORKER_CPU_SET, *_PLACE)
_EVENT_LIMITS = (c.WORKER_MEMORY_LIMIT, *_PLACE)
_RESOURCE = {
    **{column: f"resource.attributes.{name}" for column, name in _IDENTITY.items()},
    **{name: f"resource.attributes.{name}" for name in _LIMITS},
}
# Elastic's processor for APM moves the queue's name to one of these, unless it is told to leave it.
_QUEUES = ("transaction.message.queue.name", "span.message.queue.name")
_TOLD_PID = "told_pid"  # of the process whose job a span tells of, where that was another
SPAN = {
    "trace_id": "trace_id", "span_id": "span_id", "parent_span_id": "parent_span_id", "name": "name", "kind": "kind",
    "duration": "duration", "status": "status.code", "status_message": "status.message", **_RESOURCE,
    _TOLD_PID: f"attributes.{c.PROCESS_PID}", **{name: f"attributes.{name}" for name in _QUEUES},
    **{column: f"attributes.{name}" for name, column in decode.SPAN_ATTRIBUTES.items()},
}  # fmt: skip
# Of what others did: the columns that `explain_others.sql`, `explain_inferences.sql` and `explain_workers.sql` read.
OTHER_SPAN = {
    column: SPAN[column]
    for column in (
        "trace_id", "span_id", "kind", "duration", "status", "bulk_id", "job_id", "attempt", "wait", "delay", "queue",
        "model", "prefill", "decode", "input_tokens", "output_tokens", "cached_tokens", "cpu_time", "cpu_utilization",
        "cpu_pressure", "cpu_throttled", "cpu_wait", "memory_peak", "memory_file", "memory_anon", "memory_limit",
        _TOLD_PID, *_QUEUES, *_RESOURCE,
    )
}  # fmt: skip
# Not columns of the studio's table of logs: they are asked for among the attributes.
_EVENT_ATTRIBUTES = (
    c.JOB_ATTEMPT, c.JOB_ELAPSED, c.M_PROCESS_MEMORY_USAGE, c.M_WORKER_MEMORY_UTILIZATION, c.GEN_AI_MODEL, c.OOM_KILLS,
)  # fmt: skip
EVENT = {
    "trace_id": "trace_id", "span_id": "span_id", "event_name": "event_name",
    "bulk_id": f"attributes.{c.BULK_ID}", "job_id": f"attributes.{c.JOB_ID}",
    **{column: f"resource.attributes.{name}" for column, name in _IDENTITY.items()},
    **{name: f"resource.attributes.{name}" for name in _EVENT_LIMITS},
    **{name: f"attributes.{name}" for name in _EVENT_ATTRIBUTES},
}  # fmt: skip

Row = dict[str, Any]
# By what tells one from another: a request that was sent again has stored its records twice.
Events = dict[bytes, Row]


def _rows(page: Columns, columns: Mapping[str, str]) -> Iterator[Row]:
    names = list(columns)
    for values in zip(*(page[path] for path in columns.values()), strict=True):
        yield dict(zip(names, values, strict=True))


def _start(start_ms: int, said: Iterable[int]) -> int:
    """Return when a span began, in ns; ``said`` is when attempts of its job said so."""
    start_ns = start_ms * MILLISECOND_NS
    # Said in the span's millisecond, or in the next by a job that began at the end of its own.
    near = (time_ns for time_ns in said if 0 <= time_ns - start_ns < 2 * MILLISECOND_NS)
    return min(next(near, start_ns), start_ns + MILLISECOND_NS - 1)


def _name(row: Row) -> None:
    """Name the worker of a row that has the columns and names of its resource."""
    where = workers.place({name: row.pop(name, None) for name in _PLACE} | {c.HOST_NAME: row.get("host_name")})
    row["worker"] = workers.name(where, row.get("pid"), row.get("service_instance_id"), row.get("service_name"))


def spans(
    page: Columns, columns: Mapping[str, str], begun: Mapping[str, Iterable[int]]
) -> Iterator[tuple[Row, Row | None]]:
    """Yield each span, a row of ``spans``, and its resource, a row of ``resources`` (None: nothing is known of it).

    ``begun`` is when each job said that it began, in ns.
    """
    for row, start_ms in zip(_rows(page, columns), page["start_ms"], strict=True):
        row["kind"] = (row.get("kind") or "unspecified").upper()
        # A job is put before it begins.
        said = () if row["kind"] == "PRODUCER" else begun.get(row.get("job_id") or "", ())
        row["start_ns"] = _start(start_ms, said)
        row["end_ns"] = row["start_ns"] + (row.pop("duration", None) or 0)
        row["status"] = (row.get("status") or "unset").upper()
        resource = {name: row[name] for name in _RESOURCE if row.get(name) is not None}
        pid = row.pop(_TOLD_PID, None)
        if row["kind"] == "CONSUMER" and pid not in (None, row.get("pid")):
            row["pid"], row["service_instance_id"] = pid, None
        _name(row)
        queues = [row.pop(name, None) for name in _QUEUES]
        row["queue"] = next((name for name in (row.get("queue"), *queues) if name is not None), None)
        if resource:
            named = {_IDENTITY.get(name, name): value for name, value in resource.items()}
            text = decode.dump(named)
            # Its own text: whatever else the resource said, spans that agree in this have the same.
            row["resource_id"] = text
            yield row, {"resource_id": text, "attributes": text}
        else:
            yield row, None


def events(page: Columns, columns: Mapping[str, str]) -> Events:
    """Return log records of jobs, rows of ``logs``; those that are equal in all that is read are one."""
    found: Events = {}
    known: dict[str, str] = {}
    for row, time_ns in zip(_rows(page, columns), page["time_ns"], strict=True):
        attributes = {name: row.pop(name) for name in _EVENT_ATTRIBUTES if name in row}
        given = {name: value for name, value in attributes.items() if value is not None}
        limit = row.pop(c.WORKER_MEMORY_LIMIT, None)
        text = "{}" if limit is None else decode.dump({c.WORKER_MEMORY_LIMIT: limit})
        row |= {
            "time_ns": time_ns,
            "attributes": orjson.dumps(given).decode(),
            "resource_id": known.setdefault(text, text),
        }
        _name(row)
        found[orjson.dumps(row)] = row
    return found


def limits(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of ``resources`` of what ``events`` returned: all that is read of them is their memory limit."""
    return [{"resource_id": text, "attributes": text} for text in {row["resource_id"] for row in rows}]


def proofs(page: Columns) -> Iterator[Row]:
    """Yield rows of ``logs`` for when each job first and last said a count of kills for memory."""
    for row in _rows(page, dict(zip(page, page, strict=True))):
        _name(row)
        said = {"event_name": c.EVENT_JOB_HEARTBEAT, "attributes": decode.dump({c.OOM_KILLS: row["kills"]})}
        for time_ns in {row["first_ns"], row["seen_ns"]}:
            yield row | said | {"time_ns": time_ns}


def heard(page: Columns) -> Iterator[Row]:
    """Yield a row of ``logs`` for when each job was first heard of, and one for when it was last."""
    for row in _rows(page, dict(zip(page, page, strict=True))):
        _name(row)
        first_ns, seen_ns = row.pop("first_ns"), row.pop("seen_ns")
        yield row | {"time_ns": first_ns, "event_name": c.EVENT_JOB_STARTED}
        if seen_ns != first_ns:
            yield row | {"time_ns": seen_ns, "event_name": c.EVENT_JOB_HEARTBEAT}


def sample(row: Row, name: str, attribute: str) -> Row:
    """Return a sample of a host (time_ms, host_name, state, value) as a row of ``points``."""
    return row | {
        "time_ns": row["time_ms"] * MILLISECOND_NS, "name": name, "type": "gauge",
        "attributes": decode.dump({attribute: row["state"]}),
    }  # fmt: skip


def begun(rows: Iterable[Row]) -> dict[str, list[int]]:
    """Return when each job said that it began, an attempt each, in ns."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row["event_name"] == c.EVENT_JOB_STARTED and row.get("job_id") is not None:
            found.setdefault(row["job_id"], []).append(row["time_ns"])
    return found


def _number(value: Any, within: credible.Range | None) -> Any:
    if within is None or value is None:
        return value
    return value if isinstance(value, int | float) and within[0] <= value <= within[1] else None


def insert(store: Store, table: str, rows: Iterable[Row]) -> None:
    """Add rows to a table of a store, with credible numbers alone; a resource that is there already stays."""
    # Elasticsearch's long and double hold what the store's columns do not.
    bounds = credible.SPANS if table == "spans" else {}
    columns = [(name, bounds.get(name)) for name, _ in decode.TABLES[table]]
    values = [[_number(row.get(name), within) for name, within in columns] for row in rows]
    if values:
        cursor = store.connection().register("incoming", decode.to_arrow(table, values))
        into = "INSERT OR IGNORE INTO" if table == "resources" else "INSERT INTO"
        cursor.execute(f"{into} {table} SELECT * FROM incoming")
