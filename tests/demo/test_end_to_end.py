"""``python -m demo`` as a whole: studio, Valkey, API, workers, the real engine, and the store afterwards."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from bulkscope_studio.storage.store import Store
from tests.demo.conftest import ROOT, marked, until
from tests.processes import BIN, wait_for_line

pytestmark = pytest.mark.demo

PROMPTS = ["one", "two words", "a text of some length. " * 20, "four", "five", "six"]
PORTS = ["--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0"]


def environment(mark: str, folder: Path, **extra: str) -> dict[str, str]:
    """A clean environment that marks every process; what a killed demo leaves behind stays in ``folder``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "BULKSCOPE_", "DEMO_"))}
    return kept | {"DEMO_TEST_MARK": mark, "TMPDIR": str(folder), **extra}


def nothing_left(mark: str) -> None:
    """No process of the demo is alive; what still is, is named and ended."""
    left = marked(mark)
    names = [" ".join(process.cmdline()) for process in left]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    assert names == []


def rows(store: Store, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = store.query(sql).to_pylist()
    return found


@dataclass(frozen=True)
class Ran:
    """One whole run with tiny models."""

    code: int
    output: str
    db: Path
    mark: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny: Path, other_tiny: Path) -> Ran:
    folder = tmp_path_factory.mktemp("end-to-end")
    db, mark, prompts = folder / "store.duckdb", f"end-to-end-{os.getpid()}", folder / "prompts.json"
    prompts.write_text(json.dumps(PROMPTS))
    models = json.dumps({"tiny": str(tiny), "other": str(other_tiny)})
    words = ["--exit", "--db", str(db), "--prompts", str(prompts), "--max-tokens", "8", *PORTS]
    found = subprocess.run(
        [sys.executable, "-m", "demo", *words], cwd=ROOT, env=environment(mark, folder, DEMO_MODELS=models),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
    )  # fmt: skip
    return Ran(found.returncode, found.stdout, db, mark)


@pytest.fixture(scope="module")
def store(ran: Ran) -> Iterator[Store]:
    found = Store(ran.db, read_only=True)
    yield found
    found.close()


def test_it_ends_well_and_leaves_no_process(ran: Ran) -> None:
    nothing_left(ran.mark)
    assert ran.code == 0, ran.output
    assert ran.output.count(f"{len(PROMPTS)} of {len(PROMPTS)} jobs done") == 2


