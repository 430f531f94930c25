"""What stands beside Bulkscope, and what the variables say: distributions, propagators, samplers, agents, loggers."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace

import bulkscope
from bulkscope import _instruments
from bulkscope._doctor.findings import FAULT, OK, WARNING, Finding
from bulkscope._export import pipeline
from bulkscope._jobs import bulks
from bulkscope._jobs.processor import BulkSpanProcessor

SUBJECT = "surroundings"

# Agents and vendors' packages that may set a provider of their own, by package.
_AGENTS = {
    "sentry-sdk": "Sentry", "logfire": "Logfire", "ddtrace": "Datadog", "newrelic": "New Relic",
    "elastic-apm": "Elastic APM's agent", "elastic-opentelemetry": "Elastic's distribution",
    "traceloop-sdk": "Traceloop", "openlit": "OpenLIT", "azure-monitor-opentelemetry": "Azure Monitor",
}  # fmt: skip
# Traces that are begun to see how many are recorded: a sampler of 0.99 leaves one of a thousand in no run of 10^4.
_TRIED = 1000
# Do not pass through the module logging.
_LOGGERS = {"loguru": "loguru", "structlog": "structlog's PrintLogger"}


def is_set_up() -> bool:
    """Tell whether Bulkscope's parts stand in this process's tracer provider."""
    provider = trace.get_tracer_provider()
    return any(isinstance(each, BulkSpanProcessor) for each in pipeline.processors("traces", provider))


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def findings(set_up: bool) -> list[Finding]:
    """Return what is said of everything that stands beside Bulkscope; ``set_up`` as ``is_set_up``."""
    found = [*_switches(), *_distributions()]
    if set_up:
        found += [*_provider(), *_sampler(), *_propagators()]
    return [*found, *_agents(), *_logs(), *_left_out()]


def _switches() -> list[Finding]:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        what = "OTEL_SDK_DISABLED=true: OpenTelemetry is switched off, and Bulkscope with it"
        return [Finding(SUBJECT, FAULT, what, "unset OTEL_SDK_DISABLED")]
    return []


def _distributions() -> list[Finding]:
    names = sorted({point.name for point in metadata.entry_points(group="opentelemetry_distro")})
    if not names:
        return [Finding(SUBJECT, OK, "no distribution of OpenTelemetry: Bulkscope sets up the SDK")]
    chosen = os.environ.get("OTEL_PYTHON_DISTRO", "")
    if chosen and chosen not in names:
        what = f"OTEL_PYTHON_DISTRO={chosen}, and there are {', '.join(names)}"
        return [Finding(SUBJECT, WARNING, what, "set it to one of them, or unset it")]
    if len(names) > 1 and not chosen:
        what = f"several distributions of OpenTelemetry, of which the first found is taken: {', '.join(names)}"
        return [Finding(SUBJECT, WARNING, what, "name one in OTEL_PYTHON_DISTRO")]
    return [Finding(SUBJECT, OK, f"distribution of OpenTelemetry: {chosen or names[0]}")]


def _provider() -> list[Finding]:
    provider = type(trace.get_tracer_provider())
    found = f"{provider.__module__}.{provider.__qualname__}"
    if provider.__module__.startswith("opentelemetry.sdk."):
        return []
    return [Finding(SUBJECT, OK, f"the tracer provider is {found}; Bulkscope has added itself to it")]


def recorded() -> tuple[float, bool]:
    """Return the share of new traces that are recorded, and whether one is whose caller has not sampled it.

    By asking the provider as jobs do: a sampler's name does not say what stands behind it. Nothing is ended, or sent.
    """
    tracer, started = _instruments.tracer(), 0
    for _ in range(_TRIED):
        started += tracer.start_span("doctor", context=otel_context.Context()).is_recording()
    caller = trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.DEFAULT))
    beneath = trace.set_span_in_context(trace.NonRecordingSpan(caller), otel_context.Context())
    return started / _TRIED, tracer.start_span("doctor", context=beneath).is_recording()


def _sampler() -> list[Finding]:
    sampler: Any = getattr(trace.get_tracer_provider(), "sampler", None)
    described = str(sampler.get_description()) if hasattr(sampler, "get_description") else "of no name"
    shown = f"sampler: {described.replace('{', '(').replace('}', ')').partition(',')[0]}"
    shown += ")" * (shown.count("(") - shown.count(")"))
    share, beneath = recorded()
    named = f"OTEL_TRACES_SAMPLER={os.environ['OTEL_TRACES_SAMPLER']}, " if "OTEL_TRACES_SAMPLER" in os.environ else ""
    todo = "unset OTEL_TRACES_SAMPLER" if named else "see what sets it: a distribution, a configuration file"
    if share == 0:
        return [Finding(SUBJECT, FAULT, f"{named}{shown}: no span is recorded", f"{todo}, so that they are")]
    if share < 1:
        what = f"{named}{shown}: about {share:.0%} of the traces are recorded, so that jobs of a bulk are missing"
        return [Finding(SUBJECT, WARNING, what, f"{todo}: bulks are accounts, not samples")]
    if beneath:
        return [Finding(SUBJECT, OK, f"{named}{shown}: every span of Bulkscope's is recorded")]
    what = f"{named}{shown}: spans are recorded unless a caller's traceparent says not to (…-00, as of some meshes)"
    return [Finding(SUBJECT, OK, what, "if callers send it: OTEL_TRACES_SAMPLER=always_on")]


def carried() -> tuple[bool, bool]:
    """Return whether a bulk's id, and whether a trace, reach a worker: by a job to ourselves, without a queue."""
    with bulkscope.enqueue("doctor", bulk_id="doctor") as job:
        sent = trace.get_current_span().get_span_context()
    with bulkscope.dequeue("doctor", headers=job.headers):
        bulk, span = bulks.current(), trace.get_current_span().get_span_context()
    return bulk is not None and bulk.id == "doctor", span.trace_id == sent.trace_id


