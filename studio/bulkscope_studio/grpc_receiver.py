"""OTLP over gRPC: the same decoders and the same promise as over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from bulkscope_studio.ingest import Ingest, Unwritable
from bulkscope_studio.receiver import COMMIT_SECONDS, MAX_BODY, SIGNALS, again, response


class _Service:
    def __init__(self, path: str, ingest: Ingest) -> None:
        self._signal, _, self._response, self._decode, self._count_name = SIGNALS[path]
        self._ingest = ingest

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        decoded = self._decode(request)
        try:
            self._ingest.submit(decoded, self._signal, "grpc").result(COMMIT_SECONDS)
        except Unwritable as error:
            context.abort(grpc.StatusCode.INTERNAL, f"the store could not take the data: {error}")
        except Exception as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, again(error).message)
        return response(self._response, decoded, self._count_name)


def serve(ingest: Ingest, port: int, max_body: int = MAX_BODY) -> tuple[grpc.Server, int]:
    """Serve on 127.0.0.1; return the running server and its port. Raises ``OSError`` when it is taken."""
    server = grpc.server(
        ThreadPoolExecutor(4, "bulkscope-grpc"),
        options=[("grpc.max_receive_message_length", max_body), ("grpc.so_reuseport", 0)],
        compression=grpc.Compression.Gzip,
    )
    services: tuple[tuple[str, Any], ...] = (  # the generated functions are untyped
        ("/v1/traces", trace_service_pb2_grpc.add_TraceServiceServicer_to_server),
        ("/v1/logs", logs_service_pb2_grpc.add_LogsServiceServicer_to_server),
        ("/v1/metrics", metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server),
    )
    for path, add in services:
        add(_Service(path, ingest), server)
    try:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise OSError(str(error)) from error
    server.start()
    return server, bound
