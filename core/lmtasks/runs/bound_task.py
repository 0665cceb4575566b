"""The renderer of a run: prompt, few-shot examples and chat template, with one date for the run's whole life."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from lmtasks.errors import RunError, option
from lmtasks.models.info import ModelInfo
from lmtasks.prompts import Renderer
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.runs.adapters import AdapterChoice
from lmtasks.runs.folder import RECORD, read_record
from lmtasks.task import Example, Task

log = logging.getLogger("lmtasks.runs")
KEY_DATE = date(2000, 1, 1)
"""The date that prompts are rendered with to identify a run, whatever the day."""


class TemplateOptions(Protocol):
    """The options that decide how a prompt is rendered."""

    @property
    def prompt(self) -> str | None:
        """The prompt's name."""
        ...

    @property
    def chat_template_kwargs(self) -> Mapping[str, object]:
        """Variables of the chat template."""
        ...

    @property
    def chat_template_date(self) -> str | None:
        """What the chat template takes for today."""
        ...


class Model(Protocol):
    """A model that was loaded, whether it answers or is trained."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What prompts are rendered with."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Which weights it has."""
        ...


def make_renderer(
    task: Task,
    model: Model,
    options: TemplateOptions,
    *,
    fewshot: Sequence[Example] = (),
    choice: AdapterChoice | None = None,
) -> Renderer:
    """Return the renderer of a run.

    What the options leave open of the chat template is as the run's adapter was trained with it.

    Raises:
        UsageError: the chat template has no variable of that name.
    """
    renderer = Renderer(
        task,
        model.tokenizer,
        prompt=options.prompt,
        fewshot=fewshot,
        template_kwargs=options.chat_template_kwargs,
        template_defaults=_trained_with(choice, model).get("kwargs"),
        template_date=stated_date(options, choice, model),
    )
    if options.chat_template_date and not (renderer.template and renderer.template.day):
        log.warning("the model's chat template shows no date; %s has no effect", option("chat_template_date"))
    return renderer


def stated_date(options: TemplateOptions, choice: AdapterChoice | None, model: Model) -> date | None:
    """Return the date that the options state, or else the adapter's record; None: neither does."""
    day = options.chat_template_date or _trained_with(choice, model).get("date")
    return date.fromisoformat(day) if day else None


def _trained_with(choice: AdapterChoice | None, model: Model) -> Mapping[str, Any]:
    if choice is None or choice.adapter.record is None or not choice.adapter.belongs_to(model.info):
        return {}
    return choice.adapter.record["prompt"].get("chat_template") or {}


def dated_key(key: str, day: str) -> str:
    """Return the key of a run whose prompts tell the date."""
    return hashlib.sha256(f"{key} on {day}".encode()).hexdigest()


def date_to_resume(output_dir: Path, key: str) -> date | None:
    """Return the date of the newest unfinished run that is the same but for the date; None: there is none.

    Args:
        output_dir: holds run folders.
        key: of the run, from prompts that were rendered with `KEY_DATE`.
    """
    for file in sorted(output_dir.glob(f"*/{RECORD}"), reverse=True):
        try:
            record = read_record(file.parent)
        except RunError:
            continue  # not a run that this version could resume
        day = ((record.get("prompt") or {}).get("chat_template") or {}).get("date")
        if day and record["status"] != "finished" and record.get("key") == dated_key(key, day):
            return date.fromisoformat(day)
    return None
