"""CPU and memory of an engine in another process of this machine, around each call: an OpenAI-compatible server's.

The process is found by its listening socket (``sockets``). Its CPU is that of its clock, its children's included, and
is divided among the calls under way by all processes that carry Bulkscope (``ledger``). Its memory is the resident set
of it and its children. Nothing of the engine is changed: its peak is never reset, as the meter of this process does,
so that a peak below an earlier one is sampled, and marked as an estimate.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from bulkscope._host import processes, sockets
from bulkscope._host.ledger import Ledger, Page
from bulkscope._host.meter import Usage, grown, highest, share, together
from bulkscope._host.proc import Proc, Status
from bulkscope._safe import report

SAMPLE_SECONDS = 0.05
# To look through all processes takes 5 ms beside 300 of them; with thousands the first call goes unmeasured.
SEARCH_SECONDS = 0.05
# What was not found may have been started since; asked for each call it would be felt.
AGAIN_SECONDS = 10.0
# Another machine stays one.
ELSEWHERE_SECONDS = 600.0
# A server's children (Ollama's runners) come and go, seldom; to list them reads a file a thread.
FAMILY_SECONDS = 1.0
_ROOT = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Reading:
    used: dict[int, float]  # CPU seconds of each process
    rss: int | None
    alone: Status  # of the one process; of several nothing is said: their peaks need not have been at one time


class Call:
    """A call that has begun; made by ``Engine.begin``. One that is never ended is forgotten when nobody has it."""

    __slots__ = (
        "__weakref__", "delay", "hwm", "mixed", "over", "peak", "pressure", "process", "share", "start", "started",
        "throttled", "unknown",
    )  # fmt: skip

    def __init__(self, page: Page, reading: _Reading, ledger: Ledger) -> None:
        self.share, self.mixed, self.unknown = page.share, page.mixed, page.unknown
        self.start = self.peak = reading.rss
        self.hwm = reading.alone.hwm
        self.process = os.getpid()
        self.over = weakref.finalize(self, ledger.forget, 1)
        self.over.atexit = False
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
        # A finaliser of a response that nobody closed may end its call inside of what another call does here.
        self._lock = threading.RLock()
        self._family: list[int] = []
        self._listed = 0.0
        self._open: weakref.WeakSet[Call] = weakref.WeakSet()
        self._sampling = False

    def lives(self) -> bool:
        """Return whether the process still runs."""
        return processes.lives(self._root, self.name)

    def begin(self) -> Call | None:
        """Begin a call; None where the engine, or what others know of it, cannot be read."""
        reading = self._read()
        if reading is None:
            return None
        page = self._ledger.turn(1, reading.used)
        if page is None:
            self._ledger.forget(1)
            return None
        call = Call(page, reading, self._ledger)
        call.pressure, call.throttled = self._proc.pressure(), self._proc.throttled()
        call.delay = self._proc.run_delay() if sum(page.calls.values()) == 1 else None
        with self._lock:
            self._open.add(call)
        self._sample()
        return call

    def end(self, call: Call) -> Usage | None:
        """End a call, from any thread; None where the engine has ended meanwhile, and after a fork."""
        wall = time.perf_counter() - call.started
        if call.process != os.getpid() or call.over.detach() is None:
            return None
        with self._lock:
            self._open.discard(call)
        reading = self._read()
        if reading is None:
            self._ledger.forget(1)
            return None
        page = self._ledger.turn(-1, reading.used)
        if page is None or page.share < call.share:  # it was written anew meanwhile
            return None
        cpu = page.share - call.share
        exact = self._ledger.shared and page.mixed == call.mixed and not (call.unknown or page.unknown)
        pressure, throttled = self._proc.pressure(), self._proc.throttled()
        peak, peak_exact = _peak(call, reading)
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
            memory_file=together(reading.alone.file, reading.alone.shmem),
            memory_anon=reading.alone.anon,
            memory_exact=peak_exact,
        )

    def _read(self) -> _Reading | None:
        """Return what the engine has used and holds; None where it has ended."""
        now = time.monotonic()
        with self._lock:
            if now - self._listed > FAMILY_SECONDS:
                self._family, self._listed = processes.family(self._root, self.pid), now
            family = self._family
        clocks = {pid: processes.cpu_seconds(pid) for pid in family}
        used = {pid: cpu for pid, cpu in clocks.items() if cpu is not None}
        if self.pid not in used:
            return None
        held = [self._status(pid) for pid in used]
        rss = [status.rss for status in held if status.rss is not None]
        return _Reading(used, sum(rss) if rss else None, held[0] if len(held) == 1 else Status())

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
        try:
            while True:
                time.sleep(SAMPLE_SECONDS)
                with self._lock:
                    if not self._open and not self._ledger.untold:
                        self._sampling = False  # under the lock: who begins now starts a thread of its own
                        return
                reading = self._read()
                if reading is None:
                    return
                if self._ledger.untold:  # of a call whose end found no place in the file
                    self._ledger.turn(0, reading.used)
                with self._lock:
                    self._see(reading)
        finally:
            self._sampling = False

    def _see(self, reading: _Reading) -> None:
        for call in self._open:  # by a name that ends with this function: nobody else may have it
            call.peak = highest(call.peak, reading.rss)


def _peak(call: Call, reading: _Reading) -> tuple[int | None, bool]:
    """Return the highest resident set during a call, and whether the kernel says so.

    It does where the process's peak has grown meanwhile, and where it was at its peak when the call began or ended. An
    engine that carries Bulkscope itself sets its peak back.
    """
    seen, hwm = highest(call.peak, reading.rss), reading.alone.hwm
    if seen is None or call.hwm is None or hwm is None or hwm < call.hwm:
        return seen, False
    return (hwm, True) if hwm > call.hwm or seen >= hwm else (seen, False)


@dataclass(slots=True)
class _Place:
    """What is known of an address, since when, and after how many seconds to look again where there is no engine."""

    engine: Engine | None
    looked: float
    again: float = AGAIN_SECONDS


class Engines:
    """The engines of this machine by their addresses. Safe from several threads."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the parent's calls and its locks are not the child's

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], _Place] = {}
        self._known: dict[int, Engine] = {}

    def at(self, host: str, port: int) -> Engine | None:
        """Return the engine that answers at an address; None where it cannot be measured, or is still looked for."""
        place = self._places.get((host, port))
        if place is None or (place.engine is not None and not place.engine.lives()):
            return self._search(host, port, wait=place is None)
        if place.engine is None and time.monotonic() - place.looked > place.again:
            return self._search(host, port, wait=False)
        return place.engine

    def _search(self, host: str, port: int, wait: bool) -> Engine | None:
        with self._lock:
            self._places[(host, port)] = _Place(None, time.monotonic())
        done = threading.Event()

        def search() -> None:
            engine, again = None, AGAIN_SECONDS
            try:
                engine = self._engine(sockets.listener(host, port))
            except sockets.Elsewhere:
                again = ELSEWHERE_SECONDS
            except sockets.Unseen:
                pass  # `bulkscope doctor --engine` says why
            except Exception:
                report("the search for an engine")
            with self._lock:
                self._places[(host, port)] = _Place(engine, time.monotonic(), again)
            done.set()

        try:
            threading.Thread(target=search, name="bulkscope-engine", daemon=True).start()
        except RuntimeError:  # no more threads here, or Python is ending
            return None
        if wait and not _in_a_loop():
            done.wait(SEARCH_SECONDS)
        return self._places[(host, port)].engine

    def _engine(self, pid: int) -> Engine:
        """Return the one engine of a process: its calls by several names of the host are counted together."""
        with self._lock:
            found = self._known.get(pid)
            if found is None or not found.lives():
                found = self._known[pid] = Engine(pid)
            return found


def _in_a_loop() -> bool:
    """Return whether this thread runs an event loop, for which others wait too."""
    loops = sys.modules.get("asyncio.events")  # who runs one has imported it
    return loops is not None and loops._get_running_loop() is not None


_engines: Engines | None = None


def engines() -> Engines:
    """Return the engines that this process knows."""
    global _engines
    if _engines is None:
        _engines = Engines()
    return _engines
