"""Writes a run as the instrumentation and the host sampler would have stored it.

Rows have all columns of ``schema.sql``; ids, JSON attributes, names and clocks are those of a real store. Left out
are the histograms, which no page of one bulk reads. What the telemetry's faults take away is taken away here: the
run itself is whole.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS, insert
from tests.rows import columns as of_columns
from tests.simulator.engine import READ_AHEAD, Attempt, Process, Put, Run, Timeline
from tests.simulator.system import MIB, Host, Pool, Telemetry

QUEUE, TASK, SYSTEM = "prompts", "generate", "redis"
# Where the API runs when it runs on none of the workers' hosts.
API_HOST = "api-1"
SCOPE = "bulkscope"
HOST_SCOPE = "bulkscope.studio/host"
JOBS_PER_TRACE = 200
HEARTBEAT_S = 1.0
HOST_INTERVAL_S = 1.0
API_MEMORY = 80 * MIB
Floats = NDArray[np.float64]


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True, slots=True)
class Service:
    """What a resource gives to each of its records."""

    resource_id: str
    name: str
    instance: str
    host: str
    pid: int
    attributes: str

    @staticmethod
    def of(name: str, host: str, pid: int, seed: int, extra: dict[str, Any]) -> Service:
        text = hashlib.blake2b(f"{seed}/{name}/{host}/{pid}".encode(), digest_size=16).hexdigest()
        instance = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        attributes = _json(
            {
                "host.name": host, "process.pid": pid, "service.instance.id": instance, "service.name": name,
                "telemetry.auto.version": "0.66b2", "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": "1.45.2", **extra,
            }
        )  # fmt: skip
        return Service(hashlib.blake2b(attributes.encode(), digest_size=8).hexdigest(), name, instance, host, pid,
                       attributes)  # fmt: skip

    def columns(self) -> dict[str, Any]:
        return {"resource_id": self.resource_id, "service_name": self.name, "service_instance_id": self.instance,
                "host_name": self.host, "pid": self.pid}  # fmt: skip


class _Clock:
    """A host's wall clock: true seconds to nanoseconds since the epoch."""

    def __init__(self, host: Host) -> None:
        self.offset = host.clock
        self.steps = host.clock_steps

    def ns(self, at: float) -> int:
        return BEGIN_NS + round((at + self.ahead(at)) * 1e9)

    def ahead(self, at: float) -> float:
        return self.offset + sum(by for when, by in self.steps if at >= when)


@dataclass(slots=True)
class _Table:
    """Rows of one table: columns that differ by row, as lists; constants are given when it is closed."""

    name: str
    parts: list[pa.Table] = field(default_factory=list)

    def add(self, rows: int, columns: dict[str, Any]) -> None:
        """Add ``rows`` rows; a column is a sequence of that length, or one value for all; those not named are null."""
        if rows:
            self.parts.append(of_columns(self.name, rows, columns))

    def table(self) -> pa.Table | None:
        return pa.concat_tables(self.parts) if self.parts else None


@dataclass(frozen=True, slots=True)
class Lost:
    """What the telemetry's faults did: spans that a run made, how many of them never came, and how many of the
    attempts' waits came out negative. ``told``: of those that never came, the inferences that their senders counted;
    what became of their jobs is known all the same."""

    spans: int
    missing: int
    negative: int = 0
    told: int = 0


def write(run: Run, store: Store) -> Lost:
    """Insert the rows of ``run`` into the tables of ``store``."""
    tables, lost = rows(run)
    connection = store.connection()
    try:
        insert(connection, tables)
    finally:
        connection.close()
    return lost


def rows(run: Run) -> tuple[dict[str, pa.Table], Lost]:
    """Return the rows of ``run`` by table, and what of its spans is not among them."""
    return _Writer(run).rows()


