"""The jobs that run in this process: each says that it runs, once a second, and soon after it began."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from opentelemetry._logs import SeverityNumber

from bulkscope import conventions as c
from bulkscope._export.soon import Soon
from bulkscope._safe import guarded

INTERVAL_S = 1.0


class Running(Protocol):
    """A job that runs: ``clock`` is when it began (``time.perf_counter``), ``sent`` that the word of it has left."""

    clock: float
    sent: bool

    def elapsed(self) -> dict[str, float | int]: ...

    def event(
        self, name: str, attributes: Mapping[str, Any] | None = None, severity: SeverityNumber = SeverityNumber.INFO
    ) -> None: ...


class Heartbeat:
    """One daemon thread a process that reports every running job once a second."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)
        self._soon = Soon(self.unsent)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Running] = set()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, work: Running) -> None:
        """Report ``work`` from now on, for the first time soon."""
        with self._lock:
            self._running.add(work)
            if self._thread is None:
                thread = threading.Thread(target=self._beat, name="bulkscope-heartbeat", daemon=True)
                thread.start()
                self._thread = thread  # only one that runs: "can't start new thread" may pass
        self._awake.set()
        self._soon.ask()

    def remove(self, work: Running) -> None:
        """Report ``work`` no longer."""
        with self._lock:
            self._running.discard(work)
            if not self._running:
                self._awake.clear()

    def unsent(self, seconds: float) -> tuple[bool, bool]:
        """Tell whether a job has run for so long whose beginning has not left yet, and whether a younger one runs.

        Whoever asks sends the former.
        """
        until = time.perf_counter() - seconds
        with self._lock:
            young = {work for work in self._running if not work.sent and work.clock > until}
            due = [work for work in self._running - young if not work.sent]
            for work in due:
                work.sent = True
        return bool(due), bool(young)

    def _beat(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(INTERVAL_S)
            with self._lock:
                running = list(self._running)
            for work in running:
                self._report(work)

    @guarded
    def _report(self, work: Running) -> None:
        elapsed = work.elapsed()
        # A job younger than a beat has just said that it started.
        if elapsed[c.JOB_ELAPSED] >= INTERVAL_S:
            work.event(c.EVENT_JOB_HEARTBEAT, elapsed, SeverityNumber.DEBUG)


heartbeat = Heartbeat()
