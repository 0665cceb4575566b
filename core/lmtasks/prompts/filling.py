"""Fills the parts of a prompt with the inputs of examples; prompt functions are plugin code and run guarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lmtasks.errors import PromptError
from lmtasks.isolation import guarded_batch
from lmtasks.task import Example, Task
from lmtasks.text_utils import as_utf8

Part = Literal["system", "user"]


def fill_prompt(task: Task, name: str, part: Part, examples: Sequence[Example]) -> list[str]:
    """Return one part of a prompt for each example.

    Templates are filled without a guard, because nothing of a plugin runs. Prompt functions share one guard.

    Args:
        task: the task that has the prompt.
        name: the prompt's name.
        part: the part to fill.
        examples: the examples; no function sees what a call for another example has changed of the process.

    Raises:
        PromptError: a prompt function failed; names task, example and part.
    """
    prompt = task.prompts[name]
    inputs = [task.template_values(example.inputs) for example in examples]
    if isinstance(getattr(prompt, part), str) or not examples:
        return [as_utf8(prompt.fill(part, values)) for values in inputs]
    texts = []
    with guarded_batch() as guard:
        for example, values in zip(examples, inputs, strict=True):
            description = f'{task.label}, example "{example.id}": the {part} part of prompt "{name}" failed'
            with guard.call(description, PromptError):
                texts.append(as_utf8(prompt.fill(part, values)))
    return texts
