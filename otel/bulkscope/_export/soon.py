"""What is said as a job begins leaves soon, and not with the next batch: a process that is killed takes that with it.

A job that ends before it was held for ``HOLD_S`` costs nothing: its span says that it began. A longer one costs one
request, of a thread that no job waits for. An end point that is away is not asked more often than it is anyhow.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from bulkscope._export import pipeline
from bulkscope._safe import guarded

# A request costs 1 ms of CPU: of a job of this length 2 %, of one of a second 0.1 %.
HOLD_S = 0.05
# Between two requests: a process that works on many jobs at once sends what all of them said together.
_GAP_S = 0.1
# After an end point took longer than this, what is said waits for the batch for so long.
_SLOW_S, _REST_S = 1.0, 10.0
# Spans first: of jobs that have ended it must be known before a later one is said to have begun and never ended.
_SIGNALS = ("traces", "logs")


class Soon:
    """Sends spans and log records when ``unsent`` says that a job runs of which nobody has heard.

    It is given seconds, and returns whether one has run for so long, which is sent now, and whether a younger one runs.
    """

    def __init__(self, unsent: Callable[[float], tuple[bool, bool]]) -> None:
        self._unsent = unsent
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Let what was just logged leave soon; returns at once."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="bulkscope-soon", daemon=True)
                    thread.start()
                    self._thread = thread  # only one that runs: "can't start new thread" may pass
        if not self._asked.is_set():
            self._asked.set()

    def _work(self) -> None:
        while True:
            self._asked.wait()
            time.sleep(HOLD_S)
            self._asked.clear()
            time.sleep(guarded(self._send)() or 0.0)

    def _send(self) -> float:
        """Return the seconds to rest afterwards."""
        if _away():
            return 0.0
        due, younger = self._unsent(HOLD_S)
        if younger:
            self._asked.set()
        if not due:
            return 0.0
        began = time.monotonic()
        providers = pipeline.providers()
        for signal in _SIGNALS:
            if signal in providers:
                providers[signal].force_flush()
        return _REST_S if time.monotonic() - began > _SLOW_S else _GAP_S - HOLD_S


def _away() -> bool:
    """Tell whether an end point is known not to answer."""
    sent = (exporter for signal, _, exporter in pipeline.exporters() if signal in _SIGNALS)
    return any(getattr(getattr(exporter, "sender", None), "down", False) for exporter in sent)
