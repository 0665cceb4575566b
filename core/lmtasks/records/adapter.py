"""lmtasks.json: how an adapter was trained, and what it scored."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from lmtasks.records.parts import ChatTemplateRecord, DataRecord, EnvironmentRecord, Scalar, TaskRecord
from lmtasks.records.reading import Count, Integer, Items, Record, VersionedRecord, as_text, check_schema, validate
from lmtasks.records.strict_json import parse_json


class TrainedPromptRecord(Record):
    """The prompt that an adapter was trained with."""

    name: str
    form: str
    sha256: str | None
    """None: a function of the prompt failed on the text that prompts are identified with."""
    chat_template: ChatTemplateRecord | None


class BaseRecord(Record):
    """The model that an adapter belongs to, and how it was loaded."""

    name: str
    source: str
    revision: str
    architecture: str
    parameters: Count
    dtype: str
    device: str


class SettingsRecord(Record):
    """The options of a training, as `lmtasks.TrainOptions` has them; what they left open is filled in."""

    data: str | None
    split: str | None
    limit: Count | None
    columns: dict[str, str]
    language: str | None
    eval_data: str | None
    eval_split: str | None
    eval_limit: Count | None
    prompt: str | None
    parameters: dict[str, Scalar]
    chat_template_kwargs: dict[str, Any]
    chat_template_date: str | None
    metrics: Items[str] | None
    max_new_tokens: Count | None
    validation: Count | None
    rank: Count
    alpha: float
    dropout: float
    target_modules: Items[str]
    rslora: bool
    dora: bool
    learning_rate: float
    schedule: str
    warmup: float
    optimizer: str
    weight_decay: float
    max_grad_norm: float
    epochs: float | None
    max_steps: Count | None
    max_minutes: float | None
    batch_size: Count
    batch_tokens: Count | None
    gradient_accumulation: Count | None
    gradient_checkpointing: bool
    early_stopping: Count | None
    max_length: Count
    on_overlong: str
    seed: Integer
    device: str
    dtype: str
    trust_remote_code: bool
    report_to: Items[str]


class LossRecord(Record):
    """Training or validation loss after a step, and what else was logged."""

    step: Count
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not logged: there is an entry for every step."""
        return {name: value for name, value in serialize(self).items() if value is not None}


class TrainingRecord(Record):
    """How a training went."""

    steps: Count
    planned_steps: Count
    best_step: Count
    validation_loss: float | None
    examples: Count
    validation_examples: Count
    skipped: Count
    overlap_removed: Count
    truncated: Count
    epochs: float
    tokens: Count
    trainable_weights: Count
    packed: bool
    processes: Count
    micro_batches: Count
    seconds: float
    resumed_at: Count | None
    history: Items[LossRecord]


class ComparedScoreRecord(Record):
    """A score of the base model (baseline) and of the adapter (candidate)."""

    name: str
    language: str | None
    n: Count
    unit: str
    higher_is_better: bool | None
    signature: str
    baseline: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    p_bootstrap: float | None
    p_randomization: float | None
    p_corrected: float | None
    smallest_p: float
    outcome: str


class AdapterRecord(VersionedRecord):
    """lmtasks.json, in an adapter's folder; run.json of the run that scored the adapter has it too."""

    made: str
    weights_sha256: str
    task: TaskRecord
    prompt: TrainedPromptRecord
    base: BaseRecord
    data: DataRecord
    evaluation: DataRecord
    settings: SettingsRecord
    training: TrainingRecord
    environment: EnvironmentRecord
    scores: Items[ComparedScoreRecord]
    output_checks: Items[ComparedScoreRecord]
    verdict: str
    before: str | None = None
    """Name of the folder of the run that scored the base model; None: it is not scored yet."""
    after: str | None = None
    """Name of the folder of the run that scored the adapter."""


def read_adapter_record(text: str) -> AdapterRecord:
    """Return the content of lmtasks.json.

    Raises:
        OtherSchemaError: another version of lmtasks wrote it.
        ValueError: it is not JSON, or a part is missing, unknown or of another type; the message is one line.
    """
    values = parse_json(text)
    check_schema(values)
    return validate(AdapterRecord, values)


def adapter_record_text(record: AdapterRecord) -> str:
    """Return the content of lmtasks.json."""
    return as_text(record)
