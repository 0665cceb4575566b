from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_line import Outcome, one_line

import lmtasks
from lmtasks.cli.main import cli, main
from lmtasks.testing import FakeModel

EXAMPLE_PLUGINS = Path(__file__).parents[1] / "data" / "example_plugins"
BROKEN = ("broken-empty", "broken-exit", "broken-hook", "broken-import", "broken-name", "broken-syntax", "broken-type")
ENGLISH = {"context": "The shop opens at ten.", "question": "When does the shop open?"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """Stands for whatever model is asked for."""
    model = FakeModel(lambda prompt: " At ten.\n\nAnd so on.")
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: model)
    return model


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))


def fake_answer(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], str]) -> None:
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: FakeModel(answer))


def in_process_of_its_own(*arguments: object, cwd: Path, plugins: bool = False) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if plugins:
        environment["PYTHONPATH"] = str(EXAMPLE_PLUGINS)
    command = [sys.executable, "-c", "from lmtasks.cli.main import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


# Help


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, *path, name)


@pytest.mark.parametrize("path", list(commands(cli)), ids=lambda path: " ".join(("lmtasks", *path)))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_works_for_every_command(path, flag):
    result = CliRunner().invoke(cli, [*path, flag], prog_name="lmtasks")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: {' '.join(['lmtasks', *path])} ")
    assert "--help" in result.output


def test_help_lists_commands_with_summaries():
    output = CliRunner().invoke(cli, ["--help"]).output
    for name in ("run", "ask", "list", "show", "models", "plugins"):
        assert re.search(rf"^  {name} +[A-Z].*\.$", output, re.MULTILINE)


def test_version_is_printed():
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.output) == (0, f"lmtasks {version('lmtasks')}\n")


# Lists


def test_list_shows_tasks_and_their_origin(call):
    outcome = call("list")
    assert outcome.code == 0
    rows = [re.split(r"\s{2,}", line) for line in outcome.out.splitlines()]
    assert rows[0] == ["task", "summary", "from"]
    assert ["titles", "Give a paragraph a title.", "lmtasks-titles 1.2.0"] in rows
    assert ["translation/en-zh", "Translate English into Chinese.", f"lmtasks {version('lmtasks')}"] in rows


@pytest.mark.parametrize("command", [("list",), ("list", "--json"), ("plugins", "list"), ("plugins", "list", "--json")])
def test_lists_print_errors_of_broken_plugins_to_stderr(call, command):
    outcome = call(*command)
    assert outcome.code == 0
    if command == ("plugins", "list", "--json"):
        broken = {row["plugin"]: row["error"] for row in json.loads(outcome.out) if row["status"] == "broken"}
        assert set(broken) == {*BROKEN, "twice"}
        assert all(error.startswith(f'plugin "{name}" ') for name, error in broken.items())
    else:
        lines = outcome.err.splitlines()
        assert [line.split('"')[1] for line in lines] == [*BROKEN, "twice"]
        assert all(line.startswith('lmtasks: plugin "') for line in lines)


def test_list_as_json(call):
    rows = {row["task"]: row for row in json.loads(call("list", "--json").out)}
    assert rows["titles"] == {
        "task": "titles",
        "summary": "Give a paragraph a title.",
        "version": 1,
        "plugin": "titles",
        "distribution": "lmtasks-titles",
        "distribution_version": "1.2.0",
        "prompts": ["plain"],
        "datasets": ["demo"],
    }
    assert "summarization/headline" in rows


def test_plugins_list_shows_status_and_tasks(call):
    lines = [re.split(r"\s{2,}", line) for line in call("plugins", "list").out.splitlines()]
    assert lines[0] == ["plugin", "distribution", "version", "module", "status", "tasks"]
    qa = "qa, qa/closed-book, qa/customer-service"
    assert ["qa", "lmtasks", version("lmtasks"), "lmtasks_plugins.qa", "ok", qa] in lines
    assert ["broken-exit", "lmtasks-broken-exit", "0.0.4", "lmtasks_broken_exit", "broken", "-"] in lines
    assert [line[:5] for line in lines if line[0] == "twice"] == [
        ["twice", "lmtasks-twice-left", "1.0.0", "lmtasks_twice", "broken"],
        ["twice", "lmtasks-twice-right", "2.0.0", "lmtasks_twice", "broken"],
    ]


