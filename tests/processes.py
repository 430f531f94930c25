"""Helpers for tests that start real processes, launched as a user would."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
# How long a test waits for what must come. Nothing is slower for it: it ends the test when the thing never comes. On a
# machine with nine others at work an Elasticsearch has taken more than 60 s to start.
PATIENCE_S = 180.0


@contextmanager
def groups(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Yield what starts a command in ``folder``; each is ended with its whole group."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, env: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Return a port that nothing listens on, below those that a kernel gives to connections.

    What the kernel would hand out may be the end of another test's connection by the time that a server has started.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def environment(url: str, **extra: str) -> dict[str, str]:
    """Nothing is sent before the end: what arrives was flushed at the end of the process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "BULKSCOPE_"))}
    return kept | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_BLRP_SCHEDULE_DELAY": "600000",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """Read the output up to a line that holds ``text``; fails with all of it when the process ends first."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return "".join(seen)
    raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def wait_for_listener(port: int, seconds: float = PATIENCE_S) -> None:
    """Poll until something accepts connections on ``port``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
