"""The engine: packed prompts and slots give the text that `generate` gives to each prompt alone."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

import lmtasks
from lmtasks import Example, Field, Generation, RunOptions, Task
from lmtasks.backends import Completion, Request, cache, engine, under_way
from lmtasks.backends.huggingface import TransformersModel
from lmtasks.backends.native.prefix_sharing import LEAST, shared_prefixes
from lmtasks.backends.native.prepare import Trial, engine_copy
from lmtasks.backends.native.prompt_lookup import GUESSES, WORDS, Lookup
from lmtasks.errors import ModelError
from lmtasks.testing import save_tiny_model

ON_CPU = RunOptions(device="cpu", dtype="float32")
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen3", "gemma3")
SYSTEM = "You are a ferry and answer every question briefly. "
EXAMPLES = SYSTEM * 3


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several would only wait for each other with matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    folder = tmp_path_factory.mktemp("model") / request.param
    save_tiny_model(folder, request.param)
    return lmtasks.load_model(folder, ON_CPU)


def requests(model: TransformersModel, beginnings: tuple[str, ...], **generation: object) -> list[Request]:
    """Return prompts of very different length that begin in some of these ways, with limits of their own."""
    made = []
    for number in range(23):
        text = beginnings[number % len(beginnings)] + f"number {number * 7} " + "ferry at nine " * (1 + number * 5 % 9)
        limit = Generation(max_new_tokens=5 + number * 3 % 17, **generation)
        made.append(Request(str(number), tuple(model.tokenizer.encode(text, add_special_tokens=False)), limit))
    return made


def answers(model: TransformersModel, asked: list[Request], **how: object) -> list[Completion]:
    done = {place: answer for finished in model.generate(asked, seed=3, **how) for place, answer in finished}
    return [done[place] for place in range(len(asked))]


def alone(model: TransformersModel, asked: list[Request]) -> list[Completion]:
    """Return what transformers' own `generate` says to each prompt by itself."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransformersModel, "engine", "generate")
        return answers(model, asked, batch_size=1)


@pytest.mark.parametrize("beginnings", [("",), (SYSTEM,), (EXAMPLES, SYSTEM + "Now: ", "")], ids=["0", "1", "several"])
def test_text_is_that_of_generate(model, beginnings):
    assert model.engine == "slots"
    asked = requests(model, beginnings)
    expected = alone(model, asked)
    for how in ({}, {"batch_size": 1}, {"batch_size": 5}):
        assert answers(model, asked, **how) == expected


def test_text_is_the_same_in_rows_of_any_length_and_with_little_memory(model, monkeypatch):
    asked = requests(model, (EXAMPLES, ""))
    expected = alone(model, asked)
    for tokens, wasted in (7, 0), (50, 20), (50, 10**6):
        monkeypatch.setattr(engine, "ROW_TOKENS", tokens)
        for module in cache, under_way:
            monkeypatch.setattr(module, "MOST_WASTED", wasted)
        assert answers(model, asked) == expected
    longest = max(len(request.token_ids) + request.generation.max_new_tokens for request in asked)
    monkeypatch.setattr(model._engine({None}), "memory_bytes", longest * 2 * model._engine({None}).bytes_per_token)
    assert answers(model, asked) == expected


def test_what_ends_an_answer_ends_it_here_too(model):
    asked = requests(model, (SYSTEM, ""))
    whole = alone(model, asked)
    asked = [
        replace(request, generation=replace(request.generation, stop=(answer.text[2:4],)))
        if answer.text[2:4] and place % 2
        else request
        for place, (request, answer) in enumerate(zip(asked, whole, strict=True))
    ]
    expected = alone(model, asked)
    assert {answer.finish for answer in expected} == {"stop", "length"}
    assert answers(model, asked) == expected


@pytest.mark.parametrize("sampling", [{"temperature": 0.8}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9}], ids=str)
def test_what_is_drawn_for_an_example_depends_on_no_other(model, sampling):
    asked = requests(model, (SYSTEM, ""), **sampling)
    greedy = requests(model, (SYSTEM, ""))
    mixed = [drawn if place % 3 else plain for place, (drawn, plain) in enumerate(zip(asked, greedy, strict=True))]
    expected = alone(model, mixed)
    assert answers(model, mixed) == expected
    assert expected != alone(model, greedy)


