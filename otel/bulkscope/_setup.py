"""The pre-instrument hook: runs in every launched process before its libraries are instrumented.

Under a distribution (Elastic's, OpenTelemetry's own) the SDK is configured by then and is taken as it
is; without one it is configured here, from the same ``OTEL_*`` variables.
"""

from __future__ import annotations

import _thread
import os
import sys
from types import ModuleType
from typing import Any

import wrapt
from opentelemetry import trace

import bulkscope
from bulkscope import _beside, _defaults, _green, _lifecycle
from bulkscope._export import drops, pipeline
from bulkscope._host import process_metrics, resource
from bulkscope._jobs import sampling
from bulkscope._jobs.processor import BulkSpanProcessor
from bulkscope._safe import guarded, report, say_once


def _configure_sdk() -> None:
    """Configure the SDK from the environment, as every distribution does, unless it is already."""
    if hasattr(trace.get_tracer_provider(), "add_span_processor"):
        return
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator

    configurator: Any = _OTelSDKConfigurator
    configurator().configure(auto_instrumentation_version=None)


@guarded  # what is raised here would be raised by the application's import
def _silence(module: ModuleType) -> None:
    """Make another instrumentor of a library that we instrument do nothing: one span, not two."""
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    def skip(self: Any, **kwargs: Any) -> None:
        return None

    for value in list(vars(module).values()):
        if isinstance(value, type) and issubclass(value, BaseInstrumentor) and value.__module__ == module.__name__:
            setattr(value, "_instrument", skip)  # noqa: B010 (mypy sees a plain type)
            setattr(value, "_uninstrument", skip)  # noqa: B010


_done = False


def pre_instrument() -> None:
    """Set defaults, configure the SDK if nobody has, and put Bulkscope's parts into it."""
    global _done
    # Where no daemon threads may be, an interpreter beside the main one (concurrent.futures.InterpreterPoolExecutor),
    # nothing could be sent.
    if not getattr(_thread, "daemon_threads_allowed", lambda: True)():
        return
    if _done or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    _done = True  # an application may initialise a second time what `bulkscope run` has
    try:
        _green.patch_early(sys.orig_argv)  # where OpenTelemetry's own launcher was used
        bulkscope.resolve()
        say_once("opentelemetry.baggage.propagation")
        _defaults.apply(os.environ)
        for module in _defaults.superseded():
            wrapt.register_post_import_hook(_silence, module)
        _configure_sdk()
        provider = trace.get_tracer_provider()
        if not hasattr(provider, "add_span_processor"):
            return
        pipeline.update_resource(resource.attributes() | sampling.resource_attributes(provider))
        provider.add_span_processor(BulkSpanProcessor(pipeline.exporting(provider)))
        if not sampling.respected():
            sampling.count_all()
        drops.watch()
        if (ours := sys.modules.get("bulkscope._export.exporters")) is not None:
            ours.encode_early()
        _beside.allow()
        process_metrics.observe()
        _lifecycle.watch()
    except Exception:
        report("setting up")
