"""The note of a running studio: found by every name of the store, and worth nothing once the studio is gone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bulkscope_studio.storage import address
from tests.processes import BIN, wait_for_line

PORTS = ("--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0")
NOTE = {"pid": 1, "web": "http://127.0.0.1:9", "otlp_http": "", "otlp_grpc": ""}


def bulks(db: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "bulkscope", "bulks", "--db", db], capture_output=True, text=True, timeout=120)


def test_after_kill_9_the_file_is_read_whoever_has_the_process_id(db: Path) -> None:
    link = db.with_name("by-a-link.duckdb")
    link.symlink_to(db)
    process = subprocess.Popen(
        [BIN / "bulkscope", "studio", "--db", link, "--no-host", "--retention", "9999d", *PORTS],
        text=True,
        stdout=subprocess.PIPE,
    )
    wait_for_line(process, "Data")
    for name in (db, link):
        found = address.read(name)
        assert found is not None
        assert found.pid == process.pid
        assert bulks(name).returncode == 0  # which the studio answers: the file is held
    second = subprocess.run([BIN / "bulkscope", "studio", "--db", db, *PORTS], capture_output=True, text=True)
    assert second.returncode == 2
    assert f"a studio at {found.web}" in second.stderr
    process.kill()
    process.wait()
    note = db.with_name("s.duckdb.studio.json")
    assert json.loads(note.read_text())["pid"] == process.pid
    note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": os.getpid()}))  # which is another's by now
    for name in (db, link):
        assert address.read(name) is None
        answer = bulks(name)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "sample-001" in answer.stdout


@pytest.mark.parametrize(
    "text",
    [
        *(json.dumps(NOTE | changed) for changed in (
            {}, {"pid": 2**70}, {"pid": -1}, {"pid": "x"}, {"pid": None}, {"web": "http://[bad"}, {"web": ""},
            {"web": "file:///etc/passwd"}, {"web": 3}, {"more": 1},
        )),
        "", "{", "[]", "null", "3", '{"pid": 1}', "[" * 5000, "\udcff",
    ],
)  # fmt: skip
def test_a_note_that_nobody_holds_says_nothing(text: str, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    note = tmp_path / "s.duckdb.studio.json"
    note.write_text(text, errors="surrogateescape")
    assert address.read(db) is None
    held = os.open(note, os.O_RDONLY)
    address.fcntl.flock(held, address.fcntl.LOCK_EX)
    found = address.read(db)
    os.close(held)
    # Held, it must make sense; the id of the process is only told, never asked.
    assert (found is not None) == ('"web": "http://127' in text and '"more"' not in text and isinstance(
        json.loads(text)["pid"], int))  # fmt: skip


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_what_is_no_file_is_no_note(make: object, tmp_path: Path) -> None:
    make(tmp_path / "s.duckdb.studio.json")  # type: ignore[operator]
    assert address.read(tmp_path / "s.duckdb") is None


def test_a_note_is_taken_away_by_who_wrote_it(tmp_path: Path) -> None:
    db, note = tmp_path / "s.duckdb", tmp_path / "s.duckdb.studio.json"
    address.write(db, address.Runtime(**NOTE))  # type: ignore[arg-type]
    assert address.read(db) == address.Runtime(**NOTE)  # type: ignore[arg-type]
    address.remove(db)
    assert not note.exists()
    note.write_text("{}")
    address.remove(db)
    assert note.exists()
