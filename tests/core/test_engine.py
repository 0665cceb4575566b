"""The native engine: batches without padding give the text that `generate` gives to each prompt alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import Completion, LanguageModel, Request
from lmtasks.backends.huggingface import TransformersModel
from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.engine import Engine
from lmtasks.backends.native.engine_model import EngineModel
from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.backends.native.prefix_sharing import MIN_PREFIX, shared_prefixes
from lmtasks.backends.native.prepare import engine_copy, probe_kv_bytes
from lmtasks.backends.native.prompt_lookup import MAX_DRAFT, NGRAM, PromptLookup
from lmtasks.backends.native.scheduler import count_similar
from lmtasks.backends.native.sequence import ScoringState, SharedPrefix
from lmtasks.errors import ModelError
from lmtasks.kernels.probe import EquivalenceProbe
from lmtasks.models.loading import LoadedModel, load
from lmtasks.progress import no_progress
from lmtasks.task import SamplingParams
from lmtasks.testing import save_tiny_model

ON_CPU = RunOptions(device="cpu", dtype="float32")
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen3", "gemma3")
SYSTEM = "You are a ferry and answer every question briefly. "
EXAMPLES = SYSTEM * 3
PLENTY = 2**30


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several would only wait for each other with matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("model") / request.param
    save_tiny_model(folder, request.param)
    return load_weights(folder)


@pytest.fixture(scope="module")
def model(loaded: LoadedModel) -> TransformersModel:
    return TransformersModel(loaded)


@pytest.fixture(scope="module")
def engine_model(loaded: LoadedModel) -> EngineModel:
    return prepared(loaded)


def load_weights(folder: Path) -> LoadedModel:
    return load(str(folder), device="cpu", dtype="float32", trust_remote_code=False, on_progress=no_progress)


def prepared(loaded: LoadedModel) -> EngineModel:
    module = engine_copy(loaded.module)
    bytes_per_token = probe_kv_bytes(EquivalenceProbe(loaded.module), module)
    assert bytes_per_token is not None
    return EngineModel(module, bytes_per_token)


def make_engine(loaded: LoadedModel, engine_model: EngineModel, *, kv_tokens: int | None = None, **config) -> Engine:
    return Engine(
        engine_model,
        loaded.tokenizer,
        loaded.end_ids,
        kv_bytes=PLENTY if kv_tokens is None else kv_tokens * engine_model.bytes_per_token,
        config=EngineConfig(**config),
    )


def make_requests(model: LanguageModel | LoadedModel, beginnings: tuple[str, ...], **generation) -> list[Request]:
    """Return prompts of very different length that begin in some of these ways, with limits of their own."""
    requests = []
    for number in range(23):
        text = beginnings[number % len(beginnings)] + f"number {number * 7} " + "ferry at nine " * (1 + number * 5 % 9)
        limit = SamplingParams(max_new_tokens=5 + number * 3 % 17, **generation)
        ids = tuple(model.tokenizer.encode(text, add_special_tokens=False))
        requests.append(Request(str(number), ids, limit))
    return requests


def needed_tokens(requests: Sequence[Request]) -> list[int]:
    return [len(request.token_ids) + request.sampling_params.max_new_tokens - 1 for request in requests]


def complete(model: LanguageModel, requests: Sequence[Request], **options) -> list[Completion]:
    done = dict(pair for finished in model.generate(requests, seed=3, **options) for pair in finished)
    return [done[index] for index in range(len(requests))]


def run_all(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """Add requests, and step until all have finished."""
    ids = [engine.add(request, seed=3) for request in requests]
    done: dict[int, Completion] = {}
    while engine.has_unfinished:
        done |= dict(engine.step())
    return [done[id] for id in ids]


def complete_alone(loaded: LoadedModel, requests: Sequence[Request]) -> list[Completion]:
    """Return what transformers' own `generate` gives to each prompt by itself."""
    return complete(TransformersModel(loaded, backend="hf-generate"), requests, batch_size=1)