def test_it_names_the_page_first_and_what_to_do_last(ran: Ran) -> None:
    page, bulk = ran.output.index("The page: http://127.0.0.1:"), ran.output.index("jobs sent")
    assert page < bulk
    answer = subprocess.run(
        [BIN / "bulkscope", "compare", *re.findall(r"^bulk (\S+):", ran.output, re.MULTILINE), "--format", "json",
         "--db", ran.db], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"\n{json.loads(answer.stdout)['answer']}\n" in ran.output
    commands = re.findall(r"^  (\S*bulkscope .*)$", ran.output, re.MULTILINE)
    assert [shlex.split(each)[1] for each in commands] == ["explain", "whatif", "sql"]
    for each in commands:
        found = subprocess.run(shlex.split(each), cwd=ROOT, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr


def test_a_bar_renews_itself_on_a_terminal_and_lines_stay_elsewhere() -> None:
    code = (
        "from demo.progress import Progress; p = Progress(24)\n"
        "for n in range(25): p.show(n, 0, 2)\n"
        "p.end()"
    )  # fmt: skip
    words = [sys.executable, "-c", code]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 13
    assert lines[-1] == "  24 of 24 jobs done, 2 running"
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, cwd=ROOT, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert text.count("\r\n") == 1
    assert "[########################] 24 of 24 jobs done" in text


def test_every_job_is_in_the_store_with_its_wait(ran: Ran, store: Store) -> None:
    jobs = rows(store, "SELECT * FROM spans WHERE kind = 'CONSUMER'")
    assert len(jobs) == 2 * len(PROMPTS), ran.output
    assert len({job["job_id"] for job in jobs}) == len(jobs)
    assert {job["queue"] for job in jobs} == {"prompts"}
    assert {job["task"] for job in jobs} == {"generate"}
    assert {job["service_name"] for job in jobs} == {"demo-worker"}
    for job in jobs:
        assert job["status"] != "ERROR"
        assert job["attempt"] == 1
        assert job["wait"] >= 0
        assert 0 <= job["wait_ratio"] <= 1


def test_every_inference_has_tokens_cpu_and_memory(store: Store) -> None:
    inferences = rows(store, "SELECT * FROM spans WHERE output_tokens IS NOT NULL")
    assert len(inferences) == 2 * len(PROMPTS)
    assert {span["model"] for span in inferences} == {"tiny", "other"}
    for span in inferences:
        assert span["kind"] == "INTERNAL"
        assert 1 <= span["output_tokens"] <= 8
        assert span["cpu_time"] > 0
        assert span["memory_peak"] >= span["memory_start"] > 0
        assert span["memory_growth"] == span["memory_peak"] - span["memory_start"]
        assert span["cpu_exact"] is not None
        assert span["memory_exact"] is not None
        assert span["tokens_per_second"] > 0
        assert span["prefill"] > 0
    # The begin of the text, then one token a byte.
    assert {span["input_tokens"] for span in inferences} >= {len(text) + 1 for text in PROMPTS if " " not in text}


def test_each_job_hangs_below_its_request(store: Store) -> None:
    spans = {span["span_id"]: span for span in rows(store, "SELECT * FROM spans")}
    inferences = [span for span in spans.values() if span["output_tokens"] is not None]
    assert inferences
    for span in inferences:
        job = spans[span["parent_span_id"]]
        sent = spans[job["parent_span_id"]]
        request = spans[sent["parent_span_id"]]
        assert [step["kind"] for step in (request, sent, job, span)] == [
            "SERVER",
            "PRODUCER",
            "CONSUMER",
            "INTERNAL",
        ]
        assert (request["http_method"], request["http_route"], request["http_status"]) == (
            "POST",
            "/bulks",
            202,
        )
        assert request["service_name"] == "demo-api"
        assert request["parent_span_id"] is None
        assert len({step["trace_id"] for step in (request, sent, job, span)}) == 1
        assert len({step["bulk_id"] for step in (request, sent, job, span)}) == 1
        assert sent["job_id"] == job["job_id"] == span["job_id"] is not None
        assert request["bulk_size"] == len(PROMPTS)
        assert request["start_ns"] <= sent["start_ns"] <= job["start_ns"] <= span["start_ns"]
        assert span["end_ns"] <= job["end_ns"]


def test_every_span_and_record_of_a_job_knows_its_bulk(store: Store) -> None:
    of_jobs = rows(store, "SELECT * FROM spans WHERE kind IN ('PRODUCER', 'CONSUMER', 'INTERNAL')")
    assert of_jobs
    assert all(span["bulk_id"] and span["job_id"] for span in of_jobs)
    job_of_trace = "(SELECT span_id FROM spans WHERE kind IN ('CONSUMER', 'INTERNAL'))"
    records = rows(store, f"SELECT * FROM logs WHERE span_id IN {job_of_trace}")
    assert all(record["bulk_id"] and record["job_id"] for record in records)
    written = [record for record in records if "tokens in" in (record["body"] or "")]
    assert len(written) == 2 * len(PROMPTS), "the task's own log line, once a job"
    started = rows(store, "SELECT DISTINCT job_id FROM logs WHERE event_name = 'bulk.job.started'")
    assert len(started) == 2 * len(PROMPTS)


def test_no_prompt_and_no_answer_is_recorded(ran: Ran) -> None:
    # The file holds its strings compressed, so what is asked is every row as text.
    found = Store(ran.db, read_only=True)
    try:
        for table in ("spans", "logs", "points", "resources"):
            hits = rows(
                found,
                f"SELECT count(*) AS hits FROM {table} AS t WHERE CAST(t AS VARCHAR) LIKE '%a text of some%'",
            )
            assert hits == [{"hits": 0}], table
        # Celery's own line about a finished task holds its result.
        lines = rows(found, "SELECT body FROM logs WHERE contains(body, ' succeeded in ')")
        assert len(lines) == 2 * len(PROMPTS)
        assert all(line["body"].endswith(": (not recorded)") for line in lines), lines
    finally:
        found.close()


def test_metrics_of_workers_and_host_are_there(store: Store) -> None:
    names = {row["name"] for row in rows(store, "SELECT DISTINCT name FROM points")}
    assert names >= {
        "http.server.request.duration", "messaging.process.duration", "bulk.job.queue_wait",
        "gen_ai.client.operation.duration", "gen_ai.client.token.usage", "bulk.inference.cpu.time",
        "bulk.inference.memory.peak", "process.cpu.utilization", "process.memory.usage",
        "system.cpu.utilization", "system.memory.utilization",
    }  # fmt: skip


def test_an_interrupt_in_the_middle_leaves_no_process_and_a_readable_store(tmp_path: Path, tiny: Path) -> None:
    db, mark, prompts = tmp_path / "store.duckdb", f"interrupt-{os.getpid()}", tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["text " * 2000] * 200))
    env = environment(mark, tmp_path, DEMO_MODELS=json.dumps({"tiny": str(tiny)}), DEMO_CONTEXT="16384")
    words = ["--db", str(db), "--prompts", str(prompts), "--max-tokens", "4000", *PORTS]
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *words], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_line(process, "200 jobs sent")
        assert len(marked(mark)) >= 6, "demo, studio, Valkey, API and two workers run"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
        nothing_left(mark)
    assert process.returncode == 128 + signal.SIGINT, rest
    found = Store(db, read_only=True)
    try:
        assert rows(found, "SELECT count(*) AS sent FROM spans WHERE kind = 'PRODUCER'") == [{"sent": 200}]
    finally:
        found.close()


