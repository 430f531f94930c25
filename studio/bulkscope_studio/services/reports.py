"""What the command line asks a running studio: the list of bulks and the report of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from bulkscope_studio.analysis import analyse, thresholds, to_json
from bulkscope_studio.analysis.explain import explain
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.storage import sql, storefile, summaries
from bulkscope_studio.storage.store import Store

NEAREST = 5
# Of an id, to find those that look like it: some are 64 KiB long, and the time grows with the square.
_LOOKED_AT = 200
_ALIKE = 0.6  # of the similarity of Jaro and Winkler, which is 1 for the same
SILENT_NS = int(thresholds.QUIET_S.value * 1e9)
# Counts and samples that tell of a bulk come up to an export interval after its end.
AFTER_NS = 10_000_000_000
# Clocks of machines without NTP are seconds apart. A record from later than this is of a clock that is wrong: up to a
# day ahead is taken, and for that day the newest record would be no measure of what is new.
CLOCKS_NS = 60_000_000_000
# Of each host over a bulk's time: a bulk of a day is no better known by 86,400.
MOST_SAMPLES = 4000


def list_bulks(store: Store, most: int | None = None) -> list[dict[str, Any]]:
    """Return every bulk, or the newest ``most``, newest first."""
    rows: list[dict[str, Any]] = summaries.query(store, sql.load("report_bulks"), {"most": most}).to_pylist()
    for row in rows:
        row["duration_s"] = (row["end_ns"] - row["start_ns"]) / 1e9
    return rows


def newest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of the newest bulk that has jobs; of none ``latest``, which is then no bulk's id."""
    return next((str(row["id"]) for row in rows if row["jobs"]), "latest")


def latest(store: Store) -> str:
    """Return the id of the newest bulk that has jobs; of none ``latest``, as ``newest``."""
    return summaries.newest(store) or "latest"


def nearest(bulk_id: str, known: Sequence[str]) -> list[str]:
    """Return the known ids that look like ``bulk_id``, the likest first, else the first (newest) ones."""
    if not known:
        return []
    # In DuckDB, outside of the interpreter's lock: 0.1 CPU-s of 100,000 ids, of which difflib makes 5 inside it.
    with storefile.connect(Path(storefile.MEMORY), read_only=False, config={"threads": 1}) as connection:
        connection.register("known", pa.table({"id": pa.array(known, pa.string()), "place": range(len(known))}))
        found = connection.execute(
            "SELECT id FROM (SELECT *, jaro_winkler_similarity(left(id, $most), left($name, $most)) AS alike "
            "FROM known) WHERE alike >= $least ORDER BY alike DESC, place LIMIT $count",
            {"name": bulk_id, "most": _LOOKED_AT, "least": _ALIKE, "count": NEAREST},
        ).fetchall()
    return [row[0] for row in found] or list(known[:NEAREST])


class Unknown(Exception):
    """A name that nothing has; ``answer`` says so as JSON, with the ``nearest`` that there are."""

    def __init__(self, name: str, near: Sequence[str], what: str = "bulk") -> None:
        super().__init__(f"no {what} {name!r}")
        self.answer: dict[str, Any] = {"error": f"unknown {what}", "id": name, "nearest": list(near)}


class Wrong(Exception):
    """What was asked for makes no sense; the message says what would."""


def unknown(store: Store, bulk_id: str) -> Unknown:
    """Return what says that there is no such bulk."""
    return Unknown(bulk_id, nearest(bulk_id, summaries.ids(store)))


def _window(jobs: pa.Table, requests: pa.Table) -> tuple[int, int] | None:
    """Return the first and the last time of a bulk, in ns; None when nothing is known of it."""
    found = [
        pc.min_max(table[column])
        for table in (jobs, requests)
        for column in ("enqueue_ns", "start_ns", "seen_ns", "end_ns")
        if column in table.column_names
    ]
    first = [pair["min"].as_py() for pair in found if pair["min"].is_valid]
    last = [pair["max"].as_py() for pair in found if pair["max"].is_valid]
    return (min(first), max(last)) if first else None


def heard(store: Store, now_ns: int) -> tuple[int | None, int | None]:
    """Return when anything was first and last heard of anything, in ns; None where nothing was."""
    (found,) = store.query(sql.load("explain_heard"), {"credible_ns": now_ns + CLOCKS_NS}).to_pylist()
    return found["first_ns"], found["last_ns"]


