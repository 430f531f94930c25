"""Virtual environments with other versions than ours, made with uv once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts import demand


class Unavailable(Exception):
    """The environment cannot be made here; the text says why."""


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "venvs"


def venv(name: str, requirements: list[str], base: Path = Path(sys.executable)) -> Path:
    """Return the Python of an environment with exactly ``requirements`` (made on first use, by ``base``)."""
    demand("compat")
    made_by = [] if base == Path(sys.executable) else [str(base)]
    # What a folder is installed from: its entry points and dependencies are written down as it is, and not read again.
    folders = [Path(word, "pyproject.toml") for word in requirements if Path(word, "pyproject.toml").is_file()]
    installed = [path.read_text() for path in folders]
    key = hashlib.sha256("\n".join([sys.version, *made_by, *requirements, *installed]).encode()).hexdigest()[:12]
    root = cache_root() / f"{name}-{key}"
    python, complete = root / "bin" / "python", root / "complete"
    if complete.exists():
        return python
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making the same one
        if not complete.exists():
            _make(root, python, requirements, base)
            complete.touch()
    return python


def _make(root: Path, python: Path, requirements: list[str], base: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise Unavailable("uv is not on the PATH (python -m pip install uv)")
    shutil.rmtree(root, ignore_errors=True)
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    for command in (
        [uv, "venv", "--quiet", "--python", str(base), str(root)],
        [uv, "pip", "install", "--quiet", "--no-config", "--python", str(python), *requirements],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{' '.join(command[:3])}: {done.stderr.strip()[-500:]}")
