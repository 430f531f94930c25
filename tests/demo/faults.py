"""The demo's parts, started one by one, so that a test can break one of them; and what explain says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bulkscope_studio.rendering import explanation as render_explain
from demo import client, models, valkey
from demo.processes import Child, Children
from tests.demo.conftest import ROOT, until
from tests.processes import BIN, free_port

MODEL = "smollm2-135m-q4_1"
Found = dict[str, Any]


def prompts(count: int) -> list[str]:
    """Return short prompts, none of them the beginning of another: nothing comes from the engine's cache."""
    return [f"{number}: write a few words about the number {number}." for number in range(1, count + 1)]


@dataclass
class Demo:
    """Studio, Valkey and API run; workers are added by the test. ``environment`` is that of workers to come."""

    folder: Path
    children: Children
    environment: dict[str, str]
    page: str
    api: str
    broker: Child
    session: httpx.Client
    workers: dict[str, Child] = field(default_factory=dict)
    warmed: int = 0  # jobs that only loaded models

    @property
    def db(self) -> Path:
        """Return the studio's file."""
        return self.folder / "store.duckdb"

    def add_worker(self, name: str, *before: str) -> Child:
        """Start a worker of one process, the words ``before`` in front, and return when it takes jobs."""
        words = [*before, str(BIN / "bulkscope"), "run", "celery", "-A", "demo.tasks", "worker", "-n", f"{name}@%h"]
        words += ["-P", "prefork", "--concurrency", "1", "--loglevel", "INFO"]
        environment = self.environment | {"OTEL_SERVICE_NAME": "demo-worker"}
        child = self.children.start(name, words, env=environment, cwd=ROOT, grace_s=10)
        self.workers[name] = child
        until(lambda: " ready." in read(child), f"{name} takes jobs")
        return child

    def add_workers(self, count: int, *before: str) -> None:
        """Start ``count`` workers as ``worker-1`` and so on, and let each load its model."""
        for number in range(1, count + 1):
            self.add_worker(f"worker-{number}", *before)
        self.warm()

    def warm(self) -> None:
        """Let every worker load the model, so that the first jobs of a test are like the others."""
        for round_ in range(5):
            bulk = f"warm-{round_}"
            self.send(bulk, prompts(2 * len(self.workers)), max_tokens=4)
            self.wait_ended(bulk, 2 * len(self.workers))
            if all(" loaded in " in read(worker) for worker in self.workers.values()):
                self.warmed = sum(len(succeeded(worker)) for worker in self.workers.values())
                return
        raise AssertionError(f"a worker took no job: the logs are in {self.folder}")

    def send(
        self, bulk: str, texts: Sequence[str], *, max_tokens: int = 16, model: str = MODEL, apart: bool = False
    ) -> list[int]:
        """Send one request with all prompts, or, ``apart``, one for each; return the answers' status codes."""
        parts = [[text] for text in texts] if apart else [list(texts)]
        # The service gives each request an id of its own: what makes them one bulk is the baggage.
        headers = {"baggage": f"bulk.id={bulk}"}
        bodies = ({"model": model, "prompts": part, "max_tokens": max_tokens} for part in parts)
        return [self.session.post(f"{self.api}/bulks", json=body, headers=headers).status_code for body in bodies]

    def explanation(self, bulk: str) -> Found | None:
        """Ask the studio; None while it knows nothing of the bulk."""
        answer = self.session.get(f"{self.page}/api/bulks/{bulk}/explain")
        return None if answer.status_code == 404 else dict(answer.raise_for_status().json())

    def wait_explained(self, bulk: str, ready: Callable[[Found], bool], what: str, seconds: float = 90) -> None:
        """Poll the explanation until ``ready``."""
        last: list[Found | None] = [None]

        def look() -> bool:
            last[0] = self.explanation(bulk)
            return last[0] is not None and ready(last[0])

        try:
            until(look, what, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{words(last[0]) if last[0] else 'nothing is known of the bulk'}") from late

    def wait_ended(self, bulk: str, jobs: int) -> None:
        """Wait until the end of every job is in the studio, and its sender's record."""

        def ready(found: Found) -> bool:
            counts = found["progress"]
            return bool(counts["done"] + counts["failed"] == jobs and evidence(found, "missing_sends")["value"] == 0)

        self.wait_explained(bulk, ready, f"{jobs} jobs of {bulk} have ended")

    def explain(self, bulk: str) -> Found:
        """Return what ``bulkscope explain`` prints, as JSON."""
        command = [str(BIN / "bulkscope"), "explain", bulk, "--format", "json", "--db", str(self.db)]
        printed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert printed.returncode == 0, printed.stderr
        return dict(json.loads(printed.stdout))


def read(child: Child) -> str:
    """Return what a process has printed."""
    return child.log.read_text(errors="replace")


def words(found: Found) -> str:
    """Return an explanation as a reader gets it, and what was held against every threshold."""
    looked = [f"{finding['code']}: {item['text']}: {item['holds']}"
              for finding in found["findings"] for item in finding["evidence"]]  # fmt: skip
    return "\n".join([render_explain.markdown(found), *found["notes"], *looked])


def finding(found: Found, code: str) -> Found:
    """Return one finding of an explanation."""
    return dict(next(item for item in found["findings"] if item["code"] == code))


def evidence(found: Found, name: str) -> Found:
    """Return the first line of evidence with that name."""
    lines = (item for finding in found["findings"] for item in finding["evidence"] if item["name"] == name)
    return dict(next(lines))


def expect(found: Found, verdict: str, *named: str) -> None:
    """Hold an explanation against its right verdict, whose text names what is to blame."""
    text = found["verdict"]["text"]
    assert found["verdict"]["code"] == verdict, words(found)
    assert [name for name in named if name not in text] == [], words(found)


@contextmanager
def running(folder: Path, extra_models: Mapping[str, Path] | None = None, **settings: str) -> Iterator[Demo]:
    """Start studio, Valkey and API on free ports; end all that the test has started."""
    known = {MODEL: str(models.catalogue()[MODEL])} | {name: str(path) for name, path in (extra_models or {}).items()}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "BULKSCOPE_", "DEMO_"))}
    kept |= {"PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
    page, otlp, broker, api = (free_port() for _ in range(4))
    environment = (
        kept
        | {
            "DEMO_BROKER": f"redis://127.0.0.1:{broker}/0",
            "DEMO_MODELS": json.dumps(known),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        | settings
    )
    children = Children(folder)
    try:
        studio = [str(BIN / "bulkscope"), "studio", "--db", str(folder / "store.duckdb"), "--port", str(page)]
        studio += ["--otlp-http-port", str(otlp), "--otlp-grpc-port", "0"]
        children.start("studio", studio, env=kept, cwd=ROOT, grace_s=20)
        server = children.start("valkey", valkey.command(broker, folder), env=kept, cwd=folder)
        until(lambda: valkey.answers(broker), "Valkey answers")
        until(lambda: client.answers(f"http://127.0.0.1:{page}/api/bulks"), "the studio answers")
        uvicorn = [str(BIN / "bulkscope"), "run", "uvicorn", "demo.app:app", "--host", "127.0.0.1", "--port", str(api)]
        service = environment | {"OTEL_SERVICE_NAME": "demo-api"}
        children.start("api", uvicorn, env=service, cwd=ROOT, grace_s=10)
        until(lambda: client.answers(f"http://127.0.0.1:{api}/healthz"), "the API answers")
        with httpx.Client(trust_env=False, timeout=30) as session:
            yield Demo(
                folder, children, environment, f"http://127.0.0.1:{page}", f"http://127.0.0.1:{api}", server, session
            )
    finally:
        children.end(print)


def kill(child: Child) -> None:
    """Kill a process and all below it, without a word to any of them."""
    top = psutil.Process(child.process.pid)
    for process in (top, *top.children(recursive=True)):
        process.kill()


def kill_below(child: Child) -> None:
    """Kill all processes below one, which lives on."""
    for process in psutil.Process(child.process.pid).children(recursive=True):
        process.kill()


def succeeded(worker: Child) -> set[str]:
    """Return the ids of the jobs that a worker has done."""
    return set(re.findall(r"Task generate\[([^]]+)\] succeeded", read(worker)))


def has_now(worker: Child) -> set[str]:
    """Return the ids of the jobs that a worker has taken and not ended."""
    return set(re.findall(r"Task generate\[([^]]+)\] received", read(worker))) - succeeded(worker)


@dataclass(frozen=True)
class MemoryGroup:
    """A memory cgroup for a test's workers; the files that v1 and v2 name differently."""

    folder: Path
    limit_file: str
    usage_file: str
    idle: str

    def enter(self) -> list[str]:
        """Return the words to put in front of a command so that it begins in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs")]

    def held(self) -> int:
        """Return the bytes in use, less the pages of files that are given back first."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        idle = next(int(line.split()[1]) for line in lines if line.split()[0] == self.idle)
        return int((self.folder / self.usage_file).read_text()) - idle

    def limit(self, size: int) -> None:
        """Let the group have ``size`` bytes, caches included."""
        (self.folder / self.limit_file).write_text(str(size))


@contextmanager
def memory_group(name: str, top: Path = Path("/sys/fs/cgroup")) -> Iterator[MemoryGroup]:
    """Make a group in the hierarchy of v1 or in that of v2; raises OSError where that is not possible."""
    if (top / "memory" / "cgroup.procs").exists():
        group = MemoryGroup(
            top / "memory" / name, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )
    else:
        group = MemoryGroup(top / name, "memory.max", "memory.current", "inactive_file")
        (top / "cgroup.subtree_control").write_text("+memory")
    group.folder.mkdir()
    try:
        if not (group.folder / group.limit_file).exists():
            raise FileNotFoundError(f"{group.folder} has no {group.limit_file}")
        yield group
    finally:
        until(lambda: not (group.folder / "cgroup.procs").read_text().strip(), "the group's processes have ended")
        group.folder.rmdir()
