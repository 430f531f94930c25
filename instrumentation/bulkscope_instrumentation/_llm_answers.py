"""What servers of language models answer: OpenAI's form, llama.cpp's additions to it, Ollama's, and Anthropic's.

An answer is a parsed JSON object, the whole or a chunk of a stream. What it does not say stays None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bulkscope._jobs.inferences import Inference


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, parsed if it is text; an empty one for anything else."""
    if isinstance(value, str | bytes):
        if value.lstrip()[:1] not in ("{", b"{"):
            return {}
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def limit(value: Any) -> int | None:
    """Return a limit of tokens as it was asked for; None for one that is no number, or -1 for none at all."""
    return value if isinstance(value, int) and value >= 0 else None


# Where a chunk has what the model has generated: text, what it thinks, and the tools that it calls.
_GENERATED = ("content", "text", "reasoning_content", "reasoning", "thinking", "tool_calls", "function_call", "refusal")


def has_text(chunk: Mapping[str, Any]) -> bool:
    """Tell whether a chunk of a stream brings something generated: text, a thought, or the call of a tool."""
    for choice in chunk.get("choices") or ():
        if choice.get("text") or any(mapping(choice.get("delta")).get(key) for key in _GENERATED):
            return True
    # llama-server's own form, Ollama's two, Anthropic's events, and those of the responses API.
    message, response = mapping(chunk.get("message")), chunk.get("response")
    return bool(
        chunk.get("content")
        or chunk.get("thinking")
        or (response if isinstance(response, str) else None)
        or (any(message.get(key) for key in _GENERATED) and chunk.get("type") != "message_start")
        or chunk.get("type") == "content_block_delta"
        or (str(chunk.get("type")).startswith("response.") and str(chunk.get("type")).endswith(".delta"))
    )


def finish_reason(answer: Mapping[str, Any]) -> str | None:
    """Return why the engine stopped, where the answer says so."""
    for choice in answer.get("choices") or ():
        if choice.get("finish_reason"):
            return str(choice["finish_reason"])
    if answer.get("done_reason"):
        return str(answer["done_reason"])
    if answer.get("object") == "response" and answer.get("status") in ("completed", "incomplete"):
        return "stop" if answer["status"] == "completed" else "length"
    if answer.get("stop_reason"):  # Anthropic's
        return str(answer["stop_reason"])
    if answer.get("stop_type"):
        return {"eos": "stop", "word": "stop", "limit": "length"}.get(answer["stop_type"], str(answer["stop_type"]))
    return None


def read(answer: Mapping[str, Any], inference: Inference) -> None:
    """Take what one answer says of tokens, times, the model and the end."""
    # The events of the responses API, and Anthropic's, carry the answer inside.
    for inside in ("response", "message", "delta"):
        inner = answer.get(inside)
        if isinstance(inner, Mapping) and (inside == "response" or "type" in answer):
            answer = {**inner, "usage": answer.get("usage") or inner.get("usage")}
    inference.finish_reason = finish_reason(answer) or inference.finish_reason
    if answer.get("object") and answer.get("model"):
        # llama.cpp gives the file it has loaded; where that lies is nobody's business.
        name = str(answer["model"])
        inference.response_model = Path(name).stem if name.endswith(".gguf") else name
    read_timings(mapping(answer.get("timings")), inference)
    _read_ollama(answer, inference)
    read_usage(mapping(answer.get("usage")), inference)
    if answer.get("error"):
        error = mapping(answer["error"])
        code = error.get("code")
        inference.fail(*failure(code if isinstance(code, int) else 500, answer))


def read_timings(timings: Mapping[str, Any], inference: Inference) -> None:
    """Take llama.cpp's ``timings``: milliseconds, and the tokens computed and cached."""
    if timings.get("prompt_ms") is not None:
        inference.prefill = timings["prompt_ms"] / 1e3
    if timings.get("predicted_ms") is not None:
        inference.decode = timings["predicted_ms"] / 1e3
    # A stream without `usage` has its counts here: cached and computed tokens apart.
    if timings.get("predicted_n") is not None:
        inference.output_tokens = timings["predicted_n"]
    if timings.get("prompt_n") is not None:
        inference.cached_tokens = timings.get("cache_n")
        inference.input_tokens = timings["prompt_n"] + (inference.cached_tokens or 0)


def _read_ollama(answer: Mapping[str, Any], inference: Inference) -> None:
    if answer.get("prompt_eval_count") is not None:
        inference.input_tokens = answer["prompt_eval_count"]
    if answer.get("prompt_eval_cached_count") is not None:
        inference.cached_tokens = answer["prompt_eval_cached_count"]
    if answer.get("eval_count") is not None:
        inference.output_tokens = answer["eval_count"]
    if answer.get("prompt_eval_duration") is not None:
        inference.prefill = answer["prompt_eval_duration"] / 1e9
    if answer.get("eval_duration") is not None:
        inference.decode = answer["eval_duration"] / 1e9


def read_usage(usage: Mapping[str, Any], inference: Inference) -> None:
    """Take OpenAI's ``usage``, of chat, embeddings and the responses API, and Anthropic's."""
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    if usage.get("input_tokens") is not None and (read is not None or written is not None):
        # Anthropic's `input_tokens` are those that were neither read from the cache nor written to it.
        inference.cached_tokens = read
        inference.input_tokens = usage["input_tokens"] + (read or 0) + (written or 0)
        inference.output_tokens = usage.get("output_tokens", inference.output_tokens)
        return
    inference.input_tokens = usage.get("prompt_tokens", usage.get("input_tokens", inference.input_tokens))
    inference.output_tokens = usage.get("completion_tokens", usage.get("output_tokens", inference.output_tokens))
    details = mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    if details.get("cached_tokens") is not None:
        inference.cached_tokens = details["cached_tokens"]


def failure(status: int, answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return ``error.type`` and failure domain of an answer with an error; ``status`` as of HTTP."""
    error = answer.get("error")
    kind = mapping(error).get("type") or status
    if status in (408, 504):
        return str(kind), "timeout"
    if status in (429, 502, 503):
        return str(kind), "infra"
    if status in (401, 403, 404, 405):
        return str(kind), "code"
    return str(kind), "input" if 400 <= status < 500 else "model"
