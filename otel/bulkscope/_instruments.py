"""The instruments of ``conventions.METRICS``, created from the global meter when first used.

Bucket boundaries go in as advice to the SDK, so they hold under any distribution's configuration and
a view set by the user still wins.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Any

from opentelemetry import _logs, metrics, trace

from bulkscope import conventions

# The name of our instrumentation scope.
SCOPE = "bulkscope"
AttributeValues = dict[str, str | int | float | bool]

_SPECS = {metric.name: metric for metric in conventions.METRICS}
_instruments: dict[str, Any] = {}


_GLOBAL = {
    "traces": trace.get_tracer_provider, "metrics": metrics.get_meter_provider, "logs": _logs.get_logger_provider,
}  # fmt: skip
_kept: dict[str, Any] = {}


def keep_providers() -> None:
    """Stay with the providers that are global now, whichever an application may set later."""
    _kept.update({signal: get() for signal, get in _GLOBAL.items()})


def provider(signal: str) -> Any:
    """Return the provider of ``traces``, ``metrics`` or ``logs`` that we were set up with, else the global one."""
    return _kept[signal] if signal in _kept else _GLOBAL[signal]()


@cache
def tracer() -> trace.Tracer:
    """Return Bulkscope's tracer; looked up once, since each look-up costs 8 us. One got early follows the SDK."""
    found: trace.Tracer = provider("traces").get_tracer(SCOPE)
    return found


@cache
def logger() -> _logs.Logger:
    """Return Bulkscope's logger, as ``tracer``."""
    found: _logs.Logger = provider("logs").get_logger(SCOPE)
    return found


def meter() -> metrics.Meter:
    """Return Bulkscope's meter."""
    found: metrics.Meter = provider("metrics").get_meter(SCOPE)
    return found


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


# What was recorded and has not reached the SDK yet: (instrument, value, attributes). One measurement costs 20 us
# between a library's own code and 8 us among its like; sums of a kind are added up first and cost one.
_waiting: deque[tuple[Any, float, AttributeValues]] = deque()
_MOST_WAITING = 256  # 2 ms of work, for whoever has to do it


@cache
def _deferred() -> bool:
    """Tell whether measurements may wait for the next collection, and see to it that they reach it.

    Not with exemplars: those are taken from the span that is current when the SDK is told.
    """
    if os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower() != "always_off":
        return False
    # The SDK asks observable instruments before it reads the others. This one has nothing to say of its own.
    meter().create_observable_counter("bulkscope.waiting", callbacks=[_hand_over])
    return True


def _hand_over(options: metrics.CallbackOptions | None = None) -> Iterable[metrics.Observation]:
    sums: dict[tuple[Any, frozenset[Any]], float] = {}
    while True:
        try:
            instrument, value, attributes = _waiting.popleft()
        except IndexError:
            break
        if hasattr(instrument, "record"):
            instrument.record(value, attributes)
        else:
            key = instrument, frozenset(attributes.items())
            sums[key] = sums.get(key, 0) + value
    for (instrument, pairs), value in sums.items():
        instrument.add(value, dict(pairs))
    return ()


def forget() -> None:
    """Drop what waits: in a forked child it is the parent's."""
    _waiting.clear()


def _take(instrument: Any, value: float, attributes: AttributeValues) -> None:
    _waiting.append((instrument, value, dict(attributes)))
    if len(_waiting) >= _MOST_WAITING:
        _hand_over()


def record(name: str, value: float, attributes: AttributeValues) -> None:
    """Record ``value`` (in the unit of ``conventions``) in the histogram ``name``."""
    instrument = _get(name)
    if _deferred():
        _take(instrument, value, attributes)
    else:
        instrument.record(value, attributes)


def add(name: str, value: float, attributes: AttributeValues) -> None:
    """Add ``value`` to the counter or up-down counter ``name``."""
    instrument = _get(name)
    if _deferred():
        _take(instrument, value, attributes)
    else:
        instrument.add(value, attributes)


def observe(name: str, callback: Any) -> None:
    """Report the metric ``name`` through ``callback``, an OpenTelemetry observable callback."""
    spec = _SPECS[name]
    create = {
        "gauge": meter().create_observable_gauge,
        "updown": meter().create_observable_up_down_counter,
        "counter": meter().create_observable_counter,
    }[spec.kind]
    create(name, callbacks=[callback], unit=spec.unit, description=spec.description)