def _propagators() -> list[Finding]:
    fields = ", ".join(sorted(propagate.get_global_textmap().fields)) or "none"
    shown = f"propagators: {os.environ.get('OTEL_PROPAGATORS') or 'the default'} (headers: {fields})"
    bulk, traced = carried()
    if not bulk:
        what = f"{shown}: a bulk's id does not reach the worker, whose jobs seem to wait for ever"
        return [Finding(SUBJECT, WARNING, what, "add baggage and tracecontext to OTEL_PROPAGATORS, or unset it")]
    if not traced:
        what = f"{shown}: a job is not in the trace of the request that sent it"
        return [Finding(SUBJECT, WARNING, what, "add tracecontext to OTEL_PROPAGATORS, or unset it")]
    return [Finding(SUBJECT, OK, f"{shown}; a bulk's id and its trace reach the worker")]


def _agents() -> list[Finding]:
    there = [f"{said} {version}" for package, said in _AGENTS.items() if (version := _installed(package))]
    if not there:
        return []
    what = f"also here: {', '.join(there)}; docs/surroundings.md has what was tried beside Bulkscope"
    return [Finding(SUBJECT, OK, what)]


def _logs() -> list[Finding]:
    found = []
    if os.environ.get("BULKSCOPE_LOGS", "1").strip() == "0":
        found.append(Finding(SUBJECT, WARNING, "BULKSCOPE_LOGS=0: no log record is stored", "unset BULKSCOPE_LOGS"))
    if level := os.environ.get("BULKSCOPE_LOG_LEVEL", "").strip():
        found.append(Finding(SUBJECT, OK, f"BULKSCOPE_LOG_LEVEL={level}: log records below it are not stored"))
    for package, said in _LOGGERS.items():
        if version := _installed(package):
            found.append(
                Finding(SUBJECT, OK, f"{package} {version}: what {said} writes by itself is not stored; "
                        "docs/surroundings.md has the lines that send it through logging")
            )  # fmt: skip
    return found


def _left_out() -> list[Finding]:
    """Return which requests are not recorded, by contrib's two variables."""
    found = []
    for name in (
        "OTEL_PYTHON_EXCLUDED_URLS",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS",
        "OTEL_PYTHON_STARLETTE_EXCLUDED_URLS",
    ):
        if patterns := os.environ.get(name, ""):
            found.append(Finding(SUBJECT, OK, f"{name}: requests whose URL matches {patterns} are not recorded"))
    return found
