"""What a task promises, checked: for `lmtasks plugins check`, and for a plugin's own tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from lmtasks.checks.determinism import read_again, read_elsewhere, read_local
from lmtasks.data import Dataset, load_fewshot
from lmtasks.errors import DataError, LmtasksError
from lmtasks.isolation import guarded_call
from lmtasks.languages import states_language
from lmtasks.metrics import find_metrics, score_samples
from lmtasks.models.catalog import CATALOG, DEFAULT
from lmtasks.plugins import LoadedPlugin, Registry, is_plugin_file
from lmtasks.plugins.scaffold import LONGEST_SUMMARY
from lmtasks.prompts import Renderer
from lmtasks.prompts.character_tokenizer import CHAT_TEMPLATE, CharacterTokenizer
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.runs.samples import new_sample, parse_completion
from lmtasks.task import DataFile, Example, HubDataset, Metric, Sample, Task

Status = Literal["ok", "failed", "skipped"]

STRANGE_TEXTS = (
    "",
    " \n",
    "。",
    "\ufffd\u200b\ufeff",
    "word " * 200_000,
    '{"a": [',
    "<|im_end|>",
    "答案：没有",
    "لا يوجد جواب",
    "🙂" * 50,
    "Answer:",
    "\\1 \\ $text ${ %s {0} {",
    "((((((((((" * 100,
    "\n" * 10_000,
    "\x00\x1b[31m\r\n",
)
"""What a model may write; a parser must survive it."""
TEMPLATE_TOKENS = 256
"""More than what a chat template adds to a prompt of one turn."""
COMMIT = re.compile(r"[0-9a-f]{40}")
LOADED = "the plugin can be loaded"
"""The promise that all others need."""
METRICS = "the metrics that it registers can be computed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise, and whether it holds."""

    task: str
    """Its name, or the plugin's for what concerns all of it."""
    promise: str
    status: Status
    said: str = ""
    """What is wrong and what to do, or why it was skipped."""


def check_plugin(name: str | Path) -> list[Check]:
    """Check everything that a plugin's tasks promise.

    Args:
        name: the plugin's, or its file.

    Raises:
        UnknownNameError: there is no such plugin.
        PluginError: it cannot be loaded.
    """
    registry = Registry()
    plugin = registry.task(str(name))[1] if is_plugin_file(str(name)) else registry.load(str(name))
    checks = list(_of_plugin(plugin))
    if plugin.metrics:
        label = f'plugin "{plugin.found.name}" ({plugin.found.origin})'
        checks.append(_check(plugin.found.name, METRICS, label, lambda: _registered(plugin, registry)))
    for task in plugin.tasks.values():
        checks += check_promises(task, registry, str(name))
    return checks


def check_promises(task: Task, registry: Registry | None = None, name: str | None = None) -> list[Check]:
    """Check everything that a task promises: words, data, prompts, parser, metrics.

    Hub sets are not fetched; they are looked at as they are stated.

    Args:
        task: that is checked.
        registry: knows the metrics that it names; None: those that are installed.
        name: of its plugin or file, by which another process finds it too.
    """
    looked = _Looked(task, registry or Registry(), name)
    return [_check(task.name, promise, task.label, partial(look, looked)) for promise, look in PROMISES.items()]


def _check(task: str, promise: str, label: str, look: Callable[[], Iterator[str] | None]) -> Check:
    """Look whether a promise holds; whatever goes wrong is a check that failed."""
    try:
        with guarded_call(label):
            problem = next(iter(look() or ()), None)
        status: Status = "ok" if problem is None else "failed"
    except _SkipError as reason:
        problem, status = str(reason), "skipped"
    except LmtasksError as error:
        problem, status = str(error), "failed"
    return Check(task=task, promise=promise, status=status, said=problem or "")


class _SkipError(LmtasksError):
    """A promise could not be looked at; says why."""


class _Looked:
    """A task, with what several checks need of it."""

    def __init__(self, task: Task, registry: Registry, name: str | None) -> None:
        self.task, self.registry, self.name = task, registry, name
        self._told = False

    @cached_property
    def datasets(self) -> Sequence[Dataset]:
        """Each set that is no hub set, in the split that is scored and in those that are taught."""
        if all(isinstance(source, HubDataset) for source in self.task.datasets.values()):
            raise _SkipError("it has hub sets alone, which are not fetched here")
        if self._told:
            raise _SkipError("its data cannot be read")
        self._told = True  # what is wrong with the data is told once
        return read_local(self.task)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        return find_metrics(self.task.metrics, self.registry.metric)

    def renderers(self, task: Task) -> Iterator[Renderer]:
        """Return a renderer for each prompt, for chat and for base models."""
        for prompt in task.prompts:
            for template in (CHAT_TEMPLATE, None):
                yield Renderer(task, CharacterTokenizer(template), prompt=prompt)


