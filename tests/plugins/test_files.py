"""A plugin in a file: Python or YAML, named in the place of a task, or with --plugin."""

from __future__ import annotations

import json
import os

import pytest

import lmtasks
from lmtasks.errors import PluginError, UnknownNameError
from lmtasks.parsers import first_paragraph
from lmtasks.plugins import DISABLED, FILES, Registry
from lmtasks.plugins.yaml_schema import task_schema
from lmtasks.testing import FakeModel

PYTHON = """
from lmtasks import DataFile, Generate, Task, hookimpl
from pathlib import Path

@hookimpl
def register_tasks():
    return [
        Task(name=name, version=1, summary="Shout.", fields=["text"], prompts={"plain": "Shout: $text"},
             datasets={"demo": DataFile(path=Path(__file__).with_name("data.jsonl"), license="MIT")},
             metrics=["exact_match"], output=Generate(parse=str.upper))
        for name in ("shout", "shout/louder")
    ]
"""
YAML = """\
name: titles
version: 1
summary: Give a paragraph a title.
prompts:
  plain: "Paragraph: $text"
datasets:
  demo:
    path: data.jsonl
    columns: {references: title}
    license: MIT
metrics: [rouge, chrf]
"""
ROWS = [
    {"id": "a", "split": "test", "text": "one", "title": "ONE"},
    {"id": "b", "split": "train", "text": "two", "title": "TWO"},
]


@pytest.fixture(autouse=True)
def data(write_file):
    write_file("data.jsonl", "".join(json.dumps({**row, "references": [row["title"]]}) + "\n" for row in ROWS))


def read(write_file, text):
    return Registry().task(str(write_file("task.yaml", text)))[0]


def refused(write_file, text) -> str:
    with pytest.raises(PluginError) as caught:
        read(write_file, text)
    message = str(caught.value)
    assert "task.yaml" in message and "\n" not in message
    return message.partition("task.yaml")[2].removeprefix(", ")


# In place of a task


def test_python_file_runs_as_a_task(write_file, tmp_path):
    path = write_file("lmtasks_shout.py", PYTHON)
    run = lmtasks.run(str(path), model=FakeModel(["one"]), output_dir=tmp_path / "runs")
    task = run.record.task
    assert (task.name, task.plugin, task.distribution) == ("shout", "shout", "lmtasks_shout.py")
    assert task.distribution_version.startswith("sha256:")
    assert run.scores[0].value == 100


def test_yaml_file_runs_as_a_task(write_file, tmp_path):
    model = FakeModel(["ONE\n"])
    run = lmtasks.run(str(write_file("titles.yaml", YAML)), model=model, output_dir=tmp_path / "runs")
    assert model.prompts == ["Paragraph: one\n"]
    assert (run.record.task.name, run.record.task.distribution) == ("titles", "titles.yaml")
    assert run.scores[0].value == 100


def test_plugin_file_replaces_an_installed_plugin_of_its_name(write_file):
    registry = Registry()
    task, plugin = registry.task(str(write_file("titles.yaml", YAML)))
    assert plugin.discovered.file and list(task.prompts) == ["plain"]
    assert registry.task("titles")[0] == task
    assert Registry().task("titles")[1].discovered.file is None


@pytest.mark.parametrize("name", ["gone.py", "gone.yaml", "deep/gone.yml"])
def test_missing_plugin_file_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=f"^{name}: cannot be read .No such file or directory."):
        Registry().task(name)


def test_python_file_error_names_its_line(write_file):
    path = write_file("bad.py", "x = 1\nraise ValueError('no')\n")
    with pytest.raises(
        PluginError,
        match=r'^plugin "bad" \(bad.py sha256:[0-9a-f]{12}\) cannot be imported: ValueError: no \(.*bad.py, line 2\)$',
    ):
        Registry().task(str(path))


# With --plugin


def test_plugin_file_offers_its_tasks_by_name(write_file, monkeypatch):
    monkeypatch.setenv(FILES, os.pathsep.join([str(write_file("a.py", PYTHON)), str(write_file("b.yaml", YAML))]))
    registry = Registry()
    assert registry.task("shout/louder")[0].name == "shout/louder"
    assert registry.task("shout")[0].name == "shout"
    assert registry.task("titles")[1].discovered.distribution == "b.yaml"
    assert {"shout", "titles", "summarization"} <= {plugin.discovered.name for plugin in registry.load_all()[0]}


def test_broken_plugin_file_is_an_error_and_is_listed(write_file, monkeypatch):
    path = write_file("bad.py", "raise ValueError('no')")
    monkeypatch.setenv(FILES, str(path))
    with pytest.raises(PluginError, match="ValueError: no"):
        Registry().task("titles")
    loaded, broken = Registry().load_all()
    assert str(path) in broken and "titles" in {plugin.discovered.name for plugin in loaded}


