"""``bulkscope setup`` against servers that behave as Elasticsearch and Kibana are documented to, ill ones included."""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import re
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bulkscope import conventions
from bulkscope_studio.cli import setup
from bulkscope_studio.cli.setup import command
from bulkscope_studio.elastic import client
from bulkscope_studio.elastic.client import Client, NotReady, Trouble, api_key, basic, wait
from bulkscope_studio.elastic.environment import BadEnvironment, credentials
from bulkscope_studio.setup import apply, elasticsearch, keys, merge, plan, session
from bulkscope_studio.sources import elasticsearch as elastic
from tests.production.setup_server import SETTINGS, Fault, Stack, nested, serve, undocumented

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret-elastic"
KIBANA_PASSWORD = "s3cret-kibana"
DASHBOARD: dict[str, Any] = {
    "title": "Bulks",
    "description": "Where a bulk spends its time.",
    "panels": [
        {"type": "markdown", "grid": {"x": 0, "y": 0, "w": 24, "h": 5}, "config": {"content": "hello"}},
        {"type": "links", "grid": {"x": 24, "y": 0, "w": 24, "h": 5}, "config": {"links": []}},
    ],
}


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serve(Stack()) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The shipped elasticsearch/ beside a kibana/ of the test's own."""
    root = tmp_path / "files"
    (root / "kibana" / "dashboards").mkdir(parents=True)
    (root / "kibana" / "dashboards" / "bulkscope-bulks.json").write_text(json.dumps(DASHBOARD))
    (root / "elasticsearch").symlink_to(ROOT / "elasticsearch")
    return root


