"""The studio's web pages. NiceGUI is imported when they are built, so that importing this costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bulkscope_studio.store import Store

# What a browser on this machine calls the studio, with any port: a tunnel may lead to it from another.
HOSTS = ("127.0.0.1", "localhost", "[::1]")


@contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Let imports of ``modules`` fail inside the block.

    Socket.IO, which NiceGUI stands on, imports the Redis and Valkey clients where they are installed, for a
    set-up of several servers that the studio is not: 0.4 s of the 2 s in which it should be ready.
    """
    missing = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


class _OwnHost:
    """Answers 400 to requests, those for sockets too, whose Host header is none of ``HOSTS``.

    The studio listens on the loopback address, and needs no password for that. A page from anywhere could still reach
    it by a name of its own that it lets point to 127.0.0.1 (DNS rebinding): to the browser, that is the page's own
    server, whose answers it may read. The name is then in the Host header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import PlainTextResponse

        known = False

        async def know(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal known
            known = True

        async def unsaid(message: Message) -> None:
            """Starlette's own answer does not say what to do."""

        await TrustedHostMiddleware(know, HOSTS, www_redirect=False)(scope, receive, unsaid)
        answer = PlainTextResponse(
            "The studio answers to 127.0.0.1, localhost and [::1] only: open it under one of them. From another "
            "machine, make a tunnel: ssh -L 8080:127.0.0.1:<its port> <its machine>\n",
            400,
        )
        await (self._app if known else answer)(scope, receive, send)


def build(store: Store, status: Callable[[], Mapping[str, object]]) -> FastAPI:
    """Return the app with all pages and the JSON API; ``status`` gives the receiver's counts."""
    from fastapi import FastAPI

    with _without("redis", "valkey"):
        from nicegui import ui

    from bulkscope_studio import unwell
    from bulkscope_studio.api import router
    from bulkscope_studio.web import bulks, capacity, compare, explain, inference, logs, overview, trace
    from bulkscope_studio.web.data import Data

    app = FastAPI(title="Bulkscope Studio", docs_url=None, redoc_url=None)
    app.include_router(router(store))
    unwell.install(app, store)
    data = Data(store, status)
    for module in (overview, bulks, explain, capacity, compare, trace, inference, logs):
        module.register(data)
    ui.run_with(app, title="Bulkscope", dark=None, reconnect_timeout=5.0, show_welcome_message=False)
    app.add_middleware(_OwnHost)  # last, so that it comes first: NiceGUI's socket is behind it too
    return app
