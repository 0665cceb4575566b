from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lmtasks
from lmtasks import Sample, hookspecs
from lmtasks.errors import PluginError, UnknownNameError
from lmtasks.metrics import find_metrics, score_samples
from lmtasks.plugins import Registry, find_plugins
from lmtasks.testing import FakeModel

EXAMPLE_PLUGINS = Path(__file__).parents[1] / "data" / "example_plugins"
FIRST_PARTY = ("email-reply", "qa", "summarization", "translation")
GOOD = (*FIRST_PARTY, "titles", "lengths")
# What the message about each broken plugin names: the cause, and where to look.
BROKEN = {
    "broken-import": ("RuntimeError: no settings file for this machine", "lmtasks_broken_import.py, line 5"),
    "broken-syntax": ("SyntaxError: '[' was never closed", "lmtasks_broken_syntax.py, line 8"),
    "broken-exit": ("SystemExit: this machine has no GPU", "lmtasks_broken_exit.py, line 5"),
    "broken-hook": ("register_task'", "lmtasks_broken_hook"),
    "broken-type": ("returned dict, expected a list of lmtasks.Task", "register_tasks"),
    "broken-name": ('expected "broken-name" or "broken-name/<variant>"', 'a task is named "titles"'),
    "broken-empty": ("no function in lmtasks_broken_empty is marked @hookimpl", "lmtasks_broken_empty"),
}
HEAVY = ("torch", "transformers", "datasets", "evaluate", "sacrebleu", "rouge_score", "rich", "numpy")


def error_of(plugin: str) -> str:
    with pytest.raises(PluginError) as caught:
        Registry().load(plugin)
    return str(caught.value)


