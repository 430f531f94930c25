"""Every query of every dashboard on a real Elasticsearch: on the demo's traffic, on an empty one, and in between."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.services import reports
from bulkscope_studio.sources import verdicts
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.storage.store import Store
from kibana import build
from tests import sink
from tests.engines import bridge, servers, templates
from tests.engines.conftest import Stack
from tests.engines.panels import config, iso, panel, query, run
from tests.engines.servers import ask, eventually
from tests.engines.traffic import JOBS, documents
from tests.production.dashboards import BUILT

STREAMS = {
    "traces": "traces-generic.otel-default",
    "logs": "logs-generic.otel-default",
    "metrics": "metrics-hostmetricsreceiver.otel-default",
}
ALL = [(name, panel["config"]["title"]) for name, body in BUILT.items() for panel in body["panels"]] + [
    (name, control["config"]["title"]) for name, body in BUILT.items() for control in body.get("pinned_panels", [])
]
# What the demo's traffic has nothing of: failures, clocks that differ, doubled, dropped or long things.
EMPTY_ON_GOOD_TRAFFIC = {
    "Failed attempts by domain", "Failed jobs by domain", "Negative waits", "Left out of spans by limits",
    "Cut off from log records", "Memory of workers",
}  # fmt: skip


QUERIES = [(name, title) for name, title in ALL if query(name, title) is not None]


def named(found: dict[str, Any]) -> dict[str, str]:
    """Return the columns that a chart draws, each with what it must be: time, number or any."""
    names: dict[str, str] = {}
    for column in [*found.get("metrics", []), *(y for layer in found.get("layers", []) for y in layer["y"])]:
        names[column["column"]] = "number"
    for column in found.get("rows", []):
        names[column["column"]] = "any"
    for tab in found.get("tabs", []):
        names |= dict.fromkeys(tab["column_order"], "any")
    for layer in found.get("layers", []):
        names[layer["x"]["column"]] = "time" if layer["x"]["column"] == "time" else "any"
        if "breakdown_by" in layer:
            names[layer["breakdown_by"]["column"]] = "any"
    return names


KINDS = {
    "time": {"date", "date_nanos"}, "number": {"integer", "long", "double"},
    "any": {"keyword", "text", "date", "date_nanos", "integer", "long", "double", "version"},
}  # fmt: skip


def check(types: dict[str, str], dashboard: str, title: str) -> None:
    for column, kind in named(config(dashboard, title)).items():
        assert types[column] in KINDS[kind], (title, column, types[column])


# --- on the demo's traffic ---------------------------------------------------------------------------------------


@pytest.fixture
def traffic(stack: Stack, sent: sink.Sink) -> tuple[str, tuple[int, int]]:
    """Base URL of the Elasticsearch that has all of it, and a time range around it, in ms."""
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    templates.verdicts(stack.elasticsearch)
    client = Client("Elasticsearch", stack.elasticsearch)
    assert [one.bulk for one in verdicts.publish_all(ElasticsearchSource(client), ["tiny"])] == ["tiny"]
    times = [time_ms(document) for document in documents(stack, "traces-*")]
    first = min(times)
    window = (first - 5_000, max(times) + 10_000)

    def sampled() -> Any:
        return [
            document
            for document in documents(stack, "metrics-*")
            if "system.cpu.utilization" in document["metrics"] and first < time_ms(document) < window[1]
        ]

    eventually(lambda: len(sampled()) > 16)  # two samples of eight states
    return stack.elasticsearch, window


def time_ms(document: dict[str, Any]) -> int:
    at = document["@timestamp"]
    return at if isinstance(at, int) else int(datetime.fromisoformat(at).timestamp() * 1000)


def test_all_queries_answer_on_traffic(traffic: tuple[str, tuple[int, int]]) -> None:
    url, (first, last) = traffic
    window = (first - 120_000, last + 120_000)  # a rate needs two samples in a step
    assert len(QUERIES) > 60
    for dashboard, title in QUERIES:
        text = query(dashboard, title)
        assert text is not None
        for bulk in ("*", "tiny", "not-there") if "?bulk" in text else ("*",):
            types, rows = run(url, text, window, bulk)
            check(types, dashboard, title)
            shown = [row for row in rows if any(row[column] is not None for column in named(config(dashboard, title)))]
            if title.startswith("Bulk (*"):
                assert {row["bulk"] for row in rows} >= {"*", "tiny"}
                assert rows[0]["bulk"] == "*"
            elif bulk == "not-there":
                assert not shown, (title, rows)
            elif title not in EMPTY_ON_GOOD_TRAFFIC:
                assert shown, f"{dashboard}, {title}: nothing is shown"
            for column, kind in named(config(dashboard, title)).items():
                if kind == "time":
                    assert all(iso(window[0] - 60_000) <= row[column][:24] <= iso(window[1]) for row in rows)


def test_a_bulk_is_what_the_report_says(
    traffic: tuple[str, tuple[int, int]],
    studio: Store,
) -> None:
    url, window = traffic
    report = reports.bulk_report(studio, "tiny")
    assert report is not None
    jobs, inferences = report["total"]["jobs"], report["total"]["inferences"]
    near = {"rel": 1e-6}  # the templates of the tests keep fractions in 32 bits

    def one(title: str) -> dict[str, Any]:
        (row,) = panel(url, "bulkscope-bulk", title, window, "tiny")
        return row

    assert one("Jobs") == {"done": jobs["done"], "failed": jobs["failed"]} == {"done": JOBS, "failed": 0}
    waits = one("Mean wait in the queue")
    assert waits["mean"] == pytest.approx(jobs["wait_s"]["mean"], **near)
    assert waits["negative"] == jobs["negative_waits"]
    tokens = one("Tokens")
    assert tokens == {"output": inferences["output_tokens"], "input": inferences["input_tokens"]}
    cpu = one("CPU seconds")
    assert cpu["cpu"] == pytest.approx(inferences["cpu_s"], **near)
    assert cpu["exact"] == pytest.approx(inferences["cpu_exact_share"])
    memory = one("Peak memory of an inference")
    assert memory == {"peak": inferences["memory_peak_bytes"], "growth": inferences["memory_growth_max_bytes"]}
    ratio = one("Wait ratio")
    # The report has the enqueue from the PRODUCER's span, the worker from the message: some ms apart.
    assert ratio["ratio"] == pytest.approx(jobs["wait_ratio"]["mean"], abs=0.1)
    assert ratio["expected"] == pytest.approx(jobs["expected"]["wait_ratio"])
    (request,) = panel(url, "bulkscope-bulk", "Requests of this bulk", window, "tiny")
    assert request["size"] == JOBS
    assert request["seconds"] == pytest.approx(report["requests"]["latency_s"]["mean"], abs=1e-6)
    (model,) = panel(url, "bulkscope-inference", "Models", window, "tiny")
    assert model["inferences"] == inferences["count"]
    assert model["rate"] == pytest.approx(inferences["tokens_per_s"], **near)
    assert model["cpu_per_token"] == pytest.approx(inferences["cpu_s_per_output_token"], **near)
    assert model["p50"] == pytest.approx(inferences["duration_s"]["p50"], rel=1e-3)


def mean_open(times: list[tuple[float, float]], window: tuple[int, int]) -> list[float]:
    """How many of the (begin, end) in ms stood open on average in each step, the plain way."""
    width = (window[1] - window[0]) / build.STEPS
    steps = [(window[0] + number * width, window[0] + (number + 1) * width) for number in range(build.STEPS)]
    return [
        sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in times) / width for low, high in steps
    ]  # fmt: skip


def test_jobs_waiting_and_at_work_are_what_their_intervals_say(
    stack: Stack, traffic: tuple[str, tuple[int, int]]
) -> None:
    url, window = traffic
    spans = documents(stack, "traces-*")
    jobs = [
        span for span in spans if span["attributes"].get("bulk.id") == "tiny" and "bulk.job.id" in span["attributes"]
    ]
    put_at = {span["attributes"]["bulk.job.id"]: time_ms(span) for span in jobs if span["kind"] == "Producer"}
    waiting, working = [], []
    for span in jobs:
        if span["kind"] == "Consumer":
            began = float(time_ms(span))
            waiting.append((float(put_at[span["attributes"]["bulk.job.id"]]), began))
            working.append((began, began + span["duration"] / 1e6))
    assert len(working) == JOBS
    for title, intervals in (("Jobs waiting (estimate)", waiting), ("Jobs at work", working)):
        wanted = mean_open(intervals, window)
        rows = panel(url, "bulkscope-bulk", title, window, "tiny")
        found = [row["open"] for row in rows]
        # Steps before the first event have no row. An end is cut to a millisecond, that much of a step for each job.
        assert wanted[: build.STEPS - len(found)] == pytest.approx([0.0] * (build.STEPS - len(found)))
        slack = JOBS / ((window[1] - window[0]) / build.STEPS)
        assert found == pytest.approx(wanted[build.STEPS - len(found) :], abs=slack), title
        assert max(found) > 0
    everything = panel(url, "bulkscope-overview", "Load, queue depth (estimate) and API latency", window)
    assert sum(row["requests"] for row in everything) == sum(span["kind"] == "Server" for span in spans)
    assert [row["waiting"] for row in everything][-1] == pytest.approx(0, abs=1e-6)
    # One that begins in the middle, when most wait, finds those waiting that were sent before.
    most = max((begin for begin, _ in waiting), key=lambda at: sum(begin <= at + 1 < end for begin, end in waiting))
    late = (most + 1, window[1])
    assert sum(begin <= late[0] < end for begin, end in waiting) > 1
    middle = panel(url, "bulkscope-bulk", "Jobs waiting (estimate)", (int(late[0]), late[1]), "tiny")
    assert middle[0]["open"] == pytest.approx(mean_open(waiting, (int(late[0]), late[1]))[0], abs=1.5)


def test_cpu_over_time_adds_up_to_the_cpu_of_all(traffic: tuple[str, tuple[int, int]]) -> None:
    url, window = traffic
    (total,) = panel(url, "bulkscope-bulk", "CPU seconds", window, "tiny")
    rows = panel(url, "bulkscope-bulk", "CPU of this bulk's inferences", window, "tiny")
    width_s = (window[1] - window[0]) / build.STEPS / 1000
    # A start is kept in whole milliseconds, an end is cut to them: inferences of a few ms come out shorter.
    assert sum(row["open"] for row in rows) * width_s == pytest.approx(total["cpu"], rel=0.5)


# --- on a store that the test fills --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("dashboards")) as server:
        templates.install(server.url)
        yield server.url


BEGIN = 1_700_000_000_000 + 3_600_000
WINDOW = (BEGIN, BEGIN + 600_000)


def shape(signal: str, at: int, /, **extra: Any) -> bridge.Document:
    dataset = "hostmetricsreceiver.otel" if signal == "metrics" else "generic.otel"
    document = {
        "@timestamp": at, "data_stream": {"type": signal, "dataset": dataset, "namespace": "default"}, "attributes": {},
        "resource": {"attributes": {"host.name": "one", "process.pid": 7}}, "scope": {"attributes": {}},
    } | extra  # fmt: skip
    return STREAMS[signal], document, {}


def put(url: str, found: list[bridge.Document]) -> None:
    assert bridge.store(url, found) == []
    for stream in {stream for stream, _, _ in found}:
        ask("POST", f"{url}/{stream}/_refresh")


@pytest.fixture
def empty(engine: str) -> str:
    """Base URL of an Elasticsearch whose three streams are there and hold nothing, as setup could leave it."""
    ask("DELETE", f"{engine}/_data_stream/*")
    now = int(datetime.now(UTC).timestamp() * 1000)  # metrics of another time are refused by their index
    for kind, stream in STREAMS.items():
        # Time series are told apart by something; all that this document has is in Elasticsearch's own templates.
        document = {"@timestamp": now} | ({"_metric_names_hash": "none"} if kind == "metrics" else {})
        lines = f'{{"create":{{}}}}\n{json.dumps(document)}\n'
        answer = json.loads(servers.http("POST", f"{engine}/{stream}/_bulk", lines.encode(), "application/x-ndjson"))
        item = answer["items"][0]["create"]
        assert item["status"] == 201, item
        ask("DELETE", f"{engine}/{item['_index']}/_doc/{item['_id']}?refresh=true")
        assert ask("GET", f"{engine}/{stream}/_count")["count"] == 0
    templates.verdicts(engine)
    return engine


def test_an_empty_store_shows_nothing_and_no_error(empty: str) -> None:
    for dashboard, title in QUERIES:
        text = query(dashboard, title)
        assert text is not None
        types, rows = run(empty, text, WINDOW)
        check(types, dashboard, title)
        if title.startswith("Bulk (*"):
            assert rows == [{"bulk": "*"}]
        else:
            shown = named(config(dashboard, title))
            assert all(row[column] is None for row in rows for column in shown), (title, rows)


def test_before_any_attribute_of_ours_has_come(empty: str) -> None:
    """Each kind of document is there, from something that we do not instrument: unknown is not 0, and not an error."""
    ids = iter(range(1, 100))
    put(empty, [
        shape("traces", BEGIN + 1000, kind=kind, name="x", duration=10**9, trace_id="t", span_id=f"s{next(ids)}")
        for kind in ("Server", "Producer", "Consumer", "Internal", "Client")
    ] + [
        shape("logs", BEGIN + 1000, body={"text": "words"}),
        shape("logs", BEGIN + 1000, body={"text": "began"}, event_name="bulk.job.started", span_id="s3"),
    ])  # fmt: skip
    for dashboard, title in QUERIES:
        text = query(dashboard, title)
        assert text is not None
        types, _ = run(empty, text, WINDOW)
        check(types, dashboard, title)
    assert panel(empty, "bulkscope-bulk", "Tokens", WINDOW) == [{"output": None, "input": None}]
    (waits,) = panel(empty, "bulkscope-bulk", "Mean wait in the queue", WINDOW)
    assert waits == {"mean": None, "negative": None}
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, "some") == [{"done": None, "failed": None}]


def test_a_field_that_nobody_knows_is_an_error_here(empty: str) -> None:
    """Else the tests above would prove nothing: only fields of ours are put in as null."""
    text = f'{build.HEAD}\nFROM traces-*.otel-*\n| WHERE bulk == "x"'
    with pytest.raises(urllib.error.HTTPError, match="Unknown column"):
        run(empty, text, WINDOW)


def job(
    name: str, at: int, *, seconds: float = 1.0, attempt: int = 1, bulk: str = "b", outcome: str = "ok", **more: Any
) -> bridge.Document:
    attributes = {
        "bulk.id": bulk, "bulk.job.id": name, "bulk.job.attempt": attempt, "bulk.outcome": outcome,
        "bulk.job.delay": 0.0, "gen_ai.latency.time_in_queue": 2.0,
    } | {key: value for key, value in more.items() if key not in ("host", "status", "span_id")}  # fmt: skip
    return shape(
        "traces", at, kind="Consumer", name="process q", duration=int(seconds * 1e9), trace_id=f"trace-{name}",
        span_id=more.get("span_id", f"{name}-{attempt}"), attributes=attributes,
        status={"code": more.get("status", "Ok")},
        resource={"attributes": {"host.name": more.get("host", "one"), "process.pid": 7}},
    )  # fmt: skip


def test_doubled_retried_failed_and_negative(empty: str) -> None:
    good, late = job("good", BEGIN + 10_000), job("late", BEGIN + 20_000, **{"gen_ai.latency.time_in_queue": -0.5})
    put(empty, [
        good, good, late, late, late,  # stored again by retries
        job("again", BEGIN + 30_000, outcome="retry", status="Error", **{"bulk.failure.domain": "timeout"}),
        job("again", BEGIN + 40_000, attempt=2),
        job("bad", BEGIN + 50_000, outcome="internal_error", status="Error",
            **{"bulk.failure.domain": "model", "error.type": "ValueError"}),
        job("other", BEGIN + 60_000, bulk="c", outcome="internal_error", status="Error"),
    ])  # fmt: skip
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, "b") == [{"done": 3, "failed": 1}]
    (waits,) = panel(empty, "bulkscope-bulk", "Mean wait in the queue", WINDOW, "b")
    assert waits == {"mean": pytest.approx(2.0), "negative": 1}
    failed = panel(empty, "bulkscope-bulk", "Failed jobs by domain", WINDOW, "b")
    assert {(row["domain"], row["error"], row["result"], row["attempts"]) for row in failed} == {
        ("model", "ValueError", "failed", 1), ("timeout", "unknown", "to be retried", 1),
    }  # fmt: skip
    ends = panel(empty, "bulkscope-overview", "Attempts at jobs, by their end", WINDOW)
    found: dict[str, int] = {}
    for row in ends:
        found[row["result"]] = found.get(row["result"], 0) + row["attempts"]
    assert found == {"done": 3, "to be retried": 1, "failed": 2}
    waits_of = panel(empty, "bulkscope-bulk", "Wait and work of each attempt", WINDOW, "b")
    assert [(row["job"], row["wait"]) for row in waits_of if row["flag"]] == [("late", -0.5)]
    assert len(waits_of) == 5
    (twice,) = panel(empty, "bulkscope-telemetry-health", "Spans that are stored more than once", WINDOW)
    assert twice == {"spans": 6, "extra": 3}
    (negative,) = panel(empty, "bulkscope-telemetry-health", "Negative waits", WINDOW)
    assert (negative["attempts"], negative["lowest"]) == (1, -0.5)
    bulks = panel(empty, "bulkscope-overview", "Newest bulks", WINDOW)
    assert [(row["bulk"], row["done"], row["failed"], row["attempts"]) for row in bulks] == [
        ("c", 0, 1, 1), ("b", 3, 1, 5),
    ]  # fmt: skip
    choices = panel(empty, "bulkscope-bulk", "Bulk (* for all)", WINDOW)
    assert [row["bulk"] for row in choices] == ["*", "c", "b"]


def test_the_last_attempt_decides_a_job_that_was_delivered_twice(empty: str) -> None:
    """One that was good and failed when it came again, one the other way round, and one whose number goes first."""
    bad = {"outcome": "internal_error", "status": "Error"}
    put(empty, [
        job("worse", BEGIN + 10_000), job("worse", BEGIN + 20_000, span_id="w2", **bad),
        job("better", BEGIN + 10_000, **bad), job("better", BEGIN + 20_000, span_id="b2"),
        job("numbered", BEGIN + 30_000), job("numbered", BEGIN + 20_000, attempt=2, **bad),
    ])  # fmt: skip
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, "b") == [{"done": 1, "failed": 2}]
    (bulk,) = panel(empty, "bulkscope-overview", "Newest bulks", WINDOW)
    assert (bulk["done"], bulk["failed"], bulk["attempts"]) == (1, 2, 6)


def test_a_killed_workers_job_is_its_own_and_not_its_parents(empty: str) -> None:
    put(empty, [job("good", BEGIN + 10_000), job("killed", BEGIN + 20_000, status="Error", **{"process.pid": 8})])
    attempts = panel(empty, "bulkscope-bulk", "Wait and work of each attempt", WINDOW, "b")
    assert {(row["job"], row["worker"]) for row in attempts} == {("good", "one:7"), ("killed", "one:8")}


def test_containers_of_one_host_name_are_workers_of_their_own(empty: str) -> None:
    """Process ids repeat in containers: the name has the container's id, as far as its tools show it."""
    containers = [digit * 64 for digit in "abc"]
    documents = []
    for number, container in enumerate(containers):
        where = {"attributes": {"host.name": "one", "process.pid": 18, "container.id": container}}
        for at in range(2):
            kind, document, rest = job(f"j{number}-{at}", BEGIN + 10_000 * (at + 1))
            documents.append((kind, document | {"resource": where}, rest))
        documents.append(
            shape(
                "logs",
                BEGIN + 10_000,
                event_name="bulk.job.heartbeat",
                span_id=f"h{number}",
                trace_id="t",
                attributes={"bulk.id": "b"},
                resource=where,
            )
        )
    pod = {"attributes": {"host.name": "node", "process.pid": 1, "k8s.pod.name": "worker-x"}}
    kind, document, rest = job("pod", BEGIN + 10_000)
    documents.append((kind, document | {"resource": pod}, rest))
    put(empty, documents)
    names = [f"one/{container[:12]}:18" for container in containers]
    attempts = panel(empty, "bulkscope-bulk", "Wait and work of each attempt", WINDOW, "b")
    assert sorted(row["worker"] for row in attempts) == ["node/worker-x:1", *sorted(names * 2)]
    heard = panel(empty, "bulkscope-workers-hosts", "Jobs in hand by heartbeats", WINDOW)
    assert {(row["jobs"], row["worker"]) for row in heard} == {(1, name) for name in names}


