"""The oldest FastAPI we support and the newest leave the same spans and metric points behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility import matrix
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("fastapi_tree.py")
OLD = [
    "fastapi==0.110.*",
    "httpx>=0.27",
    "opentelemetry-sdk>=1.38",
    "opentelemetry-instrumentation>=0.59b0",
    "opentelemetry-util-http>=0.59b0",
    "psutil>=5.9",
    "wrapt>=1.16",
]


def run(python: Path | str, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULKSCOPE_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "otel"), str(ROOT / "instrumentation")])
    done = subprocess.run(
        [str(python), str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Bulkscope could not record" not in done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def old_python() -> Path:
    try:
        return venv("fastapi-0.110", OLD)
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with FastAPI 0.110: {reason}")


def test_old_and_new_leave_the_same_behind(old_python: Path) -> None:
    old, new = run(old_python), run(sys.executable)
    assert old["fastapi"].startswith("0.110.")
    assert new["fastapi"] != old["fastapi"]
    assert old["requests"] == new["requests"]
    assert old["points"] == new["points"]
    names = {each["request"]: [span["name"] for span in each["spans"]] for each in new["requests"]}
    assert names == {
        "GET /items/3": ["GET /items/{item}"],
        "GET /items/word": ["GET /items/{item}"],
        "DELETE /items/3": ["DELETE /items/{item}"],
        "POST /v1/bulks": ["send jobs", "POST /v1/bulks"],
        "GET /v1/bulks/b2": ["look up", "GET /v1/bulks/{bulk_id}"],
        "GET /v1/tenants/t/leaf": ["GET /v1/tenants/{tenant}/leaf"],
        "GET /v1/tenants/t/nowhere": ["GET"],
        "PATCH /v1/tenants/t/leaf": ["PATCH /v1/tenants/{tenant}/leaf"],
        "GET /sub/a/there": ["GET /sub/{name}/there"],
        "GET /busy": ["GET /busy"],
        "GET /raises": ["GET /raises"],
        "GET /nowhere": ["GET"],
        "GET /items": ["GET"],
    }
    for each in new["requests"]:
        server = each["spans"][-1]
        assert (server["kind"], server["parent"], server["scope"]) == ("SERVER", None, "bulkscope")
        assert all(span["parent"] == server["name"] for span in each["spans"][:-1])
        if "bulks" in each["request"]:
            assert all(span["attributes"]["bulk.id"] in ("b1", "b2") for span in each["spans"])
    for version in (old["fastapi"], new["fastapi"]):
        matrix.note("fastapi", version, "1", "2")


def test_the_newest_would_trace_itself() -> None:
    """Without us the newest FastAPI has spans of its own here; so their absence above means something."""
    scopes = {span["scope"] for each in run(sys.executable, "--bare")["requests"] for span in each["spans"]}
    assert "fastapi" in scopes
    assert "bulkscope" not in scopes
