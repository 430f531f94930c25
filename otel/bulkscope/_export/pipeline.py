"""The few places where the SDK has no public way to reach what stands in its pipeline.

Everything here is looked up defensively: an SDK that is laid out otherwise loses the extra (a count, a
clean start after a fork), never the telemetry.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

from bulkscope import _instruments


def providers() -> dict[str, Any]:
    """Return the SDK providers of ours by signal; one that is not the SDK's is left out."""
    found = {signal: _instruments.provider(signal) for signal in ("traces", "metrics", "logs")}
    return {signal: provider for signal, provider in found.items() if hasattr(provider, "force_flush")}


def processors(signal: str, provider: Any) -> Iterator[Any]:
    """Yield the batch processors (traces, logs) or metric readers of a provider."""
    if signal == "metrics":
        # Older SDKs keep the readers in the configuration of the provider.
        readers: Any = getattr(provider, "_metric_readers", None)
        if readers is None:
            readers = getattr(getattr(provider, "_sdk_config", None), "metric_readers", ())
        yield from readers
        return
    name = "_active_span_processor" if signal == "traces" else "_multi_log_record_processor"
    several = getattr(provider, name, None)
    for processor in getattr(several, "_span_processors", getattr(several, "_log_record_processors", ())):
        yield getattr(processor, "_batch_processor", processor)


def exporting(provider: Any) -> list[Any]:
    """Return the span processors of ``provider`` that export, as they were added."""
    added = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    return [processor for processor in added if hasattr(processor, "span_exporter")]


def exporters() -> Iterator[tuple[str, Any, Any]]:
    """Yield (signal, processor, exporter) of every pipeline."""
    for signal, provider in providers().items():
        for processor in processors(signal, provider):
            exporter = getattr(processor, "_exporter", None)
            if exporter is not None:
                yield signal, processor, exporter


def forget_metrics() -> None:
    """Drop what the metrics have added up so far, so that a forked child starts from nothing.

    The SDK copies the parent's sums into the child, and both then report them: a job counted before the
    fork would be counted again by every child.
    """
    consumer = getattr(providers().get("metrics"), "_measurement_consumer", None)
    for storage in getattr(consumer, "_reader_storages", {}).values():
        matches = getattr(storage, "_instrument_view_instrument_matches", None)
        if matches is not None:
            matches.clear()


def renew_locks() -> None:
    """Free a forked child of locks that threads of the parent held: the SDK renews those of its batches alone.

    A child forked while the parent collected hung with its first measurement (8 of 400 at 50 ms an interval); one
    forked while the parent exported never exported metrics again.
    """
    provider = providers().get("metrics")
    consumer: Any = getattr(provider, "_measurement_consumer", None)
    holders: list[tuple[Any, str, Any]] = [(consumer, "_lock", threading.Lock)]
    holders += [(storage, "_lock", threading.RLock) for storage in getattr(consumer, "_reader_storages", {}).values()]
    if provider is not None:
        holders += [(reader, "_export_lock", threading.Lock) for reader in processors("metrics", provider)]
    for holder, name, make in holders:
        if hasattr(holder, name):
            setattr(holder, name, make())


def renew_connections() -> None:
    """Close inherited connections in a forked child: two processes must not write on one socket."""
    for _, _, exporter in exporters():
        if hasattr(exporter, "renew"):
            exporter.renew()
            continue
        transport = getattr(getattr(exporter, "_client", None), "_transport", None)
        session = getattr(transport, "_session", getattr(exporter, "_session", None))
        if session is not None and hasattr(session, "close"):
            session.close()


def update_resource(attributes: dict[str, Any]) -> None:
    """Merge ``attributes`` over the resource of every provider."""
    # Not imported: a forked child does this, and where the SDK's providers are its module is.
    extra = sys.modules["opentelemetry.sdk.resources"].Resource(attributes)
    for provider in providers().values():
        if hasattr(provider, "_update_resource"):  # from SDK 1.44 on
            provider._update_resource(extra)
        else:
            holder: Any = getattr(provider, "_sdk_config", provider)
            name = "resource" if holder is not provider else "_resource"
            if hasattr(holder, name):
                setattr(holder, name, getattr(holder, name).merge(extra))
            # It keeps what it has made, and that keeps the resource of its making.
            for tracer in getattr(provider, "_tracers", {}).values():
                tracer.resource = provider._resource
            for logger in getattr(provider, "_logger_cache", {}).values():
                logger._resource = provider._resource


def set_attributes(span: Any, attributes: dict[str, Any]) -> None:
    """Set attributes that are known to be scalars; the SDK's own way checks and copies each, 1 us apiece."""
    held: Any = getattr(span, "_attributes", None)
    values = getattr(held, "_dict", None)
    if (
        type(values) is dict
        and getattr(held, "max_value_len", 0) is None
        and len(values) + len(attributes) <= (held.maxlen or 0)
        and span.is_recording()
    ):
        with held._lock:
            values.update(attributes)
    else:
        span.set_attributes(attributes)
