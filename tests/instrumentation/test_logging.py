"""Standard logging: every record with its ids, exported once, and nothing of it that is private."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, set_value

from bulkscope._jobs import bulks
from bulkscope._jobs.bulks import Bulk
from bulkscope_instrumentation import logging as ours
from bulkscope_instrumentation.logging import LoggingInstrumentor
from tests.telemetry import Telemetry

logger = logging.getLogger("tests.app")


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    instrumentor = LoggingInstrumentor()

    def start(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        instrumentor.instrument()

    monkeypatch.setattr(logger, "level", logging.DEBUG)
    yield start
    instrumentor.uninstrument()


@pytest.fixture
def instrumented(instrument: Callable[..., None]) -> None:
    instrument()


@pytest.fixture
def bulk() -> Iterator[Bulk]:
    found = Bulk("the-bulk", "body", "job-1")
    token = otel_context.attach(bulks.bind(found))
    yield found
    otel_context.detach(token)


def records(telemetry: Telemetry) -> list[Any]:
    return [data.log_record for data in telemetry.logs()]


def test_a_record_of_a_job(telemetry: Telemetry, instrumented: None, bulk: Bulk) -> None:
    with trace.get_tracer("tests").start_as_current_span("work") as span:
        logger.warning("took %d ms", 12, extra={"retries": 3, "body": {"secret": 1}})
    (record,) = records(telemetry)
    context = span.get_span_context()
    assert (record.body, record.severity_text, record.severity_number) == ("took 12 ms", "WARNING", SeverityNumber.WARN)
    assert (record.trace_id, record.span_id) == (context.trace_id, context.span_id)
    assert telemetry.logs()[0].instrumentation_scope.name == "tests.app"
    attributes = dict(record.attributes)
    assert isinstance(attributes.pop("code.line.number"), int)
    assert attributes == {
        "code.file.path": __file__,
        "code.function.name": "test_a_record_of_a_job",
        "bulk.id": "the-bulk",
        "bulk.job.id": "job-1",
        "retries": 3,
    }


def test_the_applications_format_has_the_ids(
    telemetry: Telemetry, instrumented: None, bulk: Bulk, caplog: pytest.LogCaptureFixture
) -> None:
    form = logging.Formatter("%(bulk_id)s %(bulk_job_id)s %(otelTraceID)s %(otelSpanID)s|")
    with trace.get_tracer("tests").start_as_current_span("work") as span:
        logger.info("inside")
    context = span.get_span_context()
    trace_id, span_id = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    assert form.format(caplog.records[0]) == f"the-bulk job-1 {trace_id} {span_id}|"


def test_the_applications_own_fields_stay(
    telemetry: Telemetry, instrumented: None, caplog: pytest.LogCaptureFixture
) -> None:
    logger.info("done", extra={"bulk_id": "mine", "otelTraceID": "abc"})
    assert logging.Formatter("%(bulk_id)s %(otelTraceID)s").format(caplog.records[0]) == "mine abc"
    assert records(telemetry)[0].attributes["bulk.id"] == "mine"


@pytest.mark.parametrize("template", ours.TEMPLATES)
def test_lines_that_hold_prompts_are_stored_unfilled(telemetry: Telemetry, instrumented: None, template: str) -> None:
    message = template + " %s" * (3 - template.count("%"))
    logging.getLogger("tests.app").debug(message, "secret", "secret", "secret")
    assert [record.body for record in records(telemetry)] == [message]


def test_outside_of_everything_the_ids_are_empty(
    telemetry: Telemetry, instrumented: None, caplog: pytest.LogCaptureFixture
) -> None:
    logger.info("outside")
    assert logging.Formatter("[%(bulk_id)s%(otelTraceID)s]").format(caplog.records[0]) == "[]"
    (record,) = records(telemetry)
    assert "bulk.id" not in record.attributes
    assert not record.trace_id


def test_a_logger_that_does_not_propagate_and_one_without_handlers(
    telemetry: Telemetry, instrumented: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "propagate", False)
    logger.info("own way")
    assert [record.body for record in records(telemetry)] == ["own way"]


def test_an_exception(telemetry: Telemetry, instrumented: None) -> None:
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("failed")
    (record,) = records(telemetry)
    assert record.severity_number == SeverityNumber.ERROR
    assert record.attributes["exception.type"] == "KeyError"
    assert record.attributes["exception.message"] == "'gone'"
    assert record.attributes["exception.stacktrace"].startswith("Traceback")


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, SeverityNumber.TRACE), (10, SeverityNumber.DEBUG), (20, SeverityNumber.INFO), (25, SeverityNumber.INFO2),
     (30, SeverityNumber.WARN), (40, SeverityNumber.ERROR), (50, SeverityNumber.FATAL), (500, SeverityNumber.FATAL4)],
)  # fmt: skip
def test_severity(level: int, severity: SeverityNumber) -> None:
    assert ours._severity(level) == severity


@pytest.mark.parametrize("name", sorted(ours.ACCESS_LOGS))
def test_an_access_log_has_no_query(telemetry: Telemetry, instrumented: None, bulk: Bulk, name: str) -> None:
    logging.getLogger(name).warning('%s - "%s %s HTTP/1.1" %d', "::1", "GET", "/ask?prompt=secret&x=1", 200)
    (record,) = records(telemetry)
    assert record.body == '::1 - "GET /ask HTTP/1.1" 200'
    assert bulk.logged


SUCCEEDED = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
FIELDS = {"name": "generate", "id": "1", "runtime": 2, "return_value": "a secret answer"}


def test_celerys_lines_have_no_result(
    telemetry: Telemetry, instrument: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    instrument()
    caplog.set_level("INFO")
    logging.getLogger("celery.app.trace").info(SUCCEEDED, FIELDS, extra={"data": FIELDS})
    (record,) = records(telemetry)
    assert record.body == "Task generate[1] succeeded in 2s: (not recorded)"
    assert "secret" not in str(record.attributes)
    assert "a secret answer" in caplog.text, "the application's own log is untouched"


def test_celerys_result_when_it_is_wanted(telemetry: Telemetry, instrument: Callable[..., None]) -> None:
    instrument(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true")
    logging.getLogger("celery.app.trace").warning(SUCCEEDED, FIELDS)
    assert "a secret answer" in records(telemetry)[0].body


@pytest.mark.parametrize(
    ("name", "message", "arguments", "body"),
    [
        ("rq.worker", "%s: %s (%s)", ("bulk", "app.ask(prompt='a secret (1)')", "id"), "bulk: app.ask(not recorded)"),
        ("rq.worker", "%s: Job OK (%s)", ("bulk", "id"), "bulk: Job OK (id)"),
        ("arq.worker", "%6.2fs → %s(%s)%s", (0.1, "id:ask", "'secret'", ""), "  0.10s → id:ask(not recorded)"),
        ("arq.worker", "%6.2fs ← %s ● %s", (0.1, "id:ask", "'secret'"), "  0.10s ← id:ask ● (not recorded)"),
        ("rq.worker", "Result: %r", ("secret",), "Result: (not recorded)"),
        ("dramatiq.worker.W", "Message %s failed.", ("ask('a\nsecret')",), "Message ask(not recorded) failed."),
        ("tests.app", "user's own: %s", ("ask('kept')",), "user's own: ask('kept')"),
    ],
)  # fmt: skip
def test_jobs_written_as_calls(
    telemetry: Telemetry, instrumented: None, name: str, message: str, arguments: tuple[Any, ...], body: str
) -> None:
    logging.getLogger(name).warning(message, *arguments)
    assert [record.body for record in records(telemetry)] == [body]


def test_level(telemetry: Telemetry, instrument: Callable[..., None]) -> None:
    instrument(BULKSCOPE_LOG_LEVEL="warning")
    logger.info("quiet")
    logger.warning("loud")
    assert [record.body for record in records(telemetry)] == ["loud"]


def test_level_that_is_none(
    telemetry: Telemetry, instrument: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    instrument(BULKSCOPE_LOG_LEVEL="chatty")
    assert "BULKSCOPE_LOG_LEVEL=CHATTY is no level" in caplog.text
    logger.debug("all")
    assert [record.body for record in records(telemetry)] == ["all"]


def test_switched_off_logging_is_left_alone(
    telemetry: Telemetry, instrument: Callable[..., None], bulk: Bulk, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(vars(logging.Logger)), dict(vars(logging.Filterer)), dict(vars(logging))
    instrument(BULKSCOPE_LOGS="0")
    assert (dict(vars(logging.Logger)), dict(vars(logging.Filterer)), dict(vars(logging))) == before
    logger.info("not sent")
    assert records(telemetry) == []
    assert vars(caplog.records[0]).keys() - {"message"} == vars(logging.makeLogRecord({})).keys() - {"message"}


class Walker(logging.Handler):
    """Writes down the stack it is called from, as handler, filter of a logger or filter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[str, str, int]]] = []
        self.addFilter(self.look)

    def look(self, record: logging.LogRecord) -> bool:
        self.seen.append([(frame.filename, frame.name, frame.lineno or 0) for frame in traceback.extract_stack()])
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.look(record)


