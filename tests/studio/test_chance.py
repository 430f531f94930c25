"""What is drawn by chance is the same each time, whatever was imported before; and is not where that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import by_chance, main, option
from tests.chance import SEED_IN, TIMES_IN

ROOT = Path(__file__).resolve().parents[2]
# With a number of its own for hypothesis to find: it looks through the modules that are below the current folder.
DRAWS = """
import sys
from hypothesis import given, strategies as st
from tests import chance
if sys.argv[1] == "after":
    import beside

seen = [chance.rng(3).getrandbits(30)]

chance.steady()

@chance.draws(60)
@given(st.lists(st.integers(0, 10**6)), st.text(), st.floats())
def test(numbers, text, number):
    seen.append((numbers, text, number))

test()
print(repr(seen))
"""


def drawn(folder: Path, how: str = "", **environment: str) -> str:
    """Return what a process draws which has imported ``beside`` first, or has not."""
    (folder / "beside.py").write_text("\n".join(f"n{number} = {700_000 + number}" for number in range(400)))
    (folder / "draws.py").write_text(DRAWS)
    kept = {key: value for key, value in os.environ.items() if key not in (SEED_IN, TIMES_IN)}
    return subprocess.run(
        [sys.executable, "draws.py", how], cwd=folder, env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_the_same_is_drawn_whatever_was_imported_before(tmp_path: Path) -> None:
    once = drawn(tmp_path)
    assert len(once) > 1000
    assert drawn(tmp_path, "after") == once
    assert drawn(tmp_path, **{SEED_IN: "5"}) != once


def test_asked_for_more_is_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path, **{SEED_IN: "5", TIMES_IN: "4"}).count("[") > 2 * drawn(tmp_path).count("[")


def test_chance_is_a_run_of_its_own() -> None:
    ((_, arguments),) = by_chance(["-x"], 7)
    assert arguments[-3:] == ["-m", "chance or hypothesis", "-x"]
    assert "--hypothesis-seed=7" in arguments


@pytest.mark.parametrize(
    ("words", "number", "left"),
    [([], None, []), (["-x"], None, ["-x"]), (["--chance"], 10, []), (["-x", "--chance=3"], 3, ["-x"])],
)
def test_how_much_more(words: list[str], number: int | None, left: list[str]) -> None:
    assert option("--chance", 10, words) == number
    assert words == left


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--chance=many"], "--chance takes a whole number"), (["--chance=0"], "--chance takes a whole number"),
        (["--seed=3"], "--seed goes with --chance"), (["--all", "--chance"], "either --all"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(words: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        main(words)
