"""Index templates in place of those that Elasticsearch ships for OpenTelemetry's data streams.

The same patterns, priorities, names of component templates and field types as ``x-pack/plugin/otel-data`` has, but for
the few types that the engine here lacks (``constant_keyword``, ``match_only_text``, ``histogram``). Nothing else may
differ: what a query finds here it finds there.
"""

from __future__ import annotations

import json
from typing import Any

from tests.engines.servers import ROOT, ask, http

KEYWORD, LONG = {"type": "keyword"}, {"type": "long"}


def _passthrough(priority: int, dimension: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "passthrough", "dynamic": True, "priority": priority}
    return found | ({"time_series_dimension": True} if dimension else {})


def _common(dimension: bool) -> dict[str, Any]:
    holder = {"schema_url": KEYWORD, "dropped_attributes_count": LONG}
    return {
        "date_detection": False,
        "dynamic": False,
        "properties": {
            "@timestamp": {"type": "date"},
            "data_stream": {"properties": dict.fromkeys(("type", "dataset", "namespace"), KEYWORD)},
            "attributes": _passthrough(20, dimension),
            "dropped_attributes_count": LONG,
            "scope": {
                "properties": {
                    "name": KEYWORD,
                    "version": {"type": "version"},
                    "attributes": _passthrough(30, dimension),
                    **holder,
                }
            },
            "resource": {"properties": {"attributes": _passthrough(40, dimension), **holder}},
        },
        "dynamic_templates": [
            {
                "complex_attributes": {
                    "path_match": ["resource.attributes.*", "scope.attributes.*", "attributes.*"],
                    "match_mapping_type": "object",
                    "mapping": {"type": "flattened"},
                }
            },
            {"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}},
        ],
    }  # fmt: skip


TRACES = {
    "trace_id": KEYWORD, "span_id": KEYWORD, "parent_span_id": KEYWORD, "trace_state": KEYWORD, "name": KEYWORD,
    "kind": KEYWORD, "duration": LONG, "dropped_events_count": LONG, "dropped_links_count": LONG,
    "links": {
        "properties": {
            "trace_id": KEYWORD, "span_id": KEYWORD, "trace_state": KEYWORD, "dropped_attributes_count": LONG,
            "attributes": {"type": "object", "subobjects": False, "dynamic": True},
        }
    },
    "status": {"properties": {"message": KEYWORD, "code": KEYWORD}},
    "trace.id": {"type": "alias", "path": "trace_id"},
    "span.id": {"type": "alias", "path": "span_id"},
}  # fmt: skip
LOGS = {
    "@timestamp": {"type": "date_nanos"}, "observed_timestamp": {"type": "date_nanos"}, "event_name": KEYWORD,
    "severity_number": {"type": "byte"}, "severity_text": KEYWORD, "trace_id": KEYWORD, "span_id": KEYWORD,
    "body": {"properties": {"text": {"type": "text"}, "structured": {"type": "flattened"}}},
    "message": {"type": "alias", "path": "body.text"},
    "trace.id": {"type": "alias", "path": "trace_id"},
    "span.id": {"type": "alias", "path": "span_id"},
}  # fmt: skip
METRICS = {
    "start_timestamp": {"type": "date_nanos"}, "metrics": {"type": "passthrough", "dynamic": True, "priority": 10},
    "unit": KEYWORD | {"time_series_dimension": True},
    "_metric_names_hash": KEYWORD | {"time_series_dimension": True},
}  # fmt: skip
METRIC_KINDS = [
    {
        f"{kind}_{number}": {
            "mapping": {"type": number, **({"time_series_metric": kind} if kind in ("gauge", "counter") else {})}
        }
    }
    for kind in ("gauge", "counter")
    for number in ("long", "double")
] + [{"histogram": {"mapping": {"type": "object", "enabled": False}}}]


def install(url: str) -> None:
    """Put the templates into an Elasticsearch at ``url``."""
    for signal, own in (("traces", TRACES), ("logs", LOGS), ("metrics", METRICS)):
        dimension = signal == "metrics"
        common = _common(dimension)
        if dimension:
            common["dynamic_templates"] = [*METRIC_KINDS, *common["dynamic_templates"]]
        ask("PUT", f"{url}/_component_template/{signal}-otel@mappings", {"template": {"mappings": {"properties": own}}})
        ask("PUT", f"{url}/_component_template/otel@{signal}", {"template": {"mappings": common}})
        index: dict[str, Any] = {"mode": {"traces": "standard", "logs": "logsdb", "metrics": "time_series"}[signal]}
        if dimension:
            # Elasticsearch's own module derives this from the dimensions; it is not in the engine here.
            index["routing_path"] = [
                "attributes.*",
                "resource.attributes.*",
                "scope.attributes.*",
                "_metric_names_hash",
            ]
        template: dict[str, Any] = {
            "index_patterns": [f"{signal}-*.otel-*"],
            "priority": 120,
            "data_stream": {},
            "composed_of": [f"otel@{signal}", f"{signal}-otel@mappings", f"{signal}-otel@custom"],
            "ignore_missing_component_templates": [f"{signal}-otel@custom"],
            "template": {"settings": {"index": index}},
        }
        ask("PUT", f"{url}/_index_template/{signal}-otel@template", template)


def verdicts(url: str) -> None:
    """Make the data stream of verdicts as setup does, empty.

    The engine has no module that makes a data stream by hand: a document makes it, and goes.
    """
    from bulkscope_studio.setup import plan  # here: the stand-in for Elasticsearch, in its image, has no studio

    (template,) = plan.index_templates(ROOT / "elasticsearch").values()
    ask("PUT", f"{url}/_index_template/{plan.VERDICTS}", template)
    lines = '{"create":{}}\n{"@timestamp":0}\n'
    answer = json.loads(http("POST", f"{url}/{plan.VERDICTS}/_bulk", lines.encode(), "application/x-ndjson"))
    made = answer["items"][0]["create"]
    assert made["status"] == 201, made
    ask("DELETE", f"{url}/{made['_index']}/_doc/{made['_id']}?refresh=true")
