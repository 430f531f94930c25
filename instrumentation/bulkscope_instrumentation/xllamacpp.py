"""xllamacpp: an inference span for each call of the llama.cpp server that lives in this process.

Tokens are the engine's own (``usage``, else ``timings``), times of prefill and decode are its ``timings``.
A stream is asked for its timings with every chunk, so that one which the caller stops early has counts too;
what the caller did not ask for is taken out of the chunks again.
llama.cpp answers a bad prompt or an error of its own with an ``error`` object and raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.inferences import Inference
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _llm_answers as answers

_OPERATIONS = {"handle_chat_completions": "chat", "handle_completions": "text_completion"}

# llama.cpp's request field: timings and counts with every chunk, not with the last alone.
_PER_TOKEN = "timings_per_token"

# The server takes no attributes and no weak references: the model it was made for is kept by its id. An id
# that is used again is that of a new server, which puts its own model here.
_models: dict[int, str] = {}


class XllamacppInstrumentor(Instrumentor):
    """Instruments xllamacpp's ``Server``."""

    module = "xllamacpp"
    requires = ("xllamacpp >= 2025.1",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the server's constructor and its two ways to generate."""
        server = module.Server
        self.replace(server, "__init__", _constructor(server.__init__))
        for name, operation in _OPERATIONS.items():
            self.wrap(server, name, _call(operation))


def _constructor(original: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if original is not object.__init__:
            original(self, *args, **kwargs)
        try:
            parameters = args[0] if args else next(iter(kwargs.values()))
            _models[id(self)] = Path(str(parameters.model.path)).stem
        except Exception:
            report("the model of an xllamacpp server")

    return init


def _call(operation: str) -> Callable[..., Any]:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            call = _Call(operation, instance, args, kwargs)
        except Exception:
            report("a call of xllamacpp")
            return wrapped(*args, **kwargs)
        try:
            answer = wrapped(*call.args, **call.kwargs)
        except BaseException as error:
            call.finish(error)
            raise
        call.read(answer)
        call.finish()
        return answer

    return wrapper


class _Call:
    """One call: its arguments with the callback watched, and what the engine's answers say."""

    def __init__(self, operation: str, server: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs.get("prompt", next(iter(kwargs.values()), None))
        body = answers.mapping(given)
        self.inference = Inference(
            model=str(body.get("model") or _models.get(id(server), "unknown")),
            provider="llama_cpp",
            operation=operation,
            max_tokens=answers.limit(body.get("max_tokens", body.get("n_predict"))),
        )
        self._stream = body.get("stream") is True
        self._added = self._stream and body is given and _PER_TOKEN not in body
        asked = {**body, _PER_TOKEN: True} if self._added else given
        self.args = tuple(self._replaced(value, given, asked) for value in args)
        self.kwargs = {key: self._replaced(value, given, asked) for key, value in kwargs.items()}
        self.inference.start()

    def _replaced(self, value: Any, given: Any, asked: Any) -> Any:
        return asked if value is given else self._watch(value) if callable(value) else value

    def _watch(self, callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def watched(chunk: Any) -> Any:
            self.read(chunk)
            if self._added and isinstance(chunk, dict) and not answers.finish_reason(chunk):
                chunk.pop("timings", None)
            stop = callback(chunk)
            if stop is True and self.inference.finish_reason is None:
                self.inference.finish_reason = "cancelled"
            return stop

        return watched

    @guarded
    def read(self, answer: Any) -> None:
        """Take what one answer of the engine, whole or a chunk of a stream, says of the call."""
        inference = self.inference
        for part in answer if isinstance(answer, list) else [answer]:
            found = answers.mapping(part)
            # Only a stream tells when its first token came.
            if self._stream and inference.ttft is None and answers.has_text(found):
                inference.ttft = inference.elapsed()
            answers.read(found, inference)

    @guarded
    def finish(self, error: BaseException | None = None) -> None:
        """End the inference. llama.cpp's prefill ends when the first token is sampled."""
        if self.inference.ttft is None:
            self.inference.ttft = self.inference.prefill
        self.inference.finish(error)
