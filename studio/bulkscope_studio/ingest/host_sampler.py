"""CPU and memory of this host, once a second, under the names of the Collector's hostmetrics receiver.

CPU is summed over the cores (the attribute ``cpu`` is left out): the pages show the host as a whole.
Where a file of ``/proc`` is missing there is no sample, never a zero.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.ingest import otlp_decode

logger = logging.getLogger("bulkscope.studio")

SCOPE = "bulkscope.studio/host"
# Order of the first eight fields of /proc/stat; guest time is part of user time already.
_CPU_STATES = ("user", "nice", "system", "idle", "wait", "interrupt", "softirq", "steal")
_COUNTERS = {c.M_SYSTEM_PAGING_FAULTS}
_PRESSURE = ("cpu", "memory", "io")

Sample = tuple[str, str, dict[str, str], float]  # name, unit, attributes, value


class HostSampler:
    """Reads ``proc`` and turns two readings into samples."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._cpu: tuple[int, ...] | None = None
        self._stalled: dict[tuple[str, str], tuple[int, float]] = {}

    def sample(self, now: float) -> list[Sample]:
        """Return the samples at ``now`` (seconds of a monotonic clock); shares need a reading before."""
        return [*self._utilization(), *self._memory(), *self._load(), *self._pressure(now), *self._kernel()]

    def _read(self, name: str) -> str | None:
        try:
            return (self._proc / name).read_text()
        except OSError:
            return None

    def _utilization(self) -> list[Sample]:
        text = self._read("stat")
        if text is None or not text.startswith("cpu "):
            return []
        ticks = tuple(int(field) for field in text.partition("\n")[0].split()[1:9])
        before, self._cpu = self._cpu, ticks
        if before is None:
            return []
        spent = [max(0, now - then) for now, then in zip(ticks, before, strict=True)]
        total = sum(spent)
        if total == 0:
            return []
        return [
            (c.M_SYSTEM_CPU_UTILIZATION, "1", {"state": state}, ticks / total)
            for state, ticks in zip(_CPU_STATES, spent, strict=False)
        ]

    def _memory(self) -> list[Sample]:
        text = self._read("meminfo")
        if text is None:
            return []
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in text.splitlines() if len(line.split()) > 1}
        if not {"MemTotal", "MemFree", "Buffers", "Cached"} <= kib.keys():
            return []
        # The receiver's arithmetic: what is neither free nor buffers nor cache is used.
        cached = kib["Cached"] + kib.get("SReclaimable", 0)
        states = {"free": kib["MemFree"], "buffered": kib["Buffers"], "cached": cached}
        states["used"] = kib["MemTotal"] - sum(states.values())
        found: list[Sample] = []
        for state, size in states.items():
            found.append((c.M_SYSTEM_MEMORY_USAGE, "By", {"state": state}, size * 1024.0))
            found.append((c.M_SYSTEM_MEMORY_UTILIZATION, "1", {"state": state}, size / kib["MemTotal"]))
        return found

    def _load(self) -> list[Sample]:
        text = self._read("loadavg")
        return [] if text is None else [(c.M_SYSTEM_CPU_LOAD_1M, "{thread}", {}, float(text.split()[0]))]

    def _kernel(self) -> list[Sample]:
        found: list[Sample] = []
        for line in (self._read("vmstat") or "").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                found.append((c.M_SYSTEM_OOM_KILLS, "{process}", {}, float(count)))
            elif name == "pgmajfault":
                found.append((c.M_SYSTEM_PAGING_FAULTS, "{fault}", {"type": "major"}, float(count)))
        return found

    def _pressure(self, now: float) -> list[Sample]:
        found: list[Sample] = []
        for resource in _PRESSURE:
            for line in (self._read(f"pressure/{resource}") or "").splitlines():
                level, _, rest = line.partition(" ")
                total = int(rest.rpartition("total=")[2])
                before = self._stalled.get((resource, level))
                self._stalled[resource, level] = (total, now)
                if before is not None and now > before[1]:
                    share = (total - before[0]) / 1e6 / (now - before[1])
                    attributes = {"resource": resource, "level": level}
                    found.append((c.M_SYSTEM_PRESSURE, "1", attributes, min(1.0, max(0.0, share))))
        return found


def to_points(samples: list[Sample], now_ns: int, host: str) -> pa.Table:
    """Return samples as rows of ``points``."""
    index = {name: position for position, (name, _) in enumerate(otlp_decode.POINTS)}
    rows = []
    for name, unit, attributes, value in samples:
        row: list[Any] = [None] * len(index)
        row[index["time_ns"]], row[index["name"]], row[index["unit"]] = now_ns, name, unit
        row[index["type"]], row[index["scope"]], row[index["host_name"]] = "gauge", SCOPE, host
        if name in _COUNTERS:
            row[index["type"]], row[index["temporality"]], row[index["monotonic"]] = "sum", "cumulative", True
        row[index["attributes"]] = json.dumps(attributes, sort_keys=True, separators=(",", ":")) if attributes else None
        row[index["value"]] = value
        rows.append(row)
    return otlp_decode.to_arrow("points", rows)


def start(write: Callable[[dict[str, pa.Table]], Any], interval: float = 1.0) -> Callable[[], None]:
    """Sample every ``interval`` seconds in a thread; return what stops it."""
    stopped = threading.Event()
    sampler, host = HostSampler(), socket.gethostname()

    def run() -> None:
        while not stopped.wait(interval):
            try:
                samples = sampler.sample(time.monotonic())
                if samples:
                    write({"points": to_points(samples, time.time_ns(), host)})
            except Exception:
                logger.warning("the host could not be sampled", exc_info=True)

    thread = threading.Thread(target=run, name="bulkscope-host", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join(5)

    return stop
