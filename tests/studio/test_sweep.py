"""A sweep on real parts: Valkey, an API, Celery workers that sleep for a known time, and a studio."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from bulkscope_studio.cli import capacity
from bulkscope_studio.sweep import plan as sweep_plan
from bulkscope_studio.sweep import runner
from bulkscope_studio.sweep.children import Children
from bulkscope_studio.sweep.plan import Bad, Step, fill
from demo import valkey
from tests.processes import BIN, PATIENCE_S, free_port, wait_for_listener
from tests.studio.serving import Addresses, studio

SERVICE_S = 0.1
SERVICE = """
import os, time
from celery import Celery
from fastapi import FastAPI

jobs = Celery("jobs", broker=os.environ["BROKER"])
jobs.conf.task_acks_late = True
jobs.conf.worker_prefetch_multiplier = 1
jobs.conf.broker_connection_retry_on_startup = True

@jobs.task(ignore_result=True)
def work(prompt, bulk_id):
    time.sleep(float(os.environ["SERVICE_S"]))

api = FastAPI()
seen = set()

@api.get("/")
def ready():
    return {}

@api.post("/bulks", status_code=202)
def send(body: dict):
    if body["id"] in seen:
        from fastapi import HTTPException
        raise HTTPException(409, "there is such a bulk already")
    seen.add(body["id"])
    for prompt in body["prompts"]:
        work.delay(prompt, bulk_id=body["id"])
    return {"jobs": len(body["prompts"])}
"""
PLAN = """
name = "test"
seconds = "6s"
drain = "60s"
slo = "2s"

[workers]
command = ["celery", "-A", "service:jobs", "worker", "-P", "solo", "-n", "w{number}@%h", "-l", "INFO"]
ready = "ready"
grace = "15s"

[request]
url = "http://127.0.0.1:PORT/bulks"
body = { id = "{request_id}", prompts = "{prompts}" }
prompts = "prompts.json"

[closed]
workers = [1, 2]
jobs_per_worker = 40

[open]
workers = [2]
rates = [8, 1000]
"""


@dataclass(frozen=True)
class Parts:
    """The running parts, and the environment of a sweep of them."""

    folder: Path
    db: Path
    url: str
    env: dict[str, str]

    def plan(self, name: str, text: str = PLAN) -> Path:
        folder = self.folder / name
        folder.mkdir()
        (folder / "service.py").write_text(SERVICE)
        (folder / "prompts.json").write_text(json.dumps(["one", "two", "three"]))
        path = folder / "plan.toml"
        path.write_text(text.replace("PORT", self.url.rpartition(":")[2]).replace('"test"', f'"{name}"'))
        return path

    def words(self, plan: Path, *options: str) -> list[str]:
        return [str(BIN / "bulkscope"), "capacity", "--sweep", str(plan), "--db", str(self.db), *options]

    def sweep(self, plan: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(plan, *options), env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "service.py").write_text(SERVICE)
    broker, port = free_port(), free_port()
    db = folder / "s.duckdb"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULKSCOPE_"))}
    env |= {
        "BROKER": f"redis://127.0.0.1:{broker}/0",
        "SERVICE_S": str(SERVICE_S),
        "PYTHONUNBUFFERED": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "300",
    }
    server = subprocess.Popen(valkey.command(broker, folder), cwd=folder, stdout=subprocess.DEVNULL)
    api = None
    try:
        with studio(db) as addresses:
            wait_for_listener(broker)
            api = subprocess.Popen(
                [str(BIN / "bulkscope"), "run", "uvicorn", "service:api", "--port", str(port), "--log-level", "error"],
                cwd=folder, env=env | _to(addresses),
            )  # fmt: skip
            wait_for_listener(port)
            yield Parts(folder, db, f"http://127.0.0.1:{port}", env)
            api.terminate()
            api.wait(PATIENCE_S)
    finally:
        for process in (api, server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def _to(addresses: Addresses) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": addresses.otlp_http}


def marked(mark: str) -> list[psutil.Process]:
    """The living processes with ``mark`` in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MARK") == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until(ready: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.05)


