"""Each engine's library, oldest and newest supported version, in an environment of its own, on a tiny real model.

The tests themselves are in ``engines/``: they need the library in their own process.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compatibility import matrix
from tests.compatibility.libraries import ENGINES, Engine
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "numpy")


@pytest.mark.timeout(1800)  # the first time an engine is compiled or a gigabyte is fetched
@pytest.mark.parametrize("library", ENGINES, ids=str)
def test_engine(library: Engine) -> None:
    try:
        python = venv(f"engine-{library.name}-{library.age}", ["-e", str(ROOT), *TOOLS, *library.requirements])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with {library}: {reason}")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "BULKSCOPE_", "PYTEST_"))}
    file = f"tests/compatibility/engines/{library.module}.py"
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", file],
        cwd=ROOT, env=kept, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
    version = subprocess.run(
        [str(python), "-c", f"import importlib.metadata as m; print(m.version('{library.name}'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    matrix.note(library.name, version, *library.numbers)