def test_a_span_is_known_by_both_its_ids(empty: str) -> None:
    documents = []
    for trace in ("t1", "t2"):
        kind, document, rest = job(trace, BEGIN + 10_000)
        documents += [(kind, document | {"trace_id": trace, "span_id": "same"}, rest)] * 2
    put(empty, documents)
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, "b") == [{"done": 2, "failed": 0}]


def test_a_bulk_whose_id_is_a_number(empty: str) -> None:
    put(empty, [job("good", BEGIN + 10_000, bulk="42")])
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, 42) == [{"done": 1, "failed": 0}]
    assert panel(empty, "bulkscope-bulk", "Jobs", WINDOW, "42") == [{"done": 1, "failed": 0}]


def test_requests_by_outcome_and_absent_measurements(empty: str) -> None:
    outcomes = ("ok", "ok", "overload", "internal_error", "client_error")
    requests = [
        shape("traces", BEGIN + 1000 * number, kind="Server", name="POST /bulks", duration=10**8, trace_id="t",
              span_id=f"s{number}", attributes={"bulk.outcome": outcome, "http.response.status_code": 200})
        for number, outcome in enumerate(outcomes, 1)
    ]  # fmt: skip
    inference = {"gen_ai.request.model": "m", "bulk.id": "b", "gen_ai.usage.output_tokens": 8}
    put(empty, [*requests, requests[0],
        shape("traces", BEGIN + 9000, kind="Internal", name="chat m", duration=2 * 10**9, trace_id="t", span_id="i1",
              attributes=inference | {"bulk.inference.cpu.time": 1.5, "bulk.inference.cpu.exact": False}),
        # No tokens and no CPU: it must not count in a divisor.
        shape("traces", BEGIN + 9500, kind="Internal", name="chat m", duration=9 * 10**9, trace_id="t", span_id="i2",
              attributes={"gen_ai.request.model": "m", "bulk.id": "b"}),
    ])  # fmt: skip
    assert panel(empty, "bulkscope-overview", "API requests", WINDOW) == [{"requests": 5}]
    assert panel(empty, "bulkscope-overview", "Internal failures of the API", WINDOW) == [
        {"internal": 1, "overload": 1}
    ]  # fmt: skip
    (share,) = panel(empty, "bulkscope-overview", "Share of requests that failed", WINDOW)
    assert (share["overload"], share["internal"]) == (pytest.approx(0.2), pytest.approx(0.2))
    (model,) = panel(empty, "bulkscope-inference", "Models", WINDOW, "b")
    assert (model["inferences"], model["rate"], model["cpu_per_token"]) == (2, pytest.approx(4.0), 1.5 / 8)
    assert (model["cpu_exact"], model["peak"], model["decode_rate"]) == (0.0, None, None)
    (exact,) = panel(empty, "bulkscope-inference", "Measured exactly, or estimated", WINDOW, "b")
    assert (exact["cpu_exact"], exact["cpu_estimated"], exact["memory_exact"]) == (0, 1, None)


