"""OpenAI-compatible servers asked by ``aiohttp``: an inference span for each request.

What it records is what ``openai`` says of ``httpx``. The answer's body is looked at as it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from bulkscope._instrumentor import Instrumentor
from bulkscope._safe import guarded
from bulkscope_instrumentation import _llm_call
from bulkscope_instrumentation._llm_call import Call


class AiohttpInstrumentor(Instrumentor):
    """Instruments the client of aiohttp 3.8 and later."""

    module = "aiohttp"
    name = "aiohttp"

    def patch(self, module: ModuleType) -> None:
        """Wrap what every request of a session goes through, and the ways in which an answer is left."""
        self.wrap(module.ClientSession, "_request", _sending)
        self.wrap(module.ClientResponse, "release", _leaving)
        self.wrap(module.ClientResponse, "close", _leaving)


async def _sending(wrapped: Any, session: Any, args: Any, kwargs: Any) -> Any:
    call = _call(session, *args, **kwargs)
    if call is None:
        return await wrapped(*args, **kwargs)
    with call.asking():
        response = await wrapped(*args, **kwargs)
    with call.answered():
        # aiohttp unpacks what it hands out, unless the session says otherwise.
        packed = getattr(response._session, "auto_decompress", True) is False
        call.begun(response.status, response.headers, packed=packed)
        response.content = _Body(response.content, call)
        call.close_with(response)  # at its end aiohttp lets go of a response without a word
    return response


@guarded
def _call(session: Any, method: str, url: Any, *args: Any, **kwargs: Any) -> Call | None:
    sent = kwargs.get("json")
    return _llm_call.begin(method, str(session._build_url(url)), kwargs.get("data") if sent is None else sent)


def _leaving(wrapped: Any, response: Any, args: Any, kwargs: Any) -> Any:
    body = response.content
    if isinstance(body, _Body):
        body._left()
    return wrapped(*args, **kwargs)


class _Body(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """The stream of an answer's body; what is read from it is the call's."""

    def __init__(self, wrapped: Any, call: Call) -> None:
        super().__init__(wrapped)
        self._self_call = call

    def _seen(self, data: bytes) -> bytes:
        self._self_call.part(data)
        if self.__wrapped__.at_eof():
            self._self_call.complete()
        return data

    def _left(self) -> None:
        if self.__wrapped__.at_eof():
            self._self_call.complete()
        else:
            self._self_call.closed()

    async def _reading(self, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return await read(*args, **kwargs)
        except BaseException as error:
            self._self_call.finish(error)
            raise

    async def read(self, n: int = -1) -> bytes:
        return self._seen(await self._reading(self.__wrapped__.read, n))

    async def readany(self) -> bytes:
        return self._seen(await self._reading(self.__wrapped__.readany))

    async def readline(self, *args: Any, **kwargs: Any) -> bytes:
        return self._seen(await self._reading(self.__wrapped__.readline, *args, **kwargs))

    async def readuntil(self, *args: Any, **kwargs: Any) -> bytes:
        return self._seen(await self._reading(self.__wrapped__.readuntil, *args, **kwargs))

    async def readexactly(self, n: int) -> bytes:
        return self._seen(await self._reading(self.__wrapped__.readexactly, n))

    async def readchunk(self) -> tuple[bytes, bool]:
        data, ends = await self._reading(self.__wrapped__.readchunk)
        return self._seen(data), ends

    def read_nowait(self, n: int = -1) -> bytes:
        return self._seen(self.__wrapped__.read_nowait(n))

    # aiohttp's own iterators, which read by the methods above.
    def __aiter__(self) -> Any:
        return type(self.__wrapped__).__aiter__(self)

    def iter_any(self) -> Any:
        return type(self.__wrapped__).iter_any(self)

    def iter_chunked(self, n: int) -> Any:
        return type(self.__wrapped__).iter_chunked(self, n)

    def iter_chunks(self) -> Any:
        return type(self.__wrapped__).iter_chunks(self)
