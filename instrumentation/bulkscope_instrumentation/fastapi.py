"""FastAPI: one SERVER span and one duration measurement for each HTTP request, and the bulk's id.

Both end when the application has returned, so that a streamed response and background tasks are part
of them. WebSockets and lifespan events pass through untouched.

Contrib's environment variables hold: ``OTEL_PYTHON_FASTAPI_EXCLUDED_URLS`` (or
``OTEL_PYTHON_EXCLUDED_URLS``), ``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST`` and
``_RESPONSE``, ``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS`` and
``OTEL_SEMCONV_STABILITY_OPT_IN`` (stable names when unset; ``http/dup`` adds the old ones).
``BULKSCOPE_FASTAPI=contrib`` leaves the field to ``opentelemetry-instrumentation-fastapi``.
``BULKSCOPE_ACCESS_EVENTS=0`` switches off the log event of a request that left no access log line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from bulkscope import _bulk
from bulkscope._instrumentor import Instrumentor
from bulkscope._safe import report
from bulkscope_instrumentation._asgi import SCOPE_KEY, Scope, ServerRequest, Settings

# FastAPI >= 0.142 traces a request itself unless this key is in the scope; None is "no telemetry" to it.
_NATIVE_KEY = "fastapi.telemetry"


class FastAPIInstrumentor(Instrumentor):
    """Instrumentor of FastAPI, for every application of the process, made before or after."""

    module = "fastapi"
    requires = ("fastapi >= 0.110",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the application, the routes (to learn which one was taken) and ``Request.json``."""
        from fastapi.routing import APIRoute
        from starlette.requests import Request
        from starlette.routing import Mount, Route

        settings = Settings.read("FASTAPI")
        self.replace(module.FastAPI, "__call__", _serving(module.FastAPI.__call__, settings))
        self.replace(Mount, "handle", _noting(Mount.handle, _note_mount))
        self.replace(Route, "handle", _noting(Route.handle, _note_route))
        if "handle" in APIRoute.__dict__:  # of its own since included routers are no longer copied
            self.replace(APIRoute, "handle", _noting(APIRoute.handle, _note_route))
        self.replace(Request, "json", _reading(Request.json))


def _serving(original: Callable[..., Awaitable[None]], settings: Settings) -> Any:
    def begin(app: Any, scope: Scope) -> ServerRequest | None:
        # Set before anything can fail: the application must not start a second span in any case.
        scope[SCOPE_KEY] = None
        scope[_NATIVE_KEY] = None
        try:
            if settings.excluded is not None and settings.excluded.url_disabled(_url(scope)):
                return None
            prefix = (app.root_path or scope.get("root_path") or "").rstrip("/")
            scope[SCOPE_KEY] = request = ServerRequest(scope, prefix, settings)
            return request
        except Exception:
            report("the start of an http request")
            return None

    # A coroutine function, because servers tell ASGI 2 from ASGI 3 by that.
    async def __call__(self: Any, scope: Scope, receive: Any, send: Any) -> None:
        # A key that is there is an application mounted in another one: the outer one has the span.
        if scope["type"] != "http" or SCOPE_KEY in scope:
            return await original(self, scope, receive, send)
        request = begin(self, scope)
        if request is None:
            return await original(self, scope, receive, send)
        try:
            await original(self, scope, receive, request.watch(send))
        except BaseException as error:
            request.end(error)
            raise
        request.end(None)

    return __call__


def _noting(
    original: Callable[..., Awaitable[None]], note: Callable[[Any, Scope, ServerRequest], None]
) -> Callable[..., Awaitable[None]]:
    """Return a ``handle`` of a route that notes the route before it is taken."""

    def handle(self: Any, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        request = scope.get(SCOPE_KEY)
        if request is not None:
            try:
                note(self, scope, request)
            except Exception:
                report("the route of an http request")
        return original(self, scope, receive, send)

    return handle


def _note_mount(mount: Any, scope: Scope, request: ServerRequest) -> None:
    request.prefix += mount.path
    request.route = request.prefix + "/{path}"  # unless a route inside is taken


def _note_route(route: Any, scope: Scope, request: ServerRequest) -> None:
    path = route.path_format
    # Newer FastAPI keeps an included route as it was written; the path with the prefixes of the
    # routers it was included through is in this context.
    effective = (scope.get("fastapi") or {}).get("effective_route_context")
    if effective is not None and effective.original_route is route:
        path = getattr(effective.starlette_route, "path_format", None) or effective.path_format
    request.route = request.prefix + path
    params = scope.get("path_params")
    if params:
        for key in _bulk.KEYS:
            if key in params:
                request.learn(_bulk.clean(str(params[key])), "path")


def _reading(original: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return ``Request.json`` (which FastAPI calls too) that looks for the bulk's id in what it parsed."""

    async def json(self: Any) -> Any:
        body = await original(self)
        try:
            request = self.scope.get(SCOPE_KEY)
            if request is not None:
                request.learn(_bulk.find(body), "body")
        except Exception:
            report("the body of an http request")
        return body

    return json


def _url(scope: Scope) -> str:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    if not host and scope.get("server"):
        host = ":".join(str(part) for part in scope["server"] if part is not None)
    return f"{scope.get('scheme', 'http')}://{host}{scope['path']}"
