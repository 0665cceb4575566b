"""What a report tells of the training of its adapter, and of the scores before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmtasks import markdown
from lmtasks.reports.values import HEALTH, duration, interval, number

CURVE = "learning-curve.svg"


def fine_tuning_sections(record: Mapping[str, Any]) -> list[str]:
    """Return the sections on an adapter's training, from its record as in lmtasks.json."""
    sections = ["## Before and after fine-tuning"]
    if record["scores"]:
        told = [score for score in record["health"] if score["first"] or score["second"]]
        names = {score["name"]: HEALTH.get(score["name"], score["name"]) for score in told}
        sections += [
            f"The base scored in {markdown.code(record['before'])}, the adapter here, on the same examples."
            " p: paired approximate randomisation; corrected by Holm. Interval of the difference: paired bootstrap.",
            _compared(record["scores"], {}),
            f"**{markdown.paragraph(record['verdict'])}**",
            *([_compared(told, names)] if told else []),
        ]
    else:
        sections.append(markdown.paragraph(record["verdict"]))
    return [*sections, "## Fine-tuning", f"![loss by step]({CURVE})", _training(record)]


def _compared(scores: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    mixed = len({score["language"] for score in scores}) > 1
    rows = [
        (
            names.get(score["name"], score["name"]) + (f" ({score['language']})" if mixed else ""),
            number(score["first"], unit := score["unit"]),
            number(score["second"], unit),
            number(score["difference"], unit, sign=True),
            interval(score["low"], score["high"], unit, sign=True),
            _probability(score["p_randomisation"]),
            _probability(score["p_corrected"]),
            score["outcome"],
        )
        for score in scores
    ]
    header = ("score", "base", "adapter", "difference", "95% interval", "p", "corrected", "the adapter is")
    return markdown.table(header, rows, right=(1, 2, 3, 5, 6))


def _probability(p: float | None) -> str:
    return "" if p is None else f"{p:.4f}"


def _training(record: Mapping[str, Any]) -> str:
    training, data, settings = record["training"], record["data"], record["settings"]
    split = f" ({data['split']})" if data["split"] else ""
    kept = f"the checkpoint of step {training['best_step']} is kept"
    if training["validation_loss"] is not None:
        kept += (
            f", the best on {training['validation_examples']} validation examples: {training['validation_loss']:.4f}"
        )
    resumed = f", resumed at step {training['resumed_at']}" if training["resumed_at"] else ""
    kinds = "".join(f", {name}" for name in ("rslora", "dora") if settings[name])
    batch = f"{settings['batch_tokens']} tokens" if settings["batch_tokens"] else f"{settings['batch_size']} examples"
    values = {
        "learned": f"{training['examples']} examples of {data['name']}{split}, SHA-256 {data['sha256']}",
        "left out": training["skipped"] and f"{training['skipped']} examples as too long",
        "not learned": training["leaks"] and f"{training['leaks']} examples that are scored too, but for space or case",
        "cut": training["cut"] and f"{training['cut']} prompts, to {settings['max_length']} tokens with their answer",
        "steps": f"{training['steps']} of {training['planned_steps']}{resumed}, {training['epochs']:.2f} passes;"
        f" {kept}",
        "took": f"{duration(training['seconds'])} for {training['tokens']} tokens"
        f" ({training['tokens'] / max(training['seconds'], 1e-9):.0f} tokens/s),"
        f" {training['processes']} process{'es' if training['processes'] > 1 else ''},"
        f" {'packed' if training['packed'] else 'padded'}",
        "adapter": f"rank {settings['rank']}, alpha {settings['alpha']:g}{kinds}, dropout {settings['dropout']:g},"
        f" {', '.join(settings['target_modules'])}; {training['trainable_weights']:,} weights",
        "optimizer": f"{settings['optimizer']}, learning rate {settings['learning_rate']:g}, {settings['schedule']},"
        f" warm-up {settings['warmup']:g}, weight decay {settings['weight_decay']:g}, gradients clipped at"
        f" {settings['max_grad_norm']:g}, {batch} a step",
        "seed": settings["seed"],
    }
    return markdown.facts({name: value for name, value in values.items() if value not in (None, 0, "")})