def test_verbose_lists_show_the_traceback_of_a_broken_plugin(call):
    err = call("plugins", "list", "-v").err
    assert "Traceback (most recent call last)" in err
    assert "in read_settings" in err


def test_models_list_as_json_shows_stored_models(call, tmp_path, monkeypatch):
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path / "home"))
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json").out)}
    assert set(rows) == {"smollm2-135m-instruct", "gemma-3-270m"}
    assert {row["path"] for row in rows.values()} == {None}
    assert rows["smollm2-135m-instruct"]["license"] == "Apache-2.0"
    assert not (tmp_path / "home").exists()


def test_models_list_names_the_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path / "home"))
    outcome = call("models", "list")
    assert outcome.code == 0
    assert re.search(r"^gemma-3-270m +.*Gemma Terms of Use .*238 MB$", outcome.out, re.MULTILINE)
    assert outcome.out.endswith(f"\nstored in {tmp_path / 'home' / 'models'}\n")


def test_list_survives_broken_plugins_in_a_subprocess(tmp_path):
    outcome = in_process_of_its_own("list", cwd=tmp_path, plugins=True)
    assert outcome.code == 0
    assert "\ntitles " in outcome.out
    assert len(outcome.err.splitlines()) == len(BROKEN) + 1


# Names that do not exist


UNKNOWN = [
    (["run", "sumarization"], 'unknown task "sumarization". Did you mean summarization'),
    (["run", "qa/closed-bok"], 'unknown task "qa/closed-bok". Did you mean qa/closed-book'),
    (["show", "titels"], 'unknown task "titels". Did you mean titles'),
    (["ask", "titels", "A text."], 'unknown task "titels". Did you mean titles'),
    (["run", "qa", "--metrics", "exact_match,f2"], 'unknown metric "f2". Did you mean f1'),
    (["run", "qa", "--metrics", "lengths/length"], '"length" of plugin "lengths". Did you mean length_ratio'),
    (["run", "qa", "--prompt", "strickt"], 'unknown prompt "strickt" of task "qa". Did you mean strict'),
    (["ask", "qa", "A text.", "--prompt", "strickt"], 'unknown prompt "strickt" of task "qa". Did you mean'),
    (["ask", "qa", "--input", "contxt=A text."], 'unknown input "contxt" of task "qa". Did you mean context'),
    (["run", "qa", "--data", "demmo"], 'unknown data set "demmo" of task "qa" (or file). Did you mean demo'),
    (
        ["models", "pull", "smollm2-135m-instrct"],
        'unknown model "smollm2-135m-instrct" of the catalog. Did you mean smollm2',
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), UNKNOWN, ids=[" ".join(arguments) for arguments, _ in UNKNOWN])
def test_unknown_name_is_one_line_before_loading_a_model(call, no_model, arguments, expected):
    outcome = call(*arguments)
    assert outcome.code == 2
    line = one_line(outcome)
    assert line.startswith("lmtasks: unknown ")
    assert expected in line


def test_unknown_model_is_one_line_with_the_nearest(call):
    outcome = call("run", "qa", "--model", "smollm-135m-instruct")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(
        'lmtasks: unknown model "smollm-135m-instruct". Did you mean smollm2-135m-instruct'
    )
    assert outcome.out == ""
    assert not Path("runs").exists()


def test_unknown_command_offers_the_nearest(call):
    outcome = call("rnu", "qa")
    assert outcome.code == 2
    assert "No such command 'rnu'" in outcome.err
    assert re.search(r"Did you mean.*\brun\b", outcome.err)


