from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import lmtasks
from lmtasks import Example, Task
from lmtasks.data import DataRequest, load_dataset
from lmtasks.plugins import Registry
from lmtasks.testing import STRANGE_TEXTS, FakeModel, check_task
from lmtasks_plugins.qa import short_answer
from lmtasks_plugins.summarization import read_headline

TITLES = Path(__file__).parents[1] / "data" / "example_plugins" / "lmtasks_titles.py"
TASKS = {
    task.name: task
    for plugin in Registry().load_all()[0]
    if plugin.discovered.distribution == "lmtasks"
    for task in plugin.tasks.values()
}
OTHERS = ("zh", "de", "fr", "es", "ja", "ko", "ru", "cs", "uk")
PAIRS = (
    *(f"en-{other}" for other in OTHERS),
    *(f"{other}-en" for other in OTHERS),
    *("de-fr", "fr-de", "cs-uk", "uk-cs"),
)
CHINESE = ("qa", "qa/closed-book", "qa/customer-service", "email-reply")
SIXTEEN = ("summarization", "summarization/dialogue", "summarization/headline", *CHINESE)


def examples(task: Task, *splits: str) -> list[Example]:
    return [
        example
        for split in splits or ("test", "train")
        for example in load_dataset(task, DataRequest(split=split)).examples
    ]


def perfect(known: Sequence[Example]) -> Callable[[str], str]:
    """A model that finds the example in its prompt and gives the right answer."""

    def answer(prompt: str) -> str:
        asked = [example for example in known if all(text in prompt for text in example.inputs.values())]
        assert len(asked) == 1
        return f" {asked[0].answer}"

    return answer


def test_first_party_tasks_are_these():
    assert set(TASKS) == {*SIXTEEN, *(f"translation/{pair}" for pair in PAIRS)}


# What a task promises


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_first_party_task_passes_the_checks(task):
    check_task(task)


def test_example_plugin_passes_the_checks():
    check_task(Registry().task("titles")[0])


def test_example_plugin_has_less_than_forty_lines():
    assert len(TITLES.read_text(encoding="utf-8").splitlines()) < 40


# Demos


@pytest.mark.parametrize("name", SIXTEEN)
def test_demo_has_sixteen_examples_in_two_splits(name):
    test, train = examples(TASKS[name], "test"), examples(TASKS[name], "train")
    assert len(test) + len(train) == 16
    assert not {example.id for example in test} & {example.id for example in train}


@pytest.mark.parametrize("pair", PAIRS)
def test_translation_demo_has_24_sentences_in_every_language(pair):
    task = TASKS[f"translation/{pair}"]
    every = examples(task)
    assert len(every) == 24
    assert len({example.inputs["text"] for example in every}) == 24
    assert len({example.answer for example in every}) == 24
    assert task.language == pair.partition("-")[2]


def test_translation_pair_and_its_reverse_have_the_same_sentences():
    there, back = examples(TASKS["translation/en-zh"]), examples(TASKS["translation/zh-en"])
    assert [(item.inputs["text"], item.answer) for item in there] == [
        (item.answer, item.inputs["text"]) for item in back
    ]


@pytest.mark.parametrize("name", CHINESE)
@pytest.mark.parametrize("split", ["test", "train"])
def test_demo_has_some_chinese_examples(name, split):
    languages = [example.language for example in examples(TASKS[name], split)]
    assert set(languages) == {"en", "zh"}
    assert 0 < languages.count("zh") < len(languages) / 2


@pytest.mark.parametrize("split", ["test", "train"])
def test_qa_demo_has_unanswerable_questions(split):
    every = examples(TASKS["qa"], split)
    unanswerable = [example for example in every if example.references == ("",)]
    assert 0 < len(unanswerable) < len(every) / 2
    assert {example.answer for example in unanswerable} == {"unanswerable"}


def test_qa_demo_answers_are_extracts_of_the_text():
    for example in examples(TASKS["qa"]):
        if example.references != ("",):
            assert any(reference in example.inputs["context"] for reference in example.references), example.id


@pytest.mark.parametrize(
    ("name", "field"), [("email-reply", "points"), ("email-reply", "tone"), ("qa/customer-service", "context")]
)
def test_demo_uses_optional_fields(name, field):
    task = TASKS[name]
    assert not task.fields[field].required
    assert any(field in example.inputs for example in examples(task))