def test_plugin_files_of_one_name_are_a_conflict(write_file, monkeypatch):
    files = [write_file("a.yaml", YAML), write_file("b.yaml", YAML + "language: en\n")]
    monkeypatch.setenv(FILES, os.pathsep.join(map(str, files)))
    with pytest.raises(
        PluginError, match='"titles" is claimed by a.yaml sha256:.* and b.yaml sha256:.*; name one of them'
    ):
        Registry().task("titles")


def test_disabled_plugin_is_not_loaded(monkeypatch):
    monkeypatch.setenv(DISABLED, "titles, qa,not-there")
    registry = Registry()
    assert {"titles", "qa"} == set(registry.disabled)
    with pytest.raises(PluginError, match='"titles" is disabled by --no-plugin or LMTASKS_DISABLE_PLUGINS'):
        registry.task("titles")
    assert "titles" not in {plugin.discovered.name for plugin in registry.load_all()[0]}
    assert registry.task("summarization")


# What YAML may say


def test_yaml_short_and_long_forms_are_equal(write_file):
    short = read(write_file, YAML)
    long = read(
        write_file,
        YAML.replace('plain: "Paragraph: $text"', 'plain: {user: "Paragraph: $text"}')
        + "fields: {text: {required: true}}\noutput: {max_new_tokens: 128, parse: strip}\n",
    )
    assert short == long
    assert list(short.fields) == ["text"]


def test_yaml_has_every_part_of_a_task(write_file, tmp_path):
    (tmp_path / "lora").mkdir()
    task = read(
        write_file,
        """
name: mail/formal
version: 3
summary: All of it.
fields:
  text: {columns: [body, content.text], truncatable: true}
  subject: {required: false}
references: reply
prompts:
  plain:
    system: You write replies.
    user: |
      Subject: $subject
      $text
      Tone: $tone
    answer_prefix: "Reply:"
    example_separator: "\\n==\\n"
datasets:
  demo: data.jsonl
  mails: {hub: org/mails, revision: abc, config: en, columns: {text: body}, license: CC-BY-4.0}
metrics: chrf
output:
  max_new_tokens: 9
  stop: "##"
  temperature: 0.5
  top_p: 0.9
  top_k: 5
  repetition_penalty: 1.1
  parse: first_paragraph
  no_answer: none
language: en
require_columns: {lang: en}
adapter: lora
parameters:
  tone: {default: formal, choices: [formal, friendly], summary: how it sounds}
  words: {type: int, minimum: 1}
  mood: calm
""".replace("Tone: $tone", "Tone: $tone, $words, $mood"),
    )
    assert task.fields["text"] == lmtasks.Field(columns=("body", "content.text"), truncatable=True)
    assert not task.fields["subject"].required and task.references == ("reply",)
    assert task.prompts["plain"].example_separator == "\n==\n"
    assert task.datasets["demo"] == lmtasks.DataFile(path=tmp_path / "data.jsonl")
    assert task.datasets["mails"] == lmtasks.HubDataset(
        id="org/mails", revision="abc", config="en", columns={"text": "body"}, license="CC-BY-4.0"
    )
    assert task.output == lmtasks.Generate(
        max_new_tokens=9,
        stop=("##",),
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        repetition_penalty=1.1,
        parse=first_paragraph,
        no_answer="none",
    )
    assert (task.metrics, task.language, task.require_columns) == (("chrf",), "en", {"lang": "en"})
    assert task.adapter == tmp_path / "lora"
    assert task.parameter_values == {"tone": "formal", "mood": "calm"}
    assert task.with_settings({"words": "3"}).parameter_values["words"] == 3
    assert [task.output.read(text) for text in ("a\n\nb", "None.", "none", "none of it")] == ["a", "", "", "none of it"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("summary:", "sumary:", 'line 3: unknown key "sumary". Did you mean summary'),
        ("path: data.jsonl", "path: ~nosuchuser/d", 'line 8: data file "~nosuchuser/d": "~nosuchuser" is the home'),
        ("    path:", "    pth:", 'line 8: unknown key "pth" of datasets.demo. Did you mean path'),
        ("version: 1\n", "", 'line 1: "version" is missing'),
        ("version: 1", "version: one", "line 2: version: expected a whole number, got 'one'"),
        ("version: 1", "version: 0", "line 2: version: expected greater than or equal to 1, got 0"),
        ("version: 1", "version: 1\nlanguage: no", "line 3: language: expected text, got False; put it in quotes"),
        ("name: titles", "name: My Titles", "line 1: name: expected a name in lower case, such as"),
        ("[rouge, chrf]", "[rogue, chrf]", 'line 11: unknown metric "rogue". Did you mean rouge'),
        ("$text", "$text costs $ 5", 'line 5: a "$" that names no field; write "$$" for the sign itself'),
        ("$text", "text", 'line 4: no prompt names an input, such as "$text"'),
        (
            "metrics:",
            "fields: [txt]\nmetrics:",
            'line 5: unknown field "text" that prompt "plain" names. Did you mean txt',
        ),
        (
            "{references: title}",
            "{reference: title}",
            'line 9: unknown field "reference" of the task. Did you mean references',
        ),
        (
            "metrics:",
            "output: {parse: frist_line}\nmetrics:",
            'line 11: unknown parser "frist_line". Did you mean first_line',
        ),
        (
            "metrics:",
            "output: {max_tokens: 5}\nmetrics:",
            'line 11: unknown key "max_tokens" of output. Did you mean max_new_tokens',
        ),
        ("metrics:", "output: {top_p: 0.5}\nmetrics:", "line 11: output: top_p and top_k need a temperature"),
        (
            "metrics:",
            "parameters: {n: {type: int, default: x}}\nmetrics:",
            "line 11: parameters.n: must be a whole",
        ),
        ("metrics:", "1: 2\nmetrics:", "line 11: 1: expected text as a key, got 1; put it in quotes"),
        ("metrics:", "? [a, b]\n: c\nmetrics:", "line 11: a key must be plain text"),
        ("metrics:", "prompts: {plain: 3}\nmetrics:", 'line 11: "prompts" stands here twice'),
        ("name: titles", "name: &all {a: [*all]}", "by its aliases"),
        ("name: titles", f"name: {'[' * 5000}", "nested too deeply for a task"),
        ("path: data.jsonl", "hub: a/b\n    path: data.jsonl", "line 7: expected either path (a file) or hub"),
        ("    license", "    revision: abc\n    license", "line 10: revision belongs to a hub set, and this is a file"),
        ("version: 1", "version: 1\nversion: 2", 'line 3: "version" stands here twice'),
        ("version: 1", "version: [1", "not YAML"),
        (YAML, "- a\n- b\n", 'expected a task, lines such as "name: titles"'),
        (YAML, "", 'expected a task, lines such as "name: titles"'),
        ("[rouge, chrf]", "{rouge: 1}", "line 11: metrics: expected a list"),
        (
            "summary: Give",
            "summary: !!python/object:os.system Give",
            "line 3: not YAML: could not determine a constructor",
        ),
    ],
)
def test_yaml_errors_name_the_line(before, after, message, write_file):
    assert before in YAML
    assert message in refused(write_file, YAML.replace(before, after, 1))


