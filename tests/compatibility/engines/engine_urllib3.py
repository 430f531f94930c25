"""requests (urllib3) against llama.cpp's real server; run by ``test_engines.py`` where both are installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.trace import SpanKind

from bulkscope_instrumentation.urllib3 import Urllib3Instrumentor
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
    instrumentor = Urllib3Instrumentor()
    instrumentor.instrument()
    yield found
    instrumentor.uninstrument()


def check(recorded: Telemetry) -> None:
    (span,) = recorded.spans()
    assert (span.name, span.kind) == ("chat mine", SpanKind.CLIENT)
    found = span.attributes
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (4, 5)
    assert found["gen_ai.response.finish_reasons"] == ("length",)


def test_a_chat(recorded: Telemetry, url: str) -> None:
    assert requests.post(url, json=ASKED, timeout=60).json()["usage"]["completion_tokens"] == 5
    check(recorded)


def test_a_stream(recorded: Telemetry, url: str) -> None:
    with requests.post(url, json={**ASKED, "stream": True}, stream=True, timeout=60) as response:
        assert b"data: [DONE]" in list(response.iter_lines())
    check(recorded)


def test_a_server_in_another_process(recorded: Telemetry, tmp_path: Path) -> None:
    def ask(url: str) -> None:
        requests.post(f"{url}/v1/chat/completions", json={**ASKED, "max_tokens": 300}, timeout=60).raise_for_status()

    behind_http.check(recorded, tmp_path / "tiny.gguf", ask)
