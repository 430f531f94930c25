from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import groups
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
    with groups(tmp_path) as start:
        yield start
