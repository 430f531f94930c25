"""What several tests of the studio begin with; and hypothesis draws as ``tests.chance`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkscope_studio.storage.store import Store
from tests import chance
from tests.studio.browsing import browser, empty, page  # noqa: F401 (fixtures)
from tests.studio.sample import fill

chance.steady()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A store's file with the sample's bulks, of 12 jobs each."""
    path = tmp_path / "s.duckdb"
    store = Store(path)
    fill(store.connection(), jobs=12)
    store.close()
    return path