@pytest.mark.parametrize("beginnings", [("",), (SYSTEM,), (EXAMPLES, SYSTEM + "Now: ", "")], ids=["0", "1", "several"])
def test_generate_gives_the_text_of_hf_generate(model, loaded, beginnings):
    assert model.backend == "native"
    requests = make_requests(model, beginnings)
    expected = complete_alone(loaded, requests)
    for options in ({}, {"batch_size": 1}, {"batch_size": 5}):
        assert complete(model, requests, **options) == expected


@pytest.mark.slow
def test_text_is_the_same_with_small_batches_and_little_memory(loaded, engine_model):
    requests = make_requests(loaded, (EXAMPLES, ""))
    expected = complete_alone(loaded, requests)
    for tokens, padding in (7, 0), (50, 20), (50, 10**6):
        engine = make_engine(loaded, engine_model, max_batch_tokens=tokens, max_padding=padding)
        assert run_all(engine, requests) == expected
    longest = max(len(request.token_ids) + request.sampling_params.max_new_tokens for request in requests)
    assert run_all(make_engine(loaded, engine_model, kv_tokens=longest * 2), requests) == expected


def test_text_ends_at_stop_strings_as_in_hf_generate(model, loaded):
    requests = make_requests(model, (SYSTEM, ""))
    whole = complete_alone(loaded, requests)
    requests = [
        replace(request, sampling_params=replace(request.sampling_params, stop=(completion.text[2:4],)))
        if completion.text[2:4] and index % 2
        else request
        for index, (request, completion) in enumerate(zip(requests, whole, strict=True))
    ]
    expected = complete_alone(loaded, requests)
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}
    assert complete(model, requests) == expected


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{"temperature": 0.8}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9}], ids=str)
def test_sampling_depends_on_no_other_request(model, loaded, sampling):
    sampled = make_requests(model, (SYSTEM, ""), **sampling)
    greedy = make_requests(model, (SYSTEM, ""))
    mixed = [one if index % 3 else other for index, (one, other) in enumerate(zip(sampled, greedy, strict=True))]
    expected = complete_alone(loaded, mixed)
    assert complete(model, mixed) == expected
    assert expected != complete_alone(loaded, greedy)


def test_repetition_penalty_is_that_of_transformers(model, loaded):
    requests = make_requests(model, (SYSTEM, ""), repetition_penalty=1.7)[:6]
    texts = [completion.text for completion in complete(model, requests)]
    assert texts == [completion.text for completion in complete_alone(loaded, requests)]
    assert texts != [completion.text for completion in complete(model, make_requests(model, (SYSTEM, ""))[:6])]
    for request, text in zip(requests, texts, strict=True):
        ids = torch.tensor([request.token_ids])
        limit = request.sampling_params.max_new_tokens
        with torch.inference_mode():
            output = loaded.module.generate(ids, max_new_tokens=limit, do_sample=False, repetition_penalty=1.7)
        new_ids = [token for token in output[0, ids.shape[1] :].tolist() if token not in loaded.end_ids]
        assert model.tokenizer.decode(new_ids, skip_special_tokens=True) == text


# Requests that come and go


