"""What a system sustains: reads what ``analysis.capacity`` needs from a store."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.capacity import capacity as analysis
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services import bulks
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.times import AFTER_NS, SILENT_NS, heard, host_bin_ns
from bulkscope_studio.storage import sql, summaries, views
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import parse

LAST = "1h"
QUANTILE = 0.95
MOST_WORKERS = 1000
Window = tuple[int, int]
# Windows further apart than this are read one by one: within an hour of one its attempts' ends are looked for anyway.
_APART_NS = 2 * 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Question:
    """What the capacity is asked of (``bulks``, or the ``last`` time as in ``30m``) and for, as a user writes it.

    ``rate`` in jobs/s, ``slo`` a time such as ``30s``, ``quantile`` of the jobs between 0 and 1. None is the default.
    """

    bulks: Sequence[str] = ()
    last: str | None = None
    rate: float | None = None
    slo: str | None = None
    quantile: float | None = None
    model: str | None = None
    workers: int | None = None


def asked(question: Question) -> analysis.Asked:
    """Return what to predict; raises ``InvalidQuery`` for what means nothing."""
    rate, workers = question.rate, question.workers
    quantile = QUANTILE if question.quantile is None else question.quantile
    if question.bulks and question.last is not None:
        raise InvalidQuery("give bulks or a time, not both")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InvalidQuery(f"the arrival rate must be jobs per second above 0, such as 1.5, not {rate}")
    if not 0 < quantile < 1:
        raise InvalidQuery(f"the quantile must be between 0 and 1, such as {QUANTILE}, not {quantile}")
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise InvalidQuery(f"the number of workers must be from 1 to {MOST_WORKERS}, not {workers}")
    return analysis.Asked(
        rate, None if question.slo is None else seconds(question.slo), quantile, question.model, workers
    )  # fmt: skip


def seconds(text: str) -> float:
    """Read a time as in ``--retention``: ``30s``, ``5m``, ``1h``, ``7d``; raises ``InvalidQuery`` for anything else."""
    try:
        return parse.duration(text)
    except ValueError as error:
        raise InvalidQuery(str(error)) from error


def system_capacity(store: Store, question: Question = Question()) -> dict[str, Any]:
    """Return what the system sustained while bulks had jobs, else in the last time of what was recorded.

    Raises ``NotFound`` for a bulk that is not there, ``InvalidQuery`` where there is nothing to answer from.
    """
    asked(question)  # what means nothing is said before anything is read
    named = [bulks.latest(store) if bulk == "latest" else bulk for bulk in question.bulks]
    question = replace(question, bulks=named)
    return capacity_of(store, windows(store, question), question)


def capacity_curve(store: Store, question: Question, queue: str | None = None) -> dict[str, Any]:
    """Return waits over the arrival rate, with as many slots as there are, one less, one more, and ``workers``.

    ``slo`` is the p95 of the wait that is to be kept. Of the workers of ``queue``, else of those with most jobs; raises
    as ``system_capacity``.
    """
    if question.quantile is not None:
        raise InvalidQuery("the curve is of the p95 of the queue wait: leave the quantile out")
    wanted = asked(question)
    named = [bulks.latest(store) if bulk == "latest" else bulk for bulk in question.bulks]
    question = replace(question, bulks=named)
    looked_at = windows(store, question)
    try:
        found = analysis.curves(_seen(store, looked_at, question.bulks), wanted, queue)
    except (analysis.UnknownModel, analysis.UnknownQueue) as unknown:
        raise InvalidQuery(str(unknown)) from unknown
    if found is None:
        raise InvalidQuery("no job ended in that time with a number of slots that was kept; ask for a longer time")
    return analysis.curves_json(found, looked_at[0][0])


def windows(store: Store, question: Question) -> list[Window]:
    """Return the times that are looked at, in ns, the earliest first; raises as ``system_capacity``."""
    if question.bulks:
        return _of_bulks(store, question.bulks)
    return _of_time(store, LAST if question.last is None else question.last)


def capacity_of(store: Store, looked_at: Sequence[Window], question: Question) -> dict[str, Any]:
    """Return what the system sustained in these times; the store has what others did in them too."""
    try:
        found = analysis.capacity(_seen(store, looked_at, question.bulks), asked(question))
    except analysis.UnknownModel as unknown:
        raise InvalidQuery(str(unknown)) from unknown
    return analysis.to_json(found, looked_at[0][0])


def _of_bulks(store: Store, named: Sequence[str]) -> list[Window]:
    known = [extent for bulk in named if (extent := summaries.extent(store, bulk)) is not None]
    bounds = summaries.Extent.around(known).bounds if known else summaries.EVER
    rows = store.query(sql.load("capacity_windows"), {"bulks": list(named), **bounds}).to_pylist()
    there = {row["bulk"] for row in rows}
    for name in named:
        if name not in there:
            raise bulks.not_found(store, name)
    # Bulks that ran at the same time are one window: what arrived in both counts once.
    found: list[Window] = []
    for row in rows:
        if found and row["first_ns"] <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], row["last_ns"]))
        else:
            found.append((row["first_ns"], row["last_ns"]))
    return found


def _of_time(store: Store, last: str) -> list[Window]:
    _, newest = heard(store, time.time_ns())
    if newest is None:
        raise InvalidQuery("the store is empty: run a service with 'bulkscope run <command>' and send it a bulk")
    return [(newest - round(seconds(last) * 1e9), newest)]


def _seen(store: Store, looked_at: Sequence[Window], named: Sequence[str]) -> analysis.Seen:
    first, last = looked_at[0][0], max(window[1] for window in looked_at)
    apart = _apart(looked_at)
    attempts = views.together([store.query(sql.load("capacity_attempts"), _lists(near)) for near in apart])
    if not pc.any(pc.is_valid(attempts["end_ns"])).as_py():
        newest = summaries.newest_done(store)
        hint = "send a bulk first" if newest is None else f"the newest bulk with jobs is {newest!r}"
        raise InvalidQuery(f"no job ended in that time; {hint}")
    silent_ns = last - SILENT_NS
    open_ = pc.and_(pc.is_valid(attempts["start_ns"]), pc.is_null(attempts["end_ns"]))
    silent = attempts.filter(pc.and_(open_, pc.less(attempts["seen_ns"], silent_ns)))["span_id"].to_pylist()
    reader = facts.Reader(first)
    empty = attempts.slice(0, 0)

    def hosts(near: Sequence[Window]) -> pa.Table:
        begin, end = near[0][0], max(window[1] for window in near)
        named = {"first": begin, "last": end + AFTER_NS, "bin_ns": host_bin_ns(begin, end)}
        return store.query(sql.load("explain_hosts"), named)

    queue, queue_names = _codes(attempts["queue"], None)
    bulk, bulk_names = _codes(attempts["bulk_id"], list(dict.fromkeys(named)))
    found = facts.Facts(
        id="",
        origin_ns=first,
        now=(last - first) / 1e9,
        heard_first=0.0,
        unheard=0.0,
        attempts=reader.attempts(attempts, empty, set(silent)),
        inferences=reader.inferences(
            _joined([store.query(sql.load("capacity_inferences"), _lists(near)) for near in apart])
        ),
        requests=reader.requests(store.query(sql.load("report_requests"), {"bulk": "", **summaries.EVER})),
        workers=reader.workers(store.query(sql.load("capacity_workers"), _lists(looked_at))),
        hosts=reader.hosts(_joined([hosts(near) for near in apart])),
        drops=None,
        lost=(),
        unbegun=facts.Unbegun(),
        sampled=None,
        **reader.names(),
    )
    return analysis.Seen(
        found, queue, queue_names, bulk, bulk_names,
        tuple(((begin - first) / 1e9, (end - first) / 1e9) for begin, end in looked_at),
    )  # fmt: skip


def _lists(looked_at: Sequence[Window]) -> dict[str, list[int]]:
    return {"firsts": [window[0] for window in looked_at], "lasts": [window[1] for window in looked_at]}


def _apart(looked_at: Sequence[Window]) -> list[list[Window]]:
    """Return the windows, earliest first, in groups that are read at once: of what is between two groups nothing is."""
    found = [[looked_at[0]]]
    for window in looked_at[1:]:
        if window[0] - max(end for _, end in found[-1]) > _APART_NS:
            found.append([])
        found[-1].append(window)
    return found


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="permissive")


def _codes(column: pa.ChunkedArray, names: list[str] | None) -> tuple[facts.Codes, tuple[str, ...]]:
    """Number the names of a column; of ``names`` alone where they are given."""
    known = pc.drop_null(pc.unique(column)) if names is None else pa.array(names, pa.string())
    index = pc.fill_null(pc.index_in(pc.cast(column, pa.string()), value_set=known, skip_nulls=True), -1)
    return index.to_numpy().astype(np.int64), tuple(known.to_pylist())


def bulk_progress(store: Store, bulk: str) -> dict[str, Any]:
    """Return how many jobs of a bulk were ``sent`` and have ``ended``, as in the list of bulks: made to be polled."""
    found: list[dict[str, Any]] = summaries.query(store, sql.load("capacity_progress"), {"bulk": bulk}).to_pylist()
    return found[0] if found else {"sent": 0, "ended": 0}
