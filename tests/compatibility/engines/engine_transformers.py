"""transformers on a model of random weights; run by ``test_engines.py`` in an environment that has it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from opentelemetry.trace import SpanKind, StatusCode
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    TextIteratorStreamer,
    pipeline,
)  # fmt: skip

from bulkscope_instrumentation import transformers as ours
from bulkscope_instrumentation.concurrent import ConcurrentInstrumentor
from bulkscope_instrumentation.transformers import TransformersInstrumentor
from tests.telemetry import Telemetry, telemetry

EOS, PAD = 2, 0


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def recorded() -> Iterator[Telemetry]:
    found = telemetry()
    found.clear()
    instrumentors = (TransformersInstrumentor(), ConcurrentInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield found
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


IDS = torch.tensor([[PAD, PAD, 5, 6], [5, 6, 7, 8]])
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


def only(recorded: Telemetry) -> Any:
    (span,) = recorded.spans()
    return span


def usage(span: Any) -> tuple[Any, Any, Any]:
    found = span.attributes
    return tuple(found.get(name) for name in (
        "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "bulk.inference.batch_size",
    ))  # type: ignore[return-value]  # fmt: skip


def rows(span: Any) -> list[tuple[int, int]]:
    return [
        (event.attributes["gen_ai.usage.input_tokens"], event.attributes["gen_ai.usage.output_tokens"])
        for event in span.events
    ]


def test_one_prompt(recorded: Telemetry, model: Any) -> None:
    out = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert out.shape == (1, 7)
    span = only(recorded)
    assert (span.name, span.kind) == ("text_completion LlamaForCausalLM", SpanKind.INTERNAL)
    assert usage(span) == (3, 4, 1)
    assert span.events == ()
    found = span.attributes
    assert found["gen_ai.provider.name"] == "transformers"
    assert found["gen_ai.request.max_tokens"] == 4
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    assert found["gen_ai.latency.time_in_model_prefill"] > 0
    assert found["gen_ai.latency.time_in_model_decode"] > 0
    assert found["gen_ai.latency.time_to_first_token"] == found["gen_ai.latency.time_in_model_prefill"]
    wall = (span.end_time - span.start_time) / 1e9
    assert found["gen_ai.latency.time_in_model_prefill"] + found["gen_ai.latency.time_in_model_decode"] <= wall * 1.01
    assert found["bulk.inference.cpu.time"] > 0


def test_the_result_is_what_it_is_without_us(recorded: Telemetry, model: Any) -> None:
    arguments = {"input_ids": IDS, "attention_mask": MASK, "max_new_tokens": 6, "do_sample": False}
    with_us = model.generate(**arguments)
    TransformersInstrumentor().uninstrument()
    assert torch.equal(with_us, model.generate(**arguments))


def test_processors_by_position(recorded: Telemetry, model: Any) -> None:
    config = GenerationConfig(max_new_tokens=3, min_new_tokens=3, eos_token_id=EOS, pad_token_id=PAD)
    model.generate(IDS[1:], config, LogitsProcessorList())
    span = only(recorded)
    assert usage(span) == (4, 3, 1)
    assert span.attributes["gen_ai.request.max_tokens"] == 3


def test_padding_is_not_counted(recorded: Telemetry, model: Any) -> None:
    model.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    span = only(recorded)
    assert usage(span) == (6, 10, 2)
    assert rows(span) == [(2, 5), (4, 5)]


def test_each_row_ends_where_it_ends(recorded: Telemetry, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scripted:
        """Logits that make row 0 stop at its second token and row 1 never."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            step = input_ids.shape[1] - 4
            forced = torch.full_like(scores, -1e9)
            forced[0, EOS if step == 1 else 9] = 0
            forced[1, 9] = 0
            return forced

    model.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=5, do_sample=False, logits_processor=[Scripted()])
    span = only(recorded)
    assert rows(span) == [(2, 2), (4, 5)], "the end counts, what is filled up behind it does not"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)


