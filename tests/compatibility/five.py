"""Five jobs of any queue's library: one that goes well, one that fails, one that fails once and is tried again, one
that publishes another, and one that is wanted a second later. What publishes and does them, and what must come of it.

One plain application a library has them (``apps/``, ``messages/apps``). Test modules take what is asked of a ``Run``
under names of their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility import matrix
from tests.compatibility.libraries import Queue
from tests.processes import environment
from tests.sink import Sink, serve
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("apps")
PRODUCER, CONSUMER = 4, 5
ERROR = 2


@dataclass
class Run:
    library: Queue
    version: str
    sink: Sink
    output: str
    pid: int
    queue: str = "bulk"

    def sent(self, bulk: str) -> list[dict[str, Any]]:
        return self._spans(PRODUCER, bulk)

    def processed(self, bulk: str) -> list[dict[str, Any]]:
        return self._spans(CONSUMER, bulk)

    def _spans(self, kind: int, bulk: str) -> list[dict[str, Any]]:
        found = [span for span in self.sink.spans if span["kind"] == kind and span["attributes"]["bulk.id"] == bulk]
        return sorted(found, key=lambda span: (span["attributes"]["bulk.job.attempt"], span["start"]))


def copy_applications(folder: Path) -> None:
    """Copy every library's application and what they have in common into one folder, which must not exist."""
    shutil.copytree(APPS, folder)
    shutil.copytree(Path(__file__).parent / "messages" / "apps", folder, dirs_exist_ok=True)


def python_of(library: Queue) -> Path:
    """Return the interpreter of an environment with the library and Bulkscope."""
    try:
        return venv(f"queue-{library}".replace(" ", "-"), ["-e", str(ROOT), *library.requirements])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with {library}: {reason}")


