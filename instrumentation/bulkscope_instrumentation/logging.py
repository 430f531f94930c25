"""Standard logging: every record with the ids of its bulk, job, trace and span, exported as OTLP.

Seen by a last filter of every logger: loggers that do not propagate (uvicorn's, Celery's) are seen too, and nothing
of ours is in the stack when filters and handlers of the application are called. The ids are also set on the record
itself, for the formats of the application: ``%(bulk_id)s``, ``%(bulk_job_id)s``, ``%(otelTraceID)s``,
``%(otelSpanID)s``.

``BULKSCOPE_LOGS=0`` leaves logging alone: no export, no ids. ``BULKSCOPE_LOG_LEVEL`` exports from that level on
(default: all that the application's loggers let through).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MethodType, ModuleType
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_current, get_value

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import bulks
from bulkscope._jobs.bulks import Bulk
from bulkscope._safe import report

# The lines that servers write for each hit; with one of these recorded, no event of our own is needed.
ACCESS_LOGS = frozenset(("uvicorn.access", "gunicorn.access", "hypercorn.access"))
_QUERY = re.compile(r"\?[^\s\"]*")

# What logging itself puts on a record; anything else was given by the application as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message", "data",
    "bulk_id", "bulk_job_id", "otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName",
}  # fmt: skip

# What libraries put into lines of their own although it may be a prompt or an answer: by logger, the named
# arguments of the message. Celery writes a task's result when it has succeeded.
PRIVATE = {"celery.app.trace": frozenset(("args", "kwargs", "return_value"))}
NOT_RECORDED = "(not recorded)"
# Lines of libraries, most of them at debug level, whose arguments hold prompts or answers: they are stored as
# they stand in the library's source, with nothing filled in.
TEMPLATES = (
    "Kicking %s with args", "Received message: %s", "Cannot parse message", "TaskPool: Apply", "Request options: %s",
    "Worker %s: result: %r", "Prepare to send %r", "Received frame %r", "Sending (key=%s value=%s) to %s",
    "Making request for %s with params", "Response body:", "Calling %s:%s with %r", "Response: %r",
)  # fmt: skip
# These write a job as its call, "summarise('the prompt')", or its result, "● 'the answer'": both are left out.
# Procrastinate writes "summarise[7](prompt='…')", SAQ "Job<function: summarise, kwargs: {…}, …>".
CALLS = frozenset(("arq", "bullmq", "dramatiq", "huey", "procrastinate", "rq", "saq", "taskiq"))
_CALL = re.compile(
    r"(?<=[\w>\]])\(.*\)|(?<=● ).+|(?<=^Result: ).+|(?<= - Result: ).+|(?<=, kwargs[:=]).+|(?<=, result[:=]).+",
    re.DOTALL,
)

# Characters of a body or an attribute; a longer one is cut and what was cut is counted. A log line is not a
# place for a document, and one of a megabyte would take the place of a thousand others in the send queue.
MAX_TEXT = 32 * 1024


class LoggingInstrumentor(Instrumentor):
    """Instruments ``logging.Logger``."""

    module = "logging"

    def patch(self, module: ModuleType) -> None:
        """Be the last filter of every logger: what passes it goes to the handlers."""
        if os.environ.get("BULKSCOPE_LOGS", "1").strip().lower() in ("0", "false"):
            return
        level = _level(os.environ.get("BULKSCOPE_LOG_LEVEL", ""))
        self.replace(module.Logger, "filter", LastFilter(module.Logger.filter, _recording(level)))


def _level(text: str) -> int:
    text = text.strip().upper()
    if text.isdigit():
        return int(text)
    level = logging.getLevelNamesMapping().get(text or "NOTSET")
    if level is None:
        logging.getLogger("bulkscope").warning(
            "BULKSCOPE_LOG_LEVEL=%s is no level; every record is exported. Write for example INFO", text
        )
        return logging.NOTSET
    return level


class _Asked:
    """What a logger's filters are asked through: they, and ours as the last one."""

    def __init__(self, logger: logging.Logger, last: Callable[[Any], bool]) -> None:
        self._logger, self.filters = logger, [*logger.filters, last]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


class LastFilter:
    """In place of ``Logger.filter``: logging's own function, which finds one filter more than the logger has.

    A function of ours around ``Logger.filter`` or ``Logger.callHandlers`` would stand in the stack of every filter or
    handler of the application, and those that look up it for the caller (loguru's ``InterceptHandler``) would find us.
    """

    def __init__(self, original: Callable[[Any, Any], Any], last: Callable[[Any], bool]) -> None:
        self._original, self._last = original, last

    def __get__(self, logger: logging.Logger | None, kind: type | None = None) -> Any:
        if logger is None:
            return self
        try:
            return MethodType(self._original, _Asked(logger, self._last))
        except Exception:
            if getattr(logger, "name", None) != "bulkscope":  # which says this: it would ask itself, and so on
                report("a log record")
            return MethodType(self._original, logger)

    def __call__(self, logger: logging.Logger, record: logging.LogRecord) -> Any:
        """For whoever wraps ``Logger.filter`` after us."""
        return self.__get__(logger)(record)


