"""Documents of Elasticsearch as rows of the studio's tables.

Elasticsearch keeps the start of a span in milliseconds. What a worker logs as a job begins has nanoseconds, and comes
about 0.1 ms later: by it the start of the job's span, and of what began inside it in the same millisecond, is known
that well. Else two jobs of a worker with less than 1 ms between them could seem to overlap, and the worker to have two
places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.elastic.esql import Columns
from bulkscope_studio.storage import credible, tables, workers
from bulkscope_studio.storage.store import Store
from bulkscope_studio.storage.values import dump

MILLISECOND_NS = 10**6

_IDENTITY = {
    "service_name": c.SERVICE_NAME, "service_instance_id": c.SERVICE_INSTANCE_ID, "host_name": c.HOST_NAME,
    "pid": c.PROCESS_PID,
}  # fmt: skip
# What is read of a resource beside the columns that it gives to its records.
_PLACE = (c.CONTAINER_ID, c.K8S_POD_NAME, c.WORKER_SLOT)
_LIMITS = (c.WORKER_CPUS, c.WORKER_CPU_SET, c.SAMPLING, c.SAMPLING_RATIO, *_PLACE)
_EVENT_LIMITS = (c.WORKER_MEMORY_LIMIT, *_PLACE)
_RESOURCE = {
    **{column: f"resource.attributes.{name}" for column, name in _IDENTITY.items()},
    **{name: f"resource.attributes.{name}" for name in _LIMITS},
}
# Elastic's processor for APM moves the queue's name to one of these, unless it is told to leave it.
_QUEUES = ("transaction.message.queue.name", "span.message.queue.name")
# Of the process whose job a span tells of, where that was another: its id, and its slot of a pool.
_TOLD_PID, _TOLD_SLOT = "told_pid", "told_slot"
# Columns of the table of spans that only the studio's pages show: no report, explanation or capacity reads them.
SHOWN_ONLY = frozenset(
    {"bulk_id_source", "http_route", "task", "provider", "tokens_per_second", "decode_tokens_per_second"}
)
SPAN = {
    "trace_id": "trace_id", "span_id": "span_id", "kind": "kind", "duration": "duration", "status": "status.code",
    **_RESOURCE, _TOLD_PID: f"attributes.{c.PROCESS_PID}", _TOLD_SLOT: f"attributes.{c.WORKER_SLOT}",
    **{name: f"attributes.{name}" for name in _QUEUES},
    **{
        column: f"attributes.{name}"
        for name, column in tables.SPAN_ATTRIBUTES.items()
        if column not in SHOWN_ONLY
    },
}  # fmt: skip
# Of what others did: the columns that `explain_others.sql`, `explain_inferences.sql` and `explain_workers.sql` read.
OTHER_SPAN = {
    column: SPAN[column]
    for column in (
        "trace_id", "span_id", "kind", "duration", "status", "bulk_id", "job_id", "attempt", "wait", "delay", "queue",
        "model", "prefill", "decode", "input_tokens", "output_tokens", "cached_tokens", "cpu_time", "cpu_utilization",
        "cpu_pressure", "cpu_throttled", "cpu_wait", "memory_peak", "memory_file", "memory_anon", "memory_limit",
        _TOLD_PID, _TOLD_SLOT, *_QUEUES, *_RESOURCE,
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
# Columns of one length by name: 10,000 spans as rows with a name for each value were 24 MB, and a second of Python.
Values = dict[str, Any]
_FOREVER_NS = 2**62  # no time of day plus this is beyond 64 bits


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
    said = {name: row.pop(name, None) for name in _PLACE} | {c.HOST_NAME: row.get("host_name")}
    pid, instance, service = (row.get(name) for name in ("pid", "service_instance_id", "service_name"))
    row["worker"] = workers.name(workers.place(said), pid, instance, service, workers.slot(said))


def spans(page: Columns, columns: Mapping[str, str], begun: Mapping[str, Iterable[int]]) -> tuple[Values, list[Row]]:
    """Return the columns of ``spans`` for the rows of a page, and their resources, rows of ``resources``.

    ``begun`` is when each job said that it began, in ns. A column of which nothing is known is left out.
    """
    found: Values = {column: page[path] for column, path in columns.items()}
    number = len(page["start_ms"])
    nothing: list[Any] = [None] * number
    kinds = [(kind or "unspecified").upper() for kind in found.get("kind", nothing)]
    start_ns = np.array(page["start_ms"], np.int64) * MILLISECOND_NS
    if begun:  # a job is put before it begins
        for row, (kind, job) in enumerate(zip(kinds, found.get("job_id", nothing), strict=True)):
            said = begun.get(job or "")
            if said is not None and kind != "PRODUCER":
                start_ns[row] = _start(page["start_ms"][row], said)
    duration = array(found.pop("duration", nothing), "i").fill_null(0).to_numpy(zero_copy_only=False)
    pids = found.get("pid", nothing)
    told = [
        pid if kind == "CONSUMER" and pid is not None and pid != own else None
        for kind, own, pid in zip(kinds, pids, found.pop(_TOLD_PID, nothing), strict=True)
    ]
    found |= {
        "kind": kinds, "start_ns": pa.array(start_ns), "end_ns": pa.array(start_ns + np.minimum(duration, _FOREVER_NS)),
        "status": [(status or "unset").upper() for status in found.get("status", nothing)],
        "pid": [own if other is None else other for own, other in zip(pids, told, strict=True)],
        "service_instance_id": [
            instance if other is None else None
            for instance, other in zip(found.get("service_instance_id", nothing), told, strict=True)
        ],
    }  # fmt: skip
    moved = [found.pop(name) for name in _QUEUES if name in found]
    if moved:
        choices = zip(found.get("queue", nothing), *moved, strict=True)
        found["queue"] = [next((name for name in names if name is not None), None) for names in choices]
    slots = [
        None if pid is None else (pid, slot) for pid, slot in zip(told, found.pop(_TOLD_SLOT, nothing), strict=True)
    ]
    resources = _resources(page, columns, slots, found)
    return {name: values for name, values in found.items() if name not in _RESOURCE or name in _IDENTITY}, resources


def _resources(page: Columns, columns: Mapping[str, str], told: list[Any], found: Values) -> list[Row]:
    """Give the rows of ``found`` the names of their workers and the ids of their resources, which are returned."""
    names = [name for name in _RESOURCE if name in columns]
    known: dict[Any, tuple[str | None, str]] = {}
    resources: dict[str, Row] = {}
    ids, workers_of = [], []
    # There are as many resources as processes: what is made of one is made once.
    for values in zip(*(page[columns[name]] for name in names), told, strict=True):
        key = values if not any(isinstance(value, list) for value in values) else orjson.dumps(values)
        made = known.get(key)
        if made is None:
            row = dict(zip(names, values, strict=False))
            said = {_IDENTITY.get(name, name): value for name, value in row.items() if value is not None}
            if values[-1] is not None:
                row |= {"pid": values[-1][0], "service_instance_id": None, c.WORKER_SLOT: values[-1][1]}
            _name(row)
            resource = resource_of(said) if said else None
            if resource is not None:
                resources[resource["resource_id"]] = resource
            made = known[key] = (None if resource is None else resource["resource_id"], row["worker"])
        ids.append(made[0])
        workers_of.append(made[1])
    found |= {"resource_id": ids, "worker": workers_of}
    return list(resources.values())


def resource_of(said: Row) -> Row:
    """Return the row of ``resources`` of attributes: whatever else was said, what agrees in these has the same id."""
    text = dump(said)
    # 12 digits, which DuckDB keeps in the column itself.
    return {"resource_id": hashlib.blake2b(text.encode(), digest_size=6).hexdigest(), "attributes": text}


def once(page: Columns, *keys: str) -> Columns:
    """Return a page, sorted by ``keys``, with the first alone of the rows that are equal in them."""
    rows = list(zip(*(page[key] for key in keys), strict=True))
    kept = [number for number, row in enumerate(rows) if not number or row != rows[number - 1]]
    return page if len(kept) == len(rows) else {name: [column[n] for n in kept] for name, column in page.items()}


def events(page: Columns, columns: Mapping[str, str]) -> tuple[list[Row], list[Row]]:
    """Return log records of jobs, rows of ``logs``; those that are equal in all that is read are one.

    And the rows of ``resources`` of their memory limits, which is all that is read of these.
    """
    found: dict[bytes, Row] = {}
    resources: dict[Any, Row] = {}
    for row, time_ns in zip(_rows(page, columns), page["time_ns"], strict=True):
        attributes = {name: row.pop(name) for name in _EVENT_ATTRIBUTES if name in row}
        given = {name: value for name, value in attributes.items() if value is not None}
        limit = row.pop(c.WORKER_MEMORY_LIMIT, None)
        key = limit if not isinstance(limit, list) else None
        if key not in resources:
            resources[key] = resource_of({} if key is None else {c.WORKER_MEMORY_LIMIT: key})
        row |= {
            "time_ns": time_ns,
            "attributes": orjson.dumps(given).decode(),
            "resource_id": resources[key]["resource_id"],
        }
        _name(row)
        found[orjson.dumps(row)] = row
    return list(found.values()), list(resources.values())


def proofs(page: Columns) -> Iterator[Row]:
    """Yield rows of ``logs`` for when each job first and last said a count of kills for memory."""
    for row in _rows(page, dict(zip(page, page, strict=True))):
        _name(row)
        said = {"event_name": c.EVENT_JOB_HEARTBEAT, "attributes": dump({c.OOM_KILLS: row["kills"]})}
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
        "attributes": dump({attribute: row["state"]}),
    }  # fmt: skip


def array(values: Sequence[Any] | pa.Array, kind: str, within: credible.Range | None = None) -> pa.Array:
    """Return a column of ``kind`` (``tables.TYPES``); what is of another type, or out of bounds, is absent."""
    wanted = tables.TYPES[kind]
    try:
        found = values if isinstance(values, pa.Array) else pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError):
        found = pa.array([_fitting(value, wanted) for value in values], wanted)
    return found if within is None else credible.numbers(found, within)


def _fitting(value: Any, wanted: pa.DataType) -> Any:
    try:
        return pa.scalar(value, wanted).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError):
        return None


def insert(store: Store, table: str, rows: Iterable[Row]) -> None:
    """Add rows to a table of a store, with credible numbers alone; a resource that is there already stays."""
    held = list(rows)
    names = {name for row in held for name in row}
    insert_columns(store, table, {name: [row.get(name) for row in held] for name in names})


def insert_columns(store: Store, table: str, columns: Values) -> None:
    """Add columns of one length, of which those that ``table`` has are taken, as ``insert`` does rows."""
    number = len(next(iter(columns.values()), ()))
    if not number:
        return
    # Elasticsearch's long and double hold what the store's columns do not.
    bounds = credible.SPANS if table == "spans" else {}
    named = [
        array(columns[name], kind, bounds.get(name)) if name in columns else pa.nulls(number, tables.TYPES[kind])
        for name, kind in tables.TABLES[table]
    ]
    found = pa.table(named, names=[name for name, _ in tables.TABLES[table]])
    cursor = store.connection().register("incoming", found)
    into = "INSERT OR IGNORE INTO" if table == "resources" else "INSERT INTO"
    cursor.execute(f"{into} {table} SELECT * FROM incoming")
    cursor.unregister("incoming")
