"""`lmtasks train TASK`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import arguments, options
from lmtasks.cli.completion import complete_models, complete_tasks
from lmtasks.cli.results import compared_check_lines, compared_lines, examples, signature_lines
from lmtasks.cli.terminal import facts, progress, say
from lmtasks.cli.training_options import training_options
from lmtasks.escaping import one_line
from lmtasks.models.catalog import DEFAULT

if TYPE_CHECKING:
    from lmtasks.training.lora.conduct import TrainingEstimate


@click.command("train")
@click.argument("task", shell_complete=complete_tasks)
@click.option("-o", "--output", type=arguments.UserPath(), metavar="ADAPTER", help="Output folder of the adapter.")
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_models,
    help=f"Base model: name (see `lmtasks models list`), folder or hub id.  [default: {DEFAULT}]",
)
@training_options
@click.option(
    "--config",
    type=arguments.UserPath(dir_okay=False),
    metavar="FILE",
    help="YAML file with the same settings (learning_rate: 3e-4); flags override it.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan and exit.")
@click.option("--resume", is_flag=True, help="Resume an interrupted training of the same command.")
@options.json_option
@options.plugin_options
def command(
    task: str,
    output: Path | None,
    model: str | None,
    config: Path | None,
    plan_only: bool,
    resume: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fine-tune a LoRA adapter for a task, and score the model without and with it.

    The evaluation data is --eval-data, else another split of the training data, else a part that is held out.

    \b
    lmtasks train summarization/dialogue --data train.jsonl --eval-data test.jsonl -o adapters/dialogue
    lmtasks train qa --data train.jsonl --plan
    lmtasks run summarization/dialogue --adapter adapters/dialogue
    """
    from lmtasks import api
    from lmtasks.cli.settings import training_settings
    from lmtasks.training.lora.resume_state import can_resume

    settings, chosen = training_settings(config, {"model": model, **flags})
    base = chosen or DEFAULT
    with progress() as on_progress:
        if plan_only:
            planned = api.plan_train(task, settings, model=base, on_progress=on_progress).estimate
        elif output is None:
            raise click.UsageError("-o ADAPTER is missing, the output folder of the adapter (--plan needs none)")
        else:
            try:
                trained = api.train(
                    task,
                    output,
                    settings,
                    model=base,
                    resume=resume,
                    on_progress=on_progress,
                    on_plan=lambda estimate: click.echo(_plan_text(estimate), err=True),
                )
            except KeyboardInterrupt:
                if can_resume(output):
                    say("add --resume to the same command to resume the training")
                raise
    if plan_only:
        click.echo(json.dumps(asdict(planned), ensure_ascii=False, indent=2) if as_json else _plan_text(planned))
    elif trained is None:
        return  # one of several processes; the first one prints
    elif as_json:
        result = {"adapter": str(trained.path), "before": str(trained.before.path), "after": str(trained.after.path)}
        click.echo(json.dumps({**result, **trained.record.to_json()}, ensure_ascii=False, indent=2))
    else:
        click.echo(_as_text(trained))


def _plan_text(estimate: TrainingEstimate) -> str:
    from lmtasks.reports.formats import duration

    count, tokens = estimate.examples, estimate.tokens
    share = 100 * estimate.trainable_weights / estimate.weights
    split = f" ({estimate.evaluation_split})" if estimate.evaluation_split else ""
    values = {
        "task": f"{estimate.task} on {estimate.model} ({estimate.dtype}, {estimate.device})",
        "train on": f"{examples(count)} of {estimate.data}: {tokens} tokens, {estimate.answer_tokens} in targets",
        "truncated": estimate.truncated
        and f"{estimate.truncated} prompts ({100 * estimate.truncated / count:.1f}%), to {estimate.max_length}"
        " tokens with their target",
        "skipped": estimate.skipped and f"{examples(estimate.skipped)}, too long",
        "overlap removed": estimate.overlap_removed
        and f"{examples(estimate.overlap_removed)} that are also in the evaluation data",
        "validate on": f"{examples(estimate.validation_examples)} held out of them"
        if estimate.validation_examples
        else "no examples: the last checkpoint is kept",
        "evaluate on": f"{examples(estimate.evaluation_examples)} of {estimate.evaluation}{split}, before and after",
        "weights": f"{estimate.trainable_weights:,} in the adapter, {share:.2f}% of the model",
        "steps": f"{estimate.steps}, {estimate.epochs:.2f} epochs, {estimate.step_tokens} tokens",
        "estimate": f"{duration(estimate.expected_seconds)} of training"
        + (f", {estimate.expected_memory_bytes / 2**30:.1f} GiB" if estimate.expected_memory_bytes else ""),
    }
    return facts(values, 15)


def _as_text(trained: Any) -> str:
    from lmtasks.reports.formats import duration

    record = trained.record
    training, evaluation, loss = record.training, record.evaluation, record.training.validation_loss
    kept = f"kept step {training.best_step}" + (f", validation loss {loss:.3f}" if loss is not None else "")
    what = f"{record.task.name} on {record.base.name}"
    parts = [
        one_line(
            f"{what}: trained on {examples(training.examples)} in {training.steps} steps,"
            f" {duration(training.seconds)}; {kept}"
        )
    ]
    if trained.comparison:
        compared = trained.comparison
        parts += [
            one_line(f"{examples(evaluation.count)} of {evaluation.name}:")
            + "\n\n"
            + compared_lines(compared.scores, baseline="base", candidate="adapter"),
            one_line(f"Verdict: {record.verdict}"),
        ]
        parts += compared_check_lines(compared.output_checks, baseline="base", candidate="adapter")
        parts.append("\n".join(signature_lines(score.signature for score in compared.scores)))
    else:
        parts.append(one_line(record.verdict))
    parts.append(one_line(f"adapter: {trained.path}") + "\n" + one_line(f"report: {trained.after.path / 'report.md'}"))
    return "\n\n".join(parts)
