"""One side of a comparison: its jobs as columns of numbers, in the order in which they were put.

The tables have the columns of ``queries/report_attempts.sql``, ``report_inferences.sql`` and ``report_requests.sql``
and one more, ``bulk_id``. Absent is NaN, never 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bulkscope_studio.analysis.statistics import estimates, stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Elasticsearch keeps starts in milliseconds, so an inference may seem to begin this much after its attempt's end.
_CLOCK_NS = 1_000_000
_ATTEMPT = (
    "bulk_id", "job_id", "span_id", "attempt", "enqueue_ns", "start_ns", "end_ns", "retried", "ok", "worker",
    "host_name", "decides", "called_off", "repeated",
)  # fmt: skip
_INFERENCE = (
    "bulk_id", "job_id", "span_id", "model", "worker", "host_name", "seconds", "ok", "decode", "input_tokens",
    "output_tokens", "cached_tokens", "cpu_time", "memory_peak", "start_ns", "end_ns",
)  # fmt: skip
# Of ``queries/compare_history.sql``; a run that an older version kept has none, nor one of Elasticsearch.
_HISTORY = ("process", "ran_before", "ran_other")
# As many jobs at a side's ends, whose decode rates tell whether it drifted.
_ENDS = 1 / 3
_LEAST_AT_END = 5
_SURE = 0.995


class Tables(Protocol):
    """What a comparison reads of one or several bulks; its numbers are credible."""

    @property
    def attempts(self) -> pa.Table: ...
    @property
    def inferences(self) -> pa.Table: ...
    @property
    def requests(self) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a side ran on and how far it has come; shares 0..1, absent is None.

    ``sent`` and ``ended`` count jobs; ``cores`` are those that one worker may use, every value seen;
    ``throttled`` is the share of the inferences' time; ``makespan_s`` is first enqueue to last end. ``lacked``: of the
    time in which the inferences' threads could run, the share without a core; ``own_cores``: cores that they got on
    the mean while one was under way; ``drift``: decode tokens/s of the last third of the jobs over those of the first,
    where that is no chance.
    """

    bulks: tuple[str, ...]
    models: tuple[str, ...]
    sent: int
    ended: int
    failed: int
    workers: int
    hosts: tuple[str, ...]
    cores: tuple[float, ...]
    pressure: float | None
    throttled: float | None
    lacked: float | None
    own_cores: float | None
    drift: float | None
    cpu_exact: float | None
    memory_exact: float | None
    memory_peak_bytes: float | None
    start_ns: int | None
    end_ns: int | None
    makespan_s: float | None
    outside: int


@dataclass(frozen=True, slots=True)
class Side:
    """The jobs of one side, one element each, in the order of their enqueue; sums over a job's good inferences.

    ``seconds`` is inference time, ``process`` the time of the worker's attempt, ``prefilled`` the input tokens that
    did not come from a cache, ``memory`` the highest peak (bytes). ``final``: the job has ended for good, and
    ``ok`` says how. ``started`` is when it began (s since the Epoch), ``bulk`` the number of its bulk.

    ``process_code`` numbers the process of the job's last inference, ``age`` is how many inferences that had run before
    the job's first one, ``mixed`` whether one of these was of another model (1, 0); NaN where that is not known.
    """

    label: str
    facts: Setting
    seconds: Floats
    process: Floats
    input: Floats
    prefilled: Floats
    output: Floats
    decode: Floats
    cpu: Floats
    memory: Floats
    started: Floats
    bulk: Floats
    process_code: Floats
    age: Floats
    mixed: Floats
    final: Flags
    ok: Flags

    def __len__(self) -> int:
        return len(self.seconds)


def models(tables: Tables) -> list[str]:
    """Return the models of the inferences, sorted."""
    return sorted(set(tables.inferences["model"].to_pylist()) - {None})


