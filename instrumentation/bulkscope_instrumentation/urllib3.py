"""OpenAI-compatible servers asked by ``urllib3``, and so by ``requests``: an inference span for each request.

What it records is what ``openai`` says of ``httpx``. An answer that is read in parts is looked at as it is read: its
object gets a class of the same name that does so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._safe import guarded
from bulkscope_instrumentation import _llm_call
from bulkscope_instrumentation._llm_call import Call


class Urllib3Instrumentor(Instrumentor):
    """Instruments urllib3 1.26 and later."""

    module = "urllib3.connectionpool"
    name = "urllib3"

    def patch(self, module: ModuleType) -> None:
        """Wrap the one method that sends a request."""
        self.wrap(module.HTTPConnectionPool, "urlopen", _sending)


def _sending(wrapped: Any, pool: Any, args: Any, kwargs: Any) -> Any:
    call = _call(pool, *args, **kwargs)
    if call is None:
        return wrapped(*args, **kwargs)
    with call.asking():
        response = wrapped(*args, **kwargs)
    with call.answered():
        if kwargs.get("preload_content", True):
            call.whole(response.status, response.headers, response.data)
            call.finish()
        else:
            call.begun(response.status, response.headers, packed=False)
            kind: Any = type(response)
            response._bulkscope_call = call
            response.__class__ = _tapped(kind)
    return response


@guarded
def _call(pool: Any, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> Call | None:
    host = f"[{pool.host}]" if ":" in pool.host else pool.host
    whole = url if "://" in url else f"{pool.scheme}://{host}:{pool.port or ''}{url}"
    return _llm_call.begin(method, whole, body)


@cache
def _tapped(base: Any) -> type:
    """Return a class of responses that look at what is read of them."""

    @guarded
    def look(response: Any, data: bytes, decode: bool | None) -> None:
        decoded = response.decode_content if decode is None else decode
        if decoded or response.headers.get("content-encoding", "identity") == "identity":
            response._bulkscope_call.part(data)

    def seen(response: Any, data: bytes, decode: bool | None) -> bytes:
        look(response, data, decode)
        return data

    @guarded
    def left(response: Any) -> None:
        if response.length_remaining == 0:  # who knows its length need not read on to hear that it has ended
            response._bulkscope_call.complete()
        else:
            response._bulkscope_call.closed()

    class Tapped(base):  # type: ignore[misc]
        _bulkscope_call: Call

        def read(self, amt: int | None = None, decode_content: bool | None = None, *args: Any, **kwargs: Any) -> Any:
            try:
                data = super().read(amt, decode_content, *args, **kwargs)
            except BaseException as error:
                self._bulkscope_call.finish(error)
                raise
            seen(self, data, decode_content)
            if amt is None or amt < 0 or (not data and amt > 0):
                self._bulkscope_call.complete()
            return data

        def read1(self, amt: int | None = None, decode_content: bool | None = None) -> Any:
            return seen(self, super().read1(amt, decode_content), decode_content)

        def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:
            with self._bulkscope_call.reading():
                for data in super().read_chunked(amt, decode_content):
                    yield seen(self, data, bool(decode_content))  # here None is no, as nowhere else in urllib3

        def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:
            with self._bulkscope_call.reading():
                yield from super().stream(amt, decode_content)

        def close(self) -> None:
            left(self)
            super().close()

    Tapped.__name__, Tapped.__qualname__, Tapped.__module__ = base.__name__, base.__qualname__, base.__module__
    return Tapped
