"""The commands, over the file and over a running studio."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bulkscope_studio.cli import bulks as bulks_cli
from bulkscope_studio.cli import check, compare, explain, report, runs, watch, whatif
from bulkscope_studio.rendering import digest
from bulkscope_studio.services import figures, reports
from bulkscope_studio.storage import address
from bulkscope_studio.storage.store import Store
from tests.rows import add
from tests.studio.answering import studio
from tests.studio.sample import fill


def test_file_and_running_studio_say_the_same(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sample-001", "--format", "json", "--db", str(db)]
    assert report.command(arguments) == 0
    from_file = json.loads(capsys.readouterr().out)
    with studio(db):
        assert report.command(arguments) == 0
        assert json.loads(capsys.readouterr().out) == from_file
        assert bulks_cli.command(["--db", str(db), "--format", "json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 3
        assert report.command(["sampel-001", "--db", str(db)]) == 2
        assert "Nearest: sample-001" in capsys.readouterr().err
    assert from_file["schema"] == "bulkscope.report/1"


def test_text_names_all_thirteen_numbers(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["sample-001", "--full", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    firsts = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert firsts >= {str(number) for number in range(1, 14)}
    assert "worker sample-host:4101" in out
    assert "\x1b[" not in out


def test_names_from_outside_are_shown_as_they_are(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(db)) as con:
        con.execute("UPDATE spans SET bulk_id = '[red]a' || chr(27) || '[2J' WHERE bulk_id = 'sample-002'")
        con.execute("UPDATE spans SET model = '[/b]|m' WHERE model = 'smollm2-135m-q8_0'")
    assert bulks_cli.command(["--db", str(db)]) == 0
    assert report.command(["--full", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "Bulk [red]a\ufffd[2J" in out
    assert "model [/b]|m" in out
    assert report.command(["latest", "--db", str(db), "--format", "md"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "# Bulk [red]a\ufffd[2J" in out
    assert "model [/b]\\|m" in out


def test_markdown_has_tables(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["latest", "--format", "md", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Bulk sample-002\n")
    assert "| done | 12 | 12 |\n" in out
    assert "## By worker" in out


def test_partial_bulk_says_so(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(db)) as con:
        con.execute("DELETE FROM spans WHERE job_id = 'sample-002-job-0007' AND kind <> 'PRODUCER'")
    assert report.command(["sample-002", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    assert "PARTIAL" in out
    assert "12 sent, 11 done, 0 failed, 1 " in out
    assert report.command(["sample-002", "--full", "--db", str(db)]) == 0
    assert "partial: 1 of 12 jobs has not ended" in capsys.readouterr().out


def test_unknown_bulk_and_missing_id(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["sample-01", "--db", str(db)]) == 2
    assert "Nearest: sample-001" in capsys.readouterr().err
    assert check.command(["--db", str(db)]) == 2
    assert "Last bulks: sample-002, sample-refused, sample-001" in capsys.readouterr().err


def test_latest_is_the_bulk_where_none_is_named(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(command: Callable[[list[str]], int], *words: str) -> str:
        assert command([*words, "--db", str(db)]) == 0
        return capsys.readouterr().out

    for command, words in (
        (report.command, ["--format", "json"]), (report.command, ["--by", "model"]), (explain.command, []),
        (whatif.command, ["--workers", "4"]), (watch.command, []), (check.command, ["--against", "sample-002"]),
    ):  # fmt: skip
        assert said(command, *words) == said(command, "latest", *words) == said(command, "sample-002", *words)
    assert said(compare.command, "sample-001") == said(compare.command, "sample-001", "latest")
    assert "sample-002" in said(runs.command, "keep", "newest")


def test_a_report_is_short_however_large_the_bulk_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "large.duckdb"
    store = Store(path)
    fill(store.connection(), bulks=1, jobs=600, workers=64)
    store.close()
    assert report.command(["--db", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= digest.LINES
    assert lines[0].startswith("Bulk sample-001  complete  ")
    labels = [line[:12].strip() for line in lines[1:]]
    assert labels[0] == "Verdict"
    assert {"Workers", "Jobs' time", "Jobs", "Wait", "Work", "Rates", "Models", "Failed", "Slow", "Next"} <= set(labels)
    (failed,) = (line for line in lines if line.startswith("Failed"))
    assert failed.startswith("Failed      1 of 600 jobs (model 1); ")
    assert "the first of job sample-001-job-0005" in failed
    (following,) = (line for line in lines if line.startswith("Next"))
    assert f"bulkscope explain --all --db {path}" in following
    assert report.command(["--full", "--db", str(path)]) == 0
    full = capsys.readouterr().out
    assert full.count("sample-host:41") == 64
    assert report.command(["--by", "worker", "--db", str(path)]) == 0
    by = capsys.readouterr().out
    assert sum(line.startswith(" sample-host:41") for line in by.splitlines()) == 64


def test_by_host_is_the_bulk_where_there_is_one_host(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["sample-001", "--by", "host", "--format", "json", "--db", str(db)]) == 0
    found = json.loads(capsys.readouterr().out)
    (host,) = found["by_host"]
    assert (host.pop("name"), found["total"].pop("name")) == ("sample-host", "total")
    assert host == found["total"]
    assert report.command(["sample-001", "--by", "host", "--full", "--db", str(db)]) == 2
    assert "choose one" in capsys.readouterr().err


def test_the_list_takes_filters(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*words: str) -> list[str]:
        assert bulks_cli.command([*words, "--format", "json", "--db", str(db)]) == 0
        return [row["id"] for row in json.loads(capsys.readouterr().out)]

    assert ids() == ids("--last", "20") == ["sample-002", "sample-refused", "sample-001"]
    assert ids("--sort", "took") == ["sample-002", "sample-001", "sample-refused"]
    assert ids("--sort", "took", "--reverse") == ["sample-refused", "sample-001", "sample-002"]
    assert ids("--sort", "id") == ["sample-001", "sample-002", "sample-refused"]
    assert ids("--last", "1") == ["sample-002"]
    assert ids("--failed") == ["sample-001"]
    assert ids("--state", "stopped") == ["sample-refused"]
    assert ids("--model", "smollm2-135m-q4_1") == ids("--search", "E-001") == ["sample-001"]
    assert ids("--service", "nobody") == ids("--since", "1h") == []
    assert ids("--verdict", "overload") == ["sample-refused"]
    for words, says in (
        (["--since", "soon"], "is not a duration"), (["--last", "0"], "from 1 on"),
        (["--verdict", "bad"], "no verdict"),
    ):  # fmt: skip
        assert bulks_cli.command([*words, "--db", str(db)]) == 2
        assert says in capsys.readouterr().err
    assert bulks_cli.command(["--last", "1", "--db", str(db)]) == 0
    assert "1 of 3 bulks; --last 3 lists all." in capsys.readouterr().out
    assert bulks_cli.command(["--model", "none", "--db", str(db)]) == 0
    assert capsys.readouterr().out == "No bulk is like that.\n"


def test_empty_store_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.duckdb"
    Store(path).close()
    assert report.command(["any", "--db", str(path)]) == 2
    assert "bulkscope run" in capsys.readouterr().err
    assert bulks_cli.command(["--db", str(path)]) == 0
    assert "bulkscope run" in capsys.readouterr().out


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.duckdb"
    for command in (report.command, bulks_cli.command):
        assert command([*(["x"] if command is report.command else []), "--db", str(path)]) == 2
        assert f"bulkscope studio --db {path}" in capsys.readouterr().err
    assert not path.exists()


def test_file_that_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, foreign = tmp_path / "text.duckdb", tmp_path / "foreign.duckdb"
    text.write_text("not a database, but long enough to be looked at as one" * 100)
    duckdb.connect(str(foreign)).close()
    for path in (text, foreign):
        assert bulks_cli.command(["--db", str(path)]) == 2
        assert "cannot be read as a store" in capsys.readouterr().err


def test_file_held_by_a_process_without_a_studio(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert bulks_cli.command(["--db", str(db)]) == 2
        assert f"held by process {holder.pid}" in capsys.readouterr().err
        holder.communicate()


def test_studio_that_does_not_answer(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    address.write(db, address.Runtime(pid=os.getpid(), web=url, otlp_http="", otlp_grpc=""))
    assert bulks_cli.command(["--db", str(db)]) == 2
    assert "does not answer" in capsys.readouterr().err


def inference(n: int, bulk: str, model: str, start_s: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "trace_id": "t", "span_id": f"i{n}", "kind": "INTERNAL", "status": "UNSET", "name": "chat", "bulk_id": bulk,
        "job_id": f"j{n}", "model": model, "start_ns": int((NOW_S + start_s) * 1e9),
        "end_ns": int((NOW_S + start_s + seconds) * 1e9), "host_name": "h", "pid": 1, **more,
    }  # fmt: skip


NOW_S = 1_760_000_000
# Of one model, by hand: 10, 20, 30, 40 tokens, none said of the last; 1 CPU-s each, not said of the first. A service
# that names the model on its own span makes no inference of that.
ONE_MODEL = [
    inference(0, "b", "m", 0, 1.0, output_tokens=10, decode=0.5),
    inference(1, "b", "m", 1, 2.0, output_tokens=20, decode=1.0, cpu_time=1.0, cpu_exact=True, memory_peak=100,
              memory_exact=True),
    inference(2, "b", "m", 3, 3.0, output_tokens=30, decode=1.5, cpu_time=1.0, cpu_exact=False, memory_peak=300,
              memory_exact=False),
    inference(3, "b", "m", 6, 4.0, output_tokens=1, cpu_time=1.0, cpu_exact=True),
    inference(4, "b", "m", 10, 5.0, decode=1.0, cpu_time=1.0, cpu_exact=True, status="ERROR"),
    inference(5, "b", "m", 0, 15.0, kind="CONSUMER", output_tokens=1000, decode=1.0, wait=0.0),
]  # fmt: skip


def test_one_model_has_one_set_of_numbers(tmp_path: Path) -> None:
    """On the page of models and in the report; worked out by hand."""
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", ONE_MODEL)
    report = reports.bulk_report(store, "b")
    assert report is not None
    (model,) = [group["inferences"] for group in report["models"]]
    every = {
        "report": model, "report, total": report["total"]["inferences"],
        "models": dataclasses.asdict(figures.of_models(store)["m"]),
    }  # fmt: skip
    for where, of in every.items():
        assert (of["count"], of["failed"], of["output_tokens"]) == (5, 1, 61), where
        assert of["tokens_per_s"] == pytest.approx(61 / 10), where
        assert of["decode_tokens_per_s"] == pytest.approx((9 + 19 + 29) / 3), where
        assert of["cpu_s_per_output_token"] == pytest.approx(3 / 51), where
        # Type 7: the 95th percentile of five stands at 0.95 * 4 = 3.8 steps from the least.
        assert (of["duration_s"]["p50"], of["duration_s"]["p95"]) == (3.0, pytest.approx(4.8)), where
        assert (of["cpu_exact_share"], of["memory_exact_share"], of["memory_peak_bytes"]) == (0.75, 0.5, 300), where
    (shown,) = figures.models(store)["models"]
    assert {name: shown[name] for name in model if name in every["models"]} == every["models"]
    # Of each inference: 9 / 0.5, 19 / 1, 29 / 1.5.
    assert shown["decode_rate_tokens_per_s"]["p50"] == pytest.approx(19)
    (host,) = shown["hosts"]
    assert (host["count"], host["failed"], host["output_tokens"], host["memory_peak_bytes"]) == (5, 1, 61, 300)
    assert {name: host[name] for name in ("duration_s", "cpu_s_per_output_token", "tokens_per_s")} == {
        name: shown[name] for name in ("duration_s", "cpu_s_per_output_token", "tokens_per_s")
    }
    store.close()


@pytest.mark.parametrize(
    ("outcome", "http_status", "status", "is_"),
    [
        ("ok", 503, "UNSET", "ok"),  # what the service's own instrumentation says goes first
        (None, 503, "ERROR", "overload"), (None, 429, "UNSET", "overload"),
        (None, 500, "ERROR", "internal_error"), (None, 502, "UNSET", "internal_error"),
        (None, 404, "UNSET", "client_error"), (None, 404, "ERROR", "client_error"),
        (None, 202, "UNSET", "ok"), (None, 302, None, "ok"), (None, 200, "ERROR", "internal_error"),
        (None, None, "ERROR", "internal_error"),
        (None, None, "UNSET", "unknown"),
    ],
)  # fmt: skip
def test_a_request_has_one_outcome(
    tmp_path: Path, outcome: str | None, http_status: int | None, status: str | None, is_: str
) -> None:
    """A 503 of another instrumentation is an overload."""
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", [{
        "trace_id": "t", "span_id": "s", "kind": "SERVER", "name": "POST", "status": status, "outcome": outcome,
        "http_status": http_status, "http_method": "POST", "bulk_id": "b", "start_ns": NOW_S * 10**9,
        "end_ns": NOW_S * 10**9 + 1,
    }])  # fmt: skip
    report = reports.bulk_report(store, "b")
    assert report is not None
    assert {name: n for name, n in report["requests"]["outcomes"].items() if n} == {is_: 1}
    store.close()