def _of_plugin(plugin: LoadedPlugin) -> Iterator[Check]:
    from packaging.version import InvalidVersion, Version

    yield Check(task=plugin.found.name, promise=LOADED, status="ok")
    found, promise = plugin.found, "nothing that it uses of lmtasks will go"
    deprecated = "; ".join(plugin.deprecated)
    yield Check(task=found.name, promise=promise, status="failed" if deprecated else "ok", said=deprecated)
    promise = "the distribution's version is one that pip understands"
    if found.file:
        return
    try:
        Version(found.version)
    except InvalidVersion:
        yield Check(
            task=found.name,
            promise=promise,
            status="failed",
            said=f'"{found.version}": write it as in "1.2.0" (PEP 440)',
        )
    else:
        yield Check(task=found.name, promise=promise, status="ok")


def _registered(plugin: LoadedPlugin, registry: Registry) -> None:
    """Compute a plugin's metrics on the right answers of one of its tasks; what goes wrong is raised."""
    metrics = find_metrics([f"{plugin.found.name}/{name}" for name in plugin.metrics], registry.metric)
    for task in plugin.tasks.values():
        with suppress(_SkipError, DataError):  # which are told of the task
            for dataset in _Looked(task, registry, None).datasets:
                if gold := _right_answers(task, dataset):
                    score_samples(gold, metrics, resamples=0)
                    return
    raise _SkipError("none of its tasks has right answers that can be read here")


def _words(looked: _Looked) -> Iterator[str]:
    task = looked.task
    if isinstance(task.version, bool) or not isinstance(task.version, int) or task.version < 1:
        yield f"version is {task.version!r}, expected a whole number of at least 1"
    if not task.summary.strip() or "\n" in task.summary or len(task.summary) > LONGEST_SUMMARY:
        yield f"summary is {task.summary[:40]!r}..., expected one line of at most {LONGEST_SUMMARY} characters"
    if task.language is not None and not states_language(task.language):
        yield f'language is "{task.language}", expected a BCP 47 tag such as "zh"'
    if not task.metrics:
        yield "metrics is empty: nothing would be scored"
    named = set().union(*(prompt.names() for prompt in task.prompts.values()))
    if all(isinstance(part, str) for prompt in task.prompts.values() for part in (prompt.user, prompt.system)):
        for name in (*task.fields, *task.parameters):
            if name not in named:
                yield f'"{name}" is in no prompt: write ${name} into one, or take it away'


def _data(looked: _Looked) -> Iterator[str]:
    differ = (
        "two readings differ; ids, order and texts must be the same each time (draw random numbers from a seed of your"
        " own, sort what comes from a set)"
    )
    for dataset in looked.datasets:
        if dataset.sha256 != read_again(looked.task, dataset).sha256:
            yield f"{_where(dataset)}: {differ}"
    # A task that was handed over from Python cannot be found by another process, and files are the same there.
    if not looked.name or all(isinstance(source, DataFile) for source in looked.task.datasets.values()):
        return
    elsewhere = read_elsewhere(looked.name, looked.task.name)
    for dataset, sha256 in zip(looked.datasets, elsewhere, strict=True):
        if dataset.sha256 != sha256:
            yield f"{_where(dataset)}: in another process {differ}"


def _pinned(looked: _Looked) -> Iterator[str]:
    for name, source in looked.task.datasets.items():
        if isinstance(source, HubDataset) and not COMMIT.fullmatch(source.revision or ""):
            yield f'data set "{name}": {source} names no commit, so that its data may change; give it revision='


def _prompts(looked: _Looked) -> None:
    for dataset in looked.datasets:
        for renderer in looked.renderers(looked.task):
            for example in dataset.examples:
                renderer.render(example)  # what goes wrong is raised
    first = looked.datasets[0].examples[0]
    for name, parameter in looked.task.parameters.items():
        for choice in parameter.choices:
            for renderer in looked.renderers(looked.task.with_settings({name: choice})):
                renderer.render(first)


def _answers_hidden(looked: _Looked) -> Iterator[str]:
    for dataset in looked.datasets:
        for renderer in looked.renderers(looked.task):
            for example in dataset.examples:
                other = replace(example, references=("another answer",), target=None)
                first = renderer.render(example).token_ids
                if renderer.render(example).token_ids != first:
                    yield (
                        f'{_where(dataset)}: prompt "{renderer.name}" of "{example.id}" is not the same each time;'
                        " it may depend on the inputs alone"
                    )
                if renderer.render(other).token_ids != first:
                    yield (
                        f'{_where(dataset)}: prompt "{renderer.name}" of "{example.id}" tells the answer; it may depend'
                        " on the inputs alone"
                    )


