"""Bulks are accounting: our spans are recorded whatever the caller's flag or a sampler says, and nobody else's are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

from bulkscope._jobs import sampling
from tests.processes import BIN, environment
from tests.sink import Sink

Spawn = Callable[..., Any]

JOBS = """
import bulkscope
from opentelemetry import context, propagate, trace

mine = trace.get_tracer("mine")
context.attach(propagate.extract({"traceparent": "00-%032x-%016x-00" % (1, 2), "tracestate": "es=s:0"}))
flags = set()
for number in range(20):
    with mine.start_as_current_span("theirs"):
        with bulkscope.enqueue("q", bulk_id="b") as job:
            with mine.start_as_current_span("theirs"):
                pass
    flags.add(job.headers["traceparent"][-2:])
    with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m"):
        with mine.start_as_current_span("theirs"):
            sent = {}
            propagate.inject(sent)
            flags.add(sent["traceparent"][-2:])
print("flags:", sorted(flags), "state:", sent["tracestate"])
"""

SAMPLERS = {
    "the default, of an unsampled caller": {},
    "a ratio": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    "a ratio by the parent": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2"},
    "none": {"OTEL_TRACES_SAMPLER": "always_off"},
}


def run(spawn: Spawn, sink: Sink, **variables: str) -> str:
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", JOBS, env=environment(sink.url, **variables))
    output = process.communicate(timeout=60)[0]
    assert "flags:" in output, output
    return str(output)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_job_is_recorded_and_nothing_else_changes(sink: Sink, spawn: Spawn, name: str) -> None:
    output = run(spawn, sink, **SAMPLERS[name])
    names = [span["name"] for span in sink.spans]
    assert {name: names.count(name) for name in names} == {"send q": 20, "process q": 20, "chat m": 20}
    assert {span["attributes"]["bulk.id"] for span in sink.spans} == {"b"}
    assert "flags: ['00'] state: es=s:0" in output, "whoever is called decides as if we were not there"
    began = [log for log in sink.logs if log["event"] == "bulk.job.started"]
    assert {log["span_id"] for log in began} == {s["span_id"] for s in sink.spans if s["name"] == "process q"}
    assert not [key for span in sink.spans for key in span["resource"] if key.startswith("bulk.sampling")]


def test_a_sampler_that_is_respected_is_said(sink: Sink, spawn: Spawn) -> None:
    run(spawn, sink, BULKSCOPE_SAMPLING="Respect", **SAMPLERS["a ratio by the parent"])
    assert sink.spans == []
    assert [log for log in sink.logs if log["event"] == "bulk.job.started"] == [], "it would look lost"
    (said,) = {(point["resource"]["bulk.sampling"], point["resource"]["bulk.sampling.ratio"]) for point in sink.points}
    assert said[1] == 0.2
    assert "TraceIdRatioBased{0.2}" in said[0]


def test_what_is_said_of_a_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sampling.resource_attributes(TracerProvider(sampler=ALWAYS_OFF)) == {}
    monkeypatch.setenv("BULKSCOPE_SAMPLING", "respect")
    by_caller = sampling.resource_attributes(TracerProvider(sampler=ParentBased(ALWAYS_ON)))
    assert list(by_caller) == ["bulk.sampling"], "who calls decides, and has no ratio"
    assert sampling.resource_attributes(TracerProvider(sampler=TraceIdRatioBased(0.25))) == {
        "bulk.sampling": "TraceIdRatioBased{0.25}", "bulk.sampling.ratio": 0.25,
    }  # fmt: skip
    assert sampling.resource_attributes(object()) == {}
