"""``./run containers``: the stack in real containers, with what it needs made first; other words go to pytest."""

from __future__ import annotations

import subprocess
import sys

from tests.containers import engine
from tests.engines import build

if __name__ == "__main__":
    if reason := engine.why_not():
        print(f"containers: {reason}", file=sys.stderr)
        sys.exit(1)
    if code := build.main([]):
        sys.exit(code)
    words = ["-m", "tests", "tests/containers", *sys.argv[1:]]
    sys.exit(subprocess.run([sys.executable, *words], check=False).returncode)
