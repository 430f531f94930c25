"""llama-cpp-python on a model of random weights; run by ``test_engines.py`` in an environment that has it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from llama_cpp import Llama, LogitsProcessorList
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope_instrumentation import llama_cpp as ours
from bulkscope_instrumentation.llama_cpp import LlamaCppInstrumentor
from tests.gguf_tiny import make
from tests.telemetry import Telemetry, telemetry


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = make(tmp_path_factory.mktemp("models") / "tiny.gguf")
    return Llama(str(path), n_ctx=512, n_threads=1, verbose=False, seed=1)


@pytest.fixture
def recorded() -> Iterator[Telemetry]:
    found = telemetry()
    found.clear()
    instrumentor = LlamaCppInstrumentor()
    instrumentor.instrument()
    yield found
    instrumentor.uninstrument()


def only(recorded: Telemetry) -> Any:
    (span,) = recorded.spans()
    assert span.kind == SpanKind.INTERNAL
    return span


def usage(span: Any) -> tuple[Any, Any]:
    return span.attributes.get("gen_ai.usage.input_tokens"), span.attributes.get("gen_ai.usage.output_tokens")


CHAT = [{"role": "user", "content": "abc"}]


def test_a_completion(recorded: Telemetry, llama: Any) -> None:
    answer = llama("abc", max_tokens=5)
    span = only(recorded)
    assert span.name == "text_completion tiny"
    assert usage(span) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
    found = span.attributes
    assert found["gen_ai.provider.name"] == "llama_cpp"
    assert found["gen_ai.request.max_tokens"] == 5
    assert found["gen_ai.response.finish_reasons"] == (answer["choices"][0]["finish_reason"],)
    wall = (span.end_time - span.start_time) / 1e9
    parts = found["gen_ai.latency.time_in_model_prefill"] + found["gen_ai.latency.time_in_model_decode"]
    assert 0 < parts <= wall
    assert found["bulk.inference.cpu.time"] > 0


def test_a_chat_is_one_inference(recorded: Telemetry, llama: Any) -> None:
    answer = llama.create_chat_completion(CHAT, max_tokens=5)
    span = only(recorded)
    assert span.name == "chat tiny"
    assert usage(span) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


def test_a_stream_counts_what_a_whole_answer_counts(recorded: Telemetry, llama: Any) -> None:
    whole = llama("abc", max_tokens=7, temperature=0)
    recorded.clear()
    before = otel_context.get_current()
    stream = llama("abc", max_tokens=7, temperature=0, stream=True)
    assert otel_context.get_current() == before
    chunks = list(stream)
    assert chunks
    span = only(recorded)
    assert usage(span) == (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
    assert span.attributes["gen_ai.response.finish_reasons"] == (whole["choices"][0]["finish_reason"],)
    assert span.attributes["gen_ai.latency.time_to_first_token"] > 0


def test_a_streamed_chat(recorded: Telemetry, llama: Any) -> None:
    assert list(llama.create_chat_completion(CHAT, max_tokens=5, stream=True))
    span = only(recorded)
    assert span.name == "chat tiny"
    assert usage(span)[1] > 0


def letter(ids: Any, scores: Any) -> Any:
    """Make every token the letter "a": bytes that are no text yet would be held back."""
    scores[:] = -1e9
    scores[3 + ord("a")] = 0
    return scores


@pytest.mark.parametrize("how", ["close", "forget"])
def test_a_stream_that_is_left_early(recorded: Telemetry, llama: Any, how: str) -> None:
    stream = llama("abc", max_tokens=400, temperature=0, stream=True, logits_processor=LogitsProcessorList([letter]))
    for _ in range(3):
        next(stream)
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
        assert recorded.spans() == [], "the garbage collector ends nothing, it may be anywhere"
        llama("abc", max_tokens=1)
    span = recorded.spans()[0]
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
    assert 3 <= usage(span)[1] < 400
    assert span.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(recorded: Telemetry, llama: Any, stream: bool) -> None:
    with pytest.raises(ValueError, match="context window"):
        list(llama("a" * 1000, max_tokens=4, stream=stream))
    span = only(recorded)
    assert (span.attributes["error.type"], span.attributes["bulk.failure.domain"]) == ("ValueError", "input")


def test_tokens_by_hand_are_untouched(recorded: Telemetry, llama: Any) -> None:
    tokens = llama.generate(llama.tokenize(b"abc"))
    assert isinstance(next(tokens), int)
    tokens.close()
    assert recorded.spans() == []


def test_faults_of_ours_reach_nobody(recorded: Telemetry, llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ours, "Inference", None)
        assert llama("abc", max_tokens=2)["usage"]["completion_tokens"] <= 2
    with monkeypatch.context() as patch:
        patch.setattr(ours._Call, "token", lambda self: None)
        assert llama("abc", max_tokens=2)["usage"]["completion_tokens"] <= 2
    assert only(recorded).name == "text_completion tiny"


def test_uninstrumented(recorded: Telemetry, llama: Any) -> None:
    LlamaCppInstrumentor().uninstrument()
    assert llama("abc", max_tokens=2)
    assert recorded.spans() == []
