from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lmtasks
from lmtasks import Example, Field, Generate, Run, RunOptions, Task
from lmtasks.errors import PluginError, PromptError, RunError, UnknownNameError, UsageError
from lmtasks.testing import CharacterTokenizer, FakeModel

EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": f"number {number}"}, references=(f"answer {number}",))
    for number in range(6)
]


def make_task(**changes) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field(truncatable=True)},
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
        "metrics": ("exact_match", "chrf"),
    }
    return Task(**(settings | changes))


def answer(prompt: str) -> str:
    return f" answer {prompt.split()[-1]}\n\nmore"


def lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]


def test_run_scores_outputs_and_records_settings(tmp_path):
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    assert run.status == "finished"
    assert [sample.prediction for sample in run.samples] == [f"answer {number}" for number in range(6)]
    assert {score.name: score.value for score in run.scores} == {"exact_match": 100.0, "chrF": 100.0}
    record = run.record.to_json()
    assert record["schema"] == 2
    assert len(record["prompt"].pop("sha256")) == 64
    assert record["prompt"] == {
        "name": "plain",
        "form": "plain",
        "on_overlong": "error",
        "fewshot": None,
        "chat_template": None,
    }
    assert record["data"]["count"] == 6
    assert record["generation"]["stop"] == ("\n\n",)
    assert record["counts"] == {
        "examples": 6, "scored": 6, "skipped": 0, "empty": 0, "truncated_prompts": 0, "truncated_outputs": 0,
        "unparsed": 0, "reused": 0,
        "unanswered": 0,
    }  # fmt: skip
    assert record["environment"]["packages"]["sacrebleu"]
    assert record["model"]["name"] == "fake"


def test_run_reads_back_equal(tmp_path):
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    again = Run(run.path)
    assert again.scores == run.scores
    assert again.samples == run.samples


def test_report_contains_scores_signatures_and_samples(tmp_path):
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    report = (run.path / "report.md").read_text()
    for score in run.scores:
        assert f"| {score.name} |" in report
        assert score.signature.replace("|", "\\|") in report
    assert report.count("### `e") == 5
    assert run.record.data.sha256 in report


def test_report_escapes_markup_of_data(tmp_path):
    nasty = Example(id="<b>`x`", inputs={"text": "# Title\n<script>alert(1)</script>"}, references=("| a |",))
    task = make_task(datasets={"demo": lambda split: iter([nasty])})
    run = lmtasks.run(task, model=FakeModel(["```"]), output_dir=tmp_path)
    for line in (run.path / "report.md").read_text().splitlines():
        if "<script" in line or "# Title" in line or line.strip() == "```":
            assert line.startswith("    ")


def test_finished_run_is_never_changed(tmp_path):
    first = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    before = (first.path / "samples.jsonl").read_bytes()
    second = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    assert second.path != first.path
    assert (first.path / "samples.jsonl").read_bytes() == before


def interrupted(after: int):
    """Return answers that break off, as Ctrl-C does."""
    answered = []

    def say(prompt: str) -> str:
        if len(answered) == after:
            raise KeyboardInterrupt
        answered.append(prompt)
        return answer(prompt)

    return say


def test_interrupted_run_resumes_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(interrupted(4)), output_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert Run(folder).status == "interrupted"
    assert len(Run(folder).samples) == 4
    # A line that was half written when the power went
    with (folder / "samples.jsonl").open("a") as samples:
        samples.write('{"index": 4, "id": "e4", "inp')
    model = FakeModel(answer)
    run = lmtasks.run(make_task(), model=model, output_dir=tmp_path)
    assert run.path == folder
    assert len(model.prompts) == 2
    assert run.record.counts.reused == 4
    assert [sample.id for sample in run.samples] == [example.id for example in EXAMPLES]
    assert run.scores[0].value == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"max_new_tokens": 7},
        {"limit": 5},
        {"temperature": 0.5},
        {"on_overlong": "truncate"},
    ],
)
def test_run_with_other_settings_does_not_resume(tmp_path, changes):
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(interrupted(2)), output_dir=tmp_path)
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path, **changes)
    assert run.record.counts.reused == 0


