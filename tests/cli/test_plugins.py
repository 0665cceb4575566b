"""`lmtasks plugins` and `lmtasks completion`, and the flags that name plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Call, one_line

from lmtasks.models import CATALOG
from lmtasks.testing import save_tiny_model

ROWS = [
    {"id": "a", "split": "test", "text": "one two", "references": ["One"]},
    {"id": "b", "split": "train", "text": "two three", "references": ["Two"]},
]
YAML = """\
name: shout
version: 1
summary: Shout.
prompts: {plain: "Shout: $text"}
datasets: {demo: {path: data.jsonl, license: CC0-1.0}}
metrics: [rouge]
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "shout.yaml"
    path.write_text(YAML)
    return path


# Files and switches


def test_plugin_file_can_be_run_and_shown(call: Call, task, tiny_folder):
    outcome = call("run", "./shout.yaml", "--model", tiny_folder, "--max-new-tokens", 3)
    assert (outcome.code, outcome.out.splitlines()[0][:10]) == (0, "shout with")
    assert "from      shout.yaml sha256:" in call("show", task, "--model", tiny_folder).out


def test_plugin_option_applies_to_one_command(call: Call, task):
    assert "Shout." in call("list", "--plugin", task).out
    assert "Shout." not in call("list").out
    rows = json.loads(call("plugins", "list", "--plugin", task, "--json").out)
    [row] = [row for row in rows if row["plugin"] == "shout"]
    assert (row["status"], row["tasks"], row["module"]) == ("ok", ["shout"], str(task))


def test_no_plugin_option_lists_the_plugin_as_off(call: Call):
    rows = json.loads(call("plugins", "list", "--no-plugin", "titles", "--json").out)
    assert [row["status"] for row in rows if row["plugin"] == "titles"] == ["disabled"]
    outcome = call("show", "titles", "--no-plugin", "titles")
    assert (outcome.code, one_line(outcome)) == (
        1, 'lmtasks: plugin "titles" is disabled by --no-plugin or LMTASKS_DISABLE_PLUGINS'
    )  # fmt: skip


def test_no_plugin_option_refuses_an_unknown_plugin(call: Call):
    outcome = call("list", "--no-plugin", "titels")
    assert outcome.code == 2 and "Did you mean titles" in outcome.err


