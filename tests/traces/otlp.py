"""What a service did, as the OTLP protobuf that instrumented processes send; names as in ``docs/telemetry.md``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.traces.service import Done, Prompt

EPOCH_NS = 1_767_000_000 * 10**9


def ns(seconds: float) -> int:
    return EPOCH_NS + round(seconds * 1e9)


def messages(done: Done) -> Iterator[tuple[str, Message]]:
    """Yield signal and request: spans of the sender, spans and logs of each worker, its life, the host's second."""
    ids = random.Random(7)
    sent, numbers = _sender(done, ids)
    yield "traces", sent
    for worker in sorted({prompt.worker for prompt in done.prompts}):
        yield from _worker(done, worker, ids, numbers)
    yield "metrics", _lives(done)
    yield "metrics", _host(done)


def _filled(target: Any, given: dict[str, object]) -> None:
    for name, value in given.items():
        item = target.add(key=name).value
        if isinstance(value, bool):
            item.bool_value = value
        elif isinstance(value, int):
            item.int_value = value
        elif isinstance(value, float):
            item.double_value = value
        else:
            item.string_value = str(value)


def _sender(done: Done, ids: random.Random) -> tuple[Message, dict[int, tuple[str, bytes, bytes]]]:
    """Return the sender's request, and each prompt's job id, trace and span by its place in the list."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    _filled(group.resource.attributes, {
        "service.name": "front", "service.instance.id": "front-1", "host.name": "machine", "process.pid": 11,
    })  # fmt: skip
    scope = group.scope_spans.add()
    told: dict[int, tuple[str, bytes, bytes]] = {}
    by_request: dict[tuple[str, int], list[int]] = {}
    for place, prompt in enumerate(done.prompts):
        by_request.setdefault((prompt.bulk, prompt.request), []).append(place)
    for (bulk, _), places in by_request.items():
        trace, server = ids.randbytes(16), ids.randbytes(8)
        first, last = done.prompts[places[0]].put, done.prompts[places[-1]].put
        span = scope.spans.add(
            trace_id=trace, span_id=server, name="POST /prompts", kind=2, start_time_unix_nano=ns(first - 0.001),
            end_time_unix_nano=ns(last + 0.001),
        )  # fmt: skip
        _filled(span.attributes, {
            "bulk.id": bulk, "bulk.size": len(places), "bulk.outcome": "ok", "http.request.method": "POST",
            "http.response.status_code": 202,
        })  # fmt: skip
        for place in places:
            told[place] = f"{bulk}-{place:05d}", trace, ids.randbytes(8)
            span = scope.spans.add(
                trace_id=trace, span_id=told[place][2], parent_span_id=server, name="send prompts", kind=4,
                start_time_unix_nano=ns(done.prompts[place].put), end_time_unix_nano=ns(done.prompts[place].put),
            )  # fmt: skip
            _filled(span.attributes, {
                "bulk.id": bulk, "bulk.job.id": told[place][0], "messaging.destination.name": "prompts",
            })  # fmt: skip
    return request, told


def _of_worker(done: Done, number: int) -> dict[str, object]:
    return {
        "service.name": "back", "service.instance.id": f"back-{number}", "host.name": "machine",
        "process.pid": 100 + number, "bulk.worker.cpus": float(done.service.cores),
    }  # fmt: skip


def _worker(
    done: Done, number: int, ids: random.Random, told: dict[int, tuple[str, bytes, bytes]]
) -> Iterator[tuple[str, Message]]:
    spans, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    group, of_logs = spans.resource_spans.add(), logs.resource_logs.add()
    _filled(group.resource.attributes, _of_worker(done, number))
    _filled(of_logs.resource.attributes, _of_worker(done, number))
    scope, records = group.scope_spans.add(), of_logs.scope_logs.add()
    for place, prompt in enumerate(done.prompts):
        if prompt.worker != number:
            continue
        job, trace, parent = told[place]
        consumer = ids.randbytes(8)
        own: dict[str, object] = {"bulk.id": prompt.bulk, "bulk.job.id": job}
        record = records.log_records.add(
            time_unix_nano=ns(prompt.start), trace_id=trace, span_id=consumer, event_name="bulk.job.started"
        )
        _filled(record.attributes, {**own, "bulk.job.attempt": 1})
        span = scope.spans.add(
            trace_id=trace, span_id=consumer, parent_span_id=parent, name="process prompts", kind=5,
            start_time_unix_nano=ns(prompt.start), end_time_unix_nano=ns(prompt.end),
        )  # fmt: skip
        _filled(span.attributes, {
            **own, "bulk.job.attempt": 1, "gen_ai.latency.time_in_queue": prompt.start - prompt.put,
            "bulk.outcome": "ok", "messaging.destination.name": "prompts",
        })  # fmt: skip
        span = scope.spans.add(
            trace_id=trace, span_id=ids.randbytes(8), parent_span_id=consumer, name="chat", kind=1,
            start_time_unix_nano=ns(_asked(done, prompt)), end_time_unix_nano=ns(prompt.end),
        )  # fmt: skip
        _filled(span.attributes, own | _inference(done, prompt))
    yield "traces", spans
    yield "logs", logs


def _asked(done: Done, prompt: Prompt) -> float:
    """Return when the model was asked: a worker's first job loads it before."""
    mine = [each.start for each in done.prompts if each.worker == prompt.worker]
    return prompt.start + (done.service.load if prompt.start == min(mine) else 0.0)


def _inference(done: Done, prompt: Prompt) -> dict[str, object]:
    return {
        "gen_ai.request.model": "small", "gen_ai.usage.input_tokens": prompt.tokens_in,
        "gen_ai.usage.output_tokens": prompt.tokens_out,
        "gen_ai.latency.time_in_model_prefill": prompt.first_token - _asked(done, prompt),
        "gen_ai.latency.time_in_model_decode": prompt.end - prompt.first_token,
        "bulk.inference.cpu.time": prompt.cpu, "bulk.inference.cpu.wait": prompt.lacked,
        "bulk.inference.cpu.exact": True,
    }  # fmt: skip


def _lives(done: Done) -> Message:
    """Every worker, those that had no job too, is heard of every 2 s."""
    request = ExportMetricsServiceRequest()
    last = max(prompt.end for prompt in done.prompts) + 4
    for number in range(done.service.workers):
        group = request.resource_metrics.add()
        _filled(group.resource.attributes, _of_worker(done, number))
        metric = group.scope_metrics.add().metrics.add(name="process.memory.usage", unit="By")
        metric.sum.aggregation_temporality = 2
        for tick in range(-2, int(last / 2) + 1):
            metric.sum.data_points.add(time_unix_nano=ns(2.0 * tick), as_double=2e8)
    return request


def _host(done: Done) -> Message:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    _filled(group.resource.attributes, {"service.name": "machine", "host.name": "machine"})
    metrics = group.scope_metrics.add().metrics
    used = metrics.add(name="system.cpu.utilization", unit="1")
    stalled = metrics.add(name="bulk.system.pressure", unit="1")
    for second, (busy, wanting) in enumerate(done.seconds, 1):
        for state, share in (("user", busy), ("idle", 1 - busy)):
            point = used.gauge.data_points.add(time_unix_nano=ns(second), as_double=share)
            _filled(point.attributes, {"state": state})
        point = stalled.gauge.data_points.add(time_unix_nano=ns(second), as_double=wanting)
        _filled(point.attributes, {"level": "some", "resource": "cpu"})
    return request
