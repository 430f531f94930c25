"""Bulkscope beside others: propagators and providers of their own, loguru; the real ones, newest version."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.processes import environment
from tests.sink import Sink, serve
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
OTHERS = ["sentry-sdk[opentelemetry]", "logfire", "loguru", "opentelemetry-propagator-b3"]

JOB = """
with trace.get_tracer("mine").start_as_current_span("mine"), bulkscope.enqueue("q", bulk_id="b") as job:
    pass
with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m"):
    pass
print(sorted(job.headers))
"""
LOGFIRE = """
import logging
import bulkscope, logfire
from opentelemetry import trace
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

own = ConsoleSpanExporter(formatter=lambda span: f"logfire: {span.name} {span.attributes.get('bulk.id')}\\n")
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[SimpleSpanProcessor(own)])
logging.getLogger("shop").warning("a record of logging")
"""
SENTRY = """
import bulkscope, sentry_sdk
from opentelemetry import trace
from sentry_sdk.integrations.opentelemetry.integration import OpenTelemetryIntegration
from sentry_sdk.transport import Transport

class Printed(Transport):
    def capture_envelope(self, envelope):
        print("sentry:", *(item.payload.json["transaction"] for item in envelope.items))

sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", transport=Printed, traces_sample_rate=1.0, instrumenter="otel",
    integrations=[OpenTelemetryIntegration()],
)
"""


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return venv("company", ["-e", str(ROOT), *OTHERS])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with {', '.join(OTHERS)}: {reason}")


def run(python: Path, folder: Path, code: str, **variables: str) -> tuple[str, Sink]:
    """Return what a process said, and what we got from it: one job, with its bulk, in one trace."""
    with serve() as sink:
        done = subprocess.run(
            [str(python.parent / "bulkscope"), "run", str(python), "-c", code + JOB], cwd=folder,
            env=environment(sink.url, **variables), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "could not" not in output, output
    assert "Overriding" not in output, output
    assert "RuntimeWarning" not in output, "Logfire warns of a trace that its propagator finds"
    spans = {span["name"]: span for span in sink.spans}
    assert spans.keys() == {"mine", "send q", "process q", "chat m"}
    assert len(sink.spans) == len(spans), "each once"
    assert {span["attributes"].get("bulk.id") for name, span in spans.items() if name != "mine"} == {"b"}
    assert len({span["trace_id"] for span in spans.values()}) == 1
    assert spans["process q"]["parent"] == spans["send q"]["span_id"]
    assert {point["name"] for point in sink.points} > {"messaging.process.duration"}
    return output, sink


def test_logfire(python: Path, tmp_path: Path) -> None:
    output, sink = run(python, tmp_path, LOGFIRE)
    said = sorted(line for line in output.splitlines() if line.startswith("logfire: "))
    assert said == ["logfire: chat m b", "logfire: mine None", "logfire: process q b", "logfire: send q b"]
    assert [log["body"] for log in sink.logs if log["scope"] == "shop"] == ["a record of logging"]


def test_sentry(python: Path, tmp_path: Path) -> None:
    output, _ = run(python, tmp_path, SENTRY)
    assert [line for line in output.splitlines() if line.startswith("sentry:")] == ["sentry: mine", "sentry: process q"]
    assert "'sentry-trace'" in output, "its propagator is served"
    assert "'traceparent'" not in output


def test_b3(python: Path, tmp_path: Path) -> None:
    code = "import bulkscope\nfrom opentelemetry import trace\n"
    output, _ = run(python, tmp_path, code, OTEL_PROPAGATORS="b3multi")
    assert "'x-b3-traceid'" in output
    assert "'traceparent'" not in output


LOGURU = """
import inspect, logging, sys
from loguru import logger

class InterceptHandler(logging.Handler):  # as loguru's README has it
    def emit(self, record):
        frame, depth = inspect.currentframe(), 0
        while frame:
            if not (depth == 0 or frame.f_code.co_filename == logging.__file__):
                break
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(record.levelname, record.getMessage())

class ByCount(logging.Handler):  # a walker that counts: emit, handle, callHandlers, handle, _log, info
    def emit(self, record):
        logger.opt(depth=6).log(record.levelname, "counted " + record.getMessage())

logger.remove()
logger.add(sys.stdout, format="at {module}|{function}|{line}|{message}")
logging.basicConfig(handlers=[InterceptHandler(), ByCount()], level=logging.INFO)

def caller():
    logging.getLogger("shop").info("hello")

caller()
"""


def test_loguru_names_the_same_caller(python: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(LOGURU)

    def said(sink: Sink, *command: str, **variables: str) -> list[str]:
        done = subprocess.run(
            [*command, str(python), "shop.py"], cwd=tmp_path, env=environment(sink.url, **variables),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("at ")]

    launched = str(python.parent / "bulkscope"), "run"
    line = LOGURU[: LOGURU.index('info("hello")')].count("\n") + 1
    right = [f"at shop|caller|{line}|hello", f"at shop|caller|{line}|counted hello"]
    with serve() as sink:
        assert said(sink) == right
        assert said(sink, *launched, BULKSCOPE_LOGS="0") == right
        assert sink.logs == []
        assert said(sink, *launched) == right
        assert [log["body"] for log in sink.logs] == ["hello"]
