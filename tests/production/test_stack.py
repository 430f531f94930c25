"""``./run stack``: against servers that answer as the real ones do, well and ill, and a ``docker`` that writes down
what it was asked."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.setup import plan
from stack import docker, envfile, passwords, preflight, retention, services, status
from stack.__main__ import say
from tests.engines.binaries import binary
from tests.processes import PATIENCE_S
from tests.production.secrets import SECRETS

ROOT = Path(__file__).resolve().parents[2]
WANTED = services.elasticsearch_version()
GIB = 2**30


class Server:
    """An HTTP server on a free port of 127.0.0.1 whose answers are set by path: code and body."""

    def __init__(self, answers: Mapping[str, tuple[int, object]], password: str = "") -> None:
        self.answers = dict(answers)
        self.requests: list[tuple[str, dict[str, str]]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                owner.requests.append((self.path, dict(self.headers)))
                code, body = owner.answers.get(self.path, (404, "not here"))
                wanted = "Basic " + base64.b64encode(f"elastic:{password}".encode()).decode()
                if password and self.headers.get("Authorization") != wanted:
                    code, body = 401, {"error": {"type": "security_exception"}}
                text = body if isinstance(body, str | bytes) else json.dumps(body)
                data = text.encode() if isinstance(text, str) else text
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Server] = []

    def start(answers: Mapping[str, tuple[int, object]], password: str = "") -> Server:
        running.append(Server(answers, password))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def closed() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def elasticsearch(version: str = WANTED, state: str = "green") -> dict[str, tuple[int, object]]:
    return {"/": (200, {"version": {"number": version}}), "/_cluster/health": (200, {"status": state})}


# -- init --------------------------------------------------------------------------------------------------------


def held(path: Path) -> dict[str, str]:
    """The passwords and keys of an env file."""
    return {name: passwords.read(envfile.secrets_folder(path), name) for name in SECRETS}


def test_init_writes_a_file_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    before = os.umask(0)
    try:
        lines = envfile.init(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in lines[0]
    assert set(envfile.read(path)) == set(envfile.VARIABLES)
    folder = envfile.secrets_folder(path)
    assert folder == tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {entry.name for entry in folder.iterdir()} == {name.lower() for name in SECRETS}
    # Read in containers by users who are not this one.
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()} == {0o444}
    secrets = held(path)
    assert len(set(secrets.values())) == len(secrets) == 5
    for value in secrets.values():
        assert re.fullmatch(r"[0-9a-f]{32}", value), "Kibana wants 32 characters, shell and curl harmless ones"
        assert value not in "".join(lines) + path.read_text(), "a secret was shown"


def test_two_machines_have_no_secret_in_common(tmp_path: Path) -> None:
    for name in ("one", "two"):
        envfile.init(tmp_path / name)
    assert not set(held(tmp_path / "one").values()) & set(held(tmp_path / "two").values())
    one, two = (envfile.read(tmp_path / name) for name in ("one", "two"))
    for setting in retention.SETTINGS:
        assert one[setting.variable] == two[setting.variable] == setting.default


def test_init_changes_nothing_that_is_there_and_adds_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KIBANA_PORT=5602\nHOST_NAME=mine")
    path.chmod(0o644)
    lines = envfile.init(path)
    assert path.read_text().startswith("KIBANA_PORT=5602\nHOST_NAME=mine\n")
    assert set(envfile.read(path)) == {*envfile.VARIABLES, "KIBANA_PORT"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert any("644" in line for line in lines)
    assert "TRACES_RETENTION" in lines[-1]
    assert "HOST_NAME" not in lines[-1]

    text, secrets = path.read_text(), held(path)
    assert len(envfile.init(path)) == 1
    assert (path.read_text(), held(path)) == (text, secrets)
    # One that is gone is made anew, the others stay; a folder that was opened is closed.
    passwords.file(tmp_path / "secrets", "KIBANA_REPORTING_KEY").unlink()
    (tmp_path / "secrets").chmod(0o755)
    passwords.file(tmp_path / "secrets", "ELASTIC_PASSWORD").chmod(0o600)
    lines = envfile.init(path)
    assert lines[1].endswith("elastic_password to the containers (mode 444)")
    assert lines[2].endswith(": kibana_reporting_key")
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "secrets").iterdir()} == {0o444}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {name for name, value in held(path).items() if value != secrets[name]} == {"KIBANA_REPORTING_KEY"}


OLD_ENV = """\
# Passwords and keys of the stack in docker-compose.yml, made by `./run stack init`. Keep this file to yourself.
# of the user 'elastic', with which people log in to Kibana
ELASTIC_PASSWORD=0123456789abcdef0123456789abcdef
# with which Kibana talks to Elasticsearch
KIBANA_SYSTEM_PASSWORD='own # one'
# encrypts Kibana's sessions
KIBANA_SECURITY_KEY=1123456789abcdef0123456789abcdef
# my own words
export KIBANA_SAVED_OBJECTS_KEY = 2123456789abcdef0123456789abcdef
KIBANA_PORT=5602
# this machine, as spans, logs and metrics call it
HOST_NAME=node7
"""


def test_passwords_of_an_older_env_file_move_and_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(OLD_ENV)
    before = envfile.read(path)
    lines = envfile.init(path)
    found = held(path)
    moved = {name for name in SECRETS if name in before}
    assert len(moved) == 4
    assert {name: found[name] for name in moved} == {name: before[name] for name in moved}
    assert re.fullmatch(r"[0-9a-f]{32}", found["KIBANA_REPORTING_KEY"])
    after = envfile.read(path)
    assert not set(after) & SECRETS
    assert (after["KIBANA_PORT"], after["HOST_NAME"]) == ("5602", "node7")
    assert "# my own words\nKIBANA_PORT" in path.read_text()
    for value in found.values():
        assert value not in path.read_text() + "".join(lines)
    assert any(line.startswith("moved from .env") for line in lines)
    assert len(envfile.init(path)) == 1
    assert held(path) == found


def test_two_values_of_one_password_are_left_to_a_person(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    envfile.init(path)
    files = {entry.name: entry.read_text() for entry in (tmp_path / "secrets").iterdir()}
    text = path.read_text() + "ELASTIC_PASSWORD=another\n"
    path.write_text(text)
    with pytest.raises(envfile.EnvFileError, match=r"ELASTIC_PASSWORD stands in \.env and, with another value"):
        envfile.init(path)
    assert path.read_text() == text
    assert {entry.name: entry.read_text() for entry in (tmp_path / "secrets").iterdir()} == files


def test_a_password_that_cannot_be_written_stays_in_the_env_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(OLD_ENV)
    (tmp_path / "secrets").write_text("a file where the folder should be")
    with pytest.raises(envfile.EnvFileError):
        envfile.init(path)
    assert path.read_text() == OLD_ENV


def test_each_env_file_has_passwords_of_its_own(tmp_path: Path) -> None:
    for name in (".env", "other.env"):
        envfile.init(tmp_path / name)
    assert envfile.secrets_folder(tmp_path / "other.env") == tmp_path / "other.env.secrets"
    assert not set(held(tmp_path / ".env").values()) & set(held(tmp_path / "other.env").values())
    # Where the project's own file leads, Compose looks too, which starts from the project's folder.
    assert envfile.VARIABLES[envfile.FOLDER][0](ROOT / ".env") == "./secrets"


def test_init_says_why_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(envfile.EnvFileError, match="cannot be written"):
        envfile.init(tmp_path / "none" / ".env")
    (tmp_path / "folder").mkdir()
    with pytest.raises(envfile.EnvFileError, match="cannot be read"):
        envfile.init(tmp_path / "folder")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nA=2", {"A": "2"}),
        ("# A=1\n\n  B = x y \n", {"B": "x y"}),
        ("export A='a # b'\nB=\"c\"", {"A": "a # b", "B": "c"}),
        ("A=1 # why", {"A": "1"}),
        ("A=a=b\nnothing", {"A": "a=b"}),
        ("A=", {"A": ""}),
    ],
)
def test_env_files_are_read_as_compose_reads_them(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    assert envfile.read(path) == expected


def test_an_absent_env_file_is_an_empty_one(tmp_path: Path) -> None:
    assert envfile.read(tmp_path / ".env") == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("node7.example.org", "node7"), ("My Laptop", "My-Laptop"), ("...", "docker-host"), ("x" * 70, "x" * 63)],
)
def test_a_containers_host_name_is_a_valid_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    envfile.init(tmp_path / ".env")
    assert envfile.read(tmp_path / ".env")["HOST_NAME"] == expected


# -- status ------------------------------------------------------------------------------------------------------


def test_elasticsearch_that_is_well(serve: Serve) -> None:
    server = serve(elasticsearch(), "right")
    state = status.elasticsearch(server.port, "right")
    assert (state.ok, state.words, state.todo) == (True, f"version {WANTED}, green", "")


@pytest.mark.parametrize(
    ("answers", "password", "words", "todo"),
    [
        (elasticsearch(), "wrong", "refuses the password (401)", "down --volumes"),
        (elasticsearch(), "", "password is not known", "./run stack init"),
        (elasticsearch("8.19.21"), "right", "is version 8.19.21", "ELASTICSEARCH_PORT"),
        (elasticsearch("9.4.9-SNAPSHOT"), "right", "need 9.5 or newer", "docker compose pull"),
        (elasticsearch(state="red"), "right", "state is red", "df -h"),
        (elasticsearch() | {"/_cluster/health": (500, "")}, "right", "does not tell its state", "logs elasticsearch"),
        ({"/": (503, "")}, "right", "is not ready (503)", "logs elasticsearch"),
        ({"/": (200, "<html>")}, "right", "is not Elasticsearch", "ELASTICSEARCH_PORT"),
        ({"/": (200, ["version"])}, "right", "is not Elasticsearch", "ELASTICSEARCH_PORT"),
        ({"/": (418, "")}, "right", "answers 418", "logs elasticsearch"),
    ],
)
def test_elasticsearch_that_is_ill(
    serve: Serve, answers: dict[str, tuple[int, object]], password: str, words: str, todo: str
) -> None:
    state = status.elasticsearch(serve(answers, "right").port, password)
    assert not state.ok
    assert words in state.words
    assert todo in state.todo


def test_a_newer_elasticsearch_is_no_wrong_one(serve: Serve) -> None:
    for version in ("9.5.0", "9.10.0", "10.0.1"):
        assert status.elasticsearch(serve(elasticsearch(version), "right").port, "right").ok, version


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        ((200, {"status": {"overall": {"level": "available"}}}), True, "available"),
        ((503, {"status": {"overall": {"level": "unavailable"}}}), False, "is starting"),
        ((503, "Kibana server is not ready yet"), False, "cannot reach Elasticsearch (503)"),
        ((200, {"status": {"overall": {"level": "degraded"}}}), False, "its state is degraded"),
        ((200, "hello"), False, "is not Kibana"),
        ((404, ""), False, "answers 404"),
    ],
)
def test_kibana(serve: Serve, answer: tuple[int, object], ok: bool, words: str) -> None:
    state = status.kibana(serve({"/api/status": answer}).port)
    assert state.ok is ok
    assert words in state.words
    assert ok or state.todo


ODD: tuple[object, ...] = (
    *(None, 0, "", "words", [], [1], True, {}, {"status": "ok"}, {"status": {"overall": "ok"}}, {"version": "9.5"}),
    *({"version": {"number": 9}}, {"version": {"number": "²"}}, {"version": None, "status": None}, "[" * 100_000),
    *(
        {"data": None},
        {"data": {"result": None}},
        {"data": {"activeTargets": [None, {"labels": None}, 7]}},
        b"\xff\x00",
    ),
)


@pytest.mark.parametrize("odd", ODD, ids=map(str, range(len(ODD))))
def test_a_stranger_on_a_port_is_told_and_not_died_of(serve: Serve, odd: object) -> None:
    """Whatever JSON, or none, answers 200 everywhere."""
    port = serve(dict.fromkeys(("/", "/_cluster/health", "/api/status", "/-/ready", UP), (200, odd)), "right").port
    for state in (status.elasticsearch(port, "right"), status.kibana(port), status.prometheus(port)):
        assert not state.ok
        assert state.words
        assert state.todo


def test_what_a_stranger_names_reaches_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("!!  prometheus     cannot scrape \x1b]0;own\x07job\x9b31m (\u202eh:1)\r\n")
    assert capsys.readouterr().out == "!!  prometheus     cannot scrape �]0;own�job�31m (�h:1)��\n"


UP = "/api/v1/targets?state=active"


def scraped(*targets: tuple[str, str, str]) -> tuple[int, object]:
    """Prometheus' answer, for each target job, health and when it was scraped last."""
    entries = [
        {"labels": {"job": job, "instance": f"{job}:9100"}, "health": health, "lastScrape": at, "scrapeInterval": "1s"}
        for job, health, at in targets
    ]
    return 200, {"status": "success", "data": {"activeTargets": entries}}


