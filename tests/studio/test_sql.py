"""Exports, SQL and a notebook: the same from a running studio and from its file, and as docs/sql.md has it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import bulkscope_studio as bs
from bulkscope_studio.rendering import tables
from bulkscope_studio.services import exports, questions
from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.source import Source
from bulkscope_studio.storage.store import Store
from tests.processes import BIN, PATIENCE_S
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "sql.md").read_text()
BULK, JOBS = "sample-001", 24


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "s.duckdb"
    store = Store(path)
    fill(store.connection(), jobs=JOBS)
    store.close()
    return path


@pytest.fixture(scope="module")
def running(db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Addresses]]:
    path = tmp_path_factory.mktemp("sql-running") / "s.duckdb"
    path.write_bytes(db.read_bytes())
    with studio(path, "--no-host", "--retention", "9000d") as at:
        yield path, at


def command(*words: object, code: int = 0) -> tuple[bytes, str]:
    found = subprocess.run([BIN / "bulkscope", *map(str, words)], capture_output=True, timeout=PATIENCE_S, check=False)
    assert found.returncode == code, found.stderr
    return found.stdout, found.stderr.decode()


def described(source: Any, asked: str) -> list[tuple[str, str]]:
    rows = questions.ask(source, f"DESCRIBE FROM {asked}").rows
    return list(zip(rows["column_name"].to_pylist(), rows["column_type"].to_pylist(), strict=True))


def test_the_document_has_every_table_and_column_with_its_type(db: Path) -> None:
    from bulkscope_studio.storage import public

    store = Store(db, read_only=True)
    try:
        parts = re.split(r"^### (\w+)$", DOCUMENT, flags=re.MULTILINE)[1:]
        written = dict(zip(parts[::2], parts[1::2], strict=True))
        assert written.keys() == public.TABLES | public.MACROS
        for name, text in written.items():
            rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S.*) \|$", text, re.MULTILINE)
            of = f"{name}('x')" if name in public.MACROS else name
            assert [row[:2] for row in rows] == described(store, of), name
    finally:
        store.close()


def test_columns_of_jobs_are_those_of_the_api_and_their_units_are_named(db: Path) -> None:
    store = Store(db, read_only=True)
    try:
        ours = [name for name, _ in described(store, "jobs('x')")]
        exported = exports.table(store, BULK).column_names
        assert [name for name in exported if name not in ("expected_s", "excess_s")] == ours[1:]
        numbers = {
            name
            for asked in ("bulks", "jobs('x')", "attempts('x')", "inferences")
            for name, kind in described(store, asked)
            if kind == "DOUBLE"
        }
        assert {name for name in numbers if not name.endswith("_s")} == {"cpu_cores"}
    finally:
        store.close()


@pytest.mark.parametrize("what", exports.WHAT)
def test_an_export_is_the_same_from_file_and_studio_and_in_each_format(
    what: str, db: Path, running: tuple[Path, Addresses], tmp_path: Path
) -> None:
    path, _ = running
    words = ("export", BULK, "--what", what)
    written = {}
    for home, store in (("file", db), ("studio", path)):
        for kind in tables.FORMATS:
            out = tmp_path / f"{home}.{kind}"
            command(*words, "--db", store, "-o", out)  # the format by the file's ending
            written[home, kind] = out.read_bytes()
    arrow = pa.ipc.open_stream(written["file", "arrow"]).read_all()
    assert len(arrow) > 0
    assert pa.ipc.open_stream(written["studio", "arrow"]).read_all().equals(arrow)
    assert pa.parquet.read_table(io.BytesIO(written["file", "parquet"])).equals(arrow)
    assert json.loads(written["file", "json"]) == json.loads(written["studio", "json"]) == arrow.to_pylist()
    for home in ("file", "studio"):
        assert [json.loads(line) for line in written[home, "jsonl"].splitlines()] == arrow.to_pylist()
    assert written["file", "csv"] == written["studio", "csv"]
    assert pa.csv.read_csv(
        io.BytesIO(written["file", "csv"]), parse_options=pa.csv.ParseOptions(newlines_in_values=True)
    ).num_rows == len(arrow)
    assert command(*words, "--db", path, "--format", "csv")[0] == written["file", "csv"]


def test_what_is_exported_is_what_is_stored(db: Path) -> None:
    store = Store(db, read_only=True)
    try:
        cursor = store.connection()

        def count(table: str, more: str = "true") -> int:
            row = cursor.execute(f"SELECT count(*) FROM {table} WHERE bulk_id = $1 AND {more}", [BULK]).fetchone()
            assert row is not None
            return int(row[0])

        found = {what: exports.table(store, BULK, what) for what in exports.WHAT}
        assert len(found["jobs"]) == JOBS
        assert len(found["spans"]) == count("spans")
        assert len(found["logs"]) == count("logs")
        assert len(found["inferences"]) == count("spans", "model IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT')")
        assert len(found["attempts"]) == count("spans", "kind = 'CONSUMER'")
        assert exports.table(store, "latest")["id"].to_pylist() == exports.table(store, "sample-002")["id"].to_pylist()
    finally:
        store.close()


def on_a_terminal(*words: object) -> tuple[int, str]:
    """Run a command whose standard output is a terminal; return its exit code and what it showed there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([BIN / "bulkscope", *map(str, words)], stdout=theirs, stderr=subprocess.STDOUT) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's word for the end of a terminal
                break
            if not part:
                break
            shown += part
        process.wait(PATIENCE_S)
    os.close(ours)
    return process.returncode, shown.decode()