def test_unknown_option_offers_the_nearest(call):
    outcome = call("run", "qa", "--limt", "3")
    assert outcome.code == 2
    assert "--limit" in outcome.err


@pytest.mark.parametrize("command", ["run", "show"])
def test_broken_plugin_is_one_line_for_its_tasks(call, no_model, command):
    outcome = call(command, "broken-import")
    assert outcome.code == 1
    assert one_line(outcome).startswith('lmtasks: plugin "broken-import" (lmtasks-broken-import ')


def test_verbose_adds_the_traceback_to_an_error(call, no_model):
    outcome = call("run", "broken-import", "-v")
    assert outcome.code == 1
    assert "in read_settings" in outcome.err
    assert outcome.err.splitlines()[-1].startswith('lmtasks: plugin "broken-import"')


# Wrong usage


@pytest.mark.parametrize(
    "flag",
    [
        ("--data", "x.jsonl"),
        ("--split", "train"),
        ("--map", "question=q"),
        ("--language", "zh"),
        ("--prompt", "plain"),
        ("--metrics", "f1"),
        ("--fewshot-data", "x.jsonl"),
    ],
    ids=lambda flag: flag[0],
)
def test_single_task_options_are_refused_with_several_tasks(call, no_model, flag):
    outcome = call("run", "qa", "qa/closed-book", *flag)
    assert outcome.code == 2
    assert f"{flag[0]} is for a single task" in outcome.err
    assert outcome.out == ""


