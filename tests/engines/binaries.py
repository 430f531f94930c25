"""The real servers that ``./run engines`` builds, in a cache outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parts import demand


def cache() -> Path:
    """Return the folder that ``./run engines`` fills."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "bulkscope" / "engines"


def binary(name: str) -> Path:
    """Return the path of ``otelcol``, ``prometheus`` or ``promtool``; skips the test where there is none."""
    demand("engines")
    path = cache() / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not built; ./run engines builds it (needs Go)")
    return path