@pytest.mark.parametrize("words", [("export",), ("sql", "FROM bulks")])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_binary_is_not_written_to_a_terminal(db: Path, words: tuple[str, ...], kind: str) -> None:
    code, shown = on_a_terminal(*words, "--db", db, "--format", kind)
    assert code == 2
    assert f"{kind} is binary, and this is a terminal: write it to a file with -o NAME.{kind}" in shown
    assert "PAR1" not in shown
    code, shown = on_a_terminal(*words, "--db", db, "--format", "csv")
    assert code == 0
    assert "sample-00" in shown or "jobs" in shown or "smollm" in shown


def test_names_do_nothing_on_a_terminal(db: Path) -> None:
    code, shown = on_a_terminal("sql", "SELECT chr(27) || '[31mred' AS a", "--db", db, "--format", "csv")
    assert code == 0
    assert "\x1b[31m" not in shown
    assert "[31mred" in shown


def test_what_cannot_be_written_says_so(db: Path, tmp_path: Path) -> None:
    _, said = command("export", "--db", db, "-o", tmp_path / "nowhere" / "x.csv", code=2)
    assert "cannot be written: No such file or directory" in said
    _, said = command("export", "nothing", "--db", db, code=2)
    assert "no bulk 'nothing'" in said
    assert "Nearest" in said
    _, said = command("export", "--db", tmp_path / "none.duckdb", code=2)
    assert "there is no store" in said


def test_sql_says_the_same_from_file_and_studio(db: Path, running: tuple[Path, Addresses]) -> None:
    path, _ = running
    query = "SELECT status, count(*) AS n, avg(work_s) AS mean_s FROM jobs('sample-001') GROUP BY ALL ORDER BY status"
    texts = [command("sql", query, "--db", store)[0].decode() for store in (db, path)]
    assert texts[0] == texts[1]
    assert re.search(r"done +23 ", texts[0])
    rows = json.loads(command("sql", query, "--db", path, "--format", "json")[0])
    assert [(row["status"], row["n"]) for row in rows] == [("done", 23), ("failed", 1)]
    for store in (db, path):
        shown, said = command("sql", "SELECT range AS x FROM range(9)", "--limit", "2", "--db", store)
        assert "the first 2 rows are here, there are more" in said
        assert shown.decode().split() == ["x", shown.decode().split()[1], "0", "1"]
        _, said = command("sql", "DROP TABLE spans", "--db", store, code=2)
        assert "bulkscope sql: only SELECT is run, and this is DROP" in said
        _, said = command("sql", "FROM read_csv('/etc/passwd')", "--db", store, code=2)
        assert "there is no table function 'read_csv' to be asked" in said
    piped = subprocess.run(
        [BIN / "bulkscope", "sql", "-", "--db", db, "--format", "csv"], input=b"SELECT 1 AS a", capture_output=True,
        check=True,
    )  # fmt: skip
    assert piped.stdout == b'"a"\n1\n'