def test_text_does_not_depend_on_when_a_request_arrives(loaded, engine_model):
    requests = make_requests(loaded, (EXAMPLES, SYSTEM, ""))
    expected = complete_alone(loaded, requests)
    engine = make_engine(loaded, engine_model)
    done: dict[int, Completion] = {}
    for request in requests:  # one before each step
        engine.add(request, seed=3)
        done |= dict(engine.step())
    assert done, "some finish while others arrive"
    while engine.has_unfinished:
        done |= dict(engine.step())
    assert [done[id] for id in range(len(requests))] == expected
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.reserved_tokens) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kv_tokens", [None, 700])
def test_requests_that_arrive_later_share_prefixes_with_earlier_ones(loaded, engine_model, kv_tokens):
    requests = make_requests(loaded, (EXAMPLES * 2,))
    expected = complete_alone(loaded, requests)
    engine = make_engine(loaded, engine_model, kv_tokens=kv_tokens, max_batch=4)
    ids = [engine.add(request, seed=3) for request in requests[:12]]
    done = dict(engine.step())
    hits = engine.stats().counts.prefix_hits
    ids += [engine.add(request, seed=3) for request in requests[12:]]
    while engine.has_unfinished:
        done |= dict(engine.step())
    assert [done[id] for id in ids] == expected
    assert engine.stats().counts.prefix_hits > hits
    assert engine.stats().reserved_tokens == 0