@pytest.mark.parametrize("change", [{"version": 2}, {"prompts": {"plain": "Say: $text"}}])
def test_run_of_another_task_version_or_wording_does_not_resume(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(interrupted(2)), output_dir=tmp_path)
    run = lmtasks.run(make_task(**change), model=FakeModel(answer), output_dir=tmp_path)
    assert run.record.counts.reused == 0


def test_killed_run_resumes(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_runs, lmtasks
from pathlib import Path
from lmtasks.testing import CharacterTokenizer, FakeModel
answered = []
def slow(prompt):
    answered.append(prompt)
    if len(answered) > 3:
        print("busy", flush=True)
        time.sleep(60)
    return test_runs.answer(prompt)
lmtasks.run(test_runs.make_task(), model=FakeModel(slow), output_dir=Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "busy\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (folder,) = tmp_path.iterdir()
    assert Run(folder).status == "running"
    assert Run(folder).record.timings.generate_seconds > 0
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    assert run.path == folder
    assert (run.status, run.record.counts.reused) == ("finished", 3)


def test_run_in_progress_is_not_resumed_by_another_process(tmp_path):
    other: list[Run] = []

    def start_another(prompt: str) -> str:
        if not other:
            other.append(lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path))
        return answer(prompt)

    run = lmtasks.run(make_task(), model=FakeModel(start_another), output_dir=tmp_path)
    assert run.path != other[0].path
    assert len(run.samples) == len(other[0].samples) == 6


def test_parser_error_names_task_and_costs_one_example(tmp_path):
    def parse(completion: str) -> str:
        if "3" in completion:
            raise ValueError("no three, please")
        return completion.strip()

    with pytest.raises(
        PluginError, match='task "echo": its parser failed on example "e3": ValueError: no three, p.*count as'
    ):
        lmtasks.run(make_task(output=Generate(parse=parse)), model=FakeModel(answer), output_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    run = Run(folder)
    assert run.status == "failed"
    assert "no three, please" in run.record.error
    assert run.record.counts.unparsed == 1
    assert [sample.prediction for sample in run.samples] == [
        "" if number == 3 else f"answer {number}" for number in range(6)
    ]
    assert [sample.completion for sample in run.samples if sample.error] == [" answer 3"]
    assert run.scores[0].value == pytest.approx(100 * 5 / 6)


def test_run_refuses_overlong_prompts_before_generation(tmp_path):
    model = FakeModel(answer, context_length=40)
    with pytest.raises(
        PromptError, match=r"6 of 6 prompts are too long.*e0.*Use on_overlong='truncate' or on_overlong='skip', or"
    ):
        lmtasks.run(
            make_task(prompts={"plain": "Say very loudly $text"}),
            model=model,
            output_dir=tmp_path,
            max_new_tokens=20,
        )
    assert model.prompts == []
    assert list(tmp_path.iterdir()) == []


def test_run_truncates_or_skips_overlong_prompts_and_counts_them(tmp_path):
    long = Example(id="long", inputs={"text": "word " * 50}, references=("x",))
    task = make_task(datasets={"demo": lambda split: iter([*EXAMPLES, long])})
    options = RunOptions(max_new_tokens=20, output_dir=tmp_path)
    model = FakeModel(lambda prompt: "x", context_length=60)
    cut = lmtasks.run(task, options, model=model, on_overlong="truncate")
    assert cut.record.counts.truncated_prompts == 1
    assert cut.samples[-1].prompt_tokens <= 40
    assert cut.samples[-1].truncated["text"] == len("word " * 50) - len(
        model.prompts[-1].removeprefix("Say ").rstrip("\n")
    )
    skipped = lmtasks.run(task, options, model=model, on_overlong="skip")
    assert skipped.record.counts.skipped == 1
    assert skipped.samples[-1].finish_reason == "skipped"
    assert skipped.scores[0].n == 6


def test_run_refuses_max_new_tokens_that_fill_the_context(tmp_path):
    with pytest.raises(PromptError, match="max_new_tokens 128 leaves no room"):
        lmtasks.run(make_task(), model=FakeModel(answer, context_length=100), output_dir=tmp_path)


def test_run_without_references_has_no_scores(tmp_path):
    bare = [Example(id="a", inputs={"text": "hello"})]
    run = lmtasks.run(
        make_task(datasets={"demo": lambda split: iter(bare)}), model=FakeModel(["hi"]), output_dir=tmp_path
    )
    assert run.scores == []
    assert run.record.counts.scored == 0
    assert "No scores" in (run.path / "report.md").read_text()


def test_run_shows_and_records_fewshot_examples(tmp_path):
    pool = [Example(id=f"p{n}", inputs={"text": f"pool {n}"}, references=(f"shown {n}",)) for n in range(5)]
    task = make_task(datasets={"demo": lambda split: iter(EXAMPLES if split == "test" else pool)})
    model = FakeModel(answer)
    run = lmtasks.run(task, model=model, output_dir=tmp_path, num_fewshot=2, seed=3, limit=2)
    fewshot = run.record.prompt.fewshot
    assert fewshot.split == "train"
    assert len(fewshot.ids) == 2
    for id in fewshot.ids:
        assert f"Say pool {id[1]}\nshown {id[1]}\n\n" in model.prompts[0]
    assert lmtasks.run(task, model=model, output_dir=tmp_path, num_fewshot=2, seed=3).record.prompt.fewshot == fewshot


def test_run_applies_the_chat_template_once(tmp_path):
    model = FakeModel(answer, chat=True)
    lmtasks.run(make_task(), model=model, output_dir=tmp_path, limit=1)
    assert model.prompts == ["<|im_start|>user\nSay number 0<|im_end|>\n<|im_start|>assistant\n"]


def test_run_warns_of_languages_that_the_model_lacks(tmp_path, caplog):
    chinese = [Example(id="a", inputs={"text": "你好"}, references=("您好",))]
    task = make_task(datasets={"demo": lambda split: iter(chinese)})
    lmtasks.run(task, model=FakeModel(["?"], languages=("en",)), output_dir=tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "fake writes en; of 1 examples sampled, 1 in zh: expect poor output there"
    ]


def test_run_refuses_unknown_names_before_loading_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    for settings, error in (
        ({"prompt": "plane"}, UnknownNameError),
        ({"metrics": ("bleurt",)}, UnknownNameError),
        ({"temprature": 1}, UnknownNameError),
        ({"limit": 0}, UsageError),
        ({"top_p": 0.5}, UsageError),
        ({"fewshot_data": "demo"}, UsageError),
        ({"limit": "3"}, UsageError),
        ({"temperature": "hot"}, UsageError),
        ({"data": [{"text": "a"}]}, UsageError),
        ({"on_overlong": "shorten"}, UsageError),
        ({"dtype": "int8"}, UsageError),
        ({"language": "Chinese"}, UsageError),
    ):
        with pytest.raises(error):
            lmtasks.run(make_task(), output_dir=tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_run_folder_without_record_or_of_another_schema_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(RunError, match="schema 99"):
        Run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Run(tmp_path)


def test_run_refuses_output_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="output_dir"):
        lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / "file")


def test_progress_counts_finished_examples(tmp_path):
    calls = []
    lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path, on_progress=lambda *what: calls.append(what))
    assert calls == [("running echo", done, 6) for done in range(7)]