def test_plugins_list_has_the_error_of_a_broken_file(call: Call, tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")
    outcome = call("plugins", "list", "--plugin", "bad.py")
    assert outcome.code == 0
    assert "broken" in next(line for line in outcome.out.splitlines() if "bad.py" in line)
    assert 'plugin "bad" (bad.py sha256:' in outcome.err and "ZeroDivisionError" in outcome.err


METRIC = """
from lmtasks import Metric, hookimpl

class Nothing(Metric):
    name = "nothing"

    def measure(self, samples, language):
        raise NotImplementedError

@hookimpl
def register_metrics():
    return [Nothing()]
"""


def test_list_names_a_slow_plugin(call: Call, tmp_path, monkeypatch):
    monkeypatch.setattr("lmtasks.cli.list.SLOW", 0.05)
    (tmp_path / "snail.py").write_text(f"import time\ntime.sleep(0.1)\n{METRIC}")
    assert 'plugin "snail" took 0.1 s to import' in call("list", "--plugin", "snail.py").err


def test_set_option_sets_a_parameter(call: Call, tiny_folder):
    outcome = call("show", "email-reply", "--model", tiny_folder, "--set", "tone=formal", "--set", "words=20")
    assert outcome.code == 0
    assert "set       tone=formal: of every reply" in outcome.out
    assert "Tone: formal\nLength: at most 20 words" in outcome.out


def test_set_option_refuses_a_wrong_parameter(call: Call):
    outcome = call("show", "email-reply", "--set", "words=many")
    assert outcome.code == 2
    assert one_line(outcome) == (
        f'lmtasks: task "email-reply" (lmtasks {version()}): parameter "words" must be a whole number of at'
        " least 1, not 'many'"
    )
    assert "Did you mean tone" in one_line(call("show", "email-reply", "--set", "tune=x"))


def version() -> str:
    from importlib.metadata import version

    return version("lmtasks")


# Checking


def test_plugins_check_passes_a_good_task(call: Call, task):
    outcome = call("plugins", "check", task)
    assert outcome.code == 0, outcome.out
    assert "FAILED" not in outcome.out
    assert outcome.out.splitlines()[-1].endswith(" checks: all passed")


BAD = """
import random
from lmtasks import DataFunction, Example, Generate, Prompt, Task, hookimpl

def read(split):
    for number in range(3):
        yield Example(id=str(number), inputs={"text": f"text {random.random()}"}, references=("yes",))

@hookimpl
def register_tasks():
    return [
        Task(name="bad", version=1, summary="a\\nb", fields=["text"], prompts={"plain": "$text"},
             datasets={"demo": read}, metrics=["rouge"], output=Generate(parse=lambda text: text[0]))
    ]
"""


def test_plugins_check_reports_problems_with_remedies(call: Call, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    outcome = call("plugins", "check", "bad.py")
    assert outcome.code == 1
    failed = [line for line in outcome.out.splitlines() if "FAILED" in line]
    for expected in (
        "summary is 'a\\nb'...",
        "two readings differ",
        "its parser failed on example \"''\": IndexError: string index out of range",
        "no metric distinguishes right answers from empty ones",
        'no other examples are left for few-shot prompts: add a split "train"',
        'data set "demo": no license is stated; set license, such as "CC-BY-4.0"',
    ):
        assert any(expected in line for line in failed), expected
    rows = json.loads(call("plugins", "check", "bad.py", "--json").out)
    assert sum(row["status"] == "failed" for row in rows) == len(failed) == 6


SOUND = """
import numpy as np
import random
from lmtasks import DataFunction, Example, Generate, HubDataset, Measurement, Metric, Prompt, ScoreSpec, Task, hookimpl

def read(split):
    if split in ("test", "train"):
        yield Example(id=split, inputs={"text": f"a text to {split}"}, references=("yes",))

class Filled(Metric):
    name = "filled"

    def measure(self, samples, language):
        rows = [[float(sample.prediction == "yes"), float(bool(sample.prediction))] for sample in samples]
        kinds = (ScoreSpec(name="filled", signature="filled"),)
        return Measurement(statistics=rows, specs=kinds, combine=lambda sums: sums[..., :1] / sums[..., 1:])

PROMPT = "$text"
DATA = {"demo": DataFunction(read=read, license="MIT")}

@hookimpl
def register_tasks():
    return [Task(name="sound", version=1, summary="s", fields=["text"], prompts={"plain": PROMPT}, datasets=DATA,
                 metrics=["rouge", "sound/filled"])]

@hookimpl
def register_metrics():
    return [Filled()]
"""


def checked(call: Call, folder: Path, code: str) -> list[str]:
    """Return what does not hold of the task in a file."""
    (folder / "sound.py").write_text(code)
    checks = json.loads(call("plugins", "check", "sound.py", "--json").out)
    return [f"{check['check']}: {check['detail']}" for check in checks if check["status"] == "failed"]


def test_plugins_check_accepts_a_metric_that_is_undefined_for_empty_outputs(call: Call, tmp_path):
    assert checked(call, tmp_path, SOUND) == []


def test_plugins_check_skips_checks_of_hub_sets(call: Call, tmp_path):
    hub = 'HubDataset(id="nobody/nothing", revision="0" * 40, license="MIT")'
    assert checked(call, tmp_path, SOUND.replace('DataFunction(read=read, license="MIT")', hub)) == []


def test_plugins_check_reports_data_in_the_order_of_a_set(call: Call, tmp_path):
    unordered = """
    if split in ("test", "train"):
        for name in {f"{split}-{number}" for number in range(50)}:
            yield Example(id=name, inputs={"text": f"a text to {name}"}, references=("yes",))
"""
    begin, end = SOUND.index("    if split in"), SOUND.index("class Filled")
    [expected] = checked(call, tmp_path, f"{SOUND[:begin]}{unordered}\n{SOUND[end:]}")
    assert "in another process two readings differ" in expected and "sort what comes from a set" in expected


def test_plugins_check_reports_data_unreadable_in_another_process(call: Call, tmp_path):
    here = f"    import os\n    if os.getpid() != {os.getpid()}:\n        raise KeyError('elsewhere')\n"
    [expected] = checked(call, tmp_path, SOUND.replace("def read(split):\n", f"def read(split):\n{here}"))
    assert "its data cannot be read in another process: " in expected and "KeyError: 'elsewhere'" in expected


def test_plugins_check_reports_unreadable_data_once(call: Call, tmp_path):
    [expected] = checked(call, tmp_path, SOUND.replace('    if split in ("test", "train"):', "    if split.gone:"))
    assert "AttributeError: 'str' object has no attribute 'gone'" in expected


def test_plugins_check_reports_a_prompt_that_changes(call: Call, tmp_path):
    counted = "NUMBERS = iter(range(10**6))\nPROMPT = Prompt(user=lambda inputs: str(next(NUMBERS)))"
    [expected] = checked(call, tmp_path, SOUND.replace('PROMPT = "$text"', counted))
    assert 'prompt "plain" of "test" is not the same each time' in expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("version=1", "version=None", 'task "sound": version is NoneType, expected int'),
        ("version=1", "version=True", 'task "sound": version is bool, expected int'),
        ('summary="s"', "summary={1}", 'task "sound": summary is set, expected text'),
        ('summary="s"', 'summary="s", language=3', 'task "sound": language is int, expected text or None'),
        ('summary="s"', 'summary="s", output={1: 2}', 'task "sound": output is dict, expected Generate'),
        ('summary="s"', 'summary="s", output=Generate(parse=None)', "parse is NoneType, expected Callable"),
        ('["rouge", "sound/filled"]', "[3]", 'task "sound": one of its metrics is int, expected text or Metric'),
        (
            '"demo": DataFunction(read=read, license="MIT")',
            '"demo": "x"',
            "one of its datasets is str, expected Data",
        ),
        ('PROMPT = "$text"', 'PROMPT = Prompt(user=b"x")', "user of a prompt is neither text nor a function"),
    ],
)
def test_plugins_check_names_the_line_of_a_wrong_task(call: Call, tmp_path, before, after, expected):
    assert before in SOUND
    [said] = checked(call, tmp_path, SOUND.replace(before, after))
    assert expected in said and "sound.py, line" in said


