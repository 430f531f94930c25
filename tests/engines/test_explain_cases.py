"""Explanations of bulks that a demo does not make, from records that went to the studio and to Elasticsearch."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope_studio.cli import capacity, compare, explain, report
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.services import capacities, explanations, reports
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.storage.store import Store
from tests import decoding
from tests.engines import bridge, homes, servers, templates

BEGIN = 1_700_000_000 * 10**9 + 123_456_789  # ns, no whole millisecond
SECOND, MILLI = 10**9, 10**6
DAY = 86_400 * SECOND
INTERNAL, SERVER, PRODUCER, CONSUMER = 1, 2, 4, 5
HOST_SCOPE = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/hostmetricsreceiver"


class Homes:
    """A studio's store and an Elasticsearch that are told the same."""

    def __init__(self, store: Store, url: str) -> None:
        self.store, self.url = store, url
        self.source = ElasticsearchSource(Client("Elasticsearch", url))

    def tell(self, signal: str, request: Any) -> None:
        homes.keep(self.store, getattr(decoding, signal)(request))
        assert bridge.store(self.url, bridge.SIGNALS[signal][1](request)) == []
        servers.ask("POST", f"{self.url}/*/_refresh")

    def has(self, bulk: str) -> bool:
        return any(row["id"] == bulk for row in self.source.bulks())

    def both(self, bulk: str) -> tuple[Any, Any]:
        return explanations.bulk_explanation(self.store, bulk, drops_known=False), self.source.explanation(bulk)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.elasticsearch(tmp_path_factory.mktemp("elastic")) as server:
        templates.install(server.url)
        yield server.url


