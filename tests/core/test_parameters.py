"""Parameters of a task: set by users, typed and checked, named by prompts, part of a run's key and record."""

from __future__ import annotations

import pytest

import lmtasks
from lmtasks import Example, Parameter, Prompt, Task
from lmtasks.errors import UnknownNameError, UsageError
from lmtasks.options import RunOptions
from lmtasks.runs.plan import plan_run
from lmtasks.testing import FakeModel

EXAMPLES = [Example(id="a", inputs={"text": "hi", "tone": "warm"}), Example(id="b", inputs={"text": "ho"})]
OWN = {
    "tone": Parameter(),
    "words": Parameter(type=int, minimum=1, maximum=50),
    "polite": Parameter(default=True),
}


def make_task(**parameters: Parameter) -> Task:
    return Task(
        name="mail",
        version=1,
        summary="Reply.",
        fields={"text": lmtasks.Field(), "tone": lmtasks.Field(required=False)},
        prompts={"plain": Prompt(user="$text\nTone: $tone\nWords: $words\nPolite: $polite")},
        datasets={"demo": lambda split: EXAMPLES},
        metrics=[],
        parameters={**OWN, **parameters},
    )


def prompts(tmp_path, **parameters: object) -> list[str]:
    model = FakeModel(lambda _: "x")
    lmtasks.run(make_task(), model=model, output_dir=tmp_path, parameters=parameters)
    return [prompt.strip() for prompt in model.prompts]


def test_parameter_value_is_in_every_prompt_and_unset_lines_are_left_out(tmp_path):
    assert prompts(tmp_path) == ["hi\nTone: warm\nPolite: true", "ho\nPolite: true"]


def test_parameter_that_is_set_replaces_the_field(tmp_path):
    set_to = prompts(tmp_path, tone="formal", words="12", polite="no")
    assert set_to == [f"{text}\nTone: formal\nWords: 12\nPolite: false" for text in ("hi", "ho")]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("words", "many", "parameter \"words\" must be a whole number of at least 1 and of at most 50, not 'many'"),
        ("words", "0", "of at least 1"),
        ("words", 51, "of at most 50"),
        ("words", True, "must be a whole number"),
        ("words", 2.5, "must be a whole number"),
        ("polite", "perhaps", 'parameter "polite" must be true or false, not'),
        ("tone", "", 'parameter "tone" must be text'),
    ],
)
def test_parameter_refuses_wrong_types_and_ranges(name, value, message):
    with pytest.raises(UsageError, match='task "mail": parameter') as caught:
        plan_run(make_task(), RunOptions(parameters={name: value}))
    assert message in str(caught.value)


def test_parameter_refuses_other_texts_than_its_choices():
    task = make_task(tone=Parameter(choices=("formal", "warm")))
    assert plan_run(task, RunOptions(parameters={"tone": "formal"})).task.settings["tone"] == "formal"
    with pytest.raises(UsageError, match="must be one of formal, warm, not 'forml'"):
        plan_run(task, RunOptions(parameters={"tone": "forml"}))


def test_unknown_parameter_offers_the_nearest():
    with pytest.raises(UnknownNameError, match='unknown parameter "tome" of task "mail". Did you mean tone'):
        plan_run(make_task(), RunOptions(parameters={"tome": "x"}))


def test_parameters_are_part_of_the_record_and_of_the_key(tmp_path):
    runs = [
        lmtasks.run(make_task(), model=FakeModel(lambda _: "x"), output_dir=tmp_path, parameters=given)
        for given in ({}, {"words": 5}, {"words": "5"}, {"words": 6})
    ]
    assert [run.record.task.parameters for run in runs] == [
        {"polite": True}, {"words": 5, "polite": True}, {"words": 5, "polite": True}, {"words": 6, "polite": True}
    ]  # fmt: skip
    keys = [run.record.key for run in runs]
    assert keys[1] == keys[2] and len(set(keys)) == 3
    assert "parameters: words 5, polite True" in (runs[1].path / "report.md").read_text()


def test_ask_accepts_parameters():
    model = FakeModel(lambda _: "x")
    lmtasks.ask(make_task(), "hi", model=model, parameters={"tone": "firm"})
    assert model.prompts[0].strip() == "hi\nTone: firm\nPolite: true"


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (lambda: Parameter(default=3, maximum=2), "must be a whole number of at most 2"),
        (lambda: Parameter(default="x", choices=("a", "b")), "must be one of a, b"),
        (lambda: Parameter(default=3, type=str), "must be text"),
        (lambda: make_task(tone=Parameter(default="x")), 'parameter "tone" has the name of a field, and must not have'),
    ],
)  # fmt: skip
def test_parameter_with_contradictory_values_is_refused(parameter, message):
    with pytest.raises(ValueError, match=message):
        parameter()


def test_parameter_range_may_be_open_and_floats_may_be_whole():
    assert Parameter(default=0.5, minimum=0).read(2) == 2.0
    assert Parameter(default=0.5).read("1e-1") == 0.1
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        Parameter(default=0.5, minimum=0).read("nan")
