"""The studio's web pages. NiceGUI is imported when they are built, so that importing this costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bulkscope_studio.server import login, loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from bulkscope_studio.server.login import Login
    from bulkscope_studio.storage.store import Store


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


def build(store: Store, status: Callable[[], Mapping[str, object]], asked: Login | None = None) -> FastAPI:
    """Return the app with all pages and the JSON API; ``status`` gives the receiver's counts, ``asked`` the login."""
    from fastapi import FastAPI

    with _without("redis", "valkey"):
        from nicegui import ui

    from bulkscope_studio.server import api, v1
    from bulkscope_studio.server.anyid import let_mounts_through
    from bulkscope_studio.server.pages import bulks, capacity, compare, explain, inference, logs, overview, trace
    from bulkscope_studio.server.pages.data import Data
    from bulkscope_studio.services.endings import Ends

    app = FastAPI(title="Bulkscope Studio", docs_url=None, redoc_url=None)
    data = Data(store, status, Ends(store))
    api.install(app, store, status, data.ends)
    v1.install(app, store, status, data.ends)
    for module in (overview, bulks, explain, capacity, compare, trace, inference, logs):
        module.register(data)
    ui.run_with(app, title="Bulkscope", dark=None, reconnect_timeout=5.0, show_welcome_message=False)
    let_mounts_through(app)
    # Last, so that they come first: NiceGUI's socket is behind them too.
    if asked is not None:
        app.add_middleware(login.Asked, login=asked)
    app.add_middleware(loopback.Guard, is_host=loopback.is_page_host if asked is None else loopback.is_any_host)
    return app
