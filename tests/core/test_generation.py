"""What every backend promises about generation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import Completion, LanguageModel, Request, hf_generate
from lmtasks.backends.huggingface import TransformersModel
from lmtasks.backends.sampling import Draw, request_generator
from lmtasks.task import SamplingParams
from lmtasks.testing import Architecture, tiny_model

LENGTHS = (3, 40, 7, 1, 22, 9, 15, 30)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def ask(
    model: LanguageModel, generation: SamplingParams, *, batch_size: int | None = None, seed: int = 0, rows=LENGTHS
):
    requests = [
        Request(str(row), tuple(model.tokenizer.encode("ferry at nine " * row, add_special_tokens=False)), generation)
        for row in rows
    ]
    answers: dict[int, Completion] = {}
    for finished in model.generate(requests, seed=seed, batch_size=batch_size):
        answers.update(finished)
    return [answers[index] for index in range(len(requests))]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma3"])
def test_text_is_the_same_in_any_batch_and_equals_plain_generate(architecture: Architecture):
    model = tiny_model(architecture)
    generation = SamplingParams(max_new_tokens=24)
    alone = ask(model, generation, batch_size=1)
    assert ask(model, generation, batch_size=3) == alone
    assert ask(model, generation, batch_size=8) == alone
    assert ask(model, generation) == alone
    assert len({answer.text for answer in alone}) > 1, "a model that says one thing to all tests nothing"
    # transformers itself, one prompt at a time
    module, tokenizer = model._loaded.module, model.tokenizer
    for row, answer in zip(LENGTHS, alone, strict=True):
        ids = torch.tensor([tokenizer.encode("ferry at nine " * row, add_special_tokens=False)])
        output = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert answer.text == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_completions_belong_to_their_requests_though_work_is_sorted(model):
    together = ask(model, SamplingParams(max_new_tokens=8), batch_size=2)
    for row, answer in zip(LENGTHS, together, strict=True):
        assert ask(model, SamplingParams(max_new_tokens=8), rows=(row,)) == [answer]


def test_stop_string_ends_the_answer_and_is_removed(model):
    (whole,) = ask(model, SamplingParams(max_new_tokens=30), rows=(7,))
    stop = whole.text[10:13]
    index = whole.text.find(stop)
    generation = SamplingParams(max_new_tokens=30, stop=(stop,))
    answers = ask(model, generation, batch_size=8, rows=(7, *LENGTHS))
    assert answers[0].text == whole.text[:index]
    assert answers[0].finish_reason == "stop"
    assert answers[0].tokens < whole.tokens
    assert ask(model, generation, rows=(7,)) == answers[:1], "the count of tokens must not depend on neighbours"


def test_finish_reason_is_length_where_nothing_ended_the_answer(model):
    (answer,) = ask(model, SamplingParams(max_new_tokens=5), rows=(3,))
    assert (answer.finish_reason, answer.tokens) == ("length", 5)


def test_end_token_ends_the_answer(model):
    (answer,) = ask(model, SamplingParams(max_new_tokens=20), rows=(3,))
    ids = model.tokenizer.encode("ferry at nine " * 3, add_special_tokens=False)
    loaded = model._loaded
    output = loaded.module.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
    # Declare what the model writes fifth to be an end token: the text ends before it.
    ended = TransformersModel(replace(loaded, end_ids=(output[4],)))
    loaded.module.generation_config.eos_token_id = [output[4]]
    try:
        (short,) = ask(ended, SamplingParams(max_new_tokens=20), rows=(3,))
    finally:
        loaded.module.generation_config.eos_token_id = list(loaded.end_ids)
    first = output.index(output[4])
    assert (short.finish_reason, short.tokens) == ("stop", first + 1)
    assert answer.text.startswith(short.text)


def test_end_ids_hold_the_end_of_a_turn_and_the_end_of_a_text(model):
    tokenizer = model.tokenizer
    assert set(model._loaded.end_ids) == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_sampling_repeats_with_its_seed_and_ignores_neighbours(model):
    generation = SamplingParams(max_new_tokens=12, temperature=1.5, top_p=0.95, top_k=50)
    alone = ask(model, generation, batch_size=1, seed=4)
    assert ask(model, generation, batch_size=8, seed=4) == alone
    assert ask(model, generation, batch_size=3, seed=5) != alone
    assert alone != ask(model, SamplingParams(max_new_tokens=12))


def test_draw_follows_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -math.inf]])
    draws = 4000
    draw = Draw([request_generator(str(row), 0) for row in range(draws)])
    counts = Counter(draw(None, logits.repeat(draws, 1)).argmax(-1).tolist())
    expected = torch.softmax(logits[0], -1).tolist()
    # Three standard deviations of a binomial share over 4,000 draws are below 0.024.
    assert all(abs(counts[token] / draws - share) < 0.024 for token, share in enumerate(expected))
    assert counts[3] == 0


def test_on_text_is_called_with_the_growing_answer(model):
    texts: list[str] = []
    generation = SamplingParams(max_new_tokens=16, stop=("zzzz",))
    request = Request("a", tuple(model.tokenizer.encode("ferry", add_special_tokens=False)), generation)
    [[(_, answer)]] = list(model.generate([replace(request, on_text=texts.append)], seed=0))
    assert len(texts) == 16
    assert texts[-1] == answer.text.rstrip("\ufffd")
    assert all(len(before) <= len(after) for before, after in zip(texts, texts[1:], strict=False))


def test_hf_generate_puts_long_prompts_into_smaller_batches(model, monkeypatch):
    monkeypatch.setattr(hf_generate, "BATCH_TOKENS", 300)
    model = TransformersModel(model._loaded, backend="hf-generate")
    requests = [Request(str(row), tuple(range(5, 5 + 90)), SamplingParams(max_new_tokens=10)) for row in range(7)]
    sizes = [len(finished) for finished in model.generate(requests, seed=0)]
    assert sizes == [3, 3, 1]


def test_load_model_ignores_the_generation_settings_of_the_model(tmp_path):
    from lmtasks.testing import save_tiny_model

    save_tiny_model(tmp_path, "qwen3")
    plain = ask(lmtasks.load_model(str(tmp_path), RunOptions(dtype="float32")), SamplingParams(max_new_tokens=12))
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 3.0, "eos_token_id": 0}'
    )
    assert (
        ask(lmtasks.load_model(str(tmp_path), RunOptions(dtype="float32")), SamplingParams(max_new_tokens=12)) == plain
    )
