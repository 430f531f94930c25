"""One request to a server of language models, whichever HTTP client sends it: its span, and what its answer says.

A client's module says where a request goes and what it and its answer hold; which paths are a model's, and what is
read of an answer, whole or in parts, is here.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from bulkscope._jobs.inferences import Inference
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _llm_answers as answers

# The end of the path, longest first, and what it asks for.
_OPERATIONS = (
    ("/chat/completions", "chat"), ("/api/embeddings", "embeddings"), ("/api/generate", "text_completion"),
    ("/completions", "text_completion"), ("/v1/messages", "chat"), ("/embeddings", "embeddings"),
    ("/completion", "text_completion"), ("/api/embed", "embeddings"), ("/responses", "chat"), ("/api/chat", "chat"),
    ("/embedding", "embeddings"),
)  # fmt: skip
_OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
# Nothing else has these.
_SURE = ("/completions", "/v1/messages")
# What a request to a model holds, one of them at least.
_ASKED = ("model", "messages", "prompt", "input", "content")
# A longer body is sent as it is, and the model is not looked for in it; a longer answer is not read.
_MAX_BODY = 16 * 1024**2
_PORTS = {"http": 80, "https": 443}
_sending: ContextVar[bool] = ContextVar("bulkscope-llm-call", default=False)


class Call:
    """A request that has begun: what it asks for, and what is learnt from its answer."""

    def __init__(self, operation: str, url: str, body: Mapping[str, Any]) -> None:
        options = body.get("options")
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        limit = limit or body.get("n_predict") or (options.get("num_predict") if isinstance(options, dict) else None)
        asked = urlsplit(url)
        port = asked.port or _PORTS.get(asked.scheme)
        self.inference = Inference(
            model=str(body.get("model") or "unknown"),
            provider=_provider(asked.path),
            operation=operation,
            max_tokens=answers.limit(limit),
            remote=True,
            endpoint=(asked.hostname, port) if asked.hostname and port else None,
        )
        self._rest = bytearray()
        self._whole = False
        self._readable = False
        self.ended = False
        self.inference.start()
        _sending.set(True)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Stand around the sending of the request: its failure is the span's."""
        try:
            yield
        except BaseException as error:
            self.finish(error)
            raise

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Stand around what is done with the answer's head; a failure of that is ours, and ends the span.

        What the caller does from here on is not the call's.
        """
        try:
            _sending.set(False)
            self.inference.release()
            yield
        except Exception:
            report("the answer of a language model")
            self.finish()

    @guarded
    def whole(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Read an answer that is there as a whole, unpacked."""
        self._headers(headers)
        answer = answers.mapping(content)
        for part in [answer] if answer else map(_event, content.splitlines()):  # of a stream that was read to its end
            if part:
                answers.read(part, self.inference)
        if status >= 400:
            self.inference.fail(*answers.failure(status, answer))

    @guarded
    def begun(self, status: int, headers: Mapping[str, str], packed: bool = True) -> None:
        """Read the head of an answer whose parts follow; ``packed``: as they came, and a compressed one is not read.

        One that is no stream is parsed when it has come to its end: its parts are no lines.
        """
        self._headers(headers)
        if status >= 400:
            self.inference.fail(*answers.failure(status, {}))
        self._readable = not packed or headers.get("content-encoding", "identity") == "identity"
        self._whole = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

    def _headers(self, headers: Mapping[str, str]) -> None:
        if headers.get("server", "").lower().startswith("llama.cpp"):
            self.inference.answered_by("llama_cpp")

    @guarded
    def part(self, data: bytes) -> None:
        """Read a part of an answer: lines of server-sent events, or of JSON."""
        if not self._readable:
            return
        self._rest += data
        if len(self._rest) > _MAX_BODY:
            self._readable = False
            self._rest.clear()
        elif not self._whole and b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._read(line)

    def _read(self, line: bytes) -> None:
        chunk = _event(line)
        if chunk:
            if self.inference.ttft is None and not self._whole and answers.has_text(chunk):
                self.inference.ttft = self.inference.elapsed()
            answers.read(chunk, self.inference)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Stand around the reading of a stream: its end or its failure is the span's.

        One that is left early (GeneratorExit) has its span ended by ``closed``.
        """
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            self.finish(error)
            raise
        self.complete()

    def complete(self) -> None:
        """End the span of an answer of which the last part has come."""
        if not self.ended:
            self._last()
            self.finish()

    @guarded
    def _last(self) -> None:
        if self._readable:
            self._read(bytes(self._rest))  # without a line's end

    def finish(self, error: BaseException | None = None) -> None:
        """End the span, once."""
        if not self.ended:
            self.ended = True
            if error is not None:
                _sending.set(False)
            self.inference.finish(error)

    def close_with(self, owner: object) -> None:
        """End the span when nobody has ``owner`` any more, whom nobody has closed."""
        weakref.finalize(owner, self.closed).atexit = False

    def closed(self) -> None:
        """End the span of a stream that is closed, whether it came to its end or not."""
        if not self.ended:
            self._last()
        if not self.ended and self.inference.finish_reason is None and self.inference.error is None:
            self.inference.finish_reason = "cancelled"
        self.finish()


def _event(line: bytes) -> Mapping[str, Any]:
    """Return the object that a line of a stream holds: of server-sent events, or of JSON; else an empty one."""
    return answers.mapping(line.removeprefix(b"data:").strip())


def begin(method: str, url: str, content: object) -> Call | None:
    """Return the call that a request begins; None for one that asks no model, or whose body is not there as a whole.

    One client may send by another one (litellm's httpx by aiohttp), or anew after a failure: that is one call.
    """
    try:
        if method.upper() != "POST" or _sending.get():
            return None
        path = urlsplit(url).path
        operation = next((found for end, found in _OPERATIONS if path.endswith(end)), None)
        if operation is None or not isinstance(content, bytes | str | Mapping):
            return None
        whole = isinstance(content, Mapping) or len(content) <= _MAX_BODY
        body = answers.mapping(content) if whole else {}
        if not path.endswith(_SURE) and body.keys().isdisjoint(_ASKED):
            return None  # a form, say, of a service that has such a path too
        return Call(operation, url, body)
    except Exception:
        report("a request to a language model")
        return None


def _provider(path: str) -> str:
    return "ollama" if path.endswith(_OLLAMA) else "anthropic" if path.endswith("/v1/messages") else "openai"
