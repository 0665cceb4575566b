"""Files of an unfinished training: its state, and what is used of a checkpoint of transformers."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict

from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.reading import (
    Count,
    ForeignRecord,
    Items,
    Positive,
    Record,
    VersionedRecord,
    as_text,
    check_schema,
    validate,
)
from lmtasks.records.strict_json import parse_json


class DecisiveSettingsRecord(Record):
    """The options that change weights or scores."""

    model_config = ConfigDict(extra="allow")

    chat_template_date: str | None


class DecisiveRecord(Record):
    """Everything that the weights and scores of a training depend on."""

    model_config = ConfigDict(extra="allow")

    settings: DecisiveSettingsRecord


class TrainingStateRecord(VersionedRecord):
    """state.json: the progress of a training."""

    decisive: DecisiveRecord
    steps: Positive
    before: str | None = None
    """The run that scored the base model."""
    trained: AdapterRecord | None = None
    """lmtasks.json, once the weights are there."""
    after: str | None = None
    """The run that scored the adapter."""


def read_training_state(text: str) -> TrainingStateRecord:
    """Return the content of state.json.

    Raises:
        OtherSchemaError: another version of lmtasks wrote it.
        ValueError: it is not JSON, or a part is missing, unknown or of another type; the message is one line.
    """
    values = parse_json(text)
    check_schema(values)
    return validate(TrainingStateRecord, values)


def training_state_text(record: TrainingStateRecord) -> str:
    """Return the content of state.json."""
    return as_text(record)


class ControlRecord(ForeignRecord):
    """State of the callback "TrainerControl"."""

    args: dict[str, Any] = {}


class CallbacksRecord(ForeignRecord):
    """States of callbacks, by name."""

    TrainerControl: ControlRecord = ControlRecord()


class LoggedRecord(ForeignRecord):
    """Values that Trainer logged after a step."""

    step: float
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None


class CheckpointRecord(ForeignRecord):
    """trainer_state.json of a checkpoint, as transformers writes it."""

    global_step: Positive
    max_steps: Positive
    best_global_step: Count | None = None
    best_metric: float | None = None
    log_history: Items[LoggedRecord]
    stateful_callbacks: CallbacksRecord


def read_checkpoint_record(text: str) -> CheckpointRecord:
    """Return the content of trainer_state.json; Trainer itself writes NaN, for gradient norms that were not measured.

    Raises:
        ValueError: it is not JSON, or a part is missing or of another type; the message is one line.
    """
    return validate(CheckpointRecord, json.loads(text))
