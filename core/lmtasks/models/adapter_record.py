"""What lmtasks.json holds, and the parts of it that run.json has too. Keys that are not declared here are kept."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from lmtasks.shape import AtLeast, Day

Count = Annotated[int, AtLeast(0)]


class TaskNameRecord(TypedDict):
    """Which task it was."""

    name: str
    version: int


class TaskRecord(TaskNameRecord):
    """Which task it was, and where it came from."""

    plugin: str | None
    distribution: str | None
    distribution_version: str | None
    parameters: NotRequired[dict[str, str | int | float | bool]]


class DataRecord(TypedDict):
    """Which data it was, by name and hash."""

    name: str
    split: str | None
    count: Count
    sha256: str
    file_sha256: str | None
    limit: int | None
    columns: dict[str, str]
    language: str | None


class GitRecord(TypedDict):
    """The checkout that the process was started in."""

    commit: str
    dirty: bool | None


class EnvironmentRecord(TypedDict):
    """Versions and machine."""

    python: str
    platform: str
    cpu_count: int | None
    packages: dict[str, str]
    git: GitRecord | None


class ChatTemplateRecord(TypedDict):
    """How the chat template was rendered: its variables, and the date that it told."""

    kwargs: dict[str, object]
    date: Annotated[str, Day()] | None


class TrainedPromptRecord(TypedDict):
    """The prompt that an adapter was trained with."""

    name: str
    form: str
    sha256: str
    chat_template: NotRequired[ChatTemplateRecord | None]


class BaseNameRecord(TypedDict):
    """The model that an adapter belongs to."""

    name: str
    revision: str


class BaseRecord(BaseNameRecord):
    """The model that an adapter belongs to, and how it was loaded."""

    source: str
    architecture: str
    parameters: Count
    dtype: str
    device: str


class SettingsRecord(TypedDict):
    """The settings of a training that reports and cards show."""

    rank: Count
    alpha: float
    dropout: float
    target_modules: list[str]
    rslora: bool
    dora: bool
    optimizer: str
    learning_rate: float
    schedule: str
    warmup: float
    weight_decay: float
    max_grad_norm: float
    batch_size: Count
    batch_tokens: int | None
    max_length: Count
    seed: int


class LossRecord(TypedDict):
    """Losses after a step."""

    step: float
    loss: NotRequired[float]
    eval_loss: NotRequired[float]


class StepsRecord(TypedDict):
    """How a training went."""

    steps: Count
    planned_steps: Count
    best_step: Count
    validation_loss: float | None
    examples: Count
    validation_examples: Count
    skipped: Count
    leaks: Count
    cut: Count
    epochs: float
    tokens: Count
    trainable_weights: Count
    packed: bool
    processes: Count
    seconds: float
    resumed_at: int | None
    history: list[LossRecord]


class ComparedRecord(TypedDict):
    """A score of the base and of the adapter."""

    name: str
    language: str | None
    unit: str
    signature: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p_randomisation: float | None
    p_corrected: float | None
    outcome: str


class AdapterUseRecord(TypedDict):
    """The part of lmtasks.json that is needed to answer with an adapter."""

    schema: int
    weights_sha256: str
    task: TaskNameRecord
    prompt: TrainedPromptRecord
    base: BaseNameRecord


class AdapterRecord(AdapterUseRecord):
    """lmtasks.json: how an adapter was trained, and what it scored."""

    made: str
    task: TaskRecord  # type: ignore[misc] # with more keys
    base: BaseRecord  # type: ignore[misc]
    data: DataRecord
    evaluation: DataRecord
    settings: SettingsRecord
    training: StepsRecord
    environment: EnvironmentRecord
    scores: list[ComparedRecord]
    health: list[ComparedRecord]
    verdict: str