def test_nothing_of_ours_stands_in_the_stack_of_handlers_and_filters(
    telemetry: Telemetry, instrument: Callable[..., None]
) -> None:
    walker = Walker()
    logger.addHandler(walker)
    logger.addFilter(walker.look)
    try:
        stacks = []
        for start in (lambda: None, instrument):
            start()
            walker.seen = []
            logger.info("who called?")
            stacks.append(walker.seen)
    finally:
        logger.removeHandler(walker)
        logger.removeFilter(walker.look)
    plain, beside_us = stacks
    assert len(plain) == 3, "the logger's filter, the handler's, the handler"
    assert beside_us == plain
    assert [record.body for record in records(telemetry)] == ["who called?"]


def test_what_filters_drop_is_not_stored_and_what_they_change_is(
    telemetry: Telemetry, instrumented: None, caplog: pytest.LogCaptureFixture
) -> None:
    def shorter(record: logging.LogRecord) -> bool:
        record.msg = str(record.msg)[:4]
        return "secret" not in str(record.args)

    logger.addFilter(shorter)
    try:
        logger.info("a password: %s", "secret")
        logger.info("long text")
    finally:
        logger.removeFilter(shorter)
    assert [record.body for record in records(telemetry)] == caplog.messages == ["long"]
    assert logger.filters == []


