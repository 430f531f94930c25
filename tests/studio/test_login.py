"""``bulkscope studio --host``: pages and API ask for a password."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import Browser, Error, expect

from bulkscope_studio.server import login
from bulkscope_studio.storage import address as runtime
from tests.processes import BIN
from tests.studio.serving import Addresses, studio

PASSWORD = "a password: with ä colon"
PATHS = ("/", "/live", "/api/bulks", "/api/v1/bulks", "/nowhere", "/static/x/app.js")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("login") / "s.duckdb"


@pytest.fixture(scope="module")
def addresses(db: Path) -> Iterator[Addresses]:
    secret = db.with_name("password")
    secret.write_text(f"{PASSWORD}\n")
    with studio(db, "--no-host", "--host", "0.0.0.0", BULKSCOPE_STUDIO_PASSWORD_FILE=str(secret)) as found:
        yield found


def basic(password: str) -> httpx.BasicAuth:
    return httpx.BasicAuth(b"anybody", password.encode())


def test_nothing_is_answered_without_the_password(addresses: Addresses) -> None:
    with httpx.Client(base_url=addresses.web) as http:
        for auth in (None, basic("wrong"), basic(""), basic(PASSWORD + "x")):
            for path in PATHS:
                answer = http.get(path, auth=auth)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Basic ")
                assert "set-cookie" not in answer.headers
                assert login.VARIABLE in answer.text
        assert http.delete("/api/runs/x").status_code == 401
        assert http.post("/api/runs", json={"name": "x", "bulks": ["x"]}).status_code == 401
        for value in (
            "Basic",
            "Basic !",
            "Basic bm9jb2xvbg==",
            "Bearer x",
            "Bearer",
            PASSWORD.encode().hex(),
            "x" * 9000,
        ):
            assert http.get("/api/bulks", headers={"Authorization": value}).status_code == 401, value
        for cookie in ("bulkscope-0=x", f"{name(addresses)}=", f"{name(addresses)}=x; {name(addresses)}=y"):
            assert http.get("/api/bulks", headers={"Cookie": cookie}).status_code == 401


def name(addresses: Addresses) -> str:
    return f"bulkscope-{addresses.web.rpartition(':')[2]}"


def test_a_browser_is_asked_once_and_has_pages_and_answers_by_its_cookie(addresses: Addresses) -> None:
    with httpx.Client(base_url=addresses.web) as http:
        first = http.get("/", auth=basic(PASSWORD))
        assert first.status_code == 200
        assert "Bulkscope" in first.text
        said = first.headers["set-cookie"]
        assert "HttpOnly" in said
        assert "SameSite=Strict" in said
        for path in PATHS:
            assert http.get(path).status_code == (404 if path in ("/nowhere", "/static/x/app.js") else 200), path
        assert http.get("/api/bulks").json() == []
        assert "set-cookie" not in http.get("/api/bulks").headers
        cookie = f"{name(addresses)}={http.cookies[name(addresses)]}"
    assert httpx.get(f"{addresses.web}/api/bulks", headers={"Cookie": cookie}).status_code == 200
    assert httpx.get(f"{addresses.web}/api/bulks", headers={"Cookie": cookie[:-1]}).status_code == 401
    assert httpx.get(f"{addresses.web}/api/v1/events", headers={"Cookie": cookie[:-1]}).status_code == 401


def test_in_a_real_browser_the_page_is_alive(addresses: Addresses, browser: Browser) -> None:
    """Its script, its questions and its stream of events pass, by the password that the browser was told once."""
    known = browser.new_context(http_credentials={"username": "anybody", "password": PASSWORD})
    opened = known.new_page()
    opened.goto(addresses.web)
    with opened.expect_response(lambda answer: "/api/v1/events" in answer.url) as stream:
        opened.reload()
    assert stream.value.status == 200
    expect(opened.get_by_role("heading", level=1)).to_be_visible()
    expect(opened.get_by_text("does not answer")).to_have_count(0)
    known.close()
    unknown = browser.new_context()
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        unknown.new_page().goto(addresses.web)
    unknown.close()


def test_a_page_elsewhere_cannot_use_what_the_browser_holds(addresses: Addresses) -> None:
    with httpx.Client(base_url=addresses.web, auth=basic(PASSWORD)) as http:
        assert http.get("/api/bulks", headers={"Origin": "https://evil.example"}).status_code == 403
        # By whatever name it is reached: without a password in it, a request under a foreign one learns nothing.
        assert http.get("/api/bulks", headers={"Host": "studio.example.org:8080"}).status_code == 200
        assert httpx.get(addresses.web, headers={"Host": "evil.example"}).status_code == 401


def test_commands_on_the_machine_are_let_in(addresses: Addresses, db: Path) -> None:
    done = subprocess.run([BIN / "bulkscope", "bulks", "--db", db], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    note = db.with_name(db.name + ".studio.json")
    assert note.stat().st_mode & 0o077 == 0
    running = runtime.read(db)
    assert running is not None
    assert running.token
    assert running.token not in repr(running)


def test_telemetry_is_taken_under_names_that_nobody_elses_dns_gives_out(addresses: Addresses) -> None:
    for host, status in (("studio:4318", 200), ("172.17.0.2:4318", 200), ("evil.example", 400)):
        answer = httpx.post(
            f"{addresses.otlp_http}/v1/traces", content=ExportTraceServiceRequest().SerializeToString(),
            headers={"Content-Type": "application/x-protobuf", "Host": host},
        )  # fmt: skip
        assert answer.status_code == status


def test_it_listens_where_it_is_told_and_nowhere_else_without_being_told(addresses: Addresses, tmp_path: Path) -> None:
    """127.0.0.2 is another address of this machine: a server on 127.0.0.1 does not answer there."""
    with studio(tmp_path / "own.duckdb", "--no-host") as own:
        for each, reached in ((addresses, True), (own, False)):
            for url in (each.web, each.otlp_http, each.otlp_grpc):
                with socket.socket() as client:
                    client.settimeout(10)
                    assert (client.connect_ex(("127.0.0.2", int(url.rpartition(":")[2]))) == 0) is reached, url
        assert httpx.get(f"{own.web}/api/bulks").status_code == 200


def test_guesses_from_one_address_are_slowed_and_nobody_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "WRONG_S", 3600.0)
    known = login.Login(PASSWORD)

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    asked = login.Asked(page, known)

    async def status(value: str | None, address: str = "192.0.2.1", name: str = "authorization") -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if value is None else [(name.encode(), value.encode())]
        scope = {"type": "http", "headers": headers, "client": (address, 1), "server": ("", 8080)}
        await asked(scope, send, send)
        return int(sent[0]["status"])

    def password(text: str) -> str:
        return "Basic " + base64.b64encode(f"anybody:{text}".encode()).decode()

    async def attack() -> None:
        guesses = [asyncio.create_task(status(password("wrong"))) for _ in range(login.WRONG_AT_ONCE)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in guesses)
        # Not even the right one, or the answer would tell: but what cannot be guessed passes, and everybody else.
        assert await status(password("another")) == await status(password(PASSWORD)) == 429
        assert await status(None) == 401
        assert await status(f"Bearer {known.token}") == 200
        said = known.cookie(b"bulkscope-8080", "http")[1].decode().partition(";")[0]
        assert await status(said, name="cookie") == 200
        assert await status(password(PASSWORD), "192.0.2.2") == 200
        for each in guesses:
            each.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
        assert await status(password(PASSWORD)) == 200

    # In a thread of its own: a browser of another test leaves its event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, attack()).result()


def test_a_password_that_is_set_is_asked_for_on_the_machine_too(tmp_path: Path) -> None:
    with studio(tmp_path / "s.duckdb", "--no-host", BULKSCOPE_STUDIO_PASSWORD=PASSWORD) as found:
        assert httpx.get(f"{found.web}/api/bulks").status_code == 401
        assert httpx.get(f"{found.web}/api/bulks", auth=basic(PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("host", "password", "said"),
    [
        ("0.0.0.0", None, "a password is needed: set BULKSCOPE_STUDIO_PASSWORD"),
        ("::", None, "a password is needed"),
        ("192.0.2.1", None, "a password is needed"),
        ("0.0.0.0", "short", "fewer than 12 characters"),
        ("studio.example.org", PASSWORD, "is no address"),
        ("", PASSWORD, "is no address"),
        ("192.0.2.1", PASSWORD, "at 192.0.2.1 cannot be used"),
    ],
)
def test_what_would_be_open_or_cannot_be_is_refused(tmp_path: Path, host: str, password: str | None, said: str) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(login.VARIABLE)}
    env |= {} if password is None else {login.VARIABLE: password}
    words = [BIN / "bulkscope", "studio", "--db", tmp_path / "s.duckdb", "--no-host", "--port", "0", "--host", host]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert PASSWORD not in done.stderr
