"""The store in memory into which what Elasticsearch has of a bulk is read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bulkscope_studio import elastic
from bulkscope_studio.setup.client import Client
from tests import sink


def test_what_does_not_fit_into_memory_is_in_a_private_folder_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with sink.serve() as empty:
        empty.gets = 404  # no data stream is there yet
        with elastic.Elastic(Client("Elasticsearch", empty.url)).loaded("any") as (store, _):
            folder = Path(store.query("SELECT current_setting('temp_directory') AS folder")["folder"][0].as_py())
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            cursor = store.connection()
            cursor.execute("SET GLOBAL memory_limit = '32MB'")
            cursor.execute("CREATE TEMP TABLE large AS SELECT range AS a, hash(range) AS b FROM range(4000000)")
            assert sum(path.stat().st_size for path in folder.rglob("*")) > 2**20, "nothing was too large for memory"
            cursor.close()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
