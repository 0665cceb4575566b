"""The fields of the settings as typed keywords, for functions such as `lmtasks.run(task, limit=20)`.

A test keeps them equal to the dataclasses' fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from lmtasks.options.groups import BackendName, Device, Dtype, OnOverlong, Quantize
from lmtasks.options.train import Optimizer, Schedule


class DataKeywords(TypedDict, total=False):
    """Fields of `DataOptions`."""

    data: str | Path | None
    split: str | None
    limit: int | None
    columns: Mapping[str, str]
    language: str | None


class PromptKeywords(TypedDict, total=False):
    """Fields of `PromptOptions`."""

    prompt: str | None
    parameters: Mapping[str, object]
    chat_template_kwargs: Mapping[str, object]
    chat_template_date: str | None
    on_overlong: OnOverlong


class ModelKeywords(TypedDict, total=False):
    """Fields of `ModelOptions`."""

    device: Device
    dtype: Dtype
    trust_remote_code: bool


class RunKeywords(DataKeywords, PromptKeywords, ModelKeywords, total=False):
    """Fields of `RunOptions`; a single name stands for a list of one."""

    num_fewshot: int
    fewshot_data: str | Path | None
    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    stop: str | Sequence[str] | None
    backend: BackendName
    quantize: Quantize
    kv_cache_gib: float
    batch_size: int | None
    metrics: str | Sequence[str] | None
    loglikelihood: bool
    seed: int
    adapter: str | Path | None
    output_dir: str | Path


class ScoreKeywords(DataKeywords, total=False):
    """Fields of `ScoreOptions`; a single name stands for a list of one."""

    predictions: str | Path | None
    references: str | None
    metrics: str | Sequence[str] | None
    resamples: int
    seed: int
    output_dir: str | Path | None


class TrainKeywords(DataKeywords, PromptKeywords, ModelKeywords, total=False):
    """Fields of `TrainOptions`; a single name stands for a list of one."""

    eval_data: str | Path | None
    eval_split: str | None
    eval_limit: int | None
    metrics: str | Sequence[str] | None
    max_new_tokens: int | None
    validation: int | None
    rank: int
    alpha: float | None
    dropout: float
    target_modules: str | Sequence[str]
    rslora: bool
    dora: bool
    learning_rate: float
    schedule: Schedule
    warmup: float
    optimizer: Optimizer
    weight_decay: float
    max_grad_norm: float
    epochs: float | None
    max_steps: int | None
    max_minutes: float | None
    batch_size: int
    batch_tokens: int | None
    gradient_accumulation: int | None
    gradient_checkpointing: bool
    early_stopping: int | None
    max_length: int
    seed: int
    report_to: str | Sequence[str]
    output_dir: str | Path
