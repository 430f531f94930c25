"""llama.cpp's real server on the model of ``gguf_tiny``, in this process and over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xllamacpp

from tests.gguf_tiny import make

CONTEXT = 512
# Makes every token the letter "a". Left to chance, one in 259 ends the text, and most are bytes that are no text
# yet, which the server holds back: a stream may then bring none.
LETTERS = {str(3 + ord("a")): 100}


def serve(model: Path) -> Any:
    """Return a server of a tiny model, which is written to ``model``; it ends when nothing refers to it any more."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(make(model))
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = CONTEXT, 1, False
    parameters.cpuparams.n_threads = 1
    return xllamacpp.Server(parameters)


APART = """
import sys
from pathlib import Path
from tests.tiny_server import serve
server = serve(Path(sys.argv[1]))
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def apart(model: Path) -> Iterator[tuple[str, int]]:
    """Lend the address and the process id of such a server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", APART, str(model)], cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("http"):
                yield line.strip(), process.pid
                break
        else:
            raise AssertionError(f"the server ended with {process.wait()}")
    finally:
        process.kill()
        process.wait()
