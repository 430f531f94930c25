"""FastAPI: one SERVER span and one duration measurement for each HTTP request, and the bulk's id.

Both end with the last byte of the answer, so that a streamed response is part of them and background tasks are not:
these are the span's children still, and what they send is the request's. WebSockets and lifespan events pass through
untouched.

Contrib's environment variables hold: ``OTEL_PYTHON_FASTAPI_EXCLUDED_URLS`` (or
``OTEL_PYTHON_EXCLUDED_URLS``), ``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST`` and
``_RESPONSE``, ``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS`` and
``OTEL_SEMCONV_STABILITY_OPT_IN`` (stable names when unset; ``http/dup`` adds the old ones).
``BULKSCOPE_FASTAPI=contrib`` leaves the field to ``opentelemetry-instrumentation-fastapi``.
``BULKSCOPE_ACCESS_EVENTS=0`` switches off the log event of a request that left no access log line.
"""

from __future__ import annotations

from types import ModuleType

from bulkscope._instrumentor import Instrumentor
from bulkscope_instrumentation._asgi import Settings
from bulkscope_instrumentation._starlette import note_route, noting, patch_routing, serving


class FastAPIInstrumentor(Instrumentor):
    """Instrumentor of FastAPI, for every application of the process, made before or after."""

    module = "fastapi"
    requires = ("fastapi >= 0.110",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the application and the routes."""
        from fastapi.routing import APIRoute

        self.replace(
            module.FastAPI, "__call__", serving(module.FastAPI.__call__, Settings.read("FASTAPI"), lambda _: False)
        )
        patch_routing(self)
        if "handle" in APIRoute.__dict__:  # of its own since included routers are no longer copied
            self.replace(APIRoute, "handle", noting(APIRoute.handle, note_route))
