"""The store in memory into which what Elasticsearch has of a bulk is read."""

from __future__ import annotations

import re
import stat
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.sources import documents
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource, told
from bulkscope_studio.sources.source import Trouble
from bulkscope_studio.storage import tables
from bulkscope_studio.storage.store import Store
from tests import sink


def test_what_does_not_fit_into_memory_is_in_a_private_folder_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with sink.serve() as empty:
        empty.gets = 404  # no data stream is there yet
        with ElasticsearchSource(Client("Elasticsearch", empty.url)).loaded("any") as (store, _):
            folder = Path(store.query("SELECT current_setting('temp_directory') AS folder")["folder"][0].as_py())
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            cursor = store.connection()
            cursor.execute("SET GLOBAL memory_limit = '32MB'")
            cursor.execute("CREATE TEMP TABLE large AS SELECT range AS a, hash(range) AS b FROM range(4000000)")
            assert sum(path.stat().st_size for path in folder.rglob("*")) > 2**20, "nothing was too large for memory"
            cursor.close()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_the_store_in_memory_cannot_do_is_trouble_with_what_to_do() -> None:
    store = Store(Path(":memory:"), memory_limit="32MB")
    cursor = store.connection()
    cursor.execute("SET GLOBAL temp_directory = ''")
    with pytest.raises(Trouble, match=r"needs more room .*TMPDIR"), told():
        cursor.execute("CREATE TEMP TABLE large AS SELECT range AS a, hash(range) AS b FROM range(9000000)")
    with pytest.raises(Trouble, match="cannot be put into tables"), told():
        cursor.execute("INSERT INTO spans SELECT 1")
    with pytest.raises(Trouble, match="ask for less"), told():
        store.query("SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range < b.range", seconds=0.1)
    cursor.close()
    store.close()


def test_what_is_not_read_of_spans_no_answer_needs() -> None:
    made = {"start_ns", "end_ns", "resource_id", "worker"}
    unread = {name for name, _ in tables.SPANS} - set(documents.SPAN) - made
    elsewhere = {name for table in ("logs", "points", "resources", "ingest") for name, _ in tables.TABLES[table]}
    assert unread - elsewhere >= documents.SHOWN_ONLY
    folder = Path(str(files("bulkscope_studio.storage"))) / "queries"
    queries = [*folder.glob("report_*.sql"), *folder.glob("explain_*.sql"), *folder.glob("capacity_*.sql")]
    assert len(queries) > 10
    for path in (*queries, folder / "lost.sql", folder / "bulk_summary.sql"):
        named = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        assert not named & (unread - elsewhere), path.name


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("i", [1, [2, 3], 2**70, None, 4], [1, None, None, None, 4]),
        ("n", [1, 2**40], [1, None]),
        ("s", ["a", ["b", "c"], 7], ["a", None, None]),
        ("d", [0.5, float("inf"), [1.0], 3], [0.5, float("inf"), None, 3.0]),
        ("b", [True, "x", None], [True, None, None]),
    ],
)
def test_a_value_of_another_type_is_absent_and_the_others_are_not(
    kind: str, values: list[object], expected: list[object]
) -> None:
    found = documents.array(values, kind)
    assert found.type == tables.TYPES[kind]
    assert found.to_pylist() == expected


def test_a_span_that_never_ends_and_one_with_lists_are_taken() -> None:
    columns = {name: documents.SPAN[name] for name in ("span_id", "kind", "duration", "host_name", "pid", "queue")}
    values = {
        "span_id": ["a", "b"], "kind": ["Consumer", None], "duration": [2**63 - 1, [1, 2]],
        "host_name": [["h", "i"], "h"], "pid": [1, 2], "queue": [None, "q"],
    }  # fmt: skip
    page = {"start_ms": [1_790_000_000_000] * 2, **{columns[name]: column for name, column in values.items()}}
    found, resources = documents.spans(page, columns, {})
    ends = pa.array(found["end_ns"]).to_pylist()
    assert ends[0] > 2**62
    assert ends[1] == 1_790_000_000_000 * 10**6
    assert found["kind"] == ["CONSUMER", "UNSPECIFIED"]
    assert found["worker"][1] == "h:2"
    assert len(resources) == 2
