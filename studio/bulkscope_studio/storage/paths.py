"""Where the studio keeps its file when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path


def default_db() -> Path:
    """Return the store's path: ``$BULKSCOPE_DB``, else ``bulkscope.duckdb`` in the user's data folder."""
    configured = os.environ.get("BULKSCOPE_DB")
    return Path(configured) if configured else user_data_path("bulkscope") / "bulkscope.duckdb"
