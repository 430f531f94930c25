"""What several tests of the studio begin with; and each draws the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from bulkscope_studio.storage.store import Store
from tests.studio.browsing import browser, empty, page  # noqa: F401 (fixtures)
from tests.studio.sample import fill

# Derandomized, without deadlines, and without the check that drawing is fast: a loaded machine fails no test.
settings.load_profile("ci")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A store's file with the sample's bulks, of 12 jobs each."""
    path = tmp_path / "s.duckdb"
    store = Store(path)
    fill(store.connection(), jobs=12)
    store.close()
    return path
