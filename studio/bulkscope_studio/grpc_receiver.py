"""OTLP over gRPC: the same decoders and the same promise as over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from bulkscope_studio import decode
from bulkscope_studio.connections import MOST
from bulkscope_studio.decode import Decoded
from bulkscope_studio.ingest import Ingest, Unwritable
from bulkscope_studio.receiver import COMMIT_SECONDS, MAX_BODY, SIGNALS, Refusal, again, decoded, response

_SERVICES = {
    "/v1/traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "/v1/logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "/v1/metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}

# Requests that wait for a thread cost next to nothing: a message is read when its thread begins.
_MOST_RPCS = 1024
# A request that is begun and not finished holds one of the threads. Only the end of its connection ends it, so each
# ends in its time: clients are told before, finish what they sent, and open the next.
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
    def __init__(self, path: str, ingest: Ingest) -> None:
        self._signal, self._request, self._response, self._count_name = SIGNALS[path]
        self._ingest = ingest

    def export(self, body: bytes, context: grpc.ServicerContext) -> Any:
        """Take an encoded request: gRPC's own reading of it takes ten times the bytes of small records."""
        whole, parts, stored = Decoded(), decode.parts(self._signal, body), None
        try:
            while True:
                part = decoded(parts, self._request)
                if stored is not None:
                    stored.result(COMMIT_SECONDS)
                stored = self._ingest.submit(part, self._signal, "grpc")
                whole.add_counts(part)
                if part.last:
                    break
            stored.result(COMMIT_SECONDS)
        except Refusal as refusal:
            self._ingest.refuse(self._signal, "grpc", refusal.message.partition(":")[0])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal.message)
        except Unwritable as error:
            context.abort(grpc.StatusCode.INTERNAL, f"the store could not take the data: {error}")
        except Exception as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, again(error).message)
        return response(self._response, whole, self._count_name)


def serve(
    ingest: Ingest, port: int, connections: int = MOST, max_body: int = MAX_BODY, host: str = "127.0.0.1"
) -> tuple[grpc.Server, int]:  # fmt: skip
    """Serve at the address ``host``; return the running server and its port. Raises ``OSError`` when it is taken."""
    server = grpc.server(
        ThreadPoolExecutor(4, "bulkscope-grpc"),
        options=[
            ("grpc.max_receive_message_length", max_body),
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", connections),
            *_LIMITS,
        ],
        maximum_concurrent_rpcs=_MOST_RPCS,
        compression=grpc.Compression.Gzip,
    )
    for path, name in _SERVICES.items():
        method = grpc.unary_unary_rpc_method_handler(
            _Service(path, ingest).export, response_serializer=lambda answer: answer.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": method}),))
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(str(error)) from error
    server.start()
    return server, bound