def modules_after(code: str, *, plugins: Path | None = None) -> set[str]:
    """The modules that a new interpreter has imported when the code is done."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if plugins:
        environment["PYTHONPATH"] = str(plugins)
    tell = "import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))\n"
    command = [sys.executable, "-c", tell + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return set(json.loads(done.stderr))


def make_sample(prediction: str, reference: str) -> Sample:
    return Sample(
        index=0, id="a", inputs={}, references=(reference,), language="en", meta={}, prompt_sha256="", prompt_tokens=0,
        truncated={}, completion=prediction, prediction=prediction, finish_reason="stop", completion_tokens=0,
    )  # fmt: skip


# Finding


def test_find_plugins_returns_distribution_and_version():
    [titles] = find_plugins()["titles"]
    assert (titles.name, titles.module) == ("titles", "lmtasks_titles")
    assert (titles.distribution, titles.version, titles.origin) == ("lmtasks-titles", "1.2.0", "lmtasks-titles 1.2.0")


def test_first_party_plugins_are_entry_points_too():
    discovered = find_plugins()
    assert {plugin.distribution for name in FIRST_PARTY for plugin in discovered[name]} == {"lmtasks"}
    assert {name for name, plugins in discovered.items() if plugins[0].distribution == "lmtasks"} == set(FIRST_PARTY)


def test_find_plugins_counts_a_distribution_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "lmtasks_titles-1.2.0.dist-info"
    info.mkdir()
    for file in (EXAMPLE_PLUGINS / info.name).iterdir():
        (info / file.name).write_bytes(file.read_bytes())
    assert [plugin.origin for plugin in find_plugins()["titles"]] == ["lmtasks-titles 1.2.0"]


def test_find_plugins_ignores_a_distribution_without_metadata(tmp_path, monkeypatch):
    info = tmp_path / "lmtasks_remains-0.1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[lmtasks]\nremains = lmtasks_remains\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert Registry().task("titles")[0].name == "titles"
    with pytest.raises(
        PluginError, match=r'^plugin "remains" \(unknown distribution unknown version\).*lmtasks_remains'
    ):
        Registry().load("remains")


# Loading as little as is needed


def test_task_loads_only_its_plugin():
    modules = modules_after("from lmtasks.plugins import Registry; Registry().task('summarization')")
    plugins = {name for name in modules if name.startswith("lmtasks_plugins.")}
    assert plugins == {"lmtasks_plugins.summarization"}
    assert not modules.intersection(HEAVY)


def test_registry_imports_no_plugin_when_it_is_made():
    code = "from lmtasks.plugins import Registry; assert 'titles' in Registry().discovered"
    modules = modules_after(code, plugins=EXAMPLE_PLUGINS)
    assert not [name for name in modules if name.startswith(("lmtasks_plugins", "lmtasks_titles", "lmtasks_broken"))]


@pytest.mark.parametrize(
    "code",
    [
        "import lmtasks.cli.main",
        "from lmtasks.cli.main import main; main(['run', '--help'])",
        "from lmtasks import Example, Field, Generate, Metric, Prompt, Task, hookimpl",
    ],
    ids=["import of the command line", "--help of a command", "what a plugin imports"],
)
def test_start_imports_nothing_heavy(code):
    assert not modules_after(code).intersection(HEAVY)


# Names


def test_bare_name_means_the_first_task_of_the_plugin():
    task, plugin = Registry().task("translation")
    assert (task.name, plugin.discovered.name) == ("translation/en-zh", "translation")
    assert Registry().task("qa")[0].name == "qa"


def test_variant_has_its_full_name():
    task, plugin = Registry().task("qa/closed-book")
    assert (task.name, plugin.discovered.name) == ("qa/closed-book", "qa")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("sumarization", "summarization"),
        ("sumarization/dialogue", "summarization/dialogue"),
        ("qa/closed-bok", "qa/closed-book"),
        ("titels", "titles"),
        ("translation/zh-eng", "translation/zh-en"),
        ("qa/", "qa"),
    ],
)
def test_unknown_task_offers_the_nearest(wrong, nearest):
    with pytest.raises(UnknownNameError) as caught:
        Registry().task(wrong)
    message = str(caught.value)
    assert message.startswith(f'unknown task "{wrong}". Did you mean ')
    assert nearest in message.partition("Did you mean")[2].rstrip("?").split()


def test_unknown_task_without_a_similar_one_lists_all():
    with pytest.raises(UnknownNameError, match=r"Known: email-reply, qa, .*titles, translation/cs-en"):
        Registry().task("xxxxxxxxxx")


def test_unknown_plugin_offers_the_nearest():
    with pytest.raises(UnknownNameError, match='unknown plugin "titels". Did you mean titles'):
        Registry().load("titels")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("rogue", "rouge"),
        ("exactmatch", "exact_match"),
        ("lengths/length_ration", "length_ratio"),
        ("lenghts/length_ratio", "lengths"),
    ],
)
def test_unknown_plugin_metric_offers_the_nearest(wrong, nearest):
    with pytest.raises(UnknownNameError, match=f"Did you mean {nearest}"):
        find_metrics([wrong], Registry().metric)


def test_plugin_without_tasks_offers_tasks_of_others():
    with pytest.raises(UnknownNameError) as caught:
        Registry().task("lengths")
    assert "There are none" not in str(caught.value)


# Broken plugins


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_error_names_distribution_version_and_cause(name):
    [plugin] = find_plugins()[name]
    message = error_of(name)
    assert message.startswith(f'plugin "{name}" (lmtasks-{name} {plugin.version})')
    cause, location = BROKEN[name]
    assert cause in message
    assert location in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in ("broken-type", "broken-name")])
def test_broken_plugin_error_names_a_line_of_the_plugin(name):
    message = error_of(name)
    assert "importlib" not in message
    assert "site-packages" not in message


def test_misspelt_hook_error_lists_the_hooks():
    assert error_of("broken-hook").endswith("hooks: register_metrics, register_tasks")


def test_plugin_error_keeps_its_cause():
    with pytest.raises(PluginError) as caught:
        Registry().load("broken-import")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("broken", [*BROKEN, "twice"])
def test_broken_plugin_does_not_affect_the_next(broken):
    registry = Registry()
    with pytest.raises(PluginError):
        registry.load(broken)
    for name in GOOD:
        assert registry.load(name).discovered.name == name
    with pytest.raises(PluginError, match=f'^plugin "{broken}" '):
        registry.load(broken)


def test_load_all_returns_errors_of_broken_plugins_by_name():
    loaded, broken = Registry().load_all()
    assert {plugin.discovered.name for plugin in loaded} >= set(GOOD)
    assert set(broken) == {*BROKEN, "twice"}
    for name, error in broken.items():
        assert str(error).startswith(f'plugin "{name}" ')
        others = set(broken) - {name}
        assert not [other for other in others if f'"{other}"' in str(error)]


def test_duplicate_plugin_error_names_both_distributions():
    assert len(Registry().discovered["twice"]) == 2
    message = error_of("twice")
    assert message.startswith('plugin "twice" is claimed by ')
    assert "lmtasks-twice-left 1.0.0" in message
    assert "lmtasks-twice-right 2.0.0" in message


def test_duplicate_plugin_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "lmtasks_twice", raising=False)
    error_of("twice")
    assert "lmtasks_twice" not in sys.modules


TASK = "Task(name='made', version=1, summary='', fields=['a'], prompts={'p': '$a'}, datasets={'d': list}, metrics=[])"
PLUGIN = "from lmtasks import Task, hookimpl\n@hookimpl\ndef register_{hook}({arguments}):\n    {body}\n"


@pytest.mark.parametrize(
    ("hook", "arguments", "body", "expected"),
    [
        ("tasks", "", "return 1 / 0", r"ZeroDivisionError: division by zero \(.*lmtasks_made.py, line 4\)"),
        ("tasks", "", "raise SystemExit(3)", r"SystemExit: 3 \(.*lmtasks_made.py, line 4\)"),
        ("tasks", "", "yield 'made'", "register_tasks returned str, expected a list of lmtasks.Task"),
        ("tasks", "registry", "return []", "registry"),
        ("tasks", "", "return Task(name='made', version=1)", "TypeError: .*'summary'.*lmtasks_made.py, line 4"),
        (
            "metrics",
            "",
            "return [len]",
            "a metric is builtin_function_or_method, which is not a subclass of lmtasks.Metric",
        ),
        ("tasks", "", "return None", "register_tasks returned None"),
        ("tasks", "", f"return {TASK}", "register_tasks returned Task, expected a list of lmtasks.Task"),
    ],
    ids=[
        "raises",
        "exits",
        "yields text",
        "takes an argument",
        "half a task",
        "no metric",
        "forgets to return",
        "returns one task, not a list",
    ],
)
def test_hook_that_returns_something_wrong_is_refused(tmp_path, monkeypatch, hook, arguments, body, expected):
    (tmp_path / "lmtasks_made.py").write_text(PLUGIN.format(hook=hook, arguments=arguments, body=body))
    info = tmp_path / "lmtasks_made-4.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lmtasks-made\nVersion: 4.5\n")
    (info / "entry_points.txt").write_text("[lmtasks]\nmade = lmtasks_made\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lmtasks_made", raising=False)
    with pytest.raises(PluginError, match=expected) as caught:
        Registry().load("made")
    assert str(caught.value).startswith('plugin "made" (lmtasks-made 4.5)')
    monkeypatch.delitem(sys.modules, "lmtasks_made")


# Hooks


def implemented(name: str) -> set[str]:
    [plugin] = find_plugins()[name]
    members = vars(plugin.load()).values()
    return {member.__name__ for member in members if hasattr(member, f"{hookspecs.PROJECT}_impl")}


def hook_names() -> list[str]:
    marked = [name for name, member in vars(hookspecs).items() if hasattr(member, f"{hookspecs.PROJECT}_spec")]
    assert marked
    return marked


@pytest.mark.parametrize("hook", hook_names())
def test_hooks_all_have_a_test_and_an_example(hook):
    assert [name for name in globals() if name.startswith(f"test_{hook}_")]
    assert hook in implemented("titles") | implemented("lengths")


def test_register_tasks_offers_tasks_by_name():
    plugin = Registry().load("titles")
    assert list(plugin.tasks) == ["titles"]
    assert plugin.tasks["titles"].summary == "Give a paragraph a title."
    assert plugin.metrics == {}


def test_register_metrics_offers_metrics_to_every_task():
    registry = Registry()
    assert list(registry.load("lengths").metrics) == ["length_ratio"]
    [metric] = find_metrics(["lengths/length_ratio"], registry.metric)
    [score] = score_samples([make_sample("four", "eight ch")], [metric])
    assert (score.name, score.value, score.unit) == ("length_ratio", 0.5, "ratio")


def test_run_scores_with_the_metric_of_another_plugin(tmp_path):
    run = lmtasks.run(
        "titles",
        model=FakeModel(lambda prompt: "A title"),
        metrics=("rouge", "lengths/length_ratio"),
        limit=1,
        output_dir=tmp_path,
    )
    [score] = [score for score in run.scores if score.name == "length_ratio"]
    [sample] = run.samples
    assert score.value == pytest.approx(len("A title") / len(sample.references[0]))
    assert score.signature == "length_ratio|in:characters|version:1|lang:en(script)"
