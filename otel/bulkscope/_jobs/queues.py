"""Depth of a worker's queues and the age of their oldest job: gauges that ask the broker.

Only the process that began to watch reports: its forked children have the same queues, and a depth that
is reported by each of eight would be added up to eight times as much.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._safe import report

Read = Callable[[str], float | None]

# By metric: who is asked. The SDK hears only the first callback of a name, and a process may watch queues of several
# libraries, or come to know them one by one.
_watched: dict[str, list[tuple[int, list[str], Read]]] = {c.M_QUEUE_DEPTH: [], c.M_QUEUE_OLDEST_AGE: []}
_observed_by: dict[str, Any] = {}


def watch(names: Iterable[str], depth: Read, oldest_age: Read | None = None) -> None:
    """Report, for each queue of ``names``, the waiting jobs and the oldest one's age in seconds.

    ``depth`` and ``oldest_age`` take a name; None is no observation. What they raise is reported.
    """
    listed = sorted(names)
    for metric, read in ((c.M_QUEUE_DEPTH, depth), (c.M_QUEUE_OLDEST_AGE, oldest_age)):
        if read is not None:
            _watched[metric].append((os.getpid(), listed, read))
            _observe(metric)


def _observe(metric: str) -> None:
    provider = _instruments.provider("metrics")
    if _observed_by.get(metric) is provider:
        return
    _observed_by[metric] = provider

    def callback(options: CallbackOptions) -> list[Observation]:
        return [found for pid, names, read in list(_watched[metric]) if pid == os.getpid() for found in _ask(names, read)]

    _instruments.observe(metric, callback)


def _ask(names: list[str], read: Read) -> list[Observation]:
    found: list[Observation] = []
    try:
        for name in names:
            value = read(name)
            if value is not None:
                found.append(Observation(value, {c.MESSAGING_DESTINATION: name}))
    except Exception:
        report("asking the broker for the depth of its queues")
    return found
