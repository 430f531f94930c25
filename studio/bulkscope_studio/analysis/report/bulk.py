"""From the attempts, inferences and requests of one bulk to its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bulkscope_studio.analysis.report import figures
from bulkscope_studio.analysis.report.model import BulkReport, Group, Host, Jobs, Lost, Progress
from bulkscope_studio.analysis.statistics import stats
from bulkscope_studio.analysis.statistics.queueing import Little, little, put_at_once
from bulkscope_studio.analysis.timeline.timeline import there_at_once
from bulkscope_studio.text import wording

Row = Mapping[str, Any]


def analyse(
    bulk_id: str,
    jobs: pa.Table,
    inferences: pa.Table,
    requests: pa.Table,
    hosts: pa.Table,
    lost: pa.Table,
    sends: pa.Table,
    related: pa.Table,
    sampled: str | None = None,
) -> BulkReport:
    """Compute the report; tables have the columns of ``queries/report_*.sql``.

    ``sampled`` says that a sampler left jobs out: then what is recorded is no whole bulk, and nothing is missing.
    """
    gone = [row for row in lost.to_pylist() if not row["without_end"]]
    silent, mute = ({row["span_id"] for row in some} for some in (gone, lost.to_pylist()))
    rows: list[Row] = [
        row | {"lost": row["span_id"] in silent, "mute": row["span_id"] in mute} for row in jobs.to_pylist()
    ]
    last = [row for row in rows if row["decides"]]
    (sent,) = sends.to_pylist()
    progress = _progress(last, requests.to_pylist(), sent)
    complete = progress.complete
    asked = [*requests.to_pylist(), sent]
    starts = [row["start_ns"] for row in asked] + [row["enqueue_ns"] for row in rows]
    ends = [row["end_ns"] for row in rows] + [row["end_ns"] for row in asked]
    off = [row["called_off"] for row in last if row["called_off"] is not None]
    unsent = sent["reasons"] or []
    model_of = dict(zip(inferences["job_id"].to_pylist(), inferences["model"].to_pylist(), strict=True))
    model_of.pop(None, None)
    models = sorted({model for model in inferences["model"].to_pylist() if model is not None})
    workers = sorted({row["worker"] for row in rows if row["worker"] is not None})
    complete = complete and sampled is None
    checked = _little(rows) if complete else None
    notes = _notes(progress, complete, checked, off, unsent)
    if sampled is not None:
        notes = (f"{sampled}; counts and rates are too low",)
    elif not progress.sent and not complete:
        notes = (_no_jobs(inferences, requests), *notes)
    return BulkReport(
        id=bulk_id,
        start_ns=min((at for at in starts if at is not None), default=None),
        end_ns=max((at for at in ends if at is not None), default=None),
        complete=complete,
        part_of=tuple(row["bulk"] for row in related.to_pylist() if row["relation"] == "parent"),
        nested=tuple(row["bulk"] for row in related.to_pylist() if row["relation"] == "nested"),
        requests=figures.requests(requests),
        progress=progress,
        cancelled=_counts(off),
        not_sent=_counts(unsent),
        total=Group("total", _jobs(rows, last), figures.inferences(inferences)),
        models=_groups(models, rows, last, inferences, "model", lambda row: model_of.get(row["job_id"])),
        workers=_groups(workers, rows, last, inferences, "worker", lambda row: row["worker"]),
        hosts=_hosts(hosts.to_pylist()),
        lost=tuple(
            Lost(
                *(row[name] for name in ("job_id", "attempt", "worker", "model", "elapsed", "memory", "domain")),
                *(row[name] for name in ("memory_limit", "likely", "model_likely")),
            )
            for row in gone
        ),
        little=checked,
        sampled=sampled,
        notes=notes,
    )


def by_host(jobs: pa.Table, inferences: pa.Table) -> tuple[Group, ...]:
    """Return the numbers of each host, of the same tables; what ran on no known host is in none."""
    rows = jobs.to_pylist()
    last = [row for row in rows if row["decides"]]
    hosts = sorted({row["host_name"] for row in rows if row["host_name"] is not None})
    return _groups(hosts, rows, last, inferences, "host_name", lambda row: row["host_name"])


def _progress(last: list[Row], requests: list[Row], sends: Row) -> Progress:
    states: Counter[str] = Counter()
    for row in last:
        if row["called_off"] is not None:
            states["cancelled"] += 1
        elif row["end_ns"] is not None:
            states["retrying" if row["retried"] else "done" if row["ok"] else "failed"] += 1
        elif row["start_ns"] is not None:
            states["lost" if row["lost"] else "unknown" if row["mute"] else "running"] += 1
        else:
            states["waiting"] += 1
    # The request knows how many it sent even when a PRODUCER span was lost.
    repeated = sum(row["repeated"] for row in last)
    announced = sum(row["bulk_size"] or 0 for row in requests) - repeated
    missing = max(0, announced - len(last))
    return Progress(
        sent=max(announced, len(last)), done=states["done"], failed=states["failed"], cancelled=states["cancelled"],
        running=states["running"], retrying=states["retrying"], waiting=states["waiting"],
        lost=states["lost"], unknown=missing + states["unknown"], not_sent=sends["not_sent"],
        duplicate=repeated + sends["refused"],
    )  # fmt: skip


def _groups(
    names: list[str],
    rows: list[Row],
    last: list[Row],
    table: pa.Table,
    column: str,
    belongs: Callable[[Row], object],
) -> tuple[Group, ...]:
    mine: dict[object, list[Row]] = {name: [] for name in names}
    for row in rows:
        mine.get(belongs(row), []).append(row)
    decided: dict[object, list[Row]] = {name: [] for name in names}
    for row in last:
        decided.get(belongs(row), []).append(row)
    # Rows of the table by name, in their order: to look through the table for each of 10,000 workers takes minutes.
    of: dict[object, list[int]] = {name: [] for name in names}
    for number, value in enumerate(table[column].to_pylist()):
        of.get(value, []).append(number)
    table = table.combine_chunks()
    return tuple(
        Group(name, _jobs(mine[name], decided[name]), figures.inferences(table.take(pa.array(of[name], pa.int64()))))
        for name in names
    )


def _jobs(rows: list[Row], last: list[Row]) -> Jobs:
    ended = [row for row in rows if row["end_ns"] is not None]
    final = [row for row in last if row["end_ns"] is not None and not row["retried"]]
    failed = [row for row in final if not row["ok"]]
    waits = [row["wait"] for row in ended if row["wait"] is not None]
    process = stats.distribution((row["end_ns"] - row["start_ns"]) / 1e9 for row in ended)
    put = [row["enqueue_ns"] for row in ended if row["enqueue_ns"] is not None]
    makespan = (max(row["end_ns"] for row in ended) - min(put)) / 1e9 if put else None
    workers = len({row["worker"] for row in ended if row["worker"] is not None})
    places = _places(ended)
    latencies = [(row["wait"], total) for row in ended if (total := _latency(row)) is not None and total > 0]
    return Jobs(
        attempts=len(ended),
        done=len(final) - len(failed),
        failed=len(failed),
        retries=sum(1 for row in ended if row["retried"]),
        # What was done: a job that failed has sustained nothing, and one without an inference is no model's.
        rate_per_s=stats.ratio(len(final) - len(failed), makespan),
        failures_by_domain=_counts(row["failure_domain"] or "unknown" for row in failed),
        errors=_counts(row["error_type"] for row in ended if row["error_type"] is not None),
        wait_s=stats.distribution(wait for wait in waits if wait >= 0),
        negative_waits=sum(1 for wait in waits if wait < 0),
        process_s=process,
        total_s=stats.distribution(total for _, total in latencies),
        delay_s=stats.total(row["delay"] for row in ended),
        import_s=stats.distribution(row["import_time"] for row in ended if row["import_time"] is not None),
        wait_ratio=stats.distribution(wait / total for wait, total in latencies if wait >= 0),
        makespan_s=makespan,
        workers=workers,
        places=places,
        expected=put_at_once(len(ended), places, process.mean if process else None),
    )


def _places(ended: list[Row]) -> int:
    """Return the concurrency slots that were there; an attempt of which no worker is known is no slot."""
    named = [row for row in ended if row["worker"] is not None]
    if not named:
        return 0
    codes = {name: number for number, name in enumerate(dict.fromkeys(row["worker"] for row in named))}
    # As integers first: a double holds the nanoseconds of today only to 256.
    origin = min(row["start_ns"] for row in named)
    start, end = (np.array([(row[at] - origin) / 1e9 for row in named], np.float64) for at in ("start_ns", "end_ns"))
    return there_at_once(np.array([codes[row["worker"]] for row in named], np.int64), start, np.maximum(start, end))


def _latency(row: Row) -> float | None:
    """Seconds from the enqueue of an attempt to its end, by what its worker measured: wait, delay and work.

    Not from the span of its send, which begins some ms before the message is stamped: the worker's own
    ``bulk.job.wait_ratio``, which Kibana and Prometheus read, is of these.
    """
    if row["wait"] is None:
        return None
    return float(row["wait"] + (row["delay"] or 0.0) + (row["end_ns"] - row["start_ns"]) / 1e9)


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _little(rows: list[Row]) -> Little | None:
    """Little's law over all attempts; each is in the system from its enqueue to its end."""
    known = [row for row in rows if row["end_ns"] is not None and row["enqueue_ns"] is not None]
    ended = [row for row in rows if row["end_ns"] is not None]
    times = [time for row in ended if (time := _latency(row)) is not None]
    if not known:
        return None
    arrivals = [row["enqueue_ns"] for row in known]
    departures = [row["end_ns"] for row in ended]
    return little(arrivals, departures, times, (min(arrivals), max(departures)))


