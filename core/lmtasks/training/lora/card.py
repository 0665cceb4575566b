"""What lies beside an adapter's weights: its record for lmtasks, and its model card for everybody."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtasks import markdown
from lmtasks.errors import TrainingError
from lmtasks.escaping import one_line
from lmtasks.files import atomic_write
from lmtasks.models.adapter_files import RECORD

CARD = "README.md"
CURVE = "learning-curve.svg"


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write lmtasks.json into an adapter's folder.

    Raises:
        TrainingError: it cannot be written.
    """
    _write(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the model card: what the adapter is, how it was made, and its scores as a model index.

    Raises:
        TrainingError: it cannot be written.
    """
    from huggingface_hub import EvalResult, ModelCardData

    record = _in_lines(record)
    task, base, data, training = record["task"], record["base"], record["data"], record["training"]
    evaluation, scores = record["evaluation"], record["scores"]
    name = one_line(folder.resolve().name)
    card = ModelCardData(
        base_model=base["name"],
        library_name="peft",
        tags=["lmtasks", "lora", task["name"]],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                task_name=task["name"],
                dataset_type=_name(evaluation),
                dataset_name=_name(evaluation),
                dataset_split=evaluation["split"],
                metric_type=score["name"],
                metric_name=f"{score['name']} ({score['language']})" if score["language"] else score["name"],
                metric_value=round(score["second"], 4),
                metric_args={"signature": score["signature"], "base_model": round(score["first"], 4)},
            )
            for score in scores
        ]
        or None,
    )
    settings = record["settings"]
    rows = [
        (score["name"], f"{score['first']:.2f}", f"{score['second']:.2f}", _interval(score), _probability(score))
        for score in scores
    ]
    loading = f"PeftModel.from_pretrained(base, {json.dumps(name, ensure_ascii=False)})"
    command = ["lmtasks", "run", task["name"], "--model", base["name"], "--adapter", name]
    kinds = "".join(f", {kind}" for kind, used in (("rsLoRA", settings["rslora"]), ("DoRA", settings["dora"])) if used)
    lines = [
        "---",
        card.to_yaml(),
        "---",
        "",
        f"# {markdown.inline(name)}",
        "",
        f"A LoRA adapter for the task {markdown.code(task['name'])} (version {task['version']}) on"
        f" {markdown.code(base['name'])}, made by lmtasks.",
        f"It belongs to exactly these weights: {markdown.code(base['revision'])}. It was trained with the prompt"
        f" {markdown.code(record['prompt']['name'])} ({markdown.inline(record['prompt']['form'])} form).",
        "",
        markdown.fenced(shlex.join(command)),
        "",
        f"peft loads it as any other: {markdown.code(loading)}.",
        "",
        "## Scores",
        "",
        f"On {evaluation['count']} examples of {markdown.code(_name(evaluation))}{_split(evaluation)}. The difference"
        " stands with its 95% interval; p is that of a paired approximate randomisation test, corrected by Holm.",
        "",
        markdown.table(("score", "base", "with adapter", "difference", "p"), rows, right=(1, 2, 4)),
        "",
        markdown.paragraph(record["verdict"]),
        "",
        "## Training",
        "",
        f"![loss by step]({CURVE})",
        "",
        f"- {training['examples']} examples of {markdown.code(_name(data))}{_split(data)}, SHA-256"
        f" {markdown.code(data['sha256'])}",
        f"- {training['steps']} steps, {training['epochs']:.2f} passes, {training['tokens']} tokens,"
        f" {training['seconds']:.0f} s; the checkpoint of step {training['best_step']} was kept",
        f"- rank {settings['rank']}, alpha {settings['alpha']:g}, dropout {settings['dropout']:g},"
        f" {markdown.inline(', '.join(settings['target_modules']))}{kinds}; {training['trainable_weights']:,} weights",
        f"- {markdown.paragraph(settings['optimizer'])}, learning rate {settings['learning_rate']:g},"
        f" {markdown.inline(settings['schedule'])}, warm-up"
        f" {settings['warmup']:g}, seed {settings['seed']}",
        f"- all settings, versions and hashes: `{RECORD}`",
    ]
    _write(folder / CARD, "\n".join(lines) + "\n")


def _in_lines(value: Any) -> Any:
    """Return a record whose every text is one line: YAML would take some control characters for spaces."""
    if isinstance(value, Mapping):
        return {name: _in_lines(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_in_lines(part) for part in value]
    return one_line(value) if isinstance(value, str) else value


def _name(data: Mapping[str, Any]) -> str:
    """Return the name of data without the folders of the machine that it was on."""
    return str(data["name"]) if data["file_sha256"] is None else Path(data["name"]).name


def _split(data: Mapping[str, Any]) -> str:
    return f" ({markdown.inline(data['split'])})" if data["split"] else ""


def _interval(score: Mapping[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['difference']:+.2f}"
    return f"{score['difference']:+.2f} ({score['low']:+.2f} to {score['high']:+.2f})"


def _probability(score: Mapping[str, Any]) -> str:
    return "" if score["p_corrected"] is None else f"{score['p_corrected']:.4f}"


def _write(file: Path, text: str) -> None:
    try:
        # Half a surrogate pair, as in a file name that is not UTF-8, becomes JSON's escape.
        atomic_write(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise TrainingError(f"{file}: cannot be written ({error}); go on with --resume") from error