def test_the_route_answers_and_refuses(running: tuple[Path, Addresses]) -> None:
    _, at = running
    with httpx.Client(base_url=at.web, timeout=PATIENCE_S) as http:

        def asked(query: str, code: int = 200, **more: Any) -> Any:
            answer = http.post("/api/v1/sql", json={"query": query, **more})
            assert answer.status_code == code, answer.text
            return answer.json()

        assert asked("SELECT $a + 1 AS x, NULL AS y", params={"a": 2}) == {
            "columns": [{"name": "x", "type": "int32"}, {"name": "y", "type": "null"}],
            "rows": [[3, None]], "cut": None,
        }  # fmt: skip
        assert asked("FROM range(9)", limit=2)["cut"] == "the first 2 rows are here, there are more"
        assert asked("COPY spans TO '/tmp/x'", 400)["error"].startswith("only SELECT is run, and this is COPY")
        assert "error" in asked("SELECT 1", 400, params={"a": [1]})
        assert "limit" in asked("SELECT 1", 400, limit=0)["error"]
        arrow = http.post("/api/v1/sql?format=arrow", json={"query": "FROM range(9)", "limit": 2})
        assert arrow.headers["bulkscope-cut"] == "the first 2 rows are here, there are more"
        assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 2
        # A page of elsewhere may send a form or plain text unasked, from its own origin or under its own name.
        body = b'{"query": "SELECT 1"}'
        for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
            assert http.post("/api/v1/sql", content=body, headers=headers).status_code in (400, 415)
        as_json = {"content-type": "application/json"}
        for name, value, code in (("origin", "http://evil.example", 403), ("host", "evil.example", 400)):
            assert http.post("/api/v1/sql", content=body, headers=as_json | {name: value}).status_code == code
        assert http.get("/api/v1/sql").status_code in (404, 405)
        # Nothing of that has hurt it.
        assert asked("SELECT count(*) > 0 AS x FROM spans")["rows"] == [[True]]


