"""Systems whose queue is played with service times of a known law, as stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bulkscope_studio.storage.store import Store
from tests.rows import insert, table

START_NS = 1_760_000_000_000_000_000
MIB = 2**20


@dataclass
class Made:
    """Spans of a system, to be stored; times in s from the start."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    alive: dict[int, tuple[float, float]] = field(default_factory=dict)

    def run(
        self, arrivals: Sequence[float], services: Sequence[float], workers: int, *, bulk: str = "b", queue: str = "q",
        models: Sequence[str] = ("m",), tokens: int | None = 10, first_pid: int = 1, load: float = 0.0,
        gap: float = 0.0, failed: Sequence[int] = (),
    ) -> float:  # fmt: skip
        """First come, first served; a worker's first job takes ``load`` s more, each place stands free for ``gap``."""
        free = [(-1.0, first_pid + n) for n in range(workers)]
        used: set[int] = set()
        last = 0.0
        base = len(self.rows)
        for n, (put, work) in enumerate(zip(arrivals, services, strict=True)):
            free.sort()
            ready, pid = free.pop(0)
            start = max(put, ready)
            end = start + work + (load if pid not in used else 0.0)
            used.add(pid)
            free.append((end + gap, pid))
            last = max(last, end)
            job = f"{bulk}-{base + n}"
            who = {
                "service_instance_id": f"i{pid}", "host_name": "h", "pid": pid, "bulk_id": bulk, "job_id": job,
                "trace_id": f"t{job}",
            }  # fmt: skip
            self.sent(put, job, bulk, queue)
            bad = n in failed
            self.rows.append(
                who | {
                    "span_id": f"c{job}", "kind": "CONSUMER", "start_ns": ns(start), "end_ns": ns(end), "attempt": 1,
                    "status": "ERROR" if bad else "UNSET", "outcome": "internal_error" if bad else "ok", "queue": queue,
                    "wait": start - put,
                }
            )  # fmt: skip
            model = models[n % len(models)]
            if model:
                self.rows.append(
                    who | {
                        "span_id": f"i{job}", "kind": "INTERNAL", "start_ns": ns(start), "end_ns": ns(end),
                        "status": "UNSET", "model": model, "output_tokens": tokens, "cpu_time": work,
                        "memory_peak": 300 * MIB, "memory_file": 100 * MIB, "memory_limit": 2000 * MIB,
                    }
                )  # fmt: skip
        for _, pid in free:
            self.alive[pid] = (min(arrivals), last)
        return last

    def sent(self, put: float, job: str, bulk: str, queue: str = "q") -> None:
        self.rows.append(
            {
                "trace_id": f"t{job}", "span_id": f"p{job}", "kind": "PRODUCER", "start_ns": ns(put), "end_ns": ns(put),
                "status": "UNSET", "bulk_id": bulk, "job_id": job, "queue": queue,
            }
        )  # fmt: skip

    def store(self, path: Path | None = None, shift_ns: int = 0, seed: int | None = None) -> Store:
        rows = list(self.rows)
        if seed is not None:
            np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
        rows = [row | {name: row[name] + shift_ns for name in ("start_ns", "end_ns")} for row in rows]
        points = [
            {"time_ns": ns(at) + shift_ns, "name": "process.memory.usage", "type": "sum", "value": 1.0,
             "service_instance_id": f"i{pid}", "host_name": "h", "pid": pid}
            for pid, times in self.alive.items()
            for at in times
        ]  # fmt: skip
        store = Store(path or Path(":memory:"))
        connection = store.connection()
        insert(connection, {"spans": table("spans", rows), "points": table("points", points)})
        connection.close()
        return store


def ns(at: float) -> int:
    return START_NS + round(at * 1e9)


def at_once(jobs: int, workers: int, seed: int = 0, mean: float = 1.0, **more: Any) -> Made:
    made = Made()
    services = np.random.default_rng(seed).exponential(mean, jobs)
    made.run(np.linspace(0, 0.01, jobs).tolist(), services.tolist(), workers, **more)
    return made
