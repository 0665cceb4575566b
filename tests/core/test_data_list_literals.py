"""Lists and objects that were printed into cells are refused, and texts in brackets are not."""

import json
from pathlib import Path

import pytest
from data_files import examples, load, refusal, write

from lmtasks import Example
from lmtasks.data import read_predictions
from lmtasks.errors import DataError

PRINTED = [
    ("{'text': array(['1931'], dtype=object), 'answer_start': array([5], dtype=int32)}", "a dict"),
    ("{'text': ['1931'], 'answer_start': [5]}", "a dict"),
    ("['seven', 'seven arches']", "a list"),
    ("['seven' 'seven arches']", "a list"),
    ("['seven'\n 'seven arches']", "a list"),
    ('["it\'s", \'a "list"\']', "a list"),
    ("['a', nan]", "a list"),
    ("['a', None, -1.5e3, True]", "a list"),
    ("[1 2 3]", "a list"),
    ("[np.str_('a'), np.float64(1.0)]", "a list"),
    ("[Timestamp('2020-01-01 00:00:00')]", "a list"),
    ("['a' ... 'b']", "a list"),
    ("('a', 'b')", "a tuple"),
    ("('a',)", "a tuple"),
    ("array(['x', 'y'], dtype='<U4')", "a numpy array"),
    ("array([1, 2])", "a numpy array"),
    ('["a", "b"]', "a JSON list"),
    ("[]", "a JSON list"),
    ('[{"text": "a", "start": null}]', "a JSON list"),
    ('{"text": ["a"]}', "a JSON object"),
    ("{'seven', 'seven arches'}", "a set"),
    ("{'seven'}", "a set"),
    ("{1, 2}", "a set"),
    ("set()", "a set"),
    ("frozenset({'a'})", "a set"),
    ("OrderedDict([('text', ['a'])])", "a dict"),
    ("OrderedDict({'text': ['a']})", "a dict"),
    ("defaultdict(<class 'list'>, {'text': ['a']})", "a dict"),
    ("Counter({'a': 2, 'b': 1})", "a dict"),
    ("collections.deque(['a', 'b'], maxlen=3)", "a list"),
    ("deque(['a'])", "a list"),
    ("dict_keys(['a', 'b'])", "a list"),
    ("Index(['a', 'b'], dtype='object')", "a list"),
    ("numpy.array(['x', 'y'])", "a numpy array"),
    ("np.array([1, 2])", "a numpy array"),
    ("tensor([1, 2], dtype=torch.int32)", "a tensor"),
    ("tensor([0.5, 2.])", "a tensor"),
    ("[np.True_, np.False_]", "a list"),
    ("[np.datetime64('2020-01-01')]", "a list"),
    ("[np.nan, np.inf]", "a list"),
    ("[<NA>]", "a list"),
    ("[UUID('12345678-1234-5678-1234-567812345678')]", "a list"),
    ("[datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)]", "a list"),
    ("b'seven'", "bytes"),
    ("[" * 500 + "1" + "]" * 500, "a JSON list"),
    ("[" * 100_000 + "1" + "]" * 100_000, "a list"),
]
TEXTS = [
    "[sic] he said",
    "[Applause]",
    "(A)",
    "(3)",
    "{name}",
    "{0}",
    "[...]",
    "[, ]",
    "[12-14]",
    "[00:12:03]",
    "[1/2]",
    "(1) or (2)",
    "[1], [2]",
    "[1, 2",
    "1, 2]",
    "[1, 2)",
    "['a'] and",
    "[x for x in y]",
    "f('a')",
    "{a: 1}",
    "'a', 'b'",
    "{name}, {place}",
    "set",
    "settle(1)",
    "array",
    "<NA> [1]",
    "b'a' b'c'",
    "[laughs]",
    "-" * 100_000 + "[1]",
    "[" * 300_000,
    "['" * 100_000 + "]",
    "[" + "-" * 100_000 + "1]",
]


@pytest.mark.parametrize(("cell", "kind"), PRINTED)
@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
def test_column_of_list_literals_is_refused_with_a_remedy(tmp_path: Path, name: str, cell: str, kind: str):
    empty = {"data.csv": "", "data.jsonl": None}[name]
    path = write(tmp_path / name, [{"document": "a", "summary": empty}, {"document": "b", "summary": cell}])
    message = refusal(path)
    row = ", line " if name == "data.csv" else ", line 2"
    assert message.startswith(f"{path}{row}")
    assert f'column "summary" holds {kind} written as text' in message
    assert 'df.to_json("data.jsonl", orient="records", lines=True)' in message
    assert len(message) < 400 + len(str(path))


