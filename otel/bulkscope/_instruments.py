"""The instruments of ``conventions.METRICS``, created from the global meter when first used.

Bucket boundaries go in as advice to the SDK, so they hold under any distribution's configuration and
a view set by the user still wins.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from opentelemetry import _logs, metrics, trace

from bulkscope import conventions

AttributeValues = dict[str, str | int | float | bool]

_SPECS = {metric.name: metric for metric in conventions.METRICS}
_instruments: dict[str, Any] = {}


@cache
def tracer() -> trace.Tracer:
    """Return Bulkscope's tracer; looked up once, since each look-up costs 8 us. One got early follows the SDK."""
    return trace.get_tracer("bulkscope")


@cache
def logger() -> _logs.Logger:
    """Return Bulkscope's logger, as ``tracer``."""
    return _logs.get_logger("bulkscope")


def meter() -> metrics.Meter:
    """Return Bulkscope's meter of the global provider."""
    return metrics.get_meter("bulkscope")


def _create(name: str) -> Any:
    spec = _SPECS[name]
    if spec.kind == "histogram":
        return meter().create_histogram(
            name, spec.unit, spec.description, explicit_bucket_boundaries_advisory=spec.buckets
        )
    if spec.kind == "counter":
        return meter().create_counter(name, spec.unit, spec.description)
    if spec.kind == "updown":
        return meter().create_up_down_counter(name, spec.unit, spec.description)
    raise ValueError(f"{name} is a gauge: observe it through bulkscope._instruments.meter()")


def _get(name: str) -> Any:
    instrument = _instruments.get(name)
    if instrument is None:
        instrument = _instruments[name] = _create(name)
    return instrument


def record(name: str, value: float, attributes: AttributeValues) -> None:
    """Record ``value`` (in the unit of ``conventions``) in the histogram ``name``."""
    _get(name).record(value, attributes)


def add(name: str, value: float, attributes: AttributeValues) -> None:
    """Add ``value`` to the counter or up-down counter ``name``."""
    _get(name).add(value, attributes)


def observe(name: str, callback: Any) -> None:
    """Report the gauge ``name`` through ``callback``, an OpenTelemetry observable callback."""
    spec = _SPECS[name]
    create = meter().create_observable_gauge if spec.kind == "gauge" else meter().create_observable_up_down_counter
    create(name, callbacks=[callback], unit=spec.unit, description=spec.description)
