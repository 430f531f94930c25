"""llama.cpp in this process: each model is loaded once, on first use."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xllamacpp

from demo import models, settings

logger = logging.getLogger(__name__)


class PromptTooLong(ValueError):
    """Prompt and answer do not fit the context that the model was loaded for."""


class EngineError(RuntimeError):
    """The engine answered with an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote, why it stopped, and its tokens."""

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


def chat(model: str, prompt: str, max_tokens: int) -> Answer:
    """Ask ``model``; raises PromptTooLong, EngineError, or KeyError for a model that is not known."""
    server = _load(model, models.catalogue()[model])
    answer = server.handle_chat_completions(
        {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    )
    error = answer.get("error")
    if error:
        too_long = error.get("type") == "exceed_context_size_error"
        raise (PromptTooLong if too_long else EngineError)(str(error.get("message", error)))
    choice, usage = answer["choices"][0], answer["usage"]
    return Answer(
        text=choice["message"].get("content") or "",
        finish_reason=choice["finish_reason"],
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
    )


@cache
def _load(model: str, path: Path) -> xllamacpp.Server:
    if not path.exists():
        # The engine would end the process.
        raise EngineError(f"model {model}: there is no file {path}")
    began = time.monotonic()
    logger.info("loading model %s", model)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = settings.CONTEXT
    parameters.n_parallel = 1
    # One thread a worker: several workers that share the cores are slower with more.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    logger.info("model %s loaded in %.1f s", model, time.monotonic() - began)
    return server