def test_prometheus(serve: Serve) -> None:
    assert status.prometheus(serve({"/-/ready": (200, "ready"), UP: scraped(("node", "up", "1"))}).port).ok
    state = status.prometheus(serve({"/-/ready": (503, "Service Unavailable")}).port)
    assert not state.ok
    assert "is not ready (503)" in state.words


def test_what_has_started_since_the_last_scrape_is_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SECONDS", 1.0)
    asked = 0
    for before, after, ok, words in (
        ("down", scraped(("node", "up", "2"), ("collector", "up", "1")), True, "ready"),
        ("unknown", scraped(("node", "up", "2"), ("collector", "up", "1")), True, "ready"),
        ("down", scraped(("node", "down", "2"), ("collector", "up", "1")), False, "cannot scrape node (node:9100)"),
        ("down", scraped(("node", "down", "1"), ("collector", "up", "1")), False, "cannot scrape node (node:9100)"),
        ("unknown", scraped(("node", "unknown", "1"), ("collector", "up", "1")), True, "not yet scraped: node (node"),
    ):
        server = serve({"/-/ready": (200, ""), UP: scraped(("node", before, "1"), ("collector", "up", "1"))})

        def pause(seconds: float, server: Server = server, after: tuple[int, object] = after) -> None:
            nonlocal asked
            asked += 1
            server.answers[UP] = after

        with monkeypatch.context() as patch:
            patch.setattr(status.time, "sleep", pause)
            state = status.prometheus(server.port)
        assert (state.ok, words in state.words) == (ok, True), state
        assert bool(state.todo) is not ok
    assert asked >= 5


