"""``/api/v1`` of a running studio: the same numbers as the report, of one size, and cheap where nothing has changed."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from bulkscope_studio.server import v1
from bulkscope_studio.server.v1.events import EVERY_S
from bulkscope_studio.services import explanations, listing, overtime, records
from bulkscope_studio.services.endings import Ends
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import MAX_READS, Store
from tests.processes import BIN, PATIENCE_S, wait_for_line
from tests.rows import BEGIN_NS, SECOND, add, span
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

JOBS = 24
READ: dict[str, Callable[[io.BytesIO], pa.Table]] = {
    "csv": pa.csv.read_csv,
    "parquet": pa.parquet.read_table,
    "arrow": lambda body: pa.ipc.open_stream(body).read_all(),
    "jsonl": pa.json.read_json,
}
ODD = ("a/b", "a\nb", "..", "a?b=c", "%0A", "😀", "'; DROP TABLE spans", "<b>x</b>", "a/jobs")


@dataclass(frozen=True)
class Running:
    db: Path
    at: Addresses
    http: httpx.Client

    def get(self, path: str, code: int = 200, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        answer = self.http.get(f"/api/v1{path}", params=given or None)
        assert answer.status_code == code, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    db = tmp_path_factory.mktemp("v1") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), jobs=JOBS)
    later = BEGIN_NS + 7200 * SECOND
    fill(store.connection(), bulks=1, jobs=600, workers=9, seed=8, start_ns=later, faults=False)
    for name, time_ns in (("spans", "start_ns"), ("logs", "time_ns")):
        store.connection().execute(
            f"UPDATE {name} SET bulk_id = 'large', job_id = 'large-' || job_id"
            f" WHERE bulk_id = 'sample-001' AND {time_ns} >= $1",
            [later],
        )
    odd = [
        span("CONSUMER", BEGIN_NS, BEGIN_NS + SECOND, trace_id=f"{0xABC000 + n:032x}", span_id=f"{0xABC000 + n:016x}",
             bulk_id=name, job_id="j", wait=0.1)
        for n, name in enumerate(ODD)
    ]  # fmt: skip
    add(store.connection(), "spans", odd)
    store.close()
    with (
        studio(db, "--no-host", "--retention", "9000d") as at,
        httpx.Client(base_url=at.web, timeout=PATIENCE_S) as http,
    ):
        yield Running(db, at, http)


def command(running: Running, *words: str) -> Any:
    said = [BIN / "bulkscope", *words, "--db", running.db, "--format", "json"]
    found = subprocess.run(said, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(found.stdout)


def test_it_says_what_the_commands_say(running: Running) -> None:
    assert running.get("/bulks/sample-001/report") == command(running, "report", "sample-001")
    assert running.get("/bulks/sample-001/explanation") == command(running, "explain", "sample-001")
    assert running.get("/compare", a="sample-001", b="sample-002") == command(
        running, "compare", "sample-001", "sample-002"
    )
    assert running.get("/capacity", bulk="sample-001") == command(running, "capacity", "sample-001")
    (pool, *_) = command(running, "capacity", "sample-001", "--slo", "20s", "--rate", "0.5")["pools"]
    curve = running.get("/capacity/curve", bulk="sample-001", target="20s", rate=0.5)
    assert {name: curve["today"][name] for name in pool["forecast"]} == pool["forecast"]
    own = next(each for each in curve["curves"] if each["asked"])
    assert own["highest_rate_per_s"] == (pool["highest_rate"] or {"rate_per_s": None})["rate_per_s"]


def test_bulks_are_searched_filtered_sorted_and_come_in_pages(running: Running) -> None:
    every = running.get("/bulks", limit=500)
    names = [row["id"] for row in every["bulks"]]
    assert every["total"] == len(names) >= 3 + len(ODD)
    listed = {row["id"]: row for row in command(running, "bulks")}
    for row in every["bulks"]:
        known = listed[row["id"]]
        for ours, theirs in (
            ("start_ns", "start_ns"), ("end_ns", "end_ns"), ("done_jobs", "done"), ("failed_jobs", "failed"),
            ("models", "models"), ("took_s", "duration_s"),
        ):  # fmt: skip
            assert row[ours] == known[theirs]
    assert {row["id"] for row in running.get("/bulks", search="SAMPLE")["bulks"]} >= {"sample-001", "sample-002"}
    assert running.get("/bulks", search="%")["bulks"][0]["id"] == "%0A"
    model = every["bulks"][names.index("sample-001")]["models"][0]
    of_model = running.get("/bulks", model=model, limit=500)["bulks"]
    assert [row["id"] for row in of_model] == [row["id"] for row in every["bulks"] if model in row["models"]]
    assert running.get("/bulks", host="nowhere") == {
        "asked": {"host": "nowhere", "sort": "-start_ns", "limit": 50, "offset": 0},
        "total": 0, "looked_at": None, "verdicts_pending": 0, "bulks": [],
    }  # fmt: skip
    worker = running.get("/bulks/sample-001/jobs", limit=1)["jobs"][0]["worker"]
    assert "sample-001" in [row["id"] for row in running.get("/bulks", worker=worker)["bulks"]]
    took = [row["took_s"] for row in running.get("/bulks", sort="-took_s", limit=500)["bulks"]]
    assert took == sorted(took, reverse=True)
    pages = [running.get("/bulks", sort="id", limit=2, offset=at) for at in range(0, every["total"] + 2, 2)]
    assert [row["id"] for page in pages for row in page["bulks"]] == sorted(names)
    assert {page["total"] for page in pages} == {every["total"]}
    failed = running.get("/bulks", failed="true", limit=500)["bulks"]
    assert (
        {row["id"] for row in failed} == {row["id"] for row in every["bulks"] if row["failed_jobs"]} >= {"sample-001"}
    )
    later = running.get("/bulks", since_ns=BEGIN_NS + 7000 * SECOND, limit=500)["bulks"]
    assert {row["id"] for row in later} == {
        row["id"] for row in every["bulks"] if row["end_ns"] >= BEGIN_NS + 7000 * SECOND
    }
    assert {row["state"] for row in running.get("/bulks", state="complete", limit=500)["bulks"]} == {"complete"}


def test_the_list_has_the_numbers_of_the_report(running: Running) -> None:
    rows = running.get("/bulks", limit=500)["bulks"]
    for row in rows:
        total = running.get(f"/bulks/{quote(row['id'], safe='').replace('.', '%2E')}/report")["total"]
        jobs, work = total["jobs"], total["inferences"]
        for column, number in (
            ("wait_p95_s", jobs["wait_s"] and jobs["wait_s"]["p95"]),
            ("work_p95_s", jobs["process_s"] and jobs["process_s"]["p95"]),
            ("tokens_per_s", work["tokens_per_s"]), ("output_tokens", work["output_tokens"]),
        ):  # fmt: skip
            assert row[column] == (None if number is None else pytest.approx(number, rel=1e-9)), (row["id"], column)
    assert sum(row["tokens_per_s"] is not None for row in rows) >= 3
    for column in ("wait_p95_s", "work_p95_s", "tokens_per_s"):
        values = [row[column] for row in running.get("/bulks", sort=f"-{column}", limit=500)["bulks"]]
        told = [value for value in values if value is not None]
        assert values[: len(told)] == told == sorted(told, reverse=True)


def test_all_bulks_that_fit_come_as_a_file(running: Running) -> None:
    asked = {"sort": "-took_s", "search": "sample"}
    page = running.get("/bulks", **asked, limit=1)
    assert page["total"] >= 2
    rows = running.get("/bulks", **asked, limit=500)["bulks"]
    for kind, read in READ.items():
        answer = running.http.get("/api/v1/bulks", params={**asked, "limit": 1, "format": kind})
        assert f"bulks.{kind}" in answer.headers["content-disposition"]
        table = read(io.BytesIO(answer.content))
        assert table["id"].to_pylist() == [row["id"] for row in rows], kind
        assert table["work_p95_s"].to_pylist() == pytest.approx([row["work_p95_s"] for row in rows])
        models = [", ".join(row["models"]) if kind == "csv" else row["models"] for row in rows]
        assert table["models"].to_pylist() == models
        verdicts = [running.get(f"/bulks/{row['id']}/explanation")["verdict"]["code"] for row in rows]
        assert table["verdict"].to_pylist() == verdicts
    one = running.http.get("/api/v1/bulks", params={**asked, "verdict": verdicts[0], "format": "parquet"})
    found = pa.parquet.read_table(io.BytesIO(one.content))
    assert found["id"].to_pylist() == [
        row["id"] for row, code in zip(rows, verdicts, strict=True) if code == verdicts[0]
    ]


def test_a_verdict_is_that_of_the_explanation_and_filters(running: Running) -> None:
    def all_known() -> list[dict[str, Any]]:
        found = running.get("/bulks", limit=500)
        return list(found["bulks"]) if not found["verdicts_pending"] else []

    rows: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_S
    while not rows and time.monotonic() < deadline:
        rows = all_known()
    of = {row["id"]: row["verdict"] for row in rows}
    for name in ("sample-001", "sample-002", "large", "a/b"):
        verdict = running.get(f"/bulks/{quote(name, safe='')}/explanation")["verdict"]
        assert of[name] == {"code": verdict["code"], "title": verdict["title"]}
        assert running.get(f"/bulks/{quote(name, safe='')}/summary")["verdict"] == of[name]
    code = of["sample-001"]["code"]
    assert {"name": code, "title": of["sample-001"]["title"]} in running.get("/verdicts")
    found = running.get("/bulks", verdict=code, limit=500)
    assert {row["id"] for row in found["bulks"]} == {name for name, verdict in of.items() if verdict["code"] == code}
    assert found["looked_at"] == len(rows)


@pytest.mark.parametrize("name", ["sample-001", "sample-002", "large"])
def test_jobs_add_up_to_the_report(running: Running, name: str) -> None:
    report = running.get(f"/bulks/{name}/report")
    found = running.get(f"/bulks/{name}/jobs", limit=1000)
    jobs = found["jobs"]
    assert found["total"] == len(jobs)
    by_status = {status: sum(job["status"] == status for job in jobs) for status in ("done", "failed", "waiting")}
    progress = report["progress"]
    assert by_status == {key: progress[key] for key in by_status}
    assert sum(job["attempts"] for job in jobs) == report["total"]["jobs"]["attempts"]
    total = report["total"]["inferences"]
    for column, number in (("output_tokens", "output_tokens"), ("input_tokens", "input_tokens"), ("cpu_s", "cpu_s")):
        # A retried attempt's inferences are in the report, and not its job's.
        if all(job["attempts"] == 1 for job in jobs):
            assert sum(job[column] or 0 for job in jobs) == pytest.approx(total[number])
    assert max(job["ended_ns"] for job in jobs) <= report["end_ns"]
    done = [job for job in jobs if job["status"] == "done"]
    assert all(job["excess_s"] == pytest.approx(job["work_s"] - job["expected_s"]) for job in done)
    # Half of the jobs of a model take longer than usual.
    for model in {job["model"] for job in done}:
        longer = [job["excess_s"] > 0 for job in done if job["model"] == model]
        assert 0.3 * len(longer) <= sum(longer) <= 0.7 * len(longer)


def test_jobs_are_filtered_sorted_and_exported(running: Running) -> None:
    path = "/bulks/sample-001/jobs"
    every = running.get(path, limit=1000)["jobs"]
    for column in ("work_s", "wait_s", "excess_s", "output_tokens", "cpu_s", "memory_peak_bytes"):
        values = [job[column] for job in running.get(path, sort=f"-{column}", limit=1000)["jobs"]]
        told = [value for value in values if value is not None]
        assert told == sorted(told, reverse=True)
        assert values[: len(told)] == told
    some = running.http.get(f"/api/v1{path}?where=work_s>1&where=output_tokens<=50&status=done").json()
    wanted = [
        job["id"] for job in every
        if job["status"] == "done" and job["work_s"] > 1 and job["output_tokens"] and job["output_tokens"] <= 50
    ]  # fmt: skip
    assert (some["total"], [job["id"] for job in some["jobs"]]) == (len(wanted), wanted)
    (failed,) = running.get(path, status="failed")["jobs"]
    assert failed["failure_domain"] == "model"
    kinds = {}
    for kind in READ:
        answer = running.http.get(f"/api/v1{path}", params={"format": kind, "sort": "-work_s", "status": "done"})
        kinds[kind] = READ[kind](io.BytesIO(answer.content))
        assert f"sample-001.{kind}" in answer.headers["content-disposition"]
    ids = [job["id"] for job in running.get(path, sort="-work_s", status="done", limit=1000)["jobs"]]
    for kind, table in kinds.items():
        assert table["id"].to_pylist() == ids, kind
        assert table.column_names == list(every[0])
    lines = running.http.get(f"/api/v1{path}", params={"format": "jsonl", "sort": "-work_s", "status": "done"}).text
    rows = running.get(path, sort="-work_s", status="done", limit=1000)["jobs"]
    assert [json.loads(line) for line in lines.splitlines()] == rows


def test_jobs_of_a_time_are_those_that_were_at_work_in_it(running: Running) -> None:
    every = running.get("/bulks/large/jobs", limit=1000)["jobs"]
    first = min(job["started_ns"] for job in every)
    last = max(job["ended_ns"] for job in every if job["ended_ns"] is not None)
    low, high = first + (last - first) // 3, first + (last - first) // 2

    def ids(**params: Any) -> set[str]:
        return {job["id"] for job in running.get("/bulks/large/jobs", limit=1000, **params)["jobs"]}

    begun = [job for job in every if job["started_ns"] is not None]
    until = {job["id"]: job["ended_ns"] if job["ended_ns"] is not None else 2**62 for job in begun}
    some = {job["id"] for job in begun if job["started_ns"] <= high and until[job["id"]] >= low}
    assert ids(from_ns=low, to_ns=high) == some
    assert 0 < len(some) < len(every)
    assert ids(from_ns=low) == {job["id"] for job in begun if until[job["id"]] >= low}
    assert ids(to_ns=high) == {job["id"] for job in begun if job["started_ns"] <= high}
    assert ids(from_ns=first, to_ns=last) == {job["id"] for job in begun}


def test_workers_come_in_pages_and_are_those_of_the_report(running: Running) -> None:
    whole = running.get("/bulks/large/report")
    lean = running.get("/bulks/large/report", workers="false")
    assert lean == {name: of for name, of in whole.items() if name != "workers"}
    found = running.get("/bulks/large/workers")
    hosts = {job["worker"]: job["host"] for job in running.get("/bulks/large/jobs", limit=1000)["jobs"]}
    assert found["total"] == len(whole["workers"]) > 1
    assert found["workers"] == [group | {"host": hosts[group["name"]]} for group in whole["workers"]]
    turned = running.get("/bulks/large/workers", sort="-work_p95_s")["workers"]
    work = [group["jobs"]["process_s"]["p95"] for group in turned]
    assert work == sorted(work, reverse=True)
    pages = [running.get("/bulks/large/workers", sort="-work_p95_s", limit=2, offset=at) for at in range(0, 20, 2)]
    assert [group for page in pages for group in page["workers"]] == turned
    assert "sort by one of" in running.get("/bulks/large/workers", 400, sort="colour")["error"]
    assert running.get("/bulks/lagre/workers", 404)["nearest"][0] == "large"


def test_the_thirteen_numbers_are_told_with_their_definitions(running: Running) -> None:
    found = running.get("/numbers")
    assert [row["number"] for row in found] == list(range(1, 14))
    document = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    for row in found:
        assert f"| {row['number']} | {row['name']} | {row['definition']} |" in document


def test_one_job_has_its_attempts_waits_and_log(running: Running) -> None:
    retried = next(job for job in running.get("/bulks/sample-001/jobs", limit=1000)["jobs"] if job["attempts"] > 1)
    found = running.get("/bulks/sample-001/job", id=retried["id"])
    assert found["job"] == retried
    assert [(row["attempt"], row["decides"]) for row in found["attempts"]] == [(1, False), (2, True)]
    for row in found["attempts"]:
        assert sum(row["wait_by_cause_s"].values()) == pytest.approx(row["wait_s"], abs=1e-3)
    assert {row["trace_id"] for row in found["inferences"]} == {retried["trace_id"]}
    assert all(line["job"] == retried["id"] for line in found["logs"])
    explained = running.get("/bulks/sample-001/explanation")["time_s"]
    waits = [
        running.get("/bulks/sample-001/job", id=job["id"])["attempts"]
        for job in running.get("/bulks/sample-001/jobs", limit=1000)["jobs"]
    ]
    own = sum(row["wait_by_cause_s"]["own"] for rows in waits for row in rows)
    assert own == pytest.approx(explained["wait_own"])


def test_over_time_is_of_one_size_and_adds_up(running: Running) -> None:
    sizes = {}
    for name in ("sample-001", "large"):
        jobs = running.get(f"/bulks/{name}/jobs", limit=1000)["jobs"]
        found = running.get(f"/bulks/{name}/overtime", bins=200, lanes=2)
        sizes[name] = len(json.dumps(found))
        states = found["jobs"]
        assert {len(values) for values in states.values()} == {200}
        assert states["done"] == sorted(states["done"])
        assert (states["done"][-1], states["failed"][-1]) == tuple(
            sum(job["status"] == status for job in jobs) for status in ("done", "failed")
        )
        assert min(map(min, states.values())) >= 0
        assert sum(lane["jobs"] for lane in found["lanes"]) == sum(job["attempts"] for job in jobs)
        if all(job["attempts"] == 1 for job in jobs):
            worked = sum(sum(lane["busy"]) for lane in found["lanes"]) * found["bin_s"]
            assert worked == pytest.approx(sum(job["work_s"] for job in jobs), rel=0.01)
        assert len(found["lanes"]) <= 2
    assert sizes["large"] < 1.3 * sizes["sample-001"]
    whole = running.get("/bulks/large/overtime", bins=10)
    middle = (whole["from_ns"] + whole["to_ns"]) // 2
    zoomed = running.get("/bulks/large/overtime", bins=5, to_ns=middle)
    for state, values in zoomed["jobs"].items():
        assert values[-1] == pytest.approx(whole["jobs"][state][4], abs=1)
    assert "before to_ns" in running.get("/bulks/large/overtime", 400, from_ns=middle, to_ns=middle)["error"]


def test_over_time_shows_each_attempt_however_short(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    hour, milli = 3600 * SECOND, SECOND // 1000
    own = {"bulk_id": "mine", "trace_id": "t", "host_name": "h", "pid": 1}
    moments = [(0, milli), (3 * hour + 7 * SECOND, milli), (6 * hour, 0), (9 * hour, milli), (10 * hour - milli, milli)]
    add(store.connection(), "spans", [
        span("CONSUMER", BEGIN_NS + at, BEGIN_NS + at + took, span_id=f"{n}", job_id=f"j{n}", **own)
        for n, (at, took) in enumerate(moments)
    ])  # fmt: skip
    (lane,) = overtime.overtime(store, "mine", 100)["lanes"]
    store.close()
    assert [n for n, busy in enumerate(lane["busy"]) if busy] == [0, 30, 60, 90, 99]


def test_what_ran_in_a_time_is_what_the_bulk_says(running: Running) -> None:
    report = running.get("/bulks/large/report")
    found = running.get("/live", from_ns=report["start_ns"], to_ns=report["end_ns"] + 1, bins=20)
    done = sum(found["jobs"]["done_per_s"]) * found["bin_s"]
    assert done == pytest.approx(report["progress"]["done"], rel=1e-3)
    assert found["bulks"][0] == {key: running.get("/bulks/large/summary")[key] for key in found["bulks"][0]}
    machine = running.get("/bulks/large/machine", bins=20)
    tokens = sum(machine["tokens"]["output_per_s"]) * machine["bin_s"]
    assert tokens == pytest.approx(report["total"]["inferences"]["output_tokens"], rel=1e-3)


def test_failures_are_grouped_with_an_example(running: Running) -> None:
    report = running.get("/bulks/sample-001/report")["total"]["jobs"]
    found = running.get("/bulks/sample-001/failures")
    domains: dict[str, int] = {}
    for group in found["failures"]:
        domains[group["failure_domain"]] = (
            domains.get(group["failure_domain"], 0) + group["attempts"] - group["retried_attempts"]
        )
        job = running.get("/bulks/sample-001/job", id=group["example"]["job"])["job"]
        assert job["id"] == group["example"]["job"]
    assert {name: count for name, count in domains.items() if count} == report["failures_by_domain"]
    assert running.get("/failures")["attempts"] >= found["attempts"] > 0
    assert running.get("/failures", since_ns=BEGIN_NS + 3600 * SECOND)["failures"] == []


def test_traces_spans_logs_and_search(running: Running) -> None:
    job = running.get("/bulks/sample-001/jobs", limit=1)["jobs"][0]
    trace = running.get(f"/traces/{job['trace_id']}")
    assert trace["total"] == len(trace["spans"])
    assert job["span_id"] in {row["span_id"] for row in trace["spans"]}
    whole = running.get(f"/traces/{job['trace_id']}/spans/{job['span_id']}")
    assert (whole["job_id"], whole["kind"]) == (job["id"], "CONSUMER")
    assert running.get("/traces/none", 404)["do"]
    newest = running.get("/logs", limit=5)["logs"]
    times = [row["time_ns"] for row in newest]
    assert times == sorted(times, reverse=True)
    tail = running.get("/logs", after_ns=times[-1], limit=1000)["logs"]
    assert [row["time_ns"] for row in tail] == sorted(row["time_ns"] for row in tail)
    assert all(row["time_ns"] > times[-1] for row in tail)
    bad = running.get("/logs", severity="error", limit=1000)["logs"]
    assert all(row["severity_number"] >= 17 for row in bad)
    assert "one of trace" in running.get("/logs", 400, severity="loud")["error"]
    word = next(row["body"] for row in newest if row["body"])[:12]
    assert all(word.lower() in row["body"].lower() for row in running.get("/logs", text=word)["logs"])
    for text, kind in (
        (job["id"], "job"), (job["trace_id"], "trace"), (job["span_id"], "span"), ("sample-001", "bulk"),
        (job["worker"], "worker"),
    ):  # fmt: skip
        first = running.get("/search", text=text)["found"][0]
        assert (first["kind"], first["id"]) == (kind, text)
    assert running.get("/search", text="zzz")["found"] == []


def test_models_runs_and_notes(running: Running) -> None:
    models = running.get("/models")
    assert models["sampled_share"] == 1
    assert {model["name"] for model in models["models"]} >= {"smollm2-135m-q4_1", "smollm2-135m-q8_0"}
    assert running.get("/runs") == []
    kept = running.http.post("/api/v1/runs", json={"name": "week.1", "bulks": ["sample-001"], "note": "before"})
    assert (kept.status_code, kept.json()["note"]) == (200, "before")
    again = running.http.post("/api/v1/runs", json={"name": "week.1", "bulks": ["sample-001"]})
    assert again.status_code == 409

    def listed() -> dict[str, Any]:
        rows = running.get("/bulks", limit=500)["bulks"]
        assert running.get("/bulks/sample-001/summary")["kept"] == named(rows)["sample-001"]
        return named(rows)

    def named(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {row["id"]: row["kept"] for row in rows}

    assert listed() == {name: [] for name in listed()} | {"sample-001": [{"name": "week.1", "note": "before"}]}
    noted = running.http.patch("/api/v1/runs/week.1", json={"note": "after <b>"})
    assert (noted.status_code, running.get("/runs/week.1")["note"]) == (200, "after <b>")
    assert listed()["sample-001"] == [{"name": "week.1", "note": "after <b>"}]
    # What was kept is what it was.
    assert running.get("/compare", a="week.1", b="sample-001")["rows"] == []
    form = running.http.post("/api/v1/runs", data={"name": "x"})
    assert form.status_code in (400, 415)
    assert running.http.patch("/api/v1/runs/week.1", json={"note": "x" * 20_000}).status_code == 400
    assert running.http.delete("/api/v1/runs/week.1").json() == {"dropped": "week.1"}
    assert listed()["sample-001"] == []
    assert running.get("/runs/week.1", 404)["do"]


@pytest.mark.parametrize("name", ODD)
def test_a_bulk_may_be_called_anything(running: Running, name: str) -> None:
    raw = quote(name, safe="").replace(".", "%2E")
    assert running.get(f"/bulks/{raw}/summary")["id"] == name
    for what in ("report", "explanation", "jobs", "overtime", "machine", "failures"):
        running.get(f"/bulks/{raw}/{what}")
    assert running.get(f"/bulks/{raw}/job", id="j")["job"]["id"] == "j"
    assert running.get(f"/bulks/{raw}no/summary", 404)["id"] == name + "no"


def test_nothing_new_costs_no_transfer_and_much_is_compressed(running: Running) -> None:
    for path in ("/bulks", "/bulks/large/jobs?limit=1000", "/bulks/large/overtime", "/bulks/large/explanation"):
        plain = running.http.get(f"/api/v1{path}", headers={"accept-encoding": "identity"})
        packed = running.http.get(f"/api/v1{path}", headers={"accept-encoding": "gzip"})
        assert plain.headers["etag"] == packed.headers["etag"]
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(plain.content)
        assert packed.content == plain.content
        same = running.http.get(f"/api/v1{path}", headers={"if-none-match": plain.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        other = running.http.get(f"/api/v1{path}", headers={"if-none-match": '"else"'})
        assert other.status_code == 200


def test_errors_are_json_and_say_what_to_do(running: Running) -> None:
    for path, status in (
        ("/nothing", 404), ("/bulks/none/report", 404), ("/bulks/none/jobs", 404), ("/bulks?limit=many", 400),
        ("/bulks?limit=0", 400), ("/bulks?sort=colour", 400), ("/bulks?state=odd", 400), ("/search?text=%20", 400),
        ("/bulks/sample-001/jobs?where=work_s", 400), ("/bulks/sample-001/jobs?format=xls", 400), ("/search", 400),
        ("/bulks/sample-001/job?id=none", 404), ("/capacity?bulk=sample-001&rate=-1", 400), ("/compare?a=x", 400),
        ("/bulks/sample-001/overtime?bins=0", 400), ("/bulks/sample-001/machine?bins=0", 400),
        ("/logs/histogram?bins=0", 400), ("/logs/histogram?severity=loud", 400), ("/bulks?spark=41", 400),
        ("/models?bulk=none", 404), ("/models/points?limit=2001", 400),
        ("/live?bins=0", 400), ("/live?from_ns=9&to_ns=5", 400),
        ("/bulks/none/machine", 404),
    ):  # fmt: skip
        found = running.get(path, status)
        assert found["error"], path
        assert found["do"], path


def test_what_can_be_asked_is_described(running: Running) -> None:
    described = running.get("/openapi.json")
    assert described["openapi"].startswith("3.")
    page = running.http.get("/api")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path, methods in described["paths"].items():
        assert path in page.text
        for of in methods.values():
            assert of["description"] in page.text.replace("&#x27;", "'") or "`" in of["description"]
    assert "<script" not in page.text


def send(running: Running, bulk: str) -> None:
    body = traces({"bulk.id": bulk, "bulk.job.id": "j"}, kind=5).SerializeToString()
    assert httpx.post(f"{running.at.otlp_http}/v1/traces", content=body, headers=PROTOBUF).status_code == 200


async def test_events_say_what_has_changed_and_nothing_else(running: Running) -> None:
    async with (
        httpx.AsyncClient(base_url=running.at.web, timeout=PATIENCE_S) as http,
        http.stream("GET", "/api/v1/events?bulk=mine") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        received: asyncio.Queue[str] = asyncio.Queue()

        async def read() -> None:
            async for line in answer.aiter_lines():
                await received.put(line)

        reading = asyncio.create_task(read())
        assert await asyncio.wait_for(received.get(), PATIENCE_S) == ": listening"
        assert await asyncio.wait_for(received.get(), PATIENCE_S) == ""
        await asyncio.sleep(3 * EVERY_S)
        await asyncio.to_thread(send, running, "other")
        await asyncio.sleep(3 * EVERY_S)
        # Nothing has changed of this one: nothing is sent, not even to keep the connection.
        assert received.empty()
        await asyncio.to_thread(send, running, "mine")
        assert await asyncio.wait_for(received.get(), PATIENCE_S) == "event: changed"
        said = await asyncio.wait_for(received.get(), PATIENCE_S)
        assert json.loads(said.removeprefix("data: ")) == {"bulks": ["mine"], "more": False}
        reading.cancel()


def test_a_slow_question_delays_no_other_client_and_not_the_writer(tmp_path: Path) -> None:
    """The slow ones are stopped by hand at the end: whatever is answered before was not delayed by them."""
    store = Store(tmp_path / "s.duckdb")
    fill(store.connection(), jobs=12)
    slow = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE hash(a.range, b.range) = 1"
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            store.query(slow)
        except BaseException as error:
            ended.append(error)

    others = [threading.Thread(target=ask) for _ in range(MAX_READS - 1)]
    for thread in others:
        thread.start()
    try:
        app = FastAPI()
        v1.install(app, store)
        client = TestClient(app)
        for path in ("/bulks", "/bulks/sample-001/jobs", "/bulks/sample-001/overtime", "/search?text=sample"):
            assert client.get(f"/api/v1{path}").status_code == 200
        with store.writing() as connection:
            connection.execute("INSERT INTO ingest VALUES (1, 'traces', 'http', 'refused', 'test', 1)")
        assert ended == []
        assert all(thread.is_alive() for thread in others)
    finally:
        while any(thread.is_alive() for thread in others):
            store.interrupt()
            time.sleep(0.05)
        store.close()
    assert len(ended) == len(others)


def test_a_running_bulk_is_listed_with_its_end_and_called_off_jobs_wait_no_more(tmp_path: Path) -> None:
    """Six jobs that were sent at once: three done, one at work, one that waits, one that was revoked."""
    now = time.time_ns()
    own = {"bulk_id": "mine", "queue": "q", "attempt": 1}
    worker = {"host_name": "h", "pid": 1, "service_instance_id": "i1"}
    names = [f"j{n}" for n in range(6)]
    spans = [
        span("PRODUCER", now - 12 * SECOND, now - 12 * SECOND, trace_id=f"{n + 1:032x}", span_id=f"a{n:015x}",
             job_id=name, **own)
        for n, name in enumerate(names)
    ]  # fmt: skip
    spans += [
        span("CONSUMER", now - (12 - 3 * n) * SECOND, now - (9 - 3 * n) * SECOND, trace_id=f"{n + 1:032x}",
             span_id=f"b{n:015x}", job_id=name, wait=3.0 * n, outcome="ok", **own, **worker)
        for n, name in enumerate(names[:3])
    ]  # fmt: skip
    spans.append(
        span("CLIENT", now - 10 * SECOND, now - 10 * SECOND, trace_id=f"{99:032x}", span_id=f"c{0:015x}", job_id="j5",
             outcome="cancelled", error_type="revoked", bulk_id="mine")
    )  # fmt: skip
    begun = {
        "bulk_id": "mine", "job_id": "j3", "trace_id": f"{4:032x}", "span_id": f"b{3:015x}", "time_ns": now - SECOND,
        "event_name": "bulk.job.started", "attributes": '{"bulk.job.attempt": 1}', **worker,
    }  # fmt: skip
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", spans)
    add(store.connection(), "logs", [begun])
    store.close()
    with (
        studio(tmp_path / "s.duckdb", "--no-host") as at,
        httpx.Client(base_url=at.web, timeout=PATIENCE_S) as http,
    ):
        found = Running(tmp_path / "s.duckdb", at, http)
        (row,) = found.get("/bulks")["bulks"]
        ending = found.get("/bulks/mine/ending")
        assert row["state"] == ending["state"] == "running"
        assert row["ending"]["left_s"] == ending["left_s"] is not None
        assert (row["sent_jobs"], row["done_jobs"], row["cancelled_jobs"]) == (6, 3, 1)
        assert ending["progress"]["cancelled"] == 1
        jobs = {job["id"]: job["status"] for job in found.get("/bulks/mine/jobs")["jobs"]}
        assert jobs == dict.fromkeys(names[:3], "done") | {"j3": "running", "j4": "waiting", "j5": "cancelled"}
        assert [job["id"] for job in found.get("/bulks/mine/jobs", status="cancelled")["jobs"]] == ["j5"]
        over = found.get("/bulks/mine/overtime", bins=4)["jobs"]
        assert (over["waiting"][-1], over["running"][-1], over["done"][-1]) == (1, 1, 3)


@pytest.mark.parametrize("number", [10**30, -(10**30), 2**63, 2**63 - 1])
def test_numbers_beyond_64_bits_are_refused(running: Running, number: int) -> None:
    for path in (
        "/bulks?offset", "/bulks?since_ns", "/bulks?until_ns", "/bulks?limit", "/bulks/sample-001/jobs?offset",
        "/logs?from_ns",
        "/logs?to_ns", "/logs?after_ns", "/logs?offset", "/failures?since_ns", "/failures?until_ns",
        "/bulks/sample-001/overtime?from_ns", "/bulks/sample-001/overtime?to_ns",
        "/bulks/sample-001/machine?from_ns", "/bulks/sample-001/machine?bins", "/live?from_ns", "/live?to_ns",
        "/models?since_ns", "/models/points?until_ns", "/facets?since_ns",
        "/logs/histogram?from_ns", "/logs/histogram?to_ns", "/bulks?spark",
        "/search?text=a&limit",
    ):  # fmt: skip
        said = running.get(f"{path}={number}", 400)
        assert said["error"]
        assert said["do"]
    for path in ("/bulks?since_ns", "/logs?from_ns", "/logs?after_ns", "/failures?since_ns"):
        for most in (-(2**62), 2**62):
            running.get(f"{path}={most}")


def test_an_unknown_verdict_is_refused_with_those_that_are_known(running: Running) -> None:
    said = running.get("/bulks", 400, verdict="nonsense")["error"]
    assert "headroom" in said
    assert "at_capacity_workers" in said


def test_the_tail_of_the_log_loses_no_record_of_the_same_moment(tmp_path: Path) -> None:
    times = [BEGIN_NS] * 3 + [BEGIN_NS + 1] * 4 + [BEGIN_NS + 2]
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "logs", [{"time_ns": at, "body": f"line {n}"} for n, at in enumerate(times)])
    for limit in (2, 3, 4, 5, 8):
        seen, after, offset = [], BEGIN_NS - 1, 0
        while True:
            found = records.logs(store, records.Lines(after_ns=after, limit=limit, offset=offset))
            seen += [row["body"] for row in found["logs"]]
            if not found["more"]:
                break
            moments = {row["time_ns"] for row in found["logs"]}
            after, offset = (
                (after, offset + limit) if len(moments) == 1 and len(found["logs"]) == limit else (max(moments), 0)
            )
        assert sorted(seen) == [f"line {n}" for n in range(len(times))]
        pages = [
            records.logs(store, records.Lines(limit=limit, offset=at))["logs"] for at in range(0, len(times), limit)
        ]
        assert sorted(row["body"] for page in pages for row in page) == sorted(seen)
    store.close()


def test_a_verdict_is_found_anew_when_a_sender_tells_what_it_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    fill(store.connection(), jobs=12)
    summaries.ensure(store.connection())
    verdicts, ends = listing.Verdicts(store), Ends(store)
    wanted = listing.Wanted(search="sample-001")

    def verdict() -> Any:
        (row,) = listing.bulks(store, verdicts, ends, wanted)["bulks"]
        return row["verdict"]["code"], row["start_ns"]

    before, start_ns = verdict()
    assert before != "data_unfit"
    lost = {
        "name": "bulk.telemetry.dropped", "type": "sum", "value": 1e6,
        "start_ns": start_ns, "time_ns": start_ns + SECOND,
        "service_instance_id": "i", "attributes": '{"signal": "traces", "error.type": "queue_full"}',
    }  # fmt: skip
    add(store.connection(), "points", [lost])
    now, _ = verdict()
    assert now == explanations.bulk_explanation(store, "sample-001")["verdict"]["code"] == "data_unfit"
    store.close()


def test_the_end_of_a_studio_ends_the_streams_of_events_without_a_traceback(tmp_path: Path) -> None:
    words = [BIN / "bulkscope", "studio", "--db", tmp_path / "s.duckdb", "--port", "0", "--otlp-http-port", "0"]
    process = subprocess.Popen(
        [*words, "--otlp-grpc-port", "0", "--no-host"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    web = next(line.split()[-1] for line in wait_for_line(process, "Data  ").splitlines() if " http://" in line)
    with httpx.stream("GET", f"{web}/api/v1/events", timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        process.terminate()
        assert list(lines) == [""]  # it ends as it should, and is not torn
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "Error" not in said