class Run:
    """Runs the command in this process; ``out`` and ``err`` are of the last run."""

    def __init__(
        self,
        stack: Stack,
        files: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.files, self.capsys, self.monkeypatch = files, capsys, monkeypatch
        self.point_to(stack)
        self.key_file, self.ndjson = tmp_path / "collector.key", tmp_path / "bulkscope.ndjson"
        self.out = self.err = ""

    def point_to(self, stack: Stack) -> None:
        self.stack = stack
        for name, url in stack.urls.items():
            self.monkeypatch.setenv(f"{name.upper()}_URL", url)

    def __call__(self, *arguments: str, wait: float = 20) -> int:
        code = command(["--files", str(self.files), "--wait", str(wait), *arguments])
        self.out, self.err = self.capsys.readouterr()
        return code

    def all(self, *arguments: str, wait: float = 20) -> int:
        files = ("--collector-key-file", str(self.key_file), "--ndjson", str(self.ndjson))
        return self(*files, *arguments, wait=wait)

    def apart(self, before: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a run in a process of its own, after the statements of ``before``."""
        ask = "from bulkscope_studio.cli.setup import command; sys.exit(command(sys.argv[1:]))"
        program = f"import sys; {before}\n{ask}"
        files = ("--files", str(self.files), "--collector-key-file", str(self.key_file), "--ndjson", str(self.ndjson))
        command_line = (sys.executable, "-c", program, *files, *arguments)
        return subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def states(self) -> dict[str, str]:
        """What the output says of each thing: subject -> state."""
        found = [
            re.fullmatch(r"(would create|would change|look at|\w+)\s+(.+)", line) for line in self.out.splitlines()
        ]
        return {match[2]: match[1] for match in found if match and not match[0].startswith(("done", "unchanged\n"))}


@pytest.fixture
def run(
    stack: Stack, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    for name in ("ELASTICSEARCH_API_KEY", "ELASTIC_PASSWORD_FILE", "KIBANA_SYSTEM_PASSWORD_FILE", "TRACES_RETENTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ELASTIC_PASSWORD", PASSWORD)
    monkeypatch.setenv("KIBANA_SYSTEM_PASSWORD", KIBANA_PASSWORD)
    # The pauses between attempts, not their number, are made short.
    quick = functools.partial(Client, timeout=0.5, sleep=lambda seconds: time.sleep(0.01))
    monkeypatch.setattr(session, "Client", quick)
    return Run(stack, files, tmp_path, capsys, monkeypatch)


# --- the files and the pure parts ---------------------------------------------------------------


def test_component_templates_are_of_documented_keys_alone() -> None:
    found = plan.component_templates(ROOT / "elasticsearch")
    assert sorted(found) == ["logs-otel@custom", "metrics-otel@custom", "traces-otel@custom"]
    assert {name: undocumented(body) for name, body in found.items()} == {name: [] for name in found}
    assert undocumented({"template": {"settings": {"index": {"refesh_interval": "1s"}}}}) == ["index.refesh_interval"]
    # What the README promises to touch is what is touched.
    readme = (ROOT / "elasticsearch" / "README.md").read_text()
    for body in found.values():
        for key in merge.flat(body["template"]["settings"]):
            assert key in SETTINGS
            assert f"`{key}`" in readme


def test_every_json_file_is_used() -> None:
    folder = ROOT / "elasticsearch"
    used = {f"component-templates/{name}.json" for name in plan.component_templates(folder)}
    used |= {f"index-templates/{name}.json" for name in plan.index_templates(folder)}
    used |= {f"roles/{name}.json" for name in plan.roles(folder)}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.json")} == used


def test_roles_have_the_least_rights() -> None:
    found = plan.roles(ROOT / "elasticsearch")
    telemetry = ("logs-*", "metrics-*", "traces-*")
    rights = {
        name: {tuple(entry["names"]): entry["privileges"] for entry in body["indices"]} for name, body in found.items()
    }
    assert rights == {
        "bulkscope_collector": {telemetry: ["create_doc", "auto_configure"]},
        "bulkscope_reader": {(*telemetry, plan.VERDICTS): ["read", "view_index_metadata"]},
        # `index` and not `create_doc`: another verdict of a bulk takes the place of the former.
        "bulkscope_publisher": {telemetry: ["read", "view_index_metadata"], (plan.VERDICTS,): ["read", "index"]},
    }
    for body in found.values():
        assert (body["cluster"], body["applications"], body["run_as"]) == ([], [], [])


def test_each_name_of_ours_has_a_type() -> None:
    metrics = {metric.name for metric in conventions.METRICS}
    metrics |= {value for name, value in vars(conventions).items() if name.startswith("M_")}
    events = {value for name, value in vars(conventions).items() if name.startswith("EVENT_")}
    names = {value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)}
    ours = {name for name in names if name.startswith(("bulk.", "gen_ai.", "messaging."))}
    typed = plan.ATTRIBUTE_TYPES.keys() | plan.RESOURCE_TYPES.keys()
    # Of a killed process its parent tells which it was, in a name that is else a resource's.
    assert ours - events - (metrics - typed) == typed - {conventions.PROCESS_PID}
    assert {
        attribute.name: attribute.type for attribute in conventions.ATTRIBUTES
    }.items() <= plan.ATTRIBUTE_TYPES.items()


def test_dynamic_templates_name_each_path_once() -> None:
    templates = {key: rule for entry in plan.dynamic_templates() for key, rule in entry.items()}
    paths = [path for rule in templates.values() for path in rule["path_match"]]
    assert len(paths) == len(set(paths)) == len(plan.ATTRIBUTE_TYPES) + len(plan.RESOURCE_TYPES)
    assert not any("*" in path for path in paths)
    assert "attributes.bulk.job.delay" in templates["bulkscope_double"]["path_match"]
    assert "attributes.bulk.job.attempt" in templates["bulkscope_long"]["path_match"]
    assert "attributes.bulk.inference.cpu.exact" in templates["bulkscope_boolean"]["path_match"]
    assert "resource.attributes.bulk.worker.cpus" in templates["bulkscope_double"]["path_match"]
    assert templates["bulkscope_keyword"]["mapping"] == {"type": "keyword", "ignore_above": 1024}


def test_retention_is_set_for_data_and_failures() -> None:
    found = plan.component_templates(ROOT / "elasticsearch", {"logs": "3d"})
    kept = {
        name: (
            body["template"]["lifecycle"]["data_retention"],
            body["template"]["data_stream_options"]["failure_store"]["lifecycle"]["data_retention"],
        )
        for name, body in found.items()
    }
    assert kept == {
        "traces-otel@custom": ("14d", "14d"),
        "logs-otel@custom": ("3d", "3d"),
        "metrics-otel@custom": ("30d", "30d"),
    }


def test_metrics_have_no_types_from_us() -> None:
    found = plan.component_templates(ROOT / "elasticsearch")
    assert "mappings" not in found["metrics-otel@custom"]["template"]
    assert found["logs-otel@custom"]["template"]["mappings"] == {"dynamic_templates": plan.dynamic_templates()}


@pytest.mark.parametrize("wrong", ["0d", "14", "d", "1.5d", "-1d", "14 days", ""])
def test_a_wrong_duration_says_what_one_is(wrong: str) -> None:
    with pytest.raises(plan.BadPlan, match="14d"):
        plan.seconds(wrong)


def test_durations_compare() -> None:
    assert plan.seconds("1d") == plan.seconds("24h") == plan.seconds("1440m") == 86400


def test_merging_keeps_what_is_not_ours() -> None:
    have = {
        "template": {
            "settings": nested({"refresh_interval": "30s", "number_of_replicas": 2}),
            "lifecycle": {"enabled": True, "data_retention": "1d", "downsampling": [{"after": "1d"}]},
            "mappings": {
                "properties": {"mine": {"type": "keyword"}},
                "dynamic_templates": [
                    {"mine": {"path_match": "attributes.*", "mapping": {"type": "text"}}},
                    {"bulkscope_old": {"path_match": "x", "mapping": {"type": "text"}}},
                ],
            },
        },
        "version": 7,
        "_meta": {"owner": "me"},
        "created_date_millis": 1,
    }
    ours = plan.component_templates(ROOT / "elasticsearch")["traces-otel@custom"]
    merged = merge.template(have, ours)
    inner = merged["template"]
    assert inner["settings"]["index.refresh_interval"] == "30s"
    assert inner["settings"]["index.number_of_replicas"] == "2"
    assert "index.auto_expand_replicas" not in inner["settings"], "a number that somebody chose is theirs"
    assert inner["settings"]["index.lifecycle.prefer_ilm"] == "false"
    assert inner["lifecycle"] == {"enabled": True, "data_retention": "14d", "downsampling": [{"after": "1d"}]}
    assert inner["mappings"]["properties"] == {"mine": {"type": "keyword"}}
    names = [key for entry in inner["mappings"]["dynamic_templates"] for key in entry]
    assert names == ["bulkscope_keyword", "bulkscope_long", "bulkscope_double", "bulkscope_boolean", "mine"]
    assert (merged["version"], merged["_meta"]["owner"]) == (7, "me")
    assert "created_date_millis" not in merged, "a PUT refuses it"
    assert merge.differences(merge.normal(merged), merge.template(merged, ours)) == []


def test_settings_compare_in_any_spelling() -> None:
    ways: list[dict[str, Any]] = [
        {"index": {"mapping": {"total_fields": {"limit": 2000}}}},
        {"index.mapping.total_fields.limit": "2000"},
        {"mapping.total_fields.limit": 2000},
        {"index": {"mapping.total_fields": {"limit": "2000"}}},
    ]
    assert [merge.flat(way) for way in ways] == [{"index.mapping.total_fields.limit": "2000"}] * 4


def test_differences_are_said_by_path() -> None:
    have = {"a": {"b": 1, "c": 2}, "d": [{"x": 1}, {"y": 2}], "gone": True}
    want = {"a": {"b": 1, "c": 3, "e": {"f": None}}, "d": [{"x": 1}, {"y": 3}]}
    assert merge.differences(have, want) == ["~ a.c: 2 -> 3", "+ a.e.f: null", "~ d.y: 2 -> 3", "- gone: true"]
    assert merge.differences([{"x": 1}, {"y": 2}], [{"y": 2}, {"x": 1}], "d") == ["~ d: in another order"]


def test_lacking_sees_rights_that_were_added() -> None:
    role = plan.roles(ROOT / "elasticsearch")["bulkscope_collector"]
    have = json.loads(json.dumps(role)) | {"metadata": {}}
    assert merge.lacking(have, role) == []
    have["indices"][0]["privileges"].append("all")
    have["cluster"].append("manage")
    assert merge.lacking(have, role) == ["cluster", "indices[0].privileges"]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("other.json", {"title": "x"}, "bulkscope-overview.json"),
        ("bulkscope-a.json", {"panels": []}, "title"),
        ("bulkscope-a.json", {"title": "x", "panelsJSON": "[]"}, "panelsJSON"),
        ("bulkscope-a.json", {"title": "x", "panels": [{}] * 101}, "100 panels"),
        ("bulkscope-a.json", {"title": "x", "panels": [{"panels": [{}] * 99}], "pinned_panels": [{}]}, "100 panels"),
        ("bulkscope-a.json", [], "no JSON object"),
    ],
)
def test_a_wrong_dashboard_stops_before_anything_is_sent(run: Run, name: str, body: Any, said: str) -> None:
    (run.files / "kibana" / "dashboards" / name).write_text(json.dumps(body))
    assert run() == 2
    assert said in run.err
    assert run.stack.requests == []


def test_dashboards_of_the_repository_can_be_read() -> None:
    folder = ROOT / "kibana"
    found = plan.dashboards(folder)
    assert len(found) == len(list((folder / "dashboards").glob("*.json")))
    assert all(dashboard.body["description"].endswith(f"[bulkscope {dashboard.mark}]") for dashboard in found)


@pytest.mark.parametrize(
    ("number", "exporter", "said"),
    [
        ("9.5.0", "otlp", None),
        ("9.10.0-SNAPSHOT", "otlp", None),
        ("10.0.0", "otlp", None),
        ("9.4.3", "otlp", "metrics over /_otlp, but not traces"),
        ("9.1.0", "otlp", "nothing over /_otlp"),
        ("9.4.3", "bulk", None),
        ("8.19.2", "bulk", None),
        ("8.18.0", "bulk", "8.19"),
        ("9.0.1", "bulk", "8.19"),
        ("banana", "otlp", "banana"),
    ],
)
def test_versions(number: str, exporter: str, said: str | None) -> None:
    if said is None:
        elasticsearch.check_version(number, exporter)
        return
    with pytest.raises(Trouble, match=re.escape(said)):
        elasticsearch.check_version(number, exporter)


# --- a fresh stack, twice -----------------------------------------------------------------------


def test_the_second_run_changes_nothing(run: Run) -> None:
    assert run.all() == 0, run.err
    first = run.states()
    assert run.out.splitlines()[-1].startswith("done, ")
    assert {subject for subject, state in first.items() if state == "created"} >= {
        *("component template traces-otel@custom", "role bulkscope_collector", "API key bulkscope-collector"),
        *("data view bulkscope-traces", "dashboard bulkscope-bulks", f"file {run.ndjson}"),
    }
    before, run.stack.requests = run.stack.snapshot(), []
    assert run.all() == 0, run.err
    assert run.stack.writes() == []
    assert run.stack.snapshot() == before
    assert set(run.states().values()) <= {"ok", "unchanged", "skipped"}
    assert run.out.splitlines()[-1] == "unchanged"


def test_what_is_there_afterwards(run: Run) -> None:
    assert run.all() == 0, run.err
    stack = run.stack
    assert stack.users["kibana_system"] == KIBANA_PASSWORD
    inner = stack.component_templates["logs-otel@custom"]["template"]
    assert inner["settings"]["index"]["lifecycle"]["prefer_ilm"] == "false"
    assert inner["data_stream_options"]["failure_store"]["enabled"] is True
    assert stack.component_templates["metrics-otel@custom"]["template"]["settings"]["index"]["look_back_time"] == "7d"
    assert stack.roles["bulkscope_reader"]["indices"][0]["privileges"] == ["read", "view_index_metadata"]
    encoded = run.key_file.read_text()
    (key,) = stack.keys
    assert base64.b64decode(encoded).decode() == f"{key['id']}:{key['secret']}"
    assert stat.S_IMODE(run.key_file.stat().st_mode) == 0o600
    assert key["role_descriptors"] == {"bulkscope_collector": plan.roles(ROOT / "elasticsearch")["bulkscope_collector"]}
    link = stack.views["bulkscope-logs"]["fieldFormats"]["trace_id"]
    assert link["params"]["urlTemplate"] == "../app/apm/link-to/trace/{{value}}?rangeFrom=now-14d&rangeTo=now"
    assert stack.views["bulkscope-metrics"]["fieldFormats"] == {}
    lines = [json.loads(line) for line in run.ndjson.read_text().splitlines()]
    assert [(line["type"], line["id"]) for line in lines] == [
        *(("index-pattern", f"bulkscope-{what}") for what in ("logs", "metrics", "traces", "verdicts")),
        ("dashboard", "bulkscope-bulks"),
    ]
    assert not any("updated_at" in line or "version" in line for line in lines)


def test_a_dry_run_says_all_and_changes_nothing(run: Run) -> None:
    before = run.stack.snapshot()
    assert run.all("--dry-run") == 0, run.err
    planned = run.states()
    assert run.stack.writes() == []
    assert run.stack.snapshot() == before
    assert not run.key_file.exists()
    assert not run.ndjson.exists()
    assert '+ template.lifecycle.data_retention: "14d"' in run.out
    assert '+ template.mappings.dynamic_templates.bulkscope_long.mapping.type: "long"' in run.out
    assert "nothing was changed" in run.out.splitlines()[-1]
    assert run.all() == 0
    done = {subject for subject, state in run.states().items() if state in ("created", "changed")}
    assert {subject for subject, state in planned.items() if state.startswith("would")} == done, "the plan was the deed"


def test_no_secret_is_ever_shown(run: Run) -> None:
    for arguments in ((), ("--dry-run",), ("--rotate-keys",)):
        assert run.all(*arguments) == 0
        text = run.out + run.err
        secrets = [PASSWORD, KIBANA_PASSWORD, *(key["secret"] for key in run.stack.keys)]
        secrets += [base64.b64encode(f"elastic:{PASSWORD}".encode()).decode()]
        secrets += [run.key_file.read_text()]
        assert not [secret for secret in secrets if secret in text]
    assert PASSWORD not in repr(Client("Elasticsearch", "http://h", basic("elastic", PASSWORD, "x")))
    assert run.all("--print-keys") == 0
    assert run.key_file.read_text() in run.out


def test_only_one_half(run: Run) -> None:
    assert run("--only", "elasticsearch") == 0
    assert not [request for request in run.stack.requests if request[0] == "kibana"]
    run.stack.requests = []
    assert run("--only", "kibana") == 0
    assert not [request for request in run.stack.requests if request[0] == "elasticsearch"]
    assert sorted(run.stack.dashboards) == ["bulkscope-bulks"]


def test_one_step_by_itself(stack: Stack) -> None:
    server = Client("Elasticsearch", stack.urls["elasticsearch"], basic("elastic", PASSWORD, "test"))
    session = apply.Session(server, server, ROOT / "elasticsearch", None)
    done = apply.run(session, (elasticsearch.component_templates,), lambda outcome: None)
    assert [outcome.state for outcome in done] == ["created"] * 3
    assert {path for _, path in stack.writes()} == {f"/_component_template/{s}-otel@custom" for s in plan.SIGNALS}


# --- what others have put there -----------------------------------------------------------------


def test_the_template_of_a_user_is_extended(run: Run) -> None:
    mine = {
        "template": {
            "settings": nested({"refresh_interval": "30s"}),
            "mappings": {"properties": {"x": {"type": "ip"}}},
        },
        "_meta": {"owner": "me"},
        "created_date_millis": 1,
    }
    run.stack.component_templates["traces-otel@custom"] = mine
    assert run() == 0, run.err
    assert run.states()["component template traces-otel@custom"] == "changed"
    stored = run.stack.component_templates["traces-otel@custom"]
    assert stored["template"]["settings"]["index"]["refresh_interval"] == "30s"
    assert stored["template"]["mappings"]["properties"] == {"x": {"type": "ip"}}
    assert stored["_meta"]["owner"] == "me"
    assert stored["template"]["lifecycle"]["data_retention"] == "14d"


def test_what_drifted_is_put_right_and_nothing_else(run: Run) -> None:
    assert run.all() == 0
    stack = run.stack
    stack.roles["bulkscope_collector"]["indices"][0]["privileges"].append("all")
    stack.roles["theirs"] = {"cluster": ["all"]}
    stack.keys[0]["role_descriptors"]["bulkscope_collector"]["indices"][0]["privileges"] = ["read"]
    stack.views["bulkscope-logs"]["fieldFormats"] = {"bytes": {"id": "bytes"}}
    stack.views["theirs"] = {"name": "theirs"}
    run.key_file.chmod(0o644)
    stack.requests = []
    assert run.all("--dry-run") == 0
    assert stack.writes() == []
    assert "~ indices[0].privileges" in run.out
    assert run.all() == 0, run.err
    assert stack.writes() == [
        ("PUT", "/_security/role/bulkscope_collector"),
        ("PUT", f"/_security/api_key/{stack.keys[0]['id']}"),
        ("POST", "/api/data_views/data_view/bulkscope-logs"),
    ]
    assert stack.roles["bulkscope_collector"]["indices"][0]["privileges"] == ["create_doc", "auto_configure"]
    ours = ["attributes.bulk.id", "bulk.id", "trace.id", "trace_id"]
    assert sorted(stack.views["bulkscope-logs"]["fieldFormats"]) == sorted([*ours, "bytes"])
    assert stat.S_IMODE(run.key_file.stat().st_mode) == 0o600


def test_a_dashboard_is_replaced_when_ours_is_newer_and_not_when_it_was_edited(run: Run) -> None:
    assert run() == 0
    data = run.stack.dashboards["bulkscope-bulks"]["data"]
    data["title"] = "edited"
    assert run() == 0
    assert run.states()["dashboard bulkscope-bulks"] == "unchanged"
    assert run("--dry-run") == 0
    assert "--force-dashboards" in run.out
    assert run("--force-dashboards") == 0
    assert run.stack.dashboards["bulkscope-bulks"]["data"]["title"] == "Bulks"
    path = run.files / "kibana" / "dashboards" / "bulkscope-bulks.json"
    path.write_text(json.dumps(DASHBOARD | {"title": "Bulks, newer"}))
    assert run() == 0
    assert run.states()["dashboard bulkscope-bulks"] == "changed"
    assert run.stack.dashboards["bulkscope-bulks"]["data"]["title"] == "Bulks, newer"


def test_panels_that_kibana_drops_are_said(run: Run) -> None:
    run.stack.drops.add("links")
    assert run() == 0
    assert "Kibana left something out: Panel dropped" in run.out


def test_a_view_of_the_same_name_is_not_overwritten(run: Run) -> None:
    run.stack.views["theirs"] = {"name": "Bulkscope traces", "title": "x"}
    assert run() == 1
    assert "Duplicate data view" in run.err
    assert run.stack.views["theirs"]["title"] == "x"


# --- data streams that exist --------------------------------------------------------------------


def current_mapping(**attributes: str) -> dict[str, Any]:
    fields = {name: {"type": kind} for name, kind in attributes.items()}
    properties = {"attributes": {"type": "passthrough", "properties": fields}}
    return {"properties": properties, "dynamic_templates": plan.dynamic_templates()}


def test_existing_streams_that_are_right_are_left_alone(run: Run) -> None:
    good = current_mapping(**{"bulk.job.delay": "double", "bulk.id": "keyword", "theirs": "text"})
    run.stack.stream("traces-generic.otel-default", "traces", retention="14d", mapping=good)
    run.stack.stream("logs-generic.otel-default", "logs", retention="14d", mapping=good)
    run.stack.stream("metrics-hostmetricsreceiver.otel-default", "metrics", retention="30d")
    assert run("--only", "elasticsearch") == 0
    states = run.states()
    assert states["retention of traces-generic.otel-default"] == "unchanged"
    assert states["mapping of traces-generic.otel-default"] == "unchanged"
    written = [path for _, path in run.stack.writes() if path.startswith("/_data_stream")]
    assert written == [f"/_data_stream/{plan.VERDICTS}"]


def test_retention_is_lengthened_and_shortened_only_when_told(run: Run) -> None:
    stack = run.stack
    stack.stream("traces-generic.otel-default", "traces", retention="7d", mapping=current_mapping())
    stack.stream("logs-generic.otel-default", "logs", retention="90d", mapping=current_mapping())
    stack.stream("metrics-x.otel-default", "metrics")  # without an end
    theirs = [{"after": "1d", "fixed_interval": "10m"}]
    stack.streams["traces-generic.otel-default"]["lifecycle"]["downsampling"] = theirs
    assert run("--only", "elasticsearch") == 0
    kept = {name: stream.get("lifecycle", {}).get("data_retention") for name, stream in stack.streams.items()}
    assert kept.pop("metrics-hostmetricsreceiver.otel-default") == "30d"  # made on the way
    assert kept.pop(plan.VERDICTS) == "90d"  # so is this
    assert kept == {
        "traces-generic.otel-default": "14d",
        "logs-generic.otel-default": "90d",
        "metrics-x.otel-default": None,
    }
    assert stack.streams["traces-generic.otel-default"]["lifecycle"]["downsampling"] == theirs
    assert run.states()["retention of logs-generic.otel-default"] == "look at"
    assert "--shorten-retention" in run.out
    assert run("--only", "elasticsearch", "--shorten-retention", "--logs-retention", "10d") == 0
    assert stack.streams["logs-generic.otel-default"]["lifecycle"]["data_retention"] == "10d"
    assert stack.streams["metrics-x.otel-default"]["lifecycle"]["data_retention"] == "30d"


def test_streams_of_others_are_not_touched(run: Run) -> None:
    stack = run.stack
    stack.stream("logs-nginx.otel-default", "logs", retention="1d")
    stack.stream("traces-generic.otel-staging", "traces", retention="1d")
    stream = stack.stream("metrics-service_summary.1m.otel-default", "metrics", retention="1d")
    stream["template"] = "metrics-service_summary.1m.otel@template"
    before = copy.deepcopy(stack.streams)
    assert run("--only", "elasticsearch", "--shorten-retention", "--rollover") == 0
    assert {name: stack.streams[name] for name in before} == before


def test_the_streams_of_the_collector_are_made_once(run: Run) -> None:
    assert run("--only", "elasticsearch", "--dry-run") == 0
    assert run.stack.streams == {}
    assert run("--only", "elasticsearch") == 0
    assert set(run.stack.streams) == {*elasticsearch.WRITTEN, plan.VERDICTS}
    assert run.stack.streams[plan.VERDICTS]["template"] == plan.VERDICTS
    assert run.stack.streams["traces-generic.otel-default"]["lifecycle"]["data_retention"] == "14d"
    before = copy.deepcopy(run.stack.streams)
    assert run("--only", "elasticsearch") == 0
    assert run.stack.streams == before


def test_a_mapping_of_another_type_is_said_and_never_forced(run: Run) -> None:
    wrong = current_mapping(**{"bulk.job.delay": "long"})
    stream = run.stack.stream("traces-generic.otel-default", "traces", retention="14d", mapping=wrong)
    assert run("--only", "elasticsearch") == 0
    assert run.states()["mapping of traces-generic.otel-default"] == "look at"
    assert "attributes.bulk.job.delay is long, wanted double" in run.out
    assert "POST /traces-generic.otel-default/_rollover?lazy=true" in run.out
    assert stream["rollover_on_write"] is False
    assert run("--only", "elasticsearch", "--rollover", "--dry-run") == 0
    assert stream["rollover_on_write"] is False
    assert run("--only", "elasticsearch", "--rollover") == 0
    assert stream["rollover_on_write"] is True
    run.stack.requests = []
    assert run("--only", "elasticsearch", "--rollover") == 0
    assert run.stack.writes() == [], "one roll-over is enough"


def test_a_stream_older_than_our_templates_is_said(run: Run) -> None:
    run.stack.stream("logs-generic.otel-default", "logs", retention="14d", mapping={"properties": {}})
    assert run("--only", "elasticsearch") == 0
    assert "made before our types" in run.out


def test_mappings_are_read_flat_and_nested() -> None:
    nested_form = {"properties": {"attributes": {"properties": {"bulk": {"properties": {"size": {"type": "text"}}}}}}}
    assert elasticsearch.conflicts(nested_form) == ["attributes.bulk.size is text, wanted long"]
    assert elasticsearch.conflicts(current_mapping(**{"bulk.size": "long", "unknown": "text"})) == []
    assert elasticsearch.conflicts({}) == []


def test_the_failure_store_is_switched_on_unless_somebody_switched_it_off(run: Run) -> None:
    stack = run.stack
    for name, signal in (("traces-generic.otel-default", "traces"), ("logs-generic.otel-default", "logs")):
        stack.stream(name, signal, retention="14d", mapping=current_mapping())["failure_store"]["enabled"] = False
    stack.streams["logs-generic.otel-default"]["options"] = {"failure_store": {"enabled": False}}
    assert run("--only", "elasticsearch") == 0
    on = {name: stream["failure_store"]["enabled"] for name, stream in stack.streams.items()}
    assert on.pop("metrics-hostmetricsreceiver.otel-default")  # made on the way
    del on[plan.VERDICTS]
    assert on == {"traces-generic.otel-default": True, "logs-generic.otel-default": False}
    assert run.states()["failure store of logs-generic.otel-default"] == "look at"


# --- API keys -----------------------------------------------------------------------------------


def test_no_key_is_made_without_a_place_for_it(run: Run) -> None:
    assert run() == 0
    assert run.stack.keys == []
    assert "--collector-key-file" in run.out
    assert run("--collector-key-file", str(run.files / "not" / "there")) == 1
    assert "no API key was made" in run.err
    assert run.stack.keys == []


def test_rotation_leaves_the_old_key_a_day(run: Run) -> None:
    assert run.all() == 0
    old = run.key_file.read_text()
    assert run.all("--rotate-keys") == 0
    new = run.key_file.read_text()
    first, second = run.stack.keys
    assert old != new
    assert keys._identity(new) == second["id"]
    assert 86000 < first["expiration"] / 1000 - time.time() <= 86400
    assert not any(key["invalidated"] for key in run.stack.keys)
    assert "restart what uses it" in run.out
    run.stack.requests = []
    assert run.all() == 0
    assert run.stack.writes() == []


def test_a_key_whose_secret_is_lost_is_not_made_again_unasked(run: Run) -> None:
    assert run.all() == 0
    run.key_file.unlink()
    assert run.all() == 1
    assert "--rotate-keys" in run.err
    assert len(run.stack.keys) == 1
    assert run.all("--rotate-keys") == 0
    assert keys._identity(run.key_file.read_text()) == run.stack.keys[1]["id"]


@pytest.mark.parametrize("gone", ["invalidated", "expired"])
def test_a_key_that_holds_no_more_is_replaced(run: Run, gone: str) -> None:
    assert run.all() == 0
    if gone == "invalidated":
        run.stack.keys[0]["invalidated"] = True
    else:
        run.stack.keys[0]["expiration"] = int((time.time() - 1) * 1000)
    assert run.all() == 0, run.err
    assert run.states()["API key bulkscope-collector"] == "created"
    assert keys._identity(run.key_file.read_text()) == run.stack.keys[1]["id"]


def test_a_file_with_the_right_id_and_a_wrong_secret(run: Run) -> None:
    assert run.all() == 0
    run.key_file.write_text(base64.b64encode(f"{run.stack.keys[0]['id']}:forged".encode()).decode())
    assert run.all() == 1
    assert "does not hold it" in run.err
    assert len(run.stack.keys) == 1


def test_a_file_with_something_else_is_not_overwritten(run: Run) -> None:
    run.key_file.write_text("my notes\n")
    assert run.all() == 1
    assert "not overwritten" in run.err
    assert run.key_file.read_text() == "my notes\n"
    assert run.stack.keys == []


def test_a_key_cannot_make_keys(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.stack.keys.append(
        {"id": "adm", "secret": "in", "name": "a", "invalidated": False, "role_descriptors": {}, "owner_role": "admin"}
    )
    monkeypatch.delenv("ELASTIC_PASSWORD")
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", base64.b64encode(b"adm:in").decode())
    assert run("--only", "elasticsearch") == 0, run.err
    assert run.all("--only", "elasticsearch") == 1
    assert "set ELASTIC_PASSWORD" in run.err
    assert len(run.stack.keys) == 1


# --- waiting and faults -------------------------------------------------------------------------


def test_it_waits_for_elasticsearch_and_kibana(run: Run) -> None:
    run.stack.kibana_needs = KIBANA_PASSWORD  # Kibana comes up only once its password is set
    run.stack.faults += [
        Fault("elasticsearch", "GET /", "status", 503, {"error": "no master"}, times=3),
        Fault("kibana", "GET /api/status", "status", 503, "Kibana server is not ready yet.", times=4),
        Fault("kibana", "GET /api/status", "cut", times=2),
    ]
    assert run() == 0, run.err
    assert run.out.count("waiting for Elasticsearch at") == 1
    assert run.out.count("waiting for Kibana at") == 1
    assert all(fault.times == 0 for fault in run.stack.faults)


def test_waiting_ends(run: Run) -> None:
    run.stack.kibana_needs = "another password"
    assert run(wait=0.2) == 1
    assert "was not ready within 0.2 s" in run.err
    assert "another password for kibana_system" in run.err
    assert "Half of it is done" in run.err


def test_the_clock_of_waiting() -> None:
    now, said, slept = [0.0], [], []

    def probe() -> None:
        raise NotReady("no")

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with pytest.raises(Trouble, match="within 5 s: no"):
        wait(probe, 5, "it", said.append, clock=lambda: now[0], sleep=sleep)
    assert (len(said), slept) == (1, [1.0] * 5)


def test_nobody_listens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:1")
    assert run(wait=0) == 1
    assert "cannot be reached at http://127.0.0.1:1" in run.err
    assert "ELASTICSEARCH_URL" in run.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            Fault(
                "kibana", "PUT /api/dashboards/.*", "status", 409, {"message": "version conflict"}, times=apply.LOOKS
            ),
            "run it again",
        ),
        (
            Fault("elasticsearch", "PUT /_security/role/.*", "status", 409, {"error": "conflict"}, times=apply.LOOKS),
            "(409): conflict",
        ),
        (Fault("elasticsearch", "GET /", "html", 200), "a web page"),
        (Fault("elasticsearch", "GET /", "garbage"), "not JSON"),
        (Fault("elasticsearch", "GET /", "status", 200, {"hello": 1}), "is not Elasticsearch"),
        (Fault("elasticsearch", "GET /", "status", 200, [1]), "is not Elasticsearch"),
        (
            Fault(
                "elasticsearch", "GET /", "status", 200, {"version": {"number": "2.1.0", "distribution": "opensearch"}}
            ),
            "but opensearch",
        ),
        (Fault("elasticsearch", "GET /", "status", 302, {}), "redirects"),
        (Fault("elasticsearch", "GET /_license", "status", 200, {}), "form that is documented"),
        (Fault("elasticsearch", "PUT /_component_template/traces.*", "html", 403), "may not PUT"),
        (Fault("kibana", "GET /api/status", "html", 200), "a web page"),
        (Fault("kibana", "GET /api/status", "status", 200, {"ok": True}), "is not Kibana"),
        (Fault("kibana", "POST /api/saved_objects/_export", "html", 200), "not NDJSON"),
        (
            Fault(
                "elasticsearch",
                "PUT /_component_template/logs.*",
                "status",
                400,
                {"error": {"reason": "invalid template", "caused_by": {"reason": "mapper [x] cannot be changed"}}},
            ),
            "invalid template: mapper [x] cannot be changed",
        ),
        (Fault("elasticsearch", "PUT /_security/role/.*", "status", 500, {"error": "boom"}), "answered 500"),
    ],
)
def test_faults_say_what_is_wrong_and_a_second_run_heals(run: Run, fault: Fault, said: str) -> None:
    run.stack.faults.append(fault)
    assert run.all(wait=0) == 1
    assert said in run.err
    assert run.err.count("\n") == 1, "one sentence, no traceback"
    assert fault.times == 0
    assert run.all() == 0, run.err
    assert run.stack.snapshot() == _fresh(run)


@pytest.mark.parametrize(
    ("server", "pattern", "body", "said"),
    [
        ("elasticsearch", "GET /_license", {"license": "basic"}, "license is text, not an object"),
        ("elasticsearch", "GET /_index_template/.*", {"index_templates": [{}]}, "index_templates[0].index_template is"),
        ("elasticsearch", "GET /_component_template/.*", [], "it is a list, not an object"),
        ("elasticsearch", "GET /_data_stream/traces.*", {"data_streams": [{"name": 1}]}, "[0].name is a number, not"),
        ("elasticsearch", "GET /_security/role/.*", {"other": {}}, "is missing"),
        ("elasticsearch", "GET /_security/api_key", {"api_keys": [{"id": "i"}]}, "api_keys[0].name is missing"),
        ("elasticsearch", "POST /_security/api_key", {"id": "i", "encoded": None}, "encoded is null, not text"),
        ("kibana", "GET /api/data_views/.*", {"data_view": True}, "data_view is true or false, not an object"),
        ("kibana", "GET /api/dashboards/.*", None, "data is missing"),
    ],
)
def test_an_answer_of_another_form_is_told_by_what_is_wrong_in_it(
    run: Run, server: str, pattern: str, body: Any, said: str
) -> None:
    run.stack.faults.append(Fault(server, pattern, "status", 200, {} if body is None else body))
    assert run.all() == 1
    assert "does not have the form that is documented" in run.err
    assert said in run.err
    assert run.err.count("\n") == 1
    assert run.all() == 0, run.err


def test_a_mistake_of_ours_is_not_told_as_the_servers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError, TypeError, AttributeError, IndexError):
        with monkeypatch.context() as patch:
            patch.setattr(merge, "template", lambda have, ours, raised=error: (_ for _ in ()).throw(raised("ours")))
            with pytest.raises(error, match="ours"):
                run()


def _fresh(run: Run) -> str:
    """The state is what a run without faults would have left: a further one finds nothing to do."""
    before, run.stack.requests = run.stack.snapshot(), []
    assert run.all() == 0
    assert run.stack.writes() == []
    return before


@pytest.mark.parametrize("kind", ["cut", "half", "lost", "slow", "status"])
@pytest.mark.parametrize(
    "pattern",
    ["PUT /_component_template/logs-otel@custom", "GET /_security/role/bulkscope_reader", "GET /_data_stream/.*"],
)
def test_what_passes_is_tried_again(run: Run, kind: str, pattern: str) -> None:
    run.stack.faults.append(Fault("elasticsearch", pattern, kind, 503, times=2))
    assert run("--only", "elasticsearch") == 0, run.err
    assert run.stack.faults[0].times == 0


def test_an_answer_that_drips_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    run.stack.faults.append(Fault("elasticsearch", "GET /_license", "drip", times=99))
    assert run("--only", "elasticsearch") == 1
    assert "the answer took longer" in run.err


def test_tls(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serve(Stack(), context) as stack:
        monkeypatch.setenv("ELASTICSEARCH_URL", stack.urls["elasticsearch"])
        monkeypatch.setenv("KIBANA_URL", stack.urls["kibana"])
        assert run() == 1
        assert "--ca" in run.err
        assert stack.requests == []
        assert run("--ca", str(tmp_path / "ca.pem")) == 0, run.err
        monkeypatch.setenv("ELASTICSEARCH_URL", run.stack.urls["elasticsearch"].replace("http:", "https:"))
        assert run(wait=0) == 1
        assert "is it http, not https?" in run.err


def test_a_redirect_is_not_followed(run: Run) -> None:
    with serve(Stack()) as other:
        location = other.urls["elasticsearch"]
        run.stack.faults.append(Fault("elasticsearch", "GET /", "status", 307, {"location": location}))
        assert run() == 1
        assert other.requests == [], "the password would have gone there"
    assert "set ELASTICSEARCH_URL to that address" in run.err


def test_no_proxy_comes_between_on_one_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert run() == 0, run.err


def test_attempts_are_bounded(run: Run) -> None:
    run.stack.faults.append(Fault("elasticsearch", "PUT /_component_template/logs.*", "status", 429, times=99))
    assert run("--only", "elasticsearch") == 1
    assert "answered 429" in run.err
    assert 99 - run.stack.faults[0].times == 4


def test_one_refused_dashboard_or_view_stops_no_other(run: Run) -> None:
    for name in ("bulkscope-first", "bulkscope-second"):
        (run.files / "kibana" / "dashboards" / f"{name}.json").write_text(json.dumps(DASHBOARD | {"title": name}))
    bad = {"statusCode": 400, "error": "Bad Request", "message": "[panels.0.uid]: definition for this key is missing"}
    run.stack.faults += [
        Fault("kibana", "PUT /api/dashboards/bulkscope-first", "status", 400, bad),
        Fault("kibana", "GET /api/data_views/data_view/bulkscope-traces", "status", 500, {"message": "boom"}),
    ]
    assert run.all() == 1
    assert run.states()["dashboard bulkscope-first"] == run.states()["data view bulkscope-traces"] == "failed"
    assert run.states()[f"file {run.ndjson}"] == "skipped"
    assert "[panels.0.uid]: definition for this key is missing" in run.out
    assert "boom" in run.err
    assert "dashboard bulkscope-first" in run.err
    assert run.err.count("\n") == 1
    assert "--only kibana" in run.err
    assert sorted(run.stack.dashboards) == ["bulkscope-bulks", "bulkscope-second"]
    assert len(run.stack.views) == len(plan.data_views()) - 1
    assert run("--only", "kibana") == 0
    assert run.states()["dashboard bulkscope-first"] == run.states()["data view bulkscope-traces"] == "created"
    assert run.all() == 0
    assert run.stack.snapshot() == _fresh(run)


def test_half_done_says_what_is_done(run: Run) -> None:
    run.stack.faults.append(Fault("elasticsearch", "PUT /_component_template/metrics.*", "status", 500, times=1))
    assert run() == 1
    assert "Half of it is done: password of kibana_system, component template traces-otel@custom" in run.err
    assert "Running it again is safe" in run.err
    assert "component template metrics" not in run.err.partition("Half of it")[2]
    assert run() == 0
    assert run.states()["component template traces-otel@custom"] == "unchanged"
    assert run.states()["component template metrics-otel@custom"] == "created"


def _holds_one_key(run: Run) -> None:
    """One key is valid, the Collector's file holds it, and nothing else is left of its making."""
    (valid,) = (key for key in run.stack.keys if not key["invalidated"])
    assert "expiration" not in valid
    assert base64.b64decode(run.key_file.read_text()).decode() == f"{valid['id']}:{valid['secret']}"
    assert [path.name for path in run.key_file.parent.glob(".collector.key*")] == [".collector.key.setup"]


def test_a_key_whose_making_was_not_answered_is_ended_and_another_made(run: Run) -> None:
    run.stack.faults.append(Fault("elasticsearch", "POST /_security/api_key", "lost"))
    assert run.all() == 0, run.err
    assert run.states()["lost API key bulkscope-collector"] == "changed"
    assert [key["invalidated"] for key in run.stack.keys] == [True, False]
    _holds_one_key(run)


def test_a_key_that_is_never_answered_leaves_none_that_is_valid_for_ever(run: Run) -> None:
    run.stack.faults.append(Fault("elasticsearch", "POST /_security/api_key", "lost", times=99))
    assert run.all() == 1
    assert "Running it again is safe" in run.err
    assert len(run.stack.keys) == apply.LOOKS + 1, "that the first was lost is news once"
    assert [key["invalidated"] for key in run.stack.keys].count(False) == 1, "the last, which the next run ends"
    assert not run.key_file.exists()
    run.stack.faults.clear()
    assert run.all() == 0, run.err
    _holds_one_key(run)


def test_a_key_that_comes_to_be_after_all_is_ended(run: Run) -> None:
    # The answer was not waited for, and the server makes the key later: after another is made and in its file.
    assert run.all() == 0
    run.stack.keys.append(copy.deepcopy(run.stack.keys[0]) | {"id": "late", "secret": "nobody-knows"})
    assert run.all("--dry-run") == 0
    assert run.states()["lost API key bulkscope-collector"] == "would change"
    assert not run.stack.keys[1]["invalidated"]
    assert run.all() == 0
    _holds_one_key(run)


def test_where_nothing_can_be_written_a_key_that_is_there_is_used_and_none_is_made(run: Run) -> None:
    assert run.all() == 0
    notes = run.key_file.with_name(".collector.key.setup")
    notes.unlink()
    notes.mkdir()  # as a read-only file system, which root would write to in a test
    assert run.all() == 0, run.err
    assert run.states()["API key bulkscope-collector"] == "unchanged"
    assert run.all("--rotate-keys") == 1
    assert "cannot be written" in run.err
    assert "no API key was made" in run.err
    assert len(run.stack.keys) == 1


def test_a_key_of_another_place_is_never_ended(run: Run) -> None:
    assert run.all() == 0
    elsewhere = run.key_file.with_name("another-machine.key")
    assert run("--collector-key-file", str(elsewhere)) == 1
    assert "does not hold it" in run.err
    assert not elsewhere.exists()
    _holds_one_key(run)
    assert run("--collector-key-file", str(elsewhere), "--rotate-keys") == 0
    assert not run.stack.keys[0]["invalidated"], "it ends in a day, as told"
    assert run.stack.keys[0]["expiration"]


@pytest.mark.parametrize("arguments", [(), ("--rotate-keys",)])
def test_a_run_that_is_killed_while_it_makes_a_key_does_not_stand_in_the_way(
    run: Run, arguments: tuple[str, ...]
) -> None:
    if arguments:
        assert run.all() == 0
    for place in ("os.replace", "os.fsync", "os.write", "keys._Place.note"):
        program = f"import os; from bulkscope_studio.setup import keys; {place} = lambda *anything: os._exit(9)"
        assert run.apart(program, *arguments).wait(60) == 9
    assert run.all() == 0, run.err
    for key in run.stack.keys[:-1]:
        key["invalidated"] |= "expiration" in key  # of a rotation: it ends in a day
    _holds_one_key(run)


def test_a_rotation_that_was_cut_off_is_ended_by_the_next_run(run: Run) -> None:
    assert run.all() == 0
    run.stack.faults.append(Fault("elasticsearch", "PUT /_security/api_key/.*", "cut", times=client.ATTEMPTS))
    assert run.all("--rotate-keys") == 1
    assert keys._identity(run.key_file.read_text()) == run.stack.keys[1]["id"]
    assert "expiration" not in run.stack.keys[0]
    assert run.all() == 0
    assert run.stack.keys[0]["expiration"]
    assert "expiration" not in run.stack.keys[1]


def _number_of_requests(run: Run) -> int:
    with serve(Stack()) as other:
        run.point_to(other)
        assert run.all() == 0, run.err
        run.key_file.unlink()
        return len(other.requests)


@pytest.mark.parametrize("times", [1, 10_000], ids=["one", "all-from-there-on"])
def test_after_lost_answers_a_second_run_ends_well(run: Run, times: int) -> None:
    """Whichever request it is whose answer is lost, alone or with all that follow."""
    requests = _number_of_requests(run)
    assert requests > 30
    for number in range(requests):
        with serve(Stack()) as other:
            run.point_to(other)
            other.faults.append(Fault("", ".*", "lost", times=times, skip=number))
            assert run.all(wait=20 if times == 1 else 0) == (0 if times == 1 else 1), (number, run.err)
            other.faults.clear()
            assert run.all() == 0, (number, run.err)
            _holds_one_key(run)
            before, other.requests = other.snapshot(), []
            assert run.all() == 0
            assert (other.writes(), other.snapshot()) == ([], before), number
            run.key_file.unlink()


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arguments", [(), ("--rotate-keys",)])
def test_four_runs_at_once_all_end_well(run: Run, arguments: tuple[str, ...], rounds: int) -> None:
    if arguments:
        assert run.all() == 0
    for _ in range(rounds):
        started = [run.apart("", *arguments) for _ in range(4)]
        said = [one.communicate(timeout=120)[0].decode() for one in started]
        assert [one.returncode for one in started] == [0] * 4, said
    if arguments:
        for key in run.stack.keys[:-1]:
            assert key["expiration"], "each former one ends"
            key["invalidated"] = True
    _holds_one_key(run)
    run.stack.requests = []
    assert run.all() == 0
    assert run.stack.writes() == []


def test_a_key_that_was_declined_is_tried_again(run: Run) -> None:
    run.stack.faults.append(Fault("elasticsearch", "POST /_security/api_key", "status", 503, {"error": "busy"}))
    assert run.all() == 0, run.err
    assert len(run.stack.keys) == 1


def test_a_wrong_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTIC_PASSWORD", "wr0ng-elastic")
    assert run() == 1
    assert "does not accept user elastic (ELASTIC_PASSWORD): wrong password or key (401)" in run.err
    assert "wr0ng" not in run.err + run.out
    assert run.stack.writes() == []
    assert run("--only", "kibana") == 1
    assert "does not accept user elastic" in run.err


def test_too_few_rights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.all() == 0
    monkeypatch.delenv("ELASTIC_PASSWORD")
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", run.key_file.read_text())
    run.stack.requests = []
    assert run() == 1
    assert "the API key (ELASTICSEARCH_API_KEY) may not GET / at Elasticsearch (403)" in run.err
    assert run.stack.writes() == []


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"version": "9.4.1"}, (), "--exporter bulk"),
        ({"version": "8.11.0", "flavor": "serverless"}, (), "serverless"),
        ({"licence": "expired"}, (), "start_basic"),
        ({"kibana_version": "9.4.0"}, (), "upgrade Kibana"),
    ],
)
def test_a_stack_that_will_not_do(run: Run, change: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    for name, value in change.items():
        setattr(run.stack, name, value)
    assert run(*arguments) == 1
    assert said in run.err


def test_an_older_stack_with_the_bulk_exporter(run: Run) -> None:
    run.stack.version = run.stack.kibana_version = "9.3.1"
    assert run.all("--exporter", "bulk") == 0, run.err
    assert run.states()["dashboards"] == "skipped"
    assert {json.loads(line)["type"] for line in run.ndjson.read_text().splitlines()} == {"index-pattern"}


@pytest.mark.parametrize("signal", plan.SIGNALS)
def test_a_cluster_without_the_templates_of_opentelemetry(run: Run, signal: str) -> None:
    template = run.stack.index_templates.pop(f"{signal}-otel@template")
    assert run() == 1
    assert "xpack.otel_data.registry.enabled" in run.err
    assert run.stack.component_templates == {}
    run.stack.index_templates[f"{signal}-otel@template"] = template | {"composed_of": []}
    assert run() == 1
    assert f"does not take in {signal}-otel@custom" in run.err


# --- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"ELASTIC_PASSWORD": ""}, (), "set ELASTIC_PASSWORD or ELASTICSEARCH_API_KEY"),
        ({"ELASTICSEARCH_URL": "http://elastic:hidden@127.0.0.1:9"}, (), "ELASTIC_PASSWORD"),
        ({"ELASTICSEARCH_URL": "localhost:9200"}, (), "no address such as"),
        ({"KIBANA_URL": "http://127.0.0.1:99999"}, (), "no address such as"),
        ({"ELASTIC_PASSWORD": "", "ELASTICSEARCH_API_KEY": "two words"}, (), "no encoded API key"),
        ({"ELASTIC_PASSWORD": "", "ELASTIC_PASSWORD_FILE": "/nowhere/at/all"}, (), "/nowhere/at/all"),
        ({}, ("--traces-retention", "soon"), "14d"),
        ({"TRACES_RETENTION": "soon"}, (), "14d"),
        ({}, ("--ca", "/nowhere/ca.pem"), "/nowhere/ca.pem"),
        ({}, ("--files", "/nowhere"), "--files"),
        ({}, ("--wait", "-1"), "--wait"),
    ],
)
def test_wrong_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(*arguments) == 2
    assert said in run.err
    assert "hidden" not in run.err
    assert run.stack.requests == []


