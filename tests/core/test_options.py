"""Settings: groups, checks, typed keywords."""

from dataclasses import fields
from typing import get_type_hints

import pytest

from lmtasks import LmtasksError, RunOptions, ScoreOptions, TrainOptions
from lmtasks.cli.flags import flag
from lmtasks.errors import spell_options
from lmtasks.options import DataOptions, ModelOptions, PromptOptions, RunKeywords, ScoreKeywords, TrainKeywords
from lmtasks.task import SamplingParams

PAIRS = [(RunOptions, RunKeywords), (ScoreOptions, ScoreKeywords), (TrainOptions, TrainKeywords)]


@pytest.mark.parametrize(("options", "keywords"), PAIRS)
def test_keywords_are_the_fields_of_the_options(options, keywords):
    assert {field.name for field in fields(options)} == set(get_type_hints(keywords))


@pytest.mark.parametrize(("options", "keywords"), PAIRS)
def test_keywords_have_the_types_of_the_options(options, keywords):
    of_options, of_keywords = get_type_hints(options), get_type_hints(keywords)
    for name, hint in of_keywords.items():
        if "Sequence" not in str(hint):  # a single name stands for a tuple of one
            assert hint == of_options[name], name


@pytest.mark.parametrize("options", [RunOptions, ScoreOptions, TrainOptions])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"limit": 0}, "limit must be a whole number of at least 1, not 0"),
        ({"limit": 2**70}, "limit must be a whole number of at least 1 and below 2**63"),
        ({"data": 3}, "data must be a name or a path, not int"),
        ({"language": "englisch!"}, "language must be a BCP 47 tag"),
        ({"seed": "one"}, "seed must be a whole number"),
    ],
)
def test_a_group_is_checked_in_every_class_composed_of_it(options, setting, message):
    with pytest.raises(LmtasksError) as error:
        options(**setting)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, not 'tpu'"),
        ({"on_overlong": "cut"}, "on_overlong must be one of error, skip, truncate, not 'cut'"),
        ({"trust_remote_code": 1}, "trust_remote_code must be true or false, not 1"),
        ({"chat_template_date": "soon"}, 'chat_template_date must be a date such as "2026-11-28"'),
    ],
)
@pytest.mark.parametrize("options", [RunOptions, TrainOptions])
def test_settings_of_prompt_and_model_are_checked(options, setting, message):
    with pytest.raises(LmtasksError) as error:
        options(**setting)
    assert str(error.value).startswith(message)


def test_train_options_hand_their_shared_groups_to_the_scoring_runs():
    train = TrainOptions(
        limit=5, eval_limit=3, columns={"text": "body"}, prompt="plain", parameters={"n": 1}, device="cpu", seed=4
    )
    run = train.run_options("held-out.jsonl", "test")
    assert (run.data, run.split, run.limit) == ("held-out.jsonl", "test", 3)
    shared = [field.name for group in (DataOptions, PromptOptions, ModelOptions) for field in fields(group)]
    for name in set(shared) - {"data", "split", "limit"}:
        assert getattr(run, name) == getattr(train, name), name
    assert (run.seed, run.adapter) == (4, "none")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1 and below 2**63, not 0"),
        ({"top_p": 0.5}, "top_p and top_k need a temperature above 0: greedy generation ignores them"),
        ({"stop": ("",)}, "an empty stop string would end every completion at once"),
    ],
)
def test_sampling_options_out_of_range_are_refused_by_name(setting, message):
    with pytest.raises(LmtasksError) as error:
        RunOptions(**setting).generation(SamplingParams())
    assert str(error.value) == message
    with spell_options(flag), pytest.raises(LmtasksError) as error:
        RunOptions(**setting).generation(SamplingParams())
    flags = (
        message.replace("max_new_tokens", "--max-new-tokens").replace("top_p", "--top-p").replace("top_k", "--top-k")
    )
    assert str(error.value) == flags.replace("a temperature", "a --temperature")
