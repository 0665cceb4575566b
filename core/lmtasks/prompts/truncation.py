"""Truncation of overlong prompts: fields that the task allows to be truncated lose their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmtasks.prompts.rendered import OverlongPromptError, RenderedPrompt
from lmtasks.task import Example, Task

OnOverlong = Literal["error", "skip", "truncate"]
"""What to do with an example whose prompt is too long."""


@dataclass(frozen=True, slots=True)
class PromptLimit:
    """How many tokens the prompt of an example may have."""

    max_tokens: int | None = None
    """None: no limit."""
    with_answer: bool = False
    """Whether a given answer follows the prompt: then the prompt's `answer_start` counts too."""

    def max_prompt_tokens(self, prompt: RenderedPrompt) -> int | None:
        """Return how many tokens a prompt may have itself; None: no limit."""
        if self.max_tokens is None:
            return None
        return max(0, self.max_tokens - len(prompt.answer_start)) if self.with_answer else self.max_tokens


class TruncationSearch:
    """Bisection for the longest prompt of one example that fits.

    No truncatable field keeps more characters than a cap, and none is removed whole; the largest cap that fits is
    searched. The number of tokens is no smooth function of the number of characters, so the result was itself rendered.
    """

    def __init__(self, task: Task, example: Example, max_tokens: int) -> None:
        """Start a search for a prompt of at most `max_tokens` tokens."""
        self._example = example
        self._max_tokens = max_tokens
        self._texts = {name: text for name, text in example.inputs.items() if task.fields[name].truncatable and text}
        self._low, self._high = 1, max(map(len, self._texts.values()), default=0)
        self._kept: dict[str, str] = {}
        self.result: RenderedPrompt | None = None
        """The longest prompt so far that fits; None: none of those rendered does."""

    @property
    def finished(self) -> bool:
        """Whether `result` is final."""
        return self._low > self._high

    def candidate(self) -> Example:
        """Return the truncated example to render next."""
        self._kept = {name: shorten(text, self._cap) for name, text in self._texts.items()}
        return replace(self._example, inputs={**self._example.inputs, **self._kept})

    def record(self, rendered: RenderedPrompt) -> None:
        """Continue the search with the rendered prompt of the candidate."""
        cap = self._cap
        if len(rendered.token_ids) > self._max_tokens:
            self._high = cap - 1
            return
        removed = {name: len(text) - len(self._kept[name]) for name, text in self._texts.items()}
        self.result = replace(rendered, truncated={name: count for name, count in removed.items() if count})
        self._low = cap + 1

    @property
    def _cap(self) -> int:
        return (self._low + self._high) // 2


def fit_prompts(
    task: Task,
    examples: Sequence[Example],
    limits: Sequence[PromptLimit],
    render: Callable[[Sequence[Example]], Sequence[RenderedPrompt]],
    *,
    truncate: bool,
) -> list[RenderedPrompt | OverlongPromptError]:
    """Return for each example the prompt that fits its limit, or the error that says that none does.

    Args:
        task: the task of the examples; its fields say what may be truncated.
        examples: a batch of examples.
        limits: the limit of each example's prompt.
        render: renders examples, however long their prompts.
        truncate: whether overlong prompts are truncated.
    """
    prompts: list[RenderedPrompt | OverlongPromptError] = []
    searches: dict[int, TruncationSearch] = {}
    for index, (example, limit, prompt) in enumerate(zip(examples, limits, render(examples), strict=True)):
        max_tokens = limit.max_prompt_tokens(prompt)
        if max_tokens is None or len(prompt.token_ids) <= max_tokens:
            prompts.append(prompt)
            continue
        prompts.append(
            OverlongPromptError(
                f'task "{task.name}", example "{example.id}": the prompt has {len(prompt.token_ids)} tokens,'
                f" and the limit is {max_tokens}"
            )
        )
        if truncate:
            searches[index] = TruncationSearch(task, example, max_tokens)
    # One candidate of every search per call of `render`: prompt functions are guarded once for all of them.
    while active := [search for search in searches.values() if not search.finished]:
        for search, prompt in zip(active, render([search.candidate() for search in active]), strict=True):
            search.record(prompt)
    for index, search in searches.items():
        prompts[index] = search.result or OverlongPromptError(
            f"{prompts[index]}, even with every truncatable field cut to its beginning"
        )
    return prompts


def shorten(text: str, length: int) -> str:
    """Return the beginning of a text, up to the last space if one is near the end; never an empty text."""
    kept = text[:length]
    space = max(kept.rfind(" "), kept.rfind("\n")) if length < len(text) else -1
    return kept[:space].rstrip() if space > length * 0.9 else kept.rstrip() or kept