def test_a_login_covers_the_route(db: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    path.write_bytes(db.read_bytes())
    with studio(path, "--no-host", "--retention", "9000d", BULKSCOPE_STUDIO_PASSWORD="a long password") as at:
        assert httpx.post(f"{at.web}/api/v1/sql", json={"query": "SELECT 1"}).status_code == 401
        assert httpx.get(f"{at.web}/api/v1/bulks/{BULK}/export").status_code == 401
        # Commands and notebooks have the token of the note beside the store.
        assert bs.sql("SELECT 1 AS a", db=path).to_pydict() == {"a": [1]}


def test_a_notebook_reads_what_the_commands_export(db: Path, running: tuple[Path, Addresses]) -> None:
    path, _ = running
    for store in (db, path):
        assert bs.read(BULK, db=store).equals(bs.jobs(BULK, db=store))
        assert bs.read(db=store)["id"].to_pylist() == bs.read("sample-002", db=store)["id"].to_pylist()
        assert bs.read(BULK, "spans", db=store).num_rows > JOBS
        assert bs.sql("SELECT count(*) AS n FROM jobs($b)", {"b": BULK}, db=store).to_pydict() == {"n": [JOBS]}
        listed = bs.bulks(db=store)
        ours = "SELECT id, done_jobs, failed_jobs, took_s, sent_jobs, models FROM bulks ORDER BY start_ns DESC, id"
        assert (
            listed.select(["id", "done_jobs", "failed_jobs", "took_s", "sent_jobs", "models"]).to_pylist()
            == bs.sql(ours, db=store).to_pylist()
        )
        with pytest.warns(UserWarning, match="the first 1 rows"):
            assert bs.sql("FROM range(5)", limit=1, db=store).num_rows == 1
        with pytest.raises(bs.NotFound) as missing:
            bs.read("sample-003", db=store)
        assert any("sample-001" in note for note in missing.value.__notes__)
        with pytest.raises(bs.InvalidQuery):
            bs.sql("DELETE FROM spans", db=store)
        with pytest.raises(bs.InvalidQuery):
            bs.read(BULK, "secrets", db=store)
        with pytest.raises(bs.InvalidQuery):
            bs.read(BULK, db=store, source="nowhere")
    with pytest.raises(bs.Trouble):
        bs.read(db=db.with_name("none.duckdb"))


def test_the_surface_of_a_notebook_is_frozen_and_loads_nothing() -> None:
    assert bs.__all__ == ["InvalidQuery", "NotFound", "Trouble", "bulks", "jobs", "read", "sql"]
    code = (
        "import sys, bulkscope_studio as bs;"
        "heavy = {'duckdb', 'pyarrow', 'numpy', 'httpx', 'rich'} & sys.modules.keys();"
        "assert not heavy, heavy; assert set(bs.__all__) <= set(dir(bs)); assert callable(bs.read)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_document_s_example_runs(running: tuple[Path, Addresses], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = running
    monkeypatch.setattr("bulkscope_studio.sources.resolve.default_db", lambda: path)
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(example, names)
    assert names["jobs"].num_rows == JOBS
    assert names["table"].column_names == ["model", "mean_s"]


def test_the_document_s_commands_run(db: Path, tmp_path: Path) -> None:
    (commands,) = re.findall(r"^```bash\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    for line in commands.splitlines():
        words = re.findall(r'"([^"]*)"|(\S+)', line)
        given = [quoted or bare for quoted, bare in words][1:]
        found = subprocess.run(
            [BIN / "bulkscope", *given, "--db", db], cwd=tmp_path, capture_output=True, timeout=PATIENCE_S, check=False
        )
        assert found.returncode == 0, found.stderr
    assert pa.parquet.read_table(tmp_path / "slow.parquet").num_columns > 20


def test_csv_and_json_have_a_word_for_everything(db: Path) -> None:
    query = (
        "SELECT [1, 2] AS l, {'a': 1} AS s, map {'k': 2} AS m, 1.5::DECIMAL(3, 1) AS d, 'ab'::BLOB AS b, "
        "INTERVAL 1 DAY AS i, 'nan'::DOUBLE AS n, NULL AS x, DATE '2025-01-02' AS t, true AS y"
    )
    rows = json.loads(command("sql", query, "--db", db, "--format", "json")[0])
    assert rows[0] | {"i": "", "m": ""} == {
        "l": [1, 2], "s": {"a": 1}, "m": "", "d": "1.5", "b": "6162", "i": "", "n": None, "x": None,
        "t": "2025-01-02", "y": True,
    }  # fmt: skip
    text = command("sql", query, "--db", db, "--format", "csv")[0].decode()
    assert '"[1,2]"' in text
    assert command("sql", query, "--db", db)[0].decode().count("\n") >= 3
    assert command("sql", "FROM drops", "--db", db, "--format", "json")[0] == b"[]\n"


def test_elasticsearch_gives_jobs_alone_and_no_sql() -> None:
    from bulkscope_studio.sources.elasticsearch import ElasticsearchSource, client

    source: Source = ElasticsearchSource(client())
    with pytest.raises(bs.InvalidQuery, match="jobs"):
        source.export(BULK, "spans")
    with pytest.raises(bs.InvalidQuery, match="ES"):
        source.sql("SELECT 1", {}, 1)
    assert "elasticsearch" in resolve.SOURCES
