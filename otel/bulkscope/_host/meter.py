"""CPU time and peak memory of a stretch of work in this process: one inference.

CPU: the process's clock counts every thread, the engine's native ones included. From it goes the time
of the Python threads that were there before the work began and have nothing to do with it (the web
server's, our own exporters'), each read from its own clock. Where several stretches overlap, each is given
what its own thread used and an equal share of the rest, and is marked as an estimate. So is a stretch in
which Python threads began or ended that used CPU, or in which child processes did: both count as the work's.

Memory: the kernel keeps the peak of the resident set (``VmHWM``) and lets it be reset. A ledger folds
the peak into every open stretch before a reset, so that stretches that overlap each keep their own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass

from bulkscope._host.proc import Proc

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stretch of work used; what could not be measured is None.

    ``wall``, ``cpu``, ``throttled`` in seconds; ``utilization`` is CPU time over wall time times the
    allowed cores; ``pressure`` the share of the time in which some task waited for a CPU; ``cpu_wait`` the seconds
    in which threads of this process did, of threads that ended meanwhile left out, and None where stretches overlap;
    memory in bytes.
    """

    wall: float
    cpu: float
    cpu_exact: bool
    utilization: float | None
    pressure: float | None
    throttled: float | None
    cpu_wait: float | None
    memory_start: int | None
    memory_peak: int | None
    memory_file: int | None
    memory_anon: int | None
    memory_exact: bool


class Window:
    """A stretch that has begun; made by ``Meter.begin``."""

    __slots__ = (
        "cpu_exact", "cpu_ns", "delay", "peak", "peak_exact", "pressure", "start", "started", "thread", "throttled",
    )  # fmt: skip

    start: int | None
    peak: int | None
    pressure: float | None
    throttled: float | None
    delay: dict[int, int] | None
    started: float

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.cpu_ns = 0.0
        self.cpu_exact = True
        self.peak_exact = True


# Less than this share of a stretch's CPU time is no reason to call the whole an estimate.
_NEGLIGIBLE = 0.01


