"""``./run bench``: every benchmark, one after the other; the figures go to ``bench/README.md`` by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ALL = (
    "overhead",
    "job",
    "startup",
    "outage",
    "kills",
    "ingest",
    "pages",
    "page",
    "stored",
    "verdicts",
    "explain",
    "endings",
    "endings_live",
    "elastic",
    "capacity",
    "sustained",
    "soak",
)


def main() -> int:
    given = sys.argv[1:]
    # What follows the first option is that benchmark's: ./run bench pages --spans 10000000
    at = next((n for n, word in enumerate(given) if word.startswith("-")), len(given))
    chosen, options = given[:at] or list(ALL), given[at:]
    for name in chosen:
        if name not in ALL:
            print(f"there is no benchmark {name!r}; there are {', '.join(ALL)}", file=sys.stderr)
            return 2
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        done = subprocess.run([sys.executable, FOLDER / f"{name}.py", *options])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
