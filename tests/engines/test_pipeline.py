"""The demo's traffic through the real Collector, with the project's own configuration, into real backends."""

from __future__ import annotations

import urllib.parse
from collections import Counter
from typing import Any

from tests import sink
from tests.engines.conftest import Stack
from tests.engines.servers import ask, eventually, http
from tests.engines.traffic import JOBS, documents


def prometheus(stack: Stack, query: str) -> list[dict[str, Any]]:
    answer = ask("GET", f"{stack.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_every_span_is_there_once(stack: Stack, sent: sink.Sink) -> None:
    wanted = Counter(span["span_id"] for span in sent.spans)
    assert len(wanted) > 2 * JOBS
    eventually(lambda: len(documents(stack, "traces-*")) >= len(wanted))
    assert Counter(document["span_id"] for document in documents(stack, "traces-*")) == wanted


def test_a_document_says_what_the_span_said(stack: Stack, sent: sink.Sink) -> None:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    stored = {document["span_id"]: document for document in documents(stack, "traces-*")}
    for span in sent.spans:
        document = stored[span["span_id"]]
        assert document["attributes"] == span["attributes"]
        assert document["resource"]["attributes"] == span["resource"] | {"deployment.environment": "test"}
        assert (document["name"], document["trace_id"]) == (span["name"], span["trace_id"])
        assert document["@timestamp"] == span["start"] // 10**6


def test_every_log_record_is_there_once(stack: Stack, sent: sink.Sink) -> None:
    wanted = Counter((record["body"], record["span_id"], record["event"]) for record in sent.logs)
    assert wanted
    eventually(lambda: len(documents(stack, "logs-*")) >= sum(wanted.values()))
    stored = documents(stack, "logs-*")
    assert wanted == Counter(
        (document["body"]["text"], document.get("span_id", ""), document.get("event_name", "")) for document in stored
    )


def test_every_metric_of_the_services_is_in_prometheus_and_there_alone(stack: Stack, sent: sink.Sink) -> None:
    names = {point["name"] for point in sent.points}
    assert "messaging.process.duration" in names

    def missing() -> set[str]:
        stored = ask("GET", f"{stack.prometheus}/api/v1/label/__name__/values")["data"]
        return {name for name in names if not any(one.startswith(name.replace(".", "_")) for one in stored)}

    eventually(lambda: not missing())
    done = eventually(lambda: prometheus(stack, "sum(messaging_process_duration_seconds_count)"))
    assert float(done[0]["value"][1]) == JOBS
    streams = {stream["name"] for stream in ask("GET", f"{stack.elasticsearch}/_data_stream/*")["data_streams"]}
    assert {name for name in streams if name.startswith("metrics-")} == {"metrics-hostmetricsreceiver.otel-default"}


def test_the_host_is_in_both_by_the_name_that_its_spans_carry(stack: Stack, sent: sink.Sink) -> None:
    hosts = {span["resource"]["host.name"] for span in sent.spans}
    wanted = {"system.cpu.utilization", "system.memory.utilization", "system.cpu.logical.count"}

    def stored() -> list[dict[str, Any]]:
        return documents(stack, "metrics-hostmetricsreceiver*")

    eventually(lambda: wanted <= {name for document in stored() for name in document["metrics"]})
    assert {document["resource"]["attributes"]["host.name"] for document in stored()} == hosts
    for query in ("system_cpu_utilization_ratio", "system_memory_utilization_ratio"):
        found = eventually(lambda query=query: prometheus(stack, query))
        assert {series["metric"]["host_name"] for series in found} == hosts


def test_the_collector_says_how_full_its_queues_are(stack: Stack) -> None:
    text = http("GET", f"http://127.0.0.1:{stack.collector.ports['METRICS']}/metrics").decode()
    for name in ("otelcol_exporter_queue_size", "otelcol_exporter_queue_capacity"):
        for exporter in ("otlphttp/elasticsearch", "otlphttp/prometheus"):
            assert any(line.startswith(name) and exporter in line for line in text.splitlines()), (name, exporter)
