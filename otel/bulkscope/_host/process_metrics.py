"""CPU and memory of this process and of its cgroup, observed once an export interval."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Observation

from bulkscope import _instruments
from bulkscope._host.proc import Proc
from bulkscope.conventions import (
    M_PROCESS_CPU_UTILIZATION,
    M_PROCESS_MEMORY_USAGE,
    M_WORKER_CPU_THROTTLED,
    M_WORKER_MEMORY_UTILIZATION,
)


class _CpuShare:
    """CPU time since the last look over wall time times the cores the process may use; 0..1."""

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._restart()

    def _restart(self) -> None:
        self._pid, self._cpu, self._wall = os.getpid(), time.process_time(), time.monotonic()

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        if self._pid != os.getpid():
            # A fork: the clocks of the parent say nothing about the child.
            self._restart()
            return
        cpu, wall = time.process_time(), time.monotonic()
        if wall > self._wall:
            yield Observation((cpu - self._cpu) / (wall - self._wall) / self._cores)
        self._cpu, self._wall = cpu, wall


def observe() -> None:
    """Start to report the process's CPU and memory, and how near it is to the limits of its cgroup."""
    proc = Proc()

    def memory(options: CallbackOptions) -> Iterable[Observation]:
        resident = proc.status().rss
        if resident is not None:
            yield Observation(resident)

    def utilization(options: CallbackOptions) -> Iterable[Observation]:
        share = proc.memory_utilization()
        if share is not None:
            yield Observation(share)

    def throttled(options: CallbackOptions) -> Iterable[Observation]:
        seconds = proc.throttled()
        if seconds is not None:
            yield Observation(seconds)

    _instruments.observe(M_WORKER_MEMORY_UTILIZATION, utilization)
    _instruments.observe(M_WORKER_CPU_THROTTLED, throttled)
    _instruments.observe(M_PROCESS_CPU_UTILIZATION, _CpuShare(proc.allowed_cores() or os.cpu_count() or 1))
    _instruments.observe(M_PROCESS_MEMORY_USAGE, memory)
