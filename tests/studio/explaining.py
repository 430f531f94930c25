"""Stores for tests of ``explain``: tables of the simulator, and bulks that are written down job by job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkscope_studio.rendering import explanation
from bulkscope_studio.services.explanations import bulk_explanation
from bulkscope_studio.storage.store import Store
from tests import rows
from tests.rows import Tables, ns, span, table
from tests.simulator import records
from tests.simulator.scenarios import Scenario

_THINGS = (
    "jobs|workers|times|attempts|cores|slots|processes|spans|records|requests|tokens|inferences|bulks|queues|hosts|"
    "models|pairs|stalls|steps|threads|counts|are|were|have"
)
# What must not stand in a sentence: absent numbers, negative zeros, nothing counted as if it were something, wrong
# plurals, ranges from a number to itself, empty brackets, floating point as programs write it.
SILLY = re.compile(
    r"–|\bnan\b|\binf\b|None|(?<![\w-])-0(?![.\d])|\b0 workers"
    rf"|(?<![\d.,])1 (?:(?!of\b|by\b)[a-z-]+ )?(?:{_THINGS})\b(?!/s)"
    r"|(?<![\d.,+-])([+-]?\d[\d.,]*(?: [%a-z]+)?) to \1(?![\d.,]*\d)"
    r"|\(\)|\[\]|\d[eE][+-]\d|  |; ;|: ;|\.\.",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a job, times in s. None of ``put``: no sender's record; of ``start``: nobody has taken it; of
    ``end``: it goes on, last heard of at ``seen``. ``wait`` is worked out from ``put``, unless it is given.

    ``columns`` replace those of the worker's span, ``inference`` those of the inference (None: it has none), which
    lasts from start to end unless it has its own. ``killed``: its process was, and the parent tells of it, in a span
    with another id than what the process said; a ``seen`` is its heartbeat.
    """

    name: str | None
    put: float | None
    start: float | None = None
    end: float | None = None
    worker: int | None = 1
    bulk: str = "bulk"
    attempt: int = 1
    delay: float | None = None
    wait: float | None = None
    seen: float | None = None
    host: str | None = "h"
    columns: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] | None = field(default_factory=lambda: {"model": "m"})
    killed: bool = False


def written(
    jobs: Iterable[Job],
    requests: Iterable[Mapping[str, Any]] = (),
    points: Iterable[Mapping[str, Any]] = (),
    resources: Mapping[int, Mapping[str, Any]] | None = None,
) -> Tables:
    """Return the tables of ``jobs``; ``resources`` are the attributes of workers."""
    spans: list[dict[str, Any]] = []
    logs: list[dict[str, Any]] = []
    for number, job in enumerate(jobs, 1):
        own = {"bulk_id": job.bulk, "job_id": job.name, "trace_id": f"{number:032x}"}
        identity = f"{number:016x}"
        if job.put is not None and job.attempt == 1:
            spans.append(
                span(
                    "PRODUCER", ns(job.put), ns(job.put), span_id=f"a{identity[1:]}", name="send", delay=job.delay,
                    queue=job.columns.get("queue"), **own,
                )
            )  # fmt: skip
        if job.start is None:
            continue
        at = {"host_name": job.host, "pid": job.worker}
        if job.worker is not None:
            at |= {"service_instance_id": f"i{job.worker}", "resource_id": f"r{job.worker}"}
        wait = job.wait
        if wait is None and job.put is not None:
            wait = job.start - job.put - (job.delay or 0.0)
        logs.append(
            own | at | {"span_id": identity, "time_ns": ns(job.start), "event_name": "bulk.job.started",
                        "attributes": json.dumps({"bulk.job.attempt": job.attempt})}
        )  # fmt: skip
        if job.end is None or (job.killed and job.seen is not None):
            logs.append(logs[-1] | {"time_ns": ns(job.seen or job.start), "event_name": "bulk.job.heartbeat"})
        if job.end is None:
            continue
        of_parent: dict[str, Any] = {}
        if job.killed:
            of_parent = {"span_id": f"d{identity[1:]}", "service_instance_id": None, "resource_id": "r0"}
        spans.append(
            span(
                "CONSUMER", ns(job.start), ns(job.end), span_id=identity, name="process", outcome="ok", wait=wait,
                delay=job.delay, attempt=job.attempt,
            ) | own | at | of_parent | job.columns
        )  # fmt: skip
        if job.inference is not None and not job.killed:
            spans.append(
                span("INTERNAL", ns(job.start), ns(job.end), span_id=f"b{identity[1:]}", name="chat")
                | own | at | job.inference
            )  # fmt: skip
    for number, asked in enumerate(requests, 1):
        spans.append(
            {"trace_id": f"{number:032x}", "span_id": f"c{number:015x}", "name": "POST /bulks", "kind": "SERVER",
             "status": "UNSET", "bulk_id": "bulk", "http_method": "POST", "outcome": "ok"} | asked
        )  # fmt: skip
    of_workers = [
        {"resource_id": f"r{worker}", "attributes": json.dumps(attributes)}
        for worker, attributes in (resources or {}).items()
    ]
    found = {"spans": spans, "logs": logs, "points": list(points), "resources": of_workers}
    return {name: table(name, content) for name, content in found.items() if content}


