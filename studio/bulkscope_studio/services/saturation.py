"""Whether a host is full now: its cores, or its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bulkscope_studio.analysis.thresholds import CPU_BUSY, MEMORY_NEAR

# Hosts are sampled every few seconds; what is older is not now.
FRESH_S = 60.0


def saturation(hosts: Sequence[Mapping[str, Any]], last_bin: int, bin_s: float) -> dict[str, Any]:
    """Return which of ``hosts`` (series as ``machine.hosts`` returns them) are full at ``last_bin``, the fullest first.

    ``state`` is ``full`` where cores or memory of a host are in use beyond the thresholds of ``explain``, ``room``
    where those of none are, ``unknown`` where none was sampled in the last minute. Busy cores are what an inference
    host is for: full says that more work has to wait, not that something is wrong. Pressure does not decide it: one
    busy thread a core beside the usual services already keeps something waiting most of the time.
    """
    found = []
    for host in hosts:
        cpu = _latest(host["cpu_share"], last_bin, bin_s)
        used, limit = (_latest(host[f"memory_{name}_bytes"], last_bin, bin_s) for name in ("used", "limit"))
        memory = used / limit if used is not None and limit else None
        if cpu is None and memory is None:
            continue
        full = [
            name
            for name, share, most in (("cores", cpu, CPU_BUSY), ("memory", memory, MEMORY_NEAR))
            if share is not None and share >= most.value
        ]
        pressure = _latest(host["cpu_pressure_share"], last_bin, bin_s)
        found.append(
            {
                "host": host["host"], "full_of": full, "cpu_share": cpu, "memory_share": memory,
                "cpu_pressure_share": pressure,
            }
        )  # fmt: skip
    found.sort(key=lambda host: (-len(host["full_of"]), -(host["cpu_share"] or 0.0)))
    state = "unknown" if not found else "full" if found[0]["full_of"] else "room"
    return {"state": state, "full_hosts": sum(bool(host["full_of"]) for host in found), "hosts": found}


def _latest(values: Sequence[float | None], last_bin: int, bin_s: float) -> float | None:
    """Return the last value that is fresh; None where there is none."""
    if last_bin < 0:
        return None
    fresh = max(1, int(FRESH_S / bin_s))
    told = [value for value in values[max(0, last_bin + 1 - fresh) : last_bin + 1] if value is not None]
    return told[-1] if told else None
