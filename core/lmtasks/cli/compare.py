"""`lmtasks compare RUN RUN...`."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import options
from lmtasks.cli.results import compared_check_lines, compared_lines, signature_lines
from lmtasks.cli.terminal import progress, say
from lmtasks.escaping import one_line
from lmtasks.options import RunOptions, ScoreOptions
from lmtasks.options.score import RESAMPLES

if TYPE_CHECKING:
    from lmtasks.runs import Run
    from lmtasks.runs.compare import ComparedScore, Comparison

COMPARISON_OPTIONS = ("runs", "adapters", "gates", "metrics", "resamples", "trials", "seed", "as_json")
MAX_TEXT = 300
"""Characters of an output that changed."""


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN... | TASK")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="ADAPTER",
    help="Run TASK with the base model and with this adapter, and compare the two. Repeatable. The options of the runs"
    " are below.",
)
@options.metrics_option(ScoreOptions, "those that all runs were scored with")
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="CONDITION",
    help="Exit with code 3 if it holds of any run against the first: 'rougeL drops' (significantly), 'TER rises', 'BLEU"
    " drops by 0.5' (by more, tested or not). Repeatable.",
)
@options.resampling_options
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Trials of the approximate randomization, for p.",
)
@options.inference_options
@options.data_options(RunOptions)
@options.run_prompt_options
@options.limit_option(RunOptions)
@options.output_dir_option(RunOptions)
@options.json_option
@options.plugin_options
def command(
    runs: tuple[str, ...],
    adapters: tuple[str, ...],
    gates: tuple[str, ...],
    as_json: bool,
    metrics: tuple[str, ...] | None,
    resamples: int | None,
    seed: int | None,
    trials: int,
    model: str,
    **settings: Any,
) -> None:
    """Compare runs on the same examples: scores, differences, tests, a verdict, what changed most.

    With more than two runs, all are compared with the first. Runs on different data, or scored differently, are
    refused.
    With --adapter, a task is run first: with the base model, and with each adapter.

    \b
    lmtasks compare runs/before runs/after
    lmtasks compare runs/before runs/after --fail-if 'rougeL drops'
    lmtasks compare qa --adapter adapters/qa --data test.jsonl
    """
    from lmtasks import api
    from lmtasks.cli.main import GATE
    from lmtasks.runs.compare import ALPHA
    from lmtasks.runs.gates import Gate

    resamples, seed = RESAMPLES if resamples is None else resamples, seed or 0
    checks = [Gate.parse(text) for text in gates]
    if adapters:
        if len(runs) != 1:
            raise click.UsageError("--adapter compares the runs of one task: lmtasks compare TASK --adapter ADAPTER")
        with progress() as on_progress:
            comparisons = api.compare_adapters(
                runs[0],
                adapters,
                RunOptions(**options.given(settings)),
                model=model,
                on_progress=on_progress,
                metrics=metrics,
                resamples=resamples,
                trials=trials,
                seed=seed,
            )
    else:
        _refuse_run_options()
        comparisons = api.compare(*runs, metrics=metrics, resamples=resamples, trials=trials, seed=seed)
    failed = [
        f"{comparison.candidate.path}: {change}"
        for comparison in comparisons
        for check in checks
        if (change := check.failing(comparison))
    ]
    if as_json:
        result = {
            "runs": [
                str(comparisons[0].baseline.path),
                *(str(comparison.candidate.path) for comparison in comparisons),
            ],
            "tests": {
                "p": "paired approximate randomization",
                "p_bootstrap": "paired bootstrap",
                "correction": "Holm, for scores and for output checks each",
                "alpha": ALPHA,
                "resamples": resamples,
                "trials": trials,
                "seed": seed,
            },
            "comparisons": [_as_json(comparison) for comparison in comparisons],
            "failed": failed,
        }
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        texts = [_as_text(comparison) for comparison in comparisons]
        click.echo("\n\n".join([*texts, _method(comparisons, resamples, trials, seed)]))
    for line in failed:
        say(line)
    if failed:
        raise click.exceptions.Exit(GATE)


def _refuse_run_options() -> None:
    """Refuse options that only have a meaning where a task is run."""
    context = click.get_current_context()
    for name in context.params:
        given = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        if given and name not in COMPARISON_OPTIONS:
            flag = "--map" if name == "columns" else f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} needs --adapter: it is an option of runs")


def _as_json(comparison: Comparison) -> dict[str, Any]:
    def scores(compared: tuple[ComparedScore, ...]) -> list[dict[str, Any]]:
        return [{**asdict(score), "outcome": score.outcome} for score in compared]

    return {
        "baseline": str(comparison.baseline.path),
        "candidate": str(comparison.candidate.path),
        "n": comparison.n,
        "verdict": comparison.verdict,
        "scores": scores(comparison.scores),
        "output_checks": scores(comparison.output_checks),
        "changed_by": comparison.changed_by,
        "changed": [asdict(example) for example in comparison.changed],
    }


def _as_text(comparison: Comparison) -> str:
    baseline, candidate = comparison.baseline, comparison.candidate
    parts = [
        "\n".join(
            [
                one_line(f"A  {baseline.path}: {_describe(baseline)}"),
                one_line(f"B  {candidate.path}: {_describe(candidate)}"),
                one_line(f"{comparison.n} examples of {baseline.record.data.name}"),
            ]
        ),
        compared_lines(comparison.scores),
        one_line(f"Verdict: {comparison.verdict}"),
    ]
    parts += compared_check_lines(comparison.output_checks)
    if comparison.changed:
        parts.append(one_line(f"Changed most, by {comparison.changed_by}:"))
        for example in comparison.changed:
            texts = zip("AB", example.predictions, strict=True)
            quoted = [f"  {name}  {textwrap.shorten(text, MAX_TEXT) or '(empty)'}" for name, text in texts]
            parts.append(
                "\n".join([f"{one_line(example.id)}: {example.baseline:.2f} -> {example.candidate:.2f}", *quoted])
            )
    return "\n\n".join(parts)


def _describe(run: Run) -> str:
    from lmtasks.records.run import ModelRunRecord

    record = run.record
    if not isinstance(record, ModelRunRecord):
        return f"outputs of {record.model.name}"
    prompt = record.prompt
    shots = f", {len(prompt.fewshot.ids)}-shot" if prompt.fewshot else ""
    adapter = f", {record.adapter.source}" if record.adapter else ""
    return f"{record.task.name}, prompt {prompt.name}{shots}, {record.model.name}{adapter}"


def _method(comparisons: list[Comparison], resamples: int, trials: int, seed: int) -> str:
    tests, check_tests = (
        sum(score.p_randomization is not None for comparison in comparisons for score in getattr(comparison, family))
        for family in ("scores", "output_checks")
    )
    signatures = signature_lines(score.signature for score in comparisons[0].scores)
    return "\n".join(
        [
            f"p: paired approximate randomization, {trials} trials; corrected by Holm for {tests} tests"
            f" of scores, and for {check_tests} of output checks."
            f" Interval of the difference: paired bootstrap, {resamples} resamples. Seed {seed}.",
            *signatures,
        ]
    )
