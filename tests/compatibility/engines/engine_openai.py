"""The openai package against llama.cpp's real server; run by ``test_engines.py`` in an environment that has both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.trace import SpanKind

from bulkscope_instrumentation.openai import OpenaiInstrumentor
from tests.compatibility.engines import behind_http
from tests.telemetry import Telemetry, telemetry
from tests.tiny_server import LETTERS, serve


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serve(tmp_path_factory.mktemp("models") / "tiny.gguf")
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def recorded() -> Iterator[Telemetry]:
    found = telemetry()
    found.clear()
    instrumentor = OpenaiInstrumentor()
    instrumentor.instrument()
    yield found
    instrumentor.uninstrument()


def check(recorded: Telemetry, output: int) -> Any:
    (span,) = recorded.spans()
    assert (span.name, span.kind) == ("chat mine", SpanKind.CLIENT)
    found = span.attributes
    assert found["gen_ai.provider.name"] == "llama_cpp"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (4, output)
    return span


ASKED: dict[str, Any] = {
    "model": "mine", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 5,
    "logit_bias": LETTERS,
    "extra_body": {"cache_prompt": False},
}  # fmt: skip


def test_a_chat(recorded: Telemetry, url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none") as client:
        answer = client.chat.completions.create(**ASKED)
    assert answer.usage is not None
    check(recorded, answer.usage.completion_tokens)


async def test_an_async_chat(recorded: Telemetry, url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        await client.chat.completions.create(**ASKED)
    check(recorded, 5)


def test_a_stream(recorded: Telemetry, url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none") as client:
        for _ in client.chat.completions.create(**ASKED, stream=True):
            pass
    span = check(recorded, 5)
    assert span.attributes["gen_ai.latency.time_to_first_token"] > 0
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)


async def test_an_async_stream(recorded: Telemetry, url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        async for _ in await client.chat.completions.create(**ASKED, stream=True):
            pass
    check(recorded, 5)


def test_an_error_and_its_retries_are_seen(recorded: Telemetry, url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "a" * 1000}])
    (span,) = recorded.spans()
    assert span.attributes["bulk.failure.domain"] == "input"


def test_a_server_in_another_process(recorded: Telemetry, tmp_path: Path) -> None:
    def ask(url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            client.chat.completions.create(**{**ASKED, "max_tokens": 300})

    behind_http.check(recorded, tmp_path / "tiny.gguf", ask)
