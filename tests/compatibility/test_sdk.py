"""The oldest OpenTelemetry SDK that we accept: what every process carries is tested with it as with the newest."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
TESTS = ("exporters", "instruments", "launcher", "lifecycle", "otlp", "otlp_metrics", "outbox", "resource", "scrape")
TOOLS = (
    "pytest", "pytest-asyncio", "pytest-timeout", "trustme", "numpy",
    "fastapi", "uvicorn", "gunicorn", "uvicorn-worker",
)  # fmt: skip


def oldest() -> Iterator[str]:
    """Yield our requirements of OpenTelemetry, each at the lowest version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        if found := re.fullmatch(r"(opentelemetry-[\w-]+)>=([\w.]+)", requirement):
            numbers = found[2] if found[2].count(".") > 1 or "b" in found[2] else f"{found[2]}.0"
            yield f"{found[1]}=={numbers}"
            if found[1] == "opentelemetry-instrumentation":
                yield f"opentelemetry-distro=={numbers}"


@pytest.mark.timeout(600)
def test_the_oldest_sdk() -> None:
    pinned = list(oldest())
    assert len(pinned) >= 6
    try:
        python = venv("sdk-oldest", ["-e", str(ROOT), *TOOLS, *pinned])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with {pinned}: {reason}")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "BULKSCOPE_", "PYTEST_"))}
    files = [str(path) for name in TESTS if (path := ROOT / "tests" / "otel" / f"test_{name}.py").exists()]
    done = subprocess.run(
        [
            str(python), "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *files,
            # That exporter took an empty variable for a base URL until 1.44.
            "--deselect", "tests/otel/test_exporters.py::test_the_end_point_is_where_the_official_exporter_sends",
        ],
        cwd=ROOT, env=kept, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert re.search(r"\b\d{3} passed", done.stdout), done.stdout
