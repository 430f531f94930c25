"""What clients may hold of the studio: each bound, and that nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from bulkscope_studio.ingest import connections
from bulkscope_studio.ingest.connections import Bodies, Bounded, Full, Seldom
from tests.processes import BIN, wait_for_line
from tests.studio.otlp import PROTOBUF, receiver, traces

BODY = traces({}).SerializeToString()
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1000\r\n"
PORTS = ("--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0")


def test_limits_fit_into_the_descriptors() -> None:
    for files in (64, 256, 1024, 4096, 2**20):
        each = connections.most(files)
        assert 16 <= each <= connections.MOST
        assert files < 1024 or 3 * each + 256 <= files
    assert connections.most(2**20) == connections.MOST


def test_as_many_files_as_may_be_are_asked_for() -> None:
    said = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 256; exec "$0" -c "import resource; from bulkscope_studio.ingest import connections;'
         'print(connections.descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"', sys.executable],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert said[0] == said[1]
    assert int(said[0]) == (7168 if hard == resource.RLIM_INFINITY else min(hard, 7168))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A real studio that may open 700 files, so that each of its servers has 148 connections."""
    folder = tmp_path_factory.mktemp("small")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", 'ulimit -n 700; exec "$@"', "--", str(BIN / "bulkscope"), "studio", "--db",
             str(folder / "s.duckdb"), "--no-host", *PORTS],
            text=True, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        lines = wait_for_line(process, "Data  ").splitlines()
        urls = dict(
            zip(("web", "otlp", "grpc"), (line.split()[-1] for line in lines if "http://" in line), strict=True)
        )
        yield {"process": process, "log": folder / "log", **urls}
        process.terminate()
        assert process.wait(30) == 0


def crowd(stack: ExitStack, url: str, number: int, said: bytes) -> list[socket.socket]:
    """Open so many connections, say this and no more."""
    opened = []
    for _ in range(number):
        one = stack.enter_context(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30))
        one.sendall(said)
        opened.append(one)
    return opened


@pytest.mark.parametrize(
    "said", [b"", HEAD[:40], HEAD + b"\r\nhalf of it"], ids=["nothing", "half a head", "half a body"]
)
@pytest.mark.parametrize("server", ["web", "otlp"])
def test_a_thousand_idle_connections_keep_nobody_out(server: str, said: bytes, small: dict[str, Any]) -> None:
    with ExitStack() as stack, httpx.Client(timeout=60) as http:
        crowd(stack, small[server], 1000, said)
        sent = http.post(f"{small['otlp']}/v1/traces", content=BODY, headers=PROTOBUF)
        assert sent.status_code == 200
        assert http.get(f"{small['web']}/api/bulks").status_code == 200
        with grpc.insecure_channel(small["grpc"].removeprefix("http://")) as channel:
            TraceServiceStub(channel).Export(traces({}), timeout=60)
        assert len(os.listdir(f"/proc/{small['process'].pid}/fd")) < 700
    assert "Too many open files" not in small["log"].read_text()
    assert small["log"].stat().st_size < 10_000


def test_a_thousand_idle_grpc_connections_keep_no_other_server_out(small: dict[str, Any]) -> None:
    with ExitStack() as stack, httpx.Client(timeout=60) as http:
        crowd(stack, small["grpc"], 1000, b"")
        assert http.post(f"{small['otlp']}/v1/traces", content=BODY, headers=PROTOBUF).status_code == 200
        assert http.get(f"{small['web']}/api/bulks").status_code == 200
        assert len(os.listdir(f"/proc/{small['process'].pid}/fd")) < 500


