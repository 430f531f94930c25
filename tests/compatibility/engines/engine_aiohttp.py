"""aiohttp against llama.cpp's real server; run by ``test_engines.py`` in an environment that has both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.trace import SpanKind

from bulkscope_instrumentation.aiohttp import AiohttpInstrumentor
from tests.compatibility.engines import behind_http
from tests.telemetry import Telemetry, telemetry
from tests.tiny_server import LETTERS, serve

ASKED: dict[str, Any] = {
    "model": "mine", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 5, "logit_bias": LETTERS,
    "cache_prompt": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serve(tmp_path_factory.mktemp("models") / "tiny.gguf")
    yield f"{server.listening_address}/v1/chat/completions"
    del server


@pytest.fixture
def recorded() -> Iterator[Telemetry]:
    found = telemetry()
    found.clear()
    instrumentor = AiohttpInstrumentor()
    instrumentor.instrument()
    yield found
    instrumentor.uninstrument()


def check(recorded: Telemetry) -> None:
    (span,) = recorded.spans()
    assert (span.name, span.kind) == ("chat mine", SpanKind.CLIENT)
    found = span.attributes
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (4, 5)
    assert found["gen_ai.response.finish_reasons"] == ("length",)


async def asked(url: str, body: dict[str, Any]) -> list[bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return [line async for line in response.content]


def test_a_chat(recorded: Telemetry, url: str) -> None:
    assert b'"completion_tokens":5' in b"".join(asyncio.run(asked(url, ASKED)))
    check(recorded)


def test_a_stream(recorded: Telemetry, url: str) -> None:
    assert b"data: [DONE]\n" in asyncio.run(asked(url, {**ASKED, "stream": True}))
    check(recorded)


def test_a_server_in_another_process(recorded: Telemetry, tmp_path: Path) -> None:
    def ask(url: str) -> None:
        asyncio.run(asked(f"{url}/v1/chat/completions", {**ASKED, "max_tokens": 300}))

    behind_http.check(recorded, tmp_path / "tiny.gguf", ask)