def test_a_penalty_for_repetition_is_that_of_transformers(model):
    asked = requests(model, (SYSTEM, ""), repetition_penalty=1.7)[:6]
    found = [answer.text for answer in answers(model, asked)]
    assert found == [answer.text for answer in alone(model, asked)]
    assert found != [answer.text for answer in answers(model, requests(model, (SYSTEM, ""))[:6])]
    for request, text in zip(asked, found, strict=True):
        ids = torch.tensor([request.token_ids])
        limit = request.generation.max_new_tokens
        with torch.inference_mode():
            out = model._loaded.module.generate(ids, max_new_tokens=limit, do_sample=False, repetition_penalty=1.7)
        written = [token for token in out[0, ids.shape[1] :].tolist() if token not in model._loaded.end_ids]
        assert model.tokenizer.decode(written, skip_special_tokens=True) == text


def test_memory_is_bounded_by_the_budget(model, monkeypatch):
    taken: list[int] = []
    take = cache.Budget.take

    def watched(budget: cache.Budget, *asked: object) -> cache.Slots | None:
        slots = take(budget, *asked)
        taken.append(sum(slots.count * slots.width for slots in budget.taken) * budget.bytes_per_token)
        assert taken[-1] <= budget.bytes
        return slots

    monkeypatch.setattr(cache.Budget, "take", watched)
    asked = requests(model, (EXAMPLES, ""))
    runner = model._engine({None})
    monkeypatch.setattr(runner, "memory_bytes", 1000 * runner.bytes_per_token)
    answers(model, asked)
    assert max(taken) > 500 * runner.bytes_per_token


def test_a_prefix_that_all_have_copied_takes_no_memory_any_more(model, monkeypatch):
    taken: list[list[int]] = []
    leave = engine.Engine._leave

    def watched(self: engine.Engine, answer: object, budget: cache.Budget) -> None:
        taken.append([slots.count for slots in budget.taken])
        leave(self, answer, budget)

    monkeypatch.setattr(engine.Engine, "_leave", watched)
    answers(model, requests(model, (SYSTEM,)))
    assert sum(taken[0]) == 23  # the slots of the 23 answers alone


@pytest.mark.parametrize("beginnings", [("",), ("", EXAMPLES)], ids=["1", "2"])
def test_slots_are_hardly_wider_than_what_they_hold(model, monkeypatch, beginnings):
    wasted = 40
    for module in cache, under_way:
        monkeypatch.setattr(module, "MOST_WASTED", wasted)
    taken: list[tuple[int, int]] = []
    leave = engine.Engine._leave

    def watched(self: engine.Engine, answer: object, budget: cache.Budget) -> None:
        taken.append((sum(slots.count * slots.width for slots in budget.taken), len(budget.taken)))
        leave(self, answer, budget)

    monkeypatch.setattr(engine.Engine, "_leave", watched)
    asked = requests(model, beginnings)
    answers(model, asked)
    needs = [len(request.token_ids) + request.generation.max_new_tokens - 1 for request in asked]
    assert max(needs) > 3 * min(needs)
    tokens, sets = taken[0]
    assert sum(needs) <= tokens <= sum(needs) + sets * wasted


def test_what_is_longer_takes_no_slots_with_what_comes_before_it():
    prefix = under_way.Prefix((), None)
    texts = deque(under_way.Text(place, [0] * need, 1, need, prefix) for place, need in enumerate((20, 19, 90)))
    assert under_way.count_alike(texts, 8) == 2


@pytest.mark.parametrize("slots", [None, 6])
def test_slots_waste_little_as_answers_come_and_go(model, monkeypatch, slots):
    wasted = 40
    for module in cache, under_way:
        monkeypatch.setattr(module, "MOST_WASTED", wasted)
    sets: list[int] = []
    step = engine.Engine._step

    def watched(self: engine.Engine, active: list) -> object:
        members: dict[cache.Slots, list[int]] = {}
        for answer in active:
            members.setdefault(answer.slots, []).append(answer.need)
        for found, needs in members.items():
            assert len(needs) * (found.width - max(needs)) <= wasted
            assert 2 * len(needs) > found.count
        sets.append(len(members))
        return step(self, active)

    monkeypatch.setattr(engine.Engine, "_step", watched)
    asked = requests(model, ("", EXAMPLES))
    needs = [len(request.token_ids) + request.generation.max_new_tokens - 1 for request in asked]
    assert max(needs) > 3 * min(needs)
    assert answers(model, asked, **({"batch_size": slots} if slots else {})) == alone(model, asked)
    assert max(sets) > 1 == sets[-1]


def test_a_prompt_that_memory_has_no_room_for_is_one_line(model, monkeypatch):
    asked = requests(model, ("",))
    runner = model._engine({None})
    monkeypatch.setattr(runner, "memory_bytes", 20 * runner.bytes_per_token)
    with pytest.raises(ModelError, match=r"more than the .* MiB that memory allows") as error:
        answers(model, asked)
    assert "\n" not in str(error.value)


