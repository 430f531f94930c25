"""``python -m demo``: the whole service on this machine, and a bulk of prompts for each model.

Every part is started as its user would start it, with ``bulkscope run`` in front.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import client, models, valkey
from demo.processes import Children, Failed, Stopped, free_port
from demo.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKERS = 2
STORED_S = 60.0  # how long telemetry may take from the last job to the store
BULK_S = 900.0  # how long one bulk may take


def tell(line: str) -> None:
    """One line of progress."""
    print(line, flush=True)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("./run demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end after the reports instead of at Ctrl-C")
    parser.add_argument("--db", type=Path, help="the studio's file (default: the studio's own)")
    parser.add_argument("--port", type=int, help="port of the page (default: 8080, or a free one; 0: a free one)")
    parser.add_argument("--otlp-http-port", type=int, help="default: 4318, or a free one; 0: a free one")
    parser.add_argument("--otlp-grpc-port", type=int, help="default: 4317, or a free one; 0: a free one")
    parser.add_argument("--prompts", type=Path, default=ROOT / "demo" / "prompts.json", help="a JSON list of prompts")
    parser.add_argument("--max-tokens", type=int, default=32, help="most tokens of each answer (default: 32)")
    return parser.parse_args(argv)


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the running parts answer, and the store's file."""

    page: str
    api: str
    db: list[str]  # the option that names the store, as the bulkscope command takes it


def port(wanted: int | None, default: int, what: str) -> int:
    """Return the port asked for, or the default unless it is taken."""
    if wanted:
        return wanted
    found = free_port(default if wanted is None else 0)
    if wanted is None and found != default:
        tell(f"port {default} is taken: {what} is on {found}")
    return found


