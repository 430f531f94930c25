"""``./run test``: the tests that need nothing further, with ``--all`` every test and none skipped.

With ``--chance`` those that draw by chance draw anew, ten times as much; with ``--chance=50 --seed=7`` fifty times, and
what that seed draws.

Tests are shared among processes, about as many as there are cores; those that measure their own process then run alone.
Other words go to pytest; where they choose tests, exactly these run, one after the other, whatever their markers.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chance import SEED_IN, TIMES_IN
from tests.compatibility import matrix
from tests.parts import ALONE, CHANCE, LEFT_OUT

ROOT = Path(__file__).resolve().parents[1]
# More processes than this want more memory than they save time: with --all each may hold an Elasticsearch of 1 GB.
MOST = 8
CHOICES = ("-k", "-m", "--lf", "--last-failed", "--sw", "--stepwise", "--deselect", "--pyargs")
QUESTIONS = ("-h", "--help", "-V", "--version", "--co", "--collect-only", "--markers", "--fixtures", "--cache-show")
PASSED, FAILED, NONE_FOUND = 0, 1, 5


def chosen(words: Sequence[str], folder: Path) -> bool:
    """Tell whether the words for pytest choose tests, or ask for something else than running them."""
    return any(
        word.partition("=")[0] in (*CHOICES, *QUESTIONS)
        or (word[:2] in ("-k", "-m") and word[:2] != word)
        or _is_ours(folder / word.partition("::")[0])
        for word in words
    )


def _is_ours(path: Path) -> bool:
    found = path.resolve()
    return path.exists() and (found == ROOT or found.is_relative_to(ROOT / "tests"))


def passes(words: Sequence[str], everything: bool, folder: Path) -> list[tuple[str, list[str]]]:
    """Return each run of pytest that the words ask for: what it is, and its arguments."""
    parallel = ["--dist", "loadgroup", "-n"]
    if chosen(words, folder):
        return [("the tests that were asked for", [*parallel, "0", *words])]
    some = " or ".join(LEFT_OUT)
    # One process more than cores, since many tests wait for what they have started; not beside servers of a gigabyte.
    found = [("what needs nothing further", f"not ({some})", _processes() + 1)]
    if everything:
        found.append(("the rest", some, _processes()))
    return [
        (f"{part}, {how}", [*parallel, str(number), "-m", f"({markers}) and {which}", *words])
        for part, markers, processes in found
        for how, number, which in (("side by side", processes, f"not {ALONE}"), ("alone", 0, ALONE))
    ]


def by_chance(words: Sequence[str], seed: int) -> list[tuple[str, list[str]]]:
    """Return the one run of what draws by chance; there is no limit of time, since it depends on how much is drawn."""
    how = ["--dist", "loadgroup", "-n", str(_processes()), "--timeout=0", f"--hypothesis-seed={seed}"]
    return [("what draws by chance", [*how, "-m", CHANCE, *words])]


def option(name: str, default: int, words: list[str]) -> int | None:
    """Take ``name`` or ``name=NUMBER`` out of the words; return the number, or nothing where it is not there."""
    for word in words:
        given, equals, number = word.partition("=")
        if given == name:
            words.remove(word)
            if equals and not (number.isdecimal() and int(number)):
                sys.exit(f"test: {name} takes a whole number above 0, as in {name}={default}")
            return int(number) if equals else default
    return None


def _processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(cores, MOST))


def _pytest(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run pytest, which ends by itself when the terminal interrupts both; a SIGTERM is handed on."""
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], env=environment)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def main(words: list[str]) -> int:
    everything = "--all" in words
    words = [word for word in words if word != "--all"]
    times, seed = option("--chance", 10, words), option("--seed", 1, words)
    if times is None and seed is not None:
        sys.exit("test: --seed goes with --chance")
    if times is not None and everything:
        sys.exit("test: either --all, which draws the same each time, or --chance")
    if seed is None:
        seed = 1 + secrets.randbelow(10**9)
    todo = passes(words, everything, Path.cwd()) if times is None else by_chance(words, seed)
    codes = []
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "compatibility.jsonl"
        environment = {**os.environ, matrix.NOTES_IN: str(notes)}
        # Images of Python set it; without its files each of the hundreds of processes compiles all that it imports.
        # To start a studio takes 1.7 s of CPU instead of 0.7 s then, to collect the tests 13 s instead of 4 s.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment.pop(SEED_IN, None)
        environment.pop(TIMES_IN, None)
        if times is not None:
            environment |= {SEED_IN: str(seed), TIMES_IN: str(times)}
        if everything:
            environment.setdefault("BULKSCOPE_NO_SKIP", "1")
        for number, (what, arguments) in enumerate(todo, 1):
            if len(todo) > 1:
                print(f"test: {number} of {len(todo)}: {what}", file=sys.stderr)
            codes.append(_pytest(arguments, environment))
            if codes[-1] not in (PASSED, FAILED, NONE_FOUND) or (FAILED in codes and number % 2 == 0):
                break
        if times is not None:
            print("test: the same again:", *("./run test", f"--chance={times} --seed={seed}", *words), file=sys.stderr)
        if len(codes) < len(todo):
            print(f"test: {len(todo) - len(codes)} of {len(todo)} did not run", file=sys.stderr)
        worst = max((code for code in codes if code != NONE_FOUND), default=NONE_FOUND)
        if worst == PASSED and times is None:
            matrix.write(notes)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
