"""Reads what ``analysis.capacity`` needs from a store, and answers ``/api/capacity``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from bulkscope_studio.analysis.capacity import capacity as analysis
from bulkscope_studio.analysis.capacity.capacity import Asked
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services import reports
from bulkscope_studio.services.reports import Unknown, Wrong
from bulkscope_studio.storage import retention, sql, summaries
from bulkscope_studio.storage.store import Store

LAST = "1h"


def asked(rate: float | None, slo: str | None, quantile: float, model: str | None, workers: int | None) -> Asked:
    """Return what to predict; ``Wrong`` for numbers that mean nothing."""
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise Wrong(f"the arrival rate must be jobs per second above 0, such as 1.5, not {rate}")
    if not 0 < quantile < 1:
        raise Wrong(f"the quantile must be between 0 and 1, such as 0.95, not {quantile}")
    if workers is not None and not 1 <= workers <= 1000:
        raise Wrong(f"the number of workers must be from 1 to 1000, not {workers}")
    return Asked(rate, None if slo is None else seconds(slo), quantile, model, workers)


def seconds(text: str) -> float:
    """Read a time as in ``--retention``: ``30s``, ``5m``, ``1h``, ``7d``; ``Wrong`` for anything else or too long."""
    try:
        return retention.duration(text)
    except ValueError as error:
        raise Wrong(str(error)) from error


def system_capacity(
    store: Store, bulks: Sequence[str] = (), last: str | None = None, asked: Asked | None = None,
    before: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what the system sustained while ``bulks`` had jobs, else in the ``last`` time of what was recorded.

    ``Unknown`` for a bulk that is not there, ``Wrong`` where there is nothing to answer from. ``before`` is called with
    the time, in ns, of which other records are read, before they are.
    """
    if bulks and last is not None:
        raise Wrong("give bulks or a time, not both")
    bulks = [reports.latest(store) if bulk == "latest" else bulk for bulk in bulks]
    windows = _of_bulks(store, bulks) if bulks else _of_time(store, LAST if last is None else last)
    first, until = min(window[0] for window in windows), max(window[1] for window in windows)
    if before is not None:
        before(first, until)
    try:
        found = analysis.capacity(_seen(store, windows, bulks), asked or Asked())
    except analysis.UnknownModel as unknown:
        raise Wrong(str(unknown)) from unknown
    return analysis.to_json(found, first)


def _of_bulks(store: Store, bulks: list[str]) -> list[tuple[int, int]]:
    known = [found for bulk in bulks if (found := summaries.extent(store, bulk)) is not None]
    bounds = summaries.Extent.around(known).bounds if known else summaries.EVER
    rows = store.query(sql.load("capacity_windows"), {"bulks": bulks, **bounds}).to_pylist()
    there = {row["bulk"] for row in rows}
    for name in bulks:
        if name not in there:
            raise reports.unknown(store, name)
    # Bulks that ran at the same time are one window: what arrived in both counts once.
    windows: list[tuple[int, int]] = []
    for row in rows:
        if windows and row["first_ns"] <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], row["last_ns"]))
        else:
            windows.append((row["first_ns"], row["last_ns"]))
    return windows


def _of_time(store: Store, last: str) -> list[tuple[int, int]]:
    _, heard = reports.heard(store, time.time_ns())
    if heard is None:
        raise Wrong("the store is empty: run a service with 'bulkscope run <command>' and send it a bulk")
    return [(heard - round(seconds(last) * 1e9), heard)]


def _seen(store: Store, windows: list[tuple[int, int]], bulks: Sequence[str]) -> analysis.Seen:
    first, last = windows[0][0], max(window[1] for window in windows)
    listed = {"firsts": [window[0] for window in windows], "lasts": [window[1] for window in windows]}
    attempts = store.query(sql.load("capacity_attempts"), listed)
    if not pc.any(pc.is_valid(attempts["end_ns"])).as_py():
        newest = summaries.newest_done(store)
        hint = "send a bulk first" if newest is None else f"the newest bulk with jobs is {newest!r}"
        raise Wrong(f"no job ended in that time; {hint}")
    silent_ns = last - reports.SILENT_NS
    open_ = pc.and_(pc.is_valid(attempts["start_ns"]), pc.is_null(attempts["end_ns"]))
    silent = attempts.filter(pc.and_(open_, pc.less(attempts["seen_ns"], silent_ns)))["span_id"].to_pylist()
    reader = facts.Reader(first)
    times = {"first": first, "last": last + reports.AFTER_NS}
    empty = attempts.slice(0, 0)

    def rows(name: str, **given: object) -> pa.Table:
        return store.query(sql.load(f"explain_{name}"), times | given)

    queue, queue_names = _codes(attempts["queue"], None)
    bulk, bulk_names = _codes(attempts["bulk_id"], list(dict.fromkeys(bulks)))
    found = facts.Facts(
        id="",
        origin_ns=first,
        now=(last - first) / 1e9,
        heard_first=0.0,
        unheard=0.0,
        attempts=reader.attempts(attempts, empty, set(silent)),
        inferences=reader.inferences(store.query(sql.load("capacity_inferences"), listed)),
        requests=reader.requests(store.query(sql.load("report_requests"), {"bulk": "", **summaries.EVER})),
        workers=reader.workers(store.query(sql.load("capacity_workers"), listed)),
        hosts=reader.hosts(rows("hosts", bin_ns=max(10**9, (last - first) // reports.MOST_SAMPLES))),
        drops=None,
        lost=(),
        **reader.names(),
    )
    return analysis.Seen(
        found, queue, queue_names, bulk, bulk_names,
        tuple(((begin - first) / 1e9, (end - first) / 1e9) for begin, end in windows),
    )  # fmt: skip


def _codes(column: pa.ChunkedArray, names: list[str] | None) -> tuple[facts.Codes, tuple[str, ...]]:
    """Number the names of a column; of ``names`` alone where they are given."""
    known = pc.drop_null(pc.unique(column)) if names is None else pa.array(names, pa.string())
    index = pc.fill_null(pc.index_in(pc.cast(column, pa.string()), value_set=known, skip_nulls=True), -1)
    return index.to_numpy().astype(np.int64), tuple(known.to_pylist())


def capacity_routes(store: Store) -> APIRouter:
    """Return ``/capacity``, to be included under ``/api``."""
    routes = APIRouter()

    def answer(
        bulk: Annotated[list[str] | None, Query()] = None, last: str | None = None, rate: float | None = None,
        slo: str | None = None, quantile: float = 0.95, model: str | None = None, workers: int | None = None,
    ) -> JSONResponse:  # fmt: skip
        try:
            wanted = asked(rate, slo, quantile, model, workers)
            return JSONResponse(system_capacity(store, bulk or (), last, wanted))
        except Unknown as unknown:
            return JSONResponse(unknown.answer, 404)
        except Wrong as wrong:
            return JSONResponse({"error": str(wrong)}, 400)

    def progress(bulk: str) -> JSONResponse:
        return JSONResponse(bulk_progress(store, bulk))

    routes.add_api_route("/capacity", answer)
    routes.add_api_route("/capacity/progress", progress)
    return routes


def bulk_progress(store: Store, bulk: str) -> dict[str, Any]:
    """Return how many jobs of a bulk were ``sent`` and have ``ended``, as in the list of bulks: made to be polled."""
    found: list[dict[str, Any]] = summaries.query(store, sql.load("capacity_progress"), {"bulk": bulk}).to_pylist()
    return found[0] if found else {"sent": 0, "ended": 0}