def test_yaml_aliases_that_grow_without_bound_are_refused(write_file):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    message = refused(write_file, "\n".join([*lines, YAML]))
    assert "line 5: stands for more than 10,000 values, by its aliases" in message


def test_yaml_alias_is_resolved(write_file):
    text = YAML.replace("  plain: ", "  plain: &ask ", 1).replace("datasets:", "  again: *ask\ndatasets:", 1)
    task = read(write_file, text)
    assert task.prompts["again"] == task.prompts["plain"]


def test_yaml_in_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_bytes(YAML.replace("paragraph", "päragraph").encode("latin-1"))
    with pytest.raises(PluginError, match="line 3: not UTF-8; save the file as UTF-8"):
        Registry().task(str(path))


def test_yaml_field_without_a_column_lists_the_columns(write_file, tmp_path):
    path = write_file("task.yaml", YAML.replace("$text", "$body"))
    with pytest.raises(lmtasks.LmtasksError, match='data.jsonl, line 1: no field "body"'):
        lmtasks.run(str(path), model=FakeModel([]), output_dir=tmp_path / "runs")


def test_yaml_with_an_unknown_plugin_metric_is_refused(write_file, tmp_path):
    path = write_file("task.yaml", YAML.replace("rouge", "lengths/length_ration"))
    with pytest.raises(UnknownNameError, match="Did you mean length_ratio"):
        lmtasks.run(str(path), model=FakeModel([]), output_dir=tmp_path / "runs")


# For editors


def test_yaml_schema_describes_every_key():
    schema = task_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "version", "summary", "prompts", "datasets", "metrics"}
    for name, key in schema["properties"].items():
        assert key.get("description") or name in ("name", "fields", "summary"), name
    assert "first_line" in schema["$defs"]["OutputKeys"]["properties"]["parse"]["enum"]
    alone, listed = schema["properties"]["metrics"]["anyOf"]
    # What the file may not name is marked while one types.
    assert alone["not"] == listed["items"]["not"] == {"pattern": "^evaluate:"}


def test_registry_executes_a_file_once(write_file, tmp_path):
    log = tmp_path / "log"
    path = write_file("shout.py", f"with open({str(log)!r}, 'a') as log:\n    log.write('x')\n{PYTHON}")
    registry = Registry()
    first, again = registry.task(str(path)), registry.task(str(path))
    assert first == again and log.read_text() == "x"


def test_run_all_executes_a_file_once(write_file, tmp_path):
    log = tmp_path / "log"
    path = write_file("shout.py", f"with open({str(log)!r}, 'a') as log:\n    log.write('x')\n{PYTHON}")
    tasks = [(str(path), None), (str(path), None)]
    lmtasks.api.run_all(tasks, lmtasks.RunOptions(output_dir=tmp_path / "runs"), model=FakeModel(lambda _: "ONE"))
    assert log.read_text() == "x"
