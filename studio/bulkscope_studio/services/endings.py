"""When a running bulk will end."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
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

# Of a list so many bulks are asked when they end, the newest of which something was heard lately: 100,000 jobs of one
# cost 0.7 CPU-s, and each that never ended took 25 ms, 0.9 s in a list of 35.
MOST_RUNNING, MOST_UNFINISHED = 5, 50
RESTS = 20
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


def list_bulks(store: Store, ends: Ends | None = None) -> list[dict[str, Any]]:
    """Return every bulk, newest first; ``ending`` says of a running one when it ends: ``left_s`` and ``end_ns``."""
    rows = bulks.list_bulks(store)
    known = (ends or Ends(store)).of_running(rows)
    return [row | {"ending": short(known.get(row["id"]))} for row in rows]


def short(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a list says of an end; None where none is known."""
    return None if found is None or found["left_s"] is None else {name: found[name] for name in ("left_s", "end_ns")}


class Ends:
    """The ends of bulks, each kept for ``RESTS`` times as long as it took to find. Safe from any thread.

    So pages and lists that ask again and again take a twentieth of a core for one at most, however large it is.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    def of(self, bulk_id: str, now_ns: int | None = None) -> dict[str, Any]:
        """Return as ``bulk_ending``; what it said a moment ago, perhaps, where no other moment is asked for."""
        if now_ns is not None:
            return bulk_ending(self._store, bulk_id, now_ns)
        began = self._clock()
        with self._lock:
            until, found = self._kept.get(bulk_id, (-math.inf, {}))
        if began < until:
            return found
        found = bulk_ending(self._store, bulk_id)
        ended = self._clock()
        with self._lock:
            self._kept[bulk_id] = ended + RESTS * (ended - began), found
            self._kept.move_to_end(bulk_id)
            while len(self._kept) > 4 * MOST_RUNNING:
                self._kept.popitem(last=False)
        return found

    def forget(self, bulk_id: str) -> None:
        """Keep nothing of a bulk any longer, which has been deleted."""
        with self._lock:
            self._kept.pop(bulk_id, None)

    def of_running(self, rows: Iterable[Mapping[str, Any]], now_ns: int | None = None) -> dict[str, dict[str, Any]]:
        """Return by id when those of a list of bulks, newest first, that run will end.

        Rows have ``id``, ``sent`` (those that the request announced included), ``done``, ``failed``, ``cancelled``.
        Of the unfinished the newest few are looked at.
        """
        asked_ns = time.time_ns() if now_ns is None else now_ns
        unfinished = (
            row["id"] for row in rows if row["sent"] and row["done"] + row["failed"] + row["cancelled"] < row["sent"]
        )
        heard = (
            bulk
            for bulk in itertools.islice(unfinished, MOST_UNFINISHED)
            if (known := summaries.extent(self._store, bulk)) is not None and known.last_ns >= asked_ns - _LATELY_NS
        )
        found = {}
        for bulk in itertools.islice(heard, MOST_RUNNING):
            with contextlib.suppress(NotFound):  # deleted meanwhile
                ending = self.of(bulk, now_ns)
                if ending["state"] == "running":
                    found[bulk] = ending
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
    return analysis.Ahead(facts.seconds_since(others["ready_ns"], bulk.window[0]))
