"""Training, validation and evaluation data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from training_setup import ids, make_task, one_line, rows, write

from lmtasks import Task
from lmtasks.errors import DataError
from lmtasks.options import TrainOptions
from lmtasks.training import plan_training


def divided(tmp_path: Path, made: list[dict], task: Task | None = None, **options):
    file = write(tmp_path / "data.jsonl", made)
    return plan_training(task or make_task(), None, TrainOptions(data=file, **options))


def test_without_other_data_a_part_is_held_out_and_said_by_its_seed(tmp_path):
    plan = divided(tmp_path, rows(40), seed=7)
    assert (len(plan.evaluation.examples), len(plan.validation), len(plan.train)) == (4, 2, 34)
    assert sorted([*ids(plan.train), *ids(plan.validation), *ids(plan.evaluation.examples)]) == sorted(
        row["id"] for row in rows(40)
    )
    assert plan.evaluation.split == "4 held out by seed 7"
    again, other = divided(tmp_path, rows(40), seed=7), divided(tmp_path, rows(40), seed=8)
    assert again.evaluation == plan.evaluation and again.validation == plan.validation
    assert other.evaluation.examples != plan.evaluation.examples


def test_what_asks_the_same_stays_together(tmp_path):
    made = rows(12)
    twins = [{**row, "id": f"twin-{row['id']}", "text": f" {row['text'].upper()}"} for row in made]
    for seed in range(5):
        plan = divided(tmp_path, [*made, *twins], seed=seed, eval_limit=6, validation=4)
        for part in (plan.train, plan.validation, plan.evaluation.examples):
            assert part
            numbers = Counter(example.inputs["text"].split()[0] for example in part)
            assert set(numbers.values()) == {2}


def test_the_number_held_out_that_is_said_is_the_number_held_out(tmp_path):
    made = rows(12)
    plan = divided(tmp_path, [*made, *({**row, "id": f"twin-{row['id']}"} for row in made)], eval_limit=5)
    assert plan.evaluation.split == f"{len(plan.evaluation.examples)} held out by seed 0"


def test_data_that_asks_everything_twice_still_has_something_held_out_or_is_refused(tmp_path):
    made = rows(6)
    try:
        plan = divided(tmp_path, [*made, *({**row, "id": f"twin-{row['id']}"} for row in made)])
    except DataError as error:
        assert "eval_data" in str(error)
    else:
        assert plan.evaluation.examples


def test_data_that_asks_only_one_thing_cannot_be_divided(tmp_path):
    with pytest.raises(DataError, match="eval_data"):
        divided(tmp_path, [{**row, "text": "the same"} for row in rows(12)])


def test_copies_in_the_evaluation_data_are_refused_by_name(tmp_path):
    other = write(tmp_path / "other.jsonl", [{**rows(1, 3)[0], "id": "copy"}, *rows(3, 50)])
    with pytest.raises(DataError) as error:
        divided(tmp_path, rows(8), eval_data=other)
    said = one_line(error)
    assert str(tmp_path / "data.jsonl") in said and str(other) in said and '"e3"' in said
    assert "1 example" in said


def test_what_differs_from_evaluation_data_by_space_or_case_alone_is_left_out_and_counted(tmp_path):
    near = [{**row, "text": f"  {row['text'].upper().replace(' ', '  ')}"} for row in rows(2, 3)]
    other = write(tmp_path / "other.jsonl", [*near, *rows(3, 50)])
    plan = divided(tmp_path, rows(8), eval_data=other, validation=2)
    assert plan.overlap_removed == 2
    assert sorted([*ids(plan.train), *ids(plan.validation)]) == ["e0", "e1", "e2", "e5", "e6", "e7"]
    assert len(plan.evaluation.examples) == 5


def test_another_split_of_the_same_file_is_scored(tmp_path):
    made = [{**row, "split": "train"} for row in rows(8)] + [{**row, "split": "test"} for row in rows(3, 50)]
    plan = divided(tmp_path, [*made, *({**row, "split": "odd"} for row in rows(2, 70))])
    assert (plan.data.split, plan.evaluation.split) == ("train", "test")
    assert ids(plan.evaluation.examples) == ["e50", "e51", "e52"]
    assert len(plan.train) + len(plan.validation) == 8
    plan = divided(tmp_path, [*made, *({**row, "split": "odd"} for row in rows(2, 70))], eval_split="odd")
    assert ids(plan.evaluation.examples) == ["e70", "e71"]
    with pytest.raises(DataError, match='no split "none"'):
        divided(tmp_path, made, eval_split="none")


def test_another_split_that_holds_the_same_is_refused(tmp_path):
    made = [{**row, "split": "train"} for row in rows(8)]
    with pytest.raises(DataError, match="1 example.*e2"):
        divided(tmp_path, [*made, {**rows(1, 2)[0], "id": "copy", "split": "test"}])


def test_a_file_of_one_split_is_divided(tmp_path):
    plan = divided(tmp_path, [{**row, "split": "train"} for row in rows(20)])
    assert plan.evaluation.split == "train, 2 held out by seed 0"


def test_examples_without_an_answer_cannot_be_learned(tmp_path):
    made = [{name: text for name, text in row.items() if name != "target"} for row in rows(8)]
    with pytest.raises(DataError, match='8 of 8 examples have no answer to train on.*"e0"') as error:
        divided(tmp_path, made)
    assert "columns={'references': 'COLUMN'}" in one_line(error)


def test_limits_count_the_first_examples_of_each_part(tmp_path):
    other = write(tmp_path / "other.jsonl", rows(9, 50))
    plan = divided(tmp_path, rows(20), limit=6, eval_data=other, eval_limit=4, validation=0)
    assert ids(plan.train) == [f"e{number}" for number in range(6)]
    assert ids(plan.evaluation.examples) == ["e50", "e51", "e52", "e53"]
    assert not plan.validation
    assert len(divided(tmp_path, rows(20), eval_limit=5).evaluation.examples) == 5


def test_holding_out_everything_is_refused(tmp_path):
    with pytest.raises(DataError, match="no training data is left of 6 examples"):
        divided(tmp_path, rows(6), eval_limit=6)
