"""The checks of one task: its description, data, prompts, parser and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from lmtasks.checks.character_tokenizer import CHAT_TEMPLATE, CharacterTokenizer
from lmtasks.checks.determinism import hash_in_subprocess, load_local_datasets, reload_with_other_seed
from lmtasks.checks.result import CheckResult, SkippedCheckError, run_check
from lmtasks.data import Dataset, load_fewshot
from lmtasks.errors import DataError
from lmtasks.languages import states_language
from lmtasks.metrics import find_metrics, score_samples
from lmtasks.models.catalog import CATALOG, DEFAULT
from lmtasks.plugins import Registry
from lmtasks.plugins.scaffold import MAX_SUMMARY
from lmtasks.prompts import Renderer
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.runs.samples import new_sample, parse_completion
from lmtasks.task import DataFile, Example, HubDataset, Metric, Sample, Task

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
"""Texts that a model may write and a parser must accept."""
TEMPLATE_TOKENS = 256
"""More tokens than a chat template adds to a prompt of one turn."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def run_checks(task: Task, registry: Registry | None = None, plugin: str | None = None) -> list[CheckResult]:
    """Run all checks of a task. Hub sets are not downloaded.

    Args:
        task: is checked.
        registry: looks up its metrics; None: a new one.
        plugin: name or file of its plugin, by which another process finds the task; None: it comes from Python.
    """
    subject = TaskUnderTest(task, registry or Registry(), plugin)
    return [run_check(task.name, name, task.label, partial(check, subject)) for name, check in CHECKS.items()]


