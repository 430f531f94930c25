"""The studio's web pages. NiceGUI is imported when they are built, so that importing this costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from bulkscope_studio.store import Store


def build(store: Store, status: Callable[[], Mapping[str, object]]) -> FastAPI:
    """Return the app with all pages and, where present, the JSON API; ``status`` gives the receiver's counts."""
    from fastapi import FastAPI
    from nicegui import ui

    from bulkscope_studio.web import bulks, inference, logs, overview, trace
    from bulkscope_studio.web.data import Data

    app = FastAPI(title="Bulkscope Studio", docs_url=None, redoc_url=None)
    try:
        from bulkscope_studio.api import router
    except ModuleNotFoundError as error:
        if error.name != "bulkscope_studio.api":
            raise
    else:
        app.include_router(router(store))
    data = Data(store, status)
    for module in (overview, bulks, trace, inference, logs):
        module.register(data)
    ui.run_with(app, title="Bulkscope", dark=None, reconnect_timeout=5.0, show_welcome_message=False)
    return app
