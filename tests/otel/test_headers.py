"""A job keeps its bulk and its trace whatever the global propagator is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import bulkscope
from bulkscope import _defaults
from bulkscope._jobs import bulks, headers
from bulkscope._jobs.bulks import Bulk
from tests.processes import BIN, environment
from tests.sink import Sink
from tests.telemetry import Telemetry


class Foreign(TextMapPropagator):
    """Another product's: it knows nothing of ours, and hands on what is its own."""

    fields = {"x-foreign"}  # noqa: RUF012 (a property of the base)

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier["x-foreign"] = "7"

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        span = trace.NonRecordingSpan(trace.SpanContext(9, 9, True, trace.TraceFlags(1)))
        return otel_context.set_value("foreign", carrier["x-foreign"], trace.set_span_in_context(span, context))


class Faulty(Foreign):
    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        raise RuntimeError("the propagator's own")

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise RuntimeError("the propagator's own")


W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
PROPAGATORS = {
    "W3C": W3C,
    "tracecontext": TraceContextTextMapPropagator(),
    "none": CompositePropagator([]),
    "foreign": Foreign(),
    "faulty": Faulty(),
}


@pytest.fixture
def restored() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


@pytest.mark.parametrize("name", PROPAGATORS)
def test_bulk_source_and_trace_arrive(telemetry: Telemetry, restored: None, name: str) -> None:
    propagate.set_global_textmap(PROPAGATORS[name])
    with bulkscope.enqueue("q", bulk_id="named") as named, bulkscope.enqueue("q") as nested:
        pass
    with trace.get_tracer("tests").start_as_current_span("request"), bulkscope.enqueue("q") as unnamed:
        pass
    for job in (named, nested, unnamed):
        with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m"):
            pass
    spans = {span.context.span_id: span for span in telemetry.spans()}
    done = [span for span in spans.values() if span.name == "process q"]
    assert len(done) == 3
    for span in done:
        sent = spans[span.parent.span_id]
        assert (sent.name, sent.context.trace_id) == ("send q", span.context.trace_id)
        assert span.attributes["bulk.id"] == sent.attributes["bulk.id"]
        assert span.attributes.get("bulk.id.source") == sent.attributes.get("bulk.id.source")
    ids = [span.attributes["bulk.id"] for span in done]
    assert ids == ["named", "named", trace.format_trace_id(done[2].context.trace_id)]
    assert [span.attributes.get("bulk.id.source") for span in done] == [None, None, "trace"]


def test_the_global_propagator_is_served(telemetry: Telemetry, restored: None) -> None:
    propagate.set_global_textmap(PROPAGATORS["foreign"])
    with bulkscope.enqueue("q", bulk_id="b") as job:
        assert job.headers["x-foreign"] == "7"
    with bulkscope.dequeue("q", headers=job.headers):
        assert otel_context.get_value("foreign") == "7"
    propagate.set_global_textmap(W3C)
    token = otel_context.attach(baggage.set_baggage("tenant", "t"))
    with bulkscope.enqueue("q", bulk_id="b") as job:
        assert job.headers["traceparent"] == job.headers["bulkscope-trace"]
    otel_context.detach(token)
    with bulkscope.dequeue("q", headers=job.headers):
        assert baggage.get_all() == {"tenant": "t", "bulk.id": "b"}


def test_a_sender_without_us_is_understood(telemetry: Telemetry) -> None:
    trace_id = f"{5:032x}"
    parent = f"00-{trace_id}-{6:016x}-01"
    for bulk_id, source in (("b", None), (trace_id, "trace")):
        with bulkscope.dequeue("q", headers={"traceparent": parent, "baggage": f"bulk.id={bulk_id}"}):
            pass
        (span,) = telemetry.spans()
        assert (span.context.trace_id, span.parent.span_id) == (5, 6)
        assert (span.attributes["bulk.id"], span.attributes.get("bulk.id.source")) == (bulk_id, source)
        telemetry.clear()


@pytest.mark.parametrize(
    "damaged",
    [
        {"bulkscope-trace": None}, {"bulkscope-trace": 7}, {"bulkscope-trace": ""}, {"bulkscope-trace": "00-x-y-z"},
        {"bulkscope-trace": f"00-{0:032x}-{1:016x}-01"}, {"bulkscope-tracestate": "?"}, {"bulkscope-tracestate": 7},
        {"bulkscope-bulk-source": "elsewhere"}, {"bulkscope-bulk-source": ["body"]}, {"bulkscope-bulk": "x" * 300},
    ],
)  # fmt: skip
def test_headers_that_were_damaged_on_the_way(telemetry: Telemetry, damaged: dict[str, Any]) -> None:
    with bulkscope.enqueue("q", bulk_id="b") as job:
        pass
    with bulkscope.dequeue("q", headers=job.headers | damaged):
        pass
    sent, done = telemetry.spans()
    assert done.parent.span_id == sent.context.span_id, "the global propagator's say the same"
    assert done.attributes["bulk.id"] == "b"


def test_the_state_of_the_trace_travels(telemetry: Telemetry, restored: None) -> None:
    propagate.set_global_textmap(PROPAGATORS["none"])
    state = trace.TraceState([("es", "s:0.5")])
    parent = trace.SpanContext(1, 2, True, trace.TraceFlags(1), state)
    token = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    with bulkscope.enqueue("q") as job:
        pass
    otel_context.detach(token)
    assert trace.get_current_span(headers.read_origin(job.headers).context).get_span_context().trace_state == state


def test_a_call_elsewhere_goes_on_in_the_same_bulk(telemetry: Telemetry, restored: None) -> None:
    propagate.set_global_textmap(PROPAGATORS["none"])
    assert headers.origin() == {}
    token = otel_context.attach(bulks.bind(Bulk("b", "body")))
    found = headers.read_origin(headers.origin())
    otel_context.detach(token)
    assert found[1:] == ("b", "body")


OWN = """
import bulkscope
with bulkscope.enqueue("q", bulk_id="b") as job:
    print(job.headers["bulkscope-bulk"])
"""


def test_a_propagator_that_is_not_installed_stops_nothing(sink: Sink, spawn: Any) -> None:
    env = environment(sink.url, OTEL_PROPAGATORS="b3multi, baggage")
    plain = subprocess.run([sys.executable, "-c", OWN], env=env, capture_output=True, text=True, timeout=60)
    assert (plain.returncode, plain.stdout) == (0, "b\n"), plain.stderr
    output = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", OWN, env=env).communicate(timeout=60)[0]
    assert "b\n" in output
    assert "OTEL_PROPAGATORS names b3multi, which is not installed here" in output
    assert [span["attributes"]["bulk.id"] for span in sink.spans] == ["b"]
    known = {"OTEL_PROPAGATORS": "tracecontext, None ,nobodys"}
    _defaults.apply(known)
    assert known["OTEL_PROPAGATORS"] == "tracecontext,None"
