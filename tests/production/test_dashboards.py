"""The dashboards are what their source says, what Kibana's API takes, and name only fields that someone writes."""

from __future__ import annotations

import copy
import itertools
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prison
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
RESOURCE = {
    c.SERVICE_NAME,
    c.SERVICE_INSTANCE_ID,
    c.HOST_NAME,
    c.PROCESS_PID,
    c.CONTAINER_ID,
    c.K8S_POD_NAME,
    c.WORKER_SLOT,
}
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
        for holder in (config, *config.get("layers", []), *config.get("tabs", [])):
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


NUMBER = {panel["config"]["title"]: number for number, panel in enumerate(BUILT["bulkscope-overview"]["panels"])}
WORDS, METRIC = NUMBER["About these numbers"], NUMBER["API requests"]
CHART = NUMBER["Load, queue depth (estimate) and API latency"]
LINKS, MAP = NUMBER["Bulkscope"], NUMBER["Services"]


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        (("panelsJSON",), "[]", "panelsJSON"),
        (("title",), 7, "title"),
        (("refresh_interval", "value"), "1m", "refresh_interval.value"),
        (("options", "sync_colours"), True, "options.sync_colours"),
        (("panels", CHART, "uid"), "x", "panels.#.uid"),
        (("panels", CHART, "grid", "w"), 49, "panels.#.grid.w"),
        (("panels", CHART, "grid", "width"), 4, "panels.#.grid.width"),
        (("panels", WORDS, "type"), "text", "panels.#"),
        (("panels", WORDS, "config"), {"markdown": "x"}, "panels.#.config"),
        (("panels", WORDS, "config", "settings", "open"), True, "panels.#.config.settings.open"),
        (("panels", CHART, "config", "layers", 0, "type"), "lines", "panels.#.config.layers.0.type"),
        (("panels", CHART, "config", "layers", 0, "y", 0), {"label": "x"}, "panels.#.config.layers.0.y.0"),
        (("panels", CHART, "config", "layers", 0, "data_source"), {"type": "esql"}, "panels.#.config.layers.0.data_"),
        (("panels", CHART, "config", "layers", 0, "colour"), "red", "panels.#.config.layers.0.colour"),
        (("panels", CHART, "config", "axis", "x", "scale"), "time", "panels.#.config.axis.x.scale"),
        (("panels", METRIC, "config", "metrics", 0, "format"), {"type": "weeks"}, "panels.#.config.metrics.0.format"),
        (("panels", LINKS, "config", "links"), "x", "panels.#.config.links"),
        (
            ("panels", LINKS, "config", "links", 0, "options", "new_tab"),
            True,
            "panels.#.config.links.0.options.new_tab",
        ),
        (("panels", MAP, "config", "sync_with_dashboard_filters"), True, "panels.#.config.sync_with_dashboard_filters"),
        (("pinned_panels",), [{"type": "esql_control", "config": {"query": "x"}}], "pinned_panels.0.config"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_kibana_refuses_what_is_none_of_its_keys(path: tuple[str | int, ...], value: Any, at: str) -> None:
    body = copy.deepcopy(BUILT["bulkscope-overview"])
    holder: Any = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    message = kibana_api.refusal(body)
    assert message is not None
    assert message.startswith(f"[request body.{at}".replace("#", str(path[-1 if len(path) < 2 else 1]))), message


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
            assert chart.get("type") == "metric" or re.search(r"\| LIMIT \d+", query), title
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
    first = next(panel for panel in BUILT[name]["panels"] if panel["type"] == "markdown")
    assert "Prometheus" in first["config"]["content"]
    metrics = {re.sub(r"\W", "_", metric.name) for metric in c.METRICS}
    for word in re.findall(r"`((?:bulk|gen_ai|process)_[a-z_]+)`", first["config"]["content"]):
        assert any(word.startswith(metric) for metric in metrics), word


def test_tables_of_links_read_data_views_that_setup_makes_with_these_fields_as_links() -> None:
    views = plan.data_views()
    read = []
    for body in BUILT.values():
        for panel in body["panels"]:
            source = panel["config"].get("data_source", {})
            if source.get("type") == "data_view_reference":
                view = views[source["ref_id"]]
                (row,) = panel["config"]["rows"]
                (field,) = row["fields"]
                read.append(view["fieldFormats"][field]["params"]["urlTemplate"].partition("?")[0])
    assert read == ["../app/apm/link-to/trace/{{value}}", "../app/dashboards#/view/bulkscope-bulk"]


@pytest.mark.parametrize("bulk", ["nightly", "42", "a b/c?d=e&f#g", "Ü (1),: t"])
def test_a_bulks_id_leads_to_its_dashboard_with_the_bulk_chosen(bulk: str) -> None:
    """As a browser and Kibana read the address: percent encoding first, then rison."""
    views = plan.data_views("14d", plan.dashboards(ROOT / "kibana"))
    for view, field in itertools.product(("traces", "logs", "verdicts"), ("bulk.id", "attributes.bulk.id")):
        template = views[f"bulkscope-{view}"]["fieldFormats"][field]["params"]["urlTemplate"]
        # Kibana's format fills in encodeURIComponent(value).
        address = template.replace("{{value}}", urllib.parse.quote(bulk, safe="!'()*-._~"))
        path, _, hashed = address.partition("#")
        place, _, query = hashed.partition("?")
        assert (path, place) == ("../app/dashboards", "/view/bulkscope-bulk")
        state = prison.loads(urllib.parse.unquote(query.removeprefix("_a=")))
        wanted = copy.deepcopy(BUILT["bulkscope-bulk"]["pinned_panels"])
        wanted[0]["config"]["selected_options"] = [bulk]
        assert state == {"pinned_panels": wanted}


def test_each_dashboard_leads_to_all() -> None:
    for name, body in BUILT.items():
        (panel,) = [panel for panel in body["panels"] if panel["type"] == "links"]
        assert panel is body["panels"][0], "where one looks first"
        assert {link["destination"] for link in panel["config"]["links"]} == IDS, name
        assert all(link["label"] and link["options"]["use_time_range"] for link in panel["config"]["links"])


def test_time_axes_are_drawn_as_such() -> None:
    scales = {
        (layer["x"]["column"] == "time", panel["config"]["axis"]["x"].get("scale"))
        for body in BUILT.values() for panel in body["panels"] for layer in panel["config"].get("layers", [])
    }  # fmt: skip
    assert scales == {(True, "temporal"), (False, None)}


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
