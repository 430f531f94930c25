"""The commands, over the file and over a running studio."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from bulkscope_studio.cli import bulks, report
from bulkscope_studio.services import reports
from bulkscope_studio.storage import address
from bulkscope_studio.storage.store import Store
from tests.studio import odd
from tests.studio.answering import studio


def test_file_and_running_studio_say_the_same(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sample-001", "--format", "json", "--db", str(db)]
    assert report.command(arguments) == 0
    from_file = json.loads(capsys.readouterr().out)
    with studio(db):
        assert report.command(arguments) == 0
        assert json.loads(capsys.readouterr().out) == from_file
        assert bulks.command(["--db", str(db), "--format", "json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 3
        assert report.command(["sampel-001", "--db", str(db)]) == 2
        assert "Nearest: sample-001" in capsys.readouterr().err
    assert from_file["schema"] == "bulkscope.report/1"


def test_text_names_all_thirteen_numbers(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["sample-001", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    firsts = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert firsts >= {str(number) for number in range(1, 14)}
    assert "worker sample-host:4101" in out
    assert "\x1b[" not in out


def test_names_from_outside_are_shown_as_they_are(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(db)) as con:
        con.execute("UPDATE spans SET bulk_id = '[red]a' || chr(27) || '[2J' WHERE bulk_id = 'sample-002'")
        con.execute("UPDATE spans SET model = '[/b]|m' WHERE model = 'smollm2-135m-q8_0'")
    assert bulks.command(["--db", str(db)]) == 0
    assert report.command(["latest", "--db", str(db)]) == 0
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
    assert "| done | 12 | 12 | " in out


def test_partial_bulk_says_so(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(db)) as con:
        con.execute("DELETE FROM spans WHERE job_id = 'sample-002-job-0007' AND kind <> 'PRODUCER'")
    assert report.command(["sample-002", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    assert "PARTIAL" in out
    assert "partial: 1 of 12 jobs has not ended" in out


def test_unknown_bulk_and_missing_id(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.command(["sample-01", "--db", str(db)]) == 2
    assert "Nearest: sample-001" in capsys.readouterr().err
    assert report.command(["--db", str(db)]) == 2
    assert "Last bulks: sample-002, sample-refused, sample-001" in capsys.readouterr().err


def test_empty_store_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.duckdb"
    Store(path).close()
    assert report.command(["any", "--db", str(path)]) == 2
    assert "bulkscope run" in capsys.readouterr().err
    assert bulks.command(["--db", str(path)]) == 0
    assert "bulkscope run" in capsys.readouterr().out


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.duckdb"
    for command in (report.command, bulks.command):
        assert command([*(["x"] if command is report.command else []), "--db", str(path)]) == 2
        assert f"bulkscope studio --db {path}" in capsys.readouterr().err
    assert not path.exists()


def test_file_that_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, foreign = tmp_path / "text.duckdb", tmp_path / "foreign.duckdb"
    text.write_text("not a database, but long enough to be looked at as one" * 100)
    duckdb.connect(str(foreign)).close()
    for path in (text, foreign):
        assert bulks.command(["--db", str(path)]) == 2
        assert "cannot be read as a store" in capsys.readouterr().err


def test_file_held_by_a_process_without_a_studio(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert bulks.command(["--db", str(db)]) == 2
        assert f"held by process {holder.pid}" in capsys.readouterr().err
        holder.communicate()


def test_studio_that_does_not_answer(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    address.write(db, address.Runtime(pid=os.getpid(), web=url, otlp_http="", otlp_grpc=""))
    assert bulks.command(["--db", str(db)]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_the_pages_models_have_the_reports_numbers(tmp_path: Path) -> None:
    """One bulk of one model has one p95, wherever it is read."""
    store = Store(tmp_path / "s.duckdb")
    now = time.time_ns()
    for name, jobs in (("few", 26), ("more", 60)):
        odd.insert(store.connection(), "spans", odd.bulk(name, now, jobs=jobs))
        found = reports.bulk_report(store, name)
        assert found is not None
        (model,) = [group["inferences"] for group in found["models"]]
        (row,) = odd.page(store, "models", {"bulk_id": name, "bulk_first": 0, "bulk_last": now})
        numbers = next(iter(odd.page(store, "bulk_numbers", {"bulk_id": name, "bulk_first": 0, "bulk_last": now})))
        seconds = model["duration_s"]
        assert (row["time_p50"], row["time_p95"]) == pytest.approx((seconds["p50"], seconds["p95"]))
        assert (numbers["time_p50"], numbers["time_p95"]) == pytest.approx((seconds["p50"], seconds["p95"]))
        assert row["rate"] == pytest.approx(model["tokens_per_s"]) == pytest.approx(numbers["rate"])
        assert row["decode_rate"] == pytest.approx(model["decode_tokens_per_s"])
        assert row["cpu_per_token"] == pytest.approx(model["cpu_s_per_output_token"])
    store.close()
