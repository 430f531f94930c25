"""What a container's limits do to a worker, as the numbers show it: memory that kills, a quota that holds back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.containers import engine, images
from tests.containers.bulks import LONG_S, MODELS, eventually
from tests.containers.stack import HOST, Stack

pytestmark = pytest.mark.timeout(1800)

# A worker that takes 1 MiB each 0.2 s until its container's limit ends that: 3 % of the limit a second, so that what is
# heard of it last, up to two seconds before the end, is near the limit.
EATER = """
import sys, time
from celery import Celery
app = Celery("eater", broker=f"redis://valkey:6379/{sys.argv[-1]}")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_default_queue="eat")

@app.task(name="eat")
def eat(bulk_id):
    held = []
    while True:
        held.append(bytearray(b"x" * 2**20))
        time.sleep(0.2)

if sys.argv[1] == "send":
    eat.apply_async(kwargs={"bulk_id": sys.argv[2]})
else:
    app.worker_main(["worker", "--concurrency", "1", "--loglevel", "INFO", "-P", sys.argv[1]])
"""
# Jobs for one of the demo's models, in a queue that no other worker reads.
SENDER = """
import sys
from demo.tasks import generate
bulk, model = sys.argv[1:]
for prompt in ("Name a colour.", "Name a tree."):
    generate.apply_async(kwargs={"prompt": prompt, "bulk_id": bulk, "model": model, "max_tokens": 24})
"""


def words(stack: Stack, folder: Path, *more: str) -> list[str]:
    """Return ``docker``'s words for a container of the demo's image, with no more rights than the demo's worker has."""
    return [
        "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--init",
        "--network", stack.network("worker"), "--hostname", HOST, "--volume", f"{folder}:/mine:ro",
        "--env", "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318",
        "--env", f"OTEL_RESOURCE_ATTRIBUTES=host.name={HOST}", *more, images.pinned()["bulkscope-demo"],
    ]  # fmt: skip


@contextmanager
def worker(stack: Stack, folder: Path, options: list[str], *command: str) -> Iterator[str]:
    """Run a worker in a container of its own until the block ends; yields its name, when it is ready."""
    name = engine.docker("run", "--detach", *words(stack, folder, *options), "bulkscope", "run", *command)

    def ready() -> bool:
        said = subprocess.run(
            ["docker", "logs", name], env=engine.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if engine.docker("inspect", name, "--format", "{{.State.Running}}") == "false":
            pytest.fail(f"the worker ended: {said.stdout.decode()[-2000:]}")
        return b" ready" in said.stdout

    try:
        eventually(ready)
        yield name
    finally:
        engine.docker("rm", "--force", name)


def lost(stack: Stack, bulk: str) -> list[dict[str, Any]]:
    return eventually(lambda: stack.report(bulk)["lost"], LONG_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the image's user may read."""
    tmp_path.chmod(0o755)
    (tmp_path / "eater.py").write_text(EATER)
    (tmp_path / "sender.py").write_text(SENDER)
    return tmp_path


# Of the pool's child its parent tells. A process alone takes the container along: what is left is what it said last.
@pytest.mark.parametrize(("pool", "database", "likely"), [("prefork", "1", False), ("solo", "2", True)])
def test_a_worker_that_its_limit_killed_is_lost_for_memory(
    stack: Stack, folder: Path, pool: str, database: str, likely: bool
) -> None:
    bulk, limit = f"eaten-{pool}", 160 * 2**20
    options = ["--memory", str(limit), "--memory-swap", str(limit)]
    with worker(stack, folder, options, "python", "/mine/eater.py", pool, database):
        sent = ["bulkscope", "run", "python", "/mine/eater.py", "send", bulk, database]
        engine.docker("run", "--rm", *words(stack, folder), *sent)
        (found,) = lost(stack, bulk)
    assert (found["domain"], found["likely"]) == ("resource", likely)
    assert found["memory_limit_bytes"] == limit
    # Resident, with pages that other containers share; up to two seconds before the end.
    assert found["memory_bytes"] > limit / 2


def test_a_quota_is_the_cores_of_a_worker_and_what_it_holds_back_is_seen(stack: Stack, folder: Path) -> None:
    broker = ["--env", "DEMO_BROKER=redis://valkey:6379/3", "--env", "OTEL_SERVICE_NAME=slow-worker"]
    celery = ["celery", "-A", "demo.tasks", "worker", "-P", "prefork", "--concurrency", "1", "--loglevel", "INFO"]
    with worker(stack, folder, [*broker, "--cpus", "0.5", "--memory", "768m"], *celery):
        sent = ["bulkscope", "run", "python", "/mine/sender.py", "held-back", MODELS[0]]
        engine.docker("run", "--rm", *words(stack, folder, *broker, "--env", "PYTHONPATH=/app"), *sent)

        def whole() -> Any:
            found = stack.report("held-back")["total"]["inferences"]
            return found["count"] == 2 and found

        found = eventually(whole)
    assert found["cpu_throttled_s"] > 0
    assert found["memory_limit_bytes"] == 768 * 2**20
    assert found["cpu_exact_share"] == found["memory_exact_share"] == 1.0
    query = {"query": {"term": {"resource.attributes.service.name": "slow-worker"}}}
    spans = stack.elasticsearch("POST", "/traces-*/_search", query)["hits"]["hits"]
    cores = {span["_source"]["resource"]["attributes"].get("bulk.worker.cpus") for span in spans}
    assert 0.5 in cores
