"""llama.cpp's real server behind HTTP: what tests of its clients share.

``check`` holds CPU and memory of a server in another process against what the kernel says of that process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.trace import SpanKind

from bulkscope._host.engine import engines
from bulkscope._instrumentor import Instrumentor
from tests.telemetry import Telemetry, telemetry
from tests.tiny_server import LETTERS, apart

TICKS = os.sysconf("SC_CLK_TCK")
ASKED: dict[str, Any] = {
    "model": "mine", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 5, "logit_bias": LETTERS,
    "cache_prompt": False,
}  # fmt: skip


@contextmanager
def recording(instrumentor: Instrumentor) -> Iterator[Telemetry]:
    """Instrument, and give what is recorded."""
    found = telemetry()
    found.clear()
    instrumentor.instrument()
    yield found
    instrumentor.uninstrument()


def check_chat(recorded: Telemetry) -> None:
    """Check the one span of a chat that was asked as ``ASKED`` says."""
    (span,) = recorded.spans()
    assert (span.name, span.kind) == ("chat mine", SpanKind.CLIENT)
    found = span.attributes
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (4, 5)
    assert found["gen_ai.response.finish_reasons"] == ("length",)


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