def test_a_later_request_with_a_long_prompt_evicts_idle_prefixes(loaded, engine_model):
    shared = make_requests(loaded, (EXAMPLES * 2,))[:9]
    ids = shared[0].token_ids
    alone = Request("long", (*ids[len(ids) // 2 :], *ids), SamplingParams(max_new_tokens=4))
    requests = [*shared[:3], alone, *shared[3:]]
    expected = complete_alone(loaded, requests)
    engine = make_engine(loaded, engine_model, kv_tokens=max(needed_tokens(requests)) + 1, max_batch=1)
    added = []
    for request in requests:  # each in a step of its own, so that they begin in this order
        added.append(engine.add(request, seed=3))
    done: dict[int, Completion] = {}
    while engine.has_unfinished:
        done |= dict(engine.step())
    assert [done[id] for id in added] == expected


def test_abort_frees_what_a_request_holds_and_leaves_the_others(loaded, engine_model):
    requests = make_requests(loaded, (EXAMPLES, ""))
    expected = complete_alone(loaded, requests)
    engine = make_engine(loaded, engine_model, max_batch=6)
    ids = [engine.add(request, seed=3) for request in requests]
    late = engine.add(requests[0], seed=3)
    engine.abort(late)  # before any step
    done = dict(engine.step())
    before = engine.stats()
    assert before.running + len(done) == 6
    aborted = [id for id in ids if id not in done][::3]
    for id in aborted:  # some run, some wait
        engine.abort(id)
    after = engine.stats()
    assert after.running < before.running and after.waiting < before.waiting
    while engine.has_unfinished:
        done |= dict(engine.step())
    assert sorted(done) == sorted(set(ids) - set(aborted))
    assert all(done[id] == expected[id] for id in done)
    assert engine.stats().reserved_tokens == 0
    engine.abort(ids[0])  # has finished or is aborted: nothing happens


def test_each_request_has_its_own_callback(model):
    texts: dict[str, list[str]] = {}
    requests = [
        replace(request, on_text=texts.setdefault(request.key, []).append)
        for request in make_requests(model, (SYSTEM, ""))
    ]
    for request, completion in zip(requests, complete(model, requests), strict=True):
        grown = texts[request.key]
        assert len(grown) == completion.tokens
        assert grown[-1] == completion.text.rstrip("\ufffd")
        assert all(len(one) <= len(other) for one, other in zip(grown, grown[1:], strict=False))


def test_hf_generate_streams_each_request_too(loaded, model):
    texts: dict[str, list[str]] = {}
    requests = [
        replace(request, on_text=texts.setdefault(request.key, []).append) for request in make_requests(model, ("",))
    ]
    completions = complete(TransformersModel(loaded, backend="hf-generate"), requests)
    for request, completion in zip(requests, completions, strict=True):
        assert texts[request.key][-1] == completion.text.rstrip("\ufffd")


def test_a_callback_that_raises_stops_no_other_request(loaded, engine_model):
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    requests = make_requests(loaded, (SYSTEM, ""))
    expected = complete_alone(loaded, requests)
    engine = make_engine(loaded, engine_model)
    ids = [engine.add(request, seed=3) for request in requests]
    interrupted = engine.add(replace(requests[0], on_text=interrupt), seed=3)
    with pytest.raises(KeyboardInterrupt):
        while True:
            engine.step()
    engine.abort(interrupted)
    done: dict[int, Completion] = {}
    while engine.has_unfinished:
        done |= dict(engine.step())
    assert [done[id] for id in ids] == expected


def test_closing_the_generator_aborts_what_is_unfinished(model):
    requests = make_requests(model, (SYSTEM, ""))
    completions = model.generate(requests, seed=3)
    finished = next(iter(completions))
    assert len(finished) < len(requests)
    completions.close()
    stats = model.stats()
    assert (stats.running, stats.waiting, stats.reserved_tokens) == (0, 0, 0)


# The KV cache


def test_kv_budget_is_kept(loaded, engine_model):
    engine = make_engine(loaded, engine_model, kv_tokens=1000)
    run_all(engine, make_requests(loaded, (EXAMPLES, "")))
    peak = engine.stats().peak_kv_bytes / engine_model.bytes_per_token
    assert 500 < peak <= 1000


def test_prefix_that_all_have_copied_takes_no_memory(loaded, engine_model):
    engine = make_engine(loaded, engine_model)
    for request in make_requests(loaded, (SYSTEM,)):
        engine.add(request, seed=3)
    engine.step()
    stats = engine.stats()
    assert stats.slots == 23
    assert stats.counts.prefix_hits == 22
    assert stats.reserved_tokens <= sum(block.slots * block.width for block in stats.blocks)  # no prefix any more


@pytest.mark.parametrize("beginnings", [("",), ("", EXAMPLES)], ids=["1", "2"])
def test_blocks_are_hardly_wider_than_what_they_hold(loaded, engine_model, beginnings):
    padding = 40
    requests = make_requests(loaded, beginnings)
    engine = make_engine(loaded, engine_model, max_padding=padding)
    for request in requests:
        engine.add(request, seed=3)
    engine.step()
    stats, needed = engine.stats(), needed_tokens(requests)
    assert max(needed) > 3 * min(needed)
    assert sum(needed) <= stats.reserved_tokens <= sum(needed) + len(stats.blocks) * padding


def test_count_similar_stops_at_a_longer_sequence():
    waiting = deque(ScoringState(index, [0] * length, 1, length, None) for index, length in enumerate((20, 19, 90)))
    for sequence in waiting:
        sequence.prefix = SharedPrefix((), None)
    assert count_similar(waiting, 8, 1024) == 2


@pytest.mark.parametrize("max_batch", [64, 6])
def test_blocks_need_little_padding_as_requests_come_and_go(loaded, engine_model, max_batch):
    padding = 40
    requests = make_requests(loaded, ("", EXAMPLES))
    needed = needed_tokens(requests)
    assert max(needed) > 3 * min(needed)
    engine = make_engine(loaded, engine_model, max_padding=padding, max_batch=max_batch)
    for request in requests:
        engine.add(request, seed=3)
    done: dict[int, Completion] = {}
    blocks: list[int] = []
    while engine.has_unfinished:
        done |= dict(engine.step())
        stats = engine.stats()
        assert 0 <= stats.padding_share < 1
        for block in stats.blocks:
            assert block.sequences * (block.width - block.longest) <= padding
            assert 2 * block.sequences > block.slots
        blocks.append(len(stats.blocks))
    assert [done[index] for index in range(len(requests))] == complete_alone(loaded, requests)
    assert max(blocks) > 1 == blocks[-1]


def test_a_request_that_memory_has_no_room_for_is_one_line(loaded, tmp_path):
    loaded.module.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    model = lmtasks.load_model(tmp_path, replace(ON_CPU, kv_cache_gib=1e-6))
    with pytest.raises(ModelError, match=r"more than the .* MiB that kv_cache_gib allows") as error:
        complete(model, make_requests(model, ("",)))
    assert "\n" not in str(error.value)


def test_kv_block_grows_with_what_is_in_it():
    block = KVBlock(2, 1000)
    key = torch.ones(1, 3, 1, 4)
    keys, _ = block.layer(0, key, key, 8)
    assert keys.shape == (2, 3, 10, 4)
    keys[1, :, :8] = 5
    grown, _ = block.layer(0, key, key, 900)
    assert grown.shape == (2, 3, 1000, 4)
    assert (grown[1, :, :8] == 5).all() and not grown[1, :, 8:].any()


# Architectures that attend in another way


def test_probe_refuses_architectures_that_the_engine_cannot_run(tmp_path: Path):
    sizes = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32}
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes, state_size=4)).eval()
    # Its attention logits are soft-capped.
    gemma = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **sizes, **heads)).eval()
    for module in (mamba, gemma):
        assert probe_kv_bytes(EquivalenceProbe(module), engine_copy(module)) is None
    save_tiny_model(tmp_path / "llama")
    loaded = load_weights(tmp_path / "llama")
    # An architecture that ignores which sequences its tokens belong to
    ignorant = engine_copy(loaded.module)
    assert probe_kv_bytes(EquivalenceProbe(loaded.module), ignorant) is not None
    ignorant.set_attn_implementation("sdpa")
    assert probe_kv_bytes(EquivalenceProbe(loaded.module), ignorant) is None


