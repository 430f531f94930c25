from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sink import Sink, serve

APP = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item}")
def item(item: int):
    return {"item": item}
"""


@pytest.fixture
def sink() -> Iterator[Sink]:
    with serve() as running:
        yield running


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a folder that holds ``app.py``; ended with its whole group after the test."""
    (tmp_path / "app.py").write_text(APP)
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, env: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
