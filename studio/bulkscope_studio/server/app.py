"""The studio's web application: the API, the pages, and what guards both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI

from bulkscope_studio.server import api, login, loopback, saved, v1, web
from bulkscope_studio.services.deletions import Delete
from bulkscope_studio.services.endings import Ends
from bulkscope_studio.storage.store import Store


def build(
    store: Store, status: Callable[[], Mapping[str, object]], asked: login.Login | None = None,
    delete: Delete = v1.no_writer,
) -> FastAPI:  # fmt: skip
    """Return the application; ``status`` gives the receiver's counts, ``asked`` the login.

    ``delete`` deletes a bulk by the thread that writes.
    """
    app = FastAPI(title="Bulkscope Studio", docs_url=None, redoc_url=None, openapi_url=None)
    ends = Ends(store)
    api.install(app, store, status, ends)
    v1.install(app, store, status, ends, delete)
    saved.install(app, store)
    web.install(app)  # last of the routes: what no other has is a page that is not there
    if asked is not None:
        app.add_middleware(login.Asked, login=asked)
    app.add_middleware(loopback.Guard, is_host=loopback.is_page_host if asked is None else loopback.is_any_host)
    return app
