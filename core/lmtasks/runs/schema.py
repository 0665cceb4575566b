"""What run.json holds. Keys that are not declared here are kept: a later lmtasks may add some.

Keys that may be missing came after the first lmtasks that wrote schema 1.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from lmtasks.models.adapter_record import (
    AdapterRecord,
    ChatTemplateRecord,
    Count,
    DataRecord,
    EnvironmentRecord,
    TaskRecord,
)
from lmtasks.shape import AtLeast, check_shape, refuse_deep
from lmtasks.task import Score

Status = Literal["running", "finished", "failed", "interrupted"]
Seconds = Annotated[float, AtLeast(0)]
Perplexity = Annotated[float, AtLeast(0.5)]
"""At least 1, but for the rounding of its logarithm; scores are divided by it."""


class FewShotRecord(TypedDict):
    """Which examples every prompt shows."""

    data: str
    split: str | None
    sha256: str
    ids: list[str]


class PromptRecord(TypedDict):
    """How the model was asked."""

    name: str
    form: str
    sha256: NotRequired[str]
    on_overlong: str
    fewshot: FewShotRecord | None
    chat_template: NotRequired[ChatTemplateRecord | None]


class SourceRecord(TypedDict):
    """Where outputs come from: a model, or a file."""

    name: str
    source: str
    revision: str


class ModelRecord(SourceRecord):
    """The model that answered."""

    architecture: str
    parameters: Count
    dtype: str
    device: str
    remote_code: bool
    quantize: NotRequired[str]


class AnsweringAdapterRecord(TypedDict):
    """The adapter that answered."""

    source: str
    id: str
    sha256: str
    task: str | None
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    effect: float


class TimingsRecord(TypedDict):
    """Seconds, of all sessions of a run."""

    generate_seconds: Seconds
    loglikelihood_seconds: NotRequired[Seconds]
    total_seconds: Seconds


class TokensRecord(TypedDict):
    """Tokens of all samples."""

    prompt: Count
    completion: Count
    reasoning: NotRequired[Count]


class RoundingRecord(TypedDict):
    """What rounding to 8 bits changed: perplexities of prompts."""

    tokens: Count
    baseline_ppl: Perplexity
    quantized_ppl: Perplexity


class CountsRecord(TypedDict):
    """How many examples there are of each kind."""

    examples: Count
    scored: Count
    skipped: Count
    empty: Count
    unparsed: NotRequired[Count]
    cut: Count
    unfinished: Count
    unanswered: NotRequired[Count]
    reused: Count


class IntervalsRecord(TypedDict):
    """How the intervals of scores were made."""

    method: str
    confidence: float
    resamples: Count
    seed: int


class TrainingRecord(AdapterRecord):
    """The training of the adapter that answered, and the run that scored its base."""

    before: str
    after: str


class RunRecord(TypedDict):
    """run.json, of every run at any time."""

    schema: int
    status: Status
    error: str | None
    key: NotRequired[str]
    started: str
    finished: str | None
    task: TaskRecord
    prompt: PromptRecord | None
    data: DataRecord
    model: SourceRecord
    environment: EnvironmentRecord
    tokens: TokensRecord
    counts: dict[str, Count]
    metrics: NotRequired[list[str]]
    scores: list[Score]
    health: NotRequired[list[Score]]
    intervals: NotRequired[IntervalsRecord]
    training: NotRequired[TrainingRecord]


class ModelRunRecord(RunRecord):
    """run.json of a run with a model; the others score outputs that were made elsewhere."""

    model: ModelRecord  # type: ignore[misc] # with more keys than that of outputs
    engine: NotRequired[str]
    adapter: NotRequired[AnsweringAdapterRecord | None]
    generation: dict[str, str | int | float | bool | list[str] | None]
    seed: int
    batch_size: int | None
    loglikelihood: NotRequired[bool]
    timings: TimingsRecord
    rounding: NotRequired[RoundingRecord | None]
    peak_memory_bytes: int | None


class _Finished(TypedDict):
    """What run.json has more once a run has finished."""

    finished: str
    counts: CountsRecord


def check_record(record: object) -> None:
    """Refuse the content of run.json where parts are missing or of another type.

    Raises:
        ShapeError: names the place, what was expected and what is there.
    """
    refuse_deep(record)
    check_shape(record, RunRecord)
    if not isinstance(record, dict):
        return
    if record["prompt"] is not None:
        check_shape(record, ModelRunRecord)
    if record["status"] == "finished":
        check_shape(record, _Finished)
