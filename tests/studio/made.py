"""Systems whose queue is played with service times of a known law, as stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bulkscope_studio.storage.store import Store
from tests.rows import MIB, Places, alive, insert, ns, span, table


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
        places = Places(workers, -1.0)
        used: set[int] = set()
        last = 0.0
        base = len(self.rows)
        for n, (put, work) in enumerate(zip(arrivals, services, strict=True)):
            place, start = places.take(put)
            pid = first_pid + place
            end = start + work + (load if pid not in used else 0.0)
            used.add(pid)
            places.free[place] = end + gap
            last = max(last, end)
            job = f"{bulk}-{base + n}"
            who = {
                "service_instance_id": f"i{pid}", "host_name": "h", "pid": pid, "bulk_id": bulk, "job_id": job,
                "trace_id": f"t{job}",
            }  # fmt: skip
            self.sent(put, job, bulk, queue)
            bad = n in failed
            self.rows.append(
                span(
                    "CONSUMER", ns(start), ns(end), span_id=f"c{job}", attempt=1, queue=queue, wait=start - put,
                    status="ERROR" if bad else "UNSET", outcome="internal_error" if bad else "ok", **who,
                )
            )  # fmt: skip
            model = models[n % len(models)]
            if model:
                self.rows.append(
                    span(
                        "INTERNAL", ns(start), ns(end), span_id=f"i{job}", model=model, output_tokens=tokens,
                        cpu_time=work, memory_peak=300 * MIB, memory_file=100 * MIB, memory_limit=2000 * MIB, **who,
                    )
                )  # fmt: skip
        for pid in range(first_pid, first_pid + workers):
            self.alive[pid] = (min(arrivals), last)
        return last

    def sent(self, put: float, job: str, bulk: str, queue: str = "q") -> None:
        self.rows.append(
            span(
                "PRODUCER", ns(put), ns(put), trace_id=f"t{job}", span_id=f"p{job}", bulk_id=bulk, job_id=job,
                queue=queue,
            )
        )  # fmt: skip

    def store(self, path: Path | None = None, shift_ns: int = 0, seed: int | None = None) -> Store:
        rows = list(self.rows)
        if seed is not None:
            np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
        rows = [row | {name: row[name] + shift_ns for name in ("start_ns", "end_ns")} for row in rows]
        points = [
            alive(ns(at) + shift_ns, service_instance_id=f"i{pid}", host_name="h", pid=pid)
            for pid, times in self.alive.items()
            for at in times
        ]
        store = Store(path or Path(":memory:"))
        connection = store.connection()
        insert(connection, {"spans": table("spans", rows), "points": table("points", points)})
        connection.close()
        return store


def at_once(jobs: int, workers: int, seed: int = 0, mean: float = 1.0, **more: Any) -> Made:
    made = Made()
    services = np.random.default_rng(seed).exponential(mean, jobs)
    made.run(np.linspace(0, 0.01, jobs).tolist(), services.tolist(), workers, **more)
    return made
