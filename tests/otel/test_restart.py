"""The studio is killed in the middle of a bulk and started again: senders keep what they have meanwhile.

The outage is as many time-outs of a request long as a minute is of the default ten seconds.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.storage.store import Store
from tests.processes import BIN, environment, free_port, get, wait_for_line, wait_for_listener

Spawn = Callable[..., Any]

OUTAGE_SECONDS = 3.0
TIMEOUT = "0.5"

API = """
import json, logging
import bulkscope
from fastapi import FastAPI

logging.basicConfig(level=logging.INFO)
app = FastAPI()

@app.get("/work/{number}")
def work(number: int):
    logging.getLogger("api").info("request %d", number)
    with bulkscope.enqueue("q", bulk_id="b", job_id=f"j{number}") as job:
        return job.headers
"""
WORKER = """
import json, logging, os, sys
import bulkscope

logging.basicConfig(level=logging.INFO)
print("ready", flush=True)
for line in sys.stdin:
    headers = json.loads(line)
    with bulkscope.dequeue("q", headers=headers):
        logging.getLogger("worker").info("job %s", headers["bulkscope-job"])
        with bulkscope.inference(model="m") as call:
            call.tokens(input=1, output=2)
"""


class Studio:
    def __init__(self, spawn: Spawn, db: Path) -> None:
        self._spawn, self._db = spawn, db
        self.ports = [free_port() for _ in range(3)]

    def start(self) -> None:
        names = ("--port", "--otlp-http-port", "--otlp-grpc-port")
        ports = [word for name, port in zip(names, self.ports, strict=True) for word in (name, str(port))]
        self._process = self._spawn(
            str(BIN / "bulkscope"), "studio", "--db", str(self._db), "--no-host", *ports, env=environment("")
        )
        wait_for_line(self._process, "Data  ")

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(60)


def rows(db: Path, sql: str) -> list[dict[str, Any]]:
    store = Store(db, read_only=True)
    try:
        return store.query(sql).to_pylist()  # type: ignore[no-any-return]
    finally:
        store.close()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGTERM, id="restarted", marks=pytest.mark.slow),
    ],
)
def test_every_span_and_log_record_arrives(how: signal.Signals, spawn: Spawn, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    studio = Studio(spawn, db)
    studio.start()
    (tmp_path / "api.py").write_text(API)
    (tmp_path / "worker.py").write_text(WORKER)
    env = environment(
        f"http://127.0.0.1:{studio.ports[1]}", OTEL_BSP_SCHEDULE_DELAY="100", OTEL_BLRP_SCHEDULE_DELAY="100",
        OTEL_METRIC_EXPORT_INTERVAL="500", OTEL_EXPORTER_OTLP_TIMEOUT=TIMEOUT, BULKSCOPE_FLUSH_TIMEOUT="60",
    )  # fmt: skip
    port = free_port()
    run = (str(BIN / "bulkscope"), "run")
    api = spawn(*run, str(BIN / "uvicorn"), "api:app", "--port", str(port), env=env)
    worker = subprocess.Popen(
        [*run, sys.executable, "worker.py"], cwd=tmp_path, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for_line(worker, "ready")
    wait_for_listener(port)
    assert worker.stdin is not None
    asked = 0

    def bulk(seconds: float) -> None:
        nonlocal asked
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            worker.stdin.write(json.dumps(json.loads(get(f"http://127.0.0.1:{port}/work/{asked}"))) + "\n")
            worker.stdin.flush()
            asked += 1
            time.sleep(0.02)

    try:
        bulk(1)
        studio.end(how)
        bulk(OUTAGE_SECONDS)
        studio.start()
        bulk(1)
        api.send_signal(signal.SIGTERM)
        said = api.communicate(timeout=90)[0]
        said += worker.communicate(timeout=90)[0]
    finally:
        worker.kill()
    studio.end(signal.SIGTERM)
    assert worker.returncode == 0, said
    assert "are delivered again" in said
    kinds = "SELECT kind, count(DISTINCT span_id) AS n FROM spans WHERE bulk_id = 'b' GROUP BY kind"
    assert {row["kind"]: row["n"] for row in rows(db, kinds)} == dict.fromkeys(
        ("SERVER", "PRODUCER", "CONSUMER", "INTERNAL"), asked
    )
    bodies = {row["body"] for row in rows(db, "SELECT body FROM logs WHERE scope IN ('api', 'worker')")}
    assert bodies == {f"request {n}" for n in range(asked)} | {f"job j{n}" for n in range(asked)}
    lost = rows(db, "SELECT attributes, value FROM points WHERE name = 'bulk.telemetry.dropped'")
    assert lost == []
    # The last collection has all that the ones in between would have said.
    done = rows(
        db,
        "SELECT max(count) AS n FROM points WHERE name = 'messaging.process.duration' AND scope = 'bulkscope'",
    )
    assert done == [{"n": asked}]
