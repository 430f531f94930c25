"""Files that are made of a source and committed: the command line of what makes them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


class BadSource(ValueError):
    """A source file is wrong; the message says where, and what to write."""


def main(
    arguments: list[str] | None, program: str, about: str, folder: Path, suffix: str,
    built: Callable[[], Mapping[str, str]],
) -> int:  # fmt: skip
    """Bring the files of a folder with a suffix to what ``built`` gives by their names, or with ``--check`` compare.

    Returns 1 where the source is wrong, and with ``--check`` where something would change.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 when something would change")
    check = parser.parse_args(arguments).check
    try:
        wanted = built()
    except BadSource as error:
        print(error, file=sys.stderr)
        return 1
    have = {path.name: path.read_text(encoding="utf-8") for path in folder.glob(f"*{suffix}")}
    changed = sorted(name for name in wanted if wanted[name] != have.get(name))
    removed = sorted(name for name in have if name not in wanted)
    if check:
        for name in changed + removed:
            print(f"differs: {folder.name}/{name}; run python -m {program}", file=sys.stderr)
        return 1 if changed or removed else 0
    folder.mkdir(exist_ok=True)
    for name in changed:
        (folder / name).write_text(wanted[name], encoding="utf-8")
        print(f"written: {folder.name}/{name}")
    for name in removed:
        (folder / name).unlink()
        print(f"removed: {folder.name}/{name}")
    return 0
