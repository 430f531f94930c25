"""``BULKSCOPE_NO_SKIP=1``, as the continuous integration sets it: what would be skipped fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("the thing is missing")

@pytest.mark.skipif(True, reason="a condition")
def test_is_skipped(): pass

@pytest.mark.xfail
def test_is_known_to_fail(): assert False
"""


def summary(folder: Path, no_skip: str) -> str:
    env = os.environ | {"BULKSCOPE_NO_SKIP": no_skip, "PYTHONPATH": str(ROOT)}
    words = [
        "-q",
        "-ra",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        str(folder),
    ]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout


@pytest.mark.parametrize(
    ("no_skip", "last"),
    [("0", "1 passed, 2 skipped, 1 xfailed"), ("1", "1 failed, 1 passed, 1 xfailed, 1 error")],
)
def test_a_skip_fails_where_it_is_forbidden(tmp_path: Path, no_skip: str, last: str) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    found = summary(tmp_path, no_skip)
    assert last in found
    assert "the thing is missing" in found


@pytest.mark.parametrize("no_skip", ["0", "1"])
def test_what_a_machine_cannot_do_may_be_skipped_everywhere(tmp_path: Path, no_skip: str) -> None:
    (tmp_path / "test_some.py").write_text("from tests import parts\ndef test_it(): parts.cannot_be_here('no root')\n")
    found = summary(tmp_path, no_skip)
    assert "1 skipped" in found
    assert "no root" in found


def test_a_module_that_is_skipped_fails_as_well(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("no_such_module")\n')
    assert "1 skipped" in summary(tmp_path, "0")
    assert "1 error" in summary(tmp_path, "1")
