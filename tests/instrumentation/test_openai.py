"""OpenAI-compatible servers over HTTP: llama.cpp's real server in this process, and answers of others as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope_instrumentation import _llm_answers, _llm_call
from bulkscope_instrumentation.openai import OpenaiInstrumentor
from tests.telemetry import Telemetry
from tests.tiny_server import LETTERS, serve


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serve(tmp_path_factory.mktemp("models") / "tiny.gguf")
    yield server.listening_address
    del server


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentor = OpenaiInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


CHAT = {"model": "mine", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 5, "cache_prompt": False,
        "logit_bias": LETTERS}  # fmt: skip
PROMPT = {"prompt": "abc", "cache_prompt": False, "logit_bias": [[int(token), bias] for token, bias in LETTERS.items()]}
STREAM = {**CHAT, "stream": True}


def only(telemetry: Telemetry) -> Any:
    (span,) = telemetry.spans()
    assert span.kind == SpanKind.CLIENT
    assert not [name for name in span.attributes if name.startswith(("bulk.inference.cpu", "bulk.inference.memory"))]
    return span


def usage(span: Any) -> tuple[Any, Any]:
    return span.attributes.get("gen_ai.usage.input_tokens"), span.attributes.get("gen_ai.usage.output_tokens")


def check_chat(span: Any) -> None:
    assert span.name == "chat mine"
    assert usage(span) == (4, 5)
    found = span.attributes
    assert found["gen_ai.provider.name"] == "llama_cpp", "its server says so in a header"
    assert found["gen_ai.request.max_tokens"] == 5
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    assert found["gen_ai.latency.time_in_model_prefill"] > 0
    assert found["gen_ai.latency.time_in_model_decode"] > 0
    assert span.status.status_code == StatusCode.UNSET


def test_a_whole_answer(telemetry: Telemetry, url: str) -> None:
    with httpx.Client(base_url=url) as client:
        answer = client.post("/v1/chat/completions", json=CHAT).json()
    assert answer["usage"]["completion_tokens"] == 5
    check_chat(only(telemetry))


async def test_async(telemetry: Telemetry, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        await client.post("/v1/chat/completions", json=CHAT)
    check_chat(only(telemetry))


def test_a_stream_ends_with_its_last_byte(telemetry: Telemetry, url: str) -> None:
    before = otel_context.get_current()
    with httpx.Client(base_url=url) as client, client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        assert otel_context.get_current() == before, "what follows is the caller's"
        assert telemetry.spans() == []
        lines = list(response.iter_lines())
    assert lines[-2:] == ["data: [DONE]", ""]
    span = only(telemetry)
    check_chat(span)
    assert 0 < span.attributes["gen_ai.latency.time_to_first_token"] <= (span.end_time - span.start_time) / 1e9


async def test_an_async_stream(telemetry: Telemetry, url: str) -> None:
    async with (
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=STREAM) as response,
    ):
        assert [line async for line in response.aiter_lines()]
    check_chat(only(telemetry))


def test_a_stream_that_is_closed_early(telemetry: Telemetry, url: str) -> None:
    body = {**STREAM, "max_tokens": 400, "timings_per_token": True}
    with httpx.Client(base_url=url) as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = (line for line in response.iter_lines() if line)
        for _ in range(3):
            next(lines)
    span = only(telemetry)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
    tokens_in, tokens_out = usage(span)
    assert tokens_in == 4
    assert 1 <= tokens_out < 400


def test_llama_servers_own_path(telemetry: Telemetry, url: str) -> None:
    httpx.post(f"{url}/completion", json={**PROMPT, "n_predict": 3}).raise_for_status()
    span = only(telemetry)
    assert span.name == "text_completion unknown"
    assert usage(span) == (4, 3)
    assert span.attributes["gen_ai.request.max_tokens"] == 3
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(telemetry: Telemetry, url: str, stream: bool) -> None:
    body = {"prompt": "a" * 1000, "max_tokens": 3, "stream": stream}
    assert httpx.post(f"{url}/v1/completions", json=body).status_code == 400
    span = only(telemetry)
    assert span.status.status_code == StatusCode.ERROR
    assert span.attributes["error.type"] == "exceed_context_size_error"
    assert span.attributes["bulk.failure.domain"] == "input"


def test_no_server(telemetry: Telemetry) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.post("http://127.0.0.1:9/v1/chat/completions", json=CHAT)
    span = only(telemetry)
    assert span.attributes["error.type"] == "httpx.ConnectError"
    assert span.attributes["bulk.failure.domain"] == "infra"


def test_the_text_is_nowhere(telemetry: Telemetry, url: str) -> None:
    messages = [{"role": "user", "content": "a secret prompt"}]
    httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "messages": messages})
    assert "secret" not in only(telemetry).to_json()


def test_other_requests_are_untouched(telemetry: Telemetry, url: str) -> None:
    httpx.get(f"{url}/health")
    httpx.post(f"{url}/tokenize", json={"content": "abc"})
    assert telemetry.spans() == []


# --- answers of servers that are not here, in the forms that their documentation gives -----------------


def answered(telemetry: Telemetry, path: str, body: dict[str, Any], answer: Any, status: int = 200) -> Any:
    parts = answer if isinstance(answer, list) else None

    class Parts(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from parts or ()

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, stream=Parts()) if parts else httpx.Response(status, json=answer)

    with httpx.Client(transport=httpx.MockTransport(handle), base_url="http://engine") as client:
        if parts:
            with client.stream("POST", path, json=body) as response:
                assert b"".join(response.iter_bytes()) == b"".join(parts)
        else:
            client.post(path, json=body)
    return only(telemetry)


def test_openais_stream_with_usage_cut_anywhere(telemetry: Telemetry) -> None:
    usage_said = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    events: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "é"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage_said},
    ]
    whole = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events) + "data: [DONE]\n\n"
    raw = whole.encode()
    span = answered(telemetry, "/v1/chat/completions", STREAM, [raw[n : n + 7] for n in range(0, len(raw), 7)])
    assert usage(span) == (9, 2)
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "gen_ai.latency.time_to_first_token" in span.attributes


def test_a_stream_that_does_not_say_has_no_tokens(telemetry: Telemetry) -> None:
    parts = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', b"data: [DONE]\n\n"]
    assert usage(answered(telemetry, "/v1/chat/completions", STREAM, parts)) == (None, None)


def test_ollama(telemetry: Telemetry) -> None:
    done = {"model": "m", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3,
            "prompt_eval_cached_count": 4, "prompt_eval_duration": 5_000_000, "eval_duration": 20_000_000}  # fmt: skip
    parts = [b'{"model": "m", "message": {"content": "a"}}\n', json.dumps(done).encode() + b"\n"]
    body = {"model": "m", "messages": [], "options": {"num_predict": 8}}
    span = answered(telemetry, "/api/chat", body, parts)
    assert (span.name, span.attributes["gen_ai.provider.name"]) == ("chat m", "ollama")
    assert usage(span) == (7, 3)
    assert span.attributes["gen_ai.request.max_tokens"] == 8
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert span.attributes["gen_ai.latency.time_in_model_prefill"] == 0.005
    assert span.attributes["bulk.inference.decode_tokens_per_second"] == 100


def test_the_responses_api(telemetry: Telemetry) -> None:
    answer = {"object": "response", "model": "m-1", "usage": {"input_tokens": 7, "output_tokens": 3}}
    span = answered(telemetry, "/v1/responses", {"model": "m", "input": "x"}, answer)
    assert (span.name, usage(span)) == ("chat m", (7, 3))
    assert span.attributes["gen_ai.response.model"] == "m-1"


def test_a_stream_of_the_responses_api(telemetry: Telemetry) -> None:
    events = [
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.completed", "response": {
            "object": "response", "status": "completed", "model": "m-1",
            "usage": {"input_tokens": 7, "output_tokens": 3}}},
    ]  # fmt: skip
    parts = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    span = answered(telemetry, "/v1/responses", {"model": "m", "stream": True}, parts)
    assert usage(span) == (7, 3)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_an_answer_that_is_read_as_a_stream_and_has_no_last_newline(telemetry: Telemetry) -> None:
    answer = {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    span = answered(telemetry, "/v1/chat/completions", CHAT, [json.dumps(answer).encode()])
    assert usage(span) == (4, 2)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


@pytest.mark.parametrize(
    ("status", "domain"),
    [(400, "input"), (401, "code"), (404, "code"), (408, "timeout"), (422, "input"), (429, "infra"), (500, "model"),
     (502, "infra"), (503, "infra"), (504, "timeout")],
)  # fmt: skip
def test_failures_by_status(telemetry: Telemetry, status: int, domain: str) -> None:
    span = answered(telemetry, "/v1/chat/completions", CHAT, {"detail": "no"}, status)
    assert (span.attributes["error.type"], span.attributes["bulk.failure.domain"]) == (str(status), domain)


@pytest.mark.parametrize(
    "answer",
    [[1], {"choices": None, "usage": None}, {"choices": [{}], "usage": {"prompt_tokens": None}}, {"error": "text"}, {}],
)
def test_odd_answers_break_nothing(telemetry: Telemetry, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer)

    with httpx.Client(transport=httpx.MockTransport(handle)) as client:
        assert client.post("http://engine/v1/chat/completions", json=CHAT).json() == answer
    assert only(telemetry).attributes["gen_ai.request.model"] == "mine"
    assert "could not record" not in caplog.text


def test_a_body_that_is_no_json(telemetry: Telemetry) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="fine")

    with httpx.Client(transport=httpx.MockTransport(handle)) as client:
        assert client.post("http://engine/v1/completions", content=b"\xff not json").text == "fine"
    assert only(telemetry).name == "text_completion unknown"


async def test_a_body_that_is_a_stream_is_not_read(telemetry: Telemetry) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{}"

    async def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=await request.aread())

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        assert (await client.post("http://engine/v1/completions", content=body())).content == b"{}"
    assert telemetry.spans() == []


def test_a_stream_that_breaks(telemetry: Telemetry) -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
            raise httpx.ReadError("gone")

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Broken()))
    with httpx.Client(transport=transport) as client, pytest.raises(httpx.ReadError, match="gone"):
        client.post("http://engine/v1/chat/completions", json=STREAM)
    assert only(telemetry).attributes["error.type"] == "httpx.ReadError"


def test_faults_of_ours_reach_nobody(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_llm_call, "Call", None)
        assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(_llm_answers, "read", None)
        assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 200
    assert [span.name for span in telemetry.spans()] == ["chat mine"]
