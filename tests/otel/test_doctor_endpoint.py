"""What ``bulkscope doctor`` says of real end points: the studio, a gRPC port, TLS, a server that is none of these."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import duckdb
import pytest
import trustme

from bulkscope._doctor import endpoint, studio
from bulkscope._doctor.endpoint import Answer, clock
from bulkscope._doctor.findings import FAULT, OK, WARNING, Finding
from tests import serving
from tests.processes import BIN, environment, free_port
from tests.sink import Sink, serve
from tests.studio.serving import Addresses
from tests.studio.serving import studio as running


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Addresses, Path]]:
    db = tmp_path_factory.mktemp("doctor") / "b.duckdb"
    with running(db, "--no-host") as found:
        yield found, db


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set what ``bulkscope run`` would set beside the end point."""
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "bulkscope")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return monkeypatch


def ask(variables: pytest.MonkeyPatch, url: str, **more: str) -> list[Finding]:
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    for name, value in more.items():
        variables.setenv(name, value)
    return endpoint.findings()


def worst(found: list[Finding]) -> Finding:
    return max(found, key=lambda finding: [OK, WARNING, FAULT].index(finding.state))


def doctor(*words: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [BIN / "bulkscope", "doctor", *words], env=environment(env.pop("url"), **env), capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


# --- a real studio --------------------------------------------------------------------------------


def test_a_studio_takes_a_test_span_that_is_no_bulk(
    addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch
) -> None:
    there, _ = addresses
    found = ask(variables, there.otlp_http)
    assert [finding.state for finding in found] == [OK, OK], found
    assert found[0].what == f"{there.otlp_http}: speaks OTLP over HTTP, accepted a test span"
    assert found[1].what == "its clock agrees with ours to 2 s"
    with urllib.request.urlopen(f"{there.web}/api/bulks", timeout=30) as answer:
        assert json.load(answer) == []


def test_the_studio_says_what_was_dropped(addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch) -> None:
    there, _ = addresses
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.otlp_http)
    assert [finding.state for finding in studio.findings(there.web)] == [OK]
    broken = urllib.request.Request(
        f"{there.otlp_http}/v1/logs", b"\xff\xff\xff", {"Content-Type": "application/x-protobuf"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(broken, timeout=30)
    deadline = time.monotonic() + 60
    while (found := studio.findings(there.web))[0].state == OK and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found[0].state == WARNING
    assert "1 records of logs, refused" in found[0].what


def test_a_studio_that_receives_elsewhere(addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch) -> None:
    there, _ = addresses
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    found = studio.findings(there.web)[0]
    assert (found.state, there.otlp_http in found.todo) == (WARNING, True)
    assert studio.findings("")[0].state == OK or "receives at" in studio.findings("")[0].what
    assert "no studio" in studio.findings(there.otlp_http)[0].what


def test_the_whole_command_against_a_studio(addresses: tuple[Addresses, Path]) -> None:
    there, _ = addresses
    code, output = doctor("--format", "json", "--studio", there.web, url=there.otlp_http)
    found = json.loads(output)
    assert code == found["code"]
    assert found["code"] < 2
    assert "accepted a test span" in output
    assert not [each for each in found["findings"] if each["subject"] == "set-up"], output


def test_under_opentelemetrys_own_launcher_its_distribution_sends_by_grpc(addresses: tuple[Addresses, Path]) -> None:
    """Its defaults are not ours: telemetry for the port for HTTP never arrives, and the doctor says why."""
    there, path = addresses[0], f"{BIN}:/usr/bin:/bin"
    words = ["--format", "json", "--", "opentelemetry-instrument", "--service_name", "x", "python", "app.py"]
    code, output = doctor(*words, url=there.otlp_http, PATH=path)
    assert code == 2
    assert "a port for HTTP/1.1, to which OTLP over gRPC is sent" in output
    code, output = doctor(*words, url=there.otlp_grpc, PATH=path)
    assert "speaks OTLP over gRPC, accepted a test span" in output
    code, output = doctor(*words, url=there.otlp_http, PATH=path, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert "speaks OTLP over HTTP, accepted a test span" in output


def test_the_pages_port_is_not_the_port_for_telemetry(
    addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch
) -> None:
    found = ask(variables, addresses[0].web)
    assert worst(found).state == FAULT
    assert "which the studio's pages are not" in worst(found).todo


# --- protocols ------------------------------------------------------------------------------------


def test_http_sent_to_a_grpc_port_is_named(addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch) -> None:
    found = ask(variables, addresses[0].otlp_grpc)
    assert [(finding.state, finding.what) for finding in found] == [
        (FAULT, f"{addresses[0].otlp_grpc}: a gRPC port (HTTP/2 only), to which OTLP over HTTP is sent")
    ]
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in found[0].todo


def grpc(variables: pytest.MonkeyPatch, url: str) -> list[Finding]:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    return ask(variables, url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **exporters)


def test_grpc_to_a_grpc_port_is_well(addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch) -> None:
    found = grpc(variables, addresses[0].otlp_grpc)
    assert {finding.state for finding in found} == {OK}
    assert found[0].what == f"{addresses[0].otlp_grpc}: speaks OTLP over gRPC, accepted a test span"


def test_grpc_to_a_port_for_http_is_named(addresses: tuple[Addresses, Path], variables: pytest.MonkeyPatch) -> None:
    found = grpc(variables, addresses[0].otlp_http)
    assert worst(found).state == FAULT
    assert "a port for HTTP/1.1, to which OTLP over gRPC is sent" in worst(found).what


def test_grpc_to_a_closed_port(variables: pytest.MonkeyPatch) -> None:
    assert "nothing listens there" in worst(grpc(variables, f"http://127.0.0.1:{free_port()}")).what


def test_the_official_exporter_over_http(variables: pytest.MonkeyPatch) -> None:
    with serve() as sink:
        found = ask(variables, sink.url, OTEL_TRACES_EXPORTER="otlp")
        assert worst(found).state == OK
        assert [span["name"] for span in sink.spans] == [endpoint.SPAN]
        assert sink.spans[0]["resource"]["service.name"] == "bulkscope-doctor"


def test_a_closed_port_a_name_that_is_not_known_and_no_address(variables: pytest.MonkeyPatch) -> None:
    assert "nothing listens there" in worst(ask(variables, f"http://127.0.0.1:{free_port()}")).what
    assert "its name is not known" in worst(ask(variables, "http://no-such-host.invalid:4318")).what
    assert "cannot be sent to" in worst(ask(variables, "127.0.0.1:4318")).what
    assert worst(ask(variables, "http://127.0.0.1:4318", OTEL_TRACES_EXPORTER="console")).state == WARNING


@contextmanager
def tls() -> Iterator[tuple[Sink, trustme.CA]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serve(context) as sink:
        yield sink, authority


def test_tls(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with tls() as (sink, authority):
        untrusted = worst(ask(variables, sink.url))
        assert "its certificate is not trusted" in untrusted.what
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in untrusted.todo
        plain = worst(ask(variables, sink.url.replace("https", "http")))
        assert (plain.state, "it speaks TLS, and is asked without" in plain.what) == (FAULT, True)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        assert worst(ask(variables, sink.url, OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "ca.pem"))).state == OK
    with serve() as sink:
        wrong = worst(ask(variables, sink.url.replace("http", "https")))
        assert "does not speak TLS" in wrong.what


def test_something_that_speaks_neither(variables: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=talk, daemon=True).start()
        found = worst(ask(variables, f"http://127.0.0.1:{listener.getsockname()[1]}"))
        assert "speaks neither HTTP nor gRPC" in found.what


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state", "todo"),
    [
        (401, FAULT, "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, FAULT, "without /v1/traces"),
        (503, WARNING, "cannot take more now"),
        (302, FAULT, "name that address"),
        (418, FAULT, "see its log"),
    ],
)
def test_refusals(variables: pytest.MonkeyPatch, status: int, state: str, todo: str) -> None:
    with serve() as sink:
        sink.answers = [(status, {}, b"")] * 3
        found = ask(variables, sink.url)
    assert (found[0].state, found[0].what) == (state, f"{sink.url}: answered HTTP {status} to traces")
    assert todo in found[0].todo


def test_a_span_that_is_rejected_in_an_answer_of_200(variables: pytest.MonkeyPatch) -> None:
    # ExportTraceServiceResponse{partial_success{rejected_spans: 1, error_message: "no"}}
    answer = b"\x0a\x06\x08\x01\x12\x02no"
    with serve() as sink:
        sink.answers = [(200, {}, answer)]
        found = ask(variables, sink.url)[0]
    assert (found.state, "rejected the test (no)" in found.what) == (FAULT, True)


def test_a_page_is_no_answer_of_otlp(variables: pytest.MonkeyPatch) -> None:
    with serve() as sink:
        sink.answers = [(200, {"Content-Type": "text/html"}, b"<p>hello")] * 3
        found = ask(variables, sink.url)
    assert (found[0].state, "but not in OTLP (text/html)" in found[0].what) == (WARNING, True)


def test_signals_that_go_elsewhere_have_a_line_of_their_own(variables: pytest.MonkeyPatch) -> None:
    with serve() as sink:
        closed = f"http://127.0.0.1:{free_port()}/v1/metrics"
        found = ask(variables, sink.url, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=closed)
        assert [finding.state for finding in found] == [OK, OK, WARNING], found
        assert sink.logs == []
    assert found[2].what.startswith(closed.removesuffix("/v1/metrics"))


def test_clocks(variables: pytest.MonkeyPatch) -> None:
    class Ahead(serving.Handler):
        def do_POST(self) -> None:
            self.content()
            self.answer(200)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + 90, usegmt=True)

    with serving.serving(Ahead) as url:
        found = worst(ask(variables, url))
    assert found.state == WARNING
    assert found.what in ("its clock is 90 s ahead of ours", "its clock is 91 s ahead of ours")


def test_a_clock_that_is_behind_or_not_told() -> None:
    now = 1_700_000_000.0
    behind = clock(Answer(200, "", formatdate(now - 30, usegmt=True), b"", now))[0]
    assert (behind.state, "behind ours" in behind.what) == (WARNING, True)
    for date in (None, "", "yesterday", "Tue, 99 Nov 2023 00:00:00 GMT"):
        assert "its clock is not known" in clock(Answer(200, "", date, b"", now))[0].what


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_secret_is_shown(addresses: tuple[Addresses, Path], protocol: str) -> None:
    there = addresses[0]
    for port in (there.otlp_http, there.otlp_grpc, f"http://127.0.0.1:{free_port()}"):
        url = port.replace("http://", "http://anna:hunter2-pw@") + "/hunter2-path?key=hunter2-query"
        code, output = doctor(
            "--studio", there.web.replace("http://", "http://anna:hunter2-studio@"), url=url,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20hunter2-header,broken hunter2-broken",
        )  # fmt: skip
        assert "hunter2" not in output, output
        assert code > 0


def test_the_test_span_is_stored_without_a_bulk(tmp_path: Path, variables: pytest.MonkeyPatch) -> None:
    db = tmp_path / "b.duckdb"
    with running(db, "--no-host") as there:
        ask(variables, there.otlp_http)
    with duckdb.connect(str(db), read_only=True) as connection:
        rows = connection.execute("SELECT name, kind, service_name, bulk_id, job_id FROM spans").fetchall()
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in ("logs", "points")]
    assert rows == [(endpoint.SPAN, "INTERNAL", "bulkscope-doctor", None, None)]
    assert counts == [0, 0]
