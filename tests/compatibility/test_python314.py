"""Python 3.14: executors of interpreters, and what every process carries."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.debian_python import python314
from tests.processes import environment
from tests.sink import Sink, serve
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
TESTS = ("bulk", "exporters", "green", "late_imports", "lifecycle", "otlp", "otlp_metrics", "outbox", "public")
TOOLS = (
    "pytest", "pytest-asyncio", "pytest-timeout", "trustme", "numpy",
    "fastapi", "uvicorn", "gunicorn", "uvicorn-worker", "opentelemetry-distro",
)  # fmt: skip

POOLS = """
import concurrent.futures as futures
import bulkscope
from opentelemetry import trace

def square(number):
    return number * number

def traced():
    return trace.get_current_span().get_span_context().is_valid

if __name__ == "__main__":
    with bulkscope.dequeue("q", bulk_id="b", job_id="j"):
        with futures.InterpreterPoolExecutor(2) as pool:
            print("submit", [each.result(60) for each in [pool.submit(square, 3), pool.submit(square, number=4)]])
            print("map", list(pool.map(square, range(4))))
        with futures.ThreadPoolExecutor(2) as pool:
            print("threads", pool.submit(square, 5).result(60), pool.submit(traced).result(60))
        with futures.ProcessPoolExecutor(1) as pool:
            print("processes", pool.submit(square, 6).result(60), pool.submit(traced).result(60))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python 3.14 with this project in it."""
    try:
        return venv("python3.14", ["-e", str(ROOT), *TOOLS], python314())
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no Python 3.14: {reason}")


def pools(python: Path, launcher: list[str], sink: Sink, folder: Path, **extra: str) -> str:
    (folder / "pools.py").write_text(POOLS)
    done = subprocess.run(
        [*launcher, str(python), "pools.py"], cwd=folder, env=environment(sink.url, **extra),
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "submit [9, 16]", "map [0, 1, 4, 9]", "threads 25 True", "processes 36 True",
    ]  # fmt: skip
    assert [span["attributes"]["bulk.job.id"] for span in sink.spans] == ["j"]
    return done.stderr


def test_pools_under_our_launcher(python: Path, tmp_path: Path) -> None:
    with serve() as sink:
        said = pools(python, [str(python.with_name("bulkscope")), "run"], sink, tmp_path)
    assert "Traceback" not in said
    assert "sub" not in said


def test_pools_under_opentelemetrys_launcher(python: Path, tmp_path: Path) -> None:
    """Its hook runs in each interpreter, and says what of others' could not be loaded there; ours does nothing."""
    with serve() as sink:
        said = pools(
            python, [str(python.with_name("opentelemetry-instrument"))], sink, tmp_path,
            OTEL_PYTHON_DISTRO="none", OTEL_PYTHON_CONFIGURATOR="none",
        )  # fmt: skip
    assert "Bulkscope could not" not in said
    assert "daemon threads" not in said


@pytest.mark.timeout(600)
def test_what_every_process_carries(python: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "BULKSCOPE_", "PYTEST_"))}
    files = [str(ROOT / "tests" / "otel" / f"test_{name}.py") for name in TESTS]
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *files,
         "tests/instrumentation/test_concurrent.py"],
        cwd=ROOT, env=kept, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert re.search(r"\b\d{3} passed", done.stdout), done.stdout
