"""The span and the metrics of one inference, whatever the engine."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope._jobs import bulks, inferences
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.inferences import Inference
from tests.telemetry import Telemetry

MEASURED = {
    "bulk.inference.cpu.time", "bulk.inference.cpu.exact", "bulk.inference.cpu.utilization",
    "bulk.inference.memory.start", "bulk.inference.memory.peak", "bulk.inference.memory.growth",
    "bulk.inference.memory.file", "bulk.inference.memory.anon", "bulk.inference.memory.limit",
    "bulk.inference.memory.exact",
}  # fmt: skip
# Of kernels that have them.
OPTIONAL = {"bulk.inference.cpu.pressure", "bulk.inference.cpu.throttled", "bulk.inference.cpu.wait"}


def finished(**said: Any) -> Inference:
    inference = Inference(model="tiny", provider="llama_cpp", max_tokens=8).start()
    for name, value in said.items():
        setattr(inference, name, value)
    inference.finish()
    return inference


def test_all_that_an_engine_says(telemetry: Telemetry) -> None:
    finished(
        input_tokens=20, output_tokens=5, cached_tokens=3, ttft=0.2, prefill=0.1, decode=2.0, response_model="tiny-1",
        finish_reason="length",
    )  # fmt: skip
    (span,) = telemetry.spans()
    assert (span.name, span.kind, span.status.status_code) == ("chat tiny", SpanKind.INTERNAL, StatusCode.UNSET)
    found = dict(span.attributes)
    wall = (span.end_time - span.start_time) / 1e9
    assert found.pop("bulk.inference.tokens_per_second") == pytest.approx(5 / wall, rel=0.001)
    assert found.keys() >= MEASURED
    assert {key: value for key, value in found.items() if key not in MEASURED | OPTIONAL} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama_cpp",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.response.model": "tiny-1",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.latency.time_to_first_token": 0.2,
        "gen_ai.latency.time_in_model_prefill": 0.1,
        "gen_ai.latency.time_in_model_decode": 2.0,
        "bulk.inference.decode_tokens_per_second": 2.0,  # four steps after the first token
    }
    points = telemetry.metrics()
    labels = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "llama_cpp", "gen_ai.request.model": "tiny"}
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in points["gen_ai.client.token.usage"]}
    assert tokens == {"input": 20, "output": 5}
    for name in (
        "gen_ai.client.operation.duration", "bulk.inference.cpu.time", "bulk.inference.memory.peak",
        "bulk.inference.tokens_per_second",
    ):  # fmt: skip
        (point,) = points[name]
        assert (dict(point.attributes), point.count) == (labels, 1)


def test_what_the_engine_does_not_say_is_absent(telemetry: Telemetry) -> None:
    finished()
    (span,) = telemetry.spans()
    assert span.attributes.keys() - MEASURED - OPTIONAL == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.max_tokens",
    }  # fmt: skip
    assert "gen_ai.client.token.usage" not in telemetry.metrics()
    assert "bulk.inference.tokens_per_second" not in telemetry.metrics()


@pytest.mark.parametrize(("tokens", "rate"), [(0, None), (1, None), (2, 0.5), (5, 2.0)])
def test_decode_rate_counts_the_steps_after_the_first_token(
    telemetry: Telemetry, tokens: int, rate: float | None
) -> None:
    finished(output_tokens=tokens, decode=2.0)
    assert telemetry.spans()[0].attributes.get("bulk.inference.decode_tokens_per_second") == rate


def test_no_tokens_is_a_rate_of_zero(telemetry: Telemetry) -> None:
    finished(output_tokens=0)
    assert telemetry.spans()[0].attributes["bulk.inference.tokens_per_second"] == 0


def test_an_error_is_the_jobs_to_know(telemetry: Telemetry) -> None:
    bulk = Bulk("b", "body", "j")
    token = otel_context.attach(bulks.bind(bulk))
    Inference(model="tiny", provider="llama_cpp").start().finish(MemoryError())
    assert bulk.inference_failure == "resource"
    finished()
    assert bulk.inference_failure is None, "the next one went well"
    otel_context.detach(token)
    failed, _ = telemetry.spans()
    assert failed.status.status_code == StatusCode.ERROR
    assert {key: failed.attributes[key] for key in ("error.type", "bulk.failure.domain", "bulk.id", "bulk.job.id")} == {
        "error.type": "MemoryError", "bulk.failure.domain": "resource", "bulk.id": "b", "bulk.job.id": "j",
    }  # fmt: skip
    labels = [dict(point.attributes) for point in telemetry.metrics()["gen_ai.client.operation.duration"]]
    assert sorted(label.get("bulk.failure.domain", "") for label in labels) == ["", "resource"]
    assert not any("bulk.id" in label for label in labels), "an id is no metric attribute"


def test_context_is_the_callers_again(telemetry: Telemetry) -> None:
    before = otel_context.get_current()
    inference = Inference(model="tiny", provider="llama_cpp").start()
    assert trace.get_current_span().name == "chat tiny"
    inference.finish()
    assert otel_context.get_current() == before


def test_finished_in_another_thread(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    inference = Inference(model="tiny", provider="llama_cpp").start()
    thread = threading.Thread(target=inference.finish)
    thread.start()
    thread.join()
    assert [span.name for span in telemetry.spans()] == ["chat tiny"]
    otel_context.attach(otel_context.Context())  # what this thread still holds


class Broken:
    memory_limit = None

    def begin(self) -> None:
        raise RuntimeError("ours")


def test_a_fault_of_ours_leaves_nothing_behind(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = otel_context.get_current()
    monkeypatch.setattr(inferences, "meter", Broken)
    with pytest.raises(RuntimeError, match="ours"):
        Inference(model="tiny", provider="llama_cpp").start()
    assert otel_context.get_current() == before


def test_a_tracer_that_fails_leaves_no_stretch_open(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(inferences._instruments, "tracer", None)
        with pytest.raises(TypeError):
            Inference(model="tiny", provider="llama_cpp").start()
    finished()
    assert telemetry.spans()[0].attributes["bulk.inference.cpu.exact"] is True


class Ending:
    """A meter that begins a stretch and cannot end it."""

    memory_limit = None
    error: Exception = ProcessLookupError("ours")

    def begin(self) -> object:
        return object()

    def end(self, window: object) -> None:
        raise self.error


class SoftTimeLimitExceeded(Exception):
    """As Celery's: told by its name."""


def test_a_meter_that_fails_costs_a_number_and_not_the_span(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferences, "meter", Ending)
    finished(input_tokens=5, output_tokens=7)
    (span,) = telemetry.spans()
    assert span.attributes["gen_ai.usage.output_tokens"] == 7
    assert span.attributes["bulk.inference.tokens_per_second"] > 0
    assert not MEASURED & set(span.attributes)
    assert telemetry.metrics()["gen_ai.client.operation.duration"][0].count == 1


def test_a_time_limit_within_the_meter_ends_the_span_and_passes_on(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ending, "error", SoftTimeLimitExceeded())
    monkeypatch.setattr(inferences, "meter", Ending)
    before = otel_context.get_current()
    with pytest.raises(SoftTimeLimitExceeded):
        finished(output_tokens=7)
    assert [span.name for span in telemetry.spans()] == ["chat tiny"]
    assert otel_context.get_current() == before
