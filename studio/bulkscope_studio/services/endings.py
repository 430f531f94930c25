"""When a running bulk will end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.ending import ending as analysis
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services import bulks, explanations
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.services.explanations import Beside
from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store

# Of a list the newest so many unfinished bulks are asked how long they take: 100,000 jobs of one cost 0.7 CPU-s.
MOST_RUNNING = 5
# A running bulk of which nothing came for longer waits behind others for longer than these are kept in view.
_LATELY_NS = facts.HISTORY_NS


def bulk_ending(store: Store, bulk_id: str, now_ns: int | None = None) -> dict[str, Any]:
    """Return how far a bulk is (``latest``: the newest with jobs), and when it ends; raises ``NotFound``."""
    return ending_of(store, explanations.beside(store, bulk_id, now_ns))


def ending_of(store: Store, looked_at: Beside, waiting_known: bool = True) -> dict[str, Any]:
    """Return when a bulk ends; the store has what others did beside it.

    ``waiting_known``: the store holds the jobs of other bulks that nobody has taken yet.
    """
    bulk = looked_at.bulk
    begun = explanations.attempts_of(store, looked_at)
    origin, reader = bulk.window[0], begun.reader
    found = facts.Facts(
        id=bulk.id,
        origin_ns=origin,
        now=(begun.now_ns - origin) / 1e9,
        unheard=(looked_at.asked_ns - begun.now_ns) / 1e9,
        heard_first=(begun.heard_first_ns - origin) / 1e9,
        attempts=begun.attempts,
        inferences=reader.inferences(_none(store, "explain_inferences")),
        requests=reader.requests(bulk.requests),
        workers=(),
        hosts=reader.hosts(_none(store, "explain_hosts")),
        drops=None,
        lost=tuple(begun.mute),
        unbegun=bulk.unbegun,
        sampled=bulk.sampled,
        **reader.names(),
    )
    ahead = _ahead(store, looked_at, begun.now_ns) if waiting_known else None
    return analysis.to_json(analysis.ending(found, ahead), origin)


def list_bulks(store: Store) -> list[dict[str, Any]]:
    """Return every bulk, newest first; ``ending`` says of a running one when it ends: ``left_s`` and ``end_ns``."""
    rows = bulks.list_bulks(store)
    ends = of_running(store, rows)
    return [row | {"ending": _short(ends.get(row["id"]))} for row in rows]


def _short(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None or found["left_s"] is None else {name: found[name] for name in ("left_s", "end_ns")}


def of_running(store: Store, rows: Sequence[Mapping[str, Any]], now_ns: int | None = None) -> dict[str, dict[str, Any]]:
    """Return when those of a list of bulks, newest first, that run will end, by id; of the newest few alone."""
    asked = time.time_ns() if now_ns is None else now_ns
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if len(found) == MOST_RUNNING:
            break
        if not row["jobs"] or row["done"] + row["failed"] + row["cancelled"] >= row["jobs"]:
            continue
        known = summaries.extent(store, row["id"])
        if known is None or known.last_ns < asked - _LATELY_NS:
            continue
        try:
            ending = bulk_ending(store, row["id"], now_ns)
        except NotFound:  # deleted meanwhile
            continue
        if ending["state"] == "running":
            found[row["id"]] = ending
    return found


def _none(store: Store, name: str) -> pa.Table:
    """Return the columns of a query without a row."""
    given = {"bulk": "", "first": 0, "last": -1, "bin_ns": 1, **summaries.Extent(0, -1, 0, 0).bounds}
    text = sql.load(name)
    return store.query(text, {key: value for key, value in given.items() if f"${key}" in text})


def _ahead(store: Store, looked_at: Beside, now_ns: int) -> analysis.Ahead:
    """Return the waiting jobs of others that go before the bulk's last one, in its queues."""
    bulk = looked_at.bulk
    attempts = bulk.handed_out
    waiting = attempts.filter(pc.and_(pc.is_null(attempts["start_ns"]), pc.is_valid(attempts["enqueue_ns"])))
    if not len(waiting):
        return analysis.Ahead(facts.floats(pa.chunked_array([[]], pa.float64())))
    last = pc.max(waiting["enqueue_ns"]).as_py()
    times = {"first": looked_at.first_ns, "last": last, "heard": max(now_ns, looked_at.last_ns), "bulk": bulk.id}
    others = store.query(sql.load("ending_ahead"), times)
    others = others.filter(pc.is_in(others["queue"], value_set=pc.unique(attempts["queue"])))
    # First come, first served: what was put before a job that has begun is not waiting any more, whatever became of it.
    begun = attempts.filter(pc.is_valid(attempts["start_ns"]))
    frontier = pc.max(begun["enqueue_ns"]).as_py()
    if frontier is not None:
        others = others.filter(pc.greater(others["ready_ns"], frontier))
    seconds = pc.divide(pc.cast(pc.subtract(others["ready_ns"], bulk.window[0]), pa.float64()), 1e9)
    return analysis.Ahead(facts.floats(seconds))