def test_a_secret_is_no_argument(run: Run) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--password", PASSWORD)
    assert ended.value.code == 2


def test_secrets_from_files(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("ELASTIC_PASSWORD", PASSWORD), ("KIBANA_SYSTEM_PASSWORD", KIBANA_PASSWORD)):
        monkeypatch.delenv(name)
        (tmp_path / name).write_text(value + "\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    assert run() == 0, run.err
    assert run.stack.users["kibana_system"] == KIBANA_PASSWORD


SECRETS = ("ELASTIC_PASSWORD", "ELASTIC_PASSWORD_FILE", "ELASTICSEARCH_API_KEY", "ELASTICSEARCH_API_KEY_FILE")
WITH_PASSWORD, WITH_KEY = basic("elastic", "secret", "").header, api_key("a2V5", "").header


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({}, None),
        ({"ELASTIC_PASSWORD": "secret"}, WITH_PASSWORD),
        ({"ELASTIC_PASSWORD_FILE": "secret\n"}, WITH_PASSWORD),
        ({"ELASTICSEARCH_API_KEY": "a2V5"}, WITH_KEY),
        ({"ELASTICSEARCH_API_KEY_FILE": "a2V5\r\n"}, WITH_KEY),
        ({"ELASTIC_PASSWORD": "secret", "ELASTICSEARCH_API_KEY": "a2V5"}, WITH_PASSWORD),
        ({"ELASTIC_PASSWORD_FILE": "secret", "ELASTICSEARCH_API_KEY": "a2V5"}, WITH_PASSWORD),
        ({"ELASTIC_PASSWORD": "secret", "ELASTIC_PASSWORD_FILE": "another"}, WITH_PASSWORD),
        ({"ELASTIC_PASSWORD": "", "ELASTICSEARCH_API_KEY": "a2V5"}, WITH_KEY),
    ],
)
def test_setup_and_reports_log_in_by_one_rule(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], header: str | None
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        if name.endswith("_FILE"):
            (tmp_path / name).write_text(value, newline="")
        monkeypatch.setenv(name, str(tmp_path / name) if name.endswith("_FILE") else value)
    asked = elastic.client()
    assert (asked.credentials.header if asked.credentials else None) == header
    assert asked.url == run.stack.urls["elasticsearch"]
    if header is None:  # a report may be read where nobody asks who it is for, and nothing can be set up so
        assert run() == 2
        return
    made = session.made(setup._parser({}).parse_args(["--files", str(run.files)]), os.environ, print)
    assert made.elasticsearch.credentials is not None
    assert made.elasticsearch.credentials.header == header


