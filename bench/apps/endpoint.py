"""An OTLP/HTTP end point that can be slow, full or stuck: ``python endpoint.py PORT``.

``POST /mode/NAME`` sets how it behaves from then on; ``GET /`` tells what it has stored: spans, and the highest count
of dropped spans and log records that a process has reported.
"""

import asyncio
import json
import sys

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

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


async def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    global mode
    if method == "GET":
        return 200, json.dumps(stored).encode()
    if path.startswith("/mode/"):
        mode = path.removeprefix("/mode/")
        return 200, b""
    if mode == "full":
        return 503, b""
    if mode == "slow":
        await asyncio.sleep(3)
    elif mode == "stuck":
        await asyncio.sleep(3600)
    take(path, body)
    return 200, b""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ", 2)
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            status, content = await answer(method, path, body)
            writer.write(b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
