"""Why one bulk took as long as it did."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.explain import explain
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services.bulks import Own, own
from bulkscope_studio.services.times import AFTER_NS, SILENT_NS, heard, host_bin_ns, present
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store


@dataclass(frozen=True, slots=True)
class Beside:
    """A bulk, when it was asked about, and the time in which what others did counts for it, in ns."""

    bulk: Own
    asked_ns: int
    first_ns: int
    last_ns: int


def bulk_explanation(store: Store, bulk_id: str, now_ns: int | None = None, drops_known: bool = True) -> dict[str, Any]:
    """Return why a bulk (``latest``: the newest with jobs) took as long as it did; raises ``NotFound``."""
    return explanation_of(store, beside(store, bulk_id, now_ns), drops_known)


def beside(store: Store, bulk_id: str, now_ns: int | None = None) -> Beside:
    """Return which time is looked at for a bulk; raises ``NotFound``."""
    bulk = own(store, bulk_id)
    asked = time.time_ns() if now_ns is None else now_ns
    first, last = bulk.window[0] - facts.HISTORY_NS, bulk.window[1] + AFTER_NS
    if pc.any(pc.is_null(bulk.handed_out["end_ns"])).as_py():
        # What has not ended may wait for others, of which more was heard since than of the bulk.
        last = max(last, min(asked, bulk.window[1] + facts.HISTORY_NS))
    return Beside(bulk, asked, first, last)


def explanation_of(store: Store, looked_at: Beside, drops_known: bool = True) -> dict[str, Any]:
    """Return why a bulk took as long as it did; the store has what others did in that time too.

    ``drops_known``: the store holds what its senders counted as dropped.
    """
    return explain.to_json(explain.explain(facts_of(store, looked_at, drops_known)))


def facts_of(store: Store, looked_at: Beside, drops_known: bool = True) -> facts.Facts:
    """Return all that is known of a bulk and of what ran beside it."""
    bulk, window = looked_at.bulk, looked_at.bulk.window
    now, first_heard, reader, attempts, mute = attempts_of(store, looked_at)
    times = {"first": looked_at.first_ns, "last": looked_at.last_ns}

    def rows(name: str, **given: object) -> pa.Table:
        return store.query(sql.load(f"explain_{name}"), times | given)

    return facts.Facts(
        id=bulk.id,
        origin_ns=window[0],
        now=(now - window[0]) / 1e9,
        unheard=(looked_at.asked_ns - now) / 1e9,
        heard_first=(first_heard - window[0]) / 1e9,
        attempts=attempts,
        inferences=reader.inferences(rows("inferences", **bulk.named)),
        requests=reader.requests(bulk.requests),
        workers=reader.workers(rows("workers", begin=window[0])),
        hosts=reader.hosts(rows("hosts", first=window[0], bin_ns=host_bin_ns(*window))),
        drops=_drops(rows("drops", first=window[0])) if drops_known else None,
        lost=tuple(mute),
        unbegun=bulk.unbegun,
        sampled=bulk.sampled,
        **reader.names(),
    )


class Begun(NamedTuple):
    """What was done for a bulk and beside it by ``now_ns``; ``reader`` reads what else is of that time."""

    now_ns: int
    heard_first_ns: int
    reader: facts.Reader
    attempts: facts.Attempts
    mute: list[dict[str, Any]]


def attempts_of(store: Store, looked_at: Beside) -> Begun:
    """Return the attempts of a bulk and of others beside it; ``mute`` are rows of ``lost.sql`` of silent ones."""
    bulk, asked = looked_at.bulk, looked_at.asked_ns
    first_heard, _ = heard(store, asked)
    now = present(store, asked, bulk.window[1])
    own = bulk.handed_out
    begun = pc.and_(pc.is_valid(own["start_ns"]), pc.is_null(own["end_ns"]))
    mute: list[dict[str, Any]] = []
    if pc.any(begun).as_py():
        gone = store.query(sql.load("lost"), {**bulk.named, "silent_ns": now - SILENT_NS}).to_pylist()
        mute = [row for row in gone if not row["told"]]
    reader = facts.Reader(bulk.window[0])
    times = {"first": looked_at.first_ns, "last": looked_at.last_ns, "bulk": bulk.id}
    others = store.query(sql.load("explain_others"), times)
    quiet = pc.and_(pc.is_null(others["end_ns"]), pc.less(others["seen_ns"], now - SILENT_NS))
    silent = {row["span_id"] for row in mute} | set(others.filter(quiet)["span_id"].to_pylist())
    without_end = [row["span_id"] for row in mute if row["without_end"]]
    attempts = reader.attempts(own, others, silent, without_end)
    return Begun(now, first_heard or bulk.window[0], reader, attempts, mute)


def _drops(table: pa.Table) -> tuple[tuple[str, str, int], ...]:
    return tuple((row["signal"], row["reason"], row["records"]) for row in table.to_pylist())
