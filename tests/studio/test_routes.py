"""Every id has its page and its answers, and a fault of ours is told as one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import duckdb
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from bulkscope_studio.cli import capacity
from bulkscope_studio.server import api
from bulkscope_studio.services import bulks, capacities, reports
from bulkscope_studio.storage.store import Store
from tests.processes import BIN
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.serving import Addresses, studio

IDS = (
    "plain", "a\nb", "b\n", "\n", "\r\n", "a/b", "a/report", "a\n/report", "..", ".", "a b", " ", "\t", "a?b=c", "a#b",
    "%0A", "100%", "a%2Fb", "\x01", "a\x85b", "\u2028", "é", "日本", "😀", "'; DROP TABLE spans", "<b>x</b>", "{id}",
    "a\\b",
)  # fmt: skip


@dataclass(frozen=True)
class Running:
    db: Path
    at: Addresses


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    db = tmp_path_factory.mktemp("ids") / "s.duckdb"
    with studio(db, "--no-host") as at:
        body = traces(*({"bulk.id": name, "bulk.job.id": "j"} for name in IDS), kind=5).SerializeToString()
        assert httpx.post(f"{at.otlp_http}/v1/traces", content=body, headers=PROTOBUF).status_code == 200
        yield Running(db, at)


@pytest.mark.parametrize("name", IDS)
def test_every_id_is_answered(name: str, running: Running) -> None:
    raw = quote(name, safe="").replace(".", "%2E")
    with httpx.Client(base_url=running.at.web, timeout=60) as http:
        for what in ("report", "explain", "ending"):
            answer = http.get(f"/api/bulks/{raw}/{what}")
            assert answer.status_code == 200, answer.text
            assert json.dumps(name)[1:-1] in json.dumps(answer.json())
        for what in ("summary", "overtime", "jobs"):
            assert http.get(f"/api/v1/bulks/{raw}/{what}").status_code == 200
        assert http.get(f"/bulk/{raw}").status_code == 200
        moved = http.get(f"/explain/{raw}").headers["location"]
        assert unquote(moved.removeprefix("/bulk/").partition("?")[0]) == name
        unknown = http.get(f"/api/bulks/{raw}no/report")
        assert (unknown.status_code, unknown.json()["id"]) == (404, name + "no")


@pytest.mark.parametrize("name", ["a\nb", "b\n", "a/report", "..", "100%"])
def test_commands_find_it(name: str, running: Running) -> None:
    for command in ("report", "explain"):
        words = [BIN / "bulkscope", command, name, "--db", running.db, "--format", "json"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert (found.returncode, found.stderr) == (0, "")
        assert json.dumps(name)[1:-1] in found.stdout


@pytest.mark.parametrize("name", ["a\nb", "..", "a/b", "a"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_run_of_any_name_is_said_not_to_be_there(name: str, method: str, running: Running) -> None:
    raw = quote(name, safe="").replace(".", "%2E")
    answer = httpx.request(method, f"{running.at.web}/api/runs/{raw}")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]


def broken(*_: object) -> object:
    """A fault of ours, of the kind that numpy raises: a ValueError."""
    return np.zeros(3) + np.zeros(4)


@pytest.fixture
def served(db: Path) -> Iterator[TestClient]:
    store = Store(db)
    app = FastAPI()
    api.install(app, store)
    yield TestClient(app, raise_server_exceptions=False)
    store.close()


@pytest.mark.parametrize(
    ("module", "name", "path"),
    [
        (capacities, "_seen", "/api/capacity?bulk=sample-001"),
        (reports, "analyse", "/api/bulks/sample-001/report"),
        (bulks, "list_bulks", "/api/bulks"),
        (bulks, "latest", "/api/compare?a=latest&b=sample-001"),
    ],
)
def test_a_fault_of_ours_is_no_mistake_of_the_users(
    module: object, name: str, path: str, served: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, broken)
    answer = served.get(path)
    assert answer.status_code == 500
    assert answer.json() == {"error": "the studio could not answer (ValueError); its log says why"}


def test_what_makes_no_sense_is_still_said_to_be_so(served: TestClient) -> None:
    for asked, said in (
        ("rate=-1", "arrival rate must be"), ("last=soon", "write for example 7d"), ("model=none", "known models: "),
        ("bulk=sample-001&last=1h", "not both"),
    ):  # fmt: skip
        query = asked if "bulk" in asked or "last" in asked else f"bulk=sample-001&{asked}"
        answer = served.get(f"/api/capacity?{query}")
        assert answer.status_code == 400
        assert said in answer.json()["error"]


def test_the_command_does_not_hide_it_either(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacities, "_seen", broken)
    with pytest.raises(ValueError, match="broadcast"):
        capacity.command(["sample-001", "--db", str(db)])
    monkeypatch.undo()
    assert capacity.command(["sample-001", "--model", "none", "--db", str(db)]) == 2


def test_a_fault_is_logged_once_with_its_traceback_and_pages_go_on(tmp_path: Path, db: Path) -> None:
    """In a real studio, in whose store a column that reports need holds something else."""
    with duckdb.connect(str(db)) as connection:
        connection.execute("ALTER TABLE spans ALTER COLUMN http_status TYPE STRUCT(code INTEGER) USING {'code': 1}")
    log = tmp_path / "log"
    words = [str(BIN / "bulkscope"), "studio", "--db", str(db), "--no-host", "--retention", "9999d"]
    words += ["--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        web = process.stdout.readline().split()[-1]
        for _ in range(3):
            process.stdout.readline()
        answer = httpx.get(f"{web}/api/bulks/sample-001/report", timeout=60)
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
        assert "its log says why" in answer.json()["error"]
        told = subprocess.run(
            [BIN / "bulkscope", "report", "sample-001", "--db", db], capture_output=True, text=True, timeout=120
        )
        assert told.returncode == 2
        assert "answered 500" in told.stderr
        process.terminate()
        assert process.wait(30) == 0
    assert log.read_text().count("Traceback (most recent call last)") == 2
    assert log.read_text().count("BinderException") == 2
