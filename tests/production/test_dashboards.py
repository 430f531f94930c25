"""The dashboards are what their source says, what Kibana's API takes, and name only fields that someone writes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkscope import conventions as c
from bulkscope_studio.setup import plan
from kibana import build
from tests.production import kibana_api, reduce_dashboards
from tests.production.dashboards import BUILT, ROOT, fields

SOURCES = dict(build.sources())
# People keep links to a dashboard, and setup would put a renamed one beside the old.
IDS = {
    "bulkscope-overview", "bulkscope-bulk", "bulkscope-inference", "bulkscope-workers-hosts",
    "bulkscope-telemetry-health",
}  # fmt: skip

# What documents have beside attributes: Elasticsearch's x-pack/plugin/otel-data, SpanDocumentBuilder and its like.
DOCUMENT = {
    "@timestamp", "kind", "name", "duration", "trace_id", "span_id", "status.code", "event_name", "body.text",
    "severity_text", "dropped_attributes_count", "dropped_events_count", "dropped_links_count", "data_stream.dataset",
    "data_stream.namespace", "scope.name", "scope.version",
}  # fmt: skip
# The Collector's hostmetrics receiver: documentation.md of its scrapers cpu, memory, load, disk and network.
HOST_METRICS = {
    "system.cpu.utilization", "system.cpu.logical.count", "system.cpu.load_average.1m", "system.memory.utilization",
    "system.disk.io", "system.network.io",
}  # fmt: skip
HOST_ATTRIBUTES = {"state", "device", "direction"}
RESOURCE = {c.SERVICE_NAME, c.SERVICE_INSTANCE_ID, c.HOST_NAME, c.PROCESS_PID}
# On heartbeats, under the metric's name.
EVENT_ATTRIBUTES = {c.M_PROCESS_MEMORY_USAGE, c.JOB_ELAPSED, c.OOM_KILLS}
ATTRIBUTES = (
    {attribute.name for attribute in c.ATTRIBUTES} | EVENT_ATTRIBUTES | HOST_ATTRIBUTES
    | {c.ERROR_TYPE, c.HTTP_REQUEST_METHOD, c.HTTP_RESPONSE_STATUS_CODE, c.HTTP_ROUTE}
)  # fmt: skip


def queries(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (panel's title, query)."""
    for panel in [*body["panels"], *body.get("pinned_panels", [])]:
        config = panel["config"]
        for holder in (config, *config.get("layers", [])):
            source = holder.get("data_source", {})
            if source.get("type") == "esql":
                yield config["title"], source["query"]
        if "esql_query" in config:
            yield config["title"], config["esql_query"]


def test_the_built_files_are_what_the_source_says() -> None:
    wanted = build.built()
    assert {path.name for path in (ROOT / "kibana" / "dashboards").iterdir()} == {f"{name}.json" for name in wanted}
    for name, text in wanted.items():
        assert (ROOT / "kibana" / "dashboards" / f"{name}.json").read_text() == text, "run python -m kibana.build"


def test_the_ids_are_stable() -> None:
    assert set(BUILT) == IDS


