"""FastAPI in process: the whole span tree, metric and log of each kind of request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from bulkscope import conventions
from bulkscope._export import otlp
from bulkscope._jobs import bulks
from bulkscope_instrumentation import _asgi
from bulkscope_instrumentation.fastapi import FastAPIInstrumentor

Instrument = Callable[..., None]

# What the client and httpx add to every request here.
COMMON = {
    "url.scheme": "http",
    "server.address": "api.test",
    "server.port": 80,
    "network.protocol.version": "1.1",
    "client.address": "127.0.0.1",
    "user_agent.original": "tests",
}


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Iterator[Instrument]:
    """Instrument under the given environment variables."""
    instrumentor = FastAPIInstrumentor()

    def start(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        instrumentor.instrument()

    yield start
    instrumentor.uninstrument()


@pytest.fixture
def instrumented(instrument: Instrument) -> None:
    instrument()


async def request(app: Any, method: str, path: str, **arguments: Any) -> httpx.Response:
    raises = arguments.pop("raises", True)
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    headers = {"user-agent": "tests", **arguments.pop("headers", {})}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        return await client.request(method, path, headers=headers, **arguments)


def seen(span: Any) -> tuple[str, SpanKind, StatusCode, dict[str, Any]]:
    """Return a span without what every request here has in common."""
    attributes = dict(span.attributes)
    for name, value in COMMON.items():
        assert attributes.pop(name) == value
    return span.name, span.kind, span.status.status_code, attributes


def make_app() -> FastAPI:
    app = FastAPI()
    inner, outer = APIRouter(prefix="/inner"), APIRouter()
    mounted, deep = FastAPI(), FastAPI()

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @outer.get("/{name}/things")
    async def things(name: str) -> str:
        return name

    @inner.get("/leaf/{leaf}")
    async def leaf(leaf: str) -> str:
        return leaf

    @mounted.get("/there/{x}")
    async def there(x: str) -> str:
        return x

    @deep.get("/end")
    async def end() -> int:
        return 1

    @app.get("/fails/{status}")
    async def fails(status: int) -> None:
        raise HTTPException(status)

    @app.get("/raises")
    async def raises() -> None:
        raise LookupError("a secret prompt")

    outer.include_router(inner, prefix="/deeper")
    mounted.mount("/deep/{level}", deep)
    app.include_router(outer, prefix="/outer/{tenant}")
    app.mount("/mounted/{tenant}", mounted)
    return app


def expected(
    method: str, path: str, route: str | None, status: int, outcome: str = "ok", **more: Any
) -> tuple[str, SpanKind, StatusCode, dict[str, Any]]:
    attributes = {
        "http.request.method": method,
        "url.path": path,
        "http.response.status_code": status,
        "bulk.outcome": outcome,
    }
    if route is not None:
        attributes["http.route"] = route
    if status >= 500:
        attributes["error.type"] = str(status)
    return (
        method if route is None else f"{method} {route}",
        SpanKind.SERVER,
        StatusCode.ERROR if status >= 500 else StatusCode.UNSET,
        attributes | more,
    )


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "outcome"),
    [
        ("GET", "/items/3", "/items/{item}", 200, "ok"),
        ("GET", "/outer/t1/n/things", "/outer/{tenant}/{name}/things", 200, "ok"),
        ("GET", "/outer/t1/deeper/inner/leaf/l", "/outer/{tenant}/deeper/inner/leaf/{leaf}", 200, "ok"),
        ("GET", "/mounted/t1/there/y", "/mounted/{tenant}/there/{x}", 200, "ok"),
        ("GET", "/mounted/t1/deep/9/end", "/mounted/{tenant}/deep/{level}/end", 200, "ok"),
        ("GET", "/mounted/t1/nowhere", "/mounted/{tenant}/{path}", 404, "client_error"),
        ("GET", "/nowhere", None, 404, "client_error"),
        ("POST", "/items/3", "/items/{item}", 405, "client_error"),
        (
            "POST",
            "/outer/t1/deeper/inner/leaf/l",
            "/outer/{tenant}/deeper/inner/leaf/{leaf}",
            405,
            "client_error",
        ),
        ("GET", "/items/word", "/items/{item}", 422, "client_error"),
        ("GET", "/fails/429", "/fails/{status}", 429, "overload"),
        ("GET", "/fails/503", "/fails/{status}", 503, "overload"),
        ("GET", "/fails/502", "/fails/{status}", 502, "internal_error"),
    ],
)
async def test_one_server_span_a_request(
    telemetry: Any, instrumented: None, method: str, path: str, route: str | None, status: int, outcome: str
) -> None:
    response = await request(make_app(), method, path)
    assert response.status_code == status
    (span,) = telemetry.spans()
    assert seen(span) == expected(method, path, route, status, outcome)
    assert span.parent is None

    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    wanted = expected(method, path, route, status, outcome)[3] | {"url.scheme": "http"}
    del wanted["url.path"]
    assert point.count == 1
    assert point.sum > 0
    assert dict(point.attributes) == wanted


async def test_an_unknown_method_does_not_widen_the_names(telemetry: Any, instrumented: None) -> None:
    await request(make_app(), "BREW", "/items/3")
    (span,) = telemetry.spans()
    assert span.name == "HTTP /items/{item}"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


async def test_the_applications_exception_passes_unchanged(telemetry: Any, instrumented: None) -> None:
    with pytest.raises(LookupError, match="a secret prompt"):
        await request(make_app(), "GET", "/raises")
    (span,) = telemetry.spans()
    assert seen(span) == (
        "GET /raises",
        SpanKind.SERVER,
        StatusCode.ERROR,
        expected("GET", "/raises", "/raises", 500, "internal_error")[3] | {"error.type": "LookupError"},
    )
    (event,) = span.events
    assert event.attributes["exception.type"] == "LookupError"
    assert 'raise LookupError("' in event.attributes["exception.stacktrace"]  # the source line
    assert "LookupError: a secret prompt" not in str(event.attributes)  # the message
    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    assert point.attributes["error.type"] == "LookupError"


async def test_the_client_sees_the_response_of_a_failed_request(telemetry: Any, instrumented: None) -> None:
    response = await request(make_app(), "GET", "/raises", raises=False)
    assert (response.status_code, response.text) == (500, "Internal Server Error")


async def test_cancellation_ends_the_span_and_passes(telemetry: Any, instrumented: None) -> None:
    app, started = FastAPI(), asyncio.Event()

    @app.get("/")
    async def forever() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(request(app, "GET", "/"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert span.status.status_code is StatusCode.ERROR
    assert "http.response.status_code" not in span.attributes


async def test_an_overload_noted_by_the_queue(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    @app.get("/{status}")
    async def endpoint(status: int) -> None:
        bulk = bulks.current()
        assert bulk is not None
        bulk.overload = True
        if status >= 400:
            raise HTTPException(status)

    for status in (500, 200):
        await request(app, "GET", f"/{status}")
    assert [span.attributes["bulk.outcome"] for span in telemetry.spans()] == ["overload", "ok"]


# --- the bulk's id ------------------------------------------------------------------------------


def bulk_app(seen_in_app: dict[str, Any]) -> FastAPI:
    app = FastAPI()

    def note() -> None:
        bulk = bulks.current()
        assert bulk is not None
        seen_in_app.update(id=bulk.id, source=bulk.source, baggage=baggage.get_baggage("bulk.id"))
        with trace.get_tracer("app").start_as_current_span("inside"):
            pass

    @app.post("/plain")
    async def plain(body: dict[str, Any]) -> int:
        note()
        return len(body)

    @app.post("/path/{bulk_id}")
    async def in_path(bulk_id: str, body: dict[str, Any]) -> None:
        note()

    return app


EVERYWHERE: dict[str, Any] = {
    "path": "/path/from-path?bulkId=from-query",
    "headers": {"baggage": "bulk.id=from-baggage,other=1", "x-bulk-id": "from-header"},
    "json": {"bulkId": "from-body"},
}


@pytest.mark.parametrize(
    ("source", "leave_out"),
    [
        ("baggage", []),
        ("body", ["baggage"]),
        ("path", ["baggage", "body"]),
        ("query", ["baggage", "body", "path"]),
        ("header", ["baggage", "body", "path", "query"]),
        (None, ["baggage", "body", "path", "query", "header"]),
    ],
)
async def test_where_the_id_comes_from(
    telemetry: Any, instrumented: None, source: str | None, leave_out: list[str]
) -> None:
    path = "/plain" if "path" in leave_out else "/path/from-path"
    path += "" if "query" in leave_out else "?bulkId=from-query"
    headers = dict(EVERYWHERE["headers"])
    for part, name in (("baggage", "baggage"), ("header", "x-bulk-id")):
        if part in leave_out:
            del headers[name]
    body = {"n": 1} if "body" in leave_out else EVERYWHERE["json"]
    in_app: dict[str, Any] = {}
    before = baggage.get_all()

    response = await request(bulk_app(in_app), "POST", path, headers=headers, json=body)

    assert response.status_code == 200
    bulk_id = None if source is None else f"from-{source}"
    assert in_app == {"id": bulk_id, "source": source, "baggage": bulk_id}
    inside, server = telemetry.spans()
    assert inside.parent.span_id == server.context.span_id
    for span in (inside, server):
        assert span.attributes.get("bulk.id") == bulk_id
    assert server.attributes.get("bulk.id.source") == source
    assert baggage.get_all() == before
    assert bulks.current() is None
    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    assert "bulk.id" not in point.attributes


async def test_nested_and_numeric_ids_in_the_body(telemetry: Any, instrumented: None) -> None:
    for body in ({"bulk": {"id": "nested"}}, {"bulk_id": 7}, {"bulkId": ["no id"]}, [1, 2]):
        await request(bulk_app({}), "POST", "/plain", json=body)
    servers = [span for span in telemetry.spans() if span.kind is SpanKind.SERVER]
    assert [span.attributes.get("bulk.id") for span in servers] == ["nested", "7", None, None]


async def test_an_endpoint_reads_the_stream_itself(telemetry: Any, instrumented: None) -> None:
    app, chunks = FastAPI(), []

    @app.post("/")
    async def endpoint(request: Request) -> None:
        chunks.extend([chunk async for chunk in request.stream()])

    async def body() -> AsyncIterator[bytes]:
        for part in (b'{"bulkId":', b'"b1"}'):
            yield part

    response = await request(app, "POST", "/", content=body())
    assert response.status_code == 200
    assert b"".join(chunks) == b'{"bulkId":"b1"}'
    (span,) = telemetry.spans()
    assert "bulk.id" not in span.attributes


async def test_the_application_parses_the_body_itself(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    @app.post("/")
    async def endpoint(request: Request) -> Any:
        return await request.json()

    response = await request(app, "POST", "/", json={"bulk.id": "b1"})
    assert response.json() == {"bulk.id": "b1"}
    (span,) = telemetry.spans()
    assert span.attributes["bulk.id"] == "b1"


async def test_a_broken_body_is_still_the_applications_422(telemetry: Any, instrumented: None) -> None:
    response = await request(bulk_app({}), "POST", "/plain", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert [span.attributes["bulk.outcome"] for span in telemetry.spans()] == ["client_error"]


async def test_a_sync_endpoint_in_a_thread_has_the_bulk(telemetry: Any, instrumented: None) -> None:
    app, found = FastAPI(), []

    @app.post("/")
    def endpoint(body: dict[str, Any]) -> None:
        found.append((threading.current_thread() is threading.main_thread(), bulks.current()))

    await request(app, "POST", "/", json={"bulkId": "b1"})
    ((on_main, bulk),) = found
    assert not on_main
    assert bulk.id == "b1"


async def test_size_and_enqueue_time_of_what_the_request_published(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    @app.post("/")
    async def endpoint() -> None:
        bulk = bulks.current()
        assert bulk is not None
        bulk.size, bulk.enqueue_seconds = 3, 0.25
        bulk.learn("t1", "trace")

    await request(app, "POST", "/")
    (span,) = telemetry.spans()
    got = {name: value for name, value in span.attributes.items() if name.startswith("bulk.")}
    assert got == {
        "bulk.outcome": "ok",
        "bulk.id": "t1",
        "bulk.id.source": "trace",
        "bulk.size": 3,
        "bulk.enqueue.duration": 0.25,
    }


# --- the life of a request ----------------------------------------------------------------------


async def test_background_tasks_come_after_the_answer(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()
    sent: list[int] = []

    def later() -> None:
        # What runs here began after the last byte: 50 ms of it would show in what ended only with it.
        time.sleep(0.05)
        with trace.get_tracer("app").start_as_current_span("later"):
            pass
        bulk = bulks.current()
        assert bulk is not None
        bulk.learn("from-a-task", "payload")
        sent.append(1)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(later)

    await request(app, "POST", "/")
    background, server = telemetry.spans()
    assert sent
    assert background.name == "later"
    assert background.parent.span_id == server.context.span_id
    assert server.end_time < background.start_time
    assert server.attributes[conventions.BULK_ID] == "from-a-task"
    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    assert point.sum <= (background.start_time - server.start_time) / 1e9 - 0.05
    assert (server.end_time - server.start_time) / 1e9 == pytest.approx(point.sum, abs=0.01)


async def test_a_background_task_that_fails_leaves_the_answer_well(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    def later() -> None:
        raise LookupError("a secret prompt")

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(later)

    with pytest.raises(LookupError):
        await request(app, "POST", "/")
    [server] = telemetry.spans()
    assert server.attributes[conventions.BULK_OUTCOME] == "ok"
    assert conventions.ERROR_TYPE not in server.attributes
    assert server.status.status_code is StatusCode.UNSET
    [event] = server.events
    assert event.attributes["exception.type"] == "LookupError"
    assert "exception.message" not in event.attributes
    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    assert point.count == 1
    assert point.attributes[conventions.BULK_OUTCOME] == "ok"


async def test_a_stream_is_part_of_the_request(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a", b"b"):
                assert telemetry.spans() == []
                yield part

        return StreamingResponse(parts())

    response = await request(app, "GET", "/")
    assert response.content == b"ab"
    assert [seen(span) for span in telemetry.spans()] == [expected("GET", "/", "/", 200)]


async def test_a_stream_that_breaks_after_the_200(telemetry: Any, instrumented: None) -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            raise OSError("broken")

        return StreamingResponse(parts())

    with pytest.raises(OSError, match="broken"):
        await request(app, "GET", "/")
    (span,) = telemetry.spans()
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["bulk.outcome"] == "internal_error"
    assert span.attributes["error.type"] == "OSError"


async def test_a_remote_parent_and_a_pipelined_request(telemetry: Any, instrumented: None) -> None:
    app = make_app()
    with trace.get_tracer("app").start_as_current_span("whatever the server's task had current"):
        await request(app, "GET", "/items/1")
        await request(app, "GET", "/items/2", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "baggage": "k=v"})
    first, second, _ = telemetry.spans()
    assert first.parent is None
    assert f"{second.context.trace_id:x}" == "a" * 32
    assert f"{second.parent.span_id:x}" == "b" * 16
    assert second.parent.is_remote


async def test_a_middleware_that_copies_the_scope(telemetry: Any, instrumented: None) -> None:
    app = make_app()

    class Copy:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(dict(scope), receive, send)

    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(Copy)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    await request(app, "GET", "/mounted/t/there/y")
    assert [span.name for span in telemetry.spans()] == ["GET /mounted/{tenant}/there/{x}"]


async def test_the_root_path_is_part_of_the_route(telemetry: Any, instrumented: None) -> None:
    app = FastAPI(root_path="/api/v1")
    app.get("/x")(lambda: 1)
    await request(app, "GET", "/x")
    mounted = FastAPI()
    mounted.get("/y")(lambda: 1)
    await request(Mount("/outer", app=mounted), "GET", "/outer/y")
    assert [span.name for span in telemetry.spans()] == ["GET /api/v1/x", "GET /outer/y"]


async def test_websocket_and_lifespan_pass_untouched(telemetry: Any, instrumented: None) -> None:
    events: list[str] = []
    app = FastAPI(telemetry={"tracing": False})

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        assert _asgi.SCOPE_KEY not in websocket.scope
        await websocket.accept()
        await websocket.send_text(str(bulks.current()))
        await websocket.close()

    async def run(scope: dict[str, Any], incoming: list[dict[str, Any]]) -> None:
        async def receive() -> dict[str, Any]:
            return incoming.pop(0)

        async def send(message: Any) -> None:
            events.append(message["type"])

        await app(scope, receive, send)

    websocket: dict[str, Any] = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b""}
    await run(websocket, [{"type": "websocket.connect"}])
    await run({"type": "lifespan"}, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    assert events == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert telemetry.spans() == []
    assert conventions.M_HTTP_SERVER_DURATION not in telemetry.metrics()


# --- FastAPI's own tracing, contrib's variables ---------------------------------------------------


async def test_fastapis_own_tracing_stays_off_for_the_request(telemetry: Any, instrumented: None) -> None:
    native = pytest.importorskip("fastapi.telemetry._api", reason="FastAPI before 0.142 does not trace itself")
    app, found = FastAPI(), []

    @app.get("/")
    async def endpoint() -> None:
        found.append(native.get_telemetry_data())

    assert (await request(app, "GET", "/")).status_code == 200
    assert found == [None]
    assert [span.instrumentation_scope.name for span in telemetry.spans()] == ["bulkscope"]


async def test_uninstrumented_nothing_of_ours_is_left(telemetry: Any, instrument: Instrument) -> None:
    before = FastAPI.__call__
    instrument()
    assert FastAPI.__call__ is not before
    FastAPIInstrumentor().uninstrument()
    assert FastAPI.__call__ is before
    await request(make_app(), "GET", "/items/1")
    assert "bulkscope" not in {span.instrumentation_scope.name for span in telemetry.spans()}


async def test_contrib_can_have_the_field(telemetry: Any, instrument: Instrument) -> None:
    before = FastAPI.__call__
    instrument(BULKSCOPE_FASTAPI="contrib")
    assert FastAPI.__call__ is before


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
async def test_excluded_urls(telemetry: Any, instrument: Instrument, variable: str) -> None:
    instrument(**{variable: "items/1,mounted/.*/there"})
    for path in ("/items/1", "/mounted/t/there/y", "/items/2"):
        assert (await request(make_app(), "GET", path)).status_code == 200
    assert [span.attributes["url.path"] for span in telemetry.spans()] == ["/items/2"]
    (point,) = telemetry.metrics()[conventions.M_HTTP_SERVER_DURATION]
    assert point.count == 1


async def test_captured_headers(telemetry: Any, instrument: Instrument) -> None:
    instrument(
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST="X-Kept,X-Secret.*",
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE="content-type",
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS="x-secret.*",
    )
    await request(make_app(), "GET", "/items/1", headers={"x-kept": "a", "x-secret-1": "b", "x-other": "c"})
    (span,) = telemetry.spans()
    captured = {name: value for name, value in span.attributes.items() if ".header." in name}
    assert captured == {
        "http.request.header.x_kept": ("a",),
        "http.request.header.x_secret_1": ("[REDACTED]",),
        "http.response.header.content_type": ("application/json",),
    }


async def test_old_names_beside_the_stable_ones(telemetry: Any, instrument: Instrument) -> None:
    instrument(OTEL_SEMCONV_STABILITY_OPT_IN="http/dup")
    await request(make_app(), "GET", "/items/1?q=secret")
    (span,) = telemetry.spans()
    stable = expected("GET", "/items/1", "/items/{item}", 200)[3] | COMMON
    assert dict(span.attributes) == stable | {
        "http.method": "GET",
        "http.target": "/items/1",
        "http.scheme": "http",
        "http.flavor": "1.1",
        "http.host": "api.test",
        "net.host.port": 80,
        "net.peer.ip": "127.0.0.1",
        "http.user_agent": "tests",
        "http.status_code": 200,
    }


# --- the log of an API hit ------------------------------------------------------------------------


async def test_each_hit_is_logged_once(telemetry: Any, instrumented: None) -> None:
    app = bulk_app({})

    @app.get("/logged")
    async def logged() -> None:
        bulk = bulks.current()
        assert bulk is not None
        bulk.logged = True  # what the logging instrumentation does on the server's access line

    await request(app, "POST", "/plain", json={"bulkId": "b1"})
    await request(app, "GET", "/logged")
    (record,) = [log.log_record for log in telemetry.logs()]
    server = next(span for span in telemetry.spans() if span.name == "POST /plain")
    assert (record.trace_id, record.span_id) == (server.context.trace_id, server.context.span_id)
    assert record.event_name == conventions.EVENT_REQUEST
    assert record.severity_text == "INFO"
    assert record.body == "POST /plain 200"
    assert dict(record.attributes) == {
        "http.request.method": "POST",
        "http.route": "/plain",
        "http.response.status_code": 200,
        "bulk.id": "b1",
    }


async def test_the_log_of_hits_can_be_switched_off(telemetry: Any, instrument: Instrument) -> None:
    instrument(BULKSCOPE_ACCESS_EVENTS="0")
    await request(make_app(), "GET", "/items/1")
    assert telemetry.logs() == []
    assert len(telemetry.spans()) == 1


# --- faults of ours -------------------------------------------------------------------------------


class Broken:
    """Fails at every use."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("telemetry is broken")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (_asgi, "_authority"),
        (_asgi, "_outcome"),
        (_asgi.ServerRequest, "learn"),
        (_asgi.ServerRequest, "_describe"),
        (_asgi.ServerRequest, "_log"),
        (_asgi._instruments, "record"),
        (bulks, "find"),
        (_asgi._instruments, "tracer"),
    ],
)
async def test_a_fault_of_ours_leaves_the_response_intact(
    telemetry: Any, instrument: Instrument, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        if name == "tracer":
            return Broken()
        raise RuntimeError("telemetry is broken")

    called = []
    app = FastAPI()

    @app.post("/{bulk_id}")
    async def endpoint(bulk_id: str, body: dict[str, Any]) -> dict[str, Any]:
        called.append(bulk_id)
        return body

    monkeypatch.setattr(where, name, broken)
    instrument()
    response = await request(app, "POST", "/p", json={"bulkId": "b1"})
    assert (response.status_code, response.json(), called) == (200, {"bulkId": "b1"}, ["p"])
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert bulks.current() is None
    # Where the span could be started, it is still there; and FastAPI's own never steps in.
    started = name not in ("_authority", "tracer")
    assert len(telemetry.spans()) == started


async def test_a_malformed_host_does_not_cost_the_span(telemetry: Any, instrumented: None) -> None:
    await request(make_app(), "GET", "/items/1", headers={"host": "[::1]:80:x"})
    await request(make_app(), "GET", "/items/1", headers={"host": "[::1]:8080"})
    first, second = telemetry.spans()
    assert first.attributes["http.response.status_code"] == 200
    assert (second.attributes["server.address"], second.attributes["server.port"]) == ("::1", 8080)


@pytest.mark.parametrize("port", ["99999", "0", "-1", "9" * 20, "9" * 5000, "65536", "\xb2", "x"])
async def test_a_port_that_is_none_costs_neither_the_span_nor_a_line_in_the_log(
    telemetry: Any, instrumented: None, caplog: pytest.LogCaptureFixture, port: str
) -> None:
    for _ in range(2):
        await request(make_app(), "GET", "/items/1", headers={"host": f"a:{port}".encode("latin-1")})
    for span in telemetry.spans():
        assert span.attributes["server.address"] == "a"
        assert "server.port" not in span.attributes
        otlp.span_field(span)
    assert len(telemetry.spans()) == 2
    assert [record for record in caplog.records if record.name.startswith(("bulkscope", "opentelemetry"))] == []
