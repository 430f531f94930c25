"""Depth and oldest age of queues whose client keeps its connections in a loop: BullMQ, and Taskiq on a stream."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility import five
from tests.compatibility.brokers import Brokers
from tests.compatibility.libraries import QUEUES, Queue
from tests.processes import environment
from tests.sink import Sink, serve

BULLMQ = [library for library in QUEUES if library.name == "bullmq"]
TASKIQ = next(library for library in QUEUES if library.name == "taskiq" and library.age == "newest")


def _start(library: Queue, url: str, sink: Sink, folder: Path, *words: str) -> subprocess.Popen[str]:
    python = five.python_of(library)
    env = environment(
        sink.url, BROKER=url, OTEL_METRIC_EXPORT_INTERVAL="200", SECONDS_OF_WORK="4", PYTHONPATH=str(folder),
        PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    )  # fmt: skip
    command = [str(python.parent / "bulkscope"), "run", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _values(sink: Sink, metric: str) -> list[Any]:
    return [point["value"] for point in sink.points if point["name"] == metric]


@pytest.mark.parametrize("library", BULLMQ, ids=str)
@pytest.mark.parametrize("priority", [0, 5])
def test_bullmq(library: Queue, priority: int, brokers: Brokers, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    five.copy_applications(folder)
    with brokers.fresh(library.broker) as url, serve() as sink:
        process = _start(library, url, sink, folder, "python", "bullmq_depth.py", "bulk", str(priority))
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "Bulkscope could not" not in output, output
    # One is at work, and one is not due.
    assert 4 in _values(sink, "bulk.queue.depth"), output
    ages = _values(sink, "bulk.queue.oldest_age")
    assert any(0 < age < 600 for age in ages) or priority, "that one is not due makes none older"
    assert not (priority and ages), "the jobs with priorities are not in order of age"


def test_taskiq_on_a_stream(brokers: Brokers, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    five.copy_applications(folder)
    with brokers.fresh("valkey") as url, serve() as sink:
        sent = _start(TASKIQ, url, sink, folder, "python", "publish.py", "taskiq_depth")
        assert sent.wait(60) == 0, sent.communicate()[0]
        words = ("--workers", "1", "--max-async-tasks", "1", "--max-prefetch", "1")
        worker = _start(TASKIQ, url, sink, folder, "taskiq", "worker", "taskiq_depth:broker", *words)
        try:
            seen = sink.wait(lambda s: any(1 <= each <= 4 for each in _values(s, "bulk.queue.depth")), 60)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            output = worker.communicate()[0]
    assert seen, output
    assert "Bulkscope could not" not in output, output