# Parsers


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Paris", "Paris"),
        ("  Paris \nbecause the text says so", "Paris"),
        ("\n\nParis", "Paris"),
        ("Answer: Paris", "Paris"),
        ("ANSWER:Paris", "Paris"),
        ("unanswerable", ""),
        ("Unanswerable.", ""),
        ("Answer: unanswerable!\nThe text is about ships.", ""),
        ("unanswerable。", ""),
        ("unanswerable questions", "unanswerable questions"),
        ("3.5 km.", "3.5 km."),
        ("周树人", "周树人"),
        ("", ""),
    ],
)
def test_short_answer_returns_the_first_line(completion, answer):
    assert short_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "headline"),
    [
        ("Ferry late again", "Ferry late again"),
        ("Ferry late again\n\nThe ferry is late.", "Ferry late again"),
        ('Subject: "Ferry late again"', "Ferry late again"),
        ("headline: **Ferry late again**", "Ferry late again"),
        ("“渡轮又晚点”", "渡轮又晚点"),
        ('Captain calls it "normal" again', 'Captain calls it "normal" again'),
        ("  \n ", ""),
    ],
)
def test_read_headline_removes_label_and_quotes(completion, headline):
    assert read_headline(completion) == headline


@pytest.mark.parametrize("parse", [short_answer, read_headline])
@pytest.mark.parametrize("completion", STRANGE_TEXTS)
def test_parsers_are_idempotent(parse, completion):
    once = parse(completion)
    assert "\n" not in once
    assert parse(once) == once


# Runs


@pytest.mark.parametrize("task", TASKS)
def test_first_party_task_runs(tmp_path, task):
    model = FakeModel(lambda prompt: " The ferry leaves at nine.")
    run = lmtasks.run(task, model=model, output_dir=tmp_path)
    [folder] = tmp_path.iterdir()
    assert run.path == folder
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    count = len(examples(TASKS[task], "test"))
    assert record["status"] == "finished"
    assert record["task"]["name"] == task
    assert record["counts"]["scored"] == record["data"]["count"] == count == len(model.prompts)
    assert {score["n"] for score in record["scores"]} <= set(range(1, count + 1))
    kinds = {score["name"] for score in record["scores"]}
    assert len(kinds) >= 2
    for score in record["scores"]:
        assert 0 <= score["value"] < 100
        assert "version:" in score["signature"]
        assert f"lang:{score['language']}" in score["signature"]
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert report.startswith(f"# {task} with fake\n")
    assert all(f"| {kind} |" in report for kind in kinds)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_have_the_best_scores(tmp_path, task):
    model = FakeModel(perfect(examples(TASKS[task])))
    run = lmtasks.run(task, model=model, output_dir=tmp_path, max_new_tokens=5000)
    assert run.scores
    assert {score.name: score.value for score in run.scores if score.value != pytest.approx(100)} == {}
    assert run.record.counts.truncated_outputs == 0


def test_qa_right_answers_match_exactly_in_both_languages(tmp_path):
    known = examples(TASKS["qa"], "test")
    run = lmtasks.run("qa", model=FakeModel(perfect(known)), output_dir=tmp_path)
    scores = [(score.name, score.language, score.value) for score in run.scores]
    parts = ("exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")
    assert sorted(scores) == sorted((name, language, 100.0) for name in parts for language in ("en", "zh"))
    unanswerable = {example.id for example in known if example.references == ("",)}
    assert {sample.id for sample in run.samples if not sample.prediction} == unanswerable


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_fewshot_prompt_shows_training_examples_first(tmp_path, task, chat):
    model = FakeModel(lambda prompt: "x", chat=chat)
    lmtasks.run(task, model=model, output_dir=tmp_path, num_fewshot=2, limit=1)
    [prompt] = model.prompts
    asked = examples(TASKS[task], "test")[0]
    first = next(iter(asked.inputs.values()))
    shown = [
        example for example in examples(TASKS[task], "train") if all(text in prompt for text in example.inputs.values())
    ]
    assert len(shown) == 2
    assert all(prompt.index(next(iter(example.inputs.values()))) < prompt.index(first) for example in shown)
    assert all(example.answer in prompt for example in shown)