def _recording(level: int) -> Callable[[logging.LogRecord], bool]:
    busy = threading.local()

    def recording(record: logging.LogRecord) -> bool:
        try:
            bulk = _mark(record)
            if (
                record.levelno >= level
                # Exporters log too: a record of theirs that was exported would bring forth the next.
                and not record.name.startswith(("opentelemetry", "bulkscope"))
                and not getattr(busy, "now", False)
                and not get_value(_SUPPRESS_INSTRUMENTATION_KEY)
                and not _exported_by_the_sdk()
            ):
                busy.now = True
                try:
                    _emit(record, bulk)
                finally:
                    busy.now = False
        except Exception:
            report("a log record")
        return True

    return recording


def _mark(record: Any) -> Bulk | None:
    """Set the ids on the record; an unknown one is an empty string, so that a format never fails.

    One that is there already is the application's own, or came with a record from another process: it stays.
    """
    span = trace.get_current_span().get_span_context()
    bulk = bulks.current()
    known = {
        "otelTraceID": trace.format_trace_id(span.trace_id) if span.is_valid else "",
        "otelSpanID": trace.format_span_id(span.span_id) if span.is_valid else "",
        "bulk_id": (bulk.id if bulk else bulks.from_baggage()) or "",
        "bulk_job_id": (bulk.job_id if bulk else None) or "",
    }
    for name, value in known.items():
        if not getattr(record, name, None):
            setattr(record, name, value)
    return bulk


def _exported_by_the_sdk() -> bool:
    """Tell whether the SDK's own handler stands at the root logger and exports every record to our provider already.

    One that an application has set up with a provider of its own sends elsewhere.
    """
    ours = _instruments.provider("logs")
    return any(
        type(handler).__name__ == "LoggingHandler"
        and type(handler).__module__.startswith("opentelemetry")
        and getattr(handler, "_logger_provider", ours) is ours
        for handler in logging.root.handlers
    )


@lru_cache(maxsize=1024)
def _logger(name: str) -> Logger:
    found: Logger = _instruments.provider("logs").get_logger(name)
    return found


def _emit(record: logging.LogRecord, bulk: Bulk | None) -> None:
    body = _body(record)
    if record.name in ACCESS_LOGS:
        # A query may carry a prompt or a secret; the span has the path and the route.
        body = _QUERY.sub("", body)
        if bulk is not None:
            bulk.logged = True
    attributes = _attributes(record)
    cut = max(0, len(body) - MAX_TEXT)
    for name, value in attributes.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            cut += len(value) - MAX_TEXT
            attributes[name] = value[:MAX_TEXT]
    if cut:
        attributes[c.LOG_TRUNCATED] = cut
    _logger(record.name).emit(
        LogRecord(
            timestamp=int(record.created * 1e9),
            observed_timestamp=time.time_ns(),
            context=get_current(),
            severity_number=_severity(record.levelno),
            severity_text=record.levelname,
            body=body[:MAX_TEXT],
            attributes=attributes,
        )
    )


def _content_wanted() -> bool:
    wanted = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false")
    return wanted.strip().lower() not in ("", "0", "false", "no_content")


def _body(record: logging.LogRecord) -> str:
    private = PRIVATE.get(record.name)
    if isinstance(record.msg, str) and record.msg.startswith(TEMPLATES) and not _content_wanted():
        return record.msg
    if record.name.partition(".")[0] in CALLS and not _content_wanted():
        return _CALL.sub(NOT_RECORDED, record.getMessage())
    if private is None or not isinstance(record.args, Mapping) or _content_wanted():
        return record.getMessage()
    shown = {key: NOT_RECORDED if key in private else value for key, value in record.args.items()}
    return str(record.msg) % shown


def _attributes(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: value
        for name, value in vars(record).items()
        if name not in _OWN and isinstance(value, str | bool | int | float)
    }
    found["code.file.path"] = record.pathname
    found["code.line.number"] = record.lineno
    found["code.function.name"] = record.funcName
    if record.bulk_id:
        found[c.BULK_ID] = record.bulk_id
    if record.bulk_job_id:
        found[c.JOB_ID] = record.bulk_job_id
    if record.exc_info:
        kind, error, trace_back = record.exc_info
        if kind is not None:
            found["exception.type"] = kind.__qualname__
            found["exception.message"] = str(error)
            found["exception.stacktrace"] = "".join(traceback.format_exception(kind, error, trace_back))
    return found


def _severity(level: int) -> SeverityNumber:
    """Return the OpenTelemetry severity of a level: DEBUG 5, INFO 9, WARNING 13, ERROR 17, CRITICAL 21."""
    if level < logging.DEBUG:
        return SeverityNumber.TRACE
    return SeverityNumber(min(24, 5 + 4 * ((level - 10) // 10) + min(3, level % 10 // 3)))
