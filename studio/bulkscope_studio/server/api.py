"""All HTTP routes that answer with JSON, and which status each error has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from bulkscope_studio.ingest.connections import RETRY_AFTER_S
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1.answer import json, unread
from bulkscope_studio.services import (
    bulks,
    capacities,
    checks,
    comparisons,
    digests,
    drops,
    endings,
    explanations,
    frozen,
    reports,
    runs,
    whatifs,
)
from bulkscope_studio.services.errors import Conflict, InvalidQuery, NotFound
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage import trouble
from bulkscope_studio.storage.store import Store, TooLong, Unavailable

# Whatever else is raised is a fault of ours: 500, and the server logs it.
STATUS: dict[type[Exception], int] = {
    NotFound: 404, InvalidQuery: 400, Conflict: 409, Unavailable: 503, TooLong: 503, Exception: 500,
}  # fmt: skip
Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]


def install(
    app: FastAPI, store: Store, status: Callable[[], Mapping[str, object]] = dict, ends: endings.Ends | None = None
) -> None:
    """Add the routes under ``/api``, the answers to errors, and the header that tells of the store's trouble.

    ``status`` gives the receiver's addresses, counts and trouble.
    """
    app.include_router(router(store, status, ends or endings.Ends(store)))
    for kind, code in STATUS.items():
        app.add_exception_handler(kind, _handler(code))
    app.add_exception_handler(RequestValidationError, _unread)
    app.add_middleware(_Told, store=store)


def _handler(status: int) -> Handler:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, NotFound):
            return JSONResponse(error.answer, status)
        if status == 500:
            said = f"the studio could not answer ({type(error).__name__}); its log says why"
            return JSONResponse({"error": said}, status)
        headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
        return JSONResponse({"error": str(error)}, status, headers)

    return answer


async def _unread(request: Request, error: Exception) -> JSONResponse:
    """Answer a parameter that is missing, or of another type than the route's."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"error": unread(error)}, 400)


class _Told:
    """Adds the store's trouble, if it has any, to each answer that can be had all the same."""

    def __init__(self, app: Any, store: Store) -> None:
        self._app, self._store = app, store

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            said = self._store.trouble
            if said is not None and message["type"] == "http.response.start":
                told = trouble.HEADER.encode(), trouble.encoded(said).encode()
                message["headers"] = [*message.get("headers", ()), told]
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


def router(store: Store, status: Callable[[], Mapping[str, object]], ends: endings.Ends) -> APIRouter:
    """Return the routes under ``/api``; each lets errors pass, which ``install`` answers."""
    routes = APIRouter(prefix="/api")

    def listed() -> JSONResponse:
        return JSONResponse(endings.list_bulks(store, ends))

    def outside() -> JSONResponse:
        return JSONResponse(bulks.outside(store))

    def report(bulk_id: str, by_host: bool = False) -> JSONResponse:
        return JSONResponse(reports.bulk_report(store, bulk_id, by_host))

    def digest(bulk_id: str) -> JSONResponse:
        return JSONResponse(digests.bulk_digest(store, bulk_id))

    def saved(bulk_id: str) -> Response:
        return json(frozen.answers(store, bulk_id))

    def ending(bulk_id: str) -> JSONResponse:
        return JSONResponse(ends.of(bulk_id))

    def explanation(bulk_id: str) -> JSONResponse:
        return JSONResponse(explanations.bulk_explanation(store, bulk_id))

    def whatif(
        bulk_id: str, workers: int | None = None, threads: int | None = None, prefetch: int | None = None,
        order: str | None = None, preload: bool = False, speed: float | None = None,
    ) -> JSONResponse:  # fmt: skip
        change = whatifs.Change(workers, threads, prefetch, order, preload, speed)
        return JSONResponse(whatifs.bulk_whatif(store, bulk_id, change))

    def comparison(a: str, b: str | None = None, models: bool = False) -> JSONResponse:
        return JSONResponse(comparisons.compare(StoredSides(store), a, b, models))

    def check(bulk: str, against: str, max_slower: str = checks.MAX_SLOWER) -> JSONResponse:
        return JSONResponse(checks.check(StoredSides(store), bulk, against, max_slower))

    def capacity(
        bulk: Annotated[list[str] | None, Query()] = None, last: str | None = None, rate: float | None = None,
        slo: str | None = None, quantile: float | None = None, model: str | None = None, workers: int | None = None,
    ) -> JSONResponse:  # fmt: skip
        question = capacities.Question(bulk or (), last, rate, slo, quantile, model, workers)
        return JSONResponse(capacities.system_capacity(store, question))

    def progress(bulk: str) -> JSONResponse:
        return JSONResponse(capacities.bulk_progress(store, bulk))

    async def keep(request: Request) -> JSONResponse:
        # A page of another origin may post a form or plain text unasked, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JSONResponse({"error": "send the run as application/json"}, 415)
        name, ids, replace = _run(await request.body())
        return JSONResponse(await run_in_threadpool(runs.keep, store, name, ids, replace))

    def kept() -> JSONResponse:
        return JSONResponse(runs.every(store))

    def shown(name: str) -> JSONResponse:
        return JSONResponse(runs.show(store, name))

    def dropped(name: str) -> JSONResponse:
        return JSONResponse(runs.drop(store, name))

    def dropped_lately() -> JSONResponse:
        said = {name: status().get(name) for name in ("otlp_http", "otlp_grpc", "trouble")}
        return JSONResponse(said | {"seconds": drops.LATELY_S, "drops": drops.lately(store)})

    routes.add_api_route("/bulks", listed)
    routes.add_api_route("/outside", outside)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/report", report)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/frozen", saved)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/digest", digest)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/ending", ending)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/explain", explanation)
    routes.add_api_route(f"/bulks/{any_id('bulk_id')}/whatif", whatif)
    routes.add_api_route("/compare", comparison)
    routes.add_api_route("/check", check)
    routes.add_api_route("/capacity", capacity)
    routes.add_api_route("/capacity/progress", progress)
    routes.add_api_route("/drops", dropped_lately)
    routes.add_api_route("/runs", keep, methods=["POST"])
    routes.add_api_route("/runs", kept)
    routes.add_api_route(f"/runs/{any_id('name')}", shown)
    routes.add_api_route(f"/runs/{any_id('name')}", dropped, methods=["DELETE"])
    return routes


def _run(body: bytes) -> tuple[str, list[str], bool]:
    try:
        found = orjson.loads(body)
        name, ids, replace = found["name"], found["bulks"], found.get("replace", False)
    except (ValueError, TypeError, KeyError, AttributeError):
        name = ids = replace = None
    fits = isinstance(name, str) and isinstance(replace, bool) and isinstance(ids, list)
    if not (fits and all(isinstance(bulk, str) for bulk in ids)):
        raise InvalidQuery('send {"name": "...", "bulks": ["..."], "replace": false}')
    return name, ids, replace
