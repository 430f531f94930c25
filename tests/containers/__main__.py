"""``./run containers``: the stack in real containers, with what it needs made first; other words go to pytest."""

from __future__ import annotations

import os
import sys

from tests.containers import engine
from tests.engines import build

if __name__ == "__main__":
    if reason := engine.why_not():
        print(f"containers: {reason}", file=sys.stderr)
        sys.exit(1)
    if code := build.main([]):
        sys.exit(code)
    # In this process' place: one that waited would end at an interrupt, before the stack is down and the engine gone.
    os.execv(sys.executable, [sys.executable, "-m", "tests", "tests/containers", *sys.argv[1:]])