async def whole(scope: Any, receive: Any, send: Any) -> None:
    """Answer when the body is whole; to ``/large`` with 16 MiB."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    body = b"x" * 2**24 if scope["path"] == "/large" else b"whole"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(most: int = 512) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(whole, log_config=None, lifespan="off", http=connections.protocol(most)))
    server.capture_signals = ExitStack  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([bound]))
    while not server.started:
        await asyncio.sleep(0)
    yield server, bound.getsockname()[1]
    server.should_exit = True
    await task


async def until(server: uvicorn.Server, number: int) -> list[Bounded]:
    """Wait until the server has so many connections."""
    while len(server.server_state.connections) != number:
        await asyncio.sleep(0.001)
    return list(server.server_state.connections)  # type: ignore[arg-type]


def later(one: Bounded, seconds: float) -> None:
    """Let it be as if so many seconds had passed since the client was last heard."""
    one._since -= seconds
    one._heard -= seconds


@pytest.mark.parametrize(
    "said", [b"", HEAD[:40], HEAD + b"\r\nhalf of it"], ids=["nothing", "half a head", "half a body"]
)
async def test_what_does_not_come_is_not_waited_for(said: bytes) -> None:
    async with served() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        (one,) = await until(server, 1)
        while (said and one._in_head and one._head == 0) or (b"half" in said and one.cycle is None):
            await asyncio.sleep(0.001)
        later(one, 29)
        connections.look(server.server_state.connections)
        assert not one.transport.is_closing()
        later(one, 2)
        connections.look(server.server_state.connections)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"the request took too long\n")
        await until(server, 0)
        writer.close()


async def test_a_head_that_comes_in_drops_has_an_end_and_a_body_that_goes_on_has_a_longer_one() -> None:
    async with served() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        (one,) = await until(server, 1)
        for byte in HEAD[:30]:
            writer.write(bytes([byte]))
            await writer.drain()
        while one._head < 30:
            await asyncio.sleep(0.001)
        later(one, 29)
        heard = one._heard
        writer.write(HEAD[30:])  # heard of again, and still the same head
        while one._heard == heard:
            await asyncio.sleep(0.001)
        assert (one.waiting() or 0) > 29
        writer.write(b"\r\n")
        while one.cycle is None:
            await asyncio.sleep(0.001)
        assert (one.waiting() or 0) < 29
        one._since -= 265  # each of its parts came in time
        connections.look(server.server_state.connections)
        assert not one.transport.is_closing()
        one._since -= 10
        connections.look(server.server_state.connections)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_head_has_a_size() -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"X: " + b"x" * 60_000 + b"\r\n\r\n" + b"x" * 1000)
        assert b"whole" in await reader.readuntil(b"whole")
        await reader.readuntil(b"0\r\n\r\n")
        for _ in range(20):
            writer.write(HEAD + b"X: " + b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_a_connection_serves_one_request_after_the_other_and_may_rest_between() -> None:
    async with served() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(HEAD[:20])
            (one,) = await until(server, 1)
            writer.write(HEAD[20:] + b"\r\n" + b"x" * 1000)
            assert b"whole" in await reader.readuntil(b"whole")
            await reader.readuntil(b"0\r\n\r\n")
            later(one, 25)
            connections.look(server.server_state.connections)
            assert not one.transport.is_closing()
        writer.close()


async def test_an_answer_that_nobody_reads_is_not_kept() -> None:
    async with served() as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            (one,) = await until(server, 1)
            while one._stuck is None:
                await asyncio.sleep(0.001)
            assert (one.waiting() or 0) < 30
            one._stuck -= 31
            connections.look(server.server_state.connections)
            await until(server, 0)


async def test_one_that_is_served_is_never_ended_for_another() -> None:
    """Two may be there. Of two that are idle the one that has been so for longer goes; one that waits for us stays."""
    async with served(2) as (server, port):
        first = await asyncio.open_connection("127.0.0.1", port)
        (one,) = await until(server, 1)
        second = await asyncio.open_connection("127.0.0.1", port)
        await until(server, 2)
        later(one, 5)
        third = await asyncio.open_connection("127.0.0.1", port)
        assert await first[0].read() == b""
        kept = await until(server, 2)
        assert one not in kept
        for busy in kept:
            busy.waiting = lambda: None  # type: ignore[method-assign]
        fourth = await asyncio.open_connection("127.0.0.1", port)
        answer = await fourth[0].read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        await until(server, 2)
        for _, writer in (first, second, third, fourth):
            writer.close()


async def test_a_crowd_of_one_turn_of_the_loop_makes_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the loop stands still in a turn: nobody has then been waited for longer than 0 s."""
    async with served(2) as (server, port):
        monkeypatch.setattr(Bounded, "waiting", lambda self, waiting=Bounded.waiting: waiting(self) and 0.0)
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        await until(server, 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + b"x" * 1000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        for _, each in [*opened, (reader, writer)]:
            each.close()


def test_large_bodies_are_bounded_together_and_keep_no_small_one_out() -> None:
    bodies = Bodies(10_000)
    with bodies.body() as one, bodies.body() as two:
        one(connections.SMALL + 4_000)
        two(connections.SMALL)
        two(connections.SMALL + 6_000)
        with bodies.body() as three:
            three(connections.SMALL)
            with pytest.raises(Full):
                three(connections.SMALL + 1)
        with pytest.raises(Full):
            one(connections.SMALL + 4_001)
    with bodies.body() as again:
        again(connections.SMALL + 10_000)


async def test_a_body_for_which_there_is_no_room_is_to_come_again(tmp_path: Path) -> None:
    async with receiver(tmp_path, max_body=64 << 20) as running:
        app = running.http._transport.app  # type: ignore[attr-defined]
        with app._bodies.body() as large:
            large(connections.SMALL + connections.BODIES)
            body = traces({f"x{n}": "x" * 40_000 for n in range(10)}).SerializeToString()
            refused = await running.http.post("/v1/traces", content=body, headers=PROTOBUF)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await running.http.post("/v1/traces", content=BODY, headers=PROTOBUF)).status_code == 200
        assert (await running.http.post("/v1/traces", content=body, headers=PROTOBUF)).status_code == 200
        assert running.count("spans") == 2
        assert await running.refused() == []


def test_a_message_that_comes_again_and_again_is_logged_seldom() -> None:
    now = 0.0
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler = Handler()
    handler.addFilter(Seldom(3, 60.0, lambda: now))
    logger = logging.Logger("tests")
    logger.addHandler(handler)
    for number in range(1000):
        logger.warning("no room for %s", number)
    logger.warning("another")
    assert written == ["no room for 0", "no room for 1", "no room for 2", "another"]
    now = 61.0
    logger.warning("no room for %s", "more")
    assert written[4:] == ["no room for more\n(997 more like it were not logged)"]
