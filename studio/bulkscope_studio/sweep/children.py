"""Child processes of a command: each in a session of its own, and none of them outlives it, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the command to end. Not an Exception: nothing on the way may take it for a failure."""


class Ended(Exception):
    """A child ended, or did not get ready; the message has the end of its output."""


@dataclass(slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Children:
    """Starts processes, watches them, and ends them all at the end of the block, those started last first.

    A guard process ends them where this one is killed: it sees the pipe from here close. Signals raise ``Stopped`` in
    the block. It is entered in the main thread.
    """

    def __init__(self, logs: Path, grace_s: float) -> None:
        self._logs, self._grace_s = logs, grace_s
        self._children: list[_Child] = []
        self._starting = self._asked_to_stop = False
        self._guard: subprocess.Popen[bytes] | None = None
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Children:
        self._handlers = {number: signal.signal(number, self._asked) for number in _SIGNALS}
        words = [sys.executable, "-m", "bulkscope_studio.sweep.children", str(self._grace_s)]
        self._guard = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._asked_to_stop = True  # from here on a signal must not break off what ends the children
        try:
            self._end()
        finally:
            assert self._guard is not None
            assert self._guard.stdin is not None
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
            self._guard.wait()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _asked(self, number: int, frame: FrameType | None) -> None:
        repeated, self._asked_to_stop = self._asked_to_stop, True
        # Between fork and the entry in the list a child would be forgotten: start() raises it afterwards.
        if not self._starting and not repeated:
            raise Stopped

    def __len__(self) -> int:
        return len(self._children)

    def start(self, name: str, words: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        """Start a command with its output in a log file; ``Ended`` when it cannot be."""
        log = self._logs / f"{name}.log"
        self._starting = True
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    words, env=dict(env), cwd=directory, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            self._children.append(_Child(name, process, log))
            self._tell_guard(f"+{process.pid}")
        except OSError as error:
            raise Ended(f"{name} cannot be started: {error}") from error
        finally:
            self._starting = False
        if self._asked_to_stop:
            raise Stopped

    def check(self) -> None:
        """Raise ``Ended`` when a child has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise Ended(f"{child.name} ended with code {code}; its log is {child.log}:\n{child.tail()}")

    def wait_for(self, pattern: str, names: Iterable[str], seconds: float) -> None:
        """Wait until the output of each of ``names`` holds ``pattern``; ``Ended`` when one ends or the time is over."""
        wanted = set(names)
        deadline = time.monotonic() + seconds
        for child in self._children:
            while child.name in wanted and not re.search(pattern, child.log.read_text(errors="replace"), re.MULTILINE):
                self.check()
                if time.monotonic() > deadline:
                    raise Ended(
                        f"{child.name} has not printed {pattern!r} within {seconds:.0f} s; its log is {child.log}:\n"
                        + child.tail()
                    )
                time.sleep(0.05)

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()

    def _end(self) -> None:
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + self._grace_s
        for child in reversed(self._children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            # The whole session: what the child itself has started and left behind ends as well.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            with contextlib.suppress(OSError):
                self._tell_guard(f"-{child.process.pid}")
        self._children.clear()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _guard(grace_s: float) -> None:
    """Keep the list of groups that comes by standard input; when that closes, end those that are left."""
    groups: list[int] = []
    for line in sys.stdin:
        number = int(line[1:])
        if line[0] == "+":
            groups.append(number)
        elif number in groups:
            groups.remove(number)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(_alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _guard(float(sys.argv[1]))
