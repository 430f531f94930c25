"""aiohttp against llama.cpp's real server; run by ``test_engines.py`` in an environment that has both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bulkscope_instrumentation.aiohttp import AiohttpInstrumentor
from tests.compatibility.engines import behind_http
from tests.compatibility.engines.behind_http import ASKED, check_chat
from tests.telemetry import Telemetry
from tests.tiny_server import serve


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serve(tmp_path_factory.mktemp("models") / "tiny.gguf")
    yield f"{server.listening_address}/v1/chat/completions"
    del server


@pytest.fixture
def recorded() -> Iterator[Telemetry]:
    with behind_http.recording(AiohttpInstrumentor()) as found:
        yield found


async def asked(url: str, body: dict[str, Any]) -> list[bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return [line async for line in response.content]


def test_a_chat(recorded: Telemetry, url: str) -> None:
    assert b'"completion_tokens":5' in b"".join(asyncio.run(asked(url, ASKED)))
    check_chat(recorded)


def test_a_stream(recorded: Telemetry, url: str) -> None:
    assert b"data: [DONE]\n" in asyncio.run(asked(url, {**ASKED, "stream": True}))
    check_chat(recorded)


def test_a_server_in_another_process(recorded: Telemetry, tmp_path: Path) -> None:
    def ask(url: str) -> None:
        asyncio.run(asked(f"{url}/v1/chat/completions", {**ASKED, "max_tokens": 300}))

    behind_http.check(recorded, tmp_path / "tiny.gguf", ask)