class _Writer:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.random = np.random.default_rng([run.seed, 3])
        self.faults: Telemetry = run.system.telemetry
        self.hosts = {host.name: host for host in run.system.hosts}
        self.clocks = {name: _Clock(host) for name, host in self.hosts.items()}
        self.clocks[API_HOST] = _Clock(Host(API_HOST))
        api_host = next((host.name for host in run.system.hosts if host.near), API_HOST)
        self.tables = {name: _Table(name) for name in otlp_decode.TABLES}
        self.api = Service.of("bulk-api", api_host, 4000, run.seed, {"bulk.worker.cpus": 8.0})
        self.services = {id(process): self._service(process) for process in run.processes}
        self.attempts = run.attempts
        self.ended = [attempt for attempt in run.attempts if attempt.end is not None]

    def rows(self) -> tuple[dict[str, pa.Table], Lost]:
        self._identify()
        lost = self._lose()
        self._requests()
        self._puts()
        self._consumers()
        self._inferences()
        self._logs()
        self._host_points()
        self._worker_points()
        self._api_points()
        services = [self.api, *self.services.values()]
        self.tables["resources"].add(
            len(services),
            {"resource_id": [s.resource_id for s in services], "attributes": [s.attributes for s in services]},
        )
        made = {name: table.table() for name, table in self.tables.items()}
        found = {name: table for name, table in made.items() if table is not None}
        return self._cut(found, lost)

    # --- who and what ---------------------------------------------------------------------------

    def _service(self, process: Process) -> Service:
        pool, host = process.pool, self.hosts[process.host]
        extra: dict[str, Any] = {}
        cpus = host.cores if pool.cpus is None else pool.cpus
        extra["bulk.worker.cpus"] = float(cpus if pool.quota is None else min(cpus, pool.quota))
        extra["bulk.worker.cpu.set"] = f"0-{cpus - 1}" if cpus > 1 else "0"
        extra["bulk.worker.memory.limit"] = _memory_limit(pool, host)
        if pool.quota is not None or pool.memory_limit is not None:
            where = f"{pool.host}/{process.worker}" if pool.quota_each else pool.host
            extra["container.id"] = hashlib.blake2b(where.encode(), digest_size=32).hexdigest()
        return Service.of("bulk-worker", process.host, process.pid, self.run.seed, extra)

    def _ids(self, count: int, size: int) -> list[str]:
        text = self.random.bytes(count * size).hex()
        return [text[n : n + 2 * size] for n in range(0, len(text), 2 * size)]

    def _identify(self) -> None:
        """Give every span its ids. From a request's 201st job on, a job has a trace of its own."""
        requests, puts, attempts = self.run.requests, self.run.puts, self.attempts
        self.request_trace = self._ids(len(requests), 16)
        self.request_span = self._ids(len(requests), 8)
        self.put_span = self._ids(len(puts), 8)
        self.attempt_span = dict(zip(map(id, attempts), self._ids(len(attempts), 8), strict=True))
        self.inference_span = dict(zip(map(id, attempts), self._ids(len(attempts), 8), strict=True))
        own = self._ids(len(puts), 16)
        # How each message was sent: its trace, its span, and whether the trace is its own.
        self.sent: dict[tuple[int, int], tuple[str, str, bool]] = {}
        counted: dict[int, int] = defaultdict(int)
        for n, put in enumerate(puts):
            if put.by is None:
                counted[put.job.request] += 1
                alone = counted[put.job.request] > JOBS_PER_TRACE
                trace = own[n] if alone else self.request_trace[put.job.request]
            else:
                alone = False
                trace = self.sent[id(put.job), put.attempt - 1][0]
            self.sent[id(put.job), put.attempt] = (trace, self.put_span[n], alone)

    def _lose(self) -> Lost:
        """Decide which spans never arrive."""
        faults, puts = self.faults, self.run.puts
        self.no_put = self._some([put.at for put in puts], faults.producers)
        inferred = [a for a in self.ended if a.inferred is not None and a.decoded is not None]
        gone = self._some([a.end or 0.0 for a in self.ended], faults.consumers)
        self.no_consumer = {id(a) for a, lost in zip(self.ended, gone, strict=True) if lost}
        gone = self._some([a.decoded or 0.0 for a in inferred], faults.inferences)
        self.no_inference = {id(a) for a, lost in zip(inferred, gone, strict=True) if lost}
        jobs = list({id(put.job): put.job for put in puts}.values())
        gone = self._some([job.sent for job in jobs], faults.jobs)
        forgotten = {id(job) for job, lost in zip(jobs, gone, strict=True) if lost}
        self.forgotten = forgotten
        for n, put in enumerate(puts):
            self.no_put[n] = self.no_put[n] or id(put.job) in forgotten
        for attempt in self.ended:
            if id(attempt.job) in forgotten:
                self.no_consumer.add(id(attempt))
                self.no_inference.add(id(attempt))
        refused = 0
        if faults.refused:
            gone = self._some([a.end or 0.0 for a in self.ended], faults.refused)
            for attempt, lost in zip(self.ended, gone, strict=True):
                if lost:
                    fresh = {id(attempt)} - self.no_consumer
                    refused += len(fresh) + (attempt in inferred and id(attempt) not in self.no_inference)
                    self.no_consumer.add(id(attempt))
                    self.no_inference.add(id(attempt))
            middle = [a.end for a in self.ended if id(a) in self.no_consumer and a.end is not None]
            if refused:
                self.tables["ingest"].add(1, {
                    "time_ns": BEGIN_NS + round(float(np.median(middle)) * 1e9), "signal": "traces",
                    "transport": "http", "outcome": "refused", "reason": "span ends before it starts",
                    "records": refused,
                })  # fmt: skip
        inferred_ids = {id(a) for a in inferred}
        self.no_inference &= inferred_ids
        spans = len(self.run.requests) + len(puts) + len(self.ended) + len(inferred)
        missing = sum(self.no_put) + len(self.no_consumer) + len(self.no_inference)
        told = len(self.no_inference - self.no_consumer) if faults.counted else 0
        return Lost(spans, missing, sum(self._wait(attempt) < 0 for attempt in self.ended), told)

    def _some(self, times: Sequence[float], part: float) -> list[bool]:
        """Choose a ``part`` of records: at random, or in batches that lie together in time."""
        count = len(times)
        wanted = round(part * count)
        if not wanted:
            return [False] * count
        chosen = np.zeros(count, bool)
        if not self.faults.batches:
            chosen[self.random.choice(count, wanted, replace=False)] = True
            return chosen.tolist()
        order = np.argsort(np.array(times), kind="stable")
        size = max(1, min(wanted, 40))
        blocks = -(-count // size)
        for block in self.random.permutation(blocks)[: -(-wanted // size)]:
            chosen[order[block * size : (block + 1) * size]] = True
        return chosen.tolist()

    # --- spans ------------------------------------------------------------------------------------

    def _requests(self) -> None:
        requests, clock = self.run.requests, self.clocks[self.api.host]
        good = [request.status == 202 for request in requests]
        enqueue = self.run.system.enqueue
        self.tables["spans"].add(len(requests), {
            "trace_id": self.request_trace, "span_id": self.request_span, "name": "POST /bulks", "kind": "SERVER",
            "start_ns": [clock.ns(r.start) for r in requests],
            "end_ns": [clock.ns(r.start) + round((r.end - r.start) * 1e9) for r in requests],
            "status": ["UNSET" if r.status < 500 else "ERROR" for r in requests],
            "scope": SCOPE, **self.api.columns(), "bulk_id": [r.stream.bulk for r in requests],
            "bulk_id_source": "body", "bulk_size": [len(r.jobs) or None for r in requests],
            "outcome": ["ok" if ok else "overload" for ok in good],
            "error_type": [None if ok else str(r.status) for r, ok in zip(requests, good, strict=True)],
            "enqueue_duration": [len(r.jobs) * enqueue if r.jobs else None for r in requests],
            "http_route": "/bulks", "http_method": "POST", "http_status": [r.status for r in requests],
            "attributes": _json({
                "client.address": "127.0.0.1", "network.protocol.version": "1.1", "server.address": "127.0.0.1",
                "server.port": 8000, "url.path": "/bulks", "url.scheme": "http", "user_agent.original": "client/1.0",
            }),
        })  # fmt: skip

    def _puts(self) -> None:
        kept = [(n, put) for n, put in enumerate(self.run.puts) if not self.no_put[n]]
        for mine in (True, False):
            self._put_group([(n, put) for n, put in kept if (put.by is None) == mine])

    def _put_group(self, kept: list[tuple[int, Put]]) -> None:
        if not kept:
            return
        services = [self.api if put.by is None else self.services[id(put.by.process)] for _, put in kept]
        starts = [self.clocks[service.host].ns(put.at) for service, (_, put) in zip(services, kept, strict=True)]
        took = self.random.uniform(0.7, 0.95, len(kept)) * max(self.run.system.enqueue, 1e-4) * 1e9
        sent = [self.sent[id(put.job), put.attempt] for _, put in kept]
        links = [
            _json_links(self.request_trace[put.job.request], self.request_span[put.job.request]) if alone else None
            for (_, put), (_, _, alone) in zip(kept, sent, strict=True)
        ]
        self.tables["spans"].add(len(kept), {
            "trace_id": [trace for trace, _, _ in sent], "span_id": [span for _, span, _ in sent],
            "parent_span_id": [
                None if alone else self.request_span[put.job.request] if put.by is None
                else self.attempt_span[id(put.by)]
                for (_, put), (_, _, alone) in zip(kept, sent, strict=True)
            ],
            "name": f"send {QUEUE}", "kind": "PRODUCER", "start_ns": starts,
            "end_ns": [start + int(t) for start, t in zip(starts, took, strict=True)], "status": "UNSET",
            "scope": SCOPE, **_service_columns(services), "bulk_id": [put.job.stream.bulk for _, put in kept],
            "job_id": [put.job.name for _, put in kept], "queue": QUEUE, "task": TASK,
            "delay": [put.delay for _, put in kept], "attempt": [put.attempt for _, put in kept], "links": links,
            "attributes": [_message(put.job.name, "send") for _, put in kept],
        })  # fmt: skip

    def _wall(self, attempt: Attempt, at: float) -> int:
        """Wall clock of the worker at ``at``: read once, when the attempt began, and carried on by a steady clock."""
        return self.clocks[attempt.process.host].ns(attempt.start) + round((at - attempt.start) * 1e9)

    def _wait(self, attempt: Attempt) -> float:
        """The wait as the worker computes it: by the boot's clock on one machine, else by two wall clocks."""
        if self.hosts[attempt.process.host].near:
            return attempt.start - attempt.enqueued - attempt.delay
        here, there = self.clocks[attempt.process.host], self.clocks[self.api.host]
        # A retry was enqueued by the worker itself.
        ahead = here.ahead(attempt.start) - (there if attempt.number == 1 else here).ahead(attempt.enqueued)
        return attempt.start - attempt.enqueued - attempt.delay + ahead

    def _consumers(self) -> None:
        kept = [a for a in self.ended if id(a) not in self.no_consumer]
        waits = [self._wait(a) for a in kept]
        sent = [self.sent[id(a.job), a.number] for a in kept]
        ratios = [
            min(1.0, wait / (wait + a.delay + a.end - a.start)) if wait >= 0 else None  # type: ignore[operator]
            for wait, a in zip(waits, kept, strict=True)
        ]
        self.tables["spans"].add(len(kept), {
            "trace_id": [trace for trace, _, _ in sent], "span_id": [self.attempt_span[id(a)] for a in kept],
            "parent_span_id": [span for _, span, _ in sent], "name": f"process {QUEUE}", "kind": "CONSUMER",
            "start_ns": [self._wall(a, a.start) for a in kept],
            "end_ns": [self._wall(a, a.end) for a in kept],  # type: ignore[arg-type]
            "status": ["ERROR" if a.outcome == "internal_error" else "UNSET" for a in kept], "scope": SCOPE,
            **_service_columns([self.services[id(a.process)] for a in kept]),
            "bulk_id": [a.job.stream.bulk for a in kept], "job_id": [a.job.name for a in kept],
            "outcome": [a.outcome for a in kept], "failure_domain": [a.domain for a in kept],
            "error_type": [a.error for a in kept], "queue": QUEUE, "task": TASK, "wait": waits,
            "delay": [a.delay for a in kept], "attempt": [a.number for a in kept], "wait_ratio": ratios,
            "attributes": [
                _message(a.job.name, "process", wait < 0) for wait, a in zip(waits, kept, strict=True)
            ],
        })  # fmt: skip

    def _inferences(self) -> None:
        kept = [
            a for a in self.ended
            if a.inferred is not None and a.decoded is not None and id(a) not in self.no_inference
        ]  # fmt: skip
        good = [not a.failed_inference for a in kept]
        wall = [a.decoded - a.inferred for a in kept]  # type: ignore[operator]
        prefill = [None if a.prefilled is None else a.prefilled - a.inferred for a in kept]  # type: ignore[operator]
        decode_s = [
            a.decoded - a.prefilled if ok and a.prefilled is not None else None  # type: ignore[operator]
            for a, ok in zip(kept, good, strict=True)
        ]
        output = [a.job.output_tokens if ok else None for a, ok in zip(kept, good, strict=True)]
        cores = {id(p): orjson.loads(self.services[id(p)].attributes)["bulk.worker.cpus"] for p in self.run.processes}
        self.tables["spans"].add(len(kept), {
            "trace_id": [self.sent[id(a.job), a.number][0] for a in kept],
            "span_id": [self.inference_span[id(a)] for a in kept],
            "parent_span_id": [self.attempt_span[id(a)] for a in kept],
            "name": [f"chat {a.job.stream.model.name}" for a in kept], "kind": "INTERNAL",
            "start_ns": [self._wall(a, a.inferred) for a in kept],  # type: ignore[arg-type]
            "end_ns": [self._wall(a, a.decoded) for a in kept],  # type: ignore[arg-type]
            "status": ["UNSET" if ok else "ERROR" for ok in good], "scope": SCOPE,
            **_service_columns([self.services[id(a.process)] for a in kept]),
            "bulk_id": [a.job.stream.bulk for a in kept], "job_id": [a.job.name for a in kept],
            "failure_domain": [None if ok else a.domain for a, ok in zip(kept, good, strict=True)],
            "error_type": [None if ok else a.error for a, ok in zip(kept, good, strict=True)],
            "model": [a.job.stream.model.name for a in kept], "provider": "llama_cpp",
            "input_tokens": [a.job.input_tokens if ok else None for a, ok in zip(kept, good, strict=True)],
            "output_tokens": output,
            "cached_tokens": [
                min(a.job.stream.tokens.cached, a.job.input_tokens) if ok else None
                for a, ok in zip(kept, good, strict=True)
            ],
            "ttft": [p if ok else None for p, ok in zip(prefill, good, strict=True)],
            "prefill": [p if ok else None for p, ok in zip(prefill, good, strict=True)], "decode": decode_s,
            "cpu_time": [a.cpu for a in kept],
            "cpu_utilization": [
                a.cpu / (w * cores[id(a.process)]) if w > 0 else None for a, w in zip(kept, wall, strict=True)
            ],
            "cpu_exact": True,
            "cpu_pressure": [
                min(1.0, a.pressure / w) if w > 0 else None for a, w in zip(kept, wall, strict=True)
            ],
            "cpu_throttled": [a.throttled for a in kept], "cpu_wait": [a.cpu_wait for a in kept],
            "memory_start": [int(a.memory_start) for a in kept], "memory_peak": [int(a.memory_peak) for a in kept],
            "memory_growth": [int(a.memory_peak) - int(a.memory_start) for a in kept],
            "memory_file": [int(a.memory_file) for a in kept], "memory_anon": [int(a.memory_anon) for a in kept],
            "memory_limit": [_memory_limit(a.process.pool, self.hosts[a.process.host]) for a in kept],
            "memory_exact": True,
            "tokens_per_second": [
                n / w if n is not None and w > 0 else None for n, w in zip(output, wall, strict=True)
            ],
            "decode_tokens_per_second": [
                (n - 1) / d if n is not None and n > 1 and d else None for n, d in zip(output, decode_s, strict=True)
            ],
            "attributes": _json({
                "gen_ai.operation.name": "chat", "gen_ai.request.max_tokens": 512,
                "gen_ai.response.finish_reasons": ["stop"],
            }),
        })  # fmt: skip

    # --- logs -------------------------------------------------------------------------------------

    def _logs(self) -> None:
        """What is told of each attempt while it runs: that it began, and every second that it goes on."""
        attempts = [a for a in self.attempts if id(a.job) not in self.forgotten]
        found: list[tuple[Attempt, float, str, float | None]] = []
        died = self.run.end
        for attempt in attempts:
            found.append((attempt, attempt.start + 0.0005, "bulk.job.started", None))
            end = attempt.end if attempt.end is not None else min(attempt.process.died, died)
            beats = int((end - attempt.start - 1e-9) / HEARTBEAT_S)
            found.extend((attempt, attempt.start + k * HEARTBEAT_S, "bulk.job.heartbeat", k * HEARTBEAT_S)
                         for k in range(1, beats + 1))  # fmt: skip
        if self.faults.dropped_logs:
            gone = set(self.random.choice(len(found), min(len(found), self.faults.dropped_logs), False).tolist())
            found = [row for n, row in enumerate(found) if n not in gone]
        times = [self.clocks[a.process.host].ns(at) for a, at, _, _ in found]
        kills = {name: line.kills for name, line in self.run.hosts.items()}
        self.tables["logs"].add(len(found), {
            "time_ns": times, "observed_ns": times,
            "trace_id": [self.sent[id(a.job), a.number][0] for a, _, _, _ in found],
            "span_id": [self.attempt_span[id(a)] for a, _, _, _ in found], "severity_number": 9, "severity": "INFO",
            "event_name": [event for _, _, event, _ in found],
            "body": [f"{event} {a.job.name}" for a, _, event, _ in found], "scope": SCOPE,
            **_service_columns([self.services[id(a.process)] for a, _, _, _ in found]),
            "bulk_id": [a.job.stream.bulk for a, _, _, _ in found], "job_id": [a.job.name for a, _, _, _ in found],
            "attributes": [
                _event(a, at, elapsed, _killed(kills[a.process.host], at)) for a, at, _, elapsed in found
            ],
        })  # fmt: skip
        self._lines()

    def _lines(self) -> None:
        """The logs of the programs: an access log line a request, a line of the task at its end."""
        requests, clock = self.run.requests, self.clocks[self.api.host]
        times = [clock.ns(r.end) for r in requests]
        self.tables["logs"].add(len(requests), {
            "time_ns": times, "observed_ns": times, "trace_id": self.request_trace, "span_id": self.request_span,
            "severity_number": 9, "severity": "INFO",
            "body": [f'127.0.0.1:51000 - "POST /bulks HTTP/1.1" {r.status}' for r in requests],
            "scope": "uvicorn.access", **self.api.columns(), "bulk_id": [r.stream.bulk for r in requests],
        })  # fmt: skip
        ended = [a for a in self.ended if id(a.job) not in self.forgotten]
        times = [self._wall(a, a.end) for a in ended]  # type: ignore[arg-type]
        self.tables["logs"].add(len(ended), {
            "time_ns": times, "observed_ns": times, "trace_id": [self.sent[id(a.job), a.number][0] for a in ended],
            "span_id": [self.attempt_span[id(a)] for a in ended],
            "severity_number": [9 if a.error is None else 17 for a in ended],
            "severity": ["INFO" if a.error is None else "ERROR" for a in ended],
            "body": [f"{a.job.name} done" if a.error is None else f"{a.job.name} raised {a.error}" for a in ended],
            "scope": "app.tasks", **_service_columns([self.services[id(a.process)] for a in ended]),
            "bulk_id": [a.job.stream.bulk for a in ended], "job_id": [a.job.name for a in ended],
        })  # fmt: skip

    # --- points -----------------------------------------------------------------------------------

    def _series(
        self,
        service: Service | str,
        ticks: Floats,
        name: str,
        unit: str,
        values: Floats,
        attributes: dict[str, Any] | None = None,
        kind: str = "gauge",
        monotonic: bool | None = None,
        start: float | None = None,
    ) -> None:
        host = service if isinstance(service, str) else service.host
        clock = self.clocks[host]
        who = {"host_name": host, "scope": HOST_SCOPE}
        if not isinstance(service, str):
            who = {**service.columns(), "scope": SCOPE}
        if clock.steps:
            times = np.array([clock.ns(at) for at in ticks.tolist()], np.int64)
        else:
            times = BEGIN_NS + np.rint((ticks + clock.offset) * 1e9).astype(np.int64)
        kept = np.isfinite(values)
        self.tables["points"].add(int(kept.sum()), {
            "time_ns": times[kept], "start_ns": None if start is None else clock.ns(start), "name": name,
            "unit": unit, "type": kind, "temporality": "cumulative" if kind == "sum" else None,
            "monotonic": monotonic, **who,
            "attributes": None if attributes is None else _json(attributes), "value": values[kept],
        })  # fmt: skip

    def _host_points(self) -> None:
        for name, line in self.run.hosts.items():
            host = self.hosts[name]
            ticks = np.arange(-5 + float(self.random.uniform(0, 1)), self.run.end + 6, HOST_INTERVAL_S)
            self._host(host, line, ticks)

    def _host(self, host: Host, line: Timeline, ticks: Floats) -> None:
        mean = _means(line.at, ticks, HOST_INTERVAL_S)
        busy = np.clip(mean(line.cores) / host.cores, 0, 1)
        # A tick of the kernel is 10 ms: a second of a host with n cores has n times a hundred.
        busy = np.rint(busy * host.cores * 100) / (host.cores * 100)
        shares = {"user": busy * 0.95, "nice": busy * 0, "system": busy * 0.05, "wait": busy * 0,
                  "interrupt": busy * 0, "softirq": busy * 0, "steal": busy * 0, "idle": 1 - busy}  # fmt: skip
        for state, values in shares.items():
            self._series(host.name, ticks, "system.cpu.utilization", "1", values, {"state": state})
        anonymous, file = _levels(line.at, ticks, line.anonymous), _levels(line.at, ticks, line.file)
        used = np.minimum(host.used + anonymous, host.memory * 0.999)
        cached = np.minimum(file + 0.2 * np.maximum(0, host.memory - used - file), host.memory - used)
        states = {"used": used, "cached": cached, "buffered": np.zeros(len(ticks)), "free": host.memory - used - cached}
        for state, values in states.items():
            self._series(host.name, ticks, "system.memory.usage", "By", values, {"state": state})
            self._series(host.name, ticks, "system.memory.utilization", "1", values / host.memory, {"state": state})
        some, full, read = mean(line.memory_some), mean(line.memory_full), mean(line.read)
        pressures = {("cpu", "some"): mean(line.cpu_some), ("cpu", "full"): busy * 0, ("memory", "some"): some,
                     ("memory", "full"): full, ("io", "some"): some, ("io", "full"): full}  # fmt: skip
        for (resource, level), values in pressures.items():
            attributes = {"level": level, "resource": resource}
            self._series(host.name, ticks, "bulk.system.pressure", "1", np.clip(values, 0, 1), attributes)
        self._series(host.name, ticks, "system.cpu.load_average.1m", "{thread}", mean(line.cores))
        faults = np.rint(np.cumsum(read) * HOST_INTERVAL_S / READ_AHEAD) + 12_345
        self._series(host.name, ticks, "system.paging.faults", "{fault}", faults, {"type": "major"}, "sum", True)
        killed = np.searchsorted([at for at, _ in line.kills], ticks, "right").astype(float)
        self._series(host.name, ticks, "bulk.system.oom_kills", "{process}", killed)

    def _worker_points(self) -> None:
        interval, end = self.faults.interval, self.run.end + 6
        work: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            work[id(attempt.process)].append(attempt)
        for process in self.run.processes:
            service, mine = self.services[id(process)], work[id(process)]
            first = process.born + float(self.random.uniform(0.2, interval))
            last = min(end, process.died)
            ticks = np.arange(first, last, interval)
            if not len(ticks):
                continue
            self._process(process, service, mine, ticks)
            lost = [a.end for a in mine if id(a) in self.no_consumer and a.end is not None]
            lost += [a.decoded for a in mine if id(a) in self.no_inference and a.decoded is not None]
            if self.faults.counted and lost:
                moments: Floats = np.sort(np.array(lost))
                counts = np.searchsorted(moments, ticks, "right").astype(float)
                # The last export of a process that ends comes with its end.
                counts[-1] = len(moments)
                counts[counts == 0] = np.nan
                labels = {"error.type": "queue_full", "signal": "traces"}
                self._series(service, ticks, "bulk.telemetry.dropped", "{record}", counts, labels, "sum", True,
                             process.born)  # fmt: skip
        self._queue_points()

    def _process(self, process: Process, service: Service, mine: list[Attempt], ticks: Floats) -> None:
        interval, born, pool = self.faults.interval, process.born, process.pool
        starts = np.array([a.start for a in mine])
        ends = np.array([a.end if a.end is not None else process.died for a in mine])
        began = np.searchsorted(starts, ticks, "right").astype(float)
        busy = began - np.searchsorted(np.sort(ends), ticks, "right")
        queue = {"messaging.destination.name": QUEUE}
        began[began == 0] = np.nan
        seen = np.where(np.isnan(began), np.nan, busy)
        self._series(service, ticks, "bulk.worker.busy", "{worker}", seen, queue, "sum", False, born)
        labels = {"bulk.task.name": TASK, **queue, "messaging.operation.name": "process", "messaging.system": SYSTEM}
        self._series(
            service, ticks, "messaging.client.consumed.messages", "{message}", began, labels, "sum", True, born
        )
        edges, spent = [born], [0.0]
        for a in mine:
            if a.inferred is not None:
                edges += [a.inferred, a.decoded if a.decoded is not None else process.died]
                spent += [spent[-1], spent[-1] + a.cpu]
        total = np.interp(ticks, edges, spent)
        before = np.interp(ticks - interval, edges, spent)
        host = self.hosts[process.host]
        cores = host.cores if pool.cpus is None else pool.cpus
        cores_f = float(cores if pool.quota is None else min(cores, pool.quota))
        used = (total - before) / interval / cores_f + 0.001
        self._series(service, ticks, "process.cpu.utilization", "1", used)
        moments = [at for at, _, _ in process.memory]
        resident = _levels(moments, ticks, [file + anon for _, file, anon in process.memory])
        self._series(service, ticks, "process.memory.usage", "By", resident, None, "sum", False, born)
        line = self.run.hosts[process.host]
        if pool.quota is not None:
            held = np.interp(ticks, line.at, line.throttled) if line.at else np.zeros(len(ticks))
            self._series(service, ticks, "bulk.worker.cpu.throttled", "s", held, None, "sum", True, born)
        if pool.memory_limit is not None:
            held = _levels(line.at, ticks, line.anonymous) + _levels(line.at, ticks, line.file)
            share = np.minimum(1.0, held / pool.memory_limit)
            self._series(service, ticks, "bulk.worker.memory.utilization", "1", share)

    def _queue_points(self) -> None:
        """Depth and oldest age, as one worker's main process asks the broker."""
        if not self.run.processes:
            return
        process = self.run.processes[0]
        ticks = np.arange(process.born + 0.1, self.run.end + 6, self.faults.interval)
        ready = np.sort([put.at + put.delay for put in self.run.puts])
        begun = np.sort([attempt.start for attempt in self.attempts])
        arrived, gone = np.searchsorted(ready, ticks, "right"), np.searchsorted(begun, ticks, "right")
        depth = np.maximum(0, arrived - gone)
        head = ready[np.minimum(gone, max(0, len(ready) - 1))] if len(ready) else ticks
        age = np.where(depth > 0, ticks - head, np.nan)
        queue, service = {"messaging.destination.name": QUEUE}, self.services[id(process)]
        self._series(service, ticks, "bulk.queue.depth", "{job}", depth.astype(float), queue)
        self._series(service, ticks, "bulk.queue.oldest_age", "s", np.where(age < 0, np.nan, age), queue)

    def _api_points(self) -> None:
        interval, end = self.faults.interval, self.run.end + 6
        ticks = np.arange(0.3, end, interval)
        sent = np.sort([put.at for put in self.run.puts if put.by is None])
        counts = np.searchsorted(sent, ticks, "right").astype(float)
        counts[counts == 0] = np.nan
        labels = {"bulk.task.name": TASK, "messaging.destination.name": QUEUE, "messaging.operation.name": "send",
                  "messaging.system": SYSTEM}  # fmt: skip
        self._series(self.api, ticks, "messaging.client.sent.messages", "{message}", counts, labels, "sum", True, 0.0)
        self._series(self.api, ticks, "process.cpu.utilization", "1", np.full(len(ticks), 0.004))
        usage = np.full(len(ticks), float(API_MEMORY))
        self._series(self.api, ticks, "process.memory.usage", "By", usage, None, "sum", False, 0.0)
        lost = np.sort([put.at for n, put in enumerate(self.run.puts) if self.no_put[n] and put.by is None])
        if self.faults.counted and len(lost):
            counts = np.searchsorted(lost, ticks, "right").astype(float)
            counts[-1] = len(lost)
            counts[counts == 0] = np.nan
            labels = {"error.type": "queue_full", "signal": "traces"}
            self._series(self.api, ticks, "bulk.telemetry.dropped", "{record}", counts, labels, "sum", True, 0.0)

    # --- a window that is cut ----------------------------------------------------------------------

    def _cut(self, found: dict[str, pa.Table], lost: Lost) -> tuple[dict[str, pa.Table], Lost]:
        if self.faults.cut is None:
            return found, lost
        first, last = (BEGIN_NS + round(min(at, 1e8) * 1e9) for at in self.faults.cut)

        def keep(table: pa.Table, column: str) -> pa.Table:
            times = table[column].to_numpy()
            return table.filter(pa.array((times >= first) & (times <= last)))

        spans = found["spans"].num_rows
        found = {
            name: table if name in ("resources", "ingest") else keep(table, "end_ns" if name == "spans" else "time_ns")
            for name, table in found.items()
        }
        return found, replace(lost, missing=lost.missing + spans - found["spans"].num_rows)


def _memory_limit(pool: Pool, host: Host) -> int:
    return host.memory if pool.memory_limit is None else min(pool.memory_limit, host.memory)


def _json_links(trace: str, span: str) -> str:
    return f'[{{"span_id":"{span}","trace_id":"{trace}"}}]'


def _message(job: str, operation: str, negative: bool = False) -> str:
    mark = '"bulk.job.wait_negative":true,' if negative else ""
    return (
        f'{{{mark}"messaging.message.id":"{job}","messaging.operation.name":"{operation}",'
        f'"messaging.operation.type":"{operation}","messaging.system":"{SYSTEM}"}}'
    )


def _killed(kills: list[tuple[float, int]], at: float) -> int:
    return sum(1 for when, _ in kills if when <= at)


def _event(attempt: Attempt, at: float, elapsed: float | None, kills: int) -> str:
    """Attributes of a started event or a heartbeat. CPU and memory so far are in proportion to the time gone."""
    model = beat = used = ""
    if elapsed is not None:
        end = attempt.decoded if attempt.decoded is not None else attempt.process.died
        cpu = memory = 0.0
        if attempt.inferred is not None and at >= attempt.inferred:
            cpu = attempt.cpu * min(1.0, (at - attempt.inferred) / max(1e-9, end - attempt.inferred))
            if at <= end:
                model = f'"gen_ai.request.model":"{attempt.job.stream.model.name}",'
        known = attempt.process.memory
        place = bisect_right(known, at, key=lambda entry: entry[0])
        memory = sum(known[place - 1][1:]) if place else 0.0
        beat = f'"bulk.inference.cpu.time":{cpu:.6f},'
        used = f',"process.memory.usage":{int(memory)}'
    spent = "" if elapsed is None else f'"bulk.job.elapsed":{elapsed:.6f},'
    return (
        f'{{{beat}"bulk.job.attempt":{attempt.number},{spent}"bulk.task.name":"{TASK}","bulk.worker.oom_kills":{kills},'
        f'{model}"messaging.destination.name":"{QUEUE}","messaging.operation.name":"process",'
        f'"messaging.system":"{SYSTEM}"{used}}}'
    )


def _service_columns(services: list[Service]) -> dict[str, Any]:
    return {
        "resource_id": [s.resource_id for s in services], "service_name": [s.name for s in services],
        "service_instance_id": [s.instance for s in services], "host_name": [s.host for s in services],
        "pid": [s.pid for s in services],
    }  # fmt: skip


def _means(at: list[float], ticks: Floats, interval: float) -> Callable[[list[float]], Floats]:
    """Return what gives the mean of a piecewise constant rate over the interval before each tick."""
    times = np.array([min(0.0, float(ticks[0]) - interval), *at, max([0.0, *at[-1:]]) + 1e9])

    def mean(rates: list[float]) -> Floats:
        levels = np.array([0.0, *rates])
        total = np.concatenate([[0.0], np.cumsum(levels * np.diff(times))])
        means: Floats = (np.interp(ticks, times, total) - np.interp(ticks - interval, times, total)) / interval
        return means

    return mean


def _levels(at: list[float], ticks: Floats, values: list[float]) -> Floats:
    """Return a step function's value at each tick; 0 before its first step."""
    position = np.searchsorted(np.array(at), ticks, "right")
    levels: Floats = np.array([0.0, *values])[position]
    return levels