def test_a_killed_demo_takes_its_processes_along(tmp_path: Path, tiny: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent has been killed")
    mark = f"killed-{os.getpid()}"
    env = environment(mark, tmp_path, DEMO_MODELS=json.dumps({"tiny": str(tiny)}))
    words = ["--db", str(tmp_path / "store.duckdb"), *PORTS]
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *words], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_line(process, "jobs sent")
        process.kill()
        process.wait()
        until(lambda: not marked(mark), "every process ended")
    finally:
        process.kill()
        nothing_left(mark)


@pytest.mark.timeout(600)
def test_the_demo_with_the_real_models(tmp_path: Path) -> None:
    db, mark = tmp_path / "store.duckdb", f"demo-{os.getpid()}"
    found = subprocess.run(
        [sys.executable, "-m", "demo", "--exit", "--db", str(db), *PORTS], cwd=ROOT,
        env=environment(mark, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    nothing_left(mark)
    assert found.returncode == 0, found.stdout
    sent = len(json.loads((ROOT / "demo" / "prompts.json").read_text()))
    store = Store(db, read_only=True)
    try:
        jobs = rows(
            store,
            "SELECT bulk_id, count(DISTINCT job_id) AS jobs FROM spans WHERE kind = 'CONSUMER' GROUP BY 1",
        )
        workers = rows(store, "SELECT DISTINCT service_instance_id FROM spans WHERE kind = 'CONSUMER'")
        models = rows(store, "SELECT DISTINCT model FROM spans WHERE output_tokens > 0 ORDER BY 1")
    finally:
        store.close()
    assert sorted(job["jobs"] for job in jobs) == [sent, sent]
    assert len(workers) == 2
    assert [row["model"] for row in models] == ["smollm2-135m-q4_1", "smollm2-135m-q8_0"]