def test_several_sequences_for_a_prompt(recorded: Telemetry, model: Any) -> None:
    out = model.generate(
        input_ids=IDS, attention_mask=MASK, max_new_tokens=3, min_new_tokens=3, do_sample=True,
        num_return_sequences=2, return_dict_in_generate=True,
    )  # fmt: skip
    assert out.sequences.shape == (4, 7)
    assert rows(only(recorded)) == [(2, 6), (4, 6)]


def test_beams_and_a_generation_config(recorded: Telemetry, model: Any) -> None:
    config = GenerationConfig(num_beams=2, max_new_tokens=3, min_new_tokens=3, eos_token_id=[EOS, 3], pad_token_id=PAD)
    model.generate(input_ids=IDS[1:], generation_config=config)
    span = only(recorded)
    assert usage(span) == (4, 3, 1)
    assert span.attributes["gen_ai.request.max_tokens"] == 3


def test_embeddings_as_the_prompt(recorded: Telemetry, model: Any) -> None:
    embeddings = model.get_input_embeddings()(IDS[1:])
    model.generate(inputs_embeds=embeddings, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert usage(only(recorded)) == (4, 3, 1)


def test_an_encoder_and_a_decoder(recorded: Telemetry) -> None:
    torch.manual_seed(1)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    model.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert rows(only(recorded)) == [(2, 3), (4, 3)]


def test_a_streamer_in_another_thread(recorded: Telemetry, model: Any) -> None:
    class Tokenizer:
        def decode(self, ids: Any, **options: Any) -> str:
            return " ".join(map(str, ids))

    streamer = TextIteratorStreamer(Tokenizer(), skip_prompt=True)  # type: ignore[arg-type]
    arguments = {"input_ids": IDS[1:], "max_new_tokens": 3, "min_new_tokens": 3, "streamer": streamer}
    thread = threading.Thread(target=model.generate, kwargs={**arguments, "do_sample": False})
    thread.start()
    assert "".join(streamer)
    thread.join()
    assert usage(only(recorded)) == (4, 3, 1)


def test_a_failure_passes_unchanged(recorded: Telemetry, model: Any) -> None:
    with pytest.raises(IndexError):
        model.generate(torch.tensor([[5, 600]]), max_new_tokens=2)
    span = only(recorded)
    assert span.status.status_code == StatusCode.ERROR
    assert span.attributes["error.type"] == "IndexError"
    assert "gen_ai.usage.output_tokens" not in span.attributes


def test_assisted_decoding_is_one_inference(recorded: Telemetry, model: Any) -> None:
    model.generate(IDS[1:], assistant_model=model, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert usage(only(recorded))[0] == 4


def test_faults_of_ours_reach_nobody(recorded: Telemetry, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ours, "Inference", None)
        assert model.generate(IDS[1:], max_new_tokens=2).shape[0] == 1
    with monkeypatch.context() as patch:
        patch.setattr(ours._Call, "_output_tokens", None)
        assert model.generate(IDS[1:], max_new_tokens=2).shape[0] == 1
    assert only(recorded).name == "text_completion LlamaForCausalLM"


def test_a_pipeline_batches_and_pads(recorded: Telemetry, model: Any) -> None:
    words = {f"w{number}": number for number in range(3, 64)} | {"[PAD]": PAD, "[BOS]": 1, "[EOS]": EOS}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", padding_side="left"
    )
    generate = pipeline("text-generation", model=model, tokenizer=fast)
    answers = generate(
        ["w5 w6 w7 w8", "w9 w10"], batch_size=2, max_new_tokens=3, do_sample=False, eos_token_id=-1,
        return_full_text=False,
    )  # fmt: skip
    assert len(answers) == 2
    span = only(recorded)
    assert usage(span) == (6, 6, 2)
    assert rows(span) == [(4, 3), (2, 3)]