def test_ask_streams_the_parsed_answer(tmp_path):
    streamed = []
    task = make_task(output=Generate(max_new_tokens=50))
    parsed = lmtasks.ask(task, {"": "hello 7"}, model=FakeModel(answer), on_text=streamed.append)
    assert parsed == "answer 7"
    assert streamed[-1] == parsed
    assert all(parsed.startswith(text) for text in streamed)


def test_ask_names_the_missing_input():
    with pytest.raises(UsageError, match='needs the input "text"'):
        lmtasks.ask(make_task(), {"text": " "}, model=FakeModel(answer))
    with pytest.raises(UnknownNameError, match="Did you mean text"):
        lmtasks.ask(make_task(), {"texd": "a"}, model=FakeModel(answer))


def test_run_records_timings(tmp_path):
    def slow(prompt: str) -> str:
        time.sleep(0.02)
        return answer(prompt)

    run = lmtasks.run(make_task(), model=FakeModel(slow), output_dir=tmp_path)
    assert run.record.timings.total_seconds >= run.record.timings.generate_seconds >= 0.1


def test_resumed_run_parses_earlier_samples_again(tmp_path):
    def parse(completion: str) -> str:
        if "3" in completion:
            raise ValueError("no three, please")
        return "wrong"

    with pytest.raises(PluginError):
        lmtasks.run(make_task(output=Generate(parse=parse)), model=FakeModel(answer), output_dir=tmp_path)
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    assert run.record.counts.reused == 6
    assert run.scores[0].value == 100
    assert [sample.prediction for sample in Run(run.path).samples] == [f"answer {number}" for number in range(6)]


