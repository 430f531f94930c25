"""``/bulk/ID/report.html``: the page of a bulk as one file, to keep or to send."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response

from bulkscope_studio.rendering import frozen as rendering
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1.answer import Route
from bulkscope_studio.services import frozen
from bulkscope_studio.storage.store import Store

# What a document may load stands in itself, and holds for a file too; this cannot stand there.
HEADERS = {
    "content-security-policy": "frame-ancestors 'none'", "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}  # fmt: skip


def install(app: FastAPI, store: Store) -> None:
    """Add the route; before that of the pages, whose ids may hold anything."""
    routes = APIRouter(route_class=Route)

    def saved(bulk_id: str) -> Response:
        document = rendering.document(frozen.answers(store, bulk_id))
        return Response(document, media_type="text/html", headers=HEADERS)

    routes.add_api_route(f"/bulk/{any_id('bulk_id')}/report.html", saved, include_in_schema=False)
    app.include_router(routes)