@pytest.mark.engines
def test_a_real_prometheus_that_has_not_scraped_yet_is_well_and_one_that_cannot_is_not(
    serve: Serve, tmp_path: Path, closed: int
) -> None:
    well = serve({"/metrics": (200, "up_to_now 1\n")})
    jobs = [
        {
            "job_name": job,
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            "fallback_scrape_protocol": "PrometheusText0.0.4",
        }
        for job, port in (("well", well.port), ("away", closed))
    ]
    config = {"global": {"scrape_interval": "3s"}, "scrape_configs": jobs}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(binary("prometheus")), f"--config.file={tmp_path / 'prometheus.yml'}",
             f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{number}"],
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait(lambda: status.get(number, "/-/ready").code == 200, server, log)
        state = status.prometheus(number)
        assert not state.ok
        assert state.words == f"ready, but cannot scrape away (127.0.0.1:{closed})"
        # It comes up between two scrapes.
        with ThreadingHTTPServer(("127.0.0.1", closed), well.server.RequestHandlerClass) as late:
            threading.Thread(target=late.serve_forever, daemon=True).start()
            state = status.prometheus(number)
            late.shutdown()
        assert state.ok, state.words
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def test_the_collector(serve: Serve, closed: int) -> None:
    assert status.collector(serve({"/": (200, {"status": "Server available"})}).port).ok
    assert "not healthy (503)" in status.collector(serve({"/": (503, "")}).port).words
    state = status.collector(closed)
    assert not state.ok
    assert "connection refused" in state.words
    assert "setup" in state.todo