def test_a_request_of_another_instrumentation_ends_as_its_status_says(empty: str) -> None:
    # Another instrumentation's have no outcome, and their status decides; without one it is not known.
    foreign = [
        shape("traces", BEGIN + 300_000 + number, kind="Server", name="POST /", duration=10**8, trace_id="f",
              span_id=f"f{number}", attributes={} if status is None else {"http.response.status_code": status})
        for number, status in enumerate((200, 404, 429, 503, 500, None))
    ]  # fmt: skip
    put(empty, foreign)
    late = panel(empty, "bulkscope-overview", "API requests by outcome", (BEGIN + 200_000, WINDOW[1]))
    assert {row["outcome"]: row["requests"] for row in late} == {
        "ok": 1, "client_error": 1, "overload": 2, "internal_error": 1, "unknown": 1,
    }  # fmt: skip


def sample(host: str, at: int, shares: dict[str, float], of: str = "cpu") -> list[bridge.Document]:
    """Return what a Collector says of its host at a time, in ms: the share of each state."""
    found = []
    for state, share in shares.items():
        stream, document, _ = shape(
            "metrics", at, unit="1", attributes={"state": state}, metrics={f"system.{of}.utilization": share},
            resource={"attributes": {"host.name": host}}, _metric_names_hash=of,
        )  # fmt: skip
        found.append((stream, document, {f"metrics.system.{of}.utilization": "gauge_double"}))
    return found


