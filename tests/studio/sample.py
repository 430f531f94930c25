"""A store filled by a small queueing simulation: what a demo run leaves, without a model or a queue.

Each bulk is put at once on a FIFO queue and worked off by ``workers`` processes, so waits, times and
queue depth fit each other. The same arguments always give the same rows.
"""

from __future__ import annotations

import heapq
import json
import random
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from tests.rows import BEGIN_NS, MIB, SECOND, Places, insert
from tests.rows import columns as of_columns

MILLI = 1_000_000
QUEUE = "prompts"
TASK = "tasks.generate"
HOST = "sample-host"
SCOPE = "bulkscope"
# name, decode tokens/s, prefill tokens/s, resident bytes once loaded
MODELS = (
    ("smollm2-135m-q4_1", 55.0, 260.0, 310 * MIB),
    ("smollm2-135m-q8_0", 38.0, 210.0, 420 * MIB),
)
RETRY_DELAY_S = 2.0
_MAX_TICKS = 20_000


@dataclass(frozen=True, slots=True)
class _Service:
    resource_id: str
    name: str
    instance: str
    pid: int

    def columns(self) -> dict[str, object]:
        return {
            "resource_id": self.resource_id,
            "service_name": self.name,
            "service_instance_id": self.instance,
            "host_name": HOST,
            "pid": self.pid,
            "scope": SCOPE,
        }


@dataclass(slots=True)
class _Rows:
    """Columns of one table that grow together."""

    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **values: object) -> None:
        if not self.columns:
            self.columns = {name: [] for name in values}
        for name, column in self.columns.items():
            column.append(values[name])

    def insert(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        if self.columns:
            insert(con, {name: of_columns(name, len(next(iter(self.columns.values()))), self.columns)})


def fill(
    con: duckdb.DuckDBPyConnection,
    bulks: int = 2,
    jobs: int = 24,
    *,
    workers: int = 2,
    seed: int = 7,
    start_ns: int = BEGIN_NS,
    faults: bool = True,
) -> list[str]:
    """Fill the tables of ``con`` and return the ids of the bulks, oldest first.

    A job leaves 3 spans (PRODUCER, CONSUMER, inference), a bulk one SERVER span more. With ``faults`` and
    at least 6 jobs, the first bulk has one job that succeeds on its second attempt (job 3) and one that
    fails for good (job 5, domain ``model``); one request is refused with 503 and has no jobs.
    """
    rng = random.Random(seed)
    api = _Service("res-api", "bulk-api", "api-0", 4000)
    crew = [_Service(f"res-worker-{n}", "bulk-worker", f"worker-{n}", 4100 + n) for n in range(workers)]
    _resources(con, api, crew)
    ids = [f"sample-{n + 1:03d}" for n in range(bulks)]
    clock = start_ns
    requests, producers, consumers, inferences = _Rows(), _Rows(), _Rows(), _Rows()
    logs, works = _Rows(), _Works()
    for number, bulk_id in enumerate(ids):
        model = MODELS[number % len(MODELS)]
        broken = faults and number == 0 and jobs >= 6
        end = _bulk(
            rng, bulk_id, model, jobs, clock, api, crew, broken, requests, producers, consumers, inferences,
            logs, works,
        )  # fmt: skip
        clock = end + 5 * SECOND
    if faults:
        _refused(rng, start_ns + SECOND, api, requests, logs)
    for rows in (requests, producers, consumers, inferences):
        rows.insert(con, "spans")
    logs.insert(con, "logs")
    _points(con, start_ns - 2 * SECOND, clock, api, crew, works)
    return ids


@dataclass(slots=True)
class _Works:
    """What the points are counted from: when each attempt became ready, began and ended, and where."""

    ready: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    worker: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)