def _hosts(rows: list[Row]) -> tuple[Host, ...]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["host_name"] or "unknown", {})[row["name"]] = row
    none: Row = {"mean": None, "max": None}
    result = []
    for name, of in sorted(found.items()):
        cpu, memory = of.get("system.cpu.utilization", none), of.get("system.memory.utilization", none)
        result.append(Host(name, cpu["mean"], cpu["max"], memory["mean"], memory["max"]))
    return tuple(result)


def _no_jobs(inferences: pa.Table, requests: pa.Table) -> str:
    """Say what a bulk without jobs had instead, and what makes jobs of it."""
    spans = list(zip(requests["start_ns"].to_pylist(), requests["end_ns"].to_pylist(), strict=True))
    starts = inferences["start_ns"].to_pylist()
    inside = sum(1 for at in starts if any(first <= at <= last for first, last in spans))
    found = "no inference was recorded either" if not starts else (
        f"of {wording.count(len(starts), 'inference')} {inside:,} began inside an API request and "
        f"{len(starts) - inside:,} outside (a background task, a thread, a queue of your own)"
    )  # fmt: skip
    return (
        f"no jobs: no queue that Bulkscope knows was used for this bulk; {found}; docs/own-code.md makes jobs of such "
        "work"
    )


def _notes(
    progress: Progress, complete: bool, checked: Little | None, called_off: list[str], not_sent: list[str]
) -> tuple[str, ...]:
    notes = []
    if progress.sent and not complete:
        left = progress.sent - progress.ended
        notes.append(f"partial: {wording.unended(left, progress.sent)}")
    notes += wording.unbegun(progress, called_off, not_sent)
    if progress.unknown:
        notes.append(f"unknown jobs: {progress.unknown:,} of which no end was recorded and that are not at work")
    if progress.lost:
        notes.append(f"lost jobs: {progress.lost:,} that began and whose worker was not heard of since")
    if checked is not None and not checked.ok:
        notes.append(
            f"the records deviate from Little's law by {wording.percent(checked.deviation)} (more than 5 %): lost "
            "spans, clock skew or a cut window; queue waits and rates cannot be trusted"
        )
    return tuple(notes)