def _parser(looked: _Looked) -> Iterator[str]:
    for text in STRANGE_TEXTS:
        parse_completion(looked.task, text, f"{text[:20]!r}")  # what goes wrong is raised
    for dataset in looked.datasets:
        for example in dataset.examples:
            answer = parse_completion(looked.task, example.answer or "", example.id)
            if example.answer and example.answer != looked.task.no_answer and not answer:
                yield f'{_where(dataset)}: the parser reads nothing from the right answer of "{example.id}"'


def _metrics(looked: _Looked) -> Iterator[str]:
    if len(looked.metrics) < len(looked.task.metrics):
        yield "two of its metrics have the same name"


def _gold(looked: _Looked) -> Iterator[str]:
    for dataset in looked.datasets:
        if not (gold := _right_answers(looked.task, dataset)):
            continue
        right, empty = (
            {(score.name, score.language): score for score in score_samples(samples, looked.metrics, resamples=0)}
            for samples in (gold, [replace(sample, prediction="") for sample in gold])
        )
        better = []
        for key, good in right.items():
            if (bad := empty.get(key)) is None:
                continue  # not defined on nothing
            sign = {True: 1, False: -1, None: 0}[good.higher_is_better]
            if sign * good.value < sign * bad.value:
                yield f"{_where(dataset)}: {good.name} of right answers is worse than that of empty ones"
            better.append(sign * good.value > sign * bad.value)
        if not any(better):
            yield f"{_where(dataset)}: no metric tells right answers from empty ones"


def _fewshot(looked: _Looked) -> Iterator[str]:
    demo = next(iter(looked.task.datasets))
    dataset = next((dataset for dataset in looked.datasets if dataset.name == demo), None)
    if dataset is None:
        raise _SkipError("the demo is a hub set, which is not fetched here")
    try:
        load_fewshot(looked.task, dataset, count=1, seed=0, data=None)
    except DataError:
        yield (
            f'{_where(dataset)} is scored, and there is nothing else to show: give the set a split "train" with'
            " answers, whose inputs are others"
        )


def _fits(looked: _Looked) -> Iterator[str]:
    model = CATALOG[DEFAULT]
    room = model.context_length - looked.task.generation.max_new_tokens
    longest, where, prompt = max(
        (
            (_bytes(renderer, example), f'{_where(dataset)}, example "{example.id}"', (renderer.name, example))
            for dataset in looked.datasets
            for renderer in looked.renderers(looked.task)
            for example in dataset.examples
        ),
        key=lambda one: one[0],
    )
    # A token has at least one byte.
    if longest + TEMPLATE_TOKENS <= room:
        return
    tokens = len(Renderer(looked.task, _tokenizer(), prompt=prompt[0]).render(prompt[1]).token_ids)
    if tokens > room:
        yield f"{where}: a prompt of {tokens} tokens, and {DEFAULT} has room for {room}; shorten the demo"


def _licensed(looked: _Looked) -> Iterator[str]:
    for name, source in looked.task.datasets.items():
        if not source.license:
            yield (
                f'data set "{name}": no licence is stated; say under which it may be used: license, such as "CC-BY-4.0"'
            )


PROMISES: dict[str, Callable[[_Looked], Iterator[str] | None]] = {
    "names, version and summary are well-formed": _words,
    "data can be read, with unique ids, and is the same each time": _data,
    "hub sets are pinned to a commit": _pinned,
    "every prompt renders, for chat and for base models": _prompts,
    "prompts depend on the inputs alone": _answers_hidden,
    "the parser takes any text": _parser,
    "the metrics exist": _metrics,
    "right answers beat empty ones": _gold,
    "few-shot examples can be drawn": _fewshot,
    "the demo fits the default model": _fits,
    "the data's licence is stated": _licensed,
}
"""What is promised to what looks: it raises or yields problems, of which the first is told."""


def _where(dataset: Dataset) -> str:
    return f'data set "{dataset.name}"' + (f', split "{dataset.split}"' if dataset.split else "")


def _bytes(renderer: Renderer, example: Example) -> int:
    return sum(len(chr(id).encode("utf-8", "surrogatepass")) for id in renderer.render(example).token_ids)


def _tokenizer() -> Tokenizer:
    """Return the default model's tokenizer, if it is in the store: checking fetches nothing."""
    from lmtasks.models.store import find_stored

    stored = find_stored(CATALOG[DEFAULT])
    if stored is None:
        raise _SkipError(
            f"its prompts are long, and {DEFAULT} is not here to count them: lmtasks models pull {DEFAULT}"
        )
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(stored.path)
    return tokenizer


def _right_answers(task: Task, dataset: Dataset) -> list[Sample]:
    """Return a sample with the right answer for each example; none where the data has no answers."""
    gold = [_sample(task, index, example) for index, example in enumerate(dataset.examples)]
    return gold if any(any(sample.references) for sample in gold) else []


def _sample(task: Task, index: int, example: Example) -> Sample:
    prediction = parse_completion(task, example.answer or "", example.id)
    return replace(new_sample(task, index, example), prediction=prediction, finish="stop")
