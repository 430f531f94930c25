"""A checkout starts whatever git does to line ends on the machine of whoever clones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def a_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: there is no .git")


def test_a_clone_that_turns_line_ends_into_crlf_starts(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    windows = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
    git(*windows, "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(clone))
    carrying = [
        name for name in git("-C", str(clone), "ls-files", "-z").split("\0")
        if name and not name.endswith((".png", ".bin", ".parquet")) and b"\r\n" in (clone / name).read_bytes()
    ]  # fmt: skip
    assert carrying == []
    for command in (("./run", "help"), ("sh", "./run", "help")):
        ended = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("usage: ./run COMMAND")


def test_every_tracked_file_has_lf_or_is_binary() -> None:
    wrong = []
    for line in git("ls-files", "--eol", "-z").split("\0"):
        kinds, _, name = line.partition("\t")
        text = kinds.split()[:1] in (["i/lf"], ["i/none"]) and kinds.rstrip().endswith(" eol=lf")
        if name and not text and not kinds.rstrip().endswith("attr/-text"):
            wrong.append(line)
    assert wrong == []
