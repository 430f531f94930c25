"""Only requests under a name of this machine are answered: a page elsewhere may let its own name point here."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.studio.serving import Addresses, studio

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="
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
        assert http.get(SOCKET + "polling").status_code == 200


@pytest.mark.parametrize("host", STRANGERS)
def test_others_are_not_and_learn_why(addresses: Addresses, host: str) -> None:
    with httpx.Client(base_url=addresses.web, headers={"Host": host}) as http:
        for answer in (
            http.get("/api/bulks"), http.get("/"), http.get(SOCKET + "polling"), http.delete("/api/runs/x"),
            http.post("/api/runs", json={"name": "x", "bulks": ["x"]}),
        ):  # fmt: skip
            assert answer.status_code == 400
            assert "127.0.0.1, localhost and [::1]" in answer.text


def test_a_socket_is_refused_before_it_is_open(addresses: Addresses) -> None:
    def status(host: str) -> int:
        with httpx.stream("GET", addresses.web + SOCKET + "websocket", headers={**UPGRADE, "Host": host}) as answer:
            return answer.status_code

    assert status("127.0.0.1") == 101
    assert status("evil.example") == 400


def test_senders_may_call_the_receiver_by_any_name(addresses: Addresses) -> None:
    """It takes telemetry and tells nothing."""
    answer = httpx.post(
        f"{addresses.otlp_http}/v1/traces", content=ExportTraceServiceRequest().SerializeToString(),
        headers={"Host": "host.docker.internal:4318", "Content-Type": "application/x-protobuf"},
    )  # fmt: skip
    assert answer.status_code == 200
