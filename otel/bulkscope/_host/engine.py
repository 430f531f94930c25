"""CPU and memory of an engine in another process of this machine, around each call: an OpenAI-compatible server's.

The process is found by its listening socket (``sockets``). Its CPU is that of its clock, its children's included, and
is divided among the calls under way by all processes that carry Bulkscope (``ledger``). Its memory is the resident set
of it and its children. Nothing of the engine is changed: its peak is never reset, as the meter of this process does,
so that a peak below an earlier one is sampled, and marked as an estimate.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bulkscope._host import processes, sockets
from bulkscope._host.ledger import Ledger
from bulkscope._host.meter import Usage, grown, share
from bulkscope._host.proc import Proc, Status

SAMPLE_SECONDS = 0.05
# To look through all processes takes 5 ms beside 300 of them; with thousands the first call goes unmeasured.
SEARCH_SECONDS = 0.05
# What was not found may have been started since; asked for each call it would be felt.
AGAIN_SECONDS = 10.0
# A server's children (Ollama's runners) come and go, seldom; to list them reads a file a thread.
FAMILY_SECONDS = 1.0
_ROOT = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Reading:
    cpu: float
    family: list[int]
    rss: int | None
    hwm: int | None  # of one process; where there are several, their peaks need not have been at one time


class Call:
    """A call that has begun; made by ``Engine.begin``."""

    __slots__ = ("delay", "hwm", "mixed", "peak", "pressure", "share", "start", "started", "throttled")

    def __init__(self, share: float, mixed: float, reading: _Reading) -> None:
        self.share, self.mixed = share, mixed
        self.start = self.peak = reading.rss
        self.hwm = reading.hwm
        self.started = time.perf_counter()
        self.pressure: float | None = None
        self.throttled: float | None = None
        self.delay: dict[int, int] | None = None


class Engine:
    """One process that answers calls, and what descends from it. Safe from several threads."""

    def __init__(self, pid: int, root: Path = _ROOT, folder: Path | None = None) -> None:
        self.pid, self._root = pid, root
        self.command = processes.command(root, pid)
        self.name = processes.name(root, pid)
        self._proc = Proc(root, who=str(pid))
        self.cores = self._proc.allowed_cores() or os.cpu_count() or 1
        self.memory_limit = self._proc.memory_limit()
        self._ledger = Ledger(self.name, processes.name(root, os.getpid()), folder)
        self._lock = threading.Lock()
        self._family: list[int] = []
        self._listed = 0.0
        self._open: list[Call] = []
        self._sampling = False

    def lives(self) -> bool:
        """Return whether the process still runs."""
        return processes.lives(self._root, self.name)

    def begin(self) -> Call | None:
        """Begin a call; None where the engine, or what others know of it, cannot be read."""
        reading = self._read()
        if reading is None:
            return None
        page = self._ledger.turn(1, reading.cpu, reading.family)
        if page is None:
            self._ledger.forget(1)
            return None
        call = Call(page.share, page.mixed, reading)
        call.pressure, call.throttled = self._proc.pressure(), self._proc.throttled()
        call.delay = self._proc.run_delay() if sum(page.calls.values()) == 1 else None
        with self._lock:
            self._open.append(call)
        self._sample()
        return call

    def end(self, call: Call) -> Usage | None:
        """End a call, from any thread; None where the engine has ended meanwhile."""
        wall = time.perf_counter() - call.started
        with self._lock:
            if call in self._open:
                self._open.remove(call)
        reading = self._read()
        if reading is None:
            self._ledger.forget(1)
            return None
        page = self._ledger.turn(-1, reading.cpu, reading.family)
        if page is None:
            return None
        cpu = max(0.0, page.share - call.share)
        exact = self._ledger.shared and page.mixed == call.mixed
        pressure, throttled = self._proc.pressure(), self._proc.throttled()
        peak, peak_exact = _peak(call, reading)
        status = self._proc.status()
        return Usage(
            wall=wall,
            cpu=cpu,
            cpu_exact=exact,
            utilization=cpu / (wall * self.cores) if wall > 0 else None,
            pressure=share(call.pressure, pressure, wall),
            throttled=None if throttled is None or call.throttled is None else throttled - call.throttled,
            cpu_wait=grown(call.delay, self._proc.run_delay()) if exact and call.delay is not None else None,
            memory_start=call.start,
            memory_peak=peak,
            memory_file=None if len(reading.family) > 1 or status.file is None else status.file + (status.shmem or 0),
            memory_anon=None if len(reading.family) > 1 else status.anon,
            memory_exact=peak_exact,
        )

    def _read(self) -> _Reading | None:
        """Return what the engine has used and holds; None where it has ended."""
        now = time.monotonic()
        with self._lock:
            if now - self._listed > FAMILY_SECONDS:
                self._family, self._listed = processes.family(self._root, self.pid), now
            family = self._family
        used = {pid: processes.cpu_seconds(self._root, pid) for pid in family}
        if used.get(self.pid) is None:
            return None
        living = [pid for pid, cpu in used.items() if cpu is not None]
        held = [self._status(pid) for pid in living]
        rss = [status.rss for status in held if status.rss is not None]
        return _Reading(
            cpu=sum(cpu for cpu in used.values() if cpu is not None),
            family=living,
            rss=sum(rss) if rss else None,
            hwm=held[0].hwm if len(held) == 1 else None,
        )

    def _status(self, pid: int) -> Status:
        return (self._proc if pid == self.pid else Proc(self._root, who=str(pid))).status()

    def _sample(self) -> None:
        """Look at the resident set while a call is under way."""
        with self._lock:
            if self._sampling:
                return
            self._sampling = True
        try:
            threading.Thread(target=self._look, name="bulkscope-engine", daemon=True).start()
        except RuntimeError:  # no more threads here: the next call asks again
            self._sampling = False

    def _look(self) -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            with self._lock:
                if not self._open:
                    self._sampling = False
                    return
                calls = list(self._open)
            reading = self._read()
            if reading is not None and reading.rss is not None:
                for call in calls:
                    call.peak = max(call.peak or 0, reading.rss)


def _peak(call: Call, reading: _Reading) -> tuple[int | None, bool]:
    """Return the highest resident set during a call, and whether the kernel says so.

    It does where the process's peak has grown meanwhile, and where it was at its peak when the call began or ended.
    """
    seen = max((held for held in (call.peak, reading.rss) if held is not None), default=None)
    if seen is None or call.hwm is None or reading.hwm is None:
        return seen, False
    if reading.hwm > call.hwm or seen >= reading.hwm:
        return reading.hwm, True
    return seen, False


@dataclass(slots=True)
class _Place:
    """What is known of an address; ``reason`` says why there is no engine."""

    engine: Engine | None
    reason: str
    looked: float


class Engines:
    """The engines of this machine by their addresses. Safe from several threads."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the parent's calls and its locks are not the child's

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], _Place] = {}

    def at(self, host: str, port: int) -> Engine | None:
        """Return the engine that answers at an address; None where it cannot be measured, or is still looked for."""
        place = self._places.get((host, port))
        if place is None or (place.engine is not None and not place.engine.lives()):
            return self._search(host, port)
        if place.engine is None and time.monotonic() - place.looked > AGAIN_SECONDS:
            return self._search(host, port)
        return place.engine

    def _search(self, host: str, port: int) -> Engine | None:
        with self._lock:
            self._places[(host, port)] = _Place(None, "it is looked for", time.monotonic())
        done = threading.Event()

        def search() -> None:
            try:
                engine, reason = self._engine(sockets.listener(host, port)), ""
            except sockets.Unseen as error:
                engine, reason = None, str(error)
            except Exception as error:
                engine, reason = None, f"{type(error).__name__}: {error}"
            with self._lock:
                self._places[(host, port)] = _Place(engine, reason, time.monotonic())
            done.set()

        try:
            threading.Thread(target=search, name="bulkscope-engine", daemon=True).start()
        except RuntimeError:  # no more threads here, or Python is ending
            return None
        done.wait(SEARCH_SECONDS)
        return self._places[(host, port)].engine

    def _engine(self, pid: int) -> Engine:
        """Return the one engine of a process: its calls by several names of the host are counted together."""
        with self._lock:
            known = [place.engine for place in self._places.values() if place.engine is not None]
        return next((engine for engine in known if engine.pid == pid and engine.lives()), None) or Engine(pid)


_engines: Engines | None = None


def engines() -> Engines:
    """Return the engines that this process knows."""
    global _engines
    if _engines is None:
        _engines = Engines()
    return _engines