WRONG = [
    (["run"], "Missing argument 'TASK[=ADAPTER]...'"),
    (["run", "qa", "--limit", "0"], "--limit"),
    (["run", "qa", "--map", "question"], "expected NAME=VALUE"),
    (["run", "qa", "--dtype", "int8"], "float32"),
    (["run", "qa", "--output-dir", "a file"], "--output-dir"),
    (["run", "qa", "--top-p", "0.9"], "temperature"),
    (["run", "qa", "--temperature", "nan"], "temperature"),
    (["run", "qa", "--fewshot-data", "x.jsonl"], "--num-fewshot"),
    (["ask", "qa"], "nothing to ask"),
    (["ask", "qa", "@nowhere.txt"], "cannot read nowhere.txt"),
    (["ask", "qa", "--input", "question=@nowhere.txt"], "--input question: cannot read nowhere.txt"),
    (["ask", "qa", "A text without its question."], 'needs the input "question"'),
    (["ask", "qa", "-"], 'needs the input "context"'),
    (["ask", "qa", "A text.", "--input", "question=What?", "--top-k", "5"], "temperature"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_usage_has_exit_code_2_before_loading_a_model(call, no_model, tmp_path, arguments, expected):
    (tmp_path / "a file").touch()
    outcome = call(*arguments)
    assert outcome.code == 2
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_duplicate_field_is_wrong_usage(call, fake):
    outcome = call("ask", "qa", "A text.", "--input", "context=Another.", "--input", "question=What?")
    assert outcome.code == 2
    assert "context" in outcome.err
    assert fake.prompts == []


def test_text_that_is_not_utf8_is_refused(call, no_model, tmp_path):
    (tmp_path / "latin.txt").write_bytes("Öffnet um zehn.".encode("latin-1"))
    outcome = call("ask", "summarization", "@latin.txt")
    assert outcome.code == 2
    assert "TEXT: latin.txt is not UTF-8" in outcome.err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"], ids=["most locales", "locales C and POSIX"])
def test_standard_input_that_is_not_utf8_is_refused(call, fake, errors):
    outcome = call("ask", "summarization", "-", stdin="Öffnet um zehn.".encode("latin-1"), errors=errors)
    assert outcome.code == 2
    assert "not UTF-8" in outcome.err
    assert fake.prompts == []


# Bad data


@pytest.mark.parametrize(
    ("command", "content", "expected"),
    [
        ("run", '{"context": "A", "question": "B", "answers": ["C"]}\n{"context": ', "data.jsonl, line 2: not JSON"),
        ("run", '{"context": "A", "answers": ["C"]}', 'data.jsonl, line 1: no field "question"'),
        ("show", '{"context": "A", "answers": ["C"]}', 'data.jsonl, line 1: no field "question"'),
        ("run", "", "data.jsonl: no data rows"),
        ("run", None, "data.jsonl"),
        ("show", None, "data.jsonl"),
    ],
    ids=["broken line", "missing field", "missing field, shown", "empty file", "no file", "no file, shown"],
)
def test_bad_data_is_one_line_before_loading_a_model(call, no_model, tmp_path, command, content, expected):
    if content is not None:
        (tmp_path / "data.jsonl").write_text(content, encoding="utf-8")
    outcome = call(command, "qa", "--data", "data.jsonl")
    assert outcome.code == 1
    line = one_line(outcome)
    assert line.startswith("lmtasks: ")
    assert expected in line
    assert not (tmp_path / "runs").exists()


def test_all_tasks_are_checked_before_loading_a_model(call, no_model):
    outcome = call("run", "qa", "summarization", "translation/en-xx")
    assert outcome.code == 2
    assert 'unknown task "translation/en-xx"' in one_line(outcome)


# Runs


@pytest.mark.slow
def test_run_of_a_real_model_writes_only_json_to_stdout(tmp_path, tiny_folder):
    outcome = in_process_of_its_own(
        *("run", "summarization", "--model", tiny_folder, "--limit", 2, "--max-new-tokens", 8),
        *("--output-dir", tmp_path / "runs", "--json"),
        cwd=tmp_path,
    )
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["task"], result["model"], result["n"]) == ("summarization", str(tiny_folder), 2)
    assert {score["name"] for score in result["scores"]} == {"rouge1", "rouge2", "rougeL", "rougeLsum", "chrF"}
    for score in result["scores"]:
        assert set(score) == {field.name for field in fields(lmtasks.Score)}
        assert score["low"] <= score["value"] <= score["high"]
        assert 0 <= score["value"] <= 100
        assert (score["unit"], score["higher_is_better"], score["n"]) == ("0-100", True, 2)
    assert {score["name"] for score in result["output_checks"]} >= {"empty", "unfinished", "repeating", "copying"}
    [folder] = (tmp_path / "runs").iterdir()
    assert result["run"] == str(folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["scores"]) == ("finished", result["scores"])
    assert "Traceback" not in outcome.err
    assert "running summarization: 2/2" in outcome.err


def test_run_json_is_an_object_for_one_task_and_a_list_for_two(call, fake):
    one = json.loads(call("run", "qa", "--limit", "2", "--json").out)
    two = json.loads(call("run", "qa", "titles", "--limit", "2", "--json").out)
    assert one["task"] == "qa"
    assert [run["task"] for run in two] == ["qa", "titles"]
    assert one.keys() == two[0].keys() == two[1].keys()
    assert one["scores"] == two[0]["scores"]
    assert {run["n"] for run in (one, *two)} == {2}
    assert len({run["run"] for run in (one, *two)}) == 3


def test_run_prints_scores_signatures_and_report_path(call, fake):
    outcome = call("run", "titles", "--limit", "2", "--output-dir", "elsewhere")
    assert outcome.code == 0
    assert outcome.out.startswith("titles with fake: 2 examples of demo (test)\n")
    assert re.search(r"^chrF +\d+\.\d\d +\d+\.\d\d to \d+\.\d\d +en +2$", outcome.out, re.MULTILINE)
    assert re.search(r"^rouge1, rouge2, rougeL, rougeLsum: tok:", outcome.out, re.MULTILINE)
    report = Path(outcome.out.rpartition("report: ")[2].strip())
    assert report.parent.parent == Path("elsewhere")
    assert report.is_file()


def test_run_with_a_data_file(call, fake, tmp_path):
    rows = [{"text": f"A text {number}.", "q": f"What {number}?", "right": "At ten."} for number in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    maps = ("--map", "question=q", "--map", "references=right")
    result = json.loads(call("run", "qa", "--data", "mine.jsonl", *maps, "--metrics", "f1", "--json").out)
    assert [(score["name"], score["value"], score["n"]) for score in result["scores"]] == [("f1", 100.0, 3)]
    assert all(f"What {number}?" in prompt for number, prompt in enumerate(fake.prompts))


def test_flags_reach_the_run(call, fake):
    flags = ("--prompt", "strict", "--split", "train", "--num-fewshot", "1", "--fewshot-data", "demo", "--seed", "7")
    drawn = (
        "--temperature",
        "0.5",
        "--top-p",
        "0.9",
        "--top-k",
        "3",
        "--repetition-penalty",
        "1.2",
        "--stop",
        r"\n",
        "--max-new-tokens",
        "3",
    )
    result = json.loads(call("run", "qa", *flags, *drawn, "--limit", "1", "--json").out)
    record = json.loads((Path(result["run"]) / "run.json").read_text(encoding="utf-8"))
    assert record["prompt"]["name"] == "strict"
    assert len(record["prompt"]["fewshot"]["ids"]) == 1
    assert record["data"]["split"] == "train"
    assert record["seed"] == 7
    assert record["generation"] == {
        "max_new_tokens": 3, "stop": ["\n", "\n\n"], "temperature": 0.5, "top_p": 0.9, "top_k": 3,
        "repetition_penalty": 1.2,
    }  # fmt: skip


def test_interrupted_run_says_how_to_resume_and_resumes(call, monkeypatch):
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return "ten"

    fake_answer(monkeypatch, answer)
    interrupted = call("run", "qa", "--limit", "4", "--json")
    assert interrupted.code == 130
    assert interrupted.out == ""
    assert "lmtasks: run the same command again to resume qa" in interrupted.err.splitlines()
    assert interrupted.err.splitlines()[-1] == "lmtasks: interrupted"
    result = json.loads(call("run", "qa", "--limit", "4", "--json").out)
    assert (result["n"], result["counts"]["reused"]) == (4, 2)
    assert len(asked) == 5
    assert len(list(Path("runs").iterdir())) == 1


def test_bug_keeps_its_traceback(monkeypatch, tmp_path):
    fake_answer(monkeypatch, lambda prompt: str(1 / 0))
    with pytest.raises(ZeroDivisionError):
        main(["run", "qa", "--limit", "1", "--output-dir", str(tmp_path)])


# Asking


@pytest.mark.parametrize("where", ["argument", "file", "stdin"])
def test_ask_takes_a_text_a_file_or_standard_input(call, fake, tmp_path, where):
    text = "渡轮九点离开港口。\nThe last one returns at six."
    (tmp_path / "text.txt").write_text(f"{text}\n", encoding="utf-8")
    given = {"argument": text, "file": "@text.txt", "stdin": "-"}[where]
    outcome = call("ask", "summarization", given, stdin=f"{text}\n".encode() if where == "stdin" else b"")
    assert (outcome.code, outcome.out) == (0, "At ten.\n")
    [prompt] = fake.prompts
    assert text in prompt


def test_ask_takes_fields_by_name_from_texts_and_files(call, fake, tmp_path):
    (tmp_path / "leaflet.txt").write_text(ENGLISH["context"], encoding="utf-8")
    outcome = call("ask", "qa", "--input", "context=@leaflet.txt", "--input", f"question={ENGLISH['question']}")
    assert (outcome.code, outcome.out) == (0, "At ten.\n")
    [prompt] = fake.prompts
    assert ENGLISH["context"] in prompt
    assert ENGLISH["question"] in prompt


def test_ask_gives_text_to_the_first_field_and_the_rest_by_name(call, fake):
    call("ask", "qa", ENGLISH["context"], "--input", f"question={ENGLISH['question']}")
    call("ask", "qa", "--input", f"context={ENGLISH['context']}", "--input", f"question={ENGLISH['question']}")
    assert fake.prompts[0] == fake.prompts[1]


def test_ask_shows_fewshot_examples_of_the_demo(call, fake):
    call("ask", "titles", "A text.", "--num-fewshot", "2")
    [prompt] = fake.prompts
    assert prompt.count("Write a title of at most eight words") == 3


@pytest.mark.parametrize(
    ("task", "written", "answer"),
    [
        ("qa/closed-book", "Answer: Paris", "Paris"),
        ("qa/closed-book", "unanswerable", ""),
        ("summarization/headline", '"Ferry late again"', "Ferry late again"),
        ("summarization/headline", "Subject: Ferry late again", "Ferry late again"),
    ],
)
def test_ask_prints_only_the_parsed_answer(call, monkeypatch, task, written, answer):
    fake_answer(monkeypatch, lambda prompt: f" {written}")
    assert call("ask", task, "A text.").out == f"{answer}\n"


def test_ask_streams_output_of_a_real_model(call, tiny_folder):
    flags = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}
    given = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    outcome = call("ask", "summarization", "The ferry leaves at nine.", "--model", tiny_folder, *given)
    expected = lmtasks.ask("summarization", {"": "The ferry leaves at nine."}, model=str(tiny_folder), **flags)
    assert expected
    assert (outcome.code, outcome.out) == (0, f"{expected}\n")


def test_ask_never_prints_a_stop_string(call, tiny_folder):
    asked = ("summarization", {"": "The ferry leaves at nine."})
    flags = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}
    whole = lmtasks.ask(*asked, model=str(tiny_folder), **flags)
    stop = next(whole[start : start + 6] for start in range(1, len(whole)) if whole[start : start + 6].isprintable())
    expected = whole[: whole.index(stop)].strip()
    given = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    outcome = call("ask", asked[0], asked[1][""], "--model", tiny_folder, "--stop", stop, *given)
    assert (outcome.code, outcome.out) == (0, f"{expected}\n")


