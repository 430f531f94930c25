"""Real parts for the demo's tests: a tiny model, Valkey, API and worker processes, all on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import valkey
from tests.gguf_tiny import make
from tests.processes import BIN, PATIENCE_S, free_port

ROOT = Path(__file__).resolve().parents[2]
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


def call(url: str, body: object = None) -> Answer:
    """GET, or POST of JSON; error codes are answers as well."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with _OPENER.open(request, timeout=30) as answer:
            return Answer(answer.status, dict(answer.headers), json.load(answer))
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), json.load(error))


def until(ready: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until ``ready``; fails naming ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.05)


def marked(mark: str) -> list[psutil.Process]:
    """The living processes with ``mark`` in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().values():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def other_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "other.gguf", seed=2)


@dataclass
class Service:
    """The demo's API and, where asked for, a worker, on one database of one Valkey."""

    url: str
    env: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str) -> None:
        self.processes.append(subprocess.Popen(words, cwd=ROOT, env=self.env, start_new_session=True))

    def start_worker(self) -> None:
        celery = str(BIN / "celery")
        self.start(celery, "-A", "demo.tasks", "worker", "-P", "solo", "--loglevel", "WARNING", "-n", "w@%h")

    def end(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("valkey")
    port = free_port()
    process = subprocess.Popen(valkey.command(port, folder), cwd=folder, stdout=subprocess.DEVNULL)
    try:
        until(lambda: valkey.answers(port) or process.poll() is not None, "Valkey answers")
        assert process.poll() is None, "Valkey ended at once"
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def service(broker: int, tiny: Path) -> Iterator[Callable[..., Service]]:
    """Start an API: ``service(database, worker=False, **environment)``; databases share nothing."""
    started: list[Service] = []

    def start(database: int, *, worker: bool = False, **extra: str) -> Service:
        port = free_port()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DEMO_"))}
        env |= {
            "DEMO_BROKER": f"redis://127.0.0.1:{broker}/{database}",
            "DEMO_MODELS": json.dumps({"tiny": str(tiny)}),
            "PYTHONUNBUFFERED": "1",
            **extra,
        }
        found = Service(f"http://127.0.0.1:{port}", env)
        started.append(found)
        api = ["demo.app:app", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        found.start(sys.executable, "-m", "uvicorn", *api)
        if worker:
            found.start_worker()
        until(lambda: _answers(found.url), "the API answers")
        return found

    yield start
    for one in started:
        one.end()


def _answers(url: str) -> bool:
    try:
        call(f"{url}/healthz")
    except OSError:
        return False
    return True