def test_the_demo_need_not_run(serve: Serve, closed: int) -> None:
    state = status.api(closed)
    assert (state.ok, state.expected) == (False, False)
    assert status.api(serve({"/healthz": (200, {"status": "ok", "queue": 0})}).port).ok
    state = status.api(serve({"/healthz": (503, "")}).port)
    assert "broker does not answer" in state.words
    assert state.expected


def test_nothing_listens(closed: int) -> None:
    for state in (status.elasticsearch(closed, "x"), status.kibana(closed), status.node_exporter(closed)):
        assert not state.ok
        assert f"nothing listens on port {closed} (connection refused)" in state.words
        assert "./run stack up" in state.todo


def test_a_server_that_does_not_answer_and_one_that_does_not_speak_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        number = silent.getsockname()[1]
        assert "does not answer" in status.kibana(number).words
        assert "does not answer" in status.collector(number).words
    with socket.create_server(("127.0.0.1", 0)) as other:

        def babble() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        assert "does not speak HTTP" in status.kibana(other.getsockname()[1]).words
        thread.join(5)


def test_no_proxy_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch, closed: int) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed}")
    assert status.node_exporter(serve({"/": (200, "")}).port).ok


@pytest.mark.parametrize("service", list(status.SETUPS))
@pytest.mark.parametrize(
    ("container", "ok", "words"),
    [
        ({"State": "exited", "ExitCode": 0}, True, "done"),
        ({"State": "exited", "ExitCode": 1}, False, "failed with code 1"),
        ({"State": "running", "ExitCode": 0}, False, "has not ended yet (it is running)"),
        ({"State": "created", "ExitCode": 0}, False, "was not started"),
    ],
)
def test_setup(service: str, container: dict[str, Any], ok: bool, words: str) -> None:
    (state,) = status.setup(service, [{"Service": "kibana", "State": "running"}, container | {"Service": service}])
    assert (state.service, state.ok, state.words) == (service, ok, words)
    assert ok or state.todo
    assert list(status.setup(service, [])) == []


def test_the_trouble_with_kibana_is_told_in_its_own_words() -> None:
    said = [
        "bulkscope setup: Kibana at http://kibana:5601 was not ready within 300 s: 503",
        "ok           Kibana 9.5.4 at http://kibana:5601",
        "failed       dashboard bulkscope-bulk",
        "             Kibana answered 400 to PUT /api/dashboards/bulkscope-bulk: no",
        "done, 6 changed",
        "bulkscope setup: refused: dashboard bulkscope-bulk (Kibana answered 400 to PUT): no",
    ]
    (state,) = status.setup("setup-kibana", [{"Service": "setup-kibana", "State": "exited", "ExitCode": 1}], said)
    assert not state.ok
    assert state.words == "failed with code 1: refused: dashboard bulkscope-bulk (Kibana answered 400 to PUT): no"
    assert "./run stack up" in state.todo
    assert "telemetry does not wait for it" in state.todo


def test_what_setup_left_to_a_person_is_told_of_its_last_run_alone() -> None:
    before = [
        "ok           Elasticsearch 9.5.4 at http://x",
        "look at      mapping of logs-generic.otel-default",
        "unchanged",
    ]
    last = [
        "waiting for Elasticsearch at http://x, at most 300 s",
        "ok           Elasticsearch 9.5.4 at http://x",
        "unchanged    component template traces-otel@custom",
        "look at      retention of traces-generic.otel-default",
        "             ~ data_retention: 14d -> 7d",
        "unchanged",
    ]
    ended = [{"Service": "setup", "State": "exited", "ExitCode": 0}]
    (state,) = status.setup("setup", ended, [*before, *last])
    assert state.ok
    assert state.words.endswith("for you to decide: retention of traces-generic.otel-default")
    assert "./run stack logs setup" in state.todo
    (state,) = status.setup("setup", ended, [*before, *last[:3]])
    assert (state.words, state.todo) == ("done", "")
    (state,) = status.setup("setup", ended, [])
    assert state.words == "done"


# -- the command, with a docker that writes down what it was asked ---------------------------------------------------

DOCKER = """\
#!{python}
import json, os, sys
words = sys.argv[1:]
with open(os.environ["FAKE_DOCKER_LOG"], "a") as log:
    log.write(json.dumps(words) + "\\n")
answers = json.loads(os.environ.get("FAKE_DOCKER_ANSWERS", "{{}}"))
known = [word for word in ("version", "info", "ps", "up", "down", "logs") if word in words]
if "{{{{.DockerRootDir}}}}" in words:
    known = ["root"]
name = ("compose " if words[:1] == ["compose"] and known == ["version"] else "") + (known or ["?"])[0]
code, out, err = answers.get(name, [0, "", ""])
print(out)
print(err, file=sys.stderr)
sys.exit(code)
"""
GOOD = {
    "version": [0, "28.0.1", ""],
    "compose version": [0, "2.40.3", ""],
    "info": [0, str(8 * GIB), ""],
    "ps": [0, "", ""],
}


