"""requests (urllib3) against llama.cpp's real server; run by ``test_engines.py`` where both are installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from bulkscope_instrumentation.urllib3 import Urllib3Instrumentor
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
    with behind_http.recording(Urllib3Instrumentor()) as found:
        yield found


def test_a_chat(recorded: Telemetry, url: str) -> None:
    assert requests.post(url, json=ASKED, timeout=60).json()["usage"]["completion_tokens"] == 5
    check_chat(recorded)


def test_a_stream(recorded: Telemetry, url: str) -> None:
    with requests.post(url, json={**ASKED, "stream": True}, stream=True, timeout=60) as response:
        assert b"data: [DONE]" in list(response.iter_lines())
    check_chat(recorded)


def test_a_server_in_another_process(recorded: Telemetry, tmp_path: Path) -> None:
    def ask(url: str) -> None:
        requests.post(f"{url}/v1/chat/completions", json={**ASKED, "max_tokens": 300}, timeout=60).raise_for_status()

    behind_http.check(recorded, tmp_path / "tiny.gguf", ask)