def alive(worker: int, first: float, last: float, host: str = "h") -> list[dict[str, Any]]:
    """Return samples by which a worker is known to have lived from ``first`` to ``last``, both in s."""
    return [
        rows.alive(
            ns(at), 1e8, host_name=host, pid=worker, service_instance_id=f"i{worker}", resource_id=f"r{worker}"
        )
        for at in (first, last)
    ]  # fmt: skip


@contextmanager
def stored(tables: Tables, path: Path = Path(":memory:")) -> Iterator[Store]:
    """Open a store that holds ``tables``."""
    store = Store(path)
    try:
        insert(store, tables)
        yield store
    finally:
        store.close()


def insert(store: Store, tables: Tables) -> None:
    """Add the rows of ``tables``."""
    cursor = store.connection()
    rows.insert(cursor, tables)
    cursor.close()


def explain(tables: Tables, bulk: str = "bulk", now: float = 1e6) -> dict[str, Any]:
    """Return the explanation of ``bulk`` as of ``now`` s."""
    with stored(tables) as store:
        found = bulk_explanation(store, bulk, now_ns=ns(now))
    assert found is not None, "nothing is known of the bulk"
    return found


def simulated(scenario: Scenario) -> tuple[Tables, float]:
    """Return the tables of a scenario, and when its verdict is asked for, in s."""
    run = scenario.run()
    return records.rows(run)[0], (scenario.now_ns(run) - rows.BEGIN_NS) / 1e9


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Return everything that is said in words."""
    for finding in found["findings"]:
        yield finding["text"]
        yield from (item["text"] for item in finding["evidence"])
    yield from explanation.summary(found)
    yield from explanation.chain(found)


def silly(found: Mapping[str, Any], names: Iterable[str] = ()) -> list[str]:
    """Return the sentences that should not be; ``names`` from outside may hold anything."""
    wrong = []
    for sentence in sentences(found):
        told = sentence
        for name in names:
            told = told.replace(name, "x")
        if SILLY.search(told) or not told.strip():
            wrong.append(sentence)
    return wrong


def sums(found: Mapping[str, Any]) -> list[str]:
    """Return which of the parts that make a whole do not."""
    wrong = []

    def same(what: str, parts: Iterable[float], whole: float) -> None:
        total = sum(parts)
        if abs(total - whole) > 1e-6 * max(1.0, abs(whole)):
            wrong.append(f"{what}: {total} is not {whole}")

    workers, path, length = found["workers"], found["path"], found["makespan"]
    same("workers", (workers[k] for k in ("own_s", "others_s", "dispatch_s", "idle_s")), workers["capacity_s"])
    if path is not None:
        parts = ("start", "absent", "dispatch", "delay", "work_own", "work_others")
        same("path", (path[part] for part in parts), path["length"])
        wrong += [f"path: {part} is {path[part]}" for part in parts if path[part] < 0]
    if length is not None and length["measured"] < length["floor"] - 1e-6:
        wrong.append(f"makespan {length['measured']} is under its floor {length['floor']}")
    wrong += [f"{key} is {value}" for key, value in found["time_s"].items() if value is not None and value < 0]
    return wrong