def side(label: str, tables: Tables, model: str | None = None) -> Side:
    """Make a side of all jobs, or of those that ``model`` worked on.

    A job counts by the attempt that decides it (``storage/views.sql`` says which). Where nothing was queued, each
    inference counts as a job.
    """
    inferences = tables.inferences
    if model is not None:
        inferences = inferences.filter(
            pa.array([name == model for name in inferences["model"].to_pylist()], pa.bool_())
        )
    jobs = _jobs(tables.attempts)
    outside = _add(jobs, _rows(inferences, _INFERENCE, _HISTORY))
    if model is not None:
        _own(jobs, _rows(tables.inferences, _INFERENCE))
        jobs = {key: job for key, job in jobs.items() if job["tried"]}
    ordered = _in_order(jobs)
    bulks: dict[str, int] = {}
    processes: dict[str, int] = {}
    measured = [
        _measure(job) | {"bulk": float(bulks.setdefault(job["bulk_id"], len(bulks)))} | _history(job, processes)
        for job in ordered
    ]
    columns = {name: np.array([row[name] for row in measured], np.float64) for name in _NAMES}
    final = np.array([job["final"] for job in ordered], np.bool_)
    ok = np.array([job["final"] and job["ok"] for job in ordered], np.bool_)
    facts = _facts(tables, inferences, ordered, model, outside, _drift(columns, ok))
    return Side(label, facts, **columns, final=final, ok=ok)


_NAMES = (
    "seconds", "process", "input", "prefilled", "output", "decode", "cpu", "memory", "started", "bulk", "process_code",
    "age", "mixed",
)  # fmt: skip


