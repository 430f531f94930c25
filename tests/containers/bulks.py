"""Bulks sent to the demo's API in its container, and waiting for what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.containers.stack import Stack, call
from tests.processes import PATIENCE_S

MODELS = ("smollm2-135m-q4_1", "smollm2-135m-q8_0")
PROMPTS = ("Name a colour.", "What is two and two?", "Say hello.")
# Containers share the machine with whatever else tests it.
LONG_S = 2 * PATIENCE_S


def eventually(what: Callable[[], Any], seconds: float = LONG_S, pause: float = 1.0) -> Any:
    """Return the first true value of ``what``; an error while it is asked counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := what():
                return value
            failure: object = "nothing"
        except (OSError, KeyError, ValueError, AssertionError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {seconds:.0f} s: {failure}")
        time.sleep(pause)


def send(stack: Stack, name: str, model: str, prompts: tuple[str, ...] = PROMPTS, tokens: int = 16) -> None:
    """Give the API a bulk; raises ``ValueError`` with its answer when it does not take it."""
    body = {"bulkId": name, "model": model, "prompts": list(prompts), "max_tokens": tokens}
    call(f"http://127.0.0.1:{stack.port('API_PORT')}/bulks", body)


def done(stack: Stack, name: str) -> dict[str, Any]:
    """Wait until no job of a bulk is open, and return what the API says of it."""

    def state() -> Any:
        found = call(f"http://127.0.0.1:{stack.port('API_PORT')}/bulks/{name}")
        return found["done"] + found["failed"] == found["size"] and found

    found: dict[str, Any] = eventually(state)
    return found
