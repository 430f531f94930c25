"""One inference: its span, its tokens, its CPU and memory. What every engine's module shares.

An engine's module says which model is asked and reads what the engine answers; the span, the metrics and
the measuring are here, so that the numbers mean the same for every engine.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._host.engine import Call, Engine, engines
from bulkscope._host.meter import Usage, Window, meter
from bulkscope._jobs import bulks, current
from bulkscope._jobs.failures import error_type, failure_domain
from bulkscope._safe import guarded


class Inference:
    """Around one call of a model, in the thread that calls; ``start``, then ``finish`` once.

    In between, an engine's module sets what it learns: tokens as the engine counted them, ``prefill``,
    ``decode`` and ``ttft`` (time to first token) in seconds. What stays None is not recorded. ``remote``
    says that the engine is another process: the span is of kind CLIENT, and the CPU and memory of this
    process, which only waits, are not recorded as the inference's. ``endpoint`` is the host and the port
    where it answers: where that is a process of this machine, its CPU and memory are recorded.
    """

    def __init__(
        self,
        *,
        model: str,
        provider: str,
        operation: str = "chat",
        remote: bool = False,
        endpoint: tuple[str, int] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._labels: _instruments.AttributeValues = {
            c.GEN_AI_OPERATION: operation,
            c.GEN_AI_PROVIDER: provider,
            c.GEN_AI_MODEL: model,
        }
        self._remote, self._endpoint, self._max_tokens = remote, endpoint, max_tokens
        self._window: Window | None = None
        self._engine: Engine | None = None
        self._call: Call | None = None
        self._prompts: list[dict[str, int]] = []
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.ttft: float | None = None
        self.prefill: float | None = None
        self.decode: float | None = None
        self.response_model: str | None = None
        self.finish_reason: str | None = None
        self.error: tuple[str, str] | None = None

    def start(self) -> Inference:
        """Begin the span, make it current, begin to measure."""
        attributes = dict(self._labels)
        self._bulk = bulks.current()
        if self._bulk is not None:
            self._bulk.inference_model = str(self._labels[c.GEN_AI_MODEL])
        if self._max_tokens is not None:
            attributes[c.GEN_AI_MAX_TOKENS] = self._max_tokens
        if self._remote:
            self._look()
        else:
            self._window = meter().begin()
        # The stretch that is measured and the span are the same to the nanosecond.
        self._started_ns, self._clock = time.time_ns(), time.perf_counter()
        try:
            self._span = _instruments.tracer().start_span(
                f"{self._labels[c.GEN_AI_OPERATION]} {self._labels[c.GEN_AI_MODEL]}",
                kind=SpanKind.CLIENT if self._remote else SpanKind.INTERNAL,
                attributes=attributes,
                start_time=self._started_ns,
            )
        except Exception:
            self._used()
            raise
        # Last: a context that was attached and never detached would stay with everything after it.
        self._token: Any = current.enter(trace.set_span_in_context(self._span))
        return self

    @guarded
    def _look(self) -> None:
        engine = None if self._endpoint is None else engines().at(*self._endpoint)
        self._call = None if engine is None else engine.begin()
        self._engine = engine if self._call is not None else None

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._clock

    def release(self) -> None:
        """Make the caller's context current again before the end, which may come elsewhere: a stream's."""
        token, self._token = self._token, None
        current.leave(token)

    def answered_by(self, provider: str) -> None:
        """Say which engine it is, where only its answer tells."""
        self._labels[c.GEN_AI_PROVIDER] = provider
        self._span.set_attribute(c.GEN_AI_PROVIDER, provider)

    def add_prompt(self, input_tokens: int, output_tokens: int) -> None:
        """Count one prompt of a batch: its own tokens, padding left out. The sums become the inference's."""
        self._prompts.append({c.GEN_AI_INPUT_TOKENS: input_tokens, c.GEN_AI_OUTPUT_TOKENS: output_tokens})
        self.input_tokens = (self.input_tokens or 0) + input_tokens
        self.output_tokens = (self.output_tokens or 0) + output_tokens

    def fail(self, kind: str, domain: str) -> None:
        """Say that the engine answered with an error: ``error.type`` and failure domain."""
        self.error = (kind, domain)

    @guarded
    def finish(self, error: BaseException | None = None, domain: str | None = None) -> None:
        """End the span. ``error`` is what the call raised; ``domain`` where the engine's module knows better."""
        self.release()
        labels = dict(self._labels)
        wall, usage, values = self.elapsed(), None, dict[str, Any]()
        try:
            usage = self._used()
            wall = self.elapsed() if usage is None else usage.wall
            values = self._said(wall) | ({} if usage is None else self._measured(usage))
            self._describe(values, labels, self._started_ns + int(wall * 1e9), error, domain)
        finally:
            self._span.end(self._started_ns + int(wall * 1e9))
            self._record(wall, usage, values, labels)

    @guarded
    def _used(self) -> Usage | None:
        if self._engine is not None and self._call is not None:
            return self._engine.end(self._call)
        return None if self._window is None else meter().end(self._window)

    def _describe(
        self,
        values: dict[str, Any],
        labels: _instruments.AttributeValues,
        ended_ns: int,
        error: BaseException | None,
        domain: str | None,
    ) -> None:
        bulk = self._bulk
        if error is not None:
            self.error = (error_type(error), domain or failure_domain(error))
        if bulk is not None:
            bulk.inference_failure = self.error[1] if self.error else None
            bulk.inference_model = None
        if self.error is not None:
            labels[c.ERROR_TYPE], labels[c.BULK_FAILURE_DOMAIN] = self.error
            values[c.ERROR_TYPE], values[c.BULK_FAILURE_DOMAIN] = self.error
            self._span.set_status(StatusCode.ERROR)
        self._span.set_attributes({name: value for name, value in values.items() if value is not None})
        if len(self._prompts) > 1:
            for number, tokens in enumerate(self._prompts):
                self._span.add_event(c.EVENT_PROMPT, {c.PROMPT_INDEX: number, **tokens}, ended_ns)

    def _said(self, wall: float) -> dict[str, Any]:
        return {
            c.BATCH_SIZE: len(self._prompts) or None,
            c.GEN_AI_INPUT_TOKENS: self.input_tokens,
            c.GEN_AI_OUTPUT_TOKENS: self.output_tokens,
            c.GEN_AI_CACHED_TOKENS: self.cached_tokens,
            c.GEN_AI_RESPONSE_MODEL: self.response_model,
            c.GEN_AI_FINISH_REASONS: [self.finish_reason] if self.finish_reason else None,
            c.GEN_AI_TTFT: self.ttft,
            c.GEN_AI_PREFILL: self.prefill,
            c.GEN_AI_DECODE: self.decode,
            c.TOKENS_PER_SECOND: _rate(self.output_tokens, wall),
            c.DECODE_TOKENS_PER_SECOND: self._decode_rate(),
        }

    def _measured(self, usage: Usage) -> dict[str, Any]:
        growth = None
        if usage.memory_peak is not None and usage.memory_start is not None:
            growth = usage.memory_peak - usage.memory_start
        engine = self._engine
        return {
            c.CPU_TIME: usage.cpu,
            c.CPU_EXACT: usage.cpu_exact,
            c.CPU_UTILIZATION: usage.utilization,
            c.CPU_PRESSURE: usage.pressure,
            c.CPU_THROTTLED: usage.throttled,
            c.CPU_WAIT: usage.cpu_wait,
            c.MEMORY_START: usage.memory_start,
            c.MEMORY_PEAK: usage.memory_peak,
            c.MEMORY_GROWTH: growth,
            c.MEMORY_FILE: usage.memory_file,
            c.MEMORY_ANON: usage.memory_anon,
            c.MEMORY_LIMIT: meter().memory_limit if engine is None else engine.memory_limit,
            c.MEMORY_EXACT: None if usage.memory_peak is None else usage.memory_exact,
            c.ENGINE_PID: None if engine is None else engine.pid,
            c.ENGINE_COMMAND: None if engine is None else engine.command or None,
        }

    def _decode_rate(self) -> float | None:
        # The first token comes out of the prefill, so that n tokens take n - 1 steps of decode.
        steps = None if self.output_tokens is None or self.output_tokens < 2 else self.output_tokens - 1
        return _rate(steps, self.decode)

    def _record(
        self, wall: float, usage: Usage | None, values: dict[str, Any], labels: _instruments.AttributeValues
    ) -> None:
        _instruments.record(c.M_INFERENCE_DURATION, wall, labels)
        if usage is not None:
            _instruments.record(c.M_INFERENCE_CPU_TIME, usage.cpu, labels)
            if usage.memory_peak is not None:
                _instruments.record(c.M_INFERENCE_MEMORY_PEAK, usage.memory_peak, labels)
        for kind, tokens in (("input", self.input_tokens), ("output", self.output_tokens)):
            if tokens is not None:
                _instruments.record(c.M_TOKEN_USAGE, tokens, {**labels, c.GEN_AI_TOKEN_TYPE: kind})
        rate = values.get(c.TOKENS_PER_SECOND)
        if rate is not None:
            _instruments.record(c.M_TOKENS_PER_SECOND, rate, labels)


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return tokens / seconds if tokens is not None and seconds else None