if sys.version_info >= (3, 12):  # before, a filter cannot put another record in its place

    def test_a_record_that_a_filter_puts_in_place_is_stored(
        telemetry: Telemetry, instrumented: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        def other(record: logging.LogRecord) -> Any:
            return logging.makeLogRecord({**vars(record), "msg": "another"})

        logger.addFilter(other)
        try:
            logger.info("one")
        finally:
            logger.removeFilter(other)
        assert [record.body for record in records(telemetry)] == caplog.messages == ["another"]


def test_a_logger_class_and_a_patch_on_top(
    telemetry: Telemetry, instrumented: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loud(logging.Logger):
        def filter(self, record: logging.LogRecord) -> Any:
            record.msg = str(record.msg).upper()
            return super().filter(record)

    Loud("tests.loud").warning("own class")
    before = logging.Logger.filter

    def patched(self: logging.Logger, record: logging.LogRecord) -> Any:
        return before(self, record)

    with monkeypatch.context() as patch:  # undone before we are
        patch.setattr(logging.Logger, "filter", patched)
        logger.warning("patched")
    assert [record.body for record in records(telemetry)] == ["OWN CLASS", "patched"]


def test_our_own_and_the_exporters_records_are_not_exported(telemetry: Telemetry, instrumented: None) -> None:
    logging.getLogger("opentelemetry.exporter").warning("cannot send")
    logging.getLogger("bulkscope").warning("ours")
    token = otel_context.attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    logging.getLogger("urllib3").warning("of the exporter's own request")
    otel_context.detach(token)
    assert records(telemetry) == []


def test_a_processor_that_logs_does_not_go_round(
    telemetry: Telemetry, instrumented: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Chatty:
        def emit(self, record: Any) -> None:
            emitted.append(record.body)
            logger.info("from inside")

    emitted: list[str] = []
    monkeypatch.setattr(ours, "_logger", lambda name: Chatty())
    logger.info("from outside")
    assert emitted == ["from outside"]


def test_the_sdks_own_handler_exports_already(telemetry: Telemetry, instrumented: None) -> None:
    class LoggingHandler(logging.NullHandler):
        __module__ = "opentelemetry.sdk._logs"

    handler = LoggingHandler()
    logging.root.addHandler(handler)
    try:
        logger.info("once")
    finally:
        logging.root.removeHandler(handler)
    assert records(telemetry) == []


def test_a_message_that_does_not_fit_its_arguments(
    telemetry: Telemetry, instrumented: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What logging itself does with it (write to stderr, or raise under pytest) stays logging's.
    monkeypatch.setattr(logger, "propagate", False)
    logger.info("%d items", "many")
    logger.info("after")
    assert records(telemetry)[-1].body == "after"


def test_what_is_too_long_is_cut_and_counted(telemetry: Telemetry, instrumented: None) -> None:
    logger.info("x" * (ours.MAX_TEXT + 10), extra={"document": "y" * (ours.MAX_TEXT + 5), "short": "z"})
    logger.info("fits")
    long, short = records(telemetry)
    assert (len(long.body), len(long.attributes["document"]), long.attributes["short"]) == (*[ours.MAX_TEXT] * 2, "z")
    assert long.attributes["bulk.log.truncated"] == 15
    assert "bulk.log.truncated" not in short.attributes


def test_uninstrumented(telemetry: Telemetry) -> None:
    before = dict(vars(logging.Logger))
    instrumentor = LoggingInstrumentor()
    instrumentor.instrument()
    assert dict(vars(logging.Logger)) != before
    instrumentor.uninstrument()
    assert dict(vars(logging.Logger)) == before


def test_a_fault_of_ours_where_filters_are_asked(
    telemetry: Telemetry, instrumented: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("bulkscope_instrumentation.logging._Asked", broken)
    monkeypatch.setattr("bulkscope._safe._reported", set())
    caplog.set_level(logging.DEBUG, logger="bulkscope")  # clears what loggers have kept of their levels
    logger.warning("to the application's handlers")
    logger.warning("and again")
    said = [record.message for record in caplog.records if record.name == logger.name]
    assert said == ["to the application's handlers", "and again"]
    ours = [record for record in caplog.records if record.name == "bulkscope"]
    assert [record.levelname for record in ours] == ["WARNING", "DEBUG"]