def test_resumed_run_totals_cover_all_sessions(tmp_path):
    whole = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(interrupted(4)), output_dir=tmp_path / "parts")
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / "parts")
    assert run.record.tokens == whole.record.tokens
    assert run.record.counts == whole.record.counts.model_copy(update={"reused": 4})


def test_failed_run_has_a_report_with_the_reason(tmp_path):
    def parse(completion: str) -> str:
        raise ValueError("broken today")

    with pytest.raises(PluginError):
        lmtasks.run(make_task(output=Generate(parse=parse)), model=FakeModel(answer), output_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    report = (folder / "report.md").read_text()
    assert "Status: failed" in report
    assert "broken today" in report


def test_run_options_accept_single_values_and_integers(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "hello", "reference": "The"}\n')
    run = lmtasks.run(
        make_task(), model=FakeModel(["The END is here"]), data=data, output_dir=str(tmp_path / "runs"),
        stop="END", metrics="exact_match", temperature=1,
    )  # fmt: skip
    assert run.samples[0].completion == "The "
    assert [score.name for score in run.scores] == ["exact_match"]
    assert run.record.generation.stop == ("END", "\n\n")
    assert isinstance(run.record.generation.temperature, float)


def test_run_options_do_not_split_single_names_into_letters():
    task = make_task(references="summary", metrics="rouge", fields={"text": Field(columns="body")})
    assert (task.references, task.metrics, task.fields["text"].columns) == (("summary",), ("rouge",), ("body",))
    assert Generate(stop="END").stop == ("END",)


def test_run_options_make_a_sampling_task_greedy(tmp_path):
    task = make_task(output=Generate(temperature=1.0, top_p=0.9))
    run = lmtasks.run(task, model=FakeModel(answer), output_dir=tmp_path, temperature=0)
    assert run.record.generation.top_p == 1.0


def test_run_uses_task_language_where_the_column_states_none(tmp_path):
    odd = [Example(id="a", inputs={"text": "x"}, references=("Größe",), language="German")]
    task = make_task(language="de", datasets={"demo": lambda split: iter(odd)})
    run = lmtasks.run(task, model=FakeModel(["Größe"]), output_dir=tmp_path)
    assert {score.language for score in run.scores} == {"de"}


def test_run_reports_a_full_disk_in_one_line(tmp_path, monkeypatch):
    from lmtasks import files

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)


def test_run_warns_if_everything_was_skipped(tmp_path):
    model = FakeModel(answer, context_length=30)
    run = lmtasks.run(make_task(), model=model, output_dir=tmp_path, max_new_tokens=28, on_overlong="skip")
    assert (run.scores, run.record.counts.skipped) == ([], 6)
    assert "every example was skipped" in (run.path / "report.md").read_text()