def run_five(library: Queue, url: str, folder: Path, **variables: str) -> Run:
    """Publish the five jobs and let a worker do them; ``folder`` is made with the applications in it."""
    python = python_of(library)
    copy_applications(folder)
    with serve() as sink:
        env = environment(
            sink.url, BROKER=url, OTEL_BLRP_SCHEDULE_DELAY="50", OTEL_BSP_SCHEDULE_DELAY="50", PYTHONPATH=str(folder),
            PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}", **variables,
        )  # fmt: skip
        start = [str(python.parent / "bulkscope"), "run"]
        publish = subprocess.run(
            [*start, "python", "publish.py", library.application or f"{library.name}_app"],
            cwd=folder, env=env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert publish.returncode == 0, publish.stdout + publish.stderr
        worker = subprocess.Popen(
            [*start, *(word.replace("$BROKER", url) for word in library.worker)],
            cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            # The jobs themselves, the second try, and the one that was published by another.
            expected = 6 + library.delayed + (library.own is not None) + library.greenlets
            enough = sink.wait(lambda s: len(finished(s)) >= expected)
            worker.send_signal(signal.SIGTERM)
            output = worker.communicate(timeout=60)[0]
            assert worker.returncode == 0 or not library.greenlets, output
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                output = worker.communicate()[0]
    assert enough, f"{len(finished(sink))} of {expected} jobs ended:\n{output}"
    assert "Bulkscope could not" not in output + publish.stderr, output + publish.stderr
    version = subprocess.run(
        [str(python), "-c", f"import importlib.metadata as m; print(m.version('{library.package or library.name}'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    return Run(library, version, sink, output, worker.pid, variables.get("QUEUE", "bulk"))


def finished(sink: Sink) -> set[str]:
    return {span["span_id"] for span in sink.spans if span["kind"] == CONSUMER}


def tells_that_it_began(library: Queue, url: str, folder: Path, **variables: str) -> None:
    """A worker that is killed while its first job is at work takes the batch with it, and not this word."""
    python = python_of(library)
    copy_applications(folder)
    start = [str(python.parent / "bulkscope"), "run"]
    with serve() as sink:
        env = environment(
            sink.url, BROKER=url, OTEL_BLRP_SCHEDULE_DELAY="600000", OTEL_BSP_SCHEDULE_DELAY="600000",
            PYTHONPATH=str(folder), PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}", SECONDS_OF_WORK="60",
            **variables,
        )  # fmt: skip
        publish = [*start, "python", "publish.py", library.application or f"{library.name}_app"]
        subprocess.run(publish, cwd=folder, env=env, check=True, capture_output=True, timeout=60)
        worker = subprocess.Popen(
            [*start, *(word.replace("$BROKER", url) for word in library.worker)],
            cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            told = sink.wait(
                lambda s: any(
                    (log["event"], log["attributes"].get("bulk.id")) == ("bulk.job.started", "b-ok") for log in s.logs
                )
            )
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            output = worker.communicate()[0]
    assert told, output


def a_job_that_goes_well(run: Run) -> None:
    (sent,), (done,) = run.sent("b-ok"), run.processed("b-ok")
    assert (sent["name"], done["name"]) == (f"send {run.queue}", f"process {run.queue}")
    assert (done["trace_id"], done["parent"]) == (sent["trace_id"], sent["span_id"])
    before, after = sent["attributes"], done["attributes"]
    assert before["messaging.message.id"] == before["bulk.job.id"] == after["messaging.message.id"]
    assert after["bulk.job.id"] == before["bulk.job.id"]
    assert before["bulk.task.name"] == after["bulk.task.name"]
    assert before["bulk.task.name"].rpartition(".")[2].rpartition(":")[2] == "ok"
    assert before["messaging.system"] == after["messaging.system"] == run.library.system
    assert before["messaging.destination.name"] == after["messaging.destination.name"] == run.queue
    assert (before["bulk.job.attempt"], before["bulk.job.delay"]) == (1, 0)
    assert (after["bulk.job.attempt"], after["bulk.outcome"], done["status"]) == (1, "ok", 0)
    assert 0 <= after["gen_ai.latency.time_in_queue"] < 60
    assert 0 <= after["bulk.job.wait_ratio"] <= 1
    matrix.note(run.library.name, run.version, "4", "6", "13", "3")


def what_a_job_logs_is_found_by_its_bulk(run: Run) -> None:
    (done,) = run.processed("b-ok")
    lines = [log for log in run.sink.logs if log["body"] == "working" and log["attributes"].get("bulk.id") == "b-ok"]
    assert [line["span_id"] for line in lines] == [done["span_id"]]
    assert [
        log["attributes"]["bulk.job.id"]
        for log in run.sink.logs
        if log["event"] == "bulk.job.started" and log["span_id"] == done["span_id"]
    ] == [done["attributes"]["bulk.job.id"]]


def a_job_that_fails(run: Run) -> None:
    (done,) = run.processed("b-fails")
    assert done["status"] == ERROR
    found = done["attributes"]
    assert (found["error.type"], found["bulk.failure.domain"]) == ("ConnectionError", "infra")
    assert found["bulk.outcome"] == "internal_error"
    matrix.note(run.library.name, run.version, "5")


def a_job_that_is_tried_again(run: Run) -> None:
    first, second = run.processed("b-flaky")
    assert first["attributes"]["bulk.job.id"] == second["attributes"]["bulk.job.id"]
    assert [span["attributes"]["bulk.job.attempt"] for span in (first, second)] == [1, 2]
    assert (first["attributes"]["bulk.outcome"], first["status"]) == ("retry", 0), "the job has not failed yet"
    assert first["attributes"]["bulk.failure.domain"] == "code"
    assert (second["attributes"]["bulk.outcome"], second["status"]) == ("ok", 0)
    assert first["trace_id"] == second["trace_id"], "one job, one trace"
    if run.library.wait_of_a_retry:
        assert 0 <= second["attributes"]["gen_ai.latency.time_in_queue"] < 30
    else:
        assert "gen_ai.latency.time_in_queue" not in second["attributes"], "absent is not 0"


def a_job_that_publishes_another(run: Run) -> None:
    spans = {span["span_id"]: span for span in run.sink.spans}
    inner = [span for span in run.processed("b-outer") if span["attributes"]["bulk.task.name"].endswith("ok")]
    assert len(inner) == 1, "the bulk's id is carried on"
    sent = spans[inner[0]["parent"]]
    outer = spans[sent["parent"]]
    assert (outer["kind"], outer["attributes"]["bulk.id"]) == (CONSUMER, "b-outer")
    assert outer["attributes"]["bulk.task.name"].endswith("outer")


def a_wanted_delay_is_no_wait(run: Run) -> None:
    if not run.library.delayed:
        assert run.processed("b-later") == [], "this application sends none, since its broker cannot delay"
        return
    (sent,), (done,) = run.sent("b-later"), run.processed("b-later")
    assert sent["attributes"]["bulk.job.delay"] == pytest.approx(1, abs=0.1)
    assert done["attributes"]["bulk.job.delay"] == pytest.approx(1, abs=0.1)
    assert (done["trace_id"], done["parent"]) == (sent["trace_id"], sent["span_id"])
    total = (done["start"] - sent["start"]) / 1e9
    assert done["attributes"]["gen_ai.latency.time_in_queue"] == pytest.approx(total - 1, abs=0.2)


def every_job_is_in_the_metrics(run: Run) -> None:
    names = {point["name"] for point in run.sink.points}
    assert names >= {
        "messaging.client.sent.messages", "messaging.client.consumed.messages", "messaging.process.duration",
        "messaging.client.operation.duration", "bulk.job.queue_wait", "bulk.job.wait_ratio", "bulk.worker.busy",
    }  # fmt: skip
    counts = [point["count"] for point in run.sink.points if point["name"] == "messaging.process.duration"]
    assert sum(counts) == len(finished(run.sink))
    assert not any("bulk.id" in point["attributes"] for point in run.sink.points)


def arguments_of_jobs_are_not_in_the_logs(run: Run) -> None:
    said = [log["body"] for log in run.sink.logs if "bulk_id=" in log["body"] or "'bulk_id'" in log["body"]]
    assert said == []