def test_memory_in_use_is_what_kibanas_own_page_adds_up(empty: str) -> None:
    now = int(datetime.now(UTC).timestamp() * 1000) // 1000 * 1000
    window = (now - 300_000, now + 60_000)
    inference = shape(
        "traces", now - 20_000, kind="Internal", name="chat m", duration=10**9, trace_id="t", span_id="i",
        attributes={"gen_ai.request.model": "m", "bulk.id": "b"},
    )  # fmt: skip
    states = {
        "used": 0.5, "buffered": 0.1, "slab_reclaimable": 0.04, "slab_unreclaimable": 0.01, "cached": 0.25, "free": 0.1,
    }  # fmt: skip
    samples = sample("one", now - 10_000, states, "memory") + sample("two", now - 10_000, states, "memory")
    put(empty, [inference, *samples])
    for dashboard in ("bulkscope-overview", "bulkscope-workers-hosts"):
        rows = panel(empty, dashboard, "Host memory", window)
        assert {(row["host"], round(row["used"], 6)) for row in rows} == {("one", 0.65), ("two", 0.65)}
    for bulk in ("b", "*"):
        rows = panel(empty, "bulkscope-bulk", "Memory of the hosts that ran them", window, bulk)
        assert [(row["host"], row["used"]) for row in rows] == [("one", pytest.approx(0.65))]