def bulk_report(
    store: Store, bulk_id: str, hosts_between: Callable[[int, int], None] | None = None
) -> dict[str, Any] | None:
    """Return the report of one bulk (``latest``: the newest one with jobs) or None when it is unknown.

    ``hosts_between`` is called with the bulk's window, in ns, before the hosts' samples are read from the store.
    """
    if bulk_id == "latest":
        bulk_id = latest(store)
    known = summaries.extent(store, bulk_id)
    if known is None:
        return None
    bulk = {"bulk": bulk_id, **known.bounds}
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


def bulk_explanation(
    store: Store,
    bulk_id: str,
    now_ns: int | None = None,
    before: Callable[[int, int], None] | None = None,
    drops_known: bool = True,
) -> dict[str, Any] | None:
    """Return why a bulk took as long as it did (``latest``: the newest with jobs), or None when it is unknown.

    ``before`` is called with the time, in ns, of which other records are read, before they are. ``drops_known``:
    the store holds what its senders counted as dropped.
    """
    if bulk_id == "latest":
        bulk_id = latest(store)
    known = summaries.extent(store, bulk_id)
    if known is None:
        return None
    bulk = {"bulk": bulk_id, **known.bounds}
    own, requests = (store.query(sql.load(f"report_{name}"), bulk) for name in ("attempts", "requests"))
    window = _window(own, requests)
    if window is None:
        return None
    asked = time.time_ns() if now_ns is None else now_ns
    times = {"first": window[0] - facts.HISTORY_NS, "last": window[1] + AFTER_NS}
    if pc.any(pc.is_null(own["end_ns"])).as_py():
        # What has not ended may wait for others, of which more was heard since than of the bulk.
        times["last"] = max(times["last"], min(asked, window[1] + facts.HISTORY_NS))
    if before is not None:
        before(times["first"], times["last"])
    first_heard, last_heard = heard(store, asked)
    now = min(asked, max(last_heard or 0, window[1]))
    begun = pc.and_(pc.is_valid(own["start_ns"]), pc.is_null(own["end_ns"]))
    mute: list[dict[str, Any]] = []
    if pc.any(begun).as_py():
        found_mute = store.query(sql.load("page_lost"), bulk | {"silent_ns": now - SILENT_NS}).to_pylist()
        mute = [row for row in found_mute if not row["told"]]
    reader = facts.Reader(window[0])

    def rows(name: str, **given: object) -> pa.Table:
        return store.query(sql.load(f"explain_{name}"), times | given)

    others = rows("others", bulk=bulk_id)
    beside = pc.and_(pc.is_null(others["end_ns"]), pc.less(others["seen_ns"], now - SILENT_NS))
    silent = {row["span_id"] for row in mute} | set(others.filter(beside)["span_id"].to_pylist())
    found = facts.Facts(
        id=bulk_id,
        origin_ns=window[0],
        now=(now - window[0]) / 1e9,
        unheard=(asked - now) / 1e9,
        heard_first=((first_heard or window[0]) - window[0]) / 1e9,
        attempts=reader.attempts(own, others, silent, [row["span_id"] for row in mute if row["without_end"]]),
        inferences=reader.inferences(rows("inferences", **bulk)),
        requests=reader.requests(requests),
        workers=reader.workers(rows("workers", begin=window[0])),
        hosts=reader.hosts(rows("hosts", first=window[0], bin_ns=max(10**9, (window[1] - window[0]) // MOST_SAMPLES))),
        drops=_drops(rows("drops", first=window[0])) if drops_known else None,
        lost=tuple(mute),
        **reader.names(),
    )
    return explain.to_json(explain.explain(found))


def _drops(table: pa.Table) -> tuple[tuple[str, str, int], ...]:
    return tuple((row["signal"], row["reason"], row["records"]) for row in table.to_pylist())


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Answer for a fault of ours; the server logs it."""
    return JSONResponse({"error": f"the studio could not answer ({type(error).__name__}); its log says why"}, 500)


def router(store: Store) -> APIRouter:
    """Return the routes under ``/api``."""
    routes = APIRouter(prefix="/api")

    def bulks() -> JSONResponse:
        return JSONResponse(list_bulks(store))

    def report(bulk_id: str) -> JSONResponse:
        found = bulk_report(store, bulk_id)
        return JSONResponse(unknown(store, bulk_id).answer, 404) if found is None else JSONResponse(found)

    def explanation(bulk_id: str) -> JSONResponse:
        found = bulk_explanation(store, bulk_id)
        return JSONResponse(unknown(store, bulk_id).answer, 404) if found is None else JSONResponse(found)

    routes.add_api_route("/bulks", bulks)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/report", report)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/explain", explanation)
    # These read with what is defined above.
    from bulkscope_studio.services.capacities import capacity_routes
    from bulkscope_studio.services.comparisons import compare_routes

    routes.include_router(compare_routes(store))
    routes.include_router(capacity_routes(store))
    return routes
