"""The jobs of a bulk as a table: filtered, sorted, and set against what their tokens explain."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.replay.sizes import usual_seconds
from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services import bulks, explanations, times, waits
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.listing import order
from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store

STATUS = ("waiting", "running", "retrying", "done", "failed", "cancelled", "lost", "unknown")
SETTLED = ("done", "failed", "cancelled")
# A table of 100,000 jobs has 25 MB.
MOST_BYTES = 100 * 10**6
# A job is lost after 15 s of silence.
KEPT_S = 2.0
NUMBERS = (
    "attempt", "attempts", "enqueued_ns", "started_ns", "ended_ns", "wait_s", "scheduled_delay_s", "work_s",
    "expected_s", "excess_s", "inference_s", "ttft_s", "prefill_s", "decode_s", "input_tokens", "cached_tokens",
    "computed_tokens", "output_tokens", "cpu_s", "cpu_wait_s", "memory_peak_bytes",
)  # fmt: skip
TEXTS = ("id", "status", "model", "worker", "host", "queue", "failure_domain", "error_type", "trace_id", "span_id")
SORTS = (*NUMBERS, *TEXTS)
MOST_ROWS = 1000
_CONDITION = re.compile(r"\s*([a-z_]+)\s*(>=|<=|=|>|<)\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*")
_COMPARED = {">=": pc.greater_equal, "<=": pc.less_equal, "=": pc.equal, ">": pc.greater, "<": pc.less}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs, in which order; None is any. ``where`` are conditions such as ``work_s>10``; ``from_ns`` and
    ``to_ns`` choose those of which the deciding attempt was at work at some moment between the two."""

    search: str | None = None
    status: str | None = None
    model: str | None = None
    worker: str | None = None
    host: str | None = None
    failure_domain: str | None = None
    error_type: str | None = None
    where: Sequence[str] = ()
    sort: str = "enqueued_ns"
    from_ns: int | None = None
    to_ns: int | None = None


class Tables:
    """Tables of jobs, each made once for what is stored of its bulk. Safe from any thread.

    A page of a bulk of 100,000 jobs took 0.57 s of CPU, of which all but 0.07 made the table anew.
    """

    def __init__(self, store: Store, most_bytes: int = MOST_BYTES) -> None:
        self.store, self._most_bytes = store, most_bytes
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[tuple[object, ...], pa.Table]] = OrderedDict()

    def of(self, bulk_id: str) -> pa.Table:
        """Return ``table`` of a bulk, for ``KEPT_S`` also where the time alone changes it; raises ``NotFound``."""
        if bulk_id == "latest":
            bulk_id = bulks.latest(self.store)
        stored = summaries.extent(self.store, bulk_id)
        moment = int(time.monotonic() / KEPT_S)
        with self._lock:
            known = self._known.get(bulk_id)
            if known is not None and known[0] in ((stored,), (stored, moment)):
                self._known.move_to_end(bulk_id)
                return known[1]
        found = table(self.store, bulk_id)
        # Of what has ended only new records can tell otherwise.
        settled = pc.all(pc.is_in(found["status"], pa.array(SETTLED))).as_py()
        with self._lock:
            self._known[bulk_id] = (stored,) if settled else (stored, moment), found
            self._known.move_to_end(bulk_id)
            while sum(kept.nbytes for _, kept in self._known.values()) > self._most_bytes:
                self._known.popitem(last=False)
        return found


def table(store: Store, bulk_id: str, now_ns: int | None = None) -> pa.Table:
    """Return all jobs of a bulk (``latest``: the newest with jobs), in the order of their enqueue.

    ``expected_s`` is what a job of its model and tokens usually takes in this bulk, ``excess_s`` what it took beyond.
    Raises ``NotFound``.
    """
    if bulk_id == "latest":
        bulk_id = bulks.latest(store)
    known = summaries.extent(store, bulk_id)
    if known is None:
        raise bulks.not_found(store, bulk_id)
    named = {"bulk": bulk_id, **known.bounds}
    found = store.query(sql.load("v1_jobs"), named)
    found = _silent(store, found, named, times.present(store, now_ns, known.last_ns))
    expected = _expected(found)
    work = facts.floats(found["work_s"])
    at = found.column_names.index("work_s") + 1
    for name, values in (("excess_s", work - expected), ("expected_s", expected)):
        found = found.add_column(at, name, pa.array(values, pa.float64(), from_pandas=True))
    return found


def _silent(store: Store, jobs: pa.Table, named: dict[str, Any], now_ns: int) -> pa.Table:
    """Say of jobs that run and of which nothing is heard that they are lost, or that their end is unknown."""
    if not pc.any(pc.equal(jobs["status"], "running")).as_py():
        return jobs
    gone = store.query(sql.load("lost"), {**named, "silent_ns": now_ns - times.SILENT_NS}).to_pylist()
    state = {
        (row["trace_id"], row["span_id"]): "unknown" if row["without_end"] else "lost"
        for row in gone
        if not row["told"]
    }
    columns = (jobs[name].to_pylist() for name in ("trace_id", "span_id", "status"))
    statuses = [
        state.get((trace, span), status) if status == "running" else status
        for trace, span, status in zip(*columns, strict=True)
    ]
    return jobs.set_column(jobs.column_names.index("status"), "status", pa.array(statuses, pa.string()))


