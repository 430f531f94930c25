"""OTLP over gRPC, in process: what is taken, refused and counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bulkscope_studio.ingest import otlp_grpc
from bulkscope_studio.ingest.intake import Intake
from bulkscope_studio.ingest.writer import Ingest
from bulkscope_studio.storage.store import Store
from tests.studio.otlp import traces

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    store = Store(tmp_path / "s.duckdb")
    running = Intake(Ingest(store))
    yield running
    running.ingest.close()
    running.close()
    store.close()


def test_bytes_that_are_no_request_are_refused_and_counted(intake: Intake) -> None:
    server = otlp_grpc.Server(intake, 0)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        export = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as refused:
            export(b"\xff\xff\xff", timeout=30)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "not a protobuf ExportTraceServiceRequest" in refused.value.details()
        request = traces({"n": 1}, {"n": 2})
        request.MergeFrom(traces({}, span_id=b""))
        answer = ExportTraceServiceResponse.FromString(export(request.SerializeToString(), timeout=30))
    server.stop(5)
    assert answer.partial_success.rejected_spans == 1
    counts = intake.ingest.status()
    assert (counts["accepted"], counts["refused"]) == ({"traces": 2}, {"traces": 2})


def test_requests_that_never_come_whole_keep_no_other_waiting(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_grpc, "RECEIVE_SECONDS", 1.0)
    server, free = otlp_grpc.Server(intake, 0), threading.Event()

    def nothing() -> Iterator[bytes]:
        free.wait(60)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stalled = [channel.stream_unary(METHOD).future(nothing(), timeout=60) for _ in range(20)]
        answer = channel.unary_unary(METHOD)(traces({}).SerializeToString(), timeout=30)
        codes = {one.exception(30).code() for one in stalled}
        free.set()
    server.stop(5)
    assert answer == b""
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    assert intake.ingest.status()["accepted"] == {"traces": 1}


def test_a_call_without_a_message_is_refused(intake: Intake) -> None:
    server = otlp_grpc.Server(intake, 0)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.stream_unary(METHOD)(iter(()), timeout=30)
    server.stop(5)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    intake.ingest.submit_tables({}).result(30)  # what was counted before is written
    assert intake.ingest.status()["refused"] == {"traces": 1}
