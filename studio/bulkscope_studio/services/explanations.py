"""Why one bulk took as long as it did."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.explain import explain
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services.bulks import Own, own
from bulkscope_studio.services.times import AFTER_NS, SILENT_NS, heard, host_bin_ns
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
    if pc.any(pc.is_null(_handed_out(bulk)["end_ns"])).as_py():
        # What has not ended may wait for others, of which more was heard since than of the bulk.
        last = max(last, min(asked, bulk.window[1] + facts.HISTORY_NS))
    return Beside(bulk, asked, first, last)


def _handed_out(bulk: Own) -> pa.Table:
    """Return the bulk's attempts, without jobs that were called off before anybody began them: none of them waits."""
    a = bulk.attempts
    return a.filter(pc.or_(pc.is_valid(a["start_ns"]), pc.is_null(a["called_off"])))


def explanation_of(store: Store, looked_at: Beside, drops_known: bool = True) -> dict[str, Any]:
    """Return why a bulk took as long as it did; the store has what others did in that time too.

    ``drops_known``: the store holds what its senders counted as dropped.
    """
    return explain.to_json(explain.explain(facts_of(store, looked_at, drops_known)))


def facts_of(store: Store, looked_at: Beside, drops_known: bool = True) -> facts.Facts:
    """Return all that is known of a bulk and of what ran beside it."""
    bulk, window, asked = looked_at.bulk, looked_at.bulk.window, looked_at.asked_ns
    first_heard, last_heard = heard(store, asked)
    now = min(asked, max(last_heard or 0, window[1]))
    attempts, (sends,) = _handed_out(bulk), bulk.sends.to_pylist()
    begun = pc.and_(pc.is_valid(attempts["start_ns"]), pc.is_null(attempts["end_ns"]))
    mute: list[dict[str, Any]] = []
    if pc.any(begun).as_py():
        gone = store.query(sql.load("page_lost"), {**bulk.named, "silent_ns": now - SILENT_NS}).to_pylist()
        mute = [row for row in gone if not row["told"]]
    reader = facts.Reader(window[0])
    times = {"first": looked_at.first_ns, "last": looked_at.last_ns}

    def rows(name: str, **given: object) -> pa.Table:
        return store.query(sql.load(f"explain_{name}"), times | given)

    others = rows("others", bulk=bulk.id)
    beside = pc.and_(pc.is_null(others["end_ns"]), pc.less(others["seen_ns"], now - SILENT_NS))
    silent = {row["span_id"] for row in mute} | set(others.filter(beside)["span_id"].to_pylist())
    return facts.Facts(
        id=bulk.id,
        origin_ns=window[0],
        now=(now - window[0]) / 1e9,
        unheard=(asked - now) / 1e9,
        heard_first=((first_heard or window[0]) - window[0]) / 1e9,
        attempts=reader.attempts(attempts, others, silent, [row["span_id"] for row in mute if row["without_end"]]),
        inferences=reader.inferences(rows("inferences", **bulk.named)),
        requests=reader.requests(bulk.requests),
        workers=reader.workers(rows("workers", begin=window[0])),
        hosts=reader.hosts(rows("hosts", first=window[0], bin_ns=host_bin_ns(*window))),
        drops=_drops(rows("drops", first=window[0])) if drops_known else None,
        lost=tuple(mute),
        called_off=tuple(reason for reason in bulk.attempts["called_off"].to_pylist() if reason is not None),
        repeated=sum(bulk.attempts["repeated"].to_pylist()),
        not_sent=tuple(sends["reasons"] or ()),
        refused=sends["refused"],
        **reader.names(),
    )


def _drops(table: pa.Table) -> tuple[tuple[str, str, int], ...]:
    return tuple((row["signal"], row["reason"], row["records"]) for row in table.to_pylist())
