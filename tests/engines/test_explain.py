"""Two bulks on the same workers in two homes: why each took as long as it did is the same, read from either."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from bulkscope_studio.cli import explain
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.services import explanations
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.storage.store import Store
from tests import sink
from tests.demo.conftest import Service, call, until
from tests.engines import homes
from tests.engines.conftest import Stack
from tests.engines.servers import eventually
from tests.engines.traffic import DATABASES, documents, instrumented

JOBS = 30
BULKS = ("left", "right")
# What stands on the metrics of processes, which go to Prometheus: when each worker is first and last known to have
# lived (before its first job it waits, and is not busy), how near it came to its limits, and what senders dropped.
FROM_METRICS = {
    ".time_s.wait_absent": "the wait before a worker is known to live",
    ".time_s.wait_dispatch": "the rest of that wait",
    ".time_s.wait_own": "a worker that lived before its first job was free",
    ".time_s.wait_others": "the same",
    ".workers.capacity_s": "the time in which workers lived",
    ".workers.dispatch_s": "the time in which one was free beside a waiting job",
    ".workers.idle_s": "the rest of their time",
    ".wait.expected": "is simulated with workers that come when they were first known to live",
    ".wait.ratio": "divides by it",
    ".path.": "may begin with that wait",
    ".makespan.": "the same",
    ".next.": "follow from the path and the workers' time",
    ".saved.": "is of the bulk played again with workers that came when they were first known to live",
    ".busy_low.": "a share of the workers' time",
    ".room.": "the same",
    ".stalled.": "the same",
    ".idle_beside_jobs.": "the same",
    ".lost_records.": "senders count what they dropped in a metric",
    ".memory_near_limit.": "workers say how near they are to the limit of their cgroup",
}

# What a millisecond can change by more than that, of jobs of tens of milliseconds that are put at once.
COARSE = {
    ".next.": "two jobs that change places in a replay decide whether a change saves enough to be told (1 run in 12)",
    ".backlog.": "whether the backlog of jobs that were put within a few milliseconds rose meanwhile",
    ".gain.": "of the jobs beside as few busy workers as there ever were, rounding decides which count",
    ".cores_busy.": "which of the host's few samples lie in the second in which most workers were busy",
    ".room.": "the same",
    ".prefill_scales.": "a ratio of two such growths",
    ".cpu_grows.": "another",
}


@pytest.fixture(scope="module")
def sent(stack: Stack, service: Callable[..., Service]) -> Iterator[sink.Sink]:
    """What two workers, and an API that took two bulks at once, have sent to the Collector: they have ended by now."""
    with sink.serve() as between:
        between.forward = stack.otlp
        extra = instrumented(between.url, "uvicorn", "demo.app:app") | {"OTEL_BLRP_SCHEDULE_DELAY": "100"}
        demo = service(next(DATABASES), worker=True, **extra)
        demo.start_worker()
        prompts = [" ".join("abcdefgh"[: 1 + number % 8]) for number in range(JOBS)]

        def send(bulk: str) -> None:
            body = {"model": "tiny", "prompts": prompts, "max_tokens": 400, "bulkId": bulk}
            assert call(f"{demo.url}/bulks", body).status == 202

        def done(bulk: str) -> bool:
            return bool(call(f"{demo.url}/bulks/{bulk}").body.get("done") == JOBS)

        for number in itertools.count():  # until both workers have begun to work
            send(f"warm-{number}")
            until(lambda number=number: done(f"warm-{number}"), "the workers are warm")
            if len({log["resource"]["process.pid"] for log in between.logs if log["event"] == "bulk.job.started"}) == 2:
                break
        # So that each bulk has the other's jobs beside its own, however fast workers are and slow the API.
        workers = demo.processes[1:]
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor() as both:
            list(both.map(send, BULKS))
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
        for bulk in BULKS:
            until(lambda bulk=bulk: done(bulk), f"{bulk} is done")
        demo.end()
        yield between


@pytest.fixture(scope="module")
def studio(stack: Stack, sent: sink.Sink, tmp_path_factory: pytest.TempPathFactory) -> Store:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    path = tmp_path_factory.mktemp("studio") / "studio.duckdb"
    return homes.store(path, sent.bodies, "traces", "logs", "metrics")


def hosts(stack: Stack) -> pa.Table:
    """Return the samples of the host that the Collector took, as the studio's rows."""
    rows = []
    for document in documents(stack, "metrics-hostmetricsreceiver*"):
        attributes = document.get("attributes", {})
        if attributes.get("state", "").startswith("slab_"):
            continue  # a part of other states, which the studio's own sampler does not tell apart
        taken = round(datetime.fromisoformat(document["@timestamp"]).timestamp() * 1000) * 10**6
        for name, value in document["metrics"].items():
            point = {
                "time_ns": taken, "name": name, "type": "gauge", "value": float(value),
                "host_name": document["resource"]["attributes"]["host.name"],
                "attributes": otlp_decode.dump(attributes),
            }  # fmt: skip
            rows.append([point.get(column) for column, _ in otlp_decode.POINTS])
    return otlp_decode.to_arrow("points", rows)


@pytest.fixture(scope="module")
def answers(stack: Stack, studio: Store) -> dict[str, dict[str, Any]]:
    """What Elasticsearch says of each bulk; the studio has got the same samples of the host."""

    def read(bulk: str) -> dict[str, Any]:
        return ElasticsearchSource(Client("Elasticsearch", stack.elasticsearch)).explanation(bulk)

    stack.collector.stop()  # no sample comes between
    cursor = studio.connection()
    cursor.register("incoming", hosts(stack)).execute("INSERT INTO points SELECT * FROM incoming")
    return {bulk: read(bulk) for bulk in BULKS}


@pytest.mark.parametrize("bulk", BULKS)
def test_only_what_metrics_of_processes_tell_is_missing(
    studio: Store, answers: dict[str, dict[str, Any]], bulk: str
) -> None:
    ours = explanations.bulk_explanation(studio, bulk)
    assert (ours["progress"]["done"], ours["workers"]["others_s"] > 0) == (JOBS, True)
    homes.compare(ours, answers[bulk], FROM_METRICS, COARSE)


@pytest.fixture
def without_processes(studio: Store, answers: dict[str, dict[str, Any]]) -> Iterator[Store]:
    """The studio without what processes say of themselves in metrics, as Elasticsearch is."""
    cursor = studio.connection()
    cursor.begin()
    cursor.execute("CREATE TEMP TABLE of_processes AS SELECT * FROM points WHERE service_instance_id IS NOT NULL")
    cursor.execute("DELETE FROM points WHERE service_instance_id IS NOT NULL").commit()
    yield studio
    cursor.execute("INSERT INTO points SELECT * FROM of_processes")


@pytest.mark.parametrize("bulk", BULKS)
def test_every_number_is_the_same(without_processes: Store, answers: dict[str, dict[str, Any]], bulk: str) -> None:
    ours = explanations.bulk_explanation(without_processes, bulk, drops_known=False)
    homes.compare(ours, answers[bulk], coarse=COARSE)


def test_the_command_reads_elasticsearch(
    stack: Stack,
    answers: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    assert explain.command(["left", "--source", "elasticsearch", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == answers["left"]
    assert explain.command(["lefft", "--source", "elasticsearch"]) == 2
    assert f"no bulk 'lefft' in {stack.elasticsearch}. Nearest: left" in capsys.readouterr().err