@pytest.mark.parametrize("cell", TEXTS)
def test_text_in_brackets_is_a_text(tmp_path: Path, cell: str):
    [example] = examples(write(tmp_path / "data.csv", [{"document": cell, "summary": cell}]))
    assert (example.inputs, example.references) == ({"document": cell}, (cell,))


def test_column_with_one_plain_text_is_text(tmp_path: Path):
    rows = [{"document": "a", "summary": "['x']"}, {"document": "b", "summary": "a list: ['x']"}]
    assert [example.references for example in examples(write(tmp_path / "data.csv", rows))] == [
        ("['x']",),
        ("a list: ['x']",),
    ]


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "<NA>", "null", "NaT", " "])
def test_missing_values_do_not_hide_list_literals(tmp_path: Path, word: str):
    rows = [{"document": "a", "summary": word}, {"document": "b", "summary": "['x']"}]
    assert 'line 3: column "summary" holds a list written' in refusal(write(tmp_path / "data.csv", rows))
    path = write(tmp_path / "words.csv", [{"document": "a", "summary": "nan"}])
    assert [example.references for example in examples(path)] == [("nan",)]


@pytest.mark.parametrize(
    "answers",
    [
        ["[seven, seven arches]", "[x]"],
        ['{seven,"seven arches"}', "{x}"],
        [["['seven', 'q']"], ["['x']"]],
        [["['seven', 'q']"], None, ["[]", "nan"]],
        [["['seven']"], "['x']"],
    ],
)
def test_texts_that_look_like_lists_cause_a_warning(
    tmp_path: Path, answers: list[object], caplog: pytest.LogCaptureFixture
):
    rows = [{"document": "a", "summary": answer} for answer in answers if answer is not None]
    assert len(examples(write(tmp_path / "data.jsonl", rows))) == len(rows)
    [message] = [record.getMessage() for record in caplog.records]
    assert 'data.jsonl, line 1: column "summary" holds texts that look like lists (' in message


@pytest.mark.parametrize(
    "answers",
    [
        ["[laughs]", "[coughs]"],
        ["[laughs, coughs]", "Hello"],
        ["[IN:GET_EVENT Any , [SL:CATEGORY_EVENT festivals ] ]"],
        ["f(a, b)", "(a, b)"],
        [["[1]", "one"], ["[2]"]],
        ["[a, b]", 3],
    ],
)
def test_texts_in_brackets_pass_without_a_warning(
    tmp_path: Path, answers: list[object], caplog: pytest.LogCaptureFixture
):
    examples(write(tmp_path / "data.jsonl", [{"document": "a", "summary": answer} for answer in answers]))
    assert caplog.records == []


def test_inputs_may_be_json_objects_but_no_other_literals(tmp_path: Path):
    path = write(tmp_path / "data.csv", [{"document": "['a', 'b']", "summary": "s"}])
    assert 'column "document" holds a list written as text' in refusal(path)
    record = '{"name": "The Mill", "food": ["fish", "bread"]}'
    [example] = examples(write(tmp_path / "data.csv", [{"document": record, "summary": "s"}]))
    assert example.inputs == {"document": record}


def test_list_literal_in_an_unused_column_is_meta(tmp_path: Path):
    [example] = examples(write(tmp_path / "data.csv", [{"document": "a", "tags": "['x', 'y']"}]))
    assert example.meta == {"tags": "['x', 'y']"}


def test_text_that_looks_like_a_list_may_be_in_a_list(tmp_path: Path):
    [example] = examples(write(tmp_path / "data.jsonl", [{"document": "a", "summary": ['["x"]']}]))
    assert example.references == ('["x"]',)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_list_literals_in_predictions_are_refused_unless_in_references(tmp_path: Path, name: str):
    path = write(tmp_path / name, [{"id": "1", "prediction": "['x']"}, {"id": "2", "prediction": "[]"}])
    data = [{"id": id, "document": "a", "summary": ["x"]} for id in ("1", "2")]
    dataset = load(write(tmp_path / "data.jsonl", data))
    with pytest.raises(DataError, match='column "prediction" holds a list written as text'):
        read_predictions(path, dataset.examples)
    lists = [Example(id=id, inputs={}, references=(json.dumps(["x"]),)) for id in ("1", "2")]
    assert read_predictions(path, lists) == ["['x']", "[]"]
