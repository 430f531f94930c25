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


def watch(names: Iterable[str], depth: Read, oldest_age: Read | None = None) -> None:
    """Report, for each queue of ``names``, the waiting jobs and the oldest one's age in seconds.

    ``depth`` and ``oldest_age`` take a name; None is no observation. What they raise is reported.
    """
    listed, pid = sorted(names), os.getpid()

    def observe(read: Read) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(options: CallbackOptions) -> list[Observation]:
            found: list[Observation] = []
            if os.getpid() != pid:
                return found
            try:
                for name in listed:
                    value = read(name)
                    if value is not None:
                        found.append(Observation(value, {c.MESSAGING_DESTINATION: name}))
            except Exception:
                report("asking the broker for the depth of its queues")
            return found

        return callback

    _instruments.observe(c.M_QUEUE_DEPTH, observe(depth))
    if oldest_age is not None:
        _instruments.observe(c.M_QUEUE_OLDEST_AGE, observe(oldest_age))
