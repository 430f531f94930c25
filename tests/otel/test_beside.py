"""An application that sets providers of its own, after ours: both get their data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import BIN, environment
from tests.sink import Sink

Spawn = Callable[..., Any]

# The application's exporters write what they get into files.
APP = """
import json, os, sys
import bulkscope
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

early = trace.get_tracer("contrib")
with bulkscope.enqueue("q", bulk_id="before"):
    pass

def line(span):
    parts = {"attributes": dict(span.attributes), "resource": dict(span.resource.attributes)}
    return json.dumps({"name": span.name, **parts}) + "\\n"

provider = TracerProvider(
    sampler=ALWAYS_OFF if "off" in sys.argv else ALWAYS_ON, resource=Resource({"service.name": "shop", "team": "blue"})
)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open("spans", "a"), formatter=line)))
trace.set_tracer_provider(provider)
assert trace.get_tracer_provider() is provider
reader = PeriodicExportingMetricReader(ConsoleMetricExporter(open("metrics", "w")), 60_000)
metrics.set_meter_provider(MeterProvider([reader]))
_logs.set_logger_provider(LoggerProvider())

def work(bulk_id):
    with trace.get_tracer("mine").start_as_current_span("mine"), bulkscope.enqueue("q", bulk_id=bulk_id) as job:
        pass
    with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m"):
        with early.start_as_current_span("contrib"):
            pass

work("parent")
metrics.get_meter("mine").create_counter("mine").add(1)
if os.fork() == 0:
    work("child")
    sys.exit()
os.wait()
reader.force_flush()
trace.set_tracer_provider(TracerProvider())
assert trace.get_tracer_provider() is provider, "the second of an application is refused as ever"
"""
NAMES = ["chat m", "contrib", "mine", "process q", "send q"]


def run(spawn: Spawn, sink: Sink, folder: Path, *words: str, **variables: str) -> list[dict[str, Any]]:
    """Return the spans that the application's own exporter got."""
    (folder / "shop.py").write_text(APP)
    process = spawn(
        str(BIN / "bulkscope"), "run", sys.executable, "shop.py", *words, env=environment(sink.url, **variables)
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "could not" not in output, output
    assert output.count("Overriding of current TracerProvider") == 1, output
    return [json.loads(line) for line in (folder / "spans").read_text().splitlines()]


def test_both_get_their_spans(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    theirs = run(spawn, sink, tmp_path)
    for bulk in ("parent", "child"):
        own = [span for span in theirs if span["attributes"].get("bulk.id") == bulk]
        ours = [span for span in sink.spans if span["attributes"].get("bulk.id") == bulk]
        # The application's span around it began before the bulk was known.
        assert (
            sorted(span["name"] for span in own)
            == sorted(span["name"] for span in ours)
            == sorted(set(NAMES) - {"mine"})
        )
    assert [span["name"] for span in theirs].count("mine") == 2
    assert sorted(span["name"] for span in sink.spans) == sorted([*NAMES, *NAMES, "send q"])
    for span in theirs:
        # The SDK itself gives a forked child an instance's id.
        span["resource"].pop("service.instance.id", None)
        assert span["resource"] == {"service.name": "shop", "team": "blue"}, "its own, and nothing of ours"


def test_ours_say_which_process_they_are_of(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    run(spawn, sink, tmp_path)
    after = [span["resource"] for span in sink.spans if span["attributes"].get("bulk.id") != "before"]
    assert {(found["service.name"], found["team"]) for found in after} == {("shop", "blue")}
    instances = {found["service.instance.id"] for found in after}
    assert len(instances) == len({found["process.pid"] for found in after}) == 2, "a fork is another one"
    began = [log["resource"] for log in sink.logs if log["event"] == "bulk.job.started"]
    assert {found["service.instance.id"] for found in began} == instances
    assert {found["service.name"] for found in began} == {"shop"}


def test_each_has_its_metrics(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    run(spawn, sink, tmp_path)
    names = {point["name"] for point in sink.points}
    assert names > {"messaging.client.sent.messages", "messaging.process.duration", "gen_ai.client.operation.duration"}
    assert "mine" not in names
    own = (tmp_path / "metrics").read_text()
    assert '"mine"' in own
    assert "bulk." not in own


@pytest.mark.parametrize("respect", [False, True])
def test_the_applications_sampler(sink: Sink, spawn: Spawn, tmp_path: Path, respect: bool) -> None:
    theirs = run(spawn, sink, tmp_path, "off", **({"BULKSCOPE_SAMPLING": "respect"} if respect else {}))
    assert theirs == [], "its sampler decides what its exporter gets"
    jobs = [span["name"] for span in sink.spans if span["attributes"]["bulk.id"] == "child"]
    assert sorted(jobs) == ([] if respect else ["chat m", "process q", "send q"])


LOGGING = """
import logging, warnings
import bulkscope
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor

warnings.simplefilter("ignore", DeprecationWarning)
logging.getLogger("shop.early").warning("early")
provider = LoggerProvider()
own = ConsoleLogRecordExporter(formatter=lambda record: f"own: {record.log_record.body}\\n")
provider.add_log_record_processor(SimpleLogRecordProcessor(own))
_logs.set_logger_provider(provider)
assert _logs.get_logger_provider() is provider
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
with bulkscope.enqueue("q", bulk_id="b") as job:
    pass
with bulkscope.dequeue("q", headers=job.headers):
    logging.getLogger("shop.early").warning("then")
    logging.getLogger("shop.late").warning("late")
"""


def test_records_of_logging_go_to_both_logger_providers(spawn: Spawn, sink: Sink, tmp_path: Path) -> None:
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", LOGGING, env=environment(sink.url))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert [line for line in output.splitlines() if line.startswith("own: ")] == ["own: then", "own: late"], output
    stored = [(log["body"], log["attributes"].get("bulk.id")) for log in sink.logs if log["scope"].startswith("shop.")]
    assert stored == [("early", None), ("then", "b"), ("late", "b")]