def test_plugins_check_names_broken_plugins(call: Call):
    outcome = call("plugins", "check", "titles", "broken-exit")
    assert outcome.code == 1
    assert "titles" in outcome.out
    assert 'FAILED the plugin can be loaded: plugin "broken-exit" (lmtasks-broken-exit 0.0.4) cannot' in outcome.out
    checks = json.loads(call("plugins", "check", "titles", "broken-exit", "--json").out)
    assert {check["task"] for check in checks if check["status"] == "failed"} == {"broken-exit"}


def test_plugins_check_refuses_an_unknown_plugin(call: Call):
    outcome = call("plugins", "check", "titels")
    assert (outcome.code, one_line(outcome)) == (
        2,
        'lmtasks: unknown plugin "titels". Did you mean titles or twice?',
    )


# A new one


def as_installed(folder: Path, name: str) -> dict[str, str]:
    """Write what pip would write beside an editable package; return the environment in which it is installed."""
    module = f"lmtasks_{name.replace('-', '_')}"
    info = folder / f"{module}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lmtasks-{name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[lmtasks]\n{name} = {module}\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("name, flags", [("night-titles", []), ("titled", ["--metric"])])
def test_plugins_new_passes_its_tests_and_the_check(call: Call, tmp_path, name, flags):
    summary = 'Give a "paragraph" a title \\o/ & more'
    outcome = call("plugins", "new", name, "--summary", summary, "--author", "Ada O'Neil <a@b.c>", *flags)
    folder = tmp_path / f"lmtasks-{name}"
    assert outcome.code == 0
    assert f"lmtasks-{name}/pyproject.toml" in outcome.out
    assert 'name = "Ada O\'Neil <a@b.c>"' in (folder / "pyproject.toml").read_text()
    assert "Ada O'Neil <a@b.c>" in (folder / "LICENSE").read_text()
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["description"]) == (f"lmtasks-{name}", summary)
    assert project["entry-points"]["lmtasks"] == {name: f"lmtasks_{name.replace('-', '_')}"}
    environment = as_installed(folder, name)
    for command in (["-m", "pytest", "-q", "-p", "no:cacheprovider"], ["-m", "lmtasks", "plugins", "check", name]):
        done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    style = ["-m", "ruff", "check", "--isolated", "--select", "E,F,I,UP,B", "--line-length", "120", "."]
    done = subprocess.run([sys.executable, *style], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_plugins_new_copies_an_adapter(call: Call, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    save_tiny_model(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "lora"
    )
    (tmp_path / "lora" / "training").mkdir()
    arguments = ("plugins", "new", "titled", "--author", "A", "--summary", "S.", "--adapter", tmp_path / "lora")
    assert "its training has not finished" in one_line(call(*arguments))
    (tmp_path / "lora" / "training").rmdir()
    (tmp_path / "lora" / "optimizer.pt").write_text("not of the adapter")
    outcome = call(*arguments)
    copied = {file.name for file in (tmp_path / "lmtasks-titled" / "lmtasks_titled" / "adapter").iterdir()}
    assert copied == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert outcome.code == 0
    environment = as_installed(tmp_path / "lmtasks-titled", "titled")
    command = [sys.executable, "-m", "lmtasks", "run", "titled", "--model", "tiny", "--max-new-tokens", "3", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter"]["source"].endswith("lmtasks_titled/adapter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["My Titles"], '"My Titles": a plugin\'s name has lower-case letters, digits and single "-"'),
        (["plugins"], '"plugins" means something else to lmtasks; choose another name'),
        (["all"], '"all" means something else to lmtasks'),
        (["new", "--summary", "long " * 50], "summary must be one line of text, of at most 120 characters"),
        (["t" * 300], "and at most 60 characters"),
        (["titles"], 'a plugin named "titles" is installed: lmtasks-titles 1.2.0; choose another'),
        (["new", "-o", "full"], "full: exists already; name another folder with -o"),
        (["new", "--adapter", "full"], "full: no adapter (it has no adapter_config.json); `lmtasks train` makes one"),
        ([], "NAME is missing"),
    ],
)
def test_plugins_new_refuses_wrong_values(call: Call, tmp_path, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    outcome = call("plugins", "new", *arguments)
    assert outcome.code in (1, 2) and message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(call: Call, shell):
    outcome = call("completion", shell)
    assert outcome.code == 0 and f"_LMTASKS_COMPLETE={shell}_complete" in outcome.out


def completed(*words: str) -> list[str]:
    environment = {
        **os.environ, "_LMTASKS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["lmtasks", *words]),
        "COMP_CWORD": str(len(words)), "PYTHONPATH": str(Path(__file__).parents[1] / "data" / "example_plugins"),
    }  # fmt: skip
    code = (
        "import atexit, sys; atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules)))\n"
        "from lmtasks.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr == "False", done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion_needs_no_torch():
    assert "completion" in completed("comp")
    assert completed("run", "sum") == ["summarization"]
    assert completed("run", "summarization/") == ["summarization/dialogue", "summarization/headline"]
    assert completed("show", "qa") == ["qa", "qa/closed-book", "qa/customer-service"]
    assert completed("plugins", "check", "tit") == ["titles"]
    assert completed("run", "broken-exit") == []
    assert "--num-fewshot" in completed("run", "qa", "--num")
    assert completed("run", "--no-plugin", "tit") == ["titles"]
    assert completed("run", "qa", "--model", "smol") == [name for name in CATALOG if name.startswith("smol")] != []


# A YAML file is data alone


@pytest.fixture
def gift(tmp_path: Path, task: Path) -> Path:
    """A YAML task that names a module of `evaluate`, which leaves a trace when it is imported."""
    module = tmp_path / "gift" / "m" / "m.py"
    module.parent.mkdir(parents=True)
    module.write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\n{MODULE}")
    task.write_text(YAML.replace("[rouge]", "\n- rouge\n- evaluate:gift/m"))
    (tmp_path / "outputs.txt").write_text("One\n")
    return task


MODULE = """
import datasets
import evaluate

class M(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"m": 0.25}
"""
REFUSED = "shout.yaml, line 8: evaluate:gift/m is a module of Python code"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "shout.yaml"),
        ("run", "shout", "--plugin", "shout.yaml"),
        ("show", "shout.yaml"),
        ("train", "shout.yaml", "--plan"),
        ("score", "shout.yaml", "--predictions", "outputs.txt"),
        ("compare", "shout.yaml", "--adapter", "none"),
    ],
    ids=" ".join,
)
def test_run_refuses_a_module_that_a_yaml_file_names(gift: Path, call: Call, arguments):
    outcome = call(*arguments)
    line = one_line(outcome)
    assert outcome.code == 1
    assert REFUSED in line and "--metrics rouge,evaluate:gift/m" in line
    assert not gift.with_name("trace").exists()


