"""What FastAPI and plain Starlette have in common: serving a request, noting its route, reading its body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import bulks
from bulkscope._safe import report
from bulkscope_instrumentation._asgi import SCOPE_KEY, Scope, ServerRequest, Settings

# FastAPI >= 0.142 traces a request itself unless this key is in the scope; None is "no telemetry" to it.
_NATIVE_KEY = "fastapi.telemetry"
_OURS = "_bulkscope"


def patch_routing(instrumentor: Instrumentor) -> None:
    """Wrap Starlette's routes (to learn which one was taken) and ``Request.json``, unless they are already."""
    from starlette.requests import Request
    from starlette.routing import Mount, Route

    for parent, attribute, wrapper in (
        (Mount, "handle", noting(Mount.handle, _note_mount)),
        (Route, "handle", noting(Route.handle, note_route)),
        (Request, "json", _reading(Request.json)),
    ):
        if not hasattr(parent.__dict__.get(attribute), _OURS):
            instrumentor.replace(parent, attribute, wrapper)


def serving(original: Callable[..., Awaitable[None]], settings: Settings, skip: Callable[[type], bool]) -> Any:
    """Return an application's ``__call__`` that gives each request a span; ``skip`` tells the classes left alone."""

    def begin(app: Any, scope: Scope) -> ServerRequest | None:
        # Set before anything can fail: the application must not start a second span in any case.
        scope[SCOPE_KEY] = None
        scope[_NATIVE_KEY] = None
        try:
            if settings.excluded is not None and settings.excluded.url_disabled(_url(scope)):
                return None
            prefix = (getattr(app, "root_path", None) or scope.get("root_path") or "").rstrip("/")
            scope[SCOPE_KEY] = request = ServerRequest(scope, prefix, settings)
            return request
        except Exception:
            report("the start of an http request")
            return None

    # A coroutine function, because servers tell ASGI 2 from ASGI 3 by that.
    async def __call__(self: Any, scope: Scope, receive: Any, send: Any) -> None:
        # A key that is there is an application mounted in another one: the outer one has the span.
        if scope["type"] != "http" or SCOPE_KEY in scope or skip(type(self)):
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


def noting(
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

    setattr(handle, _OURS, True)
    return handle


def _note_mount(mount: Any, scope: Scope, request: ServerRequest) -> None:
    request.prefix += mount.path
    request.route = request.prefix + "/{path}"  # unless a route inside is taken


def note_route(route: Any, scope: Scope, request: ServerRequest) -> None:
    path = route.path_format
    # Newer FastAPI keeps an included route as it was written; the path with the prefixes of the
    # routers it was included through is in this context.
    effective = (scope.get("fastapi") or {}).get("effective_route_context")
    if effective is not None and effective.original_route is route:
        path = getattr(effective.starlette_route, "path_format", None) or effective.path_format
    request.route = request.prefix + path
    params = scope.get("path_params")
    if params:
        for key in bulks.KEYS:
            if key in params:
                request.learn(bulks.clean(str(params[key])), "path")


def _reading(original: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return ``Request.json`` (which FastAPI calls too) that looks for the bulk's id in what it parsed."""

    async def json(self: Any) -> Any:
        body = await original(self)
        try:
            request = self.scope.get(SCOPE_KEY)
            if request is not None:
                request.learn(bulks.find(body), "body")
        except Exception:
            report("the body of an http request")
        return body

    setattr(json, _OURS, True)
    return json


def _url(scope: Scope) -> str:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    if not host and scope.get("server"):
        host = ":".join(str(part) for part in scope["server"] if part is not None)
    return f"{scope.get('scheme', 'http')}://{host}{scope['path']}"
