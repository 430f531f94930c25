"""``./run``: what it says, what it asks for, and that a second start installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("demo", "test", "bench", "engines", "containers", "stack", "lint", "docs")
TOOLS = ("sh", "dirname", "cat", "cksum", "rm", "env")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the script, and a PATH (``bin``) with only what the script itself needs."""
    for name in ("run", "uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool, path="/usr/bin:/bin")
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def environment(project: Path) -> Path:
    """A ``.venv`` with a real Python; ``demo --help`` needs nothing beside the standard library."""
    folder = project / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(Path(sys.executable).resolve())
    return folder.parent


def recording_uv(project: Path) -> Path:
    """A ``uv`` that writes down how it was called."""
    calls = project / "uv-calls"
    uv = project / "bin" / "uv"
    uv.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >>{calls}\n')
    uv.chmod(0o755)
    return calls


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(project / "bin"), "HOME": str(project), "LANG": os.environ.get("LANG", "C.UTF-8")}
    return subprocess.run(["./run", *words], cwd=project, env=env, capture_output=True, text=True, check=False)


def test_alone_it_lists_what_it_can_do(project: Path) -> None:
    found = run(project)
    assert found.returncode == 0
    assert [line.split()[0] for line in found.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)


def test_an_unknown_command_is_refused(project: Path) -> None:
    found = run(project, "deploy")
    assert found.returncode == 1
    assert "'deploy'" in found.stderr
    assert "usage:" in found.stderr


def test_without_python_the_installing_command_is_named(project: Path) -> None:
    (project / "bin" / "apt-get").symlink_to(shutil.which("true") or "/bin/true")
    found = run(project, "demo")
    assert found.returncode == 1
    assert "sudo apt-get install python3" in found.stderr


def test_a_python_that_is_too_old_does_not_count(project: Path) -> None:
    old = project / "bin" / "python3.12"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    found = run(project, "demo")
    assert found.returncode == 1
    assert "Python 3.11 or newer is missing" in found.stderr


def test_a_second_start_installs_nothing(project: Path) -> None:
    environment(project)
    calls = recording_uv(project)
    first, second = run(project, "demo", "--help"), run(project, "demo", "--help")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "--exit" in second.stdout
    assert "installing" in first.stderr
    assert second.stderr == ""
    (call,) = calls.read_text().splitlines()
    assert call.startswith("sync --frozen --python ")
    assert call.endswith("--no-default-groups --group demo --extra studio")


def test_the_full_environment_serves_the_demo(project: Path) -> None:
    environment(project)
    calls = recording_uv(project)
    run(project, "test", "--version")
    found = run(project, "demo", "--help")
    assert found.returncode == 0
    (call,) = calls.read_text().splitlines()
    assert call.endswith("--all-extras")


def test_a_changed_lock_installs_again_and_takes_nothing_away(project: Path) -> None:
    environment(project)
    calls = recording_uv(project)
    run(project, "test", "--version")
    with (project / "uv.lock").open("a") as lock:
        lock.write("\n# changed\n")
    run(project, "demo", "--help")
    first, second = calls.read_text().splitlines()
    assert first == second
    assert second.endswith("--all-extras")


def test_a_failed_installation_leaves_no_stamp(project: Path) -> None:
    environment(project)
    uv = project / "bin" / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = --version ]\n')
    uv.chmod(0o755)
    found = run(project, "demo", "--help")
    assert found.returncode == 1
    assert "installing failed" in found.stderr
    assert not list((project / ".venv").glob(".bulkscope-*"))
