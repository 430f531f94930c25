"""One bulk in two homes: every number of its report is the same, read from the studio and from Elasticsearch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bulkscope_studio.cli import bulks, report
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.services import reports
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.storage.store import Store
from tests import rows, sink
from tests.engines.conftest import Stack
from tests.engines.servers import ask, eventually
from tests.engines.traffic import JOBS, documents
from tests.processes import free_port


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return a report as one dict: ``models.0.jobs.wait_s.p50`` and the like."""
    if isinstance(value, dict):
        return {name: leaf for key, item in value.items() for name, leaf in flat(item, f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {name: leaf for key, item in enumerate(value) for name, leaf in flat(item, f"{path}.{key}").items()}
    return {path: value}


@pytest.mark.parametrize("bulk", ["tiny", "unknown"])
def test_every_number_is_the_same(stack: Stack, sent: sink.Sink, studio: Store, bulk: str) -> None:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    theirs = ElasticsearchSource(Client("Elasticsearch", stack.elasticsearch)).report(bulk)
    if theirs["ending"] is not None:
        # The Collector's host metrics go on to Elasticsearch alone: by them what ran may have stopped.
        rows.add(studio.connection(), "points", [rows.alive(theirs["ending"]["now_ns"])])
    ours = reports.bulk_report(studio, bulk)
    for one in (ours, theirs):
        one.pop("hosts")  # seen by the Collector, and by a running studio, which is not here
    if theirs["ending"] is not None:
        # Jobs of other bulks that wait are not read from Elasticsearch.
        assert (ours["ending"].pop("ahead"), theirs["ending"].pop("ahead")) == (0, None)
    wanted, found = flat(ours), flat(theirs)
    assert set(found) == set(wanted)
    if bulk == "tiny":
        assert wanted[".progress.sent"] == JOBS
    for name, value in wanted.items():
        if isinstance(value, float) and not name.endswith("_ns"):
            # Elasticsearch keeps the start of a span in milliseconds: what comes from times of day is that far off.
            # Of Little's law it is the time in the system that is, which jobs of some 20 ms share.
            off = 0.005 if name == ".little.deviation" else 0.0011
            assert found[name] == pytest.approx(value, rel=0.02, abs=off), name
        elif name.endswith("_ns") and isinstance(value, int):
            assert abs(found[name] - value) <= 10**6, name
        else:
            assert found[name] == value, name


def test_the_hosts_of_the_bulk_are_in_the_report(stack: Stack, sent: sink.Sink) -> None:
    hosts = {span["resource"]["host.name"] for span in sent.spans}

    def shares() -> Any:
        found = ElasticsearchSource(Client("Elasticsearch", stack.elasticsearch)).report("tiny")
        return [host for host in found["hosts"] if host["cpu_mean_share"] is not None]

    (host,) = eventually(shares)
    assert {host["name"]} == hosts
    assert 0 < host["cpu_mean_share"] <= host["cpu_max_share"] <= 1


def test_latest_and_unknown_bulks(stack: Stack, sent: sink.Sink) -> None:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    source = ElasticsearchSource(Client("Elasticsearch", stack.elasticsearch))
    listed = source.bulks()
    assert {row["id"]: (row["jobs"], row["done"], row["failed"]) for row in listed}["tiny"] == (JOBS, JOBS, 0)
    assert source.report("latest")["id"] in ("tiny", "unknown", "left")
    with pytest.raises(NotFound) as raised:
        source.report("tinny")
    assert raised.value.nearest == ["tiny"]


def test_an_empty_store_has_no_bulk(stack: Stack) -> None:
    # Of a pattern that nothing matches yet: Elasticsearch answers such a query with an error.
    assert (
        ask("GET", f"{stack.elasticsearch}/nothing-*.otel-*/_field_caps?fields=*&allow_no_indices=true")["fields"] == {}
    )


def test_the_command_reads_elasticsearch(
    stack: Stack,
    sent: sink.Sink,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    assert report.command(["tiny", "--source", "elasticsearch", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["progress"]["done"] == JOBS
    assert bulks.command(["--source", "elasticsearch"]) == 0
    assert "tiny" in capsys.readouterr().out
    assert report.command(["tinny", "--source", "elasticsearch"]) == 2
    assert f"no bulk 'tinny' in {stack.elasticsearch}. Nearest: tiny" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "says"), [(401, "wrong password or key"), (403, "may not"), (503, "answered 503")])
def test_what_elasticsearch_refuses_is_said(
    status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sink.serve() as refusing:
        monkeypatch.setenv("ELASTICSEARCH_URL", refusing.url)
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", "k")
        refusing.gets = status
        assert report.command(["latest", "--source", "elasticsearch"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("bulkscope report: ")
    assert says in told


def test_no_elasticsearch_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", f"http://127.0.0.1:{free_port()}")
    assert report.command(["latest", "--source", "elasticsearch"]) == 2
    assert "ELASTICSEARCH_URL" in capsys.readouterr().err
