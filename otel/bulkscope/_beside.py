"""An application may set providers of its own after ours, as if there were none: both get their data.

OpenTelemetry takes the first provider and refuses the next with a warning, which would silence the exporter of an
application, of Logfire or of Sentry. Here the next one becomes the global provider as its owner wants it. Spans then
come from that provider, whoever makes them, ours too: with its sampler, its resource and its processors. One of ours
is added to it by ``add_span_processor`` and hands each span to the exporters that we were set up with. Metrics and log
records of ours stay with the providers that we were set up with, the application's go to its own.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.util._once import Once

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._export import pipeline
from bulkscope._jobs import sampling
from bulkscope._jobs.processor import BulkSpanProcessor
from bulkscope._safe import guarded

_SHARED = ("service.name", "service.namespace", "service.version", "deployment.environment.name")
# What makes an SDK's tracer the tracer of its provider.
_OF_PROVIDER = ("sampler", "resource", "id_generator", "_span_limits")


def _is_set_up() -> bool:
    """Tell whether OpenTelemetry's own set-up is calling, for the second time: it wants what is there already."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "opentelemetry.sdk._configuration":
            return True
    return False


class _Again(Once):
    """Lets an application set one more provider, and hears of it."""

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self._heard = heard

    def do_once(self, func: Callable[[], None]) -> bool:
        """As of ``Once``."""
        done = not _is_set_up() and super().do_once(func)
        if done:
            self._heard()
        return done


class Beside(BulkSpanProcessor):
    """In an application's provider: hands each span to the exporters of ``ours``, with the resource they know us by."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self._ours, self._exporters = ours, pipeline.exporting(ours)
        self._merged: tuple[Any, Any, Any] = (None, None, None)

    @guarded
    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a span that is sampled, or is ours."""
        counted = sampling.is_only_counted(span)
        if not counted and not (span.context and span.context.trace_flags.sampled):
            return
        found = sampling.as_sampled(span) if counted else copy.copy(span)
        found._resource = self._resource(span.resource)
        for processor in self._exporters:
            processor.on_end(found)

    def _resource(self, theirs: Resource) -> Resource:
        ours = self._ours.resource
        before, known, merged = self._merged
        if before is not theirs or known is not ours:  # ours is another one after a fork
            merged = theirs.merge(ours)
            self._merged = theirs, ours, merged
        return merged  # type: ignore[no-any-return]


def _sdk(provider: Any) -> Any:
    """Return the SDK's provider; Logfire's stands around it."""
    return provider if hasattr(provider, "_active_span_processor") else getattr(provider, "provider", None)


@guarded
def _join() -> None:
    """Let every tracer of ours be one of the provider that has just been set."""
    theirs, ours = trace.get_tracer_provider(), _instruments.provider("traces")
    sdk = _sdk(theirs)
    if theirs is ours or not hasattr(sdk, "_active_span_processor") or not hasattr(theirs, "add_span_processor"):
        return  # not OpenTelemetry's SDK: each keeps to itself
    _share_name(sdk.resource)
    theirs.add_span_processor(Beside(ours))
    _instruments.tracer()  # made by now, and among these
    while ours._tracers:
        scope, tracer = ours._tracers.popitem()
        for name in _OF_PROVIDER:
            setattr(tracer, name, getattr(sdk, name))
        tracer.span_processor = sdk._active_span_processor
        sdk._tracers[scope] = tracer  # a fork renews the resource of its tracers
    if not sampling.respected():
        sampling.count_all()


def _share_name(theirs: Resource) -> None:
    """Call the service, in metrics and log records too, what the application calls it."""
    given = {name: value for name, value in theirs.attributes.items() if name in _SHARED}
    if str(given.get(c.SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        given.pop(c.SERVICE_NAME, None)
    pipeline.update_resource(given)


def allow() -> None:
    """Keep to the providers that are global now, and let an application set its own."""
    _instruments.keep_providers()
    for module, name, heard in (
        (trace, "_TRACER_PROVIDER_SET_ONCE", _join),
        (metrics._internal, "_METER_PROVIDER_SET_ONCE", lambda: None),
        (_logs._internal, "_LOGGER_PROVIDER_SET_ONCE", lambda: None),
    ):
        if hasattr(module, name):
            setattr(module, name, _Again(heard))
