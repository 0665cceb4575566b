"""The model card of an adapter."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from lmtasks import markdown
from lmtasks.errors import TrainingError, option
from lmtasks.escaping import one_line
from lmtasks.files import atomic_write
from lmtasks.models.adapter_files import RECORD
from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.parts import DataRecord
from lmtasks.reports.facts import training_facts
from lmtasks.reports.fine_tuning import write_table
from lmtasks.reports.learning_curve import CURVE
from lmtasks.reports.view import compared_table

CARD = "README.md"


def write_card(folder: Path, record: AdapterRecord) -> None:
    """Write the model card: what the adapter is, its training, and its scores as a model index.

    Raises:
        TrainingError: it cannot be written.
    """
    from huggingface_hub import EvalResult, ModelCardData

    record = _for_publication(record)
    task, base, evaluation, scores = record.task, record.base, record.evaluation, record.scores
    name = one_line(folder.resolve().name)
    card = ModelCardData(
        base_model=base.name,
        library_name="peft",
        tags=["lmtasks", "lora", task.name],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                task_name=task.name,
                dataset_type=evaluation.name,
                dataset_name=evaluation.name,
                dataset_split=evaluation.split,
                metric_type=score.name,
                metric_name=f"{score.name} ({score.language})" if score.language else score.name,
                metric_value=round(score.candidate, 4),
                metric_args={"signature": score.signature, "base_model": round(score.baseline, 4)},
            )
            for score in scores
        ]
        or None,
    )
    split = f" ({markdown.inline(evaluation.split)})" if evaluation.split else ""
    loading = f"PeftModel.from_pretrained(base, {json.dumps(name, ensure_ascii=False)})"
    command = ["lmtasks", "run", task.name, "--model", base.name, "--adapter", name]
    lines = [
        "---",
        card.to_yaml(),
        "---",
        "",
        f"# {markdown.inline(name)}",
        "",
        f"A LoRA adapter for the task {markdown.code(task.name)} (version {task.version}) on"
        f" {markdown.code(base.name)}, trained with lmtasks.",
        f"It belongs to exactly these weights: {markdown.code(base.revision)}. It was trained with the prompt"
        f" {markdown.code(record.prompt.name)} ({markdown.inline(record.prompt.form)} form).",
        "",
        markdown.fenced(shlex.join(command)),
        "",
        f"peft loads it as any other: {markdown.code(loading)}.",
        "",
        "## Scores",
        "",
        f"On {evaluation.count} examples of {markdown.code(evaluation.name)}{split}. p is that of a"
        " paired approximate randomization test, corrected by Holm.",
        "",
        write_table(compared_table(scores, baseline="base", candidate="adapter", brief=True)) if scores else "None.",
        "",
        markdown.paragraph(record.verdict),
        "",
        "## Training",
        "",
        f"![loss by step]({CURVE})",
        "",
        markdown.facts(training_facts(record)),
        f"- all settings, versions and hashes: `{RECORD}`",
    ]
    _write(folder / CARD, "\n".join(lines) + "\n")


def _for_publication(record: AdapterRecord) -> AdapterRecord:
    """Return a record whose every text is one line, and whose files are named without the folders of this machine."""
    # YAML would read some control characters as spaces.
    one_lined = AdapterRecord.model_validate(_one_line_texts(record.to_json()))
    return one_lined.model_copy(
        update={name: _without_folder(getattr(one_lined, name)) for name in ("data", "evaluation")}
    )


def _one_line_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _one_line_texts(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_one_line_texts(part) for part in value]
    return one_line(value) if isinstance(value, str) else value


def _without_folder(data: DataRecord) -> DataRecord:
    return data if data.file_sha256 is None else data.model_copy(update={"name": Path(data.name).name})


def _write(file: Path, text: str) -> None:
    try:
        # Half a surrogate pair, as in a file name that is not UTF-8, becomes JSON's escape.
        atomic_write(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise TrainingError(
            f"{file}: cannot be written ({error}); resume the training with {option('resume', True)}"
        ) from error
