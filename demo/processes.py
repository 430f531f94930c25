"""The demo's child processes: each in a session of its own, all of them ended with the demo."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


class Stopped(BaseException):
    """A signal asked the demo to end. Not an Exception: nothing on the way may take it for a failure."""


class Failed(Exception):
    """A child ended or did not get ready; the message names its log."""


@dataclass(slots=True)
class Child:
    """A process, its name for people, its log, and the seconds it has to end by itself."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace_s: float

    def tail(self, lines: int = 12) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Children:
    """Starts processes, watches them, and ends them in the reverse order of their start."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        self._starting = False
        self._stop_asked = False

    def catch_signals(self) -> None:
        """Let SIGINT, SIGTERM and SIGHUP raise Stopped in the main thread; call it there."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        repeated, self._stop_asked = self._stop_asked, True
        # Between fork and the entry in the list a child would be forgotten: start() raises it afterwards.
        # A second signal must not break off the ending of the children.
        if not self._starting and not repeated:
            raise Stopped

    def start(
        self, name: str, words: Sequence[str], *, env: Mapping[str, str], cwd: Path, grace_s: float = 10.0
    ) -> Child:
        """Start a command with its output in a log file."""
        log = self._logs / f"{name}.log"
        self._starting = True
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    words, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent,
                )  # fmt: skip
            child = Child(name, process, log, grace_s)
            self._children.append(child)
        finally:
            self._starting = False
        if self._stop_asked:
            raise Stopped
        return child

    def check(self) -> None:
        """Raise Failed when a child has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise Failed(f"{child.name} ended with code {code}; its log is {child.log}:\n{child.tail()}")

    def wait(self, what: str, ready: Callable[[], bool], seconds: float, every_s: float = 0.05) -> None:
        """Poll ``ready`` until it is true; raises Failed when a child ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not ready after {seconds:.0f} s; the logs are in {self._logs}")
            time.sleep(every_s)

    def end(self, tell: Callable[[str], None]) -> None:
        """End every child: what was started last ends first, so that the receiver outlives the senders."""
        self._stop_asked = True
        groups: list[list[Child]] = []
        for child in reversed(self._children):
            # Neighbours of one kind (worker-1, worker-2) end at the same time.
            if groups and groups[-1][0].name.partition("-")[0] == child.name.partition("-")[0]:
                groups[-1].append(child)
            else:
                groups.append([child])
        for group in groups:
            self._end_group(group, tell)
        self._children.clear()

    def _end_group(self, group: list[Child], tell: Callable[[str], None]) -> None:
        for child in group:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + max(child.grace_s for child in group)
        for child in group:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                tell(f"{child.name} did not end within {child.grace_s:.0f} s and is killed")
            # The whole session: what the child itself has started and left behind ends as well.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


def _end_with_parent() -> None:
    # A killed demo cannot end anything: on Linux the kernel then asks its children to end.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` when nothing listens there, else a free port."""
    for port in (wanted, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise Failed("no free port on 127.0.0.1")
