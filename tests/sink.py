"""A real OTLP/HTTP end point in a thread, for tests: decodes and keeps whatever arrives."""

from __future__ import annotations

import gzip
import ssl
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import serving
from tests.processes import PATIENCE_S

DECODERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}


def plain(pairs: Any) -> dict[str, Any]:
    """Return OTLP key-value pairs as a dict of Python scalars (lists for arrays)."""

    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(item) for item in any_value.array_value.values]
        return None if kind is None else getattr(any_value, kind)

    return {pair.key: value(pair.value) for pair in pairs}


@dataclass
class Sink:
    """What arrived. Each span, log and metric point is a dict with its ``resource``."""

    url: str = ""
    spans: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    # Answers before 200 is given, in turn: (status, headers, body). What is not accepted is not kept.
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    gets: int = 404  # the answer to any GET
    forward: str = ""  # what arrives is posted to this base URL as well, and its status is the answer
    hangs_up: bool = False  # after each answer, without a word: a server that has lost patience, or restarts
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, ready: Callable[[Sink], bool], seconds: float = PATIENCE_S) -> bool:
        """Block until ``ready(self)``; False when ``seconds`` went by without."""
        with self.changed:
            return self.changed.wait_for(lambda: ready(self), seconds)

    def take(self, path: str, body: bytes) -> None:
        with self.changed:
            self.bodies.append((path, body))
            if path.endswith("/traces"):
                self._traces(ExportTraceServiceRequest.FromString(body))
            elif path.endswith("/logs"):
                self._logs(ExportLogsServiceRequest.FromString(body))
            else:
                self._metrics(ExportMetricsServiceRequest.FromString(body))
            self.changed.notify_all()

    def _traces(self, request: Any) -> None:
        for group in request.resource_spans:
            resource = plain(group.resource.attributes)
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "name": span.name,
                            "kind": span.kind,
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "trace_id": span.trace_id.hex(),
                            "span_id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "links": [link.trace_id.hex() for link in span.links],
                            "status": span.status.code,
                            "attributes": plain(span.attributes),
                            "resource": resource,
                            "scope": scope.scope.name,
                        }
                    )

    def _logs(self, request: Any) -> None:
        for group in request.resource_logs:
            resource = plain(group.resource.attributes)
            for scope in group.scope_logs:
                for record in scope.log_records:
                    self.logs.append(
                        {
                            "body": record.body.string_value,
                            "event": record.event_name,
                            "trace_id": record.trace_id.hex(),
                            "span_id": record.span_id.hex(),
                            "attributes": plain(record.attributes),
                            "resource": resource,
                            "scope": scope.scope.name,
                        }
                    )

    def _metrics(self, request: Any) -> None:
        for group in request.resource_metrics:
            resource = plain(group.resource.attributes)
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        self.points.append(
                            {
                                "name": metric.name,
                                "attributes": plain(point.attributes),
                                "count": getattr(point, "count", None),
                                "value": getattr(point, "as_int", 0) or getattr(point, "as_double", 0.0),
                                "resource": resource,
                            }
                        )


def pass_on(url: str, body: bytes) -> int:
    """Post an OTLP request to ``url`` and return the status of the answer."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 503


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    """Serve a sink on a free port of the loopback address, by TLS where a context is given."""
    sink = Sink()

    class Handler(serving.Handler):
        def do_POST(self) -> None:
            body = DECODERS[self.headers.get("Content-Encoding", "")](self.content())
            sink.headers.append({name.lower(): value for name, value in self.headers.items()})
            sink.connections.add(self.client_address[1])
            status, headers, answer = sink.answers.pop(0) if sink.answers else (200, {}, b"")
            if sink.forward:
                status = pass_on(sink.forward + self.path, body)
            if status == 200:
                sink.take(self.path, body)
            self.answer(status, answer, headers)
            self.close_connection |= sink.hangs_up

        def do_GET(self) -> None:
            self.answer(sink.gets)

    with serving.serving(Handler, tls) as sink.url:
        yield sink