def start(given: argparse.Namespace, children: Children, folder: Path) -> Stack:
    """Start studio, Valkey, API and workers, and return when all of them answer."""
    db = ["--db", str(given.db.expanduser().absolute())] if given.db else []
    page = port(given.port, 8080, "the page")
    otlp = port(given.otlp_http_port, 4318, "OTLP over HTTP")
    grpc = port(given.otlp_grpc_port, 4317, "OTLP over gRPC")
    env = dict(os.environ) | {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }

    tell("starting the studio")
    ports = ["--port", str(page), "--otlp-http-port", str(otlp), "--otlp-grpc-port", str(grpc)]
    children.start("studio", [str(BIN / "bulkscope"), "studio", *db, *ports], env=env, cwd=ROOT, grace_s=20)
    page_url = f"http://127.0.0.1:{page}"
    children.wait("the studio", lambda: client.answers(f"{page_url}/api/bulks"), 60)
    tell(f"The page: {page_url}    (what is sent shows there while it runs)")
    models.prepare(tell)

    tell("starting Valkey")
    broker = free_port()
    children.start("valkey", valkey.command(broker, folder), env=env, cwd=folder)
    children.wait("Valkey", lambda: valkey.answers(broker), 30)

    # What the demo sends goes to the demo's studio, whatever this shell sends elsewhere.
    env = {name: value for name, value in env.items() if not name.startswith("OTEL_EXPORTER_OTLP")}
    env |= {
        "DEMO_BROKER": f"redis://127.0.0.1:{broker}/0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    tell(f"starting the API and {WORKERS} workers")
    for number in range(1, WORKERS + 1):
        node = f"worker-{number}"
        words = [
            "celery",
            "-A",
            "demo.tasks",
            "worker",
            "-n",
            f"{node}@%h",
            "-P",
            "prefork",
            "--concurrency",
            "1",
        ]
        instrumented(children, node, [*words, "--loglevel", "INFO"], env, "demo-worker", grace_s=30)
    api = free_port()
    words = ["uvicorn", "demo.app:app", "--host", "127.0.0.1", "--port", str(api)]
    instrumented(children, "api", words, env, "demo-api", grace_s=15)
    api_url = f"http://127.0.0.1:{api}"
    children.wait("the API", lambda: client.answers(f"{api_url}/healthz"), 60)
    children.wait("the workers", lambda: workers_ready(env), 60)
    return Stack(page_url, api_url, db)


def instrumented(
    children: Children, name: str, words: list[str], env: Mapping[str, str], service: str, grace_s: float
) -> None:
    """Start a command with telemetry: the one thing a user has to do."""
    words = [str(BIN / "bulkscope"), "run", *words]
    children.start(name, words, env=dict(env) | {"OTEL_SERVICE_NAME": service}, cwd=ROOT, grace_s=grace_s)


def workers_ready(env: Mapping[str, str]) -> bool:
    """Tell whether every worker answers a ping."""
    from celery import Celery

    app = Celery(broker=env["DEMO_BROKER"])
    try:
        return len(app.control.ping(timeout=0.5, limit=WORKERS)) == WORKERS
    finally:
        app.close()


def send(stack: Stack, model: str, prompts: list[str], max_tokens: int, children: Children) -> tuple[str, int]:
    """Send one bulk, show its progress to its end, and return its id and the number of failed jobs."""
    bulk_id = f"demo-{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    body = {"bulkId": bulk_id, "model": model, "prompts": prompts, "max_tokens": max_tokens}
    sent = len(client.post(f"{stack.api}/bulks", body)["jobIds"])
    tell(f"bulk {bulk_id}: {sent} jobs sent; each worker loads the model with its first job")
    progress = Progress(sent)
    state: dict[str, Any] = {}

    def over() -> bool:
        nonlocal state
        state = client.get(f"{stack.api}/bulks/{bulk_id}")
        progress.show(state["done"], state["failed"], state["running"])
        return int(state["done"]) + int(state["failed"]) >= sent

    try:
        children.wait(f"bulk {bulk_id}", over, BULK_S, every_s=1.0)
    finally:
        progress.end()
    for job in state["jobs"]:
        if job["state"] == "failed":
            tell(f"  job {job['jobId']} failed: {job['error']}")
    return bulk_id, int(state["failed"])


def stored(stack: Stack, bulk_id: str, sent: int, children: Children) -> bool:
    """Wait until the store has the end of every job; False when the time is over."""
    progress: dict[str, int] = {}

    def complete() -> bool:
        nonlocal progress
        words = [str(BIN / "bulkscope"), "report", bulk_id, "--format", "json", *stack.db]
        found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        if found.returncode == 0:
            progress = json.loads(found.stdout)["progress"]
        return progress.get("done", 0) + progress.get("failed", 0) == sent == progress.get("sent", 0)

    try:
        children.wait(f"the telemetry of {bulk_id}", complete, STORED_S, every_s=0.5)
    except Failed as failed:
        tell(f"{failed}\nin the store of {sent} jobs: {progress or 'none'}")
        return False
    return True


def shown() -> str:
    """The bulkscope command as somebody who stands in this folder writes it."""
    found = BIN / "bulkscope"
    return str(found.relative_to(ROOT)) if found.is_relative_to(ROOT) else str(found)


def compared(stack: Stack, a: str, b: str) -> bool:
    """Say in one sentence what two bulks differ in; False when there is no answer."""
    words = [str(BIN / "bulkscope"), "compare", a, b, "--format", "json", *stack.db]
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    tell("\n" + (json.loads(found.stdout)["answer"] if found.returncode == 0 else found.stderr.strip()))
    return found.returncode == 0


def run(given: argparse.Namespace, children: Children, folder: Path) -> int:
    """Run the demo; 0 when every job was done and is in the store."""
    prompts = json.loads(given.prompts.read_text())
    stack = start(given, children, folder)
    complete = True
    bulks = []
    for model in models.catalogue():
        bulk_id, failed = send(stack, model, prompts, given.max_tokens, children)
        complete &= stored(stack, bulk_id, len(prompts), children) and not failed
        bulks.append(bulk_id)
    for bulk_id in bulks:
        tell("")
        words = [str(BIN / "bulkscope"), "report", bulk_id, *stack.db]
        complete &= subprocess.run(words, check=False, cwd=ROOT).returncode == 0
    if len(bulks) > 1:
        complete &= compared(stack, bulks[0], bulks[1])
    tell("\nTo try next:")
    for words in (
        ["explain", bulks[0]],
        ["whatif", bulks[0], "--workers", str(2 * WORKERS)],
        ["sql", "SELECT model, count(*) AS jobs, avg(work_s) AS mean_s FROM jobs() GROUP BY model"],
    ):
        tell(f"  {shlex.join([shown(), *words, *stack.db])}")
    tell(f"\nThe page: {stack.page}    The API: {stack.api}/docs")
    if given.exit:
        return 0 if complete else 1
    tell("Ctrl-C ends it; what was recorded stays for the next 'bulkscope studio'.")
    try:
        while True:
            children.check()
            time.sleep(1)
    except Stopped:
        return 0 if complete else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and end everything that it started; 130 after Ctrl-C before it was over."""
    given = options(argv)
    folder = Path(tempfile.mkdtemp(prefix="bulkscope-demo-"))
    children = Children(folder)
    children.catch_signals()
    code = 1
    try:
        code = run(given, children, folder)
    except Stopped:
        code = 128 + signal.SIGINT
    except urllib.error.HTTPError as error:
        tell(f"demo: the API answered {error.code}: {error.read().decode(errors='replace')}")
    except (Failed, models.ModelMissing, valkey.NoValkey, OSError, ValueError) as error:
        tell(f"demo: {error}")
    finally:
        if not given.exit:
            tell("\nending what was started")
        try:
            children.end(tell)
        except Stopped:  # a signal on the way into end()
            children.end(tell)
    if code == 1:
        tell(f"demo: the logs of all parts are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