class Command:
    """``./run stack`` in a process of its own, with its own .env, its own ports and a fake docker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env_file = folder / ".env"
        self.log = folder / "docker.log"
        self.answers: dict[str, list[Any]] = dict(GOOD)
        self.ports: dict[str, int] = {}
        (folder / "bin").mkdir()
        self.install()

    def install(self) -> None:
        fake = self.folder / "bin" / "docker"
        fake.write_text(DOCKER.format(python=sys.executable))
        fake.chmod(0o755)

    def environ(self) -> dict[str, str]:
        # Nothing else on the path: a docker of this machine's own must not be found.
        env = {"PATH": str(self.folder / "bin"), "HOME": str(self.folder), "FAKE_DOCKER_LOG": str(self.log)}
        env |= {
            "FAKE_DOCKER_ANSWERS": json.dumps(self.answers),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return env | {name: str(number) for name, number in self.ports.items()}

    def __call__(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stack", "--env-file", str(self.env_file), *words]
        return subprocess.run(
            command, env=self.environ(), cwd=self.folder, input=typed, capture_output=True, text=True, check=False
        )

    def asked(self, word: str) -> list[list[str]]:
        """The calls of docker in which a word stands."""
        calls = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [call for call in calls if word in call]

    def begins(self) -> list[str]:
        return ["compose", "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml"), "--env-file",
                str(self.env_file)]  # fmt: skip


@pytest.fixture
def command(tmp_path: Path) -> Command:
    made = Command(tmp_path)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in services.PORTS]
    made.ports = {
        known.variable: made_socket.getsockname()[1] for known, made_socket in zip(services.PORTS, sockets, strict=True)
    }
    for made_socket in sockets:
        made_socket.close()
    return made


def fit(command: Command, *words: str) -> subprocess.CompletedProcess[str]:
    """``up`` as on a machine whose kernel setting is right, whatever it is on this one."""
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from stack import preflight
        from stack.__main__ import main
        preflight.MAP_COUNT_FILE = Path(sys.argv[1])
        sys.exit(main(sys.argv[2:]))
        """
    )
    setting = command.folder / "max_map_count"
    if not setting.exists():
        setting.write_text("262144\n")
    words = ("--env-file", str(command.env_file), *words)
    return subprocess.run(
        [sys.executable, "-c", script, str(setting), *words],
        env=command.environ(), cwd=command.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_up_makes_the_passwords_checks_and_starts(command: Command) -> None:
    done = fit(command, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(envfile.read(command.env_file)) == {*envfile.VARIABLES, *services.FILES}
    assert command.asked("up") == [[*command.begins(), "up", "--detach", "--wait", "--build"]]
    assert f"http://localhost:{command.ports['KIBANA_PORT']}" in done.stdout
    assert str(command.folder / "secrets" / "elastic_password") in done.stdout
    for name, value in held(command.env_file).items():
        assert value not in done.stdout + done.stderr, f"{name} was shown"


def test_up_with_the_demo(command: Command) -> None:
    done = fit(command, "up", "--demo")
    assert done.returncode == 0, done.stdout
    assert command.asked("up") == [
        [*command.begins(), "--profile", "demo", "up", "--detach", "--wait", "--build"],
    ]


def test_up_keeps_the_passwords_that_are_there(command: Command) -> None:
    assert command("init").returncode == 0
    before, secrets = command.env_file.read_text(), held(command.env_file)
    assert fit(command, "up").returncode == 0
    assert command.env_file.read_text().startswith(before)
    assert held(command.env_file) == secrets
    # The second time nothing at all.
    before = command.env_file.read_text()
    assert fit(command, "up").returncode == 0
    assert command.env_file.read_text() == before


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("version", [1, "", "Cannot connect to the Docker daemon"], "Docker's daemon does not answer"),
        ("version", [1, "", "Got permission denied while trying to connect"], "usermod -aG docker"),
        ("compose version", [1, "", "unknown command"], "install the Compose plugin"),
        ("compose version", [0, "2.3.1", ""], "2.20 or newer is needed"),
        ("compose version", [0, "", ""], "version unknown"),
        ("info", [0, str(4 * GIB), ""], "Docker has 4096 MiB of memory, and the stack may use 5824 MiB"),
        ("info", [0, "much", ""], "does not say how much memory"),
    ],
)
def test_up_refuses_an_unfit_docker_and_says_what_to_do(
    command: Command, name: str, answer: list[Any], words: str
) -> None:
    command.answers[name] = answer
    done = fit(command, "up")
    assert done.returncode == 1
    assert words in done.stdout
    assert "Nothing was started" in done.stdout
    assert command.asked("up") == []
    assert fit(command, "up", "--no-checks").returncode == 0
    assert len(command.asked("up")) == 1


def test_up_refuses_a_retention_that_is_none(command: Command) -> None:
    command.env_file.write_text("TRACES_RETENTION=14 days\nPROMETHEUS_RETENTION_SIZE=lots\nLOGS_RETENTION=3d\n")
    done = fit(command, "up")
    assert done.returncode == 1
    assert "TRACES_RETENTION is '14 days'" in done.stdout
    assert "PROMETHEUS_RETENTION_SIZE is 'lots'" in done.stdout
    assert "LOGS_RETENTION" not in done.stdout.partition("Nothing")[0].partition("- ")[2]
    assert command.asked("up") == []


def wrong(variable: str, value: str) -> bool:
    return bool(list(retention.problems({variable: value})))


