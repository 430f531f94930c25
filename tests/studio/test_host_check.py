"""Only requests under a name of this machine are answered: a page elsewhere may let its own name point here."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.studio.serving import Addresses, studio

UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
STRANGERS = (
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1@evil",
    "",
)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with studio(tmp_path_factory.mktemp("host") / "s.duckdb", "--no-host") as found:
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8080"])
def test_names_of_this_machine_are_answered(addresses: Addresses, host: str) -> None:
    with httpx.Client(base_url=addresses.web, headers={"Host": host}) as http:
        assert http.get("/api/bulks").json() == []
        assert "Bulkscope" in http.get("/").text
        assert http.get("/api/v1/bulks").status_code == 200


@pytest.mark.parametrize("host", STRANGERS)
def test_others_are_not_and_learn_why(addresses: Addresses, host: str) -> None:
    with httpx.Client(base_url=addresses.web, headers={"Host": host}) as http:
        for answer in (
            http.get("/api/bulks"), http.get("/"), http.get("/api/v1/bulks"), http.get("/static/x/app.js"),
            http.delete("/api/runs/x"),
            http.post("/api/runs", json={"name": "x", "bulks": ["x"]}),
        ):  # fmt: skip
            assert answer.status_code == 400
            assert "127.0.0.1, localhost and [::1]" in answer.text


def test_the_origin_of_a_page_is_looked_at(addresses: Addresses) -> None:
    own = addresses.web.removeprefix("http://")
    for path in ("/", "/api/v1/bulks", "/api/bulks"):
        for origin, status in (
            (None, 200), (f"http://{own}", 200), ("https://evil.example", 403), ("null", 403),
            (addresses.otlp_http, 403), (f"http://{own}.evil.example", 403), ("", 403),
        ):  # fmt: skip
            answer = httpx.get(addresses.web + path, headers={} if origin is None else {"Origin": origin})
            assert answer.status_code == status, (path, origin)
            assert "access-control-allow-origin" not in answer.headers


def test_a_socket_is_not_opened_and_a_strange_one_is_refused(addresses: Addresses) -> None:
    for path in ("/", "/api/v1/events"):
        for host, status in (("127.0.0.1", 200), ("evil.example", 400)):
            with httpx.stream("GET", addresses.web + path, headers={**UPGRADE, "Host": host}) as answer:
                assert answer.status_code == status


def test_what_another_page_asks_is_refused(addresses: Addresses) -> None:
    with httpx.Client(headers={"Origin": "https://evil.example"}) as http:
        for answer in (
            http.get(f"{addresses.web}/api/bulks"), http.get(addresses.web), http.delete(f"{addresses.web}/api/runs/x"),
            http.options(f"{addresses.web}/api/runs/x"), sent(http, addresses),
            http.options(f"{addresses.otlp_http}/v1/traces"),
        ):  # fmt: skip
            assert answer.status_code == 403
            assert "Only the studio's own pages may ask this" in answer.text
    with httpx.Client(headers=[("Origin", addresses.web), ("Origin", "https://evil.example")]) as http:
        assert http.get(f"{addresses.web}/api/bulks").status_code == 403
    with httpx.Client(headers={"Origin": addresses.web.upper().replace("HTTP", "http")}) as http:
        assert http.get(f"{addresses.web}/api/bulks").status_code == 200


def sent(http: httpx.Client, addresses: Addresses) -> httpx.Response:
    return http.post(
        f"{addresses.otlp_http}/v1/traces", content=ExportTraceServiceRequest().SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost:4318", "[::1]:4318", "host.docker.internal:4318", "host.containers.internal",
        "studio:4318", "172.17.0.1:4318", "[fd00::1]",
    ],
)  # fmt: skip
def test_senders_call_the_receiver_by_names_that_nobody_elses_dns_gives_out(addresses: Addresses, host: str) -> None:
    """Those in a container have the name of the port that was forwarded for them."""
    with httpx.Client(headers={"Host": host}) as http:
        assert sent(http, addresses).status_code == 200


@pytest.mark.parametrize(
    "host", [*STRANGERS, "127.0.0.1.internal.evil.example", "1.2.3", "[evil.example]", "[::1", "a:b"]
)
def test_a_name_that_may_be_a_page_s_is_refused_by_the_receiver_too(addresses: Addresses, host: str) -> None:
    with httpx.Client(headers={"Host": host}) as http:
        answer = sent(http, addresses)
    assert answer.status_code == 400
    assert "names that end in .internal" in answer.text


def test_two_hosts_are_none(addresses: Addresses) -> None:
    for url in (addresses.web, addresses.otlp_http):
        name, port = url.removeprefix("http://").split(":")
        with socket.create_connection((name, int(port)), timeout=30) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert raw.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")


def test_a_socket_to_the_receiver_is_not_opened(addresses: Addresses) -> None:
    with httpx.stream("GET", f"{addresses.otlp_http}/v1/traces", headers=UPGRADE) as answer:
        assert answer.status_code == 405
