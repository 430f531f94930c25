"""Each engine's library, oldest and newest supported version, in an environment of its own, on a tiny real model.

The tests themselves are in ``engines/``: they need the library in their own process.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compatibility import matrix
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "numpy")


@dataclass(frozen=True)
class Library:
    """One library at one version, and which of the thirteen numbers its tests look at."""

    name: str
    age: str
    module: str
    requirements: tuple[str, ...]
    numbers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.age}"


OWN = ("7", "8", "9", "10", "11", "12")
LIBRARIES = [
    Library("transformers", "oldest", "engine_transformers", ("transformers==4.40.*", "torch<2.6", "numpy<2"), OWN),
    Library("transformers", "newest", "engine_transformers", ("transformers", "torch"), OWN),
    Library("llama-cpp-python", "newest", "engine_llama_cpp", ("llama-cpp-python", "gguf"), OWN),
    Library("openai", "oldest", "engine_openai", ("openai==1.30.*", "httpx<0.28", "xllamacpp", "gguf"),
            ("7", "10", "11", "12")),
    Library("openai", "newest", "engine_openai", ("openai", "xllamacpp", "gguf"), ("7", "10", "11", "12")),
]  # fmt: skip


@pytest.mark.timeout(1800)  # the first time an engine is compiled or a gigabyte is fetched
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_engine(library: Library) -> None:
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
