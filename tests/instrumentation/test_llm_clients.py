"""requests, urllib3 and aiohttp asking llama.cpp's real server, and answers that are cut, packed or left."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope_instrumentation import _llm_answers, _llm_call
from bulkscope_instrumentation.aiohttp import AiohttpInstrumentor
from bulkscope_instrumentation.openai import OpenaiInstrumentor
from bulkscope_instrumentation.urllib3 import Urllib3Instrumentor
from tests.telemetry import Telemetry
from tests.tiny_server import LETTERS, serve

CHAT = {"model": "mine", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 5, "cache_prompt": False,
        "logit_bias": LETTERS}  # fmt: skip
STREAM = {**CHAT, "stream": True}
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serve(tmp_path_factory.mktemp("models") / "tiny.gguf")
    yield server.listening_address
    del server


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentors = (OpenaiInstrumentor(), Urllib3Instrumentor(), AiohttpInstrumentor())
    for one in instrumentors:
        one.instrument()
    yield
    for one in instrumentors:
        one.uninstrument()


def by_requests(url: str, body: Any) -> bytes:
    return requests.post(url, json=body, timeout=60).content


def by_requests_stream(url: str, body: Any) -> bytes:
    with requests.post(url, json=body, stream=True, timeout=60) as response:
        return b"".join(response.iter_content(7))


def by_requests_lines(url: str, body: Any) -> bytes:
    with requests.post(url, json=body, stream=True, timeout=60) as response:
        return b"\n".join(response.iter_lines()) + b"\n"


def by_requests_raw(url: str, body: Any) -> bytes:
    with requests.post(url, json=body, stream=True, timeout=60) as response:
        return b"".join(iter(lambda: response.raw.read(11, decode_content=True), b""))


def by_urllib3(url: str, body: Any) -> bytes:
    with urllib3.PoolManager() as pool:
        found: bytes = pool.request("POST", url, body=json.dumps(body)).data
        return found


def by_urllib3_stream(url: str, body: Any) -> bytes:
    with urllib3.PoolManager() as pool:
        response = pool.request("POST", url, body=json.dumps(body).encode(), preload_content=False)
        return b"".join(response.stream(13, decode_content=True))


def of_aiohttp(read: Callable[[aiohttp.ClientResponse], Any]) -> Callable[[str, Any], bytes]:
    def ask(url: str, body: Any) -> bytes:
        async def run() -> bytes:
            async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
                found: bytes = await read(response)
                return found

        return asyncio.run(run())

    return ask


async def joined(parts: Any) -> bytes:
    return b"".join([part[0] if isinstance(part, tuple) else part async for part in parts])


READERS = {
    "requests": by_requests,
    "requests, a stream": by_requests_stream,
    "requests, lines": by_requests_lines,
    "requests, raw": by_requests_raw,
    "urllib3": by_urllib3,
    "urllib3, a stream": by_urllib3_stream,
    "aiohttp": of_aiohttp(lambda response: response.read()),
    "aiohttp, lines": of_aiohttp(lambda response: joined(response.content)),
    "aiohttp, any": of_aiohttp(lambda response: joined(response.content.iter_any())),
    "aiohttp, chunked": of_aiohttp(lambda response: joined(response.content.iter_chunked(9))),
    "aiohttp, chunks": of_aiohttp(lambda response: joined(response.content.iter_chunks())),
}
ASKING = pytest.mark.parametrize("ask", READERS.values(), ids=READERS)


def only(telemetry: Telemetry) -> Any:
    (span,) = telemetry.spans()
    assert span.kind == SpanKind.CLIENT
    return span


def usage(span: Any) -> tuple[Any, Any]:
    return span.attributes.get("gen_ai.usage.input_tokens"), span.attributes.get("gen_ai.usage.output_tokens")


@ASKING
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "events"])
def test_tokens_times_and_model(
    telemetry: Telemetry, url: str, ask: Callable[[str, Any], bytes], body: dict[str, Any]
) -> None:
    before = otel_context.get_current()
    answer = ask(url + PATH, body)
    assert otel_context.get_current() == before
    assert (b"[DONE]" in answer) == ("stream" in body)
    span = only(telemetry)
    assert span.name == "chat mine"
    assert usage(span) == (4, 5)
    assert span.attributes["gen_ai.provider.name"] == "llama_cpp"
    assert span.attributes["gen_ai.request.max_tokens"] == 5
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert span.attributes["gen_ai.latency.time_in_model_decode"] > 0
    assert span.status.status_code == StatusCode.UNSET


class Answers(BaseHTTPRequestHandler):
    """Answers as its server is told to: status, headers, body, and whether in chunks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, parts = self.server.said  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def said() -> Iterator[Callable[..., str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(parts: list[bytes], status: int = 200, **headers: str) -> str:
        server.said = (  # type: ignore[attr-defined]
            status, {name.replace("_", "-"): value for name, value in headers.items()}, parts,
        )  # fmt: skip
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield answer
    server.shutdown()
    server.server_close()


EVENTS = (
    b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n'
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)


@ASKING
def test_a_packed_stream(telemetry: Telemetry, said: Callable[..., str], ask: Callable[[str, Any], bytes]) -> None:
    base = said([gzip.compress(EVENTS)], content_encoding="gzip", content_type="text/event-stream")
    assert ask(base + PATH, STREAM).strip() == EVENTS.strip()
    span = only(telemetry)
    assert usage(span) == (9, 2)
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_a_packed_stream_that_is_handed_out_packed_is_not_read(telemetry: Telemetry, said: Callable[..., str]) -> None:
    base = said([gzip.compress(EVENTS)], content_encoding="gzip", content_type="text/event-stream")

    async def run() -> bytes:
        async with aiohttp.ClientSession(auto_decompress=False) as session, session.post(base + PATH, json={}) as found:
            return await found.read()

    assert gzip.decompress(asyncio.run(run())) == EVENTS
    assert usage(only(telemetry)) == (None, None)


@ASKING
@pytest.mark.parametrize(("status", "domain"), [(400, "input"), (404, "code"), (503, "infra"), (500, "model")])
def test_failures(
    telemetry: Telemetry, said: Callable[..., str], ask: Callable[[str, Any], bytes], status: int, domain: str
) -> None:
    answer = {"error": {"type": "no", "code": status}}
    base = said([json.dumps(answer).encode()], status, content_type="application/json")
    assert json.loads(ask(base + PATH, CHAT)) == answer
    span = only(telemetry)
    assert (span.attributes["error.type"], span.attributes["bulk.failure.domain"]) == ("no", domain)


def test_streams_that_are_left_early(telemetry: Telemetry, url: str) -> None:
    body = {**STREAM, "max_tokens": 400, "timings_per_token": True}
    with requests.post(url + PATH, json=body, stream=True, timeout=60) as response:
        next(response.iter_lines())

    async def run() -> None:
        async with aiohttp.ClientSession() as session, session.post(url + PATH, json=body) as response:
            await response.content.readline()

    asyncio.run(run())
    requests.post(url + PATH, json=body, stream=True, timeout=60)  # and nobody closes it
    gc.collect()
    spans = telemetry.spans()
    assert [span.attributes["gen_ai.response.finish_reasons"] for span in spans] == [("cancelled",)] * 3


def test_an_answer_that_aiohttp_is_left_with_ends_its_span(telemetry: Telemetry, said: Callable[..., str]) -> None:
    base = said([b"{}"], 503, content_type="application/json")

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            response = await session.post(base + PATH, json=CHAT)
            assert response.status == 503
            await asyncio.sleep(0.1)

    asyncio.run(run())
    gc.collect()
    assert only(telemetry).attributes["error.type"] == "503"


def test_a_form_on_such_a_path_is_no_inference(telemetry: Telemetry, said: Callable[..., str]) -> None:
    base = said([b"fine"])
    assert requests.post(base + "/v1/responses", data={"answer": "1"}, timeout=5).content == b"fine"
    assert requests.post(base + "/embedding", json={"other": 1}, timeout=5).content == b"fine"
    assert telemetry.spans() == []


def test_no_server(telemetry: Telemetry) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.post("http://127.0.0.1:9" + PATH, json=CHAT, timeout=5)
    with pytest.raises(urllib3.exceptions.MaxRetryError), urllib3.PoolManager(retries=2) as pool:
        pool.request("POST", "http://127.0.0.1:9" + PATH, body=json.dumps(CHAT))

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await session.post("http://127.0.0.1:9" + PATH, json=CHAT)

    with pytest.raises(aiohttp.ClientConnectorError):
        asyncio.run(run())
    spans = telemetry.spans()
    assert len(spans) == 3, "what is tried again is one call"
    assert {span.attributes["bulk.failure.domain"] for span in spans} == {"infra"}


def test_a_connection_that_breaks(telemetry: Telemetry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                taken, _address = server.accept()
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ndata: {}\n\n")
                taken.close()

        threading.Thread(target=answer, daemon=True).start()
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            by_requests(base + PATH, STREAM)
        with pytest.raises(aiohttp.ClientPayloadError):
            READERS["aiohttp"](base + PATH, STREAM)
    spans = telemetry.spans()
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 2


def test_a_response_looks_as_before(telemetry: Telemetry, url: str) -> None:
    with urllib3.PoolManager() as pool:
        response = pool.request("POST", url + PATH, body=json.dumps(CHAT), preload_content=False)
        assert isinstance(response, urllib3.HTTPResponse)
        assert repr(type(response)) == repr(urllib3.HTTPResponse)
        assert response.json()["usage"]["completion_tokens"] == 5
    assert usage(only(telemetry)) == (4, 5)


def test_what_is_no_model_is_untouched(telemetry: Telemetry, said: Callable[..., str]) -> None:
    base = said([b"fine"])
    assert by_requests(base + "/other", {}) == b"fine"
    assert READERS["aiohttp"](base + "/other", {}) == b"fine"
    assert requests.post(base + PATH, data=iter([b"{}"]), timeout=5, headers={"content-length": "2"}).content == b"fine"
    assert telemetry.spans() == []


def test_one_client_over_another_is_one_call(telemetry: Telemetry, url: str) -> None:
    class Transport(httpx.BaseTransport):
        """As litellm sends by aiohttp under httpx."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, content=by_urllib3(str(request.url), json.loads(request.content)))

    with httpx.Client(transport=Transport()) as client:
        client.post(url + PATH, json=CHAT)
        client.post(url + PATH, json=CHAT)
    by_urllib3(url + PATH, CHAT)
    assert [usage(span) for span in telemetry.spans()] == [(4, 5)] * 3


def test_faults_of_ours_reach_nobody(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for module, name in ((_llm_call, "Call"), (_llm_answers, "read"), (_llm_call, "begin")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, None)
            for ask in READERS.values():
                assert b"usage" in ask(url + PATH, CHAT)


@pytest.mark.parametrize(
    ("path", "name", "answer", "tokens"),
    [
        ("/v1/embeddings", "embeddings m", {"object": "list", "usage": {"prompt_tokens": 6}}, (6, None)),
        ("/api/embed", "embeddings m", {"model": "m", "prompt_eval_count": 8}, (8, None)),
        ("/v1/messages", "chat m", {"type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
         "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 1,
         "output_tokens": 3}}, (13, 3)),
    ],
)  # fmt: skip
def test_other_paths(
    telemetry: Telemetry, said: Callable[..., str], path: str, name: str, answer: Any, tokens: tuple[Any, Any]
) -> None:
    base = said([json.dumps(answer).encode()], content_type="application/json")
    by_requests(base + path, {"model": "m", "input": "x"})
    span = only(telemetry)
    assert (span.name, usage(span)) == (name, tokens)
    if path == "/v1/messages":
        assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 7
        assert span.attributes["gen_ai.response.finish_reasons"] == ("end_turn",)


# The first token of a stream is whatever the model generates first; one chunk each, after one that brings nothing.
FIRST = {
    "reasoning of llama-server and vLLM": (PATH, {"choices": [{"delta": {"reasoning_content": "a"}}]}),
    "reasoning of OpenRouter": (PATH, {"choices": [{"delta": {"reasoning": "a"}}]}),
    "a tool": (PATH, {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]}),
    "Ollama's thinking in a chat": ("/api/chat", {"message": {"content": "", "thinking": "a"}}),
    "Ollama's thinking": ("/api/generate", {"response": "", "thinking": "a"}),
    "Ollama's tool": ("/api/chat", {"message": {"content": "", "tool_calls": [{}]}}),
    "reasoning of the responses API": ("/v1/responses", {"type": "response.reasoning_text.delta", "delta": "a"}),
    "a tool of the responses API": ("/v1/responses", {"type": "response.function_call_arguments.delta", "delta": "a"}),
    "Anthropic": (
        "/v1/messages",
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "a"}},
    ),
}
NOTHING = {PATH: {"choices": [{"delta": {"role": "assistant"}}]}, "/api/chat": {"message": {"content": ""}},
           "/api/generate": {"response": ""}, "/v1/responses": {"type": "response.created", "response": {}},
           "/v1/messages": {"type": "message_start", "message": {"content": []}}}  # fmt: skip


@pytest.mark.parametrize(("path", "chunk"), FIRST.values(), ids=FIRST)
def test_the_first_token_of_a_stream(telemetry: Telemetry, said: Callable[..., str], path: str, chunk: Any) -> None:
    lines = [f"data: {json.dumps(one)}\n\n".encode() for one in (NOTHING[path], chunk)]
    by_requests_stream(said(lines[:1]) + path, {"model": "m"})
    by_requests_stream(said(lines) + path, {"model": "m"})
    nothing, something = telemetry.spans()
    assert "gen_ai.latency.time_to_first_token" not in nothing.attributes
    assert "gen_ai.latency.time_to_first_token" in something.attributes
