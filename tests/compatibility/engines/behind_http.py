"""CPU and memory of llama.cpp's real server in another process, against what the kernel says of that process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from bulkscope._host.engine import engines
from tests.telemetry import Telemetry
from tests.tiny_server import apart

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process, in clock ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def check(recorded: Telemetry, model: Path, ask: Callable[[str], None]) -> None:
    """Have ``ask`` send one request to a server and check the numbers of its span."""
    with apart(model) as (url, pid):
        host, _, port = url.rpartition("//")[2].rpartition(":")
        latest = time.monotonic() + 30
        while engines().at(host, int(port)) is None:  # the first call of a process may be over before it is found
            assert time.monotonic() < latest
            time.sleep(0.05)
        ask(url)
        recorded.clear()
        before = cpu(pid)
        ask(url)
        used = cpu(pid) - before
        status = Path(f"/proc/{pid}/status").read_text()
    (span,) = recorded.spans()
    found = span.attributes
    assert found["bulk.inference.engine.pid"] == pid
    assert found["bulk.inference.cpu.exact"] is True
    assert abs(found["bulk.inference.cpu.time"] - used) <= 0.03, "two ticks, and its rest after the answer"
    resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert abs(found["bulk.inference.memory.peak"] - resident) < 0.2 * resident
