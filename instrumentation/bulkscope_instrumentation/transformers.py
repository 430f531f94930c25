"""transformers: an inference span for each ``generate``, a pipeline's too.

Only real tokens are counted: of the prompt what the attention mask keeps, of the output what follows the
prompt, each row to its own end-of-sequence token and that one included. Several rows are one inference, with
the batch's size, the sums, and each row's tokens as an event.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs.inferences import Inference
from bulkscope._safe import guarded, report

# Assisted decoding and the like call `generate` inside of `generate`: one inference, not two.
_inside: ContextVar[bool] = ContextVar("bulkscope-transformers-inside", default=False)


class TransformersInstrumentor(Instrumentor):
    """Instruments transformers 4.40 and later, with PyTorch."""

    module = "transformers.generation.utils"
    name = "transformers"
    requires = ("transformers >= 4.40",)

    def patch(self, module: ModuleType) -> None:
        """Wrap ``generate`` of every model."""
        from transformers.generation import logits_process

        self._logits = logits_process
        self.wrap(module.GenerationMixin, "generate", self._generate)

    def _generate(self, wrapped: Callable[..., Any], model: Any, args: Any, kwargs: Any) -> Any:
        if _inside.get():
            return wrapped(*args, **kwargs)
        try:
            call = _Call(model, args, kwargs, self._logits)
        except Exception:
            report("a call of generate")
            return wrapped(*args, **kwargs)
        token = _inside.set(True)
        try:
            result = wrapped(*call.args, **call.kwargs)
        except BaseException as error:
            call.inference.finish(error)
            raise
        finally:
            _inside.reset(token)
        call.read(result)
        call.inference.finish()
        return result


def _first_scores(base: type, inference: Inference) -> Any:
    """Return a logits processor that changes nothing and notes when the first token's scores were there."""

    class FirstScores(base):  # type: ignore[misc]
        elapsed: float | None = None

        # transformers reads this signature: a parameter more would have to be given by the caller.
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if self.elapsed is None:
                self.elapsed = inference.elapsed()
            return scores

    return FirstScores()


class _Call:
    """One call of ``generate``: what it is given, and what its result says."""

    def __init__(self, model: Any, args: Any, kwargs: dict[str, Any], module: Any) -> None:
        self._model = model
        # What may be given by position, in the order that generate has had since 4.40.
        self._kwargs = dict(zip(("inputs", "generation_config", "logits_processor"), args, strict=False)) | kwargs
        self._prompt = self._kwargs.get("inputs", kwargs.get("input_ids"))
        self._config = self._kwargs.get("generation_config") or model.generation_config
        limit = kwargs.get("max_new_tokens") or getattr(self._config, "max_new_tokens", None)
        self.inference = Inference(
            model=_name(model),
            provider="transformers",
            operation="text_completion",
            max_tokens=limit if isinstance(limit, int) else None,
        )
        self._first = _first_scores(module.LogitsProcessor, self.inference)
        given = self._kwargs.get("logits_processor") or ()
        processors = module.LogitsProcessorList([*given, self._first])
        by_position = len(args) > 2
        self.args = (*args[:2], processors, *args[3:]) if by_position else args
        self.kwargs = kwargs if by_position else {**kwargs, "logits_processor": processors}
        self.inference.start()

    @guarded
    def read(self, result: Any) -> None:
        """Count the tokens of each row, and divide the time into prefill and decode."""
        inference = self.inference
        if self._first.elapsed is not None:
            inference.ttft = inference.prefill = self._first.elapsed
            inference.decode = inference.elapsed() - self._first.elapsed
        sequences = getattr(result, "sequences", result)
        inputs = self._input_tokens()
        outputs = self._output_tokens(sequences)
        if not inputs:
            inference.output_tokens = sum(outputs)
            return
        # Several sequences for one prompt follow each other; the prompt is read once.
        each = len(outputs) // len(inputs)
        for row, tokens in enumerate(inputs):
            inference.add_prompt(tokens, sum(outputs[row * each : (row + 1) * each]))

    def _input_tokens(self) -> list[int]:
        mask = self._kwargs.get("attention_mask")
        if mask is not None:
            return [int(count) for count in mask.reshape(mask.shape[0], -1).sum(dim=-1).tolist()]
        given = self._prompt if self._prompt is not None else self._kwargs.get("inputs_embeds")
        return [] if given is None else [int(given.shape[1])] * int(given.shape[0])

    def _output_tokens(self, sequences: Any) -> list[int]:
        skipped = 0
        if getattr(self._model.config, "is_encoder_decoder", False):
            skipped = 1  # the token that starts the decoder is given, not generated
        elif self._prompt is not None:
            skipped = int(self._prompt.shape[1])
        ends = self._kwargs.get("eos_token_id", getattr(self._config, "eos_token_id", None))
        ends = set() if ends is None else {ends} if isinstance(ends, int) else {int(end) for end in ends}
        counts = []
        stopped = True
        for row in sequences[:, skipped:].tolist():
            end = next((index for index, token in enumerate(row) if token in ends), None)
            counts.append(len(row) if end is None else end + 1)
            stopped = stopped and end is not None
        self.inference.finish_reason = "stop" if stopped else "length"
        return counts


def _name(model: Any) -> str:
    name = str(getattr(model, "name_or_path", None) or type(model).__name__)
    # A folder of this machine is named by its last part.
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name
