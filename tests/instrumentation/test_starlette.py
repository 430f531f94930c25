"""Starlette without FastAPI, in process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from bulkscope_instrumentation.fastapi import FastAPIInstrumentor
from bulkscope_instrumentation.starlette import StarletteInstrumentor
from tests.compatibility import matrix
from tests.telemetry import Telemetry


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentors = (StarletteInstrumentor(), FastAPIInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield
    for instrumentor in reversed(instrumentors):
        instrumentor.uninstrument()


async def ask(app: Any, method: str, path: str, **arguments: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        return await client.request(method, path, **arguments)


async def item(request: Request) -> Response:
    return JSONResponse({"item": request.path_params["item"]})


async def bulks(request: Request) -> Response:
    body = await request.json()
    return PlainTextResponse(body["bulkId"], status_code=202)


async def broken(request: Request) -> Response:
    raise KeyError("mine")


ran: list[str] = []


async def later(request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(ran.append, "later"))


def make_app() -> Starlette:
    inner = FastAPI()

    @inner.get("/there/{x}")
    async def there(x: str) -> str:
        return x

    return Starlette(
        routes=[
            Route("/items/{item:int}", item),
            Route("/bulks", bulks, methods=["POST"]),
            Route("/broken", broken),
            Route("/later", later),
            Mount("/v1", routes=[Route("/items/{item}", item), Mount("/{tenant}", Router([Route("/leaf", later)]))]),
            Mount("/sub", inner),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/items/7", "GET /items/{item}", 200),
        ("GET", "/v1/items/7", "GET /v1/items/{item}", 200),
        ("GET", "/v1/t/leaf", "GET /v1/{tenant}/leaf", 200),
        ("GET", "/sub/there/a", "GET /sub/there/{x}", 200),
        ("GET", "/later", "GET /later", 200),
        ("GET", "/nowhere", "GET", 404),
        ("DELETE", "/items/7", "DELETE /items/{item}", 405),
    ],
)
async def test_one_server_span(telemetry: Telemetry, method: str, path: str, name: str, status: int) -> None:
    assert (await ask(make_app(), method, path)).status_code == status
    (span,) = telemetry.spans()
    assert (span.name, span.kind, span.attributes["http.response.status_code"]) == (name, SpanKind.SERVER, status)
    assert span.attributes["bulk.outcome"] == ("ok" if status < 400 else "client_error")
    (point,) = telemetry.metrics()["http.server.request.duration"]
    assert point.count == 1
    matrix.note("starlette", version("starlette"), "1", "2")


async def test_the_bulks_id_from_a_body_that_is_read(telemetry: Telemetry) -> None:
    answer = await ask(make_app(), "POST", "/bulks", content=json.dumps({"bulkId": "b-1"}))
    assert (answer.status_code, answer.text) == (202, "b-1")
    (span,) = telemetry.spans()
    assert (span.attributes["bulk.id"], span.attributes["bulk.id.source"]) == ("b-1", "body")


async def test_an_exception(telemetry: Telemetry) -> None:
    assert (await ask(make_app(), "GET", "/broken")).status_code == 500
    (span,) = telemetry.spans()
    assert span.status.status_code == StatusCode.ERROR
    assert (span.attributes["error.type"], span.attributes["bulk.outcome"]) == ("KeyError", "internal_error")


async def test_fastapi_left_to_others_is_not_taken_by_this_one(telemetry: Telemetry) -> None:
    FastAPIInstrumentor().uninstrument()
    app = FastAPI()
    assert (await ask(app, "GET", "/nowhere")).status_code == 404
    assert [span for span in telemetry.spans() if span.instrumentation_scope.name == "bulkscope"] == []
    FastAPIInstrumentor().instrument()


async def test_uninstrumented(telemetry: Telemetry) -> None:
    StarletteInstrumentor().uninstrument()
    assert (await ask(Starlette(routes=[Route("/later", later)]), "GET", "/later")).status_code == 200
    assert telemetry.spans() == []
    StarletteInstrumentor().instrument()
