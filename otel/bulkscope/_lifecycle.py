"""Nothing recorded is lost when a process ends or forks.

Python's ``atexit`` alone misses most of the ways a server ends: uvicorn raises SIGTERM on itself once
it has shut down, gunicorn's workers do the same, and forked pool children (billiard, multiprocessing)
leave through ``os._exit``. Each of these doors is watched here, and each flush is bounded, so that an
end point that is down cannot hold a process up.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from queue import SimpleQueue
from types import FrameType
from typing import Any

from bulkscope import _instruments
from bulkscope._export import pipeline
from bulkscope._host import resource
from bulkscope._safe import guarded, report

_FATAL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def flush_seconds() -> float:
    """Return the bound of a flush at the end of a process, in seconds (``BULKSCOPE_FLUSH_TIMEOUT``)."""
    try:
        seconds = float(os.environ.get("BULKSCOPE_FLUSH_TIMEOUT", "5"))
    except ValueError:
        return 5.0
    return 5.0 if seconds != seconds else min(max(0.0, seconds), threading.TIMEOUT_MAX)  # nan is no number


class _Flush:
    """Sending what one signal has recorded, in a thread of its own."""

    def __init__(self, signal_name: str, provider: Any, deadline: float) -> None:
        self._signal, self._provider, self._deadline = signal_name, provider, deadline
        self.over, self.delivered = threading.Event(), True

    def __call__(self) -> None:
        try:
            guarded(self._provider.force_flush)()
            for signal_name, _, exporter in pipeline.exporters():
                if signal_name == self._signal and hasattr(exporter, "drain"):
                    self.delivered = bool(guarded(exporter.drain)(self._deadline)) and self.delivered
        finally:
            self.over.set()


def flush(timeout: float | None = None) -> bool:
    """Send what is recorded, all signals at once; False when ``timeout`` seconds were not enough.

    Each provider is flushed in a thread of its own, because the SDK's flush takes no deadline: of exporters
    that are not ours, the retries against an end point that is down go on for as long as their time-out.
    """
    deadline = time.monotonic() + (flush_seconds() if timeout is None else timeout)
    flushes = []
    for signal_name, provider in pipeline.providers().items():
        flushing = _Flush(signal_name, provider, deadline)
        try:
            threading.Thread(target=flushing, name="bulkscope-flush", daemon=True).start()
        except RuntimeError:
            # Python >= 3.12 starts no thread once the interpreter is going down; one is waiting for this.
            if signal_name not in _parked:
                continue
            _parked[signal_name].put(flushing)
        flushes.append(flushing)
    for each in flushes:
        each.over.wait(max(0.0, deadline - time.monotonic()))
    return all(each.over.is_set() and each.delivered for each in flushes)


# By signal: where a thread waits that was started in time. Without, an exit on Python 3.12 flushed one signal after the
# other, each for as long as its exporter tries: 55 s with 2,000 spans and an end point that never answers.
_parked: dict[str, SimpleQueue[_Flush]] = {}


def _park() -> None:
    if sys.version_info < (3, 12):
        return
    for signal_name in pipeline.providers():
        waiting = _parked[signal_name] = SimpleQueue()
        threading.Thread(target=lambda waiting=waiting: waiting.get()(), name="bulkscope-parked", daemon=True).start()


_ended_pid: int | None = None
_at_end: list[Callable[[], None]] = []


def at_end(callback: Callable[[], None]) -> None:
    """Call ``callback`` once, by whatever door the process leaves."""
    _at_end.append(callback)


def ending() -> bool:
    """Tell whether the process is leaving, by whatever door."""
    return _ended_pid == os.getpid()


def flush_at_end() -> None:
    """Flush once a process: the first door it leaves by does the work, the next ones find it done."""
    global _ended_pid
    if ending():
        return
    _ended_pid = os.getpid()
    for callback in _at_end:
        guarded(callback)()
    try:
        if not flush():
            for _, _, exporter in pipeline.exporters():
                if hasattr(exporter, "left"):
                    exporter.left()
    except Exception:
        report("the flush at the end of the process")


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """End as the default would have ended, a flush later: same signal, same exit status."""
    flush_at_end()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _watch_signals() -> None:
    original = signal.raise_signal

    def raise_signal(number: int, /) -> None:
        # Servers put the default handler back and raise the signal that ended them.
        if number in _FATAL and signal.getsignal(number) is signal.SIG_DFL:
            flush_at_end()
        original(number)

    signal.raise_signal = raise_signal
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _watch_exit() -> None:
    original: Callable[[int], Any] = os._exit

    def leave(status: int) -> Any:
        flush_at_end()
        original(status)

    os._exit = leave
    for provider in pipeline.providers().values():
        # The SDK's own shutdown may take 30 s for each signal; ours is bounded for all of them.
        handler = getattr(provider, "_atexit_handler", None) or getattr(provider, "_at_exit_handler", None)
        if handler is not None:
            atexit.unregister(handler)
    atexit.register(flush_at_end)


def _new_identity() -> None:
    pipeline.update_resource(resource.process_attributes())


def _may_end_again() -> None:
    global _ended_pid
    _ended_pid = None


# In this order, and each whether the ones before it went well or not: without the connections of its own a child
# sends in pieces what its parent sends, whatever became of the locks.
_REPAIRS: tuple[Callable[[], None], ...] = (
    _may_end_again,
    pipeline.renew_locks,
    pipeline.renew_connections,
    _instruments.forget,
    pipeline.forget_metrics,
    _new_identity,
    _park,
)


def _after_fork_in_child() -> None:
    for repair in _REPAIRS:
        guarded(repair)()


def _imported_late() -> Iterator[str]:
    """Yield what would be imported later on, in a thread that exports.

    A process that forks in that moment leaves its child the lock of a half-imported module, and no thread that
    will ever give it back: the child's own sending would wait for it until the flush is given up, and lose
    what it holds.
    """
    yield "encodings.idna"  # any look-up of a host
    if "requests" in sys.modules:
        yield "netrc"
    if not os.path.exists("/proc/self/status"):
        yield "psutil"


@guarded
def _import_early() -> None:
    for name in _imported_late():
        import_module(name)


def watch() -> None:
    """Watch every way out of this process, and forks. Call once, when the providers are in place."""
    _import_early()
    _park()
    _watch_signals()
    _watch_exit()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork_in_child)