def _rows(table: pa.Table, names: Iterable[str], perhaps: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows; of columns that there may ``perhaps`` be, None where there are none."""
    absent = [name for name in perhaps if name not in table.column_names]
    keys = [*names, *(name for name in perhaps if name not in absent)]
    nothing: dict[str, Any] = dict.fromkeys(absent)
    for values in zip(*(table[name].to_pylist() for name in keys), strict=True):
        yield nothing | dict(zip(keys, values, strict=True))


def _jobs(attempts: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the jobs by (bulk, job): the last attempt's columns, ``put`` and room for the inferences."""
    jobs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _rows(attempts, _ATTEMPT):
        if row["job_id"] is None:
            row["job_id"] = row["span_id"]  # without an id each attempt is a job
        key = row["bulk_id"], row["job_id"]
        known = jobs.get(key)
        put = row["enqueue_ns"] if row["enqueue_ns"] is not None else row["start_ns"]
        before = None if known is None else known["put"]
        if known is None or row["decides"]:
            jobs[key] = known = row | {"inferences": [], "tried": False}
        known["put"] = min((at for at in (before, put) if at is not None), default=None)
    for job in jobs.values():
        off = job["called_off"] is not None
        job["final"] = off or (job["end_ns"] is not None and not job["retried"])
        job["ok"] = job["ok"] and not off
    return jobs


def _add(jobs: dict[tuple[str, str], dict[str, Any]], inferences: Iterator[dict[str, Any]]) -> int:
    """Give the inferences to their jobs; return how many belong to none though there are jobs."""
    queued, outside = bool(jobs), 0
    for row in inferences:
        key = row["bulk_id"], row["job_id"]
        job = jobs.get(key) if row["job_id"] is not None else None
        if job is None and queued:
            outside += 1
            continue
        if job is None:
            jobs[row["bulk_id"], row["span_id"]] = {
                "bulk_id": row["bulk_id"], "job_id": row["span_id"], "put": row["start_ns"], "start_ns": None,
                "end_ns": None, "final": True, "ok": row["ok"], "tried": True, "inferences": [row],
                "worker": row["worker"], "host_name": row["host_name"],
            }  # fmt: skip
            continue
        job["tried"] = True
        if (
            job["start_ns"] is not None
            and job["start_ns"] <= row["start_ns"]
            and (job["end_ns"] is None or row["start_ns"] <= job["end_ns"] + _CLOCK_NS)
        ):
            job["inferences"].append(row)
    return outside


def _own(jobs: dict[tuple[str, str], dict[str, Any]], inferences: Iterator[dict[str, Any]]) -> None:
    """Where several models worked on one job, a model answers for its own inferences only."""
    used: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in inferences:
        used[row["bulk_id"], row["job_id"]].add(row["model"])
    for key, job in jobs.items():
        if len(used[key]) > 1 and job["inferences"]:
            job["ok"] = all(row["ok"] for row in job["inferences"])


def _in_order(jobs: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by bulk (the first one put first), enqueue, input tokens, id.

    Jobs put in the same millisecond look simultaneous to Elasticsearch; their tokens then tell which is which.
    """
    first: dict[str, int] = {}
    for job in jobs.values():
        first[job["bulk_id"]] = min(first.get(job["bulk_id"], 2**63), job["put"] or 0)

    def key(job: dict[str, Any]) -> tuple[int, str, int, float, str]:
        tokens = sum(row["input_tokens"] or 0 for row in job["inferences"])
        return first[job["bulk_id"]], job["bulk_id"], job["put"] or 0, tokens, job["job_id"]

    return sorted(jobs.values(), key=key)


def _measure(job: dict[str, Any]) -> dict[str, float]:
    good = [row for row in job["inferences"] if row["ok"]]

    def total(name: str) -> float:
        values = [row[name] for row in good]
        return math.fsum(values) if values and None not in values else math.nan

    prefilled = math.nan
    if good and all(row["input_tokens"] is not None for row in good):
        prefilled = float(sum(max(0, row["input_tokens"] - (row["cached_tokens"] or 0)) for row in good))
    ended = job["start_ns"] is not None and job["end_ns"] is not None
    return {
        "seconds": total("seconds"),
        "process": (job["end_ns"] - job["start_ns"]) / 1e9 if ended else math.nan,
        "input": total("input_tokens"),
        "prefilled": prefilled,
        "output": total("output_tokens"),
        "decode": total("decode"),
        "cpu": total("cpu_time"),
        "memory": max((float(row["memory_peak"]) for row in good if row["memory_peak"] is not None), default=math.nan),
        "started": min((row["start_ns"] for row in good), default=job["start_ns"] or math.nan) / 1e9,
    }


def _history(job: dict[str, Any], processes: dict[str, int]) -> dict[str, float]:
    """Return what is known of what the process of a job's inferences ran before; ``processes`` numbers them."""
    good = [row for row in job["inferences"] if row["ok"]]
    known = bool(good) and all(row["process"] is not None and row["ran_before"] is not None for row in good)
    if not known:
        return {"process_code": math.nan, "age": math.nan, "mixed": math.nan}
    return {
        "process_code": float(processes.setdefault(good[-1]["process"], len(processes))),
        "age": float(min(row["ran_before"] for row in good)),
        "mixed": float(any(row["ran_other"] for row in good)),
    }


def _drift(columns: dict[str, Floats], ok: Flags) -> float | None:
    """Return decode tokens/s of the jobs that began last over those of the first, where 99 % leave out "the same"."""
    steps = columns["output"] - 1
    use = ok & np.isfinite(columns["decode"]) & np.isfinite(columns["started"]) & (steps >= 1)
    use &= columns["decode"] > 0
    order = np.argsort(columns["started"][use], kind="stable")
    rates = np.log(steps[use] / columns["decode"][use])[order]
    count = int(len(rates) * _ENDS)
    if count < _LEAST_AT_END:
        return None
    first, last = rates[:count], rates[-count:]
    spread = math.sqrt((float(np.var(first, ddof=1)) + float(np.var(last, ddof=1))) / count)
    change = float(last.mean() - first.mean())
    return math.exp(change) if abs(change) > estimates.student(2 * count - 2, _SURE) * spread else None


def _facts(
    tables: Tables,
    inferences: pa.Table,
    ordered: list[dict[str, Any]],
    model: str | None,
    outside: int,
    drift: float | None,
) -> Setting:
    announced = sum(size or 0 for size in tables.requests["bulk_size"].to_pylist()) if model is None else 0
    announced -= sum(job.get("repeated") or 0 for job in ordered)
    puts = [job["put"] for job in ordered if job["put"] is not None]
    ends = [job["end_ns"] for job in ordered if job["end_ns"] is not None]
    ends += [row["end_ns"] for job in ordered for row in job["inferences"] if row["end_ns"] is not None]
    ran = [job for job in ordered if job["worker"] is not None and (job["start_ns"] is not None or job["inferences"])]
    seconds = stats.total(inferences["seconds"])
    bulks = dict.fromkeys(job["bulk_id"] for job in ordered)
    bulks |= dict.fromkeys(tables.requests["bulk_id"].to_pylist())
    return Setting(
        bulks=tuple(bulks),
        models=tuple(sorted(set(inferences["model"].to_pylist()) - {None})),
        sent=max(announced, len(ordered)),
        ended=sum(1 for job in ordered if job["final"]),
        failed=sum(1 for job in ordered if job["final"] and not job["ok"] and job.get("called_off") is None),
        workers=len({job["worker"] for job in ran}),
        hosts=tuple(sorted({job["host_name"] for job in ran if job["host_name"]})),
        cores=_cores(inferences),
        pressure=stats.mean(inferences["cpu_pressure"]),
        throttled=stats.ratio(stats.total(inferences["cpu_throttled"]), seconds),
        lacked=_lacked(inferences),
        own_cores=_own_cores(inferences),
        drift=drift,
        cpu_exact=stats.share(inferences["cpu_exact"]),
        memory_exact=stats.share(inferences["memory_exact"]),
        memory_peak_bytes=stats.highest(inferences["memory_peak"]),
        start_ns=min(puts, default=None),
        end_ns=max(ends, default=None),
        makespan_s=(max(ends) - min(puts)) / 1e9 if puts and ends else None,
        outside=outside,
    )


def _lacked(inferences: pa.Table) -> float | None:
    """Return the share of the threads' runnable time in which they had no core; None where that is not recorded."""
    if "cpu_wait" not in inferences.column_names:
        return None
    both = [
        (cpu, wait)
        for cpu, wait in zip(inferences["cpu_time"].to_pylist(), inferences["cpu_wait"].to_pylist(), strict=True)
        if cpu is not None and wait is not None
    ]
    cpu, wait = (math.fsum(values) for values in zip(*both, strict=True)) if both else (0.0, 0.0)
    return wait / (cpu + wait) if cpu + wait > 0 else None


def _own_cores(inferences: pa.Table) -> float | None:
    """Return the cores that the inferences used on the mean while one of them was under way."""
    columns = [inferences[name].to_pylist() for name in ("start_ns", "end_ns", "cpu_time")]
    rows = sorted(row for row in zip(*columns, strict=True) if None not in row)
    under_way, end = 0, 0
    for start, stop, _ in rows:
        under_way += max(0, stop - max(start, end))
        end = max(end, stop)
    return math.fsum(cpu for _, _, cpu in rows) / (under_way / 1e9) if under_way else None


def _cores(inferences: pa.Table) -> tuple[float, ...]:
    """Return the cores that a worker may use; where its resource does not tell, from CPU time and utilisation."""
    told = set(stats.present(inferences["cpus"]))
    if told:
        return tuple(sorted(told))
    columns = (inferences[name].to_pylist() for name in ("cpu_time", "cpu_utilization", "seconds"))
    found = Counter(
        round(cpu / (share * seconds))
        for cpu, share, seconds in zip(*columns, strict=True)
        if cpu is not None and share and seconds and seconds > 0.05  # shorter ones are too coarse to divide
    )
    return (float(found.most_common(1)[0][0]),) if found else ()
