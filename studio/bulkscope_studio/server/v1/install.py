"""Puts the API together, and shows at ``/api`` what can be asked, without a script or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response

from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1 import bulks, events, records, sql, system
from bulkscope_studio.server.v1.answer import error, json
from bulkscope_studio.services.deletions import Delete
from bulkscope_studio.services.endings import Ends
from bulkscope_studio.storage.store import Store, Unavailable

PREFIX = "/api/v1"
ABOUT = (
    "Units stand in the names: _ns are nanoseconds since the Unix epoch, _s seconds, _bytes bytes, _share 0 to 1. "
    "Absent is null, which is not 0. Each answer has an ETag, and 304 says that nothing has changed. An error says in "
    "`do` what to do."
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code{font:13px ui-monospace,monospace}h2{margin:2rem 0 .5rem;font-size:1.1rem}"
    "table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
)


def no_writer(bulk_id: str) -> Mapping[str, int]:
    """Delete nothing: nobody writes to this store."""
    raise Unavailable(f"nothing can be deleted of {bulk_id!r}: this store is only read")


def install(
    app: FastAPI, store: Store, status: Callable[[], Mapping[str, object]] = dict, ends: Ends | None = None,
    delete: Delete = no_writer,
) -> None:  # fmt: skip
    """Add the routes under ``/api/v1``, their description, and the page at ``/api``; ``delete`` is the writer's.

    ``app.state.close_events()`` ends the streams of events: a server that is to end would else wait for them.
    """
    routes, hub = APIRouter(prefix=PREFIX), events.Hub(store)
    app.state.close_events = hub.close
    for part in (
        bulks.router(store, ends or Ends(store), delete, hub.tell_deleted),
        system.router(store, status),
        records.router(store),
        sql.router(store),
        events.router(hub),
    ):
        routes.include_router(part)
    described = get_openapi(title="Bulkscope", version="1", description=ABOUT, routes=routes.routes)
    page = _page(described)

    def openapi() -> Response:
        return json(described)

    def shown() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": _POLICY})

    def unknown(rest: str) -> JSONResponse:
        return error(404, f"there is nothing at {PREFIX}/{rest}", "see /api for what can be asked")

    routes.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.include_router(routes)
    app.add_api_route("/api", shown, include_in_schema=False)
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_api_route(f"{PREFIX}/{any_id('rest')}", unknown, methods=every, include_in_schema=False)


def _page(described: dict[str, Any]) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Bulkscope API</title><style>{_STYLE}</style><main><h1>Bulkscope API</h1><p>{escape(ABOUT)}</p>",
        f"<p>As <a href={PREFIX}/openapi.json>OpenAPI</a>.</p>",
    ]
    for path, methods in described["paths"].items():
        for method, of in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(of.get('description', ''))}</p>"
            )
            rows = []
            for given in of.get("parameters", ()):
                schema = given["schema"]
                kinds = [each.get("type") for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
                default = "required" if given["required"] else schema.get("default")
                said = "" if default is None else str(default)
                kind = " or ".join(str(each) for each in schema.get("enum", kinds))
                rows.append(f"<tr><td><code>{escape(given['name'])}</code><td>{escape(kind)}<td>{escape(said)}")
            if rows:
                parts.append(f"<table>{''.join(rows)}</table>")
    return "".join(parts)