def _children_reaped() -> float:
    """Return the CPU seconds of the child processes that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _thread_clock_ns(thread: int) -> int | None:
    """Return the CPU nanoseconds of a thread by its native id; None for one that has ended.

    The clock's id is what ``pthread_getcpuclockid`` computes on Linux, but made from the kernel's thread
    id: for a thread that has ended it gives an error where the pthread function reads freed memory.
    """
    try:
        return time.clock_gettime_ns((~thread << 3) | 6)
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """CPU nanoseconds so far: of the process, of its Python threads by native id, of its child processes."""

    process_ns: int
    threads: dict[int, int]
    children_ns: int


class Meter:
    """Measures stretches of work in one process; safe to use from several threads."""

    def __init__(self, proc: Proc | None = None) -> None:
        self._proc = proc or Proc()
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Window] = []
        self._reading = _Reading(0, {}, 0)
        self._sampling = False
        self.cores = self._proc.allowed_cores() or os.cpu_count() or 1
        self.memory_limit = self._proc.memory_limit()

    def begin(self) -> Window:
        """Begin a stretch in the calling thread."""
        window = Window(threading.get_native_id())
        with self._lock:
            self._settle()
            before = self._proc.status()
            # The kernel counts it by thread, and nothing says which threads are whose.
            window.delay = None if self._open else self._proc.run_delay()
            for other in self._open:
                other.peak = highest(other.peak, before.hwm)
                other.cpu_exact = window.cpu_exact = False
                other.delay = None
            resettable = self._proc.reset_peak()
            window.start = before.rss
            window.peak = before.rss
            window.peak_exact = resettable
            window.pressure, window.throttled = self._proc.pressure(), self._proc.throttled()
            if not resettable:
                self._sample()
            # Last, so that what was done here is not counted as the work's, and nothing is open that failed to begin.
            self._reading = self._read()
            self._open.append(window)
            window.started = time.perf_counter()
        return window

    def end(self, window: Window) -> Usage:
        """End a stretch, from any thread."""
        wall = time.perf_counter() - window.started
        with self._lock:
            try:
                self._settle()
            finally:
                if window in self._open:
                    self._open.remove(window)
                else:
                    # Begun before a fork, ended in the child: the parent's clocks say nothing of this process.
                    window.cpu_exact = window.peak_exact = False
            after = self._proc.status()
            if window.peak_exact:
                window.peak = highest(window.peak, after.hwm)
            window.peak = highest(window.peak, after.rss)
            pressure, throttled = self._proc.pressure(), self._proc.throttled()
            delay = None if window.delay is None else self._proc.run_delay()
        cpu = window.cpu_ns / 1e9
        return Usage(
            wall=wall,
            cpu=cpu,
            cpu_exact=window.cpu_exact,
            utilization=cpu / (wall * self.cores) if wall > 0 else None,
            pressure=share(window.pressure, pressure, wall),
            throttled=None if throttled is None or window.throttled is None else throttled - window.throttled,
            cpu_wait=grown(window.delay, delay),
            memory_start=window.start,
            memory_peak=window.peak,
            memory_file=together(after.file, after.shmem),
            memory_anon=after.anon,
            memory_exact=window.peak_exact and after.hwm is not None,
        )

    # --- CPU ----------------------------------------------------------------------------------

    def _read(self) -> _Reading:
        children = _children_reaped() + self._proc.children_cpu()
        threads: dict[int, int] = {}
        if sys.platform.startswith("linux"):
            for thread in threading.enumerate():
                number = getattr(thread, "native_id", None)  # eventlet's main thread has none
                used = None if number is None else _thread_clock_ns(number)
                if number is not None and used is not None:
                    threads[number] = used
        return _Reading(time.process_time_ns(), threads, round(children * 1e9))

    def _settle(self) -> None:
        """Divide the CPU time since the last boundary among the open stretches."""
        if not self._open:
            return
        before, now = self._reading, self._read()
        others = {
            number: now.threads[number] - used for number, used in before.threads.items() if number in now.threads
        }
        begun = sum(now.threads[number] for number in now.threads.keys() - before.threads.keys())
        children = max(0, now.children_ns - before.children_ns)
        spent = now.process_ns - before.process_ns
        if now.threads:
            # A thread that ended took with it what it used: it may be all of it.
            sure = len(others) == len(before.threads) and begun <= _NEGLIGIBLE * spent
        else:
            sure = threading.active_count() == 1
        rest = spent - sum(others.values()) + children
        owners: dict[int, list[Window]] = {}
        for window in self._open:
            owners.setdefault(window.thread, []).append(window)
        for window in self._open:
            window.cpu_exact = window.cpu_exact and sure and not children
            own = others.get(window.thread, 0) / len(owners[window.thread])
            window.cpu_ns += max(0.0, own + rest / len(self._open))
        self._reading = now

    # --- memory ---------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Where the peak cannot be reset, look at the resident set while a stretch is open."""
        if self._sampling:
            return
        self._sampling = True

        def run() -> None:
            while True:
                rss = self._proc.status().rss
                with self._lock:
                    for window in self._open:
                        window.peak = highest(window.peak, rss)
                    if not self._open:
                        self._sampling = False
                        return
                time.sleep(SAMPLE_SECONDS)

        try:
            threading.Thread(target=run, name="bulkscope-sampler", daemon=True).start()
        except RuntimeError:  # no more threads here: the next stretch asks again
            self._sampling = False


def highest(first: int | None, second: int | None) -> int | None:
    return first if second is None else second if first is None else max(first, second)


def together(first: int | None, second: int | None) -> int | None:
    return None if first is None else first + (second or 0)


def grown(before: dict[int, int] | None, after: dict[int, int] | None) -> float | None:
    """Return in seconds by how much the threads' nanoseconds have grown; a thread begun meanwhile counts whole."""
    if before is None or after is None:
        return None
    return sum(max(0, now - before.get(thread, 0)) for thread, now in after.items()) / 1e9


def share(before: float | None, after: float | None, wall: float) -> float | None:
    if before is None or after is None or wall <= 0:
        return None
    return min(1.0, max(0.0, (after - before) / wall))


_meter: Meter | None = None


def meter() -> Meter:
    """Return the meter of this process."""
    global _meter
    if _meter is None:
        _meter = Meter()
    return _meter
