"""What the meter can read on this machine: memory, CPU, pressure, throttling, and what asking costs."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

from bulkscope._doctor.findings import OK, WARNING, Finding
from bulkscope._host.meter import Meter
from bulkscope._host.proc import Proc

SUBJECT = "meter"
_TIMES = 20
# Of a job's inference of half a second a hundredth.
_SLOW_S = 0.005
_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Sight:
    """What can be seen of CPU and memory. ``cpu`` and ``peak`` are exact, estimated or absent, each with its reason."""

    cpu: str
    cpu_why: str
    peak: str
    peak_why: str
    findings: tuple[Finding, ...]


def _threads_have_clocks() -> bool:
    return sys.platform.startswith("linux")


def sight(proc: Proc | None = None) -> Sight:
    """Look at ``proc``, this process by default."""
    real, proc = proc is None, proc or Proc()
    status = proc.status()
    found = [_memory(proc), _cores(proc)]
    peak, peak_why = "exact", "the kernel's own peak"
    if status.rss is None:
        peak, peak_why = "absent", "/proc/self/status cannot be read"
        found.append(Finding(SUBJECT, WARNING, "/proc is not there: no memory of a process", "mount /proc there"))
    elif status.hwm is None:
        peak, peak_why = "estimated", "sampled every 50 ms, as the kernel gives no peak (VmHWM)"
        found.append(
            Finding(SUBJECT, WARNING, "no VmHWM in /proc/self/status: peaks are sampled", "use a Linux kernel")
        )
    elif not proc.reset_peak():
        peak, peak_why = "estimated", "sampled every 50 ms, as /proc/self/clear_refs may not be written"
        found.append(
            Finding(SUBJECT, WARNING, "/proc/self/clear_refs may not be written: peaks are sampled, and marked as such",
                    "let the process write its own /proc (no read-only /proc, no profile that forbids it)")
        )  # fmt: skip
    else:
        found.append(Finding(SUBJECT, OK, "/proc: memory and its exact peak"))
    cpu, cpu_why = ("exact", "clocks of process and threads") if _threads_have_clocks() else (
        "estimated", "other threads' CPU cannot be told apart on this system"
    )  # fmt: skip
    if proc.pressure() is None:
        found.append(
            Finding(SUBJECT, WARNING, "no PSI: the share of an inference in which tasks waited for a CPU is absent",
                    "start the kernel with psi=1 (CONFIG_PSI), or accept that it is missing")
        )  # fmt: skip
    else:
        found.append(Finding(SUBJECT, OK, "PSI: the share of the time in which tasks waited for a CPU"))
    if proc.run_delay() is None:
        found.append(
            Finding(SUBJECT, WARNING, "no schedstat: the time that its own threads waited for a CPU is absent",
                    "use a kernel with CONFIG_SCHED_INFO and a readable /proc/self/task/*/schedstat")
        )  # fmt: skip
    else:
        found.append(Finding(SUBJECT, OK, "schedstat: the time that the process's own threads waited for a CPU"))
    if real:
        found.append(_cost(proc))
    return Sight(cpu, cpu_why, peak, peak_why, tuple(found))


def _memory(proc: Proc) -> Finding:
    limit, share = proc.memory_limit(), proc.memory_utilization()
    if limit is None:
        return Finding(SUBJECT, WARNING, "no limit of memory is known: how near a process is to it is absent",
                       "mount /proc/meminfo, and the cgroup tree at /sys/fs/cgroup")  # fmt: skip
    kind = f"of its cgroup, {share:.0%} in use" if share is not None else "the host's; its cgroup sets none"
    return Finding(SUBJECT, OK, f"memory limit {limit / _MIB:,.0f} MiB, {kind}")


def _cores(proc: Proc) -> Finding:
    cores, throttled = proc.allowed_cores(), proc.throttled()
    if cores is None:
        return Finding(SUBJECT, WARNING, "the cores that it may use are not known: of CPU only seconds are shown",
                       "let it read /proc/self/status")  # fmt: skip
    versions = {"v2": "cgroup v2", "cpu": "cgroup v1"}
    version = next((said for kind, said in versions.items() if kind in proc.cgroups()), "no cgroup")
    # The root's cgroup has no quota, and so no count of the time held back.
    held = (
        "no quota to be held back by" if throttled is None else f"held back by its quota for {throttled:,.1f} s so far"
    )
    return Finding(SUBJECT, OK, f"{cores:g} cores may be used; {version}, {held}")


def _cost(proc: Proc) -> Finding:
    meter, spent = Meter(proc), []
    for _ in range(_TIMES):
        began = time.perf_counter()
        meter.end(meter.begin())
        spent.append(time.perf_counter() - began)
    cost = statistics.median(spent)
    if cost <= _SLOW_S:
        return Finding(SUBJECT, OK, f"measuring one inference takes {cost * 1e3:.2f} ms")
    what = f"measuring one inference takes {cost * 1e3:.0f} ms: reading /proc is slow here"
    return Finding(SUBJECT, WARNING, what, "expect short inferences to take longer; sandboxes as gVisor are slow at it")
