"""Starlette without FastAPI: one SERVER span and one duration measurement for each HTTP request.

The same as for FastAPI, under ``OTEL_PYTHON_STARLETTE_EXCLUDED_URLS`` and the other variables named there. The
bulk's id is found in a body that the endpoint reads with ``request.json()``.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from bulkscope._instrumentor import Instrumentor
from bulkscope_instrumentation._asgi import Settings
from bulkscope_instrumentation._starlette import patch_routing, serving


class StarletteInstrumentor(Instrumentor):
    """Instrumentor of Starlette, for every application of the process, made before or after."""

    module = "starlette.applications"
    name = "starlette"
    requires = ("starlette >= 0.36",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the application and the routes."""
        starlette = module.Starlette
        self.replace(starlette, "__call__", serving(starlette.__call__, Settings.read("STARLETTE"), _is_fastapi))
        patch_routing(self)


@cache
def _is_fastapi(application: type) -> bool:
    # Its own instrumentor serves it, or has been told to leave it to others. Asked for every request.
    return any(kind.__module__.partition(".")[0] == "fastapi" for kind in application.__mro__)