@pytest.mark.parametrize("dashboard", plan.dashboards(ROOT / "kibana"), ids=lambda dashboard: dashboard.id)
def test_kibana_takes_what_setup_sends(dashboard: plan.Dashboard) -> None:
    """By Kibana's own description of its API, of each body as it is sent."""
    assert kibana_api.refusal(dashboard.body) is None


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        (("panelsJSON",), "[]", "panelsJSON"),
        (("title",), 7, "title"),
        (("refresh_interval", "value"), "1m", "refresh_interval.value"),
        (("options", "sync_colours"), True, "options.sync_colours"),
        (("panels", 7, "uid"), "x", "panels.7.uid"),
        (("panels", 7, "grid", "w"), 49, "panels.7.grid.w"),
        (("panels", 7, "grid", "width"), 4, "panels.7.grid.width"),
        (("panels", 0, "type"), "text", "panels.0"),
        (("panels", 0, "config"), {"markdown": "x"}, "panels.0.config"),
        (("panels", 0, "config", "settings", "open"), True, "panels.0.config.settings.open"),
        (("panels", 7, "config", "layers", 0, "type"), "lines", "panels.7.config.layers.0.type"),
        (("panels", 7, "config", "layers", 0, "y", 0), {"label": "x"}, "panels.7.config.layers.0.y.0"),
        (("panels", 7, "config", "layers", 0, "data_source"), {"type": "esql"}, "panels.7.config.layers.0.data_source"),
        (("panels", 7, "config", "layers", 0, "colour"), "red", "panels.7.config.layers.0.colour"),
        (("panels", 7, "config", "axis", "x", "scale"), "time", "panels.7.config.axis.x.scale"),
        (("panels", 1, "config", "metrics", 0, "format"), {"type": "weeks"}, "panels.1.config.metrics.0.format"),
        (("pinned_panels",), [{"type": "esql_control", "config": {"query": "x"}}], "pinned_panels.0.config"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_kibana_refuses_what_is_none_of_its_keys(path: tuple[str | int, ...], value: Any, at: str) -> None:
    body = copy.deepcopy(BUILT["bulkscope-overview"])
    body["panels"][0]["config"].setdefault("settings", {})
    holder: Any = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    message = kibana_api.refusal(body)
    assert message is not None
    assert message.startswith(f"[request body.{at}"), message


def test_the_document_is_what_the_script_makes_of_it() -> None:
    """Run over its own result the script changes nothing: no key of a schema was taken for words."""
    text = kibana_api.DOCUMENT.read_text()
    held = json.loads(text)
    body = {"requestBody": {"content": {"application/json": {"schema": held["body"]}}}}
    whole = {"paths": {"/api/dashboards/{id}": {"put": body}}, "components": held["components"]}
    assert reduce_dashboards.reduced(whole) == text
    assert held["source"] == reduce_dashboards.SOURCE


@pytest.mark.parametrize("name", sorted(IDS))
def test_panels_fill_the_grid_and_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BUILT[name]["panels"]:
        grid = panel["grid"]
        assert grid["x"] + grid["w"] <= 48
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["config"]["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert len(taken) == 48 * height, "there is a hole in the grid"
    ids = [panel["id"] for panel in BUILT[name]["panels"]]
    assert len(set(ids)) == len(ids)


def test_each_of_the_thirteen_numbers_is_shown_and_said_so() -> None:
    shown: set[int] = set()
    for name, source in SOURCES.items():
        built = {panel["config"]["title"]: panel["config"] for panel in BUILT[name]["panels"]}
        for panel in source["panels"]:
            numbers = panel.get("numbers", [])
            assert all(number in range(1, 14) for number in numbers)
            shown |= set(numbers)
            if numbers:
                assert f"{', '.join(map(str, numbers))} of the thirteen." in built[panel["title"]]["description"]
    assert shown == set(range(1, 14))


def test_the_numbers_of_a_panel_are_those_of_the_attributes_it_reads() -> None:
    """The table of conventions says which attribute is of which number; `kind` of a span tells 1 to 6 apart."""
    of = {f"attributes.{attribute.name}": attribute.number for attribute in c.ATTRIBUTES}
    kinds = {"Server": {1, 2, 3}, "Producer": {3}, "Consumer": {4, 5, 6, 13}}
    for name, source in SOURCES.items():
        texts = dict(queries(BUILT[name]))
        for panel in source["panels"]:
            if not panel.get("numbers"):
                continue
            text = texts[panel["title"]]
            can: set[int] = set()
            for field in fields(text):
                can |= {int(number) for number in of.get(field, "").split(",") if number.isdecimal()}
            for kind, numbers in kinds.items():
                if f'"{kind}"' in text:
                    can |= numbers
            if f"attributes.{c.GEN_AI_OUTPUT_TOKENS}" in text:
                can.add(12)  # over the span's duration
            if '"bulk.job.heartbeat"' in text:
                can |= {4, 9}
            assert set(panel["numbers"]) <= can, (name, panel["title"])


@pytest.mark.parametrize("name", sorted(IDS))
def test_queries_name_only_fields_that_someone_writes(name: str) -> None:
    for title, query in queries(BUILT[name]):
        for field in fields(query):
            kind, _, rest = field.partition("attributes.") if not field.startswith("metrics.") else ("metrics", "", "")
            if kind == "metrics":
                assert field.removeprefix("metrics.") in HOST_METRICS, (title, field)
            elif kind == "resource.":
                assert rest in RESOURCE, (title, field)
            else:
                assert rest in ATTRIBUTES, (title, field)
            # Without a cast a field that no document has had yet has no type, and a comparison with it is an error.
            named = rf"{re.escape(field)}".replace(r"\.1m", r"\.`?1m`?")
            assert re.search(rf"{named}::(keyword|long|double|boolean)", query), (title, field)


@pytest.mark.parametrize("name", sorted(IDS))
def test_each_query_has_the_head_and_the_time_range(name: str) -> None:
    for title, query in queries(BUILT[name]):
        first, *rest = query.splitlines()
        assert first == 'SET unmapped_fields="nullify";', title
        assert next(line for line in rest if not line.startswith("//")).startswith("FROM "), title
        assert "@timestamp >= ?_tstart AND @timestamp <= ?_tend" in query, title
        if not title.startswith("Bulk (*"):
            # Else the newest points of a chart with many lines would be cut off in silence.
            chart = next(panel["config"] for panel in BUILT[name]["panels"] if panel["config"]["title"] == title)
            assert chart["type"] == "metric" or re.search(r"\| LIMIT \d+", query), title
        assert ("?bulk" in query) <= bool(SOURCES[name].get("bulk")), title
        assert not re.search(r"\b(KQL|MATCH|QSTR)\(", query), "these and nullified fields do not go together"


@pytest.mark.parametrize("name", sorted(IDS))
def test_estimates_are_called_so(name: str) -> None:
    """What is spread over time steps, or derived from counters, is no measurement."""
    for title, query in queries(BUILT[name]):
        panel = next((p for p in BUILT[name]["panels"] if p["config"]["title"] == title), None)
        if panel is None or "jumps" not in query:
            continue
        words = f"{title} {panel['config']['description']}".lower()
        assert "estimate" in words or "have ended" in words, title


@pytest.mark.parametrize("name", sorted(IDS))
def test_each_dashboard_says_where_the_metrics_of_services_are(name: str) -> None:
    first = BUILT[name]["panels"][0]
    assert first["type"] == "markdown"
    assert "Prometheus" in first["config"]["content"]
    metrics = {re.sub(r"\W", "_", metric.name) for metric in c.METRICS}
    for word in re.findall(r"`((?:bulk|gen_ai|process)_[a-z_]+)`", first["config"]["content"]):
        assert any(word.startswith(metric) for metric in metrics), word


def test_links_lead_where_setup_has_made_them() -> None:
    views = plan.data_views()
    for body in BUILT.values():
        for panel in body["panels"]:
            source = panel["config"].get("data_source", {})
            if source.get("type") == "data_view_reference":
                view = views[source["ref_id"]]
                (row,) = panel["config"]["rows"]
                (field,) = row["fields"]
                assert "/app/apm/link-to/trace/" in view["fieldFormats"][field]["params"]["urlTemplate"]


def test_setup_reads_them() -> None:
    found = plan.dashboards(ROOT / "kibana")
    assert {dashboard.id for dashboard in found} == IDS
    for dashboard in found:
        assert dashboard.body["panels"] == BUILT[dashboard.id]["panels"]
        assert dashboard.mark in dashboard.body["description"]


def test_check_finds_what_was_changed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BUILT", tmp_path)
    assert build.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    (tmp_path / "bulkscope-bulk.json").write_text("{}")
    (tmp_path / "bulkscope-former.json").write_text("{}")
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == IDS


GOOD = {
    "title": "t", "description": "d", "time_range": {"from": "now-1h", "to": "now"},
    "panels": [{"title": "p", "kind": "table", "query": "FROM a\n", "rows": [{"column": "x"}]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"panel": 1}, "the dashboard: panel is not known"),
        ({"panels": [{"title": "p", "kind": "pie"}]}, "kind 'pie' is none of"),
        ({"panels": [{"title": "p", "kind": "line"}]}, "lacks 'query'"),
        ({"panels": [{**GOOD["panels"][0], "query": "{jbos}\n"}]}, "no block {jbos}"),
        ({"panels": [{**GOOD["panels"][0], "query": "FROM {jobs} | LIMIT 1"}]}, "on a line of its own"),
        ({"panels": [{**GOOD["panels"][0], "rows": [{"column": "x", "format": "weeks"}]}]}, "format 'weeks'"),
        ({"panels": [{**GOOD["panels"][0], "w": 49}]}, "48 columns"),
        ({"panels": GOOD["panels"] * 2}, "same title"),
    ],
)
def test_a_wrong_source_is_refused_with_the_place(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / build.BLOCKS).write_text(yaml.safe_dump({"jobs": "FROM a"}))
    (tmp_path / "bulkscope-x.yaml").write_text(yaml.safe_dump(GOOD))
    assert set(build.built(tmp_path)) == {"bulkscope-x"}
    (tmp_path / "bulkscope-x.yaml").write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(build.BadSource, match=re.escape(said)) as error:
        build.built(tmp_path)
    assert "bulkscope-x.yaml" in str(error.value)