def _hex(rng: random.Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _bulk(
    rng: random.Random,
    bulk_id: str,
    model: tuple[str, float, float, int],
    jobs: int,
    begin: int,
    api: _Service,
    crew: list[_Service],
    broken: bool,
    requests: _Rows,
    producers: _Rows,
    consumers: _Rows,
    inferences: _Rows,
    logs: _Rows,
    works: _Works,
) -> int:
    """Add one bulk; return the end of its last job in ns."""
    trace, server = _hex(rng, 32), _hex(rng, 16)
    put = begin + 4 * MILLI
    waiting: list[tuple[int, int, int, int, int, str, str]] = []
    enqueue_ns = 0
    for index in range(jobs):
        took = 300_000 + rng.randrange(300_000)
        span, job_id = _hex(rng, 16), f"{bulk_id}-job-{index:04d}"
        producers.add(
            trace_id=trace, span_id=span, parent_span_id=server, name=f"send {QUEUE}", kind="PRODUCER",
            start_ns=put, end_ns=put + took, status="UNSET", bulk_id=bulk_id, job_id=job_id, queue=QUEUE,
            task=TASK, **api.columns(),
        )  # fmt: skip
        waiting.append((put, index, 1, put, 0, job_id, span))
        put += took
        enqueue_ns += took
    requests.add(
        trace_id=trace, span_id=server, parent_span_id=None, name="POST /bulks", kind="SERVER",
        start_ns=begin, end_ns=put + 2 * MILLI, status="UNSET", bulk_id=bulk_id, bulk_id_source="body",
        bulk_size=jobs,
        outcome="ok", error_type=None, enqueue_duration=enqueue_ns / SECOND, http_route="/bulks",
        http_method="POST", http_status=202, **api.columns(),
    )  # fmt: skip
    _access_log(logs, api, put + 2 * MILLI, trace, server, bulk_id, 202)
    heapq.heapify(waiting)
    places = Places(len(crew), begin)
    last = put
    while waiting:
        ready, index, attempt, enqueued, delay_ns, job_id, producer = heapq.heappop(waiting)
        n, start = places.take(ready)
        start += 2 * MILLI  # between a worker's jobs: the fetch from the broker
        lost = broken and index == 3 and attempt == 1
        bad = broken and index == 5
        end = _work(
            rng, bulk_id, model, job_id, attempt, trace, producer, enqueued, delay_ns, start, crew[n],
            "timeout" if lost else "model" if bad else None, consumers, inferences, logs,
        )  # fmt: skip
        works.ready.append(ready)
        works.start.append(start)
        works.end.append(end)
        works.worker.append(n)
        works.resident.append(model[3])
        places.free[n] = end
        if lost:
            delay_ns = int(RETRY_DELAY_S * SECOND)
            heapq.heappush(waiting, (end + delay_ns, index, 2, end, delay_ns, job_id, producer))
        last = max(last, end)
    return last


def _work(
    rng: random.Random,
    bulk_id: str,
    model: tuple[str, float, float, int],
    job_id: str,
    attempt: int,
    trace: str,
    producer: str,
    enqueued: int,
    delay_ns: int,
    start: int,
    worker: _Service,
    domain: str | None,
    consumers: _Rows,
    inferences: _Rows,
    logs: _Rows,
) -> int:
    """Add one attempt; return its end in ns."""
    name, decode_rate, prefill_rate, resident = model
    tokens_in, tokens_out = rng.randrange(20, 700), rng.randrange(8, 120)
    cached = min(16, tokens_in)
    prefill = int((tokens_in - cached) / (prefill_rate * rng.uniform(0.95, 1.05)) * SECOND)
    decode = int(tokens_out / (decode_rate * rng.uniform(0.95, 1.05)) * SECOND)
    if domain is not None:
        decode = 0
    begin = start + 3 * MILLI
    inferred = begin + prefill + decode
    end = inferred + 2 * MILLI
    seconds = (inferred - begin) / SECOND
    wait_ns = start - enqueued - delay_ns
    good = domain is None
    lost = domain == "timeout"
    error = None if good else "TimeoutError" if domain == "timeout" else "EngineError"
    status = "UNSET" if good else "ERROR"
    span, inner = _hex(rng, 16), _hex(rng, 16)
    cpu = seconds * rng.uniform(0.93, 0.99)
    grown = (tokens_in + tokens_out) * 24 * 1024
    consumers.add(
        trace_id=trace, span_id=span, parent_span_id=producer, name=f"process {QUEUE}", kind="CONSUMER",
        start_ns=start, end_ns=end, status="UNSET" if lost else status, bulk_id=bulk_id, job_id=job_id,
        outcome="ok" if good else "retry" if lost else "internal_error",
        failure_domain=domain, error_type=error, queue=QUEUE,
        task=TASK, wait=wait_ns / SECOND, delay=delay_ns / SECOND if delay_ns else None, attempt=attempt,
        wait_ratio=wait_ns / (end - enqueued), **worker.columns(),
    )  # fmt: skip
    inferences.add(
        trace_id=trace, span_id=inner, parent_span_id=span, name=f"chat {name}", kind="INTERNAL",
        start_ns=begin, end_ns=inferred, status=status, bulk_id=bulk_id, job_id=job_id,
        failure_domain=domain, error_type=error, model=name, provider="xllamacpp", input_tokens=tokens_in,
        output_tokens=tokens_out if good else None, cached_tokens=cached,
        ttft=(prefill + decode / max(tokens_out, 1)) / SECOND if good else None, prefill=prefill / SECOND,
        decode=decode / SECOND if good else None, cpu_time=cpu, cpu_utilization=cpu / seconds,
        cpu_exact=True, cpu_pressure=rng.uniform(0.0, 0.08), cpu_throttled=0.0, memory_start=resident,
        memory_peak=resident + grown, memory_growth=grown, memory_file=resident * 2 // 3,
        memory_anon=resident - resident * 2 // 3 + grown, memory_limit=4096 * MIB,
        memory_exact=rng.random() < 0.9, tokens_per_second=tokens_out / seconds if good else None,
        decode_tokens_per_second=tokens_out / (decode / SECOND) if good else None, **worker.columns(),
    )  # fmt: skip
    _log(logs, worker, start, trace, span, bulk_id, job_id, "INFO", "bulk.job.started", "job started")
    said = f"job {job_id} done in {seconds:.2f} s" if good else f"job {job_id} failed: {error}"
    _log(logs, worker, end, trace, span, bulk_id, job_id, "INFO" if good else "ERROR", None, said)
    return end


def _refused(rng: random.Random, at: int, api: _Service, requests: _Rows, logs: _Rows) -> None:
    trace, span = _hex(rng, 32), _hex(rng, 16)
    requests.add(
        trace_id=trace, span_id=span, parent_span_id=None, name="POST /bulks", kind="SERVER",
        start_ns=at, end_ns=at + 2 * MILLI, status="ERROR", bulk_id="sample-refused", bulk_id_source="body",
        bulk_size=None,
        outcome="overload", error_type="503", enqueue_duration=None, http_route="/bulks", http_method="POST",
        http_status=503, **api.columns(),
    )  # fmt: skip
    _access_log(logs, api, at + 2 * MILLI, trace, span, "sample-refused", 503)


def _access_log(logs: _Rows, api: _Service, at: int, trace: str, span: str, bulk_id: str, status: int) -> None:
    text = f'127.0.0.1:51000 - "POST /bulks HTTP/1.1" {status}'
    _log(logs, api, at, trace, span, bulk_id, None, "INFO", None, text)


def _log(
    logs: _Rows,
    service: _Service,
    at: int,
    trace: str,
    span: str,
    bulk_id: str,
    job_id: str | None,
    severity: str,
    event: str | None,
    body: str,
) -> None:
    logs.add(
        time_ns=at, observed_ns=at, trace_id=trace, span_id=span, severity=severity,
        severity_number={"INFO": 9, "ERROR": 17}[severity], event_name=event, body=body, bulk_id=bulk_id,
        job_id=job_id, **service.columns(),
    )  # fmt: skip


def _resources(con: duckdb.DuckDBPyConnection, api: _Service, crew: list[_Service]) -> None:
    rows = _Rows()
    for service in (api, *crew):
        attributes: dict[str, object] = {
            "service.name": service.name,
            "service.version": "1.0",
            "service.instance.id": service.instance,
            "host.name": HOST,
            "process.pid": service.pid,
        }
        if service is not api:
            attributes |= {"bulk.worker.cpus": 1, "bulk.worker.memory.limit": 4096 * MIB}
        rows.add(resource_id=service.resource_id, attributes=json.dumps(attributes, sort_keys=True))
    rows.insert(con, "resources")


def _points(
    con: duckdb.DuckDBPyConnection, first: int, last: int, api: _Service, crew: list[_Service], works: _Works
) -> None:
    """Count the series from the attempts at every tick; a tick is a second unless the run is very long."""
    step = max(SECOND, (last - first) // _MAX_TICKS)
    ticks = np.arange(first, last + step, step, dtype=np.int64)
    ready, start = np.sort(np.array(works.ready, np.int64)), np.sort(np.array(works.start, np.int64))
    arrived, begun = np.searchsorted(ready, ticks, "right"), np.searchsorted(start, ticks, "right")
    depth = arrived - begun
    # FIFO: the oldest waiting job is the one after those that have begun.
    head = ready[np.minimum(begun, max(len(ready) - 1, 0))] if len(ready) else ticks
    age = np.where(depth > 0, (ticks - head) / SECOND, 0.0)
    where = np.array(works.worker, np.int64)
    starts, ends = np.array(works.start, np.int64), np.array(works.end, np.int64)
    resident = np.array(works.resident, np.int64)
    queue = json.dumps({"messaging.destination.name": QUEUE})
    _series(con, api, ticks, "bulk.queue.depth", "{job}", depth, "gauge", queue)
    _series(con, api, ticks, "bulk.queue.oldest_age", "s", age, "gauge", queue)
    _series(con, api, ticks, "process.cpu.utilization", "1", np.full(len(ticks), 0.02), "gauge")
    _series(con, api, ticks, "process.memory.usage", "By", np.full(len(ticks), 90.0 * MIB), "sum")
    total = np.zeros(len(ticks))
    used = np.full(len(ticks), 1500.0 * MIB)
    for n, worker in enumerate(crew):
        mine = where == n
        order = np.argsort(starts[mine])
        begins, stops = starts[mine][order], ends[mine][order]
        memory = np.append(resident[mine][order], 0)
        position = np.searchsorted(begins, ticks, "right")
        busy = position - np.searchsorted(stops, ticks, "right")
        held = memory[np.maximum(position - 1, 0)].astype(np.float64)
        total += busy
        used += held
        _series(con, worker, ticks, "bulk.worker.busy", "{worker}", busy, "sum")
        _series(con, worker, ticks, "process.cpu.utilization", "1", np.where(busy > 0, 0.96, 0.01), "gauge")
        _series(con, worker, ticks, "process.memory.usage", "By", held, "sum")
    host = _Service("res-host", "bulkscope-studio", "host-0", 3900)
    load = np.minimum(1.0, 0.03 + 0.95 * total / max(len(crew), 1))
    for state, share in (("user", load * 0.9), ("system", load * 0.1), ("idle", 1.0 - load)):
        _series(
            con,
            host,
            ticks,
            "system.cpu.utilization",
            "1",
            share,
            "gauge",
            json.dumps({"state": state}, separators=(",", ":")),
        )
    installed = 8192.0 * MIB
    for state, size in (("used", used), ("free", installed - used)):
        mode = json.dumps({"state": state}, separators=(",", ":"))
        _series(con, host, ticks, "system.memory.utilization", "1", size / installed, "gauge", mode)
        _series(con, host, ticks, "system.memory.usage", "By", size, "gauge", mode)
    pressure = json.dumps({"level": "some", "resource": "cpu"}, separators=(",", ":"))
    _series(con, host, ticks, "bulk.system.pressure", "1", load * 0.1, "gauge", pressure)


def _series(
    con: duckdb.DuckDBPyConnection,
    service: _Service,
    ticks: np.ndarray[Any, Any],
    name: str,
    unit: str,
    values: np.ndarray[Any, Any],
    kind: str,
    attributes: str | None = None,
) -> None:
    constants = {
        "name": name, "unit": unit, "type": kind, "attributes": attributes,
        "temporality": "cumulative" if kind == "sum" else None,
        "monotonic": False if kind == "sum" else None, **service.columns(),
    }  # fmt: skip
    found = of_columns("points", len(ticks), {"time_ns": ticks, "value": values.astype(np.float64), **constants})
    insert(con, {"points": found})
