"""All that setup sends to Elasticsearch, held against Elastic's own specification of its API."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.cli import setup
from bulkscope_studio.setup import merge, plan
from tests.production import elastic_api
from tests.production.setup_server import Stack, serve

ROOT = Path(__file__).resolve().parents[2]
ELASTICSEARCH = ROOT / "elasticsearch"


def test_all_bodies_are_as_specified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTIC_PASSWORD", "s3cret-elastic")
    monkeypatch.setenv("KIBANA_SYSTEM_PASSWORD", "s3cret-kibana")
    roles = ("collector", "reader", "publisher")
    keys = [part for role in roles for part in (f"--{role}-key-file", str(tmp_path / role))]
    with serve(Stack()) as stack:
        for variable, server in (("ELASTICSEARCH_URL", "elasticsearch"), ("KIBANA_URL", "kibana")):
            monkeypatch.setenv(variable, stack.urls[server])
        stack.stream("traces-generic.otel-default", "traces", retention="1d")["failure_store"]["enabled"] = False
        assert setup.command(keys) == 0
        assert setup.command([*keys, "--rotate-keys", "--rollover", "--shorten-retention"]) == 0
        sent = [(method, path, body) for server, method, path, body in stack.requests if server == "elasticsearch"]
    changing = [one for one in sent if one[0] != "GET"]
    assert {path.split("/")[1] for _, path, _ in changing} >= {"_component_template", "_index_template", "_security"}
    for method, path, body in changing:
        assert elastic_api.described(method, path), (method, path)
        assert elastic_api.refusal(method, path, body) is None


@pytest.mark.parametrize(
    ("path", "body", "key", "value"),
    [
        ("/_component_template/x", "component", ("template", "setings"), {}),
        ("/_component_template/x", "component", ("template", "lifecycle", "retention"), "14d"),
        ("/_component_template/x", "component", ("template", "data_stream_options", "failure"), {}),
        ("/_component_template/x", "component", ("template", "mappings", "dynamic_template"), []),
        ("/_index_template/x", "index", ("prioriti",), 1),
        ("/_index_template/x", "index", ("template", "mappings", "properties", "bulk"), {"type": "keywrd"}),
        ("/_index_template/x", "index", ("template", "mappings", "dynamic"), "no"),
        ("/_security/role/x", "role", ("indexes",), []),
        ("/_security/role/x", "role", ("indices", 0, "privileges"), ["wirte"]),
        ("/_security/role/x", "role", ("indices", 0, "name"), "x"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_specification_refuses_what_elasticsearch_refuses(
    path: str, body: str, key: tuple[str | int, ...], value: Any
) -> None:
    bodies = {
        "component": merge.template(None, plan.component_templates(ELASTICSEARCH)["traces-otel@custom"]),
        "index": plan.index_templates(ELASTICSEARCH)[plan.VERDICTS],
        "role": plan.roles(ELASTICSEARCH)["bulkscope_reader"],
    }
    found = copy.deepcopy(bodies[body])
    assert elastic_api.refusal("PUT", path, found) is None
    holder: Any = found
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = value
    assert elastic_api.refusal("PUT", path, found) is not None
