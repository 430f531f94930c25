"""Workers that are killed in the middle of an inference: the job is seen, with all that was known of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store
from tests.processes import BIN, environment
from tests.sink import Sink, serve
from tests.studio.serving import studio

WORKER = """
import time, bulkscope
ballast = bytearray(64 * 1024**2)
with bulkscope.enqueue("q", bulk_id="b", job_id="done") as job:
    pass
with bulkscope.dequeue("q", headers=job.headers):
    pass
with bulkscope.enqueue("q", bulk_id="b", job_id="killed", task="answer") as job:
    pass
with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="big-model"):
    print("at it", flush=True)
    time.sleep(600)
"""


def stored(db: Path, bodies: list[tuple[str, bytes]]) -> None:
    """Send what a worker sent to a studio."""
    with studio(db) as at:
        for path, body in bodies:
            kind = "application/json" if body.startswith(b"{") else "application/x-protobuf"
            httpx.post(at.otlp_http + path, content=body, headers={"content-type": kind}).raise_for_status()


def lost(db: Path) -> list[dict[str, Any]]:
    store = Store(db, read_only=True)
    try:
        rows: list[dict[str, Any]] = store.query(
            sql.load("lost"), {"bulk": "b", "silent_ns": time.time_ns(), **summaries.EVER}
        ).to_pylist()
        return rows
    finally:
        store.close()


def event(host: str, service: str, container: str | None = None, **attributes: int) -> tuple[str, bytes]:
    """A heartbeat of another worker on the host, now."""
    record = {
        "timeUnixNano": str(time.time_ns()), "eventName": "bulk.job.heartbeat",
        "attributes": [{"key": key, "value": {"intValue": str(value)}} for key, value in attributes.items()],
    }  # fmt: skip
    names = {"host.name": host, "service.name": service} | ({} if container is None else {"container.id": container})
    given: list[dict[str, Any]] = [{"key": key, "value": {"stringValue": value}} for key, value in names.items()]
    resource = {"attributes": [*given, {"key": "process.pid", "value": {"intValue": "1"}}]}
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}
    return "/v1/logs", json.dumps(body).encode()


@pytest.fixture(scope="module")
def killed() -> tuple[Sink, int]:
    """What a worker sent that was killed in an inference, and its process id."""
    with serve() as sink:
        env = environment(sink.url, OTEL_BSP_SCHEDULE_DELAY="500", OTEL_BLRP_SCHEDULE_DELAY="500")
        words = [str(BIN / "bulkscope"), "run", sys.executable, "-c", WORKER]
        process = subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Its last heartbeat is what a worker that is killed leaves behind.
        assert sink.wait(lambda s: any(log["event"] == "bulk.job.heartbeat" for log in s.logs))
        process.send_signal(signal.SIGKILL)
        process.wait()
    return sink, process.pid


def test_a_worker_killed_in_an_inference(killed: tuple[Sink, int], tmp_path: Path) -> None:
    sink, pid = killed
    db = tmp_path / "store.duckdb"
    stored(db, sink.bodies)
    (row,) = lost(db)
    assert (row["job_id"], row["attempt"], row["model"], row["domain"]) == ("killed", 1, "big-model", "infra")
    assert row["worker"].endswith(f":{pid}")
    assert row["elapsed"] >= 1
    assert row["memory"] > 64 * 1024**2
    report = subprocess.run([BIN / "bulkscope", "report", "b", "--db", db], capture_output=True, text=True, check=True)
    assert "2 sent, 1 done" in report.stdout


@pytest.mark.parametrize(("more", "domain"), [(0, "infra"), (1, "resource")])
def test_the_kernels_counter_tells_a_kill_for_memory(
    killed: tuple[Sink, int], tmp_path: Path, more: int, domain: str
) -> None:
    sink, _ = killed
    last = [log for log in sink.logs if log["event"] == "bulk.job.heartbeat"][-1]
    kills, host = last["attributes"]["bulk.worker.oom_kills"], last["resource"]["host.name"]
    service, container = last["resource"]["service.name"], last["resource"].get("container.id")
    name = "bulk.worker.oom_kills"
    others = [event("other", service, **{name: kills + 9}), event(host, "other", **{name: kills + 9})]
    db = tmp_path / "store.duckdb"
    stored(db, [*sink.bodies, *others, event(host, service, container, **{name: kills + more})])
    assert [row["domain"] for row in lost(db)] == [domain]


def test_a_job_that_has_ended_is_not_lost(killed: tuple[Sink, int], tmp_path: Path) -> None:
    db = tmp_path / "store.duckdb"
    stored(db, killed[0].bodies)
    assert "done" not in [row["job_id"] for row in lost(db)]


def test_a_worker_killed_just_after_its_job_began_leaves_its_trace(tmp_path: Path) -> None:
    """That a job began does not wait for the batch: only then is it known which job a killed process had."""
    with serve() as sink:
        env = environment(sink.url, OTEL_BSP_SCHEDULE_DELAY="600000", OTEL_BLRP_SCHEDULE_DELAY="600000")
        words = [str(BIN / "bulkscope"), "run", sys.executable, "-c", WORKER]
        process = subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            assert sink.wait(
                lambda s: any(
                    (log["event"], log["attributes"].get("bulk.job.id")) == ("bulk.job.started", "killed")
                    for log in s.logs
                )
            )
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert [span["attributes"]["bulk.job.id"] for span in sink.spans if span["kind"] == 5] == ["done"]
    db = tmp_path / "store.duckdb"
    stored(db, sink.bodies)
    assert [(row["job_id"], row["attempt"], row["told"]) for row in lost(db)] == [("killed", 1, False)]
