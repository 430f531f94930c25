"""Our encoder and the official one, decoded and compared: random records, and each odd value by name."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as official_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from bulkscope import _safe
from bulkscope._export import otlp
from tests import chance
from tests.otel.records import RESOURCES, SCOPES, VALUES, attributes


def encode_spans(batch: list[Any]) -> bytes:
    return otlp.request((one.resource, one.instrumentation_scope, otlp.span_field(one)) for one in batch)


def encode_logs(batch: list[Any]) -> bytes:
    return otlp.request((one.resource, one.instrumentation_scope, otlp.log_field(one)) for one in batch)


def context(rng: random.Random) -> SpanContext:
    state = TraceState([("vendor", "v1"), ("other", "v2")]) if rng.random() < 0.3 else None
    trace_id, span_id = rng.getrandbits(128) | 1, rng.getrandbits(64) | 1
    return SpanContext(trace_id, span_id, rng.random() < 0.5, TraceFlags(rng.randint(0, 1)), state)


def span(rng: random.Random) -> ReadableSpan:
    start = rng.getrandbits(62)
    return ReadableSpan(
        name=rng.choice(("", "GET /items/{item}", "é" * 100)),
        context=context(rng),
        parent=context(rng) if rng.random() < 0.5 else None,
        resource=rng.choice(RESOURCES),
        attributes=attributes(rng),
        events=[Event("e", attributes(rng), rng.getrandbits(62)) for _ in range(rng.choice((0, 0, 3)))],
        links=[Link(context(rng), attributes(rng)) for _ in range(rng.choice((0, 0, 2)))],
        kind=rng.choice(list(SpanKind)),
        status=Status(*rng.choice(((StatusCode.UNSET, None), (StatusCode.OK, None), (StatusCode.ERROR, "why")))),
        start_time=start,
        end_time=start + rng.getrandbits(40),
        instrumentation_scope=rng.choice(SCOPES),
    )


def log(rng: random.Random) -> ReadableLogRecord:
    inside = trace.set_span_in_context(trace.NonRecordingSpan(context(rng)))
    record = LogRecord(
        timestamp=rng.choice((None, rng.getrandbits(62))),
        observed_timestamp=rng.getrandbits(62),
        context=rng.choice((None, inside)),
        severity_text=rng.choice((None, "INFO")),
        severity_number=rng.choice((None, SeverityNumber.INFO, SeverityNumber.FATAL4)),
        body=rng.choice(VALUES),
        attributes=attributes(rng),
        event_name=rng.choice((None, "bulk.job.started")),
    )
    return ReadableLogRecord(record, rng.choice(RESOURCES), rng.choice(SCOPES))


@pytest.mark.chance
@pytest.mark.parametrize("seed", range(40 * chance.TIMES))
def test_random_spans_mean_the_same(seed: int) -> None:
    rng = chance.rng(seed)
    batch = [span(rng) for _ in range(rng.choice((0, 1, 30)))]
    assert ExportTraceServiceRequest.FromString(encode_spans(batch)) == official_spans(batch)


@pytest.mark.chance
@pytest.mark.parametrize("seed", range(40 * chance.TIMES))
def test_random_log_records_mean_the_same(seed: int) -> None:
    rng = chance.rng(seed)
    batch = [log(rng) for _ in range(rng.choice((0, 1, 30)))]
    assert ExportLogsServiceRequest.FromString(encode_logs(batch)) == official_logs(batch)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_kind_of_value_means_the_same(value: Any) -> None:
    rng = random.Random(1)
    one = ReadableSpan("s", context(rng), attributes={"k": value}, start_time=1, end_time=2)
    assert ExportTraceServiceRequest.FromString(encode_spans([one])) == official_spans([one])


def test_what_dropped_is_counted_stays_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    one = span(rng)
    for name in ("dropped_attributes", "dropped_events", "dropped_links"):
        monkeypatch.setattr(ReadableSpan, name, 300)
    assert ExportTraceServiceRequest.FromString(encode_spans([one])) == official_spans([one])


@pytest.mark.parametrize("value", [2**63, object(), [object()]], ids=["large", "object", "inside a list"])
def test_an_attribute_that_otlp_cannot_hold_is_left_out_alone(
    value: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_safe, "_reported", set())
    rng = random.Random(3)
    one = ReadableSpan("s", context(rng), attributes={"bad": value, "good": 1}, start_time=1, end_time=2)
    decoded = ExportTraceServiceRequest.FromString(encode_spans([one]))
    (found,) = decoded.resource_spans[0].scope_spans[0].spans
    assert [pair.key for pair in found.attributes] == ["good"]
    assert "bad" in caplog.text
    assert str(2**63) not in caplog.text
    caplog.clear()
    encode_spans([one])
    assert caplog.text == "", "said once: whoever sends requests may bring it about with each"


def test_a_lone_surrogate_is_replaced() -> None:
    rng = random.Random(4)
    one = ReadableSpan("s\ud800", context(rng), attributes={"k": "a\udcffb"}, start_time=1, end_time=2)
    decoded = ExportTraceServiceRequest.FromString(encode_spans([one]))
    (found,) = decoded.resource_spans[0].scope_spans[0].spans
    assert (found.name, found.attributes[0].value.string_value) == ("s?", "a?b")
