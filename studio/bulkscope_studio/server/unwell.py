"""How a client hears that the store has trouble: 503 where an answer cannot be had, a header where it can."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from bulkscope_studio.ingest.connections import RETRY_AFTER_S
from bulkscope_studio.storage.store import Store, TooLong, Unavailable

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "bulkscope-trouble"


def install(app: FastAPI, store: Store) -> None:
    """Let every route of ``app`` tell of ``store``'s trouble."""
    from fastapi.responses import JSONResponse

    async def later(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"retry-after": str(RETRY_AFTER_S)})

    for kind in (Unavailable, TooLong):
        app.add_exception_handler(kind, later)
    app.add_middleware(_Told, store=store)


def told(header: str | None) -> str | None:
    """Return what ``HEADER`` says."""
    return None if header is None else unquote(header)


class _Told:
    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app, self._store = app, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            trouble = self._store.trouble
            if trouble is not None and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER.encode(), quote(trouble).encode())]
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)