# Showing


def test_show_prints_the_prompt_with_its_control_tokens(call, tiny_folder):
    outcome = call("show", "qa", "--model", tiny_folder, "--prompt", "strict", "--num-fewshot", "1")
    assert outcome.code == 0
    facts, _, prompt = outcome.out.partition('\n\nprompt "strict" for ')
    assert [line.split()[0] for line in facts.splitlines()] == [
        "task", "from", "inputs", "prompts", "data", "metrics", "language",
    ]  # fmt: skip
    assert f"from      lmtasks {version('lmtasks')} (lmtasks_plugins.qa)" in facts
    turns = re.findall(r"<\|im_start\|>(\w+)\n", prompt)
    assert turns == ["system", "user", "assistant", "user", "assistant"]
    assert prompt.rstrip("\n").endswith("<|im_end|>\n<|im_start|>assistant")


def test_show_marks_optional_inputs(call, fake):
    assert "inputs    question, context (optional)\n" in call("show", "qa/customer-service").out


def test_show_uses_the_first_example_of_the_data(call, fake, tmp_path):
    rows = ["text,title", "The first text.,One", "The second text.,Two"]
    (tmp_path / "mine.csv").write_text("\n".join(rows), encoding="utf-8")
    outcome = call("show", "summarization/headline", "--data", "mine.csv")
    assert "The first text." in outcome.out
    assert "The second text." not in outcome.out
    assert fake.prompts == []


def test_help_keeps_lines_of_examples(call):
    assert "\n  lmtasks run summarization\n" in call("run", "--help").out


def test_progress_of_a_resumed_run_estimates_by_new_outputs(monkeypatch, capsys):
    from lmtasks.cli import terminal

    clock = iter([100.0, 120.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.progress() as on_progress:
        on_progress("running", 30, 50)
        on_progress("running", 40, 50)
    assert capsys.readouterr().err.splitlines() == ["running: 30/50", "running: 40/50, about 20 s left"]
