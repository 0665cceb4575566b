"""run.json: what a run was given, what it did, and its scores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.parts import ChatTemplateRecord, DataRecord, EnvironmentRecord, ScoreRecord, TaskRecord
from lmtasks.records.reading import (
    Count,
    Integer,
    Items,
    Positive,
    Record,
    Seconds,
    VersionedRecord,
    as_text,
    check_schema,
    validate,
)
from lmtasks.records.strict_json import RecordError, parse_json

Status = Literal["running", "finished", "failed", "interrupted"]
Perplexity = Annotated[float, Field(ge=0.5)]
"""At least 1, but for the rounding of its logarithm; scores are divided by it."""
OUTPUTS = "outputs"
"""The source of outputs that were made elsewhere, where a model's record has that of its weights."""


class FewShotRecord(Record):
    """The examples that every prompt shows."""

    data: str
    split: str | None
    sha256: str
    ids: Items[str]


class PromptRecord(Record):
    """How the model was prompted."""

    name: str
    form: str
    sha256: str | None
    """Hash of all rendered prompts; None: they are not rendered yet."""
    on_overlong: str
    fewshot: FewShotRecord | None
    chat_template: ChatTemplateRecord | None


class ModelRecord(Record):
    """The model that wrote the outputs; see `lmtasks.models.info.ModelInfo`."""

    name: str
    source: str
    revision: str
    architecture: str
    parameters: Count
    dtype: str
    device: str
    context_length: Count | None
    chat: bool
    languages: Items[str]
    remote_code: bool
    quantize: str


class OutputsRecord(Record):
    """The file of outputs that were made elsewhere."""

    name: str
    source: Literal["outputs"] = "outputs"
    revision: str


class UsedAdapterRecord(Record):
    """The adapter that the model had."""

    source: str
    id: str
    sha256: str
    task: str | None
    rank: Positive
    alpha: float
    rslora: bool
    dora: bool
    max_logit_change: float


class GenerationRecord(Record):
    """How completions were drawn; see `lmtasks.Generate`."""

    max_new_tokens: Count
    stop: Items[str]
    temperature: float
    top_p: float
    top_k: Count
    repetition_penalty: float


class TimingsRecord(Record):
    """Seconds, of all sessions of a run."""

    generate_seconds: Seconds
    loglikelihood_seconds: Seconds
    total_seconds: Seconds


class TokensRecord(Record):
    """Tokens of all samples."""

    prompt: Count
    completion: Count
    reasoning: Count


class QuantizationLossRecord(Record):
    """Perplexities of prompts with the model's own weights (baseline) and with 8-bit ones (quantized)."""

    tokens: Count
    baseline_ppl: Perplexity
    quantized_ppl: Perplexity


class CountsRecord(Record):
    """How many examples there are of each kind."""

    examples: Count
    scored: Count
    skipped: Count
    unparsed: Count
    empty: Count
    truncated_prompts: Count
    truncated_outputs: Count
    unanswered: Count
    reused: Count


class IntervalsRecord(Record):
    """How the intervals of scores were computed."""

    method: str
    confidence: float
    resamples: Count
    seed: Integer


class RunRecord(VersionedRecord):
    """Fields that run.json has for every run, finished or not."""

    status: Status
    error: str | None
    started: str
    finished: str | None
    task: TaskRecord
    data: DataRecord
    model: ModelRecord | OutputsRecord
    environment: EnvironmentRecord
    tokens: TokensRecord
    counts: CountsRecord | None
    """None: the run has not ended yet."""
    samples_sha256: str | None
    """SHA-256 of samples.jsonl; None: the run is not finished."""
    metrics: Items[str]
    scores: Items[ScoreRecord]
    output_checks: Items[ScoreRecord]
    intervals: IntervalsRecord | None


class ModelRunRecord(RunRecord):
    """run.json of a run with a model."""

    key: str
    prompt: PromptRecord
    model: ModelRecord
    backend: str
    adapter: UsedAdapterRecord | None
    generation: GenerationRecord
    seed: Integer
    batch_size: Count | None
    loglikelihood: bool
    timings: TimingsRecord
    quantization_loss: QuantizationLossRecord | None
    peak_memory_bytes: Count | None
    training: AdapterRecord | None
    """The training of the adapter, where this run scored it."""


class OutputsRunRecord(RunRecord):
    """run.json of outputs that were made elsewhere."""

    model: OutputsRecord


def read_run_record(text: str) -> ModelRunRecord | OutputsRunRecord:
    """Return the content of run.json.

    Raises:
        OtherSchemaError: another version of lmtasks wrote it.
        ValueError: it is not JSON, or a part is missing, unknown or of another type; the message is one line.
    """
    values = parse_json(text)
    check_schema(values)
    model = values.get("model") if isinstance(values, dict) else None
    outputs = isinstance(model, dict) and model.get("source") == OUTPUTS
    record: ModelRunRecord | OutputsRunRecord
    record = validate(OutputsRunRecord, values) if outputs else validate(ModelRunRecord, values)
    if record.status == "finished":
        expected = {"finished": "text", "counts": "an object", "samples_sha256": "text"}
        for name, kind in expected.items():
            if getattr(record, name) is None:
                raise RecordError(f"{name}: expected {kind} in a finished run, got None")
    return record


def run_record_text(record: RunRecord) -> str:
    """Return the content of run.json."""
    return as_text(record)


def run_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of run.json."""
    return TypeAdapter(ModelRunRecord | OutputsRunRecord).json_schema()
