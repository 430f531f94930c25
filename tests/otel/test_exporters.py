"""Our exporters against a real server: what arrives, what is tried again, what is counted as lost."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import gc
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk import metrics
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanContext
from opentelemetry.util.re import parse_env_headers

from bulkscope._export import drops, exporters, otlp_http
from bulkscope._export import outbox as _outbox
from tests import sink
from tests.processes import free_port

OK, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits; and what was made is closed, lest its thread stay with the tests that follow."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_outbox, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(_outbox, "_PATIENCE", 30.0)
    made: list[_outbox.Outbox] = []

    class Noted(_outbox.Outbox):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(exporters, "Outbox", Noted)
    yield
    for outbox in made:
        outbox.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[sink.Sink]:
    with sink.serve() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    counted: list[tuple[str, int, str]] = []
    monkeypatch.setattr(drops, "count", lambda *what: counted.append(what))
    return counted


def spans(number: int = 1, **attributes: Any) -> list[ReadableSpan]:
    return [
        ReadableSpan(f"span {n}", SpanContext(n + 1, n + 1, False), attributes=attributes, start_time=1, end_time=2)
        for n in range(number)
    ]


def cannot_encode(monkeypatch: pytest.MonkeyPatch, exporter: exporters.BulkscopeSpanExporter, name: str) -> None:
    """Let our encoder fail with spans of one name."""
    encode = exporter.records._field

    def some(span: Any) -> bytes:
        if span.name == name:
            raise IndexError("a kind of span from a later SDK")
        return encode(span)

    monkeypatch.setattr(exporter.records, "_field", some)


def test_one_connection_serves_many_requests(server: sink.Sink) -> None:
    exporter = exporters.BulkscopeSpanExporter()
    assert [exporter.export(spans(2)) for _ in range(5)] == [OK] * 5
    assert len(server.spans) == 10
    assert len(server.connections) == 1
    assert {path for path, _ in server.bodies} == {"/v1/traces"}
    assert server.headers[0]["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_end_point_is_asked_again(server: sink.Sink, status: int) -> None:
    server.answers += [(status, {}, b"busy"), (status, {"Retry-After": "0.01"}, b"")]
    assert exporters.BulkscopeSpanExporter().export(spans()) is OK
    assert len(server.headers) == 3
    assert len(server.spans) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 404, 500])
def test_a_final_answer_is_not_asked_again(server: sink.Sink, status: int, caplog: pytest.LogCaptureFixture) -> None:
    server.answers += [(status, {}, b"no")]
    assert exporters.BulkscopeSpanExporter().export(spans()) is FAILURE
    assert len(server.headers) == 1
    assert f"HTTP {status}" in caplog.text
    assert server.url in caplog.text


def test_scopes_that_are_seen_at_the_same_moment_have_a_number_each(server: sink.Sink) -> None:
    records = exporters.BulkscopeSpanExporter().records
    both, numbers = threading.Barrier(2), dict[str, bytes | None]()

    class Slow(dict[int, Any]):
        def __setitem__(self, number: int, item: Any) -> None:
            super().__setitem__(number, item)
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.3)  # until the other one has come as far

    records._groups = Slow()
    resource, scopes = object(), {"one": object(), "two": object()}
    threads = [
        threading.Thread(target=lambda name=name: numbers.update({name: records._number(resource, scopes[name])}))
        for name in scopes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name, scope in scopes.items():
        number = numbers[name]
        assert number is not None
        assert records._groups[int.from_bytes(number, "big")] == (resource, scope)


def test_a_signals_handler_that_logs_while_a_scope_gets_its_number_gets_one_too(server: sink.Sink) -> None:
    records = exporters.BulkscopeSpanExporter().records
    resource, scopes, inner = object(), [object(), object()], list[bytes | None]()

    class Struck(dict[int, Any]):
        def __setitem__(self, number: int, item: Any) -> None:
            super().__setitem__(number, item)
            if not inner:  # in the same thread, wherever it is
                inner.append(None)
                inner.extend(records._number(resource, scope) for scope in scopes)

    records._groups = Struck()
    outer: list[bytes | None] = []
    thread = threading.Thread(target=lambda: outer.append(records._number(resource, scopes[0])), daemon=True)
    thread.start()
    thread.join(30)
    assert outer == inner[1:2], "the same scope has the same number"
    for number, scope in zip(inner[1:], scopes, strict=True):
        assert number is not None
        assert records._groups[int.from_bytes(number, "big")] == (resource, scope)


def test_an_outage_is_said_once_and_so_is_its_end(server: sink.Sink, caplog: pytest.LogCaptureFixture) -> None:
    exporter = exporters.BulkscopeSpanExporter()
    server.answers += [(400, {}, b"")] * 3
    assert [exporter.export(spans()) for _ in range(5)] == [FAILURE] * 3 + [OK] * 2
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "could not be delivered" in said[0]
    assert "delivered again" in said[1]


def test_an_end_point_that_stays_busy_is_asked_beyond_the_time_out(
    server: sink.Sink, monkeypatch: pytest.MonkeyPatch, lost: list[Any]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    monkeypatch.setattr(_outbox, "_LONGEST_WAIT", 0.1)
    server.answers += [(503, {}, b"")] * 8
    assert exporters.BulkscopeSpanExporter().export(spans()) is OK
    assert len(server.headers) == 9
    assert lost == []


@pytest.mark.parametrize("asked", ["86400", "inf", "1e300", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_long_retry_after_is_kept_to(server: sink.Sink, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(_outbox, "_PATIENCE", 0.3)
    server.answers += [(503, {"Retry-After": asked}, b"")]
    exporter = exporters.BulkscopeSpanExporter()
    assert exporter.export(spans()) is FAILURE
    assert exporter.drain(time.monotonic() + 0.5) is False
    assert len(server.headers) == 1
    assert exporter.sender.outbox.waiting() == 1


@pytest.mark.parametrize("asked", ["nan", "-5", "-inf", "soon", "", "Fri, 31 Dec 1999 23:59:59 GMT", "0x10", "9" * 400])
def test_an_odd_retry_after_is_none(server: sink.Sink, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(_outbox, "_FIRST_WAIT", 3600.0)
    monkeypatch.setattr(_outbox, "_PATIENCE", 0.3)
    seconds = otlp_http.retry_after(asked)
    assert seconds == (86_400 if asked == "9" * 400 else 0)
    server.answers += [(503, {"Retry-After": asked}, b"")] * 1000
    assert exporters.BulkscopeSpanExporter().export(spans()) is FAILURE
    assert len(server.headers) == 1, "the wait of its own holds"


def test_retry_after_may_be_a_date() -> None:
    in_an_hour = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert otlp_http.retry_after(in_an_hour) == pytest.approx(3600, abs=5)


def test_shutdown_ends_the_wait(server: sink.Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "_FIRST_WAIT", 3600.0)
    server.answers += [(503, {}, b"")] * 2
    exporter = exporters.BulkscopeSpanExporter()
    results: list[SpanExportResult] = []
    thread = threading.Thread(target=lambda: results.append(exporter.export(spans())))
    thread.start()
    while not server.headers:
        time.sleep(0.01)
    exporter.shutdown()
    thread.join(30)
    assert results == [FAILURE]


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(_outbox, "_PATIENCE", 0.3)
    assert exporters.BulkscopeSpanExporter().export(spans()) is FAILURE
    assert "refused" in caplog.text


def test_a_connection_that_the_server_closed_is_opened_again(
    server: sink.Sink, caplog: pytest.LogCaptureFixture
) -> None:
    server.hangs_up = True
    exporter = exporters.BulkscopeSpanExporter()
    for _ in range(3):
        assert exporter.export(spans()) is OK
        time.sleep(0.05)  # the server's end has to reach us before the next request
    assert len(server.spans) == len(server.connections) == 3
    assert not caplog.records


def test_a_batch_that_is_too_large_is_sent_in_halves(server: sink.Sink) -> None:
    server.answers += [(413, {}, b""), (200, {}, b""), (413, {}, b"")]
    assert exporters.BulkscopeSpanExporter().export(spans(4)) is OK
    assert sorted(span["name"] for span in server.spans) == [f"span {n}" for n in range(4)]


def test_a_single_record_that_is_too_large_is_lost_alone(server: sink.Sink) -> None:
    server.answers += [(413, {}, b"")] * 2
    assert exporters.BulkscopeSpanExporter().export(spans(2)) is FAILURE
    assert [span["name"] for span in server.spans] == ["span 1"]


@pytest.mark.parametrize(
    ("response", "field"),
    [
        (ExportTraceServiceResponse, "rejected_spans"),
        (ExportLogsServiceResponse, "rejected_log_records"),
        (ExportMetricsServiceResponse, "rejected_data_points"),
    ],
)
def test_partial_success_is_read(response: Any, field: str) -> None:
    whole = response(partial_success={field: 300, "error_message": "too öld"})
    assert exporters.rejected(whole.SerializeToString()) == (300, "too öld")
    assert exporters.rejected(response().SerializeToString()) == (0, "")
    assert exporters.rejected(response(partial_success={"error_message": "mind"}).SerializeToString()) == (0, "mind")


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>", b"\xff" * 9, b"\x0a\xff", b"\x09\x00"])
def test_an_answer_that_is_not_otlp_rejects_nothing(answer: bytes) -> None:
    assert exporters.rejected(answer)[0] == 0


def test_what_the_server_rejects_is_counted(server: sink.Sink, lost: list[Any]) -> None:
    partial = ExportTraceServiceResponse(partial_success={"rejected_spans": 2})
    server.answers += [(200, {}, partial.SerializeToString())]
    assert exporters.BulkscopeSpanExporter().export(spans(5)) is OK
    assert lost == [("traces", 2, "rejected")]


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate", "brotli"])
def test_compression(server: sink.Sink, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    assert exporters.BulkscopeSpanExporter().export(spans(3)) is OK
    assert len(server.spans) == 3
    assert server.headers[0].get("content-encoding") == (compression if compression in ("gzip", "deflate") else None)


def test_headers_and_login(server: sink.Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url.replace("://", "://me:p%40ss@"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b,user-agent=mine")
    assert exporters.BulkscopeSpanExporter().export(spans()) is OK
    (sent,) = server.headers
    assert sent["x-tenant"] == "a b"
    assert sent["user-agent"] == "mine"
    assert sent["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=ApiKey abc=")
    assert exporters.BulkscopeSpanExporter().export(spans()) is OK
    assert server.headers[1]["authorization"] == "ApiKey abc="
    assert "x-tenant" not in server.headers[1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ENDPOINT": "http://h:1"},
        {"ENDPOINT": "http://h:1/"},
        {"ENDPOINT": "http://h:1/base/"},
        {"TRACES_ENDPOINT": "http://h:2/own/path?x=1"},
        {"ENDPOINT": "http://h:1", "TRACES_ENDPOINT": "http://h:2"},
        {"ENDPOINT": ""},
    ],
)
def test_the_end_point_is_where_the_official_exporter_sends(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    assert otlp_http.endpoint("traces") == OTLPSpanExporter()._endpoint


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://h", "http://", "unix:/run/x"])
def test_an_end_point_that_is_no_url_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        exporters.BulkscopeSpanExporter()


def test_tls_with_a_client_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    authority = trustme.CA()
    served, mine = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "mine.pem")
    mine.private_key_pem.write_to_path(tmp_path / "mine.key")
    with sink.serve(tls=context) as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        with monkeypatch.context() as impatient:
            impatient.setattr(_outbox, "_PATIENCE", 0.5)
            assert exporters.BulkscopeSpanExporter().export(spans()) is FAILURE
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(tmp_path / "mine.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(tmp_path / "mine.key"))
        exporter = exporters.BulkscopeSpanExporter()
        assert [exporter.export(spans()) for _ in range(2)] == [OK, OK]
        assert len(running.spans) == 2


def test_a_record_that_ours_cannot_encode_goes_through_the_official_encoder(
    server: sink.Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = exporters.BulkscopeSpanExporter()
    cannot_encode(monkeypatch, exporter, "span 1")
    assert exporter.export(spans(3)) is OK
    assert sorted(span["name"] for span in server.spans) == ["span 0", "span 1", "span 2"]


@pytest.mark.parametrize(
    ("preference", "delta"),
    [
        ("", set()),
        ("cumulative", set()),
        ("DELTA", {metrics.Counter, metrics.Histogram, metrics.ObservableCounter}),
        ("lowmemory", {metrics.Counter, metrics.Histogram}),
        ("other", set()),
    ],
)
def test_temporality_preference(preference: str, delta: set[type], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    found = exporters.BulkscopeMetricExporter()._preferred_temporality
    assert {kind for kind, value in found.items() if value is sdk.AggregationTemporality.DELTA} == delta


@pytest.mark.parametrize("aggregation", ["", "base2_exponential_bucket_histogram", "explicit_bucket_histogram", "x"])
def test_metrics_arrive(server: sink.Sink, monkeypatch: pytest.MonkeyPatch, aggregation: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", aggregation)
    reader = sdk.PeriodicExportingMetricReader(exporters.BulkscopeMetricExporter(), 3_600_000)
    provider = metrics.MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("tests").create_histogram("h").record(0.25, {"k": "v"})
    provider.shutdown()
    (point,) = server.points
    assert (point["name"], point["count"], point["attributes"]) == ("h", 1, {"k": "v"})


def test_a_queue_holds_bytes_that_the_garbage_collector_need_not_visit(
    server: sink.Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = exporters.BulkscopeSpanExporter()
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000)
    exporters._encode_early(processor._batch_processor, exporter.records)
    cannot_encode(monkeypatch, exporter, "odd")
    provider = TracerProvider(resource=Resource({"service.name": "s"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for scope, name in (("one", "a"), ("two", "b"), ("one", "c"), ("two", "odd")):
        provider.get_tracer(scope).start_span(name).end()
    held = list(processor._batch_processor._queue)
    assert [type(item) is bytes and not gc.is_tracked(item) for item in held] == [False, True, True, True]
    provider.shutdown()
    assert {(span["name"], span["scope"], span["resource"]["service.name"]) for span in server.spans} == {
        ("a", "one", "s"), ("b", "two", "s"), ("c", "one", "s"), ("odd", "two", "s"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h:4318", "http://h:4318"),
        ("https://user:s3cret@h.example:4318/v1/traces", "https://h.example:4318"),
        ("user:s3cret@h:4318", "h:4318"),
        ("user:s3cret@h:4318/v1/traces", "h:4318"),
        ("http://user:s3c@s3cret@h:1", "http://h:1"),
        ("http://user:s3c/ret@h:1", "http://(an address that is not shown)"),
        ("http://user:12/s3cret@h:1", "http://(an address that is not shown)"),
        ("http://user:s3cret?x@h:1", "http://(an address that is not shown)"),
        ("http://user:s3cret#x@h:1", "http://(an address that is not shown)"),
        ("http://user:s3cret", "http://(an address that is not shown)"),
        ("http://h:1/s3cret/v1/traces", "http://h:1"),
        ("http://h:1?token=s3cret", "http://h:1"),
        ("http://h:1#s3cret", "http://h:1"),
        ("http://me:s3cret@[::1]:4318/", "http://[::1]:4318"),
        ("htp://me:s3cret@h", "htp://h"),
        ("user:s3cret", "(an address that is not shown)"),
        ("http://me:s3cret@", "http://(an address that is not shown)"),
        ("http://me:s3cret@h\\x:1", "http://h"),
        (" http://me:s3cret@h ", "http://h"),
        ("", "(an address that is not shown)"),
    ],
)
def test_of_an_address_scheme_host_and_port_are_said(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert otlp_http.printable(url) == said
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
    text = ""
    try:
        client = otlp_http.Client("traces")
    except ValueError as error:
        text = str(error)
        assert "http://HOST:PORT" in text or "percent-encode" in text
    else:
        assert client.shown == said or not url
    assert "s3c" not in text + caplog.text
    assert "ret@" not in text + caplog.text


def test_a_password_in_the_address_is_not_said(
    server: sink.Sink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.url.replace("://", "://me:s3cret@") + "/t0ken/x?key=t0ken"
    )
    server.answers += [(400, {}, b"")]
    assert exporters.BulkscopeSpanExporter().export(spans()) is FAILURE
    assert server.url in caplog.text
    for secret in ("s3cret", "t0ken"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=1", {"a": "1"}),
        (" A = 1 , b=x%20y,c=", {"a": "1", "b": "x y", "c": ""}),
        ("authorization=Basic abc==", {"authorization": "Basic abc=="}),
        ("a=b c%20d", {"a": "b c%20d"}),
        ("api%2Dkey=x", {"api-key": "x"}),
        ("a=1,,b=2", {"a": "1", "b": "2"}),
        ("", {}),
    ],
)
def test_headers_are_read_as_opentelemetry_reads_them(text: str, found: dict[str, str]) -> None:
    assert otlp_http.headers(text) == found == parse_env_headers(text, liberal=True)


@pytest.mark.parametrize(
    "text", ["Bearer s3cret", "authorization: Bearer s3cret", "s3cret", "a=1,s3cret=\xfc", "=s3cret", "x y=s3cret"]
)
def test_a_malformed_header_is_said_without_what_is_in_it(
    text: str, server: sink.Sink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-good=yes,{text}")
    assert exporters.BulkscopeSpanExporter().export(spans()) is OK
    assert server.headers[0]["x-good"] == "yes"
    number = 2 + text.count(",")
    assert f"header {number} of OTEL_EXPORTER_OTLP_HEADERS is left out" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADERS", "x=%E2%82%AC"),
        ("HEADERS", "x=a%0Ab"),
        ("TRACES_ENDPOINT", "http://h/caf\xe9"),
        ("TRACES_ENDPOINT", "http://h/a b"),
        ("TRACES_ENDPOINT", "http://h:99999"),
    ],
)
def test_what_could_never_be_sent_is_said_at_once(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    with pytest.raises(
        ValueError, match=r"header x of OTEL_EXPORTER_OTLP_HEADERS|telemetry cannot be sent to http://h"
    ):
        exporters.BulkscopeSpanExporter()


@pytest.mark.parametrize(("text", "seconds"), [("inf", 86_400), ("1e12", 86_400), ("nan", 10), ("-1", 10), ("3", 3)])
def test_odd_time_outs(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", text)
    assert otlp_http.Client("traces")._seconds == seconds


@pytest.mark.parametrize(
    ("url", "port"), [("http://[::1]", 80), ("https://[fe80::abcd]", 443), ("http://[::1]:14", 14), ("http://h", 80)]
)
def test_ports(url: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    client = otlp_http.Client("traces")
    assert (client._host, client._port) == (url.partition("//")[2].partition("]")[0].lstrip("["), port)


def test_an_answer_that_drips_ends_with_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    over = threading.Event()

    def drip() -> None:
        connection = listener.accept()[0]
        connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=drip, daemon=True).start()
        results: list[Any] = []
        exporter = exporters.BulkscopeSpanExporter()
        exporting = threading.Thread(target=lambda: results.append(exporter.export(spans())), daemon=True)
        exporting.start()
        exporting.join(30)  # the answer itself never ends
        over.set()
    assert results


def test_of_a_batch_in_halves_only_the_lost_one_is_counted(server: sink.Sink, lost: list[Any]) -> None:
    server.answers += [(413, {}, b""), (200, {}, b""), (413, {}, b""), (400, {}, b"")]
    exporter = exporters.BulkscopeSpanExporter()
    drops._watch_exporter("traces", exporter)
    assert exporter.export(spans(4)) is FAILURE
    assert len(server.spans) == 3
    assert lost == [("traces", 1, "export_failed")]


def test_an_export_that_raises_is_counted(lost: list[Any]) -> None:
    class Theirs:
        def export(self, batch: Any) -> Any:
            raise UnicodeEncodeError("latin-1", "x", 0, 1, "no")

    exporter = Theirs()
    drops._watch_exporter("logs", exporter)
    with pytest.raises(UnicodeEncodeError):
        exporter.export([1, 2, 3])
    assert lost == [("logs", 3, "export_failed")]


@pytest.mark.parametrize(("preference", "counted"), [("delta", [("metrics", 2, "export_failed")]), ("cumulative", [])])
def test_an_interval_of_deltas_that_failed_is_lost(
    server: sink.Sink, lost: list[Any], monkeypatch: pytest.MonkeyPatch, preference: str, counted: list[Any]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    reader = sdk.PeriodicExportingMetricReader(exporters.BulkscopeMetricExporter(), 3_600_000)
    provider = metrics.MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("tests").create_counter("c")
    counter.add(1, {"k": 1})
    counter.add(1, {"k": 2})
    server.answers += [(400, {}, b"")]
    provider.force_flush()
    assert lost == counted
