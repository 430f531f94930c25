"""OTLP over gRPC: the same intake and the same promise as over HTTP."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import grpc

from bulkscope_studio.ingest.connections import MOST, Bodies, Full
from bulkscope_studio.ingest.intake import SIGNALS, Intake, Refusal, again
from bulkscope_studio.ingest.otlp_http import MAX_BODY

_SERVICES = {
    "/v1/traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "/v1/logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "/v1/metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
_CODES = {503: grpc.StatusCode.UNAVAILABLE, 500: grpc.StatusCode.INTERNAL}

# Requests that wait to be received cost next to nothing.
_MOST_RPCS = 1024
# Messages received at once: gRPC says how large one is when it is there. 64 MiB each at most.
_RECEIVING = 8
# A message must be whole in this time; senders wait for an answer for 10 s by default.
RECEIVE_SECONDS = 10.0
# Only the end of its connection ends a request that is begun and not finished, so each ends in its time: clients are
# told before, finish what they sent, and open the next.
_LIMITS = (
    ("grpc.max_concurrent_streams", 100),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 120_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
)


class _Service:
    def __init__(self, path: str, intake: Intake, bodies: Bodies, receiving: asyncio.Semaphore) -> None:
        self._path, self._intake, self._bodies, self._receiving = path, intake, bodies, receiving

    async def export(self, _: Any, context: Any) -> bytes:
        """Take an encoded request: gRPC's own reading of it takes ten times the bytes of small records."""
        try:
            body = await self._received(context)
            with self._bodies.body() as reach:
                try:
                    reach(len(body))
                except Full as full:
                    raise again(full) from None
                answer = await self._intake.take(self._path, "grpc", lambda: body)
            return bytes(answer.SerializeToString())
        except Refusal as refusal:
            if refusal.status != 503:
                self._intake.ingest.refuse(SIGNALS[self._path][0], "grpc", refusal.reason)
            said, code = refusal.message, _CODES.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT)
        await context.abort(code, said)
        raise AssertionError("abort has raised")

    async def _received(self, context: Any) -> bytes:
        # Read here and not by gRPC, which would wait for a stalled sender without an end.
        async with self._receiving:
            try:
                body = await asyncio.wait_for(context.read(), RECEIVE_SECONDS)
            except TimeoutError:
                raise again(Exception(f"the request was not whole after {RECEIVE_SECONDS:.0f} s")) from None
        if not isinstance(body, bytes):
            raise Refusal(400, "the request has no message")
        return body


class Server:
    """The running server, in a thread and an event loop of its own."""

    def __init__(
        self, intake: Intake, port: int, connections: int = MOST, max_body: int = MAX_BODY, host: str = "127.0.0.1"
    ) -> None:
        """Serve at the address ``host``. Raises ``OSError`` when the port is taken."""
        self._options = [
            ("grpc.max_receive_message_length", max_body),
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", connections),
            *_LIMITS,
        ]
        self._intake, self._asked, self._host = intake, port, host
        self._loop = asyncio.new_event_loop()
        self._grace: asyncio.Future[float] = self._loop.create_future()
        self._bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="bulkscope-grpc", daemon=True)
        self._thread.start()
        self.port = self._bound.result()

    def stop(self, grace: float, seconds: float = 5.0) -> None:
        """End: requests that are begun may go on for ``grace`` seconds. Returns after ``seconds`` at most."""
        self._loop.call_soon_threadsafe(self._grace.set_result, grace)
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._bound.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = grpc.aio.server(
            options=self._options, maximum_concurrent_rpcs=_MOST_RPCS, compression=grpc.Compression.Gzip
        )
        bodies, receiving = Bodies(), asyncio.Semaphore(_RECEIVING)
        for path, name in _SERVICES.items():
            # On the wire a stream of one message is the message; as a stream it is read when we ask for it.
            method = grpc.stream_unary_rpc_method_handler(_Service(path, self._intake, bodies, receiving).export)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": method}),))
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            bound = server.add_insecure_port(f"{host}:{self._asked}")
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await server.start()
        self._bound.set_result(bound)
        await server.stop(await self._grace)
