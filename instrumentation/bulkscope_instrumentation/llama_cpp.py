"""llama-cpp-python: an inference span for each completion, whole or streamed, a chat's too.

Tokens are counted where the engine yields them one by one, so that a stream, which has no ``usage``, is exact;
the token that ends a text is not counted, as in ``usage``. Prefill ends with the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.inferences import Inference
from bulkscope._safe import guarded, report
from bulkscope_instrumentation import _llm_answers as answers

_operation: ContextVar[str] = ContextVar("bulkscope-llama-cpp-operation", default="text_completion")
_CALL = "_bulkscope_call"
# Calls whose streams were forgotten. Its `put` may be interrupted by another, which `Queue`'s may not.
_abandoned: SimpleQueue[_Call] = SimpleQueue()


class LlamaCppInstrumentor(Instrumentor):
    """Instruments llama-cpp-python 0.2.50 and later."""

    module = "llama_cpp.llama"
    name = "llama_cpp"
    requires = ("llama-cpp-python >= 0.2.50",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the ways to a completion, and the generator of its tokens."""
        self.wrap(module.Llama, "create_chat_completion", _chat)
        self.wrap(module.Llama, "create_completion", _completion)
        self.wrap(module.Llama, "generate", _generate)


def _chat(wrapped: Callable[..., Any], llama: Any, args: Any, kwargs: Any) -> Any:
    # The chat is written out as a prompt and completed: the span is made there.
    token = _operation.set("chat")
    try:
        return wrapped(*args, **kwargs)
    finally:
        _operation.reset(token)


class _Call:
    """One completion: its span and the tokens that the engine has yielded so far."""

    def __init__(self, llama: Any, kwargs: dict[str, Any]) -> None:
        self._llama = llama
        self._tokens = 0
        self._ended = False
        self.inference = Inference(
            model=Path(str(llama.model_path)).stem,
            provider="llama_cpp",
            operation=_operation.get(),
            max_tokens=answers.limit(kwargs.get("max_tokens")),
        ).start()

    def begin(self, prompt: int) -> None:
        self.inference.input_tokens = prompt
        self.inference.output_tokens = 0

    def token(self, end_of_text: bool) -> None:
        inference = self.inference
        if inference.prefill is None:
            inference.ttft = inference.prefill = inference.elapsed()
        inference.decode = inference.elapsed() - inference.prefill
        if not end_of_text:
            self._tokens += 1
        inference.output_tokens = self._tokens

    @guarded
    def read(self, answer: Any) -> None:
        """Take ``usage``, where there is one, and why it stopped."""
        found = answers.mapping(answer)
        self.inference.finish_reason = answers.finish_reason(found) or self.inference.finish_reason
        answers.read_usage(answers.mapping(found.get("usage")), self.inference)

    def cancel(self) -> None:
        """End the span of a stream that is left; one that came to its end has ended before."""
        if self.inference.finish_reason is None:
            self.inference.finish_reason = "cancelled"
        self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        """End the span, once."""
        if not self._ended:
            self._ended = True
            if vars(self._llama).get(_CALL) is self:
                del vars(self._llama)[_CALL]
            # Its only sign of a prompt that is too long is this text.
            too_long = isinstance(error, ValueError) and "context window" in str(error)
            self.inference.finish(error, "input" if too_long else None)


def _completion(wrapped: Callable[..., Any], llama: Any, args: Any, kwargs: Any) -> Any:
    try:
        while not _abandoned.empty():
            _abandoned.get_nowait().cancel()
        call = _Call(llama, kwargs)
        vars(llama)[_CALL] = call
    except Exception:
        report("a completion of llama-cpp-python")
        return wrapped(*args, **kwargs)
    try:
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        call.finish(error)
        raise
    if isinstance(result, dict):
        call.read(result)
        call.finish()
        return result
    call.inference.release()
    return _Stream(result, call)


class _Stream(Iterator[Any]):
    """The chunks of a stream on their way to the caller; its span ends with the last one, or when it is closed."""

    def __init__(self, chunks: Any, call: _Call) -> None:
        self._chunks, self._call = chunks, call

    def __next__(self) -> Any:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._call.finish()
            raise
        except BaseException as error:
            self._call.finish(error)
            raise
        self._call.read(chunk)
        return chunk

    def close(self) -> None:
        """Close the engine's generator and end the span."""
        try:
            self._chunks.close()
        finally:
            self._call.cancel()

    def __del__(self) -> None:
        # Run by the garbage collector it may be anywhere, inside a lock of ours or of the SDK too: it must
        # not take one. The span ends with the next completion.
        _abandoned.put(self._call)


def _generate(wrapped: Callable[..., Any], llama: Any, args: Any, kwargs: Any) -> Any:
    call = vars(llama).get(_CALL)
    tokens = wrapped(*args, **kwargs)
    if call is None:
        return tokens
    prompt = args[0] if args else kwargs.get("tokens", ())
    return _counted(tokens, len(prompt), llama, call)


def _counted(tokens: Any, prompt: int, llama: Any, call: _Call) -> Generator[int, Any, None]:
    guarded(call.begin)(prompt)
    end = guarded(llama.token_eos)()
    said = None
    try:
        while True:
            try:
                token = tokens.send(said)
            except StopIteration:
                return
            guarded(call.token)(token == end)
            said = yield token
    finally:
        tokens.close()