@pytest.fixture(scope="module")
def told(url: str, tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(Store(tmp_path_factory.mktemp("studio") / "studio.duckdb"), url)


def attributes(holder: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        pair = holder.attributes.add(key=name)
        kind = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]
        setattr(pair.value, kind, value)


Process = tuple[str, int] | tuple[str, int, str]  # host, process id, and its container, where it is not the host's one


class Told:
    """Requests in the making: spans and log records by worker, samples of hosts."""

    def __init__(self) -> None:
        self.traces, self.logs, self.metrics = (
            ExportTraceServiceRequest(), ExportLogsServiceRequest(), ExportMetricsServiceRequest()
        )  # fmt: skip
        self._numbers = itertools.count(1)
        self._spans: dict[Any, Any] = {}
        self._records: dict[Any, Any] = {}

    def _of(self, groups: Any, known: dict[Any, Any], worker: Process) -> Any:
        if worker not in known:
            host, pid, *inside = worker
            container = inside[0] if inside else f"c{host}" * 6
            group = groups.add()
            named = {
                "service.name": "w", "service.instance.id": f"i-{host}-{pid}-{container}", "host.name": host,
                "process.pid": pid, "bulk.worker.cpus": 2, "bulk.worker.cpu.set": "0-1", "container.id": container,
                "bulk.worker.memory.limit": 8 * 2**30,
            }  # fmt: skip
            attributes(group.resource, named)
            known[worker] = group
        return known[worker]

    def span(self, worker: Process, kind: int, at: int, seconds: float, error: bool = False, **values: Any) -> bytes:
        """Add a span and return its id; ``__`` in a name stands for a dot."""
        group = self._of(self.traces.resource_spans, self._spans, worker)
        scope = group.scope_spans[0] if group.scope_spans else group.scope_spans.add()
        number = next(self._numbers)
        span = scope.spans.add(
            name="s", kind=kind, span_id=number.to_bytes(8, "big"), trace_id=number.to_bytes(16, "big"),
            start_time_unix_nano=at, end_time_unix_nano=at + round(seconds * 1e9),
        )  # fmt: skip
        span.status.code = 2 if error else 0
        attributes(span, {name.replace("__", "."): value for name, value in values.items()})
        return bytes(span.span_id)

    def event(self, worker: Process, name: str, span_id: bytes, at: int, trace: bytes = b"", **values: Any) -> None:
        group = self._of(self.logs.resource_logs, self._records, worker)
        scope = group.scope_logs[0] if group.scope_logs else group.scope_logs.add()
        # What a process says inside a span is of its trace.
        trace_id = trace or span_id.rjust(16, b"\0")
        record = scope.log_records.add(time_unix_nano=at, event_name=name, span_id=span_id, trace_id=trace_id)
        attributes(record, {name.replace("__", "."): value for name, value in values.items()})

    def open(
        self, worker: Process, job: str, at: int, beats: int, span_id: bytes = b"", trace: bytes = b"", **values: Any
    ) -> bytes:
        """Add a job that began and has not ended, with its heartbeats; return its span's id."""
        span_id = span_id or (10**6 + next(self._numbers)).to_bytes(8, "big")
        self.event(worker, "bulk.job.started", span_id, at, trace, bulk__job__id=job, **values)
        for beat in range(1, beats + 1):
            self.event(worker, "bulk.job.heartbeat", span_id, at + beat * SECOND, trace, bulk__job__id=job, **values)
        return span_id

    def job(self, worker: Process, bulk: str, job: str, put: int, at: int, seconds: float, **more: Any) -> None:
        """Add an attempt: what it logged as it began, its span and the span of its inference."""
        kept = {"bulk.id": bulk} if bulk else {}
        named = {name.replace(".", "__"): value for name, value in kept.items()} | {"bulk__job__id": job}
        wait = {"gen_ai__latency__time_in_queue": (at - put) / 1e9, "bulk__job__attempt": 1} | more
        span_id = self.span(
            worker, CONSUMER, at, seconds, messaging__destination__name="q", **named, **wait
        )  # fmt: skip
        self.event(worker, "bulk.job.started", span_id, at + 60_000, **named)
        numbers = {
            "gen_ai__request__model": "m", "gen_ai__latency__time_in_model_prefill": seconds / 4,
            "gen_ai__latency__time_in_model_decode": seconds / 2, "gen_ai__usage__input_tokens": 10,
            "gen_ai__usage__output_tokens": 20 + len(job), "bulk__inference__cpu__time": seconds * 0.8,
            "bulk__inference__cpu__wait": seconds * 0.3, "bulk__inference__cpu__throttled": seconds * 0.01,
            "bulk__inference__memory__peak": 500 * 2**20, "bulk__inference__memory__file": 300 * 2**20,
            "bulk__inference__memory__limit": 8 * 2**30,
        }  # fmt: skip
        self.span(worker, INTERNAL, at + MILLI // 4, seconds * 0.9, **named, **numbers)

    def sample(self, host: str, at: int, name: str, kind: str, counter: bool = False, **states: float) -> None:
        """Add a sample of a host, a point for each state."""
        group = self.metrics.resource_metrics.add()
        attributes(group.resource, {"host.name": host})
        scope = group.scope_metrics.add()
        scope.scope.name = f"{HOST_SCOPE}/internal/scraper/x"
        metric = scope.metrics.add(name=name, unit="1")
        data = metric.sum if counter else metric.gauge
        if counter:
            metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2
        for state, value in states.items():
            point = data.data_points.add(time_unix_nano=at // MILLI * MILLI)
            if isinstance(value, int):
                point.as_int = value
            else:
                point.as_double = value
            attributes(point, {kind: state})

    def to(self, homes: Homes) -> None:
        for signal in ("traces", "logs", "metrics"):
            request = getattr(self, signal)
            if request.ByteSize():
                homes.tell(signal, request)


ONE, TWO, FAR = ("h1", 1), ("h1", 2), ("h2", 3)
JOBS = 24


def crowd() -> Told:
    """Bulk "mine" and bulk "other" in turn on two workers of h1, 0.2 ms between jobs; a third worker on h2 has "other"
    alone. Jobs of no bulk, a retry, a failure, one job that was killed, one that nobody took."""
    found = Told()
    found.span(
        ("api", 9), SERVER, BEGIN, 0.05, bulk__id="mine", bulk__size=JOBS + 2, bulk__outcome="ok",
        http__request__method="POST",
    )  # fmt: skip
    puts = {}
    for number in range(JOBS + 2):
        for bulk in ("mine", "other"):
            job = f"{bulk}-{number:02d}"
            puts[job] = BEGIN + 1_300_001 * (number + 1)
            found.span(("api", 9), PRODUCER, puts[job], 0.0004, bulk__id=bulk, bulk__job__id=job)
    at = dict.fromkeys((ONE, TWO), BEGIN + 90 * MILLI)
    for number in range(JOBS):
        for bulk in ("mine", "other"):
            worker = (ONE, TWO)[number % 2]
            job, seconds = f"{bulk}-{number:02d}", 1.0 + (number % 5) / 7
            more: dict[str, Any] = {"bulk__outcome": "ok"}
            if job == "mine-06":
                more = {"bulk__outcome": "retry", "error__type": "OSError", "bulk__failure__domain": "infra"}
            elif job == "mine-09":
                more = {
                    "bulk__outcome": "internal_error", "error__type": "ValueError", "bulk__failure__domain": "code",
                    "error": True,
                }  # fmt: skip
            found.job(worker, bulk, job, puts[job], at[worker], seconds, **more)
            at[worker] += round(seconds * 1e9) + 200_017
    again = at[ONE] + 500_003
    found.job(ONE, "mine", "mine-06", again - SECOND // 3, again, 1.0, bulk__job__attempt=2, bulk__outcome="ok")
    # Before the bulk: a job of another model's worker that ran into the hour before, inferences alone and side by side.
    found.job(FAR, "other", "long", BEGIN - 4000 * SECOND, BEGIN - 3700 * SECOND, 200.0, bulk__outcome="ok")
    for number in range(12):
        begin = BEGIN - 600 * SECOND + number * 10 * SECOND + 333
        found.job((ONE, TWO)[number % 2], "", f"none-{number}", begin, begin, 2.0 + number % 3, bulk__outcome="ok")
    for number in range(8):
        begin = BEGIN + number * 3 * SECOND + 777
        found.job(FAR, "other", f"far-{number}", begin - SECOND, begin, 2.5, bulk__outcome="ok")
    span_id = found.open(FAR, "far-open", BEGIN + 30 * SECOND, 5, bulk__id="other")
    # Another's span has the same id: it is unique in its trace alone.
    found.open(FAR, "far-again", BEGIN + 45 * SECOND, 5, span_id, bytes([9] * 16))
    # Killed for memory: its neighbour's counter of kills stands higher afterwards.
    lost = at[TWO] + 11 * MILLI
    found.open(TWO, f"mine-{JOBS}", lost, 3, bulk__id="mine", bulk__worker__oom_kills=0)
    found.open(("h1", 4), "none-open", lost + 5 * SECOND, 2, bulk__worker__oom_kills=1)
    for second in range(70):
        for host, busy in (("h1", 0.7), ("h2", 0.2)):
            moment = BEGIN + second * SECOND + 77 * MILLI
            share = busy + second % 5 / 50
            found.sample(
                host, moment, "system.cpu.utilization", "state", user=share, system=0.05, idle=0.95 - share, wait=0.0
            )
            found.sample(host, moment, "system.memory.utilization", "state", used=0.3 + second / 500, free=0.4)
            found.sample(
                host, moment, "system.memory.usage", "state", used=2**32 + second, free=2**32, cached=2**30, buffered=0
            )
            found.sample(
                host,
                moment,
                "system.paging.faults",
                "type",
                counter=True,
                major=1000 + 7 * second,
                minor=10**6 * second,
            )
    return found


@pytest.mark.parametrize("bulk", ["mine", "other"])
def test_every_number_is_the_same(told: Homes, bulk: str) -> None:
    if not told.has(bulk):
        crowd().to(told)
    ours, theirs = told.both(bulk)
    assert homes.compare(ours, theirs)
    assert ours["verdict"]["code"] == theirs["verdict"]["code"]
    if bulk == "mine":
        assert {name: ours["progress"][name] for name in ("sent", "done", "failed", "lost", "waiting")} == {
            "sent": JOBS + 2, "done": JOBS - 1, "failed": 1, "lost": 1, "waiting": 1,
        }  # fmt: skip
        assert ours["workers"]["others_s"] > 0
        assert ours["workers"]["places"] == 3, "one of them had jobs of the other bulk alone"


def swamp() -> Told:
    """A hundred bulks of one job each, more than their worker can do, two days after the others."""
    found = Told()
    worker, free = ("h7", 71), 0
    for number in range(100):
        put = BEGIN + 2 * DAY + number * 400 * MILLI + number % 7 * MILLI
        at = max(put, free) + 3 * MILLI
        found.span(("api", 9), PRODUCER, put, 0.0004, bulk__id=f"swamp-{number}", bulk__job__id=f"swamp-{number}-0")
        found.job(worker, f"swamp-{number}", f"swamp-{number}-0", put, at, 1 + number % 5 / 9, bulk__outcome="ok")
        free = at + round((1 + number % 5 / 9) * 1e9)
    return found


def test_an_overload_by_bulks_before_it_is_the_same(told: Homes) -> None:
    swamp().to(told)
    ours, theirs = told.both("swamp-99")
    assert homes.compare(ours, theirs)
    assert ours["verdict"]["text"] == theirs["verdict"]["text"]
    assert "before this bulk, other bulks brought 2.5 jobs/s" in ours["verdict"]["text"]


def line() -> Told:
    """A bulk put at once and a stream of jobs half a day later, on two workers of a host of their own."""
    found = Told()
    workers = ("h9", 91), ("h9", 92)
    for bulk, begin, every in (("line", BEGIN + 5 * DAY, 1), ("stream", BEGIN + 5 * DAY + DAY // 2, SECOND)):
        free = dict.fromkeys(workers, 0)
        for number in range(60):
            put = begin + number * every + number % 7 * every // 9
            worker = min(workers, key=lambda worker: free[worker])
            at, seconds = max(put, free[worker]) + 5 * MILLI + 1, 1.2 + number % 11 / 13
            found.span(("api", 9), PRODUCER, put, 0.0004, bulk__id=bulk, bulk__job__id=f"{bulk}-{number}")
            found.job(worker, bulk, f"{bulk}-{number}", put, at, seconds, bulk__outcome="ok")
            free[worker] = at + round(seconds * 1e9)
    return found


def boxes() -> Told:
    """A bulk on three containers of one host name, in each one process of the same id; one more was killed whole."""
    found = Told()
    begin = BEGIN + 9 * DAY
    for number in range(30):
        worker = ("dock", 18, "abc"[number % 3] * 64)
        put, at = begin + number * MILLI, begin + SECOND + number // 3 * 2 * SECOND + number % 3 * MILLI
        found.span(("api", 9), PRODUCER, put, 0.0004, bulk__id="boxes", bulk__job__id=f"box-{number}")
        found.job(worker, "boxes", f"box-{number}", put, at, 1.9, bulk__outcome="ok")
    found.open(
        ("dock", 18, "d" * 64), "box-30", begin + 5 * SECOND, 3, bulk__id="boxes", bulk__worker__oom_kills=0,
        bulk__worker__memory__utilization=0.97, process__memory__usage=5 * 2**30,
    )  # fmt: skip
    # In another container of the same service a process was killed for memory, which is none of its business.
    found.open(("dock", 18, "a" * 64), "box-31", begin + 30 * SECOND, 9, bulk__worker__oom_kills=4)
    return found


def test_containers_of_one_host_name_are_told_apart(
    told: Homes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes().to(told)
    ours, theirs = told.both("boxes")
    assert homes.compare(ours, theirs)
    assert ours["workers"]["places"] == 4
    assert "1 attempt lost with workers that were likely killed for memory" in theirs["verdict"]["text"]
    one, other = reports.bulk_report(told.store, "boxes"), told.source.report("boxes")
    names = [f"dock/{letter * 12}:18" for letter in "abcd"]
    for found in (one, other):
        assert [group["name"] for group in found["workers"]] == names
        (row,) = found["lost"]
        assert (row["worker"], row["domain"], row["likely"]) == (names[3], "resource", True)
        assert (row["memory_bytes"], row["memory_limit_bytes"]) == (5 * 2**30, 8 * 2**30)
        assert (row["model"], row["model_likely"]) == ("m", True)
    monkeypatch.setenv("ELASTICSEARCH_URL", told.url)
    assert capacity.command(["boxes", "--source", "elasticsearch", "--format", "json"]) == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    assert (pool["workers"], pool["memory"]["workers_seen"], pool["memory"]["limits"]) == (3, 3, 3)


@pytest.mark.parametrize("bulk", ["line", "stream"])
def test_what_a_system_sustains_is_the_same(
    told: Homes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bulk: str
) -> None:
    if not told.has(bulk):
        line().to(told)
    monkeypatch.setenv("ELASTICSEARCH_URL", told.url)
    words = ["--source", "elasticsearch", "--format", "json", "--rate", "0.9", "--slo", "20s"]
    assert capacity.command([bulk, *words]) == 0
    theirs = json.loads(capsys.readouterr().out)
    ours = capacities.system_capacity(told.store, Question([bulk], rate=0.9, slo="20s"))
    (pool,) = ours["pools"]
    assert (pool["places"], pool["models"][0]["now"]["reached"]) == (2, True)
    assert pool["forecast"]["wait"]["p95_s"]["value"] > 0.1
    times = [
        window[end] for answer in (ours, theirs) for window in answer["windows"] for end in ("first_ns", "last_ns")
    ]
    assert times[2:] == pytest.approx(times[:2], abs=2 * MILLI)
    homes.compare(ours, theirs, coarse={".windows.": "compared above, in ms"})
    assert capacity.command(["lien", *words]) == 2
    assert "Nearest: line" in capsys.readouterr().err


def test_what_came_more_than_once_counts_once_in_every_answer(
    told: Homes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A request whose answer was lost is sent again: its records are there twice, some of them three times."""
    parts = {"mine": crowd(), "swamp-99": swamp(), "line": line()}
    bulks = ("mine", "other", "swamp-99", "line")
    for bulk, part in parts.items():
        if not told.has(bulk):
            part.to(told)
    monkeypatch.setenv("ELASTICSEARCH_URL", told.url)

    def answers() -> tuple[dict[str, Any], dict[str, list[str]]]:
        def asked(*words: str) -> Any:
            command = {"capacity": capacity, "compare": compare, "explain": explain, "report": report}[words[0]].command
            assert command([*words[1:], "--source", "elasticsearch", "--format", "json"]) == 0
            return json.loads(capsys.readouterr().out)

        found = {
            " ".join(words): asked(*words)
            for words in (
                *((command, bulk) for command in ("report", "explain") for bulk in bulks),
                ("capacity", "line"), ("capacity", "mine"), ("compare", "mine", "other"),
            )
        }  # fmt: skip
        said = {
            name: [note for holder in (answer, *answer.get("pools", ())) for note in holder.pop("notes", ())]
            for name, answer in found.items()
        }
        return found | {"bulks": told.source.bulks()}, said

    before, notes = answers()
    assert not [note for said in notes.values() for note in said if "more than once" in note]
    spans, events = Counter[str](), Counter[str]()
    for part in parts.values():
        for signal, copies in (("traces", spans), ("logs", events)):
            documents = list(bridge.SIGNALS[signal][1](getattr(part, signal)))
            again = [*documents, *documents[::3]]
            assert bridge.store(told.url, again) == []
            copies.update(document["attributes"].get("bulk.id", "") for _, document, _ in again)
        # Of a series and a time there is one sample, as often as it is sent.
        samples = list(bridge.SIGNALS["metrics"][1](part.metrics))
        refused = bridge.store(told.url, samples)
        assert ["version conflict" in reason for reason in refused] == [True] * len(samples)
    servers.ask("POST", f"{told.url}/*/_refresh")
    after, notes = answers()
    assert [name for name in before if after[name] != before[name]] == []

    def told_of(*bulks: str) -> str:
        both = (sum(copies[bulk] for bulk in bulks) for copies in (spans, events))
        return "Came more than once, and count once: {:,} spans and {:,} log records that were sent again.".format(
            *both
        )

    for bulk in ("mine", "other", "line"):
        assert told_of(bulk) in notes[f"report {bulk}"]
    assert told_of("mine", "other") in notes["compare mine other"]
    for name in ("explain mine", "explain other", "explain line", "capacity line", "capacity mine"):
        assert [note for note in notes[name] if note.startswith("Came more than once")], name
    assert compare.command(["mine", "other", "--source", "elasticsearch"]) == 0
    assert told_of("mine", "other")[:40] in capsys.readouterr().out
