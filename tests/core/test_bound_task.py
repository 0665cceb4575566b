"""A task bound to a model: prompts, requests and answers are those of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

import lmtasks
from lmtasks import Example, Field, Generate, RunOptions, Task
from lmtasks.errors import PromptError
from lmtasks.prompts import OverlongPromptError
from lmtasks.runs.bound_task import bind_task
from lmtasks.runs.plan import plan_ask, plan_run
from lmtasks.task import SamplingParams
from lmtasks.testing import FakeModel

EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": f"number {number}"}, references=(f"answer {number}",))
    for number in range(3)
]
SHOWN = [Example(id="shown", inputs={"text": "shown"}, references=("shown answer",))]


def make_task(**changes: object) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field(), "hint": Field(required=False)},
        "prompts": {"plain": "Say $text", "other": "Repeat $text"},
        "datasets": {"demo": lambda split: {"test": EXAMPLES, "train": SHOWN}.get(split, [])},
        "metrics": ("exact_match",),
        "output": Generate(max_new_tokens=7, stop=("#",)),
    }
    return Task(**(settings | changes))


def bind(model: FakeModel | None = None, task: Task | None = None, **options: object):
    return bind_task(plan_run(task or make_task(), RunOptions(**options)), model or FakeModel(["x"]))


def test_request_has_token_ids_messages_inputs_and_generation():
    bound = bind(FakeModel(["x"], chat=True), num_fewshot=1, prompt="other")
    request = bound.request(EXAMPLES[0])
    prompt = bound.render(EXAMPLES[0])
    assert (request.key, request.token_ids, request.reasoning) == ("e0", prompt.token_ids, prompt.reasoning)
    assert request.messages == (
        {"role": "user", "content": "Repeat shown"},
        {"role": "assistant", "content": "shown answer"},
        {"role": "user", "content": "Repeat number 0"},
    )
    assert request.inputs == {"text": "number 0"}
    assert request.sampling_params == SamplingParams(max_new_tokens=7, stop=("#",))
    assert request.adapter is None


def test_generation_of_a_base_model_stops_at_the_separator_too():
    assert bind().generation.stop == ("#", "\n\n")


def test_render_all_renders_what_render_does():
    bound = bind(num_fewshot=1)
    assert bound.render_all(EXAMPLES) == [bound.render(example) for example in EXAMPLES]


def test_render_all_skips_overlong_prompts_if_asked():
    model = FakeModel(["x"], context_length=7 + len("Say number 0\n"))
    long = replace(EXAMPLES[1], inputs={"text": "number 100"})
    bound = bind(model, on_overlong="skip")
    assert [prompt is None for prompt in bound.render_all([EXAMPLES[0], long])] == [False, True]
    with pytest.raises(OverlongPromptError, match='example "e1"'):
        bound.render(long)
    with pytest.raises(PromptError, match="1 of 2 prompts are too long. The first: .*e1"):
        bind(model).render_all([EXAMPLES[0], long])


def test_max_prompt_tokens_leaves_room_for_the_answer():
    assert bind(FakeModel(["x"], context_length=100)).max_prompt_tokens == 93
    assert bind(FakeModel(["x"])).max_prompt_tokens is None
    with pytest.raises(PromptError, match="max_new_tokens 7 leaves no room for a prompt"):
        bind(FakeModel(["x"], context_length=7)).max_prompt_tokens  # noqa: B018


def test_parse_returns_the_prediction_of_the_task():
    assert (
        bind(task=make_task(output=Generate(parse=lambda completion: completion.partition(":")[2]))).parse("a: b", "e0")
        == " b"
    )


def test_answer_is_what_ask_returns():
    task, model = make_task(output=Generate(parse=str.upper)), FakeModel(lambda prompt: prompt)
    plan, example = plan_ask(task, {"text": "so", "hint": ""}, RunOptions())
    streamed: list[str] = []
    assert bind_task(plan, model).answer(example, streamed.append) == lmtasks.ask(task, "so", model=model) == "SAY SO\n"
    assert streamed == ["SAY SO\n"]


def test_run_ask_and_show_render_the_same_prompt(tmp_path):
    model = FakeModel(lambda prompt: "x")
    run = lmtasks.run(make_task(), model=model, limit=1, output_dir=tmp_path)
    lmtasks.ask(make_task(), EXAMPLES[0].inputs, model=model)
    shown = lmtasks.api.show(make_task(), model=model)
    assert model.prompts == [shown.text, shown.text]
    assert run.samples[0].prompt_sha256 == bind(model).render(EXAMPLES[0]).sha256
