"""An OTLP/HTTP end point that can be slow, full or stuck: ``python endpoint.py PORT``.

``POST /mode/NAME`` sets how it behaves from then on; ``GET /`` tells what it has stored: spans, and the highest count
of dropped spans and log records that a process has reported.
"""

import asyncio
import json
import sys

import http_server
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROTOBUF = b"application/x-protobuf"
mode = "healthy"
stored = {"traces": 0, "dropped traces": 0, "dropped logs": 0}


def take(path: str, body: bytes) -> None:
    if path.endswith("/traces"):
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            stored["traces"] += sum(len(scope.spans) for scope in group.scope_spans)
    elif path.endswith("/metrics"):
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "bulk.telemetry.dropped":
                        count(metric.sum.data_points)


def count(points: list) -> None:
    now = {"traces": 0, "logs": 0}
    for point in points:
        (signal,) = (pair.value.string_value for pair in point.attributes if pair.key == "signal")
        now[signal] += point.as_int or int(point.as_double)
    for signal, number in now.items():
        stored[f"dropped {signal}"] = max(stored[f"dropped {signal}"], number)


async def answer(method: str, path: str, body: bytes) -> tuple[int, bytes, bytes]:
    global mode
    if method == "GET":
        return 200, b"application/json", json.dumps(stored).encode()
    if path.startswith("/mode/"):
        mode = path.removeprefix("/mode/")
        return 200, PROTOBUF, b""
    if mode == "full":
        return 503, PROTOBUF, b""
    if mode == "slow":
        await asyncio.sleep(3)
    elif mode == "stuck":
        await asyncio.sleep(3600)
    take(path, body)
    return 200, PROTOBUF, b""


http_server.run(answer, int(sys.argv[1]))
