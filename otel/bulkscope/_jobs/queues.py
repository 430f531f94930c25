"""Depth of a worker's queues and the age of their oldest job: gauges that ask the broker.

Only the process that began to watch reports: its forked children have the same queues, and a depth that
is reported by each of eight would be added up to eight times as much.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Observation

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._safe import report

Read = Callable[[str], float | None]

# By metric what is asked, and the process that began to: the SDK keeps one callback of a name, and drops any other.
_asked: dict[str, list[tuple[list[str], Read, int]]] = {}


def watch(names: Iterable[str], depth: Read, oldest_age: Read | None = None) -> None:
    """Report, for each queue of ``names``, the waiting jobs and the oldest one's age in seconds.

    ``depth`` and ``oldest_age`` take a name; None is no observation. What they raise is reported.
    """
    listed = sorted(names)
    _ask(c.M_QUEUE_DEPTH, listed, depth)
    if oldest_age is not None:
        _ask(c.M_QUEUE_OLDEST_AGE, listed, oldest_age)


def _ask(metric: str, names: list[str], read: Read) -> None:
    first = metric not in _asked
    _asked.setdefault(metric, []).append((names, read, os.getpid()))
    if first:
        _instruments.observe(metric, lambda options: _observations(metric, options))


def _observations(metric: str, options: CallbackOptions) -> list[Observation]:
    found: list[Observation] = []
    for names, read, pid in list(_asked[metric]):
        if os.getpid() != pid:
            continue
        try:
            for name in names:
                value = read(name)
                if value is not None:
                    found.append(Observation(value, {c.MESSAGING_DESTINATION: name}))
        except Exception:
            report("asking the broker for the depth of its queues")
    return found
