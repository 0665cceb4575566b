"""Training examples of a task: rendered as a run renders them, each with its answer."""

from __future__ import annotations

from collections.abc import Sequence

from lmtasks.errors import PromptError, option
from lmtasks.progress import OnProgress
from lmtasks.prompts import OnOverlong, OverlongPromptError, Renderer
from lmtasks.task import Example
from lmtasks.training.common.dataset import TokenizedDataset, TrainingExample

PROGRESS_INTERVAL = 1000
"""Examples between two reports of progress."""


def tokenize_examples(
    renderer: Renderer,
    examples: Sequence[Example],
    *,
    max_length: int,
    end_id: int,
    on_overlong: OnOverlong,
    on_progress: OnProgress,
) -> TokenizedDataset:
    """Render examples with the prompts of a run, and append their answers.

    Args:
        renderer: the renderer of the task and the model's tokenizer.
        examples: with an answer each.
        max_length: tokens of prompt and answer together at most.
        end_id: the token that ends an answer.
        on_overlong: what to do with an example that is longer.
        on_progress: called with the number of examples that are done.

    Raises:
        PromptError: examples are too long and may be neither truncated nor skipped.
    """
    tokenized: list[TrainingExample] = []
    overlong: list[OverlongPromptError] = []
    for number, pair in enumerate(renderer.render_pairs(examples, max_length, end_id, on_overlong=on_overlong)):
        if number and number % PROGRESS_INTERVAL == 0:
            on_progress(f"rendering {renderer.task.name}", number, len(examples))
        if isinstance(pair, OverlongPromptError):
            overlong.append(pair)
            continue
        ids = pair.prompt.token_ids + pair.answer_ids
        tokenized.append(TrainingExample(ids, len(pair.answer_ids), bool(pair.prompt.truncated)))
    if overlong and on_overlong != "skip":
        ways = " or ".join(option("on_overlong", way) for way in ("skip", "truncate") if way != on_overlong)
        raise PromptError(
            f"{len(overlong)} of {len(examples)} examples are too long to train on. The first: {overlong[0]}. Use"
            f" {ways}, or a larger {option('max_length')}"
        )
    if not tokenized:
        raise PromptError(f"all {len(examples)} examples are too long to train on; use a larger {option('max_length')}")
    return TokenizedDataset(tuple(tokenized), len(overlong))
