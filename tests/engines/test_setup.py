"""`bulkscope setup` on a real Elasticsearch, as far as the engine here goes, and the types of our attributes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from bulkscope import conventions
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.setup import apply, elasticsearch
from tests.engines import bridge, servers, templates

# The engine has no module for the rest: data streams made by hand, lifecycle, failure store, look-back time, roles.
STEPS = (elasticsearch.reach, elasticsearch.component_templates)
TYPES = {"float": "double", "int": "long", "bool": "boolean", "str": "keyword"}
# What an attribute of each type may be, the first one apt to mislead: a whole number for a float, digits for a text.
VALUES: dict[str, list[Any]] = {
    "float": [0, 0.0, 1.5, -2.25, 3, 1e300],
    "int": [0, 2**53, -1],
    "bool": [False, True],
    "str": ["7", "2026-01-01T00:00:00Z", "true", "", "text"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("setup")) as server:
        templates.install(server.url)
        yield server.url


@pytest.fixture(scope="module")
def session(store: str, tmp_path_factory: pytest.TempPathFactory) -> apply.Session:
    sources = tmp_path_factory.mktemp("sources") / "elasticsearch"
    shutil.copytree(servers.ROOT / "elasticsearch", sources)
    metrics = sources / "component-templates" / "metrics-otel@custom.json"
    body = json.loads(metrics.read_text())
    body["template"]["settings"]["index"].pop("look_back_time")  # of the module that is not here
    metrics.write_text(json.dumps(body))
    client = Client("Elasticsearch", store, None, "ELASTICSEARCH_URL")
    return apply.Session(client, client, sources, None, exporter="bulk")


def test_a_second_run_changes_nothing(session: apply.Session) -> None:
    first, second = (apply.run(session, STEPS, lambda outcome: None) for _ in range(2))
    states = {outcome.subject: outcome.state for outcome in first if "@custom" in outcome.subject}
    assert set(states.values()) == {"created"}
    assert len(states) == 3
    assert {outcome.state for outcome in second if "@custom" in outcome.subject} == {"unchanged"}


def _set(value: AnyValue, to: Any) -> None:
    if isinstance(to, bool):
        value.bool_value = to
    elif isinstance(to, int):
        value.int_value = to
    elif isinstance(to, float):
        value.double_value = to
    else:
        value.string_value = to


def requests() -> Iterator[tuple[str, Any]]:
    """Yield requests in which each attribute of ours has, one after the other, each value it could have."""
    for number in range(max(len(values) for values in VALUES.values())):
        traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
        span = (
            traces.resource_spans.add()
            .scope_spans.add()
            .spans.add(
                name="s",
                span_id=bytes([number] * 8),
                trace_id=bytes([1] * 16),
                start_time_unix_nano=1_790_000_000 * 10**9,
            )
        )
        record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1_790_000_000 * 10**9)
        for attribute in conventions.ATTRIBUTES:
            values = VALUES[attribute.type]
            for holder in (span, record):
                pair = holder.attributes.add(key=attribute.name)
                _set(pair.value, values[number % len(values)])
        yield "traces", traces
        yield "logs", logs


def test_no_value_of_ours_is_refused_and_each_attribute_has_its_type(store: str, session: apply.Session) -> None:
    apply.run(session, STEPS, lambda outcome: None)
    for signal, request in requests():
        assert bridge.store(store, bridge.SIGNALS[signal][1](request)) == []
    for stream in ("traces-generic.otel-default", "logs-generic.otel-default"):
        mappings = servers.ask("GET", f"{store}/{stream}/_mapping")
        (found,) = (index["mappings"]["properties"]["attributes"]["properties"] for index in mappings.values())
        types = {attribute.name: found[attribute.name]["type"] for attribute in conventions.ATTRIBUTES}
        assert types == {attribute.name: TYPES[attribute.type] for attribute in conventions.ATTRIBUTES}
