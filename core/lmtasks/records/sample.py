"""A line of samples.jsonl, read as a `lmtasks.Sample` and written from one."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, Literal

from pydantic import ConfigDict, Field

from lmtasks.records.reading import Count, Items, Record, validate
from lmtasks.records.strict_json import RecordError, parse_json
from lmtasks.task import LogLikelihood, Sample


class LogLikelihoodRecord(Record):
    """Log-likelihood of a reference; see `lmtasks.LogLikelihood`."""

    logprob: float
    tokens: Count
    bytes: Count


class SampleRecord(Record):
    """A line of samples.jsonl; see `lmtasks.Sample`."""

    model_config = ConfigDict(title="Sample")

    index: Count
    id: str
    inputs: dict[str, str]
    references: Items[str]
    prediction: str
    language: str | None = None
    meta: dict[str, str] = Field(default_factory=dict)
    prompt_sha256: str = ""
    prompt_tokens: Count = 0
    truncated: dict[str, Count] = Field(default_factory=dict)
    completion: str = ""
    finish_reason: Literal["stop", "length", "skipped", "unknown"] = "stop"
    completion_tokens: Count = 0
    reasoning: str = ""
    reasoning_tokens: Count = 0
    loglikelihoods: Items[LogLikelihoodRecord] = ()
    error: str | None = None


def read_sample(line: str) -> Sample:
    """Return the sample of a line.

    Raises:
        ValueError: it is not JSON, or a part is missing, unknown or of another type; the message is one line.
    """
    record = validate(SampleRecord, parse_json(line))
    if len(record.loglikelihoods) not in (0, len(record.references)):
        raise RecordError(
            f"loglikelihoods: expected one for each of the {len(record.references)} references, got"
            f" {len(record.loglikelihoods)}"
        )
    values = {field.name: getattr(record, field.name) for field in fields(Sample)}
    values["loglikelihoods"] = tuple(LogLikelihood(**item.to_json()) for item in record.loglikelihoods)
    return Sample(**values)


def sample_line(sample: Sample) -> str:
    """Return a sample as a line, without its end."""
    values: dict[str, Any] = {field.name: getattr(sample, field.name) for field in fields(sample)}
    for name in ("inputs", "meta", "truncated"):
        values[name] = dict(values[name])
    values["loglikelihoods"] = [asdict(item) for item in sample.loglikelihoods]
    return json.dumps(values, ensure_ascii=False, allow_nan=False)
