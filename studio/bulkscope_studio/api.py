"""What the command line asks a running studio: the list of bulks and the report of one."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from bulkscope_studio import sql
from bulkscope_studio.analysis import analyse, to_json
from bulkscope_studio.store import Store

NEAREST = 5
# A job that has not been heard of for this long is lost: heartbeats come every second, load may delay them.
SILENT_NS = 15_000_000_000


def list_bulks(store: Store) -> list[dict[str, Any]]:
    """Return every bulk, newest first."""
    rows: list[dict[str, Any]] = store.query(sql.load("report_bulks")).to_pylist()
    for row in rows:
        row["duration_s"] = (row["end_ns"] - row["start_ns"]) / 1e9
    return rows


def nearest(bulk_id: str, known: Sequence[str]) -> list[str]:
    """Return the known ids that look like ``bulk_id``, else the first (newest) ones."""
    return difflib.get_close_matches(bulk_id, known, NEAREST, 0.4) or list(known[:NEAREST])


def unknown(store: Store, bulk_id: str) -> dict[str, Any]:
    """Say that there is no such bulk, with the nearest ids."""
    found = nearest(bulk_id, [row["id"] for row in list_bulks(store)])
    return {"error": "unknown bulk", "id": bulk_id, "nearest": found}


def _window(jobs: pa.Table, requests: pa.Table) -> tuple[int, int] | None:
    """Return the first and the last time of a bulk, in ns; None when nothing is known of it."""
    times = [
        at
        for table in (jobs, requests)
        for column in ("enqueue_ns", "start_ns", "seen_ns", "end_ns")
        if column in table.column_names
        for at in table[column].to_pylist()
        if at is not None
    ]
    return (min(times), max(times)) if times else None


def bulk_report(
    store: Store, bulk_id: str, hosts_between: Callable[[int, int], None] | None = None
) -> dict[str, Any] | None:
    """Return the report of one bulk (``latest``: the newest one with jobs) or None when it is unknown.

    ``hosts_between`` is called with the bulk's window, in ns, before the hosts' samples are read from the store.
    """
    if bulk_id == "latest":
        bulk_id = next((row["id"] for row in list_bulks(store) if row["jobs"]), bulk_id)
    bulk = {"bulk": bulk_id}
    jobs, inferences, requests = (
        store.query(sql.load(f"report_{name}"), bulk) for name in ("attempts", "inferences", "requests")
    )
    window = _window(jobs, requests)
    if window is None:
        return None
    if hosts_between is not None:
        hosts_between(*window)
    hosts = store.query(sql.load("report_host"), {"first": window[0], "last": window[1]})
    lost = store.query(sql.load("page_lost"), bulk | {"silent_ns": time.time_ns() - SILENT_NS})
    return to_json(analyse(bulk_id, jobs, inferences, requests, hosts, lost))


def router(store: Store) -> APIRouter:
    """Return the routes under ``/api``."""
    routes = APIRouter(prefix="/api")

    def bulks() -> JSONResponse:
        return JSONResponse(list_bulks(store))

    def report(bulk_id: str) -> JSONResponse:
        found = bulk_report(store, bulk_id)
        return JSONResponse(unknown(store, bulk_id), 404) if found is None else JSONResponse(found)

    routes.add_api_route("/bulks", bulks)
    routes.add_api_route("/bulks/{bulk_id:path}/report", report)
    return routes
