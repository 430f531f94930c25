"""What ``bulkscope run`` and the pre-instrument hook set, unless the variable is set already."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from importlib.metadata import EntryPoints, entry_points

from bulkscope._safe import log

# What an instrumentation registers itself under, ours and everybody else's.
_GROUP, _OURS = "opentelemetry_instrumentor", "bulkscope_"

_DEFAULTS = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
    # A live page wants seconds; the SDK's 60 s would show a bulk after it is over.
    "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    # What a killed worker can lose at most, in milliseconds.
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
    # Log records are exported by our own instrumentation, with the bulk's ids.
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "false",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "false",
}

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_SIGNALS = ("TRACES", "METRICS", "LOGS")
_ENDPOINTS = {"http/protobuf": "http://127.0.0.1:4318", "grpc": "http://127.0.0.1:4317"}


def left_to_others(name: str) -> bool:
    """Tell whether the user wants another instrumentation of a library: ``BULKSCOPE_<NAME>=contrib``."""
    return os.environ.get(f"BULKSCOPE_{name.upper().replace('-', '_')}", "").strip().lower() == "contrib"


def superseded() -> dict[str, str]:
    """Return entry point name by module of the other instrumentations of libraries that we instrument.

    Contrib's, OpenLLMetry's, a library's own: two of a kind would give two spans. Ours stays, since the
    others do not carry the bulk's id and the queue wait; the variable above hands a library back.
    """
    found = entry_points(group=_GROUP)
    names = _taken(found)
    return {point.module: point.name for point in found if point.name in names}


def superseded_names() -> set[str]:
    """Return the names under which others may register for what we instrument, installed or not."""
    return _taken(entry_points(group=_GROUP))


# Ours see calls of models alone: who traces all requests of these clients goes on to do so.
_BESIDE = frozenset(("urllib3", "aiohttp"))


def _taken(points: EntryPoints) -> set[str]:
    ours = {point.name.removeprefix(_OURS) for point in points if point.name.startswith(_OURS)} - _BESIDE
    return {name for name in ours if not left_to_others(name)}


def service_name(command: Sequence[str]) -> str:
    """Return a service name made from a command line, of the characters Kibana's APM accepts.

    ``uvicorn shop.api:app`` is ``shop-api``, ``celery -A shop.tasks worker`` is ``shop-tasks``,
    ``python -m shop`` is ``shop``, ``./serve.py`` is ``serve``.
    """
    words = list(command)
    name = os.path.splitext(os.path.basename(words[0]))[0] if words else "bulkscope"
    for option in ("-A", "--app", "-m"):
        if option in words[:-1]:
            name = words[words.index(option) + 1].partition(":")[0]
    for word in words[1:]:
        if word.startswith("--app="):
            name = word.removeprefix("--app=")
        elif re.fullmatch(r"[\w.]+:[\w.()]+", word):
            name = word.partition(":")[0]
        elif word.endswith(".py") and name.startswith("python"):
            name = os.path.basename(word).removesuffix(".py")
    return re.sub(r"[^a-zA-Z0-9 _-]+", "-", name).strip("-") or "bulkscope"


def _protocol(value: str) -> str:
    return value.strip().lower() or _DEFAULTS["OTEL_EXPORTER_OTLP_PROTOCOL"]


def _exporter(signal: str, environ: Mapping[str, str]) -> str:
    """Return ``bulkscope``, our OTLP over HTTP, unless only OpenTelemetry's own exporter can do what is asked."""
    protocol = _protocol(environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ["OTEL_EXPORTER_OTLP_PROTOCOL"])
    proxies = any(environ.get(name) for scheme in _PROXIES for name in (scheme, scheme.upper()))
    if protocol != "http/protobuf" or proxies or any("CREDENTIAL_PROVIDER" in name for name in environ):
        return "otlp"
    return "bulkscope"


def _installed_propagators(names: str) -> str:
    """Return those of ``OTEL_PROPAGATORS`` that are installed: for one that is not, OpenTelemetry fails as a whole."""
    known = {point.name for point in entry_points(group="opentelemetry_propagator")}
    kept = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name in known or name.lower() == "none":
            kept.append(name)
        else:
            log(logging.WARNING, "OTEL_PROPAGATORS names %s, which is not installed here; it is left out", name)
    return ",".join(kept) or "none"


def apply(environ: MutableMapping[str, str]) -> None:
    """Set the defaults in ``environ``; a variable that is set, even to nothing, stays as it is.

    But for propagators that are not installed.
    """
    for name, value in _DEFAULTS.items():
        environ.setdefault(name, value)
    if environ.get("OTEL_PROPAGATORS", "").strip():
        environ["OTEL_PROPAGATORS"] = _installed_propagators(environ["OTEL_PROPAGATORS"])
    for signal in _SIGNALS:
        environ.setdefault(f"OTEL_{signal}_EXPORTER", _exporter(signal, environ))
    endpoint = _ENDPOINTS.get(_protocol(environ["OTEL_EXPORTER_OTLP_PROTOCOL"]))
    if endpoint and not any(
        f"OTEL_EXPORTER_OTLP{signal}_ENDPOINT" in environ for signal in ("", *(f"_{name}" for name in _SIGNALS))
    ):
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
