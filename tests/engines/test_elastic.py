"""Bulks in Elasticsearch that a demo does not make: large, lost, failed in odd ways, named like a query."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bulkscope_studio.cli import capacity
from bulkscope_studio.elastic import esql
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.sources.source import Trouble
from tests.engines import bridge, servers, templates

START = 1_790_000_000_000  # ms
NUMBERS = itertools.count(1)
TRACES, LOGS, HOSTS = (
    "traces-generic.otel-default",
    "logs-generic.otel-default",
    "metrics-hostmetricsreceiver.otel-default",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("elastic")) as server:
        templates.install(server.url)
        yield server.url


@pytest.fixture
def source(url: str) -> ElasticsearchSource:
    return ElasticsearchSource(Client("Elasticsearch", url))


def resource(host: str, pid: int = 7) -> dict[str, Any]:
    return {
        "attributes": {"service.name": "w", "host.name": host, "service.instance.id": f"i{pid}", "process.pid": pid}
    }


def span(bulk: str, kind: str, at: int = START, seconds: float = 1.0, error: bool = False, **attributes: Any) -> Any:
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    document = {
        "@timestamp": at, "trace_id": f"{next(NUMBERS):032x}", "span_id": f"{next(NUMBERS):016x}", "kind": kind,
        "duration": int(seconds * 1e9), "resource": resource("h1"), "scope": {"name": "b"},
        "attributes": {"bulk.id": bulk, **named},
    }  # fmt: skip
    if error:
        document["status"] = {"code": "Error"}
    return TRACES, document, {}


def event(bulk: str, number: int, at: int, name: str, job: str, kills: int, pid: int = 7) -> Any:
    attributes = {"bulk.id": bulk, "bulk.job.id": job, "bulk.worker.oom_kills": kills, "bulk.job.attempt": 1}
    document = {
        "@timestamp": f"{at}.000000", "span_id": f"{number:016x}", "trace_id": f"{number:032x}",
        "event_name": f"bulk.job.{name}", "resource": resource("h1", pid), "scope": {"name": "b"},
        "attributes": attributes,
    }  # fmt: skip
    return LOGS, document, {}


def store(url: str, documents: list[Any]) -> None:
    for first in range(0, len(documents), 5000):
        assert bridge.store(url, documents[first : first + 5000]) == []
    servers.ask("POST", f"{url}/*/_refresh")


def listed(source: ElasticsearchSource, bulk: str) -> tuple[int, int, int]:
    (row,) = (row for row in source.bulks() if row["id"] == bulk)
    return row["jobs"], row["done"], row["failed"]


def report(source: ElasticsearchSource, bulk: str) -> dict[str, Any]:
    return source.report(bulk)


def explained(source: ElasticsearchSource, bulk: str) -> dict[str, Any]:
    return source.explanation(bulk)


def test_nothing_is_there_yet(source: ElasticsearchSource) -> None:
    assert source.bulks() == []
    for ask in (source.report, source.explanation):
        with pytest.raises(NotFound):
            ask("any")


def test_a_bulk_is_listed_before_any_has_a_model_or_an_outcome(url: str, source: ElasticsearchSource) -> None:
    store(url, [span("first", "Server")])
    assert listed(source, "first") == (0, 0, 0)
    assert explained(source, "first")["verdict"]["code"] == "data_unfit"
    store(url, [span("first", "Producer", bulk__job__id="j")])
    assert listed(source, "first") == (1, 0, 0)
    assert explained(source, "first")["progress"]["sent"] == 1
    with pytest.raises(NotFound):
        source.explanation("any")


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([{"bulk__outcome": "ok"}], (1, 1, 0)),
        ([{"error": True}], (1, 0, 1)),
        ([{"bulk__outcome": "retry", "error": True}], (1, 0, 0)),
        ([{"bulk__outcome": "retry"}, {"bulk__outcome": "ok"}], (1, 1, 0)),
        ([{"bulk__outcome": "ok"}, {"bulk__outcome": "internal_error", "error": True}], (1, 0, 1)),
        # The broker gave a job to another worker: of attempts of one number the one that began last decides.
        ([{"bulk__job__attempt": 1, "bulk__outcome": "ok"}, {"bulk__job__attempt": 1, "error": True}], (1, 0, 1)),
        ([{"bulk__outcome": "ok", "bulk__failure__domain": "model"}], (1, 0, 1)),
    ],
)
def test_the_last_attempt_decides_in_the_list_as_in_the_report(
    url: str, source: ElasticsearchSource, attempts: list[dict[str, Any]], expected: tuple[int, int, int]
) -> None:
    bulk = f"attempts {next(NUMBERS)}"
    store(
        url,
        [
            span(
                bulk,
                "Consumer",
                START + number * 5000,
                bulk__job__id="j",
                **{"bulk__job__attempt": number + 1, **attributes},
            )
            for number, attributes in enumerate(attempts)
        ],
    )
    assert listed(source, bulk) == expected
    progress = report(source, bulk)["progress"]
    assert (progress["sent"], progress["done"], progress["failed"]) == expected


def test_an_attempt_that_has_not_ended_decides_in_the_list_as_in_the_report(
    url: str, source: ElasticsearchSource
) -> None:
    """Its process alone has told of it. One whose parent says that it was killed has ended, whatever began since."""
    job = {"bulk__job__attempt": 1}

    def ended(bulk: str, at: int = START, pid: int | None = None, **more: Any) -> Any:
        told = {} if pid is None else {"process__pid": pid, "error": True}
        return span(bulk, "Consumer", at, bulk__job__id="j", **job, **told, **more)

    begun = START + 5000
    bulks = {
        "alone": ([span("alone", "Server"), event("alone", 9001, begun, "started", "j", 0)], (1, 0, 0)),
        "again": ([ended("again"), event("again", 9002, begun, "started", "j", 0)], (1, 0, 0)),
        "before": ([ended("before", begun), event("before", 9003, START, "started", "j", 0)], (1, 1, 0)),
        "killed": (
            [ended("killed", pid=8), *(event("killed", 9004, START + n, "heartbeat", "j", 0, pid=8) for n in (1, 900))],
            (1, 0, 1),
        ),
        "killed, again": (
            [ended("killed, again", pid=8), event("killed, again", 9005, START + 1, "started", "j", 0, pid=8),
             event("killed, again", 9006, START + 1500, "started", "j", 0, pid=9)],
            (1, 0, 0),
        ),
    }  # fmt: skip
    whole = ended("ended")
    begins = event("ended", 9007, START + 1, "started", "j", 0)
    begins[1].update(span_id=whole[1]["span_id"], trace_id=whole[1]["trace_id"])
    bulks["ended"] = ([whole, begins, event("ended", 9008, START, "stopped", "k", 0)], (1, 1, 0))
    store(url, [document for documents, _ in bulks.values() for document in documents])
    assert {bulk: listed(source, bulk) for bulk in bulks} == {bulk: right for bulk, (_, right) in bulks.items()}
    for bulk, (_, right) in bulks.items():
        progress = report(source, bulk)["progress"]
        assert (progress["sent"], progress["done"], progress["failed"]) == right, bulk


def test_without_an_id_each_attempt_is_a_job(url: str, source: ElasticsearchSource) -> None:
    bulk = "no ids"
    store(
        url,
        [
            span(bulk, "Server"),
            *(span(bulk, "Consumer", START + n * 5000, bulk__outcome="ok") for n in range(2)),
            span(bulk, "Consumer", START + 10_000, error=True),
            span(bulk, "Internal", START, gen_ai__request__model="m"),
        ],
    )
    assert listed(source, bulk) == (3, 2, 1)
    for progress in (report(source, bulk)["progress"], explained(source, bulk)["progress"]):
        assert (progress["sent"], progress["done"], progress["failed"]) == (3, 2, 1)


def test_a_span_is_told_from_others_by_its_trace_and_its_id(url: str, source: ElasticsearchSource) -> None:
    bulk = "ids that collide"
    spans = [span(bulk, "Consumer", START + n // 3, bulk__job__id=f"j{n}", bulk__outcome="ok") for n in range(9)]
    for _, document, _ in spans:
        document["span_id"] = f"{7:016x}"
    store(url, [*spans, *spans[:4]])
    assert listed(source, bulk) == (9, 9, 0)
    found = report(source, bulk)
    assert found["progress"]["done"] == 9
    assert "Came more than once, and count once: 4 spans that were sent again." in found["notes"]


@pytest.mark.parametrize("bulk", ['a" OR true //', "x\ny", "ü✓?bulk", "{rows}", "?after_id", "*"])
def test_an_id_is_never_part_of_a_query(url: str, source: ElasticsearchSource, bulk: str) -> None:
    store(url, [span(bulk, "Consumer", bulk__job__id="j", bulk__outcome="ok")])
    assert report(source, bulk)["progress"]["sent"] == 1
    assert explained(source, bulk)["progress"]["done"] == 1


def test_what_others_did_is_read_to_its_last_page(url: str, source: ElasticsearchSource) -> None:
    """More than a page of jobs of another bulk, on the same worker, all begun in two milliseconds, stored twice.

    As many more are begun last, together, and not yet ended: their worker begins none after them, and the others end in
    less than the silence (15 s) after which these would count as gone.
    """
    at = START + 40 * 86_400_000
    others = [
        span("crowd", "Consumer", at + number % 2, 10.0, bulk__job__id=f"o{number}", bulk__outcome="ok")
        for number in range(esql.ROWS + 500)
    ]
    began = [event("crowd", 10**6 + number, at + 2000, "started", f"s{number}", 0) for number in range(esql.ROWS + 500)]
    store(url, [*others, *others, *began])
    store(url, [span("single", "Consumer", at + 1000, 2.0, bulk__job__id="j", bulk__outcome="ok")])
    found = explained(source, "single")
    assert found["workers"]["places"] == 2 * (esql.ROWS + 500) + 1


def test_many_spans_of_one_millisecond_stored_twice(url: str, source: ElasticsearchSource) -> None:
    spans = [span("ties", "Consumer", bulk__job__id=f"j{n}", bulk__outcome="ok") for n in range(esql.ROWS + 500)]
    store(url, spans + spans)
    found = report(source, "ties")
    assert found["progress"]["done"] == esql.ROWS + 500
    assert f"Came more than once, and count once: {len(spans):,} spans that were sent again." in found["notes"]


def test_hosts_of_a_long_bulk_among_many_hosts(url: str, source: ElasticsearchSource) -> None:
    """28 min: CPU at 0.1 for ten of them, then at 0.9; nineteen hosts that have nothing to do with it are idle."""
    seconds = 1700
    store(url, [span("long", "Consumer", seconds=seconds, bulk__job__id="j", bulk__outcome="ok")])
    samples = []
    for at in range(START, START + seconds * 1000 + 10_000, 10_000):
        for host in range(1, 21):
            share = (0.1 if at < START + 600_000 else 0.9) if host == 1 else 0.0
            for state, value in (("user", share), ("system", 0.0), ("idle", 1 - share), ("wait", 0.0)):
                document = {
                    "@timestamp": at, "attributes": {"state": state}, "scope": {"name": "x"}, "unit": "1",
                    "resource": {"attributes": {"host.name": f"h{host}"}}, "_metric_names_hash": "a",
                    "metrics": {"system.cpu.utilization": value},
                }  # fmt: skip
                samples.append((HOSTS, document, {"metrics.system.cpu.utilization": "gauge_double"}))
    store(url, samples)
    (host,) = report(source, "long")["hosts"]
    assert host["name"] == "h1"
    assert host["cpu_max_share"] == pytest.approx(0.9)
    assert host["cpu_mean_share"] == pytest.approx((60 * 0.1 + 111 * 0.9) / 171, abs=0.005)


@pytest.mark.parametrize(("bulk", "mine"), [("told", True), ("beside", False)])
def test_a_killed_workers_job_has_the_end_that_its_parent_tells(
    url: str, source: ElasticsearchSource, bulk: str, mine: bool
) -> None:
    """The parent is process 7, the child was 8; 9 went with its parent, and nobody tells of it."""
    of = bulk if mine else f"{bulk}-other"
    begin = START - 10**9 * (1 + mine)  # nothing else is beside it
    error = {
        "bulk__outcome": "internal_error", "error__type": "billiard.exceptions.WorkerLostError",
        "bulk__failure__domain": "resource", "process__pid": 8,
    }  # fmt: skip
    store(
        url,
        [
            *(span(bulk, "Consumer", begin + 1000 * n, bulk__job__id=f"j{n}", bulk__outcome="ok") for n in range(9)),
            event(of, 9001 + 10 * mine, begin + 3, "started", "x", 0, pid=8),
            event(of, 9002 + 10 * mine, begin + 4, "started", "y", 0, pid=9),
            span(of, "Consumer", begin + 1, 4.0, True, bulk__job__id="x", bulk__job__attempt=1, **error),
            span(f"{bulk}-after", "Server", begin + 60_000),
        ],
    )
    found = explained(source, bulk)
    counts = found["progress"]
    assert (counts["done"], counts["failed"], counts["lost"]) == (9, 1 if mine else 0, 1 if mine else 0)
    assert found["workers"]["places"] == (2 if mine else 1)  # nothing of y lasted
    lost = {job["job_id"]: (job["worker"], job["domain"], job["elapsed_s"]) for job in report(source, of)["lost"]}
    assert lost == {"x": ("h1:8", "resource", 4.0), "y": ("h1:9", "infra", None)}


def test_the_proof_of_a_kill_among_many_heartbeats_of_others(url: str, source: ElasticsearchSource) -> None:
    later = START + 1_500_000
    store(
        url,
        [
            event("lost", 7001, START, "started", "one", 0),
            event("lost", 7002, later, "started", "two", 0, pid=9),
            event("other", 7003, later + 5000, "heartbeat", "o", 1, pid=8),
            *(
                event("other", 8000 + n % 8, START + 70_000 + n * 100, "heartbeat", "o", 0, pid=8)
                for n in range(esql.ROWS + 1000)
            ),
        ],
    )
    assert {job["job_id"]: job["domain"] for job in report(source, "lost")["lost"]} == {
        "one": "infra",
        "two": "resource",
    }


def test_proofs_of_many_kills_are_asked_for_at_once(
    url: str, source: ElasticsearchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 jobs that went silent a minute apart, every third was killed for memory, 20 s after its last sign."""
    begin, minute, late = START + 60 * 86_400_000, 60_000, 15_000
    store(
        url,
        [
            document
            for bulk, beside, first, number in (("silent", "beside", 0, 30), ("few", "beside-few", 1440, 3))
            for n in range(number)
            for at in [begin + (first + n) * minute]
            for document in (
                event(bulk, 11_000 + first + n, at, "started", f"s{n:02d}", n // 3, pid=100 + n),
                *(
                    event(beside, 12_000 + first, at + after, "heartbeat", "b", n // 3 + (after > late), pid=8)
                    for after in range(10_000, 60_000, 10_000)
                    if n % 3 == 2
                ),
            )
        ],
    )
    asked = []
    whole = Client.request
    monkeypatch.setattr(Client, "request", lambda self, *rest, **more: asked.append(rest) or whole(self, *rest, **more))
    requests = {}
    for bulk, number in (("few", 3), ("silent", 30)):
        asked.clear()
        found = {job["job_id"]: job["domain"] for job in report(source, bulk)["lost"]}
        assert found == {f"s{n:02d}": "resource" if n % 3 == 2 else "infra" for n in range(number)}
        requests[bulk] = len(asked)
        assert sum("kills for memory" in str(rest) for rest in asked) == 1, "proofs are asked for once"
    assert requests["silent"] == requests["few"], "what is asked does not grow with the jobs that were lost"


def test_an_answer_in_part_is_no_answer(url: str, source: ElasticsearchSource, monkeypatch: pytest.MonkeyPatch) -> None:
    store(url, [span("in part", "Producer", START, 0.001, bulk__job__id="j")])
    assert report(source, "in part")["progress"]["sent"] == 1
    whole = source.client.request

    def partial(method: str, path: str, *rest: Any, **options: Any) -> Any:
        answer = whole(method, path, *rest, **options)
        if path == "/_query":
            answer.body["is_partial"] = True
        return answer

    monkeypatch.setattr(type(source.client), "request", lambda self, *rest, **options: partial(*rest, **options))
    with pytest.raises(Trouble, match="in part only"):
        report(source, "in part")


def test_a_queue_that_elastics_processor_has_moved_is_one_queue(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind the overlay for APM no span has messaging.destination.name: two workers of a queue seemed to have two."""
    documents, later = [], START + 80 * 86_400_000
    for number in range(60):
        job, begin = f"j{number}", later + number // 2 * 2000
        documents.append(span("moved", "Producer", later, 0.001, bulk__job__id=job, span__message__queue__name="q"))
        names = {"bulk__job__id": job, "transaction__message__queue__name": "q", "bulk__outcome": "ok"}
        names["gen_ai__latency__time_in_queue"] = (begin - later) / 1000
        stream, document, rest = span("moved", "Consumer", begin, 2.0, **names)
        documents.append((stream, document | {"resource": resource("apm", 1 + number % 2)}, rest))
    store(url, documents)
    monkeypatch.setenv("ELASTICSEARCH_URL", url)
    assert capacity.command(["moved", "--source", "elasticsearch", "--format", "json"]) == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    assert (pool["queues"], pool["workers"], pool["places"]) == (["q"], 2, 2)
