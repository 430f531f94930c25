"""llama.cpp's real server on the model of ``gguf_tiny``, in this process and over HTTP."""

from __future__ import annotations

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