# Drafts


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_prompt_lookup_proposes_what_followed_the_last_ngram_before(ids, before):
    lookup = PromptLookup()
    lookup.propose(ids[:before])
    draft = lookup.propose(ids)
    last = tuple(ids[-NGRAM:])
    earlier = [end for end in range(NGRAM, len(ids)) if tuple(ids[end - NGRAM : end]) == last]
    assert draft == (ids[earlier[-1] : earlier[-1] + MAX_DRAFT] if earlier else [])


def test_drafts_save_steps_and_change_nothing(tmp_path):
    save_tiny_model(tmp_path, "gpt_neox")  # it soon repeats itself
    loaded = load_weights(tmp_path)
    engine_model = prepared(loaded)
    prompt = tuple(loaded.tokenizer.encode("one two three " * 8, add_special_tokens=False))
    requests = [Request("a", prompt, SamplingParams(max_new_tokens=60))]
    drafting = make_engine(loaded, engine_model)
    plain = make_engine(loaded, engine_model, max_speculative_batch=0)
    assert run_all(drafting, requests) == run_all(plain, requests) == complete_alone(loaded, requests)
    assert plain.stats().counts.steps == 60
    counts = drafting.stats().counts
    assert counts.steps < 60
    assert 60 - counts.steps <= counts.draft_hits <= counts.draft_tokens


# Prefixes

tokens = st.lists(st.integers(0, 1), min_size=1, max_size=6)
families = st.lists(st.sampled_from([(7,) * 40, (7,) * 40 + (8,) * 30, (9,) * 20, ()]), min_size=1, max_size=8)


@given(st.data())
def test_shared_prefixes_leave_a_token_and_save_as_much_as_one_prefix_for_all(data):
    prompts = [(*begin, *data.draw(tokens)) for begin in data.draw(families)]
    lengths = shared_prefixes(prompts)
    begun: dict[tuple[int, ...], int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        assert length == 0 or MIN_PREFIX <= length < len(prompt)
        begun[prompt[:length]] = begun.get(prompt[:length], 0) + 1
    assert all(count > 1 for prefix, count in begun.items() if prefix)
    saved = sum((count - 1) * len(prefix) for prefix, count in begun.items())
    common = 0
    while all(len(prompt) > common + 1 and prompt[common] == prompts[0][common] for prompt in prompts):
        common += 1
    assert saved >= (common * (len(prompts) - 1) if common >= MIN_PREFIX else 0)
