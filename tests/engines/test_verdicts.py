"""`bulkscope explain --publish` on a real Elasticsearch: one document a bulk, whatever is run how often."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bulkscope_studio.analysis.explain import findings
from bulkscope_studio.cli import explain
from bulkscope_studio.elastic.client import Client, Trouble
from bulkscope_studio.setup import plan
from bulkscope_studio.sources import verdicts
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from tests import sink
from tests.engines import servers, templates
from tests.engines.conftest import Stack
from tests.engines.servers import ask, eventually
from tests.engines.traffic import JOBS, documents


def stored(url: str) -> list[dict[str, Any]]:
    ask("POST", f"{url}/{plan.VERDICTS}/_refresh")
    answer = ask("POST", f"{url}/{plan.VERDICTS}/_search", {"size": 100, "version": True, "sort": ["bulk.id"]})
    found: list[dict[str, Any]] = answer["hits"]["hits"]
    return found


@pytest.fixture
def traffic(stack: Stack, sent: sink.Sink, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Base URL of the Elasticsearch that has the demo's traffic, and an empty stream of verdicts."""
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    for name in ("ELASTIC_PASSWORD", "ELASTICSEARCH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    templates.verdicts(stack.elasticsearch)
    yield stack.elasticsearch
    ask("DELETE", f"{stack.elasticsearch}/_data_stream/{plan.VERDICTS}")


def leaves(found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def mapped(properties: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, field in properties.items():
        if "properties" in field:
            yield from mapped(field["properties"], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def publish(*arguments: str) -> int:
    return explain.command([*arguments, "--publish", "--source", "elasticsearch"])


def again(capsys: pytest.CaptureFixture[str]) -> set[str]:
    capsys.readouterr()
    assert publish("--last", "1h") == 0
    return {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_what_is_published_is_what_explain_says_once(traffic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish("--last", "1h") == 0
    told = [line.partition(":")[0].split() for line in capsys.readouterr().out.splitlines()]
    assert told == [["created", "tiny"], ["created", "unknown"]]
    first = stored(traffic)
    assert [hit["_source"]["bulk"]["id"] for hit in first] == ["tiny", "unknown"]
    found = first[0]["_source"]
    said = ElasticsearchSource(Client("Elasticsearch", traffic)).explanation("tiny")
    assert found["verdict"]["code"] == said["verdict"]["code"]
    assert found["verdict"]["text"] == said["verdict"]["text"]
    assert found["bulk"]["state"] == said["state"] == "complete"
    assert found["jobs"]["done"] == found["jobs"]["sent"] == JOBS
    assert found["tokens"]["output"] > 0
    assert found["@timestamp"] == found["bulk"]["end"]
    assert "tokens" not in first[1]["_source"], "no inference was made: absent is not 0"
    # Samples of the host may still have been under way; once all are there, nothing changes any more.
    eventually(lambda: again(capsys) == {"unchanged"})
    first = stored(traffic)
    assert again(capsys) == {"unchanged"}
    assert stored(traffic) == first, "not a byte is another"
    assert publish("latest", "--format", "json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["state"] == "unchanged"


def test_each_field_is_in_the_mapping(traffic: str) -> None:
    assert publish("--last", "1h") == 0
    (template,) = plan.index_templates(servers.ROOT / "elasticsearch").values()
    known = set(mapped(template["template"]["mappings"]["properties"]))
    seen = {leaf for hit in stored(traffic) for leaf in leaves(hit["_source"])}
    assert seen <= known
    assert {"verdict.code", "verdict.text", "jobs.done", "time_s.work", "workers.own_s", "cpu_s"} <= seen
    columns = ask("POST", f"{traffic}/_query", {"query": f"FROM {plan.VERDICTS} | LIMIT 1"})["columns"]
    assert {column["name"] for column in columns} == known


def test_another_verdict_takes_the_place_of_the_former_also_after_a_roll_over(traffic: str) -> None:
    client = Client("Elasticsearch", traffic)
    found = verdicts.judged(ElasticsearchSource(client), "tiny")
    assert found is not None
    running = found | {"bulk": found["bulk"] | {"state": "running"}, "duration_s": 0.5}
    assert verdicts.publish(client, running, 1000.0) == "created"
    ask("POST", f"{traffic}/{plan.VERDICTS}/_rollover")
    assert verdicts.publish(client, found, 2000.0) == "changed"
    (hit,) = stored(traffic)
    assert (hit["_source"]["bulk"]["state"], hit["_source"]["published"]) == ("complete", "1970-01-01T00:33:20.000Z")
    assert verdicts.publish(client, found, 3000.0) == "unchanged"
    assert stored(traffic) == [hit]


def test_of_several_at_once_one_writes(traffic: str) -> None:
    client = Client("Elasticsearch", traffic)
    found = verdicts.judged(ElasticsearchSource(client), "tiny")
    assert found is not None
    states: list[str] = []
    threads = [
        threading.Thread(target=lambda: states.append(verdicts.publish(client, found, 1000.0))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["created", "unchanged", "unchanged", "unchanged"]
    assert len(stored(traffic)) == 1


def test_the_alert_of_the_documentation_finds_what_went_wrong(traffic: str) -> None:
    text = (servers.ROOT / "kibana" / "README.md").read_text()
    (query,) = re.findall(r"```esql\n(FROM bulkscope-verdicts.*?)```", text, re.DOTALL)
    client = Client("Elasticsearch", traffic)
    found = verdicts.judged(ElasticsearchSource(client), "tiny")
    assert found is not None
    for code, state in itertools.product(findings.TITLES, ("complete", "running", "stopped")):
        bulk = found["bulk"] | {"id": f"{code} {state}", "state": state}
        verdicts.publish(client, found | {"bulk": bulk, "verdict": found["verdict"] | {"code": code}}, 1000.0)
    answer = ask("POST", f"{traffic}/_query", {"query": query})
    at = [column["name"] for column in answer["columns"]].index("bulk.id")
    codes = ("internal_failure", "overload", "memory_limited")
    assert {row[at] for row in answer["values"]} == {
        f"{code} {end}" for code in codes for end in ("complete", "stopped")
    }


def test_what_cannot_be_done_says_what_to_do(traffic: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["tiny", "--publish"], "add --source elasticsearch"),
        (["tiny", "--last", "1h", "--publish", "--source", "elasticsearch"], "name a bulk to publish"),
        (["tiny", "--last", "1h"], "--last goes with --publish"),
        (["--last", "soon", "--publish", "--source", "elasticsearch"], "is not a duration"),
        (["tony", "--publish", "--source", "elasticsearch"], "Nearest: tiny"),
    ):
        assert explain.command(arguments) == 2
        assert words in capsys.readouterr().err
    ask("DELETE", f"{traffic}/_data_stream/{plan.VERDICTS}")
    assert publish("tiny") == 2
    assert "'bulkscope setup --only elasticsearch' makes it" in capsys.readouterr().err
    with pytest.raises(Trouble, match="makes it"):
        verdicts.publish(Client("Elasticsearch", traffic), {"@timestamp": 0, "bulk": {"id": "x"}}, 1000.0)
    templates.verdicts(traffic)
