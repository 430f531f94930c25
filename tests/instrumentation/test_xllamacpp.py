"""xllamacpp in process: a real engine on a model of random weights, whole answers and streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import xllamacpp
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope_instrumentation import xllamacpp as ours
from bulkscope_instrumentation.xllamacpp import XllamacppInstrumentor
from tests.compatibility import matrix
from tests.telemetry import Telemetry
from tests.tiny_server import CONTEXT, LETTERS, serve


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    instrumentor = XllamacppInstrumentor()
    instrumentor.instrument()
    yield serve(tmp_path_factory.mktemp("models") / "tiny-Q8.gguf")
    instrumentor.uninstrument()


def said(span: Any) -> dict[str, Any]:
    """The attributes that do not depend on the machine."""
    return {
        key: value
        for key, value in span.attributes.items()
        if not key.startswith(("bulk.inference.", "gen_ai.latency."))
    }


def usage(telemetry: Telemetry) -> tuple[Any, Any, Any]:
    (span,) = telemetry.spans()
    names = ("input_tokens", "output_tokens", "cache_read.input_tokens")
    values = [span.attributes.get(f"gen_ai.usage.{name}") for name in names]
    return values[0], values[1], values[2]


PROMPT = {"prompt": "abc", "max_tokens": 4, "cache_prompt": False, "logit_bias": LETTERS}
CHAT = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 4, "cache_prompt": False,
        "logit_bias": LETTERS}  # fmt: skip


def test_a_whole_answer(telemetry: Telemetry, server: Any) -> None:
    answer = server.handle_completions(PROMPT)
    (span,) = telemetry.spans()
    assert (span.name, span.kind) == ("text_completion tiny-Q8", SpanKind.INTERNAL)
    assert span.status.status_code == StatusCode.UNSET
    assert said(span) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "llama_cpp",
        "gen_ai.request.model": "tiny-Q8",
        "gen_ai.request.max_tokens": 4,
        "gen_ai.response.model": "tiny-Q8",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 4,  # one a byte, and the one that begins a text
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    timings = answer["timings"]
    found = span.attributes
    assert found["gen_ai.latency.time_in_model_prefill"] == timings["prompt_ms"] / 1e3
    assert found["gen_ai.latency.time_in_model_decode"] == timings["predicted_ms"] / 1e3
    assert found["gen_ai.latency.time_to_first_token"] == timings["prompt_ms"] / 1e3
    assert found["bulk.inference.decode_tokens_per_second"] == pytest.approx(timings["predicted_per_second"])
    assert found["bulk.inference.cpu.time"] > 0
    assert found["bulk.inference.memory.peak"] > 0
    matrix.note("xllamacpp", version("xllamacpp"), "7", "8", "9", "10", "11", "12")


def test_a_chat(telemetry: Telemetry, server: Any) -> None:
    server.handle_chat_completions({**CHAT, "model": "the-users-name"})
    (span,) = telemetry.spans()
    assert span.name == "chat the-users-name"
    assert usage(telemetry)[:2] == (4, 4)


def test_text_and_callback(telemetry: Telemetry, server: Any) -> None:
    answers: list[str] = []
    server.handle_completions(json.dumps(PROMPT), answers.append)
    (answer,) = answers
    assert json.loads(answer)["usage"]["completion_tokens"] == 4
    assert usage(telemetry) == (4, 4, 0)


def test_cached_tokens_are_counted_apart(telemetry: Telemetry, server: Any) -> None:
    server.handle_completions({**PROMPT, "prompt": "the same beginning", "cache_prompt": True})
    telemetry.clear()
    answer = server.handle_completions({**PROMPT, "prompt": "the same beginning", "cache_prompt": True})
    assert answer["timings"]["cache_n"] > 0
    assert usage(telemetry) == (23, 4, 22), "a space is three bytes to this tokenizer"


@pytest.mark.parametrize("as_text", [False, True])
def test_a_stream(telemetry: Telemetry, server: Any, as_text: bool) -> None:
    chunks: list[Any] = []
    body: Any = {**CHAT, "stream": True, "max_tokens": 9}
    server.handle_chat_completions(json.dumps(body) if as_text else body, chunks.append)
    assert len(chunks) > 2
    assert usage(telemetry)[:2] == (4, 9), "the engine's count, however many chunks there were"
    (span,) = telemetry.spans()
    wall = (span.end_time - span.start_time) / 1e9
    assert 0 < span.attributes["gen_ai.latency.time_to_first_token"] <= wall
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)
    found = [json.loads(chunk) if isinstance(chunk, str) else chunk for chunk in chunks]
    assert all("timings" not in chunk for chunk in found[:-1]), "what was not asked for is not handed on"
    assert body == {**CHAT, "stream": True, "max_tokens": 9}, "the caller's own request is untouched"


def test_a_stream_that_asks_for_timings_has_them(telemetry: Telemetry, server: Any) -> None:
    chunks: list[Any] = []
    server.handle_chat_completions({**CHAT, "stream": True, "timings_per_token": True}, chunks.append)
    assert sum("timings" in chunk for chunk in chunks) > 1


def test_a_stream_that_the_caller_stops(telemetry: Telemetry, server: Any) -> None:
    texts: list[Any] = []

    def third(chunk: dict[str, Any]) -> bool:
        texts.append(chunk["choices"][0]["delta"].get("content"))
        return len(texts) == 3

    server.handle_chat_completions({**CHAT, "stream": True, "max_tokens": 400}, third)
    assert len(texts) == 3
    tokens_in, tokens_out, _ = usage(telemetry)
    assert tokens_in == 4
    assert 2 <= tokens_out < 400
    (span,) = telemetry.spans()
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
    assert span.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(telemetry: Telemetry, server: Any, stream: bool) -> None:
    body = {**PROMPT, "prompt": "a" * CONTEXT, "stream": stream}
    answers: list[Any] = []
    answer = server.handle_completions(body, answers.append) if stream else server.handle_completions(body)
    assert (answers[0] if stream else answer)["error"]["code"] == 400
    (span,) = telemetry.spans()
    assert span.status.status_code == StatusCode.ERROR
    assert span.attributes["error.type"] == "exceed_context_size_error"
    assert span.attributes["bulk.failure.domain"] == "input"
    assert "gen_ai.usage.output_tokens" not in span.attributes, "absent is not 0"


def test_what_the_engine_raises_passes_unchanged(telemetry: Telemetry, server: Any) -> None:
    with pytest.raises(RuntimeError, match=r"json\.exception"):
        server.handle_completions("{no json", lambda answer: None)
    with pytest.raises(TypeError):
        server.handle_completions(3, lambda answer: None)
    first, second = telemetry.spans()
    assert (first.attributes["error.type"], second.attributes["error.type"]) == ("RuntimeError", "TypeError")


def test_faults_of_ours_reach_nobody(telemetry: Telemetry, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ours, "Inference", None)
        assert server.handle_completions(PROMPT)["usage"]["completion_tokens"] == 4
    with monkeypatch.context() as patch:
        patch.setattr(ours.answers, "read_timings", None)
        assert server.handle_completions(PROMPT)["usage"]["completion_tokens"] == 4
    (span,) = telemetry.spans()
    assert span.name == "text_completion tiny-Q8"


def test_the_text_is_nowhere(telemetry: Telemetry, server: Any) -> None:
    server.handle_completions({**PROMPT, "prompt": "a secret prompt"})
    (span,) = telemetry.spans()
    assert "secret" not in span.to_json()


def test_other_calls_are_untouched(telemetry: Telemetry, server: Any) -> None:
    assert "error" in server.handle_embeddings({"input": "abc"})
    assert telemetry.spans() == []


def test_uninstrumented(telemetry: Telemetry, server: Any) -> None:
    instrumentor = XllamacppInstrumentor()  # one for the process: the fixture's
    instrumentor.uninstrument()
    try:
        server.handle_completions(PROMPT)
        assert telemetry.spans() == []
        assert isinstance(vars(xllamacpp.Server)["handle_completions"], type(vars(xllamacpp.Server)["handle_rerank"]))
    finally:
        instrumentor.instrument()
