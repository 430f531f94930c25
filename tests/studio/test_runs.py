"""Runs are kept whole, outlive what they were kept from, and are read again as they were."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkscope_studio.cli import compare
from bulkscope_studio.cli import runs as cli
from bulkscope_studio.services import comparisons, runs, sides
from bulkscope_studio.services.errors import Conflict, InvalidQuery, NotFound
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage import retention, saved_runs
from bulkscope_studio.storage.store import Store, Unavailable
from tests.studio.serving import studio


@pytest.fixture
def store(db: Path):  # type: ignore[no-untyped-def]
    opened = Store(db)
    yield opened
    opened.close()


def command(*words: str, db: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.command([*words, "--db", str(db)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_run_is_read_as_it_was_kept(store: Store) -> None:
    one, other = (sides.tables(store, f"sample-00{n}") for n in (1, 2))
    assert one is not None
    assert other is not None
    kept = runs.keep(store, "both", ["sample-001", "sample-002", "sample-001"], False)
    assert (kept["jobs"], kept["bulks"]) == (24, ("sample-001", "sample-002"))
    found = saved_runs.load(store.path, "both")
    for name in ("attempts", "inferences", "requests"):
        wanted = pa.concat_tables([getattr(one, name), getattr(other, name)])
        assert getattr(found, name).cast(wanted.schema).equals(wanted)


def test_a_run_outlives_the_retention(store: Store) -> None:
    place = StoredSides(store)
    before = comparisons.compare(place, "sample-001", "sample-002")
    runs.keep(store, "last-week", ["sample-001"], False)
    runs.keep(store, "today", ["latest"], False)
    assert retention.Retention(store, 3600, 10**9).apply() > 0
    with pytest.raises(NotFound):
        comparisons.compare(place, "sample-001", "sample-002")
    after = comparisons.compare(place, "last-week", "today")
    assert after["rows"] == before["rows"]
    assert after["pairing"] == before["pairing"]


def test_nothing_is_overwritten_unasked(store: Store) -> None:
    runs.keep(store, "r", ["sample-001"], False)
    with pytest.raises(Conflict, match="there is a run 'r' already"):
        runs.keep(store, "r", ["sample-002"], False)
    assert saved_runs.show(store.path, "r").bulks == ("sample-001",)
    runs.keep(store, "r", ["sample-002"], True)
    assert saved_runs.show(store.path, "r").bulks == ("sample-002",)
    assert [path.name for path in saved_runs.folder(store.path).iterdir()] == ["r.parquet"]


def test_of_many_who_keep_one_name_at_once_one_does(store: Store) -> None:
    found = sides.tables(store, "sample-001")
    assert found is not None
    outcomes: list[str] = []
    ready = threading.Barrier(6)

    def keep() -> None:
        ready.wait()
        try:
            saved_runs.keep(store.path, "r", found)
            outcomes.append("kept")
        except saved_runs.Exists:
            outcomes.append("exists")

    threads = [threading.Thread(target=keep) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 5 + ["kept"]
    assert [path.name for path in saved_runs.folder(store.path).iterdir()] == ["r.parquet"]


def test_what_cannot_be_written_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        runs.keep(store, "r", ["sample-001"], False)
    assert list(saved_runs.folder(store.path).iterdir()) == []


@pytest.mark.parametrize("name", ["", "latest", "a/b", "..", ".hidden", "-x", "a b", "a@b", "x" * 65, "ä", "a\n"])
def test_names_that_could_be_something_else_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidQuery, match="cannot name a run"):
        runs.keep(store, name, ["sample-001"], False)
    assert not saved_runs.exists(store.path, name)


def test_files_that_are_no_runs_say_so(store: Store) -> None:
    runs.keep(store, "good", ["sample-001"], False)
    good = saved_runs.folder(store.path) / "good.parquet"
    (saved_runs.folder(store.path) / "cut.parquet").write_bytes(good.read_bytes()[:100])
    pq.write_table(pa.table({"x": [1]}), saved_runs.folder(store.path) / "foreign.parquet")
    later = pa.table({"x": [1]}).replace_schema_metadata({b"bulkscope.run": b'{"format": "bulkscope.run/9"}'})
    pq.write_table(later, saved_runs.folder(store.path) / "later.parquet")
    for name, says in (("cut", "cannot be read"), ("foreign", "is no run"), ("later", "this version reads")):
        with pytest.raises(saved_runs.Trouble, match=says):
            saved_runs.load(store.path, name)
    listed = {run.name: run.damaged for run in saved_runs.every(store.path)}
    assert listed["good"] is None
    assert all(listed[name] for name in ("cut", "foreign", "later"))
    with pytest.raises(InvalidQuery, match="this version reads"):
        comparisons.compare(StoredSides(store), "later", "sample-001")


def test_the_command_over_a_file_and_over_a_running_studio(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def go(*words: str) -> tuple[int, str, str]:
        return command(*words, db=db, capsys=capsys)

    def story() -> list[tuple[int, str, str]]:
        found = [
            go(),
            go("keep", "week.1", "sample-001"),
            go("keep", "week.1", "sample-002"),
            go("keep", "week.1", "sample-002", "--replace"),
            go("keep", "a/b", "sample-002"),
            go("keep", "w", "sampel-002"),
            go("show", "wek.1"),
            go("show", "a/b"),
            go("drop", "nobody"),
        ]
        code, out, _ = go("list", "--format", "json")
        assert code == 0
        assert [row["name"] for row in json.loads(out)] == ["week.1"]
        assert compare.command(["week.1", "sample-001", "--db", str(db)]) == 0
        assert "In these two runs B " in capsys.readouterr().out
        shown, dropped = go("show", "week.1"), go("drop", "week.1")
        assert shown[1].startswith("week.1: 12 jobs of sample-002; smollm2-135m-q8_0; ran ")
        assert dropped == (0, "Dropped week.1.\n", "")
        return [(code, "" if "kept" in out.lower() and code == 0 else out, err) for code, out, err in found]

    from_file = story()
    with studio(db, "--no-host", "--retention", "9000d"):
        assert story() == from_file
    assert [code for code, _, _ in from_file] == [0, 0, 2, 0, 2, 2, 2, 2, 2]
    says = [err for _, _, err in from_file]
    assert "already" in says[2]
    assert "cannot name a run" in says[4]
    assert "Nearest: sample-002" in says[5]
    assert "Nearest: week.1" in says[6]
    assert "no run 'nobody'" in says[8]


def test_the_list_shows_what_is_damaged(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("keep", "good", "latest", db=db, capsys=capsys)[0] == 0
    (saved_runs.folder(db) / "bad.parquet").write_text("no")
    code, out, _ = command(db=db, capsys=capsys)
    assert code == 0
    assert "sample-002" in out
    assert "bulkscope runs drop bad" in " ".join(out.split())
    assert command("drop", "bad", db=db, capsys=capsys)[0] == 0
    assert saved_runs.names(db) == ["good"]


def test_a_page_elsewhere_cannot_keep_a_run(db: Path) -> None:
    body = json.dumps({"name": "x", "bulks": ["sample-001"]})
    with studio(db, "--no-host", "--retention", "9000d") as running, httpx.Client(base_url=running.web) as http:
        # What a browser sends to another origin without asking it first.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", None):
            headers = {} if kind is None else {"content-type": kind}
            assert http.post("/api/runs", content=body, headers=headers).status_code == 415
        assert http.get("/api/runs").json() == []
        wrong = ["{", "[]", '{"name": "x"}', '{"name": 1, "bulks": []}', '{"name": "x", "bulks": [1]}']
        for text in wrong:
            answer = http.post("/api/runs", content=text, headers={"content-type": "application/json"})
            assert answer.status_code == 400, text
        good = {"content-type": "application/json; charset=utf-8"}
        assert http.post("/api/runs", content=body, headers=good).status_code == 200
        assert http.post("/api/runs", content=body, headers=good).status_code == 409
        assert [row["name"] for row in http.get("/api/runs").json()] == ["x"]
        assert http.delete("/api/runs/x").json() == {"dropped": "x"}
        assert http.delete("/api/runs/x").status_code == 404
