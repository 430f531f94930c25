"""Numbered spans and points, sent to the Collector without a pause, and what of those acknowledged is missing later."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.containers.stack import HOST, Stack

SPANS = 20  # a request
EVERY_S = 0.2
_PAGE = 5000


@dataclass
class Load:
    """What has been acknowledged so far: the numbers of spans and of points; ``refused`` counts tries, not records."""

    stack: Stack
    name: str
    spans: set[int] = field(default_factory=set)
    points: set[int] = field(default_factory=set)
    refused: int = 0

    def _post(self, path: str, body: bytes) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port("OTLP_HTTP_PORT"), timeout=20)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _resource(self, group: object) -> None:
        for name, value in (("service.name", self.name), ("host.name", HOST)):
            group.resource.attributes.add(key=name).value.string_value = value  # type: ignore[attr-defined]

    def _spans(self, numbers: range) -> bytes:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        self._resource(group)
        scope, now = group.scope_spans.add(), time.time_ns()
        for number in numbers:
            scope.spans.add(
                name=self.name, trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"),
                start_time_unix_nano=now, end_time_unix_nano=now + 1000,
            )  # fmt: skip
        return request.SerializeToString()

    def _point(self, number: int) -> bytes:
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        self._resource(group)
        metric = group.scope_metrics.add().metrics.add(name="load.number", unit="1")
        metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=number)
        return request.SerializeToString()

    def run(self, ended: threading.Event) -> None:
        """Send until told to end. What is refused is sent again, as a service's exporter does."""
        number = 0
        while not ended.is_set():
            number += 1
            numbers = range(number * SPANS, (number + 1) * SPANS)
            for path, body, kept, sent in (
                ("/v1/traces", self._spans(numbers), self.spans, set(numbers)),
                ("/v1/metrics", self._point(number), self.points, {number}),
            ):
                while not self._post(path, body):
                    self.refused += 1
                    if ended.wait(0.5):
                        return
                kept |= sent
            ended.wait(EVERY_S)

    def missing_spans(self) -> set[int]:
        """Return the acknowledged spans that Elasticsearch does not have yet."""
        found: set[int] = set()
        query: dict[str, object] = {"size": _PAGE, "_source": ["span_id"], "sort": ["span_id"]}
        query["query"] = {"term": {"name": self.name}}
        while True:
            hits = self.stack.elasticsearch("POST", "/traces-*/_search", query)["hits"]["hits"]
            found |= {int(hit["_source"]["span_id"], 16) for hit in hits}
            if len(hits) < _PAGE:
                return self.spans - found
            query["search_after"] = hits[-1]["sort"]

    def missing_points(self) -> set[int]:
        """Return the acknowledged points that Prometheus does not have yet."""
        found = self.stack.prometheus(f'load_number_ratio{{service_name="{self.name}"}}[2h]')
        return self.points - {int(value) for series in found for _, value in series["values"]}


@contextmanager
def under_load(stack: Stack, name: str) -> Iterator[Load]:
    """Send while the block lasts."""
    load, ended = Load(stack, f"load-{name}"), threading.Event()
    thread = threading.Thread(target=load.run, args=(ended,), daemon=True)
    thread.start()
    try:
        yield load
    finally:
        ended.set()
        thread.join()
