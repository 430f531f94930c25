"""From OTLP messages to rows: columns, types, every kind of metric."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bulkscope import conventions as c
from bulkscope_studio.ingest import otlp_decode
from tests import decoding
from tests.studio.otlp import gauge, logs, traces


def rows(decoded: otlp_decode.Decoded, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = decoded.arrow()[table].to_pylist()
    return found


@pytest.mark.parametrize("attribute", sorted(otlp_decode.SPAN_ATTRIBUTES))
def test_every_column_takes_its_attribute(attribute: str) -> None:
    kind = next(a.type for a in c.ATTRIBUTES if a.name == attribute) if attribute in KNOWN else "str"
    value = {"str": "text", "int": 7, "float": 0.5, "bool": True}[INTS.get(attribute, kind)]
    (row,) = rows(decoding.traces(traces({attribute: value})), "spans")
    assert row[otlp_decode.SPAN_ATTRIBUTES[attribute]] == value
    assert row["attributes"] is None


KNOWN = {a.name for a in c.ATTRIBUTES}
INTS = {c.HTTP_RESPONSE_STATUS_CODE: "int"}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (c.GEN_AI_INPUT_TOKENS, "many"), (c.GEN_AI_INPUT_TOKENS, 1.5), (c.BULK_ID, 1.5), (c.BULK_ID, True),
        (c.CPU_EXACT, "yes"),
        (c.HTTP_RESPONSE_STATUS_CODE, 2**31), (c.HTTP_RESPONSE_STATUS_CODE, -(2**40)), (c.TIME_IN_QUEUE, True),
    ],
)  # fmt: skip
def test_a_value_that_its_column_cannot_hold_stays_an_attribute(attribute: str, value: Any) -> None:
    (row,) = rows(decoding.traces(traces({attribute: value})), "spans")
    assert row[otlp_decode.SPAN_ATTRIBUTES[attribute]] is None
    assert json.loads(row["attributes"]) == {attribute: value}


@pytest.mark.parametrize("number", [7, 0, -(2**63), 2**63 - 1])
def test_an_id_that_is_a_number_is_its_digits(number: int) -> None:
    (span,) = rows(decoding.traces(traces({c.BULK_ID: number, c.JOB_ID: number, "other": number})), "spans")
    request = logs("text", observed_time_unix_nano=time.time_ns())
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.attributes.add(key=c.BULK_ID).value.int_value = number
    record.attributes.add(key=c.JOB_ID).value.int_value = number
    (log,) = rows(decoding.logs(request), "logs")
    assert (span["bulk_id"], span["job_id"], log["bulk_id"], log["job_id"]) == (str(number),) * 4
    assert (json.loads(span["attributes"]), log["attributes"]) == ({"other": number}, None)


def test_a_whole_number_is_welcome_where_a_float_is_expected() -> None:
    (row,) = rows(decoding.traces(traces({c.TIME_IN_QUEUE: 3})), "spans")
    assert row["wait"] == 3.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_kept_as_text_and_out_of_the_means(value: float) -> None:
    (row,) = rows(decoding.traces(traces({c.TIME_IN_QUEUE: value})), "spans")
    assert (row["wait"], json.loads(row["attributes"])) == (None, {c.TIME_IN_QUEUE: str(value)})


def test_the_resource_goes_onto_every_record_and_is_kept_once() -> None:
    resource = {"service.name": "s", "service.instance.id": "i", "host.name": "h", "process.pid": 42, "x": True}
    decoded = decoding.traces(traces({}, {}, resource=resource))
    first, second = rows(decoded, "spans")
    expected = {"service_name": "s", "service_instance_id": "i", "host_name": "h", "pid": 42}
    assert {key: first[key] for key in expected} == expected
    assert first["resource_id"] == second["resource_id"]
    (kept,) = rows(decoded, "resources")
    assert json.loads(kept["attributes"]) == resource


CHILD = {"service.name": "s", "service.instance.id": "i", "host.name": "h", "process.pid": 42}


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        (5, {c.PROCESS_PID: 7}, ("h", 7, None)),  # a parent's word of a child that was killed
        (5, {c.PROCESS_PID: 42}, ("h", 42, "i")),
        (5, {}, ("h", 42, "i")),
        (3, {c.PROCESS_PID: 7}, ("h", 42, "i")),
        (5, {c.PROCESS_PID: "7"}, ("h", 42, "i")),
    ],
)
def test_whose_work_a_job_was(kind: int, attributes: dict[str, Any], expected: tuple[str, int, str | None]) -> None:
    (row,) = rows(decoding.traces(traces(attributes, resource=CHILD, kind=kind)), "spans")
    assert (row["host_name"], row["pid"], row["service_instance_id"]) == expected


@pytest.mark.parametrize(
    ("resource", "told", "worker"),
    [
        ({c.WORKER_SLOT: "40#2"}, {}, "h:40#2"),  # one of a pool's processes: the worker is the slot
        ({c.WORKER_SLOT: "40#"}, {}, "h:42"),  # another's idea of it
        ({c.WORKER_SLOT: 7}, {}, "h:42"),
        ({}, {c.PROCESS_PID: 7, c.WORKER_SLOT: "42#3"}, "h:42#3"),  # its parent's word of a child that was killed
        ({}, {c.PROCESS_PID: 7}, "h:7"),
        ({}, {c.WORKER_SLOT: "42#3"}, "h:42"),
    ],
)
def test_a_slot_of_a_pool_is_a_worker(resource: dict[str, Any], told: dict[str, Any], worker: str) -> None:
    (row,) = rows(decoding.traces(traces(told, resource=CHILD | resource, kind=5)), "spans")
    assert row["worker"] == worker


def test_absent_is_null() -> None:
    (row,) = rows(decoding.traces(traces({})), "spans")
    absent = {name for name, value in row.items() if value is None}
    assert {
        "parent_span_id",
        "wait",
        "input_tokens",
        "memory_peak",
        "attributes",
        "events",
        "links",
        "dropped",
    } <= absent


def test_events_links_and_what_the_sender_dropped() -> None:
    request = traces({}, dropped_attributes_count=2, dropped_events_count=1)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    event = span.events.add(name="e", time_unix_nano=5)
    event.attributes.add(key="k").value.int_value = 1
    span.links.add(trace_id=b"\1" * 16, span_id=b"\2" * 8)
    (row,) = rows(decoding.traces(request), "spans")
    assert json.loads(row["events"]) == [{"time_ns": 5, "name": "e", "attributes": {"k": 1}}]
    assert json.loads(row["links"]) == [{"trace_id": "01" * 16, "span_id": "02" * 8}]
    assert row["dropped"] == 3


def test_values_of_every_kind() -> None:
    request = traces({"s": "t"})
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="bytes").value.bytes_value = b"\0\xff"
    array = span.attributes.add(key="array").value.array_value
    array.values.add().int_value = 1
    array.values.add().string_value = "two"
    span.attributes.add(key="map").value.kvlist_value.values.add(key="in").value.bool_value = False
    span.attributes.add(key="nothing")
    (row,) = rows(decoding.traces(request), "spans")
    assert json.loads(row["attributes"]) == {
        "s": "t", "bytes": "00ff", "array": [1, "two"], "map": {"in": False}, "nothing": None,
    }  # fmt: skip


def test_a_value_nested_too_deeply_is_cut_and_counted() -> None:
    request = traces({})
    value = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="deep").value
    for _ in range(20):
        value = value.array_value.values.add()
    value.int_value = 1
    decoded = decoding.traces(request)
    assert decoded.truncated == {"value nested deeper than 8": 1}
    assert len(rows(decoded, "spans")) == 1


def test_a_log_record() -> None:
    now = time.time_ns()
    request = logs("text", observed_time_unix_nano=now, severity_text="INFO", event_name="bulk.job.started")
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.attributes.add(key="bulk.id").value.string_value = "b"
    record.attributes.add(key="bulk.job.id").value.string_value = "j"
    record.attributes.add(key="rest").value.double_value = 1.0
    (row,) = rows(decoding.logs(request), "logs")
    assert (row["body"], row["severity"], row["severity_number"]) == ("text", "INFO", 9)
    assert (row["bulk_id"], row["job_id"], row["event_name"]) == ("b", "j", "bulk.job.started")
    assert (row["trace_id"], row["span_id"], row["attributes"]) == (None, None, '{"rest":1.0}')


def test_a_log_body_that_is_no_text_is_kept_as_json() -> None:
    request = logs("x")
    body = request.resource_logs[0].scope_logs[0].log_records[0].body
    body.kvlist_value.values.add(key="a").value.int_value = 1
    (row,) = rows(decoding.logs(request), "logs")
    assert row["body"] == '{"a":1}'


@pytest.fixture
def metric() -> tuple[ExportMetricsServiceRequest, Any]:
    request = ExportMetricsServiceRequest()
    return request, request.resource_metrics.add().scope_metrics.add().metrics.add(name="m", unit="s")


def one(request: ExportMetricsServiceRequest) -> dict[str, Any]:
    (row,) = rows(decoding.metrics(request), "points")
    return row


def test_a_sum(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    made.sum.is_monotonic, made.sum.aggregation_temporality = True, 2
    point = made.sum.data_points.add(time_unix_nano=time.time_ns(), start_time_unix_nano=10**18, as_int=7)
    point.attributes.add(key="k").value.string_value = "v"
    row = one(request)
    assert (row["type"], row["temporality"], row["monotonic"], row["value"]) == ("sum", "cumulative", True, 7.0)
    assert (row["start_ns"], row["attributes"], row["count"]) == (10**18, '{"k":"v"}', None)


def test_a_histogram(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    made.histogram.aggregation_temporality = 1
    made.histogram.data_points.add(
        time_unix_nano=time.time_ns(), count=3, sum=4.5, min=1, max=2, explicit_bounds=[1, 2], bucket_counts=[1, 1, 1]
    )
    row = one(request)
    assert (row["type"], row["temporality"], row["value"]) == ("histogram", "delta", None)
    assert (row["count"], row["sum"], row["min"], row["max"]) == (3, 4.5, 1.0, 2.0)
    assert (row["bounds"], row["buckets"]) == ([1.0, 2.0], [1, 1, 1])


def test_an_exponential_histogram_and_a_summary(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    point = made.exponential_histogram.data_points.add(
        time_unix_nano=time.time_ns(), count=3, sum=4.5, scale=2, zero_count=1
    )
    point.positive.offset = -1
    point.positive.bucket_counts.extend([1, 1])
    row = one(request)
    assert json.loads(row["detail"]) == {"scale": 2, "zero_count": 1, "positive": [-1, [1, 1]], "negative": [0, []]}
    point = made.summary.data_points.add(time_unix_nano=time.time_ns(), count=2, sum=3)
    point.quantile_values.add(quantile=0.5, value=1.5)
    row = one(request)
    assert (row["type"], row["count"], json.loads(row["detail"])) == ("summary", 2, [[0.5, 1.5]])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"explicit_bounds": [1], "bucket_counts": [1]}, "histogram whose buckets do not fit its bounds"),
        ({"explicit_bounds": [1], "bucket_counts": [1, 1]}, "histogram whose buckets do not add up to its count"),
        ({"explicit_bounds": [float("nan")], "bucket_counts": [3, 0]}, "value is NaN or infinite"),
        ({"sum": float("inf")}, "value is NaN or infinite"),
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(
    fields: dict[str, Any], reason: str, metric: tuple[ExportMetricsServiceRequest, Any]
) -> None:
    request, made = metric
    made.histogram.data_points.add(**{"time_unix_nano": time.time_ns(), "count": 3} | fields)
    assert decoding.metrics(request).refused == {reason: 1}


def test_a_series_that_says_it_has_no_value_is_a_row_without_one(
    metric: tuple[ExportMetricsServiceRequest, Any],
) -> None:
    request, made = metric
    made.gauge.data_points.add(time_unix_nano=time.time_ns(), flags=1)
    assert one(request)["value"] is None


def test_a_point_without_a_value_is_refused(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    made.gauge.data_points.add(time_unix_nano=time.time_ns())
    assert decoding.metrics(request).refused == {"point without a value": 1}


def test_buckets_and_quantiles_are_bounded(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    made.histogram.data_points.add(
        time_unix_nano=time.time_ns(), bucket_counts=[0] * 4097, explicit_bounds=map(float, range(4096))
    )
    other = request.resource_metrics[0].scope_metrics[0].metrics.add(name="e")
    point = other.exponential_histogram.data_points.add(time_unix_nano=time.time_ns(), count=4097)
    point.negative.bucket_counts.extend([1] * 4097)
    summary = request.resource_metrics[0].scope_metrics[0].metrics.add(name="q")
    quantiles = summary.summary.data_points.add(time_unix_nano=time.time_ns(), count=1)
    for _ in range(1001):
        quantiles.quantile_values.add(quantile=0.5, value=1.0)
    decoded = decoding.metrics(request)
    assert decoded.refused == {"histogram of more than 4,096 buckets": 2}
    assert decoded.truncated == {"more than 1,000 quantiles": 1}
    (row,) = rows(decoded, "points")
    assert len(json.loads(row["detail"])) == 1000


@pytest.mark.parametrize("value", [1.7e308, -1e19])
def test_a_point_that_no_sum_of_could_be_kept_is_refused(
    value: float, metric: tuple[ExportMetricsServiceRequest, Any]
) -> None:
    request, made = metric
    made.gauge.data_points.add(time_unix_nano=time.time_ns(), as_double=value)
    assert decoding.metrics(request).refused == {"value beyond 64 bits": 1}


def test_a_metric_beyond_8_mib_is_refused_alone(metric: tuple[ExportMetricsServiceRequest, Any]) -> None:
    request, made = metric
    made.description = "x" * (8 << 20)
    made.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
    request.MergeFrom(gauge(1))
    decoded = decoding.metrics(request)
    assert (decoded.refused, decoded.accepted) == ({"metric larger than 8 MiB": 1}, 1)