def test_only_hosts_that_ran_the_bulk_are_beside_it(empty: str) -> None:
    now = int(datetime.now(UTC).timestamp() * 1000) // 1000 * 1000
    window = (now - 300_000, now + 60_000)
    inference = shape(
        "traces", now - 20_000, kind="Internal", name="chat m", duration=10**9, trace_id="t", span_id="i",
        attributes={"gen_ai.request.model": "m", "bulk.id": "b", "bulk.inference.cpu.time": 0.5},
    )  # fmt: skip
    busy = {"user": 0.5, "system": 0.2, "wait": 0.1, "idle": 0.2}
    put(empty, [inference, *sample("one", now - 10_000, busy), *sample("two", now - 10_000, busy)])
    for bulk in ("b", "*"):
        rows = panel(empty, "bulkscope-bulk", "CPU of the hosts that ran them", window, bulk)
        assert [(row["host"], row["used"]) for row in rows] == [("one", pytest.approx(0.7))]
    assert panel(empty, "bulkscope-bulk", "CPU of the hosts that ran them", window, "other") == []
    both = panel(empty, "bulkscope-workers-hosts", "Host CPU", window)
    assert {(row["host"], round(row["busy"], 6)) for row in both} == {("one", 0.7), ("two", 0.7)}


def test_the_lost_are_seen_by_the_last_heartbeat(empty: str) -> None:
    put(empty, [
        shape("logs", BEGIN + 1000 * number, event_name="bulk.job.heartbeat", span_id="lost", trace_id="t",
              attributes={"bulk.id": "b", "bulk.job.id": "j", "process.memory.usage": 2**20 * number})
        for number in range(1, 4)
    ])  # fmt: skip
    (heard,) = panel(empty, "bulkscope-workers-hosts", "Jobs in hand by heartbeats", WINDOW)
    assert (heard["jobs"], heard["worker"]) == (1, "one:7")
    (memory,) = panel(empty, "bulkscope-workers-hosts", "Memory of workers", WINDOW)
    assert memory["memory"] == 3 * 2**20


def test_many_lines_on_one_axis_are_not_cut_off(empty: str) -> None:
    workers, steps = 30, 60
    step_ms = (WINDOW[1] - WINDOW[0]) // steps
    put(empty, [
        shape("logs", BEGIN + step * step_ms + 1, event_name="bulk.job.heartbeat", span_id=f"s{worker}",
              resource={"attributes": {"host.name": f"host{worker}", "process.pid": 1}})
        for worker in range(workers) for step in range(steps)
    ])  # fmt: skip
    rows = panel(empty, "bulkscope-workers-hosts", "Jobs in hand by heartbeats", WINDOW)
    assert len(rows) == workers * steps > 1000