def test_ask_uses_plain_text_for_the_first_field():
    assert lmtasks.ask(make_task(), "hello 7", model=FakeModel(answer)) == "answer 7"


def test_run_records_commit_and_its_state(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitignore").write_text("runs/\n.gitignore\n")
    clean = lmtasks.run(make_task(), model=FakeModel(answer)).record.environment.git
    assert (clean.commit, clean.dirty) == (git("rev-parse", "HEAD").strip(), False)
    (tmp_path / "note.txt").write_text("changed")
    assert lmtasks.run(make_task(), model=FakeModel(answer)).record.environment.git.dirty


@pytest.mark.parametrize("name", ["a", "a=b"])
def test_run_records_git_state_without_starting_configured_programs(tmp_path, monkeypatch, name):
    def git(*words: str) -> None:
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "data.txt").write_text("one")
    (tmp_path / ".gitattributes").write_text(f"*.txt filter={name}\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    trace = tmp_path / "trace"
    program = tmp_path / ".git" / "hooks" / "post-index-change"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ntouch {trace}\ncat\n")
    program.chmod(0o755)
    for setting in ("core.fsmonitor", f"filter.{name}.clean"):
        git("config", setting, str(program))
    git("config", f"filter.{name}.required", "true")
    (tmp_path / "data.txt").write_text("two")
    monkeypatch.chdir(tmp_path)
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / ".git" / "runs")
    assert not trace.exists()
    assert run.record.environment.git.dirty
    subprocess.run(["git", "status"], capture_output=True)
    assert trace.exists()  # as git alone would have it


def test_run_does_not_start_git_filter_with_non_utf8_name(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b.org", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / ".git" / "config").open("ab") as config:
        config.write(b'[filter "\xe9"]\n\tclean = touch ' + os.fsencode(trace) + b"\n")
    (tmp_path / ".gitattributes").write_bytes(b"*.txt filter=\xe9\n")
    (tmp_path / "data.txt").write_text("one")
    subprocess.run(["git", "add", "data.txt"], cwd=tmp_path, check=True, capture_output=True)
    assert trace.exists()  # as git alone starts it
    trace.unlink()
    os.utime(tmp_path / "data.txt", (1, 1))
    monkeypatch.chdir(tmp_path)
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / ".git" / "runs")
    assert not trace.exists()
    assert run.record.environment.git.dirty


def test_run_records_checkout_with_non_utf8_name(tmp_path, monkeypatch):
    for words in (
        ["init", "-q"],
        ["config", "core.quotePath", "false"],
        ["-c", "user.name=a", "-c", "user.email=a@b.org", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
    monkeypatch.chdir(tmp_path)
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path / ".git" / "runs")
    assert run.record.environment.git.dirty


HUGE = 10**30


@pytest.mark.parametrize("setting", ["seed", "limit", "batch_size", "num_fewshot", "max_new_tokens", "top_k"])
def test_run_refuses_numbers_that_no_record_can_hold(setting, tmp_path):
    model = FakeModel(answer)
    with pytest.raises(UsageError, match=setting):
        lmtasks.run(make_task(), model=model, output_dir=tmp_path, temperature=1.0, **{setting: HUGE})
    assert not model.prompts
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [float("inf"), float("nan"), 0, -1, "1"])
def test_run_options_refuse_invalid_kv_cache_size(size):
    with pytest.raises(UsageError, match="kv_cache_gib must be a number of more than 0"):
        RunOptions(kv_cache_gib=size)


def test_run_warns_once_of_template_that_drops_the_data(tmp_path, caplog):
    model = FakeModel(["x"] * 6)
    model.tokenizer = CharacterTokenizer("{{ messages|length }} messages")
    lmtasks.run(make_task(), model=model, output_dir=tmp_path)
    assert caplog.text.count("leaves out or changes the user message") == 1
