"""Jobs that nobody began, sends in vain and nested bulks: as Elasticsearch and Kibana's panel tell of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from tests.engines import bridge, servers, templates
from tests.engines.panels import panel

pytestmark = pytest.mark.engines

NUMBERS = itertools.count(1)
NOW = int(time.time() * 1000)
START = NOW - 600_000  # ms
TRACES = "traces-generic.otel-default"
BULK = "b"


def span(kind: str, job: str | None, at: float, seconds: float = 0.0, error: bool = False, **attributes: Any) -> Any:
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    process = {"service.name": "w", "host.name": "h", "service.instance.id": "i", "process.pid": 7}
    document: dict[str, Any] = {
        "@timestamp": START + round(at * 1000), "trace_id": f"{next(NUMBERS):032x}", "span_id": f"{next(NUMBERS):016x}",
        "kind": kind, "duration": int(seconds * 1e9), "resource": {"attributes": process},
        "scope": {"name": "bulkscope"}, "attributes": {"bulk.id": BULK} | ({} if job is None else {"bulk.job.id": job}) | named,
    }  # fmt: skip
    if error:
        document["status"] = {"code": "Error"}
    return TRACES, document, {}


def sent(job: str | None, at: float = 0.0, **attributes: Any) -> Any:
    return span("Producer", job, at, **{"bulk.job.attempt": 1} | attributes)


def ended(job: str, at: float, outcome: str = "ok", **attributes: Any) -> Any:
    return span("Consumer", job, at, 1.0, **{"bulk.job.attempt": 1, "bulk.outcome": outcome} | attributes)


def cancelled(job: str, at: float, why: str) -> Any:
    return span("Client", job, at, **{"bulk.outcome": "cancelled", "error.type": why})


# Done; two cancelled, one of them after a retry; one expired; one that waits; one sent twice and done; two refused; two
# that the broker did not take, one without an id; one that was taken at the second try.
RECORDS = [
    sent("done"), ended("done", 5),
    sent("revoked"), cancelled("revoked", 2, "revoked"),
    sent("again"), ended("again", 5, "retry"), sent("again", 6, **{"bulk.job.attempt": 2}),
    cancelled("again", 8, "revoked"),
    sent("expired", **{"bulk.job.expires": 60.0}), sent("later", **{"bulk.job.expires": 1e6}),
    sent("twice"), sent("twice", 0.1), ended("twice", 5),
    sent("other", **{"bulk.outcome": "duplicate"}), sent("done", 0.2, **{"bulk.outcome": "duplicate"}),
    sent("down", error=True, **{"error.type": "ConnectionError"}),
    sent(None, error=True, **{"error.type": "ConnectionError"}),
    sent("taken", error=True, **{"error.type": "TimeoutError"}), sent("taken", 1.0), ended("taken", 5),
    sent("inner", 5.5, **{"bulk.id": "inner", "bulk.parent.id": BULK}),
]  # fmt: skip
WANTED = {"jobs": 7, "done": 3, "failed": 0, "cancelled": 3, "not_sent": 2, "duplicate": 3}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("elastic")) as server:
        templates.install(server.url)
        # Each is stored twice, as it is when a request is sent again.
        assert bridge.store(server.url, RECORDS + RECORDS) == []
        servers.ask("POST", f"{server.url}/traces-*/_refresh")
        yield server.url


@pytest.fixture
def source(url: str) -> ElasticsearchSource:
    return ElasticsearchSource(Client("Elasticsearch", url))


def test_the_list_counts_them(source: ElasticsearchSource) -> None:
    rows = {row["id"]: row for row in source.bulks()}
    assert {name: rows[BULK][name] for name in WANTED} == WANTED
    assert (rows["inner"]["jobs"], rows["inner"]["done"]) == (1, 0)


def test_the_report_counts_them_and_names_nested_bulks(source: ElasticsearchSource) -> None:
    report, inner = source.report(BULK), source.report("inner")
    found = {name: report["progress"]["sent" if name == "jobs" else name] for name in WANTED}
    assert found == WANTED
    assert report["progress"]["waiting"] == 1
    assert report["cancelled"] == {"expired": 1, "revoked": 2}
    assert report["not_sent"] == {"ConnectionError": 2}
    assert (report["nested"], report["part_of"]) == (["inner"], [])
    assert (inner["nested"], inner["part_of"]) == ([], [BULK])


def test_kibana_counts_them(url: str) -> None:
    rows = panel(url, "bulkscope-bulk", "Jobs that nobody began", (START - 1000, NOW), BULK)
    # Spans do not tell that a job is at work: one that has expired counts an hour later.
    assert {(row["became"], row["reason"]): row["jobs"] for row in rows} == {
        ("cancelled", "revoked"): 2, ("not_sent", "ConnectionError"): 2, ("duplicate", "same id"): 3,
    }  # fmt: skip
