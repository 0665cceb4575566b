"""Training examples as token ids."""

from __future__ import annotations

import json

import pytest
from training_setup import make_task, one_line, ready, rows, write

from lmtasks import Generate
from lmtasks.errors import PromptError
from lmtasks.testing import save_tiny_model
from lmtasks.training.common.packing import collate


@pytest.mark.parametrize("packed", [True, False])
def test_targets_are_answers_and_end_tokens_each_predicted_at_the_place_before_it(tiny_folder, data, packed):
    items = ready(tiny_folder, data).setup.train.examples[:5]
    batch = collate(items, packed=packed, pad_id=0, weight=1.0)
    expected = [token for item in items for token in item.token_ids[-item.target_tokens :]]
    assert batch["targets"].tolist() == expected
    assert batch["input_ids"].flatten()[batch["target_positions"] + 1].tolist() == expected


LONG = {"id": "long", "text": "ferry " * 200, "hint": "short", "target": "the ferry leaves the harbour"}


def test_what_is_too_long_loses_text_of_its_prompt_and_never_of_its_answer(tmp_path, tiny_folder, data):
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    setup = ready(tiny_folder, files, max_length=200).setup
    whole_prompt = ready(tiny_folder, files).setup.train.examples[3]
    item = setup.train.examples[3]
    assert 190 <= len(item.token_ids) <= 200 < len(whole_prompt.token_ids)
    assert item.token_ids[-item.target_tokens :] == whole_prompt.token_ids[-whole_prompt.target_tokens :]
    assert [other.truncated for other in setup.train.examples] == [False, False, False, True]
    assert setup.train.truncated == 1


def test_what_is_too_long_is_skipped_or_refused_if_that_is_asked_for(tmp_path, tiny_folder, data):
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    train = ready(tiny_folder, files, max_length=200, on_overlong="skip").setup.train
    assert (len(train.examples), train.skipped, train.truncated) == (3, 1, 0)
    with pytest.raises(PromptError, match=r'1 of 4 examples are too long.*"long"') as error:
        ready(tiny_folder, files, max_length=200, on_overlong="error")
    assert "on_overlong='skip' or on_overlong='truncate'" in one_line(error)


def test_a_prompt_that_cannot_be_cut_is_an_error_that_names_the_example(tmp_path, tiny_folder, data):
    hard = {"id": "hard", "text": "short", "hint": "six " * 300, "target": "short"}
    files = {**data, "data": write(tmp_path / "hard.jsonl", [*rows(3), hard])}
    with pytest.raises(PromptError, match='example "hard"') as error:
        ready(tiny_folder, files, max_length=200)
    assert "on_overlong='skip'" in one_line(error)


def test_text_of_an_answer_never_becomes_a_control_token(tmp_path, tiny_folder, data):
    text = "six <|im_end|> nine <|im_start|>user"
    files = {**data, "data": write(tmp_path / "odd.jsonl", [*rows(3), {"id": "odd", "text": text, "target": text}])}
    planned = ready(tiny_folder, files)
    item = planned.setup.train.examples[3]
    answer = list(item.token_ids[-item.target_tokens :])
    assert planned.loaded.tokenizer.decode(answer) == f"{text}<|im_end|>"
    special = {planned.loaded.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
    assert [token in special for token in answer] == [False] * (len(answer) - 1) + [True]


def test_where_there_is_no_right_answer_the_task_says_what_is_learned(tmp_path, tiny_folder, data):
    made = [{"id": "none", "text": "no boat", "references": []}, {"id": "one", "text": "a boat", "references": ["it"]}]
    files = {**data, "data": write(tmp_path / "none.jsonl", made)}
    planned = ready(tiny_folder, files, make_task(output=Generate(no_answer="unknown")))
    target_tokens = [
        planned.loaded.tokenizer.decode(list(item.token_ids[-item.target_tokens :]))
        for item in planned.setup.train.examples
    ]
    assert target_tokens == ["unknown<|im_end|>", "it<|im_end|>"]


def test_a_model_with_a_short_context_bounds_the_examples(tmp_path, data):
    save_tiny_model(tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    assert max(len(item.token_ids) for item in ready(tmp_path / "short", files).setup.train.examples) <= 100
