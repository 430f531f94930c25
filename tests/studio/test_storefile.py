"""Files that are no store, or not a whole one: said, never altered, never waited for; and who may read the store."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
from pathlib import Path

import duckdb
import httpx
import pytest

from bulkscope_studio.storage import storefile
from bulkscope_studio.storage.store import Store
from tests.processes import BIN
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.serving import studio

PORTS = ("--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0")


def make_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE spans (a)")


def make_foreign(path: Path) -> None:
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE spans (a INTEGER)")
        other.execute("INSERT INTO spans VALUES (1)")


def make_other(path: Path) -> None:
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE shopping (a INTEGER)")


STRANGE = {
    "a folder": (Path.mkdir, "it is a folder; name a file in it"),
    "a pipe": (os.mkfifo, "it is a pipe"),
    "a device": (lambda path: path.symlink_to("/dev/null"), "it is a device"),
    "a socket": (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "it is a socket"),
    "an empty file": (Path.touch, "it is empty; delete it"),
    "text": (lambda path: path.write_text("a shopping list\n" * 1000), "it is no database of DuckDB"),
    "SQLite": (make_sqlite, "it is a SQLite database"),
    "a start of a file": (
        lambda path: path.write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 50),
        "cut short: it has 62 bytes",
    ),
    "a table of another's": (make_foreign, "it is a DuckDB database of something else (tables: spans)"),
    "another database": (make_other, "it is a DuckDB database of something else (tables: shopping)"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_store_is_said_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    make, said = STRANGE[name]
    path = tmp_path / "s.duckdb"
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    for read_only in (True, False):
        with pytest.raises(storefile.Unfit) as unfit:
            Store(path, read_only=read_only)
        assert said in str(unfit.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {file.name for file in tmp_path.iterdir()} == {"s.duckdb"}


def test_commands_say_so_and_end(tmp_path: Path) -> None:
    """As processes: one that waited for a writer of the pipe would wait for ever."""
    path = tmp_path / "s.duckdb"
    os.mkfifo(path)
    for words in (("studio", *PORTS), ("bulks",), ("report", "latest")):
        ended = subprocess.run([BIN / "bulkscope", *words, "--db", path], capture_output=True, text=True, timeout=120)
        assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
        assert f"{path} cannot be" in ended.stderr
        assert "it is a pipe" in ended.stderr


def test_a_store_that_is_cut_short_is_never_opened(db: Path) -> None:
    whole = db.read_bytes()
    assert len(whole) > 5 * 2**18
    for tenths in range(1, 10):
        db.write_bytes(whole[: len(whole) * tenths // 10])
        with pytest.raises((storefile.Unfit, duckdb.Error)) as refused:
            Store(db)
        if tenths > 2:  # below, DuckDB itself cannot find its tables
            assert "it is cut short" in str(refused.value)
            assert "put a whole copy in its place" in str(refused.value)
    db.write_bytes(whole)
    Store(db).close()


def test_a_file_of_which_duckdb_cut_free_blocks_off_is_whole(tmp_path: Path) -> None:
    """It does so after it wrote the header, which then counts blocks that are not there."""
    path, copy = tmp_path / "s.duckdb", tmp_path / "copy.duckdb"
    store = Store(path)
    connection = store.connection()
    for size in (*range(0, 280_000, 70_000), *range(280_000, 840_000, 70_000)):
        connection.execute(
            f"CREATE OR REPLACE TABLE t{size // 70_000 % 4} AS"
            f" SELECT i, random() AS r, md5(i::VARCHAR) AS s FROM range({size + 10}) x(i)"
        )
        connection.execute("CHECKPOINT")
    for sql in ("DELETE FROM t1", "DELETE FROM t2", "DROP TABLE t3", "CHECKPOINT"):
        connection.execute(sql)
    shutil.copy(path, copy)  # as after kill -9
    store.close()
    head = copy.read_bytes()[: storefile._BLOCKS_AT]
    assert copy.stat().st_size < storefile._BLOCKS_AT + storefile._wanted(head)
    again = Store(copy)
    assert again.query("SELECT count(i) AS n FROM t0").to_pylist() == [{"n": 560_010}]
    again.close()
    # And when one that is in use is gone, it is not.
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size - 2**18)
    with pytest.raises(storefile.Unfit, match="it is cut short"):
        Store(copy)


def test_no_code_is_loaded_and_nothing_else_is_opened(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a\n1\n")
    loading = ("LOAD sqlite", "SELECT '::1'::INET", "FROM sqlite_scan('a', 'b')", "FROM 'http://127.0.0.1:9/a.parquet'")
    store, memory = Store(tmp_path / "s.duckdb"), Store(Path(storefile.MEMORY))
    for sql in (
        "INSTALL httpfs", f"FROM read_csv('{other}')", f"ATTACH '{tmp_path / 'more.duckdb'}'", *loading,
        f"COPY spans TO '{tmp_path / 'out.csv'}'", "SET autoload_known_extensions = true",
    ):  # fmt: skip
        with pytest.raises(duckdb.Error):
            store.connection().execute(sql)
    for sql in loading:
        with pytest.raises(duckdb.Error):
            memory.connection().execute(sql)
    store.close()
    memory.close()
    assert {file.name for file in tmp_path.iterdir()} == {"s.duckdb", "other.csv"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_the_studio_makes_is_its_users_alone(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    db = there / "new" / "s.duckdb"
    with studio(db, "--no-host") as at:
        sent = httpx.post(f"{at.otlp_http}/v1/traces", content=traces({}).SerializeToString(), headers=PROTOBUF)
        assert sent.status_code == 200
        made = {file.name: mode(file) for file in db.parent.iterdir()}
    assert made == {"s.duckdb": 0o600, "s.duckdb.wal": 0o600, "s.duckdb.studio.json": 0o600}
    assert (mode(db.parent), mode(there)) == (0o700, 0o755)


def test_a_file_that_others_may_read_stays_so(db: Path) -> None:
    db.chmod(0o644)
    with studio(db, "--no-host"):
        assert mode(db) == 0o644


def test_a_link_leads_to_the_store_and_all_beside_it(db: Path) -> None:
    link = db.with_name("link.duckdb")
    link.symlink_to(db)
    store = Store(link)
    store.connection().execute("INSERT INTO ingest VALUES (1, 'traces', 'http', 'refused', 'x', 1)")
    assert store.path == db
    assert db.with_name("s.duckdb.wal").exists()
    store.close()


def test_where_a_link_leads_no_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "link.duckdb").symlink_to(tmp_path / "not mounted" / "s.duckdb")
    with pytest.raises(duckdb.Error, match="No such file"):
        Store(tmp_path / "link.duckdb")
    assert not (tmp_path / "not mounted").exists()
