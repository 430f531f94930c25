"""The engine behind HTTP: whether its process can be seen from here, so that its CPU and memory are measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bulkscope._doctor.findings import OK, WARNING, Finding
from bulkscope._export.otlp_http import printable
from bulkscope._host import processes, sockets

SUBJECT = "engine"
# Where clients' libraries are told of a server, and the port that each assumes.
_VARIABLES = {"OPENAI_BASE_URL": 443, "OPENAI_API_BASE": 443, "ANTHROPIC_BASE_URL": 443, "OLLAMA_HOST": 11434}
_OLLAMA = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class Engine:
    """A server of a model; ``unseen`` says why its process is not, empty where it is."""

    shown: str
    process: str = ""
    unseen: str = ""


def _addresses(url: str) -> Iterator[tuple[str, int]]:
    """Yield the addresses that are named, and the port to assume."""
    if url:
        yield url, 80
    for name, port in _VARIABLES.items():
        if value := os.environ.get(name, "").strip():
            yield value, port


def _seen(url: str, port: int) -> Engine:
    url = url if "//" in url else f"http://{url}"
    shown = printable(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" and port == 443 else port)
    except ValueError:
        return Engine(shown, unseen="it is no address: write it as http://HOST:PORT")
    try:
        # What a server listens on, a client calls by the loopback address.
        pid = sockets.listener("127.0.0.1" if host == "0.0.0.0" else host, port)
    except sockets.Unseen as error:
        return Engine(shown, unseen=str(error))
    return Engine(shown, f"process {pid} ({processes.command(Path('/proc'), pid) or 'of no name'})")


def engines(url: str) -> list[Engine]:
    """Return the engines that ``url`` and the variables name, and Ollama where it listens at its usual port."""
    found = [_seen(address, port) for address, port in _addresses(url)]
    ollama = _seen(_OLLAMA, 11434)
    return list(dict.fromkeys([*found, *([ollama] if ollama.process else [])]))


def findings(found: list[Engine]) -> list[Finding]:
    """Return a line for each engine."""
    return [
        Finding(SUBJECT, OK, f"{engine.shown}: {engine.process}, whose CPU and memory are measured around each call")
        if engine.process
        else Finding(
            SUBJECT, WARNING, f"{engine.shown}: {engine.unseen}; CPU and RAM of its inferences are absent",
            "run it on this machine, under the service's user and in its container, where these are wanted",
        )
        for engine in found
    ]  # fmt: skip