def test_slots_grow_with_what_is_in_them():
    slots = cache.Slots(2, 1000)
    key = torch.ones(1, 3, 1, 4)
    keys, _ = slots.layer(0, key, key, 8)
    assert keys.shape == (2, 3, 10, 4)
    keys[1, :, :8] = 5
    grown, _ = slots.layer(0, key, key, 900)
    assert grown.shape == (2, 3, 1000, 4)
    assert (grown[1, :, :8] == 5).all() and not grown[1, :, 8:].any()


# Architectures that attend in another way


def test_what_the_engine_cannot_run_is_answered_by_generate(tmp_path: Path):
    sizes = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32}
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes, state_size=4)).eval()
    # It squashes what attention finds, which the engine does not know.
    gemma = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **sizes, **heads)).eval()
    for module in (mamba, gemma):
        assert Trial(module).bytes_per_token(engine_copy(module)) is None
    save_tiny_model(tmp_path / "llama")
    model = lmtasks.load_model(tmp_path / "llama", ON_CPU)
    # An architecture that takes no notice of whose tokens it is given
    deaf = engine_copy(model._loaded.module)
    assert Trial(model._loaded.module).bytes_per_token(deaf) is not None
    deaf.set_attn_implementation("sdpa")
    assert Trial(model._loaded.module).bytes_per_token(deaf) is None


@pytest.mark.parametrize(("name", "told"), [("slots", "packed prompts"), ("generate", "generate of transformers")])
def test_a_report_says_what_answered(tmp_path, tiny_folder, monkeypatch, name, told):
    examples = [Example(id="e", inputs={"text": "ferry"}, references=("nine",))]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": Field()},
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples if split == "test" else [])},
        metrics=("exact_match",),
    )
    if name == "generate":
        monkeypatch.setattr(TransformersModel, "engine", "generate")
    run = lmtasks.run(task, ON_CPU, model=tiny_folder, max_new_tokens=3, output_dir=tmp_path)
    assert run.record["engine"] == name
    assert told in (run.path / "report.md").read_text()


# Guesses


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_what_is_guessed_followed_the_same_words_where_they_stood_last(ids, before):
    lookup = Lookup()
    lookup.following(ids[:before])
    found = lookup.following(ids)
    last = tuple(ids[-WORDS:])
    earlier = [end for end in range(WORDS, len(ids)) if tuple(ids[end - WORDS : end]) == last]
    assert found == (ids[earlier[-1] : earlier[-1] + GUESSES] if earlier else [])


def test_guesses_save_steps_and_change_nothing(tmp_path, monkeypatch):
    save_tiny_model(tmp_path, "gpt_neox")  # it soon repeats itself
    model = lmtasks.load_model(tmp_path, ON_CPU)
    prompt = tuple(model.tokenizer.encode("one two three " * 8, add_special_tokens=False))
    asked = [Request("a", prompt, Generation(max_new_tokens=60))]
    steps: list[int] = []
    step = engine.Engine._step
    monkeypatch.setattr(engine.Engine, "_step", lambda self, active: (steps.append(1), step(self, active))[1])
    guessed, count = answers(model, asked), len(steps)
    monkeypatch.setattr(engine, "FEW", 0)
    assert answers(model, asked) == guessed == alone(model, asked)
    assert len(steps) - count == 60
    assert count < 60


# Prefixes

tokens = st.lists(st.integers(0, 1), min_size=1, max_size=6)
families = st.lists(st.sampled_from([(7,) * 40, (7,) * 40 + (8,) * 30, (9,) * 20, ()]), min_size=1, max_size=8)


@given(st.data())
def test_prefixes_are_common_leave_a_token_and_save_as_much_as_one_for_all(data):
    prompts = [(*begin, *data.draw(tokens)) for begin in data.draw(families)]
    lengths = shared_prefixes(prompts)
    begun: dict[tuple[int, ...], int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        assert length == 0 or LEAST <= length < len(prompt)
        begun[prompt[:length]] = begun.get(prompt[:length], 0) + 1
    assert all(count > 1 for prefix, count in begun.items() if prefix)
    saved = sum((count - 1) * len(prefix) for prefix, count in begun.items())
    together = 0
    while all(len(prompt) > together + 1 and prompt[together] == prompts[0][together] for prompt in prompts):
        together += 1
    assert saved >= (together * (len(prompts) - 1) if together >= LEAST else 0)
