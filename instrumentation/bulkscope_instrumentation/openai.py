"""OpenAI-compatible servers (llama-server, vLLM, Ollama, OpenAI): an inference span for each request.

Seen where ``httpx`` and ``httpx2`` send, which the ``openai`` and ``ollama`` packages send with, so that a
request made by hand is seen too. The span is of kind CLIENT: the engine is another process. Where that is one of this
machine, its CPU and memory are measured around the call (``_host.engine``), else they are absent. Tokens and times are
what the server answers; a stream that does not say how many tokens it had (``stream_options={"include_usage": True}``
asks for it) has none recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.inferences import Inference
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _llm_answers as answers

# The end of the path, longest first, and what it asks for.
_OPERATIONS = (
    ("/chat/completions", "chat"), ("/api/generate", "text_completion"), ("/api/chat", "chat"),
    ("/completions", "text_completion"), ("/completion", "text_completion"), ("/responses", "chat"),
)  # fmt: skip
# A longer body is sent as it is, and the model is not looked for in it.
_MAX_BODY = 16 * 1024**2


class OpenaiInstrumentor(Instrumentor):
    """Instruments httpx 0.24 and later, and httpx2."""

    module = "httpx"
    other_modules = ("httpx2",)
    name = "openai"

    def patch(self, module: ModuleType) -> None:
        """Wrap both clients' ``send``."""
        self.wrap(module.Client, "send", _sending(_stream_class(module.SyncByteStream)))
        self.wrap(module.AsyncClient, "send", _sending_async(_async_stream_class(module.AsyncByteStream)))


class _Call:
    """One request: what it asks for, and what is learnt from its answer."""

    def __init__(self, operation: str, request: Any) -> None:
        body = answers.mapping(request.content) if len(request.content) <= _MAX_BODY else {}
        options = body.get("options")
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        limit = limit or body.get("n_predict") or (options.get("num_predict") if isinstance(options, dict) else None)
        self.inference = Inference(
            model=str(body.get("model") or "unknown"),
            provider="ollama" if "/api/" in request.url.path else "openai",
            operation=operation,
            max_tokens=answers.limit(limit),
            remote=True,
            endpoint=_endpoint(request.url),
        )
        self._rest = b""
        self.ended = False
        self._readable = False
        self.inference.start()

    @guarded
    def whole(self, response: Any) -> None:
        """Read an answer that is there as a whole."""
        self._headers(response)
        answer = answers.mapping(response.content)
        answers.read(answer, self.inference)
        if response.status_code >= 400:
            self.inference.fail(*answers.failure(response.status_code, answer))

    @guarded
    def headers(self, response: Any) -> None:
        """Read the head of a stream, and whether what follows can be read too."""
        self._headers(response)
        if response.status_code >= 400:
            self.inference.fail(*answers.failure(response.status_code, {}))
        self._readable = response.headers.get("content-encoding", "identity") == "identity"

    def _headers(self, response: Any) -> None:
        if response.headers.get("server", "").lower().startswith("llama.cpp"):
            self.inference.answered_by("llama_cpp")

    @guarded
    def part(self, data: bytes) -> None:
        """Read a part of a stream: lines of server-sent events, or of JSON; a compressed one passes unread."""
        if not self._readable:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            chunk = answers.mapping(line.removeprefix(b"data:").strip())
            if chunk:
                if self.inference.ttft is None and answers.has_text(chunk):
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
        self.part(b"\n")  # what is left without a line's end
        self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        """End the span, once."""
        if not self.ended:
            self.ended = True
            self.inference.finish(error)

    def closed(self) -> None:
        """End the span of a stream that is closed, whether it came to its end or not."""
        if not self.ended and self.inference.finish_reason is None and self.inference.error is None:
            self.inference.finish_reason = "cancelled"
        self.finish()


def _endpoint(url: Any) -> tuple[str, int] | None:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return None if port is None or not url.host else (url.host, port)


def _call(request: Any) -> _Call | None:
    try:
        if request.method != "POST":
            return None
        operation = next((found for end, found in _OPERATIONS if request.url.path.endswith(end)), None)
        if operation is None or not isinstance(getattr(request, "_content", None), bytes):
            return None
        return _Call(operation, request)
    except Exception:
        report("a request to a language model")
        return None


def _answered(call: _Call, response: Any, stream: bool, tap: Callable[..., Any]) -> None:
    call.inference.release()
    if not stream:
        call.whole(response)
        call.finish()
    else:
        call.headers(response)
        response.stream = tap(response.stream, call)


def _sending(tap: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        call = _call(args[0] if args else kwargs.get("request"))
        if call is None:
            return wrapped(*args, **kwargs)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            call.finish(error)
            raise
        guarded(_answered)(call, response, bool(kwargs.get("stream")), tap)
        return response

    return wrapper


def _sending_async(tap: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        call = _call(args[0] if args else kwargs.get("request"))
        if call is None:
            return await wrapped(*args, **kwargs)
        try:
            response = await wrapped(*args, **kwargs)
        except BaseException as error:
            call.finish(error)
            raise
        guarded(_answered)(call, response, bool(kwargs.get("stream")), tap)
        return response

    return wrapper


def _stream_class(base: type) -> Callable[..., Any]:
    class Tapped(base):  # type: ignore[misc]
        """The response's stream, read on its way to whoever reads it."""

        def __init__(self, stream: Any, call: _Call) -> None:
            self._stream, self._call = stream, call

        def __iter__(self) -> Iterator[bytes]:
            with self._call.reading():
                for part in self._stream:
                    self._call.part(part)
                    yield part

        def close(self) -> None:
            self._call.closed()
            self._stream.close()

    return Tapped


def _async_stream_class(base: type) -> Callable[..., Any]:
    class Tapped(base):  # type: ignore[misc]
        """The response's stream, read on its way to whoever reads it."""

        def __init__(self, stream: Any, call: _Call) -> None:
            self._stream, self._call = stream, call

        async def __aiter__(self) -> AsyncIterator[bytes]:
            with self._call.reading():
                async for part in self._stream:
                    self._call.part(part)
                    yield part

        async def aclose(self) -> None:
            self._call.closed()
            await self._stream.aclose()

    return Tapped