def test_what_is_wrong_in_the_environment_is_said_to_reports_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ELASTICSEARCH_URL", "localhost:9200")
    with pytest.raises(Trouble, match="no address such as"):
        elastic.client()
    monkeypatch.delenv("ELASTICSEARCH_URL")
    monkeypatch.setenv("ELASTICSEARCH_API_KEY_FILE", "/nowhere/at/all")
    with pytest.raises(Trouble, match="/nowhere/at/all"):
        elastic.client()
    with pytest.raises(BadEnvironment, match="is empty"):
        credentials({"ELASTIC_PASSWORD_FILE": "/dev/null"})


def test_the_password_of_kibana_is_set_once_and_again_when_it_changes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0
    monkeypatch.setenv("KIBANA_SYSTEM_PASSWORD", "an0ther-kibana")
    assert run() == 0
    assert run.states()["password of kibana_system"] == "changed"
    assert run.stack.users["kibana_system"] == "an0ther-kibana"
    monkeypatch.setenv("KIBANA_SYSTEM_PASSWORD", "short")
    assert run() == 1
    assert "at least [6] characters" in run.err


def test_retention_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACES_RETENTION", "2d")
    assert run() == 0
    kept = run.stack.component_templates["traces-otel@custom"]["template"]["lifecycle"]["data_retention"]
    assert kept == "2d"
    assert "rangeFrom=now-2d" in json.dumps(run.stack.views["bulkscope-traces"])
    assert run("--traces-retention", "3d") == 0, "the option wins"
    assert "rangeFrom=now-3d" in json.dumps(run.stack.views["bulkscope-traces"])