def events(plan: Path) -> list[dict[str, Any]]:
    """The lines of the state file."""
    state = plan.with_name(plan.name + ".state.jsonl")
    return [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []


def begun(plan: Path, key: str) -> list[str]:
    return [entry["bulk"] for entry in events(plan) if entry["event"] == "begun" and entry["step"] == key]


@pytest.mark.slow
def test_a_sweep_finds_the_known_service_time(parts: Parts) -> None:
    plan = parts.plan("whole")
    done = parts.sweep(plan, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "bulkscope.sweep/1"
    assert [(step["step"], step["places"]) for step in found["steps"]] == [
        ("w1-closed", 1), ("w2-closed", 2), ("w2-r8", 2),
    ]  # fmt: skip
    (pool,) = found["capacity"]["pools"]
    levels = {level["places"]: level for level in pool["models"][0]["levels"]}
    for places, level in levels.items():
        assert level["reached"]
        # A sleep is never shorter than asked for; what Celery adds to it is not known here, and held to a half.
        assert 0.5 * places / SERVICE_S < level["rate_per_s"]["value"] <= places / SERVICE_S
        service = level["service_s"] + level["gap_s"]
        assert level["rate_per_s"]["value"] == pytest.approx(places / service, rel=0.05)
    assert pool["models"][0]["scaling"]["kind"] == "bounds"
    # A rate that two workers cannot do is not tried.
    assert any("w2-r1000 was left out" in note for note in found["notes"])
    assert found["recommended"]["workers"] == 2
    assert "Run 2 workers" in found["recommendation"]
    assert found["recommended"]["highest"]["rate_per_s"]["value"] < levels[2]["rate_per_s"]["high"]
    assert "[1/4]" in done.stderr
    assert "sweep-whole-w1-closed" in done.stderr
    # Everything is done: the same command only fits, and says it in words.
    before = events(plan)
    again = parts.sweep(plan)
    assert again.returncode == 0, again.stderr
    assert "Run 2 workers" in again.stdout
    assert events(plan) == before


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on(parts: Parts) -> None:
    plan = parts.plan("killed", PLAN.replace("rates = [8, 1000]", "rates = [4]"))
    runner = subprocess.Popen(parts.words(plan), env=parts.env | {"MARK": "killed"}, stderr=subprocess.DEVNULL)
    until(lambda: bool(begun(plan, "w2-closed")), "the second step begins")
    assert len(marked("killed")) >= 3
    runner.kill()
    runner.wait()
    until(lambda: not marked("killed"), "all of its processes end")
    assert [entry["step"] for entry in events(plan) if entry["event"] == "done"] == ["w1-closed"]
    done = parts.sweep(plan, "--format", "json")
    assert done.returncode == 0, done.stderr
    # The step that was done is not repeated; the half-done one is, as a bulk of its own.
    assert begun(plan, "w1-closed") == ["sweep-killed-w1-closed"]
    assert begun(plan, "w2-closed") == ["sweep-killed-w2-closed", "sweep-killed-w2-closed.2"]
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert {key: step["jobs"] for key, step in steps.items() if key != "w2-r4"} == {"w1-closed": 40, "w2-closed": 80}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(parts: Parts, number: signal.Signals) -> None:
    name = f"signal-{number.value}"
    plan = parts.plan(name)
    runner = subprocess.Popen(
        parts.words(plan), env=parts.env | {"MARK": name}, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    until(lambda: bool(begun(plan, "w1-closed")), "the first step begins")
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "continues" in errors
    assert not marked(name)


@pytest.mark.slow
def test_a_changed_plan_is_not_mixed_with_what_was_done(parts: Parts) -> None:
    small = PLAN.replace("[1, 2]", "[1]").replace("[open]\nworkers = [2]\nrates = [8, 1000]", "")
    plan = parts.plan("changed", small)
    assert parts.sweep(plan).returncode == 0
    plan.write_text(plan.read_text().replace("jobs_per_worker = 40", "jobs_per_worker = 45"))
    refused = parts.sweep(plan)
    assert refused.returncode == 2
    assert "--restart" in refused.stderr
    again = parts.sweep(plan, "--restart", "--format", "json")
    assert again.returncode == 0, again.stderr
    (step,) = json.loads(again.stdout)["steps"]
    assert (step["bulk"], step["jobs"]) == ("sweep-changed-w1-closed.2", 45)


@pytest.mark.slow
def test_what_goes_wrong_is_said(parts: Parts) -> None:
    ends = parts.plan("ends", PLAN.replace('"service:jobs"', '"nowhere:jobs"'))
    done = parts.sweep(ends)
    assert done.returncode == 1
    assert "worker-1 ended with code" in done.stderr
    assert "nowhere" in done.stderr
    refuses = parts.plan("refuses", PLAN.replace("{ id =", "{ wrong ="))
    done = parts.sweep(refuses)
    assert done.returncode == 1
    assert "1 of 1 request of sweep-refuses-w1-warm" in done.stderr
    assert "was refused: 500" in done.stderr
    done = subprocess.run(
        [*parts.words(refuses)[:-1], str(parts.folder / "none.duckdb")], env=parts.env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "bulkscope studio --db" in done.stderr


# --- the plan ----------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    (folder / "prompts.json").write_text('["a", "b"]')
    path = folder / "plan.toml"
    path.write_text(text.replace("PORT", "8000"))
    return path


def test_a_plan_is_read_with_its_defaults(tmp_path: Path) -> None:
    plan = sweep_plan.read(written(tmp_path, PLAN))
    assert (plan.seconds, plan.limit, plan.quantile, plan.workers.instrument) == (6.0, 3600.0, 0.95, True)
    assert plan.workers.directory == tmp_path
    assert plan.steps == (
        Step(1, None, 40), Step(2, None, 80), Step(2, 8, 0), Step(2, 1000, 0),
    )  # fmt: skip
    assert [step.key for step in plan.steps] == ["w1-closed", "w2-closed", "w2-r8", "w2-r1000"]
    as_text = PLAN.replace('{ id = "{request_id}", prompts = "{prompts}" }', '\'{"prompts": "{prompts}"}\'')
    assert sweep_plan.read(written(tmp_path, as_text)).request.body == {"prompts": "{prompts}"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "test"', 'name = "a b"', "letters, digits"),
        ('name = "test"', 'nome = "test"', "quantile"),
        ('name = "test"', "", "name is missing"),
        ('seconds = "6s"', "seconds = 6", "time such as 30s"),
        ('seconds = "6s"', 'seconds = "soon"', "time such as 30s"),
        ('slo = "2s"', "quantile = 1.5", "between 0 and 1"),
        ('slo = "2s"', "seed = true", "whole number"),
        ("command = [", "commands = [", "command"),
        ('"w{number}@%h"', '"w{n}@%h"', "{number}"),
        ('ready = "ready"', 'ready = "("', "regular expression"),
        ('grace = "15s"', "instrument = 1", "true or false"),
        ('grace = "15s"', "environment = { A = 1 }", "table of strings"),
        ("http://127.0.0.1:PORT", "http://example.org", 'hosts = ["example.org"]'),
        ("http://127.0.0.1:PORT", "ftp://127.0.0.1", "http or https"),
        ('"{prompts}"', '"none"', "{prompt}"),
        ('"{prompts}"', '"all {prompts}"', "value of its own"),
        ('"{request_id}"', '"{id}"', "{request_id}"),
        ('"prompts.json"', '"nowhere.json"', "nowhere.json"),
        ("workers = [1, 2]", "workers = []", "whole numbers from 1"),
        ("workers = [1, 2]", "workers = [0]", "whole numbers from 1"),
        ("jobs_per_worker = 40", "jobs_per_worker = 0", "from 1 up"),
        ("rates = [8, 1000]", "rates = [-1]", "above 0"),
        ("rates = [8, 1000]", 'rates = ["8"]', "above 0"),
        ("[closed]", "[closd]", "closed"),
        ("[request]", "[request", "TOML"),
        ('seconds = "6s"', 'seconds = "0s"', "seconds must be a time such as 30s, 5m or 1h, not '0s'"),
        ('grace = "15s"', "warm_up = -1", "workers.warm_up must be a whole number from 0 up, not -1"),
        ('grace = "15s"', "directory = 7", "workers.directory must be a string, not 7"),
        ('"prompts.json"', "7", "request.prompts must be a string, not 7"),
        ('{ id = "{request_id}", prompts = "{prompts}" }', "7", "request.body must be a table, or JSON as a string"),
        ('{ id = "{request_id}", prompts = "{prompts}" }', "'{'", "request.body is not JSON"),
        ("[request]", 'method = "GET"\n[request]', "[workers] has no key 'method'; it may have: command, directory"),
        ("rates = [8, 1000]", "rates = [true]", "open.rates must be a list of jobs per second above 0, not [True]"),
        ("rates = [8, 1000]", "rates = [inf]", "open.rates must be a list of jobs per second above 0, not [inf]"),
        ("workers = [1, 2]", "workers = [1.0]", "closed.workers must be a list of whole numbers from 1 to 1000"),
        ("jobs_per_worker = 40", "jobs = 40\njobs_per_worker = 0", "[closed] has no key 'jobs'; it may have"),
    ],
)
def test_a_bad_plan_says_what_is_allowed(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in PLAN
    with pytest.raises(Bad) as raised:
        sweep_plan.read(written(tmp_path, PLAN.replace(old, new)))
    assert says in str(raised.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = PLAN.replace('name = "test"', 'nome = "test"\nworkers = 3').replace("[workers]", "[wrkers]")
    with pytest.raises(Bad) as raised:
        sweep_plan.read(written(tmp_path, text))
    known = "closed, drain, limit, model, name, open, quantile, request, seconds, seed, slo, workers"
    assert str(raised.value).split("; ") == [
        "name is missing: up to 40 letters, digits, '.', '_' and '-'", "workers must be a table, not 3",
        "the plan has no key 'nome'", f"it may have: {known}",
        "the plan has no key 'wrkers'", f"it may have: {known}",
    ]  # fmt: skip


def test_another_host_is_reached_when_the_plan_names_it(tmp_path: Path) -> None:
    elsewhere = PLAN.replace("http://127.0.0.1:PORT", "http://example.org").replace(
        "[closed]", 'hosts = ["example.org"]\n\n[closed]'
    )
    assert sweep_plan.read(written(tmp_path, elsewhere)).request.url == "http://example.org/bulks"


def test_a_bad_plan_ends_the_command_before_anything_is_started(tmp_path: Path) -> None:
    path = written(tmp_path, PLAN.replace("[closed]", "[closd]"))
    done = subprocess.run(
        [sys.executable, "-m", "bulkscope._cli", "capacity", "--sweep", str(path), "--db", str(tmp_path / "s.duckdb")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "closed" in done.stderr
    assert not path.with_name("plan.toml.state.jsonl").exists()


@pytest.mark.parametrize("quantile", ["0", "2"])
def test_a_quantile_that_means_nothing_ends_the_command_before_anything_is_started(
    tmp_path: Path, quantile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, PLAN)
    words = ["--sweep", str(path), "--db", str(tmp_path / "s.duckdb"), "--quantile", quantile]
    assert capacity.command(words) == 2
    assert "quantile must be between 0 and 1" in capsys.readouterr().err
    assert not path.with_name("plan.toml.state.jsonl").exists()


def test_fields_keep_their_kind() -> None:
    tree = {"id": "b-{request_id}", "prompts": "{prompts}", "deep": [{"one": "{prompt}"}, 3], "other": "{unknown}"}
    fields = {"request_id": "r-1", "prompts": ["a", 'q"uote'], "prompt": "a"}
    assert fill(tree, fields) == {
        "id": "b-r-1", "prompts": ["a", 'q"uote'], "deep": [{"one": "a"}, 3], "other": "{unknown}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expects"),
    [
        (b"-ERR unknown\x1b[2J command\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "without sending complete message body"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n\x1b[2Jx", "503"),
        (b"", "disconnected"),
    ],
)
def test_a_service_that_speaks_no_http_is_a_refusal(tmp_path: Path, said: bytes, expects: str) -> None:
    """The step waits for every request, so each must end: also one that gets no answer that HTTP knows."""
    plan = sweep_plan.read(written(tmp_path, PLAN))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # closed with something unread, it would be reset
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        there = elsewhere(plan, f"http://127.0.0.1:{server.getsockname()[1]}/bulks")
        failed = asks(there, tmp_path)
        thread.join()
    assert "1 of 1 request of" in failed
    assert expects in failed
    assert "\x1b" not in failed


def test_an_address_that_cannot_be_asked_is_a_refusal(tmp_path: Path) -> None:
    plan = sweep_plan.read(written(tmp_path, PLAN))
    assert "InvalidURL" in asks(elsewhere(plan, "http://127.0.0.1:1/a\x01b"), tmp_path)


def elsewhere(plan: sweep_plan.Plan, url: str) -> sweep_plan.Plan:
    return plan.model_copy(update={"request": plan.request.model_copy(update={"url": url})})


def asks(plan: sweep_plan.Plan, folder: Path) -> str:
    """Send one request of a plan whose service fails, and return what is said of it."""
    with (folder / "state").open("w") as file, Children(folder, 1.0) as workers:
        run = runner._Sweep(plan, folder / "s.duckdb", "", runner._State(file, plan))
        with pytest.raises(runner.Failed) as failed:
            run._send("b", [0.0], 1, workers)
    return str(failed.value)