def test_plugins_check_refuses_a_module_in_a_yaml_file(gift: Path, call: Call):
    outcome = call("plugins", "check", "shout.yaml")
    assert outcome.code == 1
    assert REFUSED in outcome.out + outcome.err
    assert not gift.with_name("trace").exists()


@pytest.mark.parametrize("arguments", [("list",), ("plugins", "list"), ("list", "--json")], ids=" ".join)
def test_list_never_loads_a_module_that_a_yaml_file_names(gift: Path, call: Call, arguments):
    outcome = call(*arguments, "--plugin", "shout.yaml")
    assert outcome.code == 0 and "shout" in outcome.out
    assert not gift.with_name("trace").exists()


def test_completion_never_loads_a_module_that_a_yaml_file_names(gift: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMTASKS_PLUGINS", str(gift))
    assert completed("run", "shout") == ["shout"]
    assert completed("run", "shout/") == []
    assert not gift.with_name("trace").exists()


def test_run_loads_a_module_of_a_yaml_file_if_the_user_names_it(gift: Path, call: Call, evaluate_caches: Path):
    flags = ("--predictions", "outputs.txt", "--metrics", "evaluate:gift/m", "--json")
    outcome = call("score", "shout.yaml", *flags)
    assert outcome.code == 0, outcome.err
    assert [score["value"] for score in json.loads(outcome.out)["scores"]] == [0.25]
    assert gift.with_name("trace").exists()