class TaskUnderTest:
    """A task, with what several checks need."""

    def __init__(self, task: Task, registry: Registry, plugin: str | None) -> None:
        """Make one of the arguments of `run_checks`."""
        self.task, self.registry, self.plugin = task, registry, plugin
        self._data_was_requested = False

    @cached_property
    def datasets(self) -> Sequence[Dataset]:
        """Each data set that is not on the hub, in the evaluation split and in the splits for few-shot examples."""
        if all(isinstance(source, HubDataset) for source in self.task.datasets.values()):
            raise SkippedCheckError("it has only hub sets, which are not downloaded here")
        if self._data_was_requested:
            raise SkippedCheckError("its data cannot be read")
        self._data_was_requested = True  # an error of the data is reported once
        return load_local_datasets(self.task)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the task."""
        return find_metrics(self.task.metrics, self.registry.metric)

    def renderers(self, task: Task) -> Iterator[Renderer]:
        """Yield a renderer for each prompt, for chat and for base models."""
        for prompt in task.prompts:
            for template in (CHAT_TEMPLATE, None):
                yield Renderer(task, CharacterTokenizer(template), prompt=prompt)


def right_answers(task: Task, dataset: Dataset) -> list[Sample]:
    """Return a sample with the right answer for each example; none if the data has no answers."""
    samples = [_right_answer(task, index, example) for index, example in enumerate(dataset.examples)]
    return samples if any(any(sample.references) for sample in samples) else []


def _right_answer(task: Task, index: int, example: Example) -> Sample:
    prediction = parse_completion(task, example.answer or "", example.id)
    return replace(new_sample(task, index, example), prediction=prediction, finish_reason="stop")


def _metadata(subject: TaskUnderTest) -> Iterator[str]:
    task = subject.task
    if task.version < 1:
        yield f"version is {task.version!r}, expected a whole number of at least 1"
    if not task.summary.strip() or "\n" in task.summary or len(task.summary) > MAX_SUMMARY:
        yield f"summary is {task.summary[:40]!r}..., expected one line of at most {MAX_SUMMARY} characters"
    if task.language is not None and not states_language(task.language):
        yield f'language is "{task.language}", expected a BCP 47 tag such as "zh"'
    if not task.metrics:
        yield "metrics is empty: nothing would be scored"
    variables = set().union(*(prompt.variables() for prompt in task.prompts.values()))
    if all(isinstance(part, str) for prompt in task.prompts.values() for part in (prompt.user, prompt.system)):
        for name in (*task.fields, *task.parameters):
            if name not in variables:
                yield f'"{name}" is in no prompt: write ${name} into one, or remove it'


def _data(subject: TaskUnderTest) -> Iterator[str]:
    differ = (
        "two readings differ; ids, order and texts must be the same each time (draw random numbers from a seed of your"
        " own, sort what comes from a set)"
    )
    for dataset in subject.datasets:
        if dataset.sha256 != reload_with_other_seed(subject.task, dataset).sha256:
            yield f"{_where(dataset)}: {differ}"
    # Another process cannot find a task from Python, and files are the same there.
    if not subject.plugin or all(isinstance(source, DataFile) for source in subject.task.datasets.values()):
        return
    hashes = hash_in_subprocess(subject.plugin, subject.task.name)
    for dataset, sha256 in zip(subject.datasets, hashes, strict=True):
        if dataset.sha256 != sha256:
            yield f"{_where(dataset)}: in another process {differ}"


def _pinned_revisions(subject: TaskUnderTest) -> Iterator[str]:
    for name, source in subject.task.datasets.items():
        if isinstance(source, HubDataset) and not COMMIT.fullmatch(source.revision or ""):
            yield f'data set "{name}": {source} names no commit, so that its data may change; set revision'


def _prompts(subject: TaskUnderTest) -> None:
    for dataset in subject.datasets:
        for renderer in subject.renderers(subject.task):
            for example in dataset.examples:
                renderer.render(example)  # raises an error if the prompt fails
    first = subject.datasets[0].examples[0]
    for name, parameter in subject.task.parameters.items():
        for choice in parameter.choices:
            for renderer in subject.renderers(subject.task.with_settings({name: choice})):
                renderer.render(first)


def _no_answer_leak(subject: TaskUnderTest) -> Iterator[str]:
    for dataset in subject.datasets:
        for renderer in subject.renderers(subject.task):
            for example in dataset.examples:
                other = replace(example, references=("another answer",), target=None)
                token_ids = renderer.render(example).token_ids
                if renderer.render(example).token_ids != token_ids:
                    yield (
                        f'{_where(dataset)}: prompt "{renderer.name}" of "{example.id}" is not the same each time;'
                        " it may depend on the inputs only"
                    )
                if renderer.render(other).token_ids != token_ids:
                    yield (
                        f'{_where(dataset)}: prompt "{renderer.name}" of "{example.id}" contains the answer; it may'
                        " depend on the inputs only"
                    )


def _parser(subject: TaskUnderTest) -> Iterator[str]:
    for text in STRANGE_TEXTS:
        parse_completion(subject.task, text, f"{text[:20]!r}")  # raises an error if the parser fails
    for dataset in subject.datasets:
        for example in dataset.examples:
            prediction = parse_completion(subject.task, example.answer or "", example.id)
            if example.answer and example.answer != subject.task.output.no_answer and not prediction:
                yield f'{_where(dataset)}: the parser returns nothing for the right answer of "{example.id}"'


def _metrics(subject: TaskUnderTest) -> Iterator[str]:
    if len(subject.metrics) < len(subject.task.metrics):
        yield "two of its metrics have the same name"


def _reference_beats_empty(subject: TaskUnderTest) -> Iterator[str]:
    for dataset in subject.datasets:
        if not (samples := right_answers(subject.task, dataset)):
            continue
        right, empty = (
            {(score.name, score.language): score for score in score_samples(group, subject.metrics, resamples=0)}
            for group in (samples, [replace(sample, prediction="") for sample in samples])
        )
        better = []
        for key, score in right.items():
            if (score_of_empty := empty.get(key)) is None:
                continue  # not defined for empty outputs
            sign = {True: 1, False: -1, None: 0}[score.higher_is_better]
            if sign * score.value < sign * score_of_empty.value:
                yield f"{_where(dataset)}: {score.name} of right answers is worse than that of empty ones"
            better.append(sign * score.value > sign * score_of_empty.value)
        if not any(better):
            yield f"{_where(dataset)}: no metric distinguishes right answers from empty ones"


def _fewshot(subject: TaskUnderTest) -> Iterator[str]:
    demo = next(iter(subject.task.datasets))
    dataset = next((dataset for dataset in subject.datasets if dataset.name == demo), None)
    if dataset is None:
        raise SkippedCheckError("the demo is a hub set, which is not downloaded here")
    try:
        load_fewshot(subject.task, dataset, count=1, seed=0, data=None)
    except DataError:
        yield (
            f'{_where(dataset)} is evaluated, and no other examples are left for few-shot prompts: add a split "train"'
            " with answers and with other inputs"
        )


def _fits_default_model(subject: TaskUnderTest) -> Iterator[str]:
    model = CATALOG[DEFAULT]
    limit = model.context_length - subject.task.output.max_new_tokens
    longest, where, prompt, example = max(
        (
            (_bytes(renderer, example), f'{_where(dataset)}, example "{example.id}"', renderer.name, example)
            for dataset in subject.datasets
            for renderer in subject.renderers(subject.task)
            for example in dataset.examples
        ),
        key=lambda candidate: candidate[0],
    )
    # A token has at least one byte.
    if longest + TEMPLATE_TOKENS <= limit:
        return
    tokens = len(Renderer(subject.task, _default_tokenizer(), prompt=prompt).render(example).token_ids)
    if tokens > limit:
        yield f"{where}: a prompt of {tokens} tokens, and {DEFAULT} has room for {limit}; shorten the demo"


def _license(subject: TaskUnderTest) -> Iterator[str]:
    for name, source in subject.task.datasets.items():
        if not source.license:
            yield f'data set "{name}": no license is stated; set license, such as "CC-BY-4.0"'


CHECKS: dict[str, Callable[[TaskUnderTest], Iterator[str] | None]] = {
    "name, version and summary are well-formed": _metadata,
    "data can be read, has unique ids, and is the same each time": _data,
    "hub sets are pinned to a commit": _pinned_revisions,
    "every prompt renders, for chat and for base models": _prompts,
    "prompts depend on the inputs only": _no_answer_leak,
    "the parser accepts any text": _parser,
    "the metrics exist": _metrics,
    "right answers score higher than empty ones": _reference_beats_empty,
    "few-shot examples can be drawn": _fewshot,
    "the demo fits the default model": _fits_default_model,
    "the license of the data is stated": _license,
}
"""The checks of a task: each function raises an error or yields problems, of which the first is reported."""


def _where(dataset: Dataset) -> str:
    return f'data set "{dataset.name}"' + (f', split "{dataset.split}"' if dataset.split else "")


def _bytes(renderer: Renderer, example: Example) -> int:
    return sum(len(chr(id).encode("utf-8", "surrogatepass")) for id in renderer.render(example).token_ids)


def _default_tokenizer() -> Tokenizer:
    """Return the tokenizer of the default model if it is in the store: checks download nothing."""
    from lmtasks.models.store import find_stored

    stored = find_stored(CATALOG[DEFAULT])
    if stored is None:
        raise SkippedCheckError(
            f"its prompts are long, and {DEFAULT} is not here to count their tokens: lmtasks models pull {DEFAULT}"
        )
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(stored.path)
    return tokenizer