@pytest.mark.parametrize(
    "value", ["14d", "36h", "90m", "1s", "007d", "0d", "0", "14", "14 d", "1.5d", "14D", "1d12h", "-1d"]
)
def test_a_retention_is_refused_exactly_where_setup_would_refuse_it(value: str) -> None:
    try:
        plan.seconds(value)
        refused = False
    except plan.BadPlan:
        refused = True
    for signal in plan.SIGNALS:
        assert wrong(f"{signal.upper()}_RETENTION", value) == refused


TIMES = ("15d", "1y6w", "1d12h", "0", "15", "d", "15 d", "1h1d")
SIZES = ("4GB", "512MB", "100B", "0", "4G", "4 GB", "lots")


@pytest.mark.engines
@pytest.mark.parametrize(
    ("variable", "flag", "value"),
    [
        *(("PROMETHEUS_RETENTION_TIME", "time", value) for value in TIMES),
        *(("PROMETHEUS_RETENTION_SIZE", "size", value) for value in SIZES),
    ],
)
def test_a_retention_is_refused_exactly_where_prometheus_would_refuse_it(variable: str, flag: str, value: str) -> None:
    done = subprocess.run(
        [binary("prometheus"), "--config.file=/nowhere/prometheus.yml", f"--storage.tsdb.retention.{flag}={value}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    # What is wrong with a flag is said before the file is looked for.
    assert wrong(variable, value) == ("/nowhere/prometheus.yml" not in done.stderr), done.stderr


def test_a_retention_that_is_not_set_is_the_default(command: Command) -> None:
    assert list(retention.problems({})) == []
    assert list(retention.problems(dict.fromkeys((setting.variable for setting in retention.SETTINGS), ""))) == []


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def says(out: str, code: int = 0) -> None:
        monkeypatch.setattr(docker, "ask", lambda *words: docker.Answer(code, out, ""))

    def has(gib: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(2**40, 0, int(gib * GIB)))

    says(str(tmp_path))
    has(preflight.DISK_GIB)
    assert list(preflight.disk_problems()) == []
    has(1.5)
    (problem,) = preflight.disk_problems()
    assert "only 1.5 GiB are free" in problem
    assert str(tmp_path) in problem
    # In Docker Desktop's own machine, or not told: nothing is known, and nothing stands in the way.
    for out, code in (("", 0), ("", 1), ("C:\\docker", 0)):
        says(out, code)
        assert list(preflight.disk_problems()) == []
    monkeypatch.undo()
    says("/nowhere/at/all")
    assert list(preflight.disk_problems()) == []


def test_a_changed_file_makes_its_container_anew(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for names in services.FILES.values():
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name)
            else:
                shutil.copy(ROOT / name, root / name)
    before = services.file_sums(root)
    assert before == services.file_sums()
    assert set(before) == set(services.FILES)
    assert len(set(before.values())) == len(before)
    rules = next((root / "prometheus" / "rules").iterdir())
    rules.write_text(rules.read_text() + "# more\n")
    after = services.file_sums(root)
    assert {name for name in after if after[name] != before[name]} == {"PROMETHEUS_FILES"}

    # Where a plain `docker compose up` finds them too.
    command.env_file.write_text("COLLECTOR_FILES=of-before\nHOST_NAME=mine\n")
    assert fit(command, "up").returncode == 0
    found = envfile.read(command.env_file)
    assert {name: found[name] for name in before} == before
    assert found["HOST_NAME"] == "mine"
    assert command.env_file.read_text().count("COLLECTOR_FILES=") == 1


def test_too_little_memory_for_the_demo_only(command: Command) -> None:
    command.answers["info"] = [0, str(6 * GIB), ""]
    assert "Without the demo 5824 MiB are enough" in fit(command, "up", "--demo").stdout
    assert fit(command, "up").returncode == 0


def test_more_workers(command: Command) -> None:
    done = fit(command, "up", "--scale", "worker=3")
    assert done.returncode == 1
    assert f"the stack may use {services.MEMORY_MIB['demo'] + 2 * services.SCALED_MIB} MiB" in done.stdout
    command.answers["info"] = [0, str(16 * GIB), ""]
    assert fit(command, "up", "--scale", "worker=3").returncode == 0
    begins = [*command.begins(), "--profile", "demo", "up", "--detach", "--wait", "--build"]
    assert command.asked("up") == [[*begins, "--scale", "worker=3"]]
    for wrong_one in ("kibana=2", "worker", "worker=0", "worker=-1", "worker=²", "3"):
        done = fit(command, "up", "--scale", wrong_one)
        assert done.returncode == 2
        assert "write worker=2" in done.stderr


def test_further_compose_files_are_put_on_and_the_override_is_taken_by_itself(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = [tmp_path / "first.yml", tmp_path / "second.yml"]
    for file in own:
        file.write_text("services: {}\n")
    words = ("--file", str(own[0]), "--file", "second.yml")
    for action in (("up",), ("down",), ("status",), ("logs",)):
        fit(command, *words, *action)
    asked = [call for call in command.asked("--file") if call[0] == "compose"]
    assert {tuple(call[5:9]) for call in asked} == {("--file", str(own[0]), "--file", str(own[1]))}
    for action in ("init", "up", "down", "status", "logs"):  # before anything is written or asked
        done = fit(command, "--file", "none.yml", action)
        assert done.returncode == 2
        assert "none.yml, which --file names" in done.stderr
        assert done.stdout == ""

    override = tmp_path / "docker-compose.override.yml"
    monkeypatch.setattr(docker, "OVERRIDE_FILE", override)
    project = docker.Project(tmp_path / ".env", (own[0],))
    assert str(override) not in project.words()
    override.write_text("services: {}\n")
    words = tuple(project.words())
    assert [words[place + 1] for place, word in enumerate(words) if word == "--file"] == [
        str(ROOT / "docker-compose.yml"), str(override), str(own[0]),
    ]  # fmt: skip
    ignored = subprocess.run(["git", "check-ignore", "--quiet", services.OVERRIDE_FILE.name], cwd=ROOT, check=False)
    assert ignored.returncode == 0, "an update of the project would touch it"


def test_telemetry_that_is_taken_though_the_start_failed_is_told(command: Command, serve: Serve) -> None:
    command.answers["up"] = [1, "", "service setup-kibana didn't complete successfully: exit 1"]
    command.ports["COLLECTOR_HEALTH_PORT"] = serve({"/": (200, "")}).port
    done = fit(command, "up", "--no-checks")
    assert done.returncode == 1
    assert "Telemetry is taken all the same" in done.stdout


def test_a_kernel_setting_that_is_too_small(command: Command) -> None:
    (command.folder / "max_map_count").write_text("65530\n")
    done = fit(command, "up")
    assert done.returncode == 1
    assert "sudo sysctl -w vm.max_map_count=262144" in done.stdout
    assert list(preflight.map_count_problems(command.folder / "absent")) == []


def test_what_a_container_of_another_user_reads_must_be_open_to_others(tmp_path: Path) -> None:
    """As a checkout made under umask 077 is not."""
    for name in services.FOREIGN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    assert list(preflight.mode_problems(tmp_path)) == []
    (tmp_path / "prometheus" / "prometheus.yml").chmod(0o600)
    (problem,) = preflight.mode_problems(tmp_path)
    assert "prometheus/prometheus.yml cannot be read by others" in problem
    assert "chmod -R a+rX prometheus" in problem
    (tmp_path / "prometheus" / "rules").chmod(0o700)
    assert len(list(preflight.mode_problems(tmp_path))) == 1


def test_without_docker(command: Command) -> None:
    (command.folder / "bin" / "docker").unlink()
    for words in (("up",), ("up", "--no-checks"), ("down",), ("logs",)):
        done = fit(command, *words)
        assert done.returncode in (1, 127)
        assert "Docker is not installed" in done.stdout


def test_a_taken_port_is_named_unless_the_stack_itself_has_it(command: Command) -> None:
    with socket.create_server(("127.0.0.1", command.ports["OTLP_HTTP_PORT"])):
        done = fit(command, "up")
        number = command.ports["OTLP_HTTP_PORT"]
        assert done.returncode == 1
        assert f"port {number} on 127.0.0.1, for collector, is taken" in done.stdout
        assert "OTLP_HTTP_PORT" in done.stdout
        container = {"Service": "collector", "State": "running", "Publishers": [{"PublishedPort": number}]}
        for text in (json.dumps(container), json.dumps([container])):  # Compose since 2.21, and before
            command.answers["ps"] = [0, text, ""]
            assert fit(command, "up").returncode == 0
    with socket.create_server(("127.0.0.1", command.ports["API_PORT"])):
        assert fit(command, "up").returncode == 0, "the demo's port matters with the demo only"
        assert "for api, is taken" in fit(command, "up", "--demo").stdout


@pytest.mark.parametrize("value", ["http", "0", "65536", "-1", "9200.0"])
def test_a_port_that_is_none(command: Command, value: str) -> None:
    del command.ports["KIBANA_PORT"]
    command.env_file.write_text(f"KIBANA_PORT={value}\n")
    for words in (("up",), ("status",)):
        done = fit(command, *words)
        assert done.returncode == 1
        assert f"KIBANA_PORT is '{value}'" in done.stderr


def test_two_services_on_one_port(command: Command) -> None:
    command.ports["KIBANA_PORT"] = command.ports["ELASTICSEARCH_PORT"]
    assert "KIBANA_PORT and ELASTICSEARCH_PORT are both" in fit(command, "up").stdout


def test_a_start_that_fails_says_where_to_look(command: Command) -> None:
    command.answers["up"] = [17, "", "container bulkscope-kibana-1 is unhealthy"]
    done = fit(command, "up")
    assert done.returncode == 17
    assert "./run stack status" in done.stdout
    assert "Kibana " not in done.stdout


def test_down_keeps_the_data(command: Command) -> None:
    assert command("down").returncode == 0
    assert command.asked("down") == [[*command.begins(), "--profile", "demo", "down"]]


@pytest.mark.parametrize("typed", ["", "\n", "yes\n", "DELETE\n"])
def test_down_deletes_nothing_without_a_yes(command: Command, typed: str) -> None:
    done = command("down", "--volumes", typed=typed)
    assert done.returncode == 1
    assert "Nothing was stopped or deleted" in done.stdout
    assert command.asked("down") == []


def test_down_deletes_when_it_is_told_to(command: Command) -> None:
    assert command("down", "--volumes", typed="delete\n").returncode == 0
    assert command("down", "--volumes", "--yes").returncode == 0
    assert command.asked("down") == [[*command.begins(), "--profile", "demo", "down", "--volumes"]] * 2


def test_logs(command: Command) -> None:
    assert command("logs", "-f", "--tail", "10", "setup", "kibana").returncode == 0
    assert command.asked("logs") == [
        [*command.begins(), "--profile", "demo", "logs", "--tail", "10", "--follow", "setup", "kibana"],
    ]


def test_status_asks_every_service_and_fails_when_one_is_ill(command: Command, serve: Serve) -> None:
    command("init")
    password = held(command.env_file)["ELASTIC_PASSWORD"]
    well = {
        "ELASTICSEARCH_PORT": serve(elasticsearch(), password),
        "KIBANA_PORT": serve({"/api/status": (200, {"status": {"overall": {"level": "available"}}})}),
        "PROMETHEUS_PORT": serve({"/-/ready": (200, ""), UP: scraped(("node", "up", "1"))}),
        "COLLECTOR_HEALTH_PORT": serve({"/": (200, "")}),
        "NODE_EXPORTER_PORT": serve({"/": (200, "")}),
    }
    command.ports |= {variable: server.port for variable, server in well.items()}
    one_shots = [{"Service": service, "State": "exited", "ExitCode": 0} for service in status.SETUPS]
    command.answers["ps"] = [0, "\n".join(map(json.dumps, one_shots)), ""]
    done = command("status")
    assert done.returncode == 0, done.stdout
    lines = [line.split()[:2] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert lines == [
        ["ok", "elasticsearch"],
        ["ok", "kibana"],
        ["ok", "prometheus"],
        ["ok", "setup"],
        ["ok", "setup-kibana"],
        ["ok", "collector"],
        ["ok", "node-exporter"],
        ["--", "api"],
    ]
    assert password not in done.stdout
    assert command.asked("logs") == [
        [*command.begins(), "logs", "--no-color", "--no-log-prefix", service] for service in status.SETUPS
    ]

    well["COLLECTOR_HEALTH_PORT"].answers["/"] = (503, "")
    done = command("status")
    assert done.returncode == 1
    assert re.search(r"^!!  collector +runs, but is not healthy", done.stdout, re.MULTILINE)

    kept = passwords.file(command.folder / "secrets", "ELASTIC_PASSWORD")
    kept.unlink()
    kept.write_text("another")
    done = command("status")
    assert re.search(r"^!!  elasticsearch +answers .*\(401\)", done.stdout, re.MULTILINE)


def test_wrong_usage(command: Command) -> None:
    assert command().returncode == 2
    assert command("restart").returncode == 2


def test_run_hands_over_to_the_commands(tmp_path: Path) -> None:
    env = dict(os.environ)
    told = subprocess.run([str(ROOT / "run"), "stack", "--help"], env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "{init,up,down,status,logs}" in told.stdout
    path = tmp_path / ".env"
    words = [str(ROOT / "run"), "stack", "--env-file", str(path), "init"]
    assert subprocess.run(words, env=env, capture_output=True, check=False).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert held(path)["ELASTIC_PASSWORD"]


def test_only_the_standard_library_is_imported() -> None:
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import stack.__main__"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the key's way, with the real Collector -----------------------------------------------------------------------


@pytest.mark.engines
def test_the_collector_sends_the_key_that_the_file_holds(tmp_path: Path, serve: Serve) -> None:
    """As in docker-compose.yml: the variable names the file, and the configuration knows of the variable only."""
    compose = (ROOT / "docker-compose.yml").read_text()
    written = re.search(r'ELASTICSEARCH_API_KEY: "\$(\$\{file:)(.+)\}"', compose)
    assert written
    key = base64.b64encode(b"an-id:a-secret").decode()
    (tmp_path / "key").write_text(key)
    backend = serve(
        {"/_otlp/v1/traces": (200, ""), "/api/v1/otlp/v1/metrics": (200, ""), "/_otlp/v1/metrics": (200, "")}
    )
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    numbers = [listener.getsockname()[1] for listener in free]
    for listener in free:
        listener.close()
    names = ("COLLECTOR_GRPC_PORT", "COLLECTOR_HTTP_PORT", "COLLECTOR_HEALTH_PORT", "COLLECTOR_METRICS_PORT")
    ports = dict(zip(names, numbers, strict=True))
    env = {name: str(number) for name, number in ports.items()} | {
        "PATH": os.environ["PATH"],
        "ELASTICSEARCH_ENDPOINT": f"http://127.0.0.1:{backend.port}",
        "PROMETHEUS_ENDPOINT": f"http://127.0.0.1:{backend.port}",
        "ELASTICSEARCH_API_KEY": f"{written[1]}{tmp_path / 'key'}}}",
        "COLLECTOR_STORAGE": str(tmp_path / "queues"),
    }
    span = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "x", "kind": 1}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    log = tmp_path / "log"
    with log.open("wb") as output:
        collector = subprocess.Popen(
            [str(binary("otelcol")), "--config", str(ROOT / "collector-config.yaml")],
            env=env, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait(lambda: status.collector(ports["COLLECTOR_HEALTH_PORT"]).ok, collector, log)
        post(ports["COLLECTOR_HTTP_PORT"], "/v1/traces", body)
        wait(lambda: any(path == "/_otlp/v1/traces" for path, _ in backend.requests), collector, log)
    finally:
        collector.terminate()
        collector.wait(PATIENCE_S)
    headers = next(headers for path, headers in backend.requests if path == "/_otlp/v1/traces")
    assert headers["Authorization"] == f"ApiKey {key}"


def post(number: int, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)