def _expected(jobs: pa.Table) -> facts.Floats:
    """Return the usual seconds of each job (jobs,), by model; NaN of jobs that have not ended."""
    work = facts.floats(jobs["work_s"])
    found = np.full(len(work), np.nan)
    models = np.array([name or "" for name in jobs["model"].to_pylist()], object)
    given, output = facts.floats(jobs["computed_tokens"]), facts.floats(jobs["output_tokens"])
    done = np.isfinite(work) & (work > 0) & pc.equal(jobs["status"], "done").to_numpy(zero_copy_only=False)
    for model in sorted(set(models[done])):
        rows = np.flatnonzero(done & (models == model))
        told = rows[np.isfinite(given[rows]) & np.isfinite(output[rows])]
        rows = told if len(told) else rows
        found[rows] = usual_seconds(work[rows], given[rows], output[rows], np.ones(len(rows), np.bool_))
    return found


def chosen(jobs: pa.Table, wanted: Wanted) -> pa.Table:
    """Return the jobs that are wanted, in order; absent numbers come last. Raises ``InvalidQuery``."""
    if wanted.status is not None and wanted.status not in STATUS:
        raise InvalidQuery(f"no status {wanted.status!r}; one of {', '.join(STATUS)}")
    for name in ("status", "model", "worker", "host", "failure_domain", "error_type"):
        value = getattr(wanted, name)
        if value is not None:
            jobs = jobs.filter(pc.equal(jobs[name], value))
    if wanted.search:
        jobs = jobs.filter(pc.match_substring(jobs["id"], wanted.search, ignore_case=True))
    for condition in wanted.where:
        part = _CONDITION.fullmatch(condition)
        if part is None or part[1] not in NUMBERS:
            raise InvalidQuery(
                f"cannot read the condition {condition!r}; write for example work_s>10, of {', '.join(NUMBERS)}"
            )
        jobs = jobs.filter(_COMPARED[part[2]](jobs[part[1]], float(part[3])))
    if wanted.from_ns is not None:  # what has not ended is at work still
        begun = pc.is_valid(jobs["started_ns"])
        going = pc.fill_null(pc.greater_equal(jobs["ended_ns"], wanted.from_ns), True)
        jobs = jobs.filter(pc.and_(begun, going))
    if wanted.to_ns is not None:
        jobs = jobs.filter(pc.less_equal(jobs["started_ns"], wanted.to_ns))
    name, highest_first = order(wanted.sort, SORTS)
    turned = "descending" if highest_first else "ascending"
    return jobs.take(
        pc.sort_indices(jobs, sort_keys=[(name, turned), ("enqueued_ns", "ascending"), ("id", "ascending")])
    )


def page(tables: Tables, bulk_id: str, wanted: Wanted, limit: int, offset: int) -> dict[str, Any]:
    """Return some jobs of a bulk, and how many are wanted."""
    if not 1 <= limit <= MOST_ROWS or offset < 0:
        raise InvalidQuery(
            f"limit is from 1 to {MOST_ROWS}, and offset from 0; all jobs come as csv, parquet, arrow or jsonl"
        )
    found = chosen(tables.of(bulk_id), wanted)
    return {"total": len(found), "jobs": found.slice(offset, limit).to_pylist()}


def one(tables: Tables, bulk_id: str, job: str) -> dict[str, Any]:
    """Return one job: its row, all its attempts, what its waits were for, its inferences."""
    store, rows = tables.store, tables.of(bulk_id)
    found = rows.filter(pc.equal(rows["id"], job)).to_pylist()
    if not found:
        raise NotFound(job, bulks.nearest(job, rows["id"].to_pylist()), "job")
    beside = explanations.beside(store, bulk_id)
    own = beside.bulk
    tries = own.attempts.filter(pc.equal(pc.coalesce(own.attempts["job_id"], own.attempts["span_id"]), job)).to_pylist()
    renamed = [
        {
            "attempt": row["attempt"], "enqueued_ns": row["enqueue_ns"], "started_ns": row["start_ns"],
            "ended_ns": row["end_ns"], "wait_s": row["wait"], "scheduled_delay_s": row["delay"],
            "work_s": None if None in (row["start_ns"], row["end_ns"]) else (row["end_ns"] - row["start_ns"]) / 1e9,
            "retried": row["retried"], "done": row["ok"], "decides": row["decides"], "worker": row["worker"],
            "host": row["host_name"], "failure_domain": row["failure_domain"], "error_type": row["error_type"],
            "trace_id": row["trace_id"], "span_id": row["span_id"],
        }
        for row in tries
    ]  # fmt: skip
    causes = waits.of_job(store, beside, job)
    for row in renamed:
        row["wait_by_cause_s"] = causes.get(row["span_id"])
    inferences = store.query(sql.load("v1_job_inferences"), {**own.named, "job": job}).to_pylist()
    return {"bulk": own.id, "job": found[0], "attempts": renamed, "inferences": inferences}
