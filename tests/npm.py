"""Packages of npm that tests use, installed once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TYPESCRIPT = "typescript@7.0.2"
AXE = "axe-core@4.14.1"


def installed(*packages: str) -> Path:
    """Return the folder ``node_modules`` with these packages, each ``name@version``."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed; on Debian: apt-get install npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "npm"
    root = cache / "+".join(each.replace("/", "-") for each in sorted(packages))
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same one
        if not (root / "complete").exists():
            (root / "package.json").write_text("{}")
            words = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
            subprocess.run(words, cwd=root, check=True, capture_output=True)
            (root / "complete").touch()
    return root / "node_modules"
