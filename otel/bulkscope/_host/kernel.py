"""What the kernel says beside a job: kills for memory, resident bytes, and how full the cgroup is."""

from __future__ import annotations

import time
from functools import cache

from bulkscope import conventions as c
from bulkscope._host.proc import Proc

# Read at most twice a second, 0.1 ms each time.
_FRESH_S = 0.5


@cache
def _proc() -> Proc:
    return Proc()


def oom_kills() -> int | None:
    """Return how many processes the kernel has killed for memory, ever, in our cgroup, else on the host."""
    return _proc().oom_kills()


def resident() -> int | None:
    """Return the resident bytes of this process."""
    return _proc().status().rss


_last: tuple[float, dict[str, float | int]] = (0.0, {})


def beside_a_job() -> dict[str, float | int]:
    """Return kills for memory, resident bytes and the cgroup's utilization by attribute, up to half a second old."""
    global _last
    now = time.monotonic()
    if now - _last[0] > _FRESH_S:
        said = {
            c.OOM_KILLS: oom_kills(), c.M_PROCESS_MEMORY_USAGE: resident(),
            c.M_WORKER_MEMORY_UTILIZATION: _proc().memory_utilization(),
        }  # fmt: skip
        _last = (now, {name: value for name, value in said.items() if value is not None})
    return _last[1]
