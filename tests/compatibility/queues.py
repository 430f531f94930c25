"""The environment of a queue's library, and the applications that run in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compatibility.libraries import Queue
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("apps")


def python_of(library: Queue) -> Path:
    """Return the Python of an environment with the library; the test is skipped where none can be made."""
    try:
        return venv(f"queue-{library}".replace(" ", "-"), ["-e", str(ROOT), *library.requirements])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with {library}: {reason}")
