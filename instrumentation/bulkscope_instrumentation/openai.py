"""OpenAI-compatible servers (llama-server, vLLM, Ollama, OpenAI): an inference span for each request.

Seen where ``httpx`` and ``httpx2`` send, which the ``openai`` and ``ollama`` packages send with, so that a
request made by hand is seen too. The span is of kind CLIENT: the engine is another process. Where that is one of this
machine, its CPU and memory are measured around the call (``_host.engine``), else they are absent. Tokens and times are
what the server answers; a stream that does not say how many tokens it had (``stream_options={"include_usage": True}``
asks for it) has none recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._safe import guarded
from bulkscope_instrumentation import _llm_call
from bulkscope_instrumentation._llm_call import Call


class OpenaiInstrumentor(Instrumentor):
    """Instruments httpx 0.24 and later, and httpx2."""

    module = "httpx"
    other_modules = ("httpx2",)
    name = "openai"

    def patch(self, module: ModuleType) -> None:
        """Wrap both clients' ``send``."""
        self.wrap(module.Client, "send", _sending(_stream_class(module.SyncByteStream)))
        self.wrap(module.AsyncClient, "send", _sending_async(_async_stream_class(module.AsyncByteStream)))


@guarded
def _call(request: Any) -> Call | None:
    return _llm_call.begin(request.method, str(request.url), getattr(request, "_content", None))


def _answered(call: Call, response: Any, stream: bool, tap: Callable[..., Any]) -> None:
    with call.answered():
        if not stream:
            call.whole(response.status_code, response.headers, response.content)
            call.finish()
        else:
            call.begun(response.status_code, response.headers)
            response.stream = tap(response.stream, call)
            call.close_with(response.stream)


def _sending(tap: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        call = _call(args[0] if args else kwargs.get("request"))
        if call is None:
            return wrapped(*args, **kwargs)
        with call.asking():
            response = wrapped(*args, **kwargs)
        _answered(call, response, bool(kwargs.get("stream")), tap)
        return response

    return wrapper


def _sending_async(tap: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        call = _call(args[0] if args else kwargs.get("request"))
        if call is None:
            return await wrapped(*args, **kwargs)
        with call.asking():
            response = await wrapped(*args, **kwargs)
        _answered(call, response, bool(kwargs.get("stream")), tap)
        return response

    return wrapper


def _stream_class(base: type) -> Callable[..., Any]:
    class Tapped(base):  # type: ignore[misc]
        """The response's stream, read on its way to whoever reads it."""

        def __init__(self, stream: Any, call: Call) -> None:
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

        def __init__(self, stream: Any, call: Call) -> None:
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
