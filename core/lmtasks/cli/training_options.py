"""Flags of `lmtasks train`; their names are the fields of TrainOptions."""

from __future__ import annotations

import click

from lmtasks.cli import arguments
from lmtasks.cli.options import group, language_option, map_option, metrics_option, set_option, template_options

training_options = group(
    click.option("--data", metavar="DATA", help="What is learned, as for `run`.  [default: the task's own]"),
    click.option("--split", metavar="NAME", help="Split to learn from.  [default: train, dev, validation or test]"),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Learn from the first N examples."),
    map_option,
    language_option,
    click.option(
        "--eval-data",
        metavar="DATA",
        help="What is scored before and after.  [default: another split of the data, else 10% of it, held out]",
    ),
    click.option(
        "--eval-split", metavar="NAME", help="Split to score.  [default: test, devtest, validation, dev or train]"
    ),
    click.option("--eval-limit", type=click.IntRange(min=1), metavar="N", help="Score the first N examples."),
    click.option("--prompt", metavar="NAME", help="One of the task's prompts (see `lmtasks show`)."),
    set_option,
    template_options,
    metrics_option("the task's"),
    click.option(
        "--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="Tokens of an answer that is scored, at most."
    ),
    click.option(
        "--validation",
        type=click.IntRange(min=0),
        metavar="N",
        help="Examples held out of the data to choose the best checkpoint; 0: the last is kept.  [default: 5%, at most"
        " 100]",
    ),
    click.option("--rank", type=click.IntRange(min=1), metavar="R", help="LoRA rank.  [default: 16]"),
    click.option("--alpha", type=float, metavar="A", help="It is scaled by A / R.  [default: 2 R]"),
    click.option("--dropout", type=float, metavar="P", help="LoRA dropout; costs memory.  [default: 0]"),
    click.option(
        "--target-modules",
        callback=arguments.names,
        metavar="NAME,...",
        help="Layers that get an adapter.  [default: all-linear, all but the head]",
    ),
    click.option("--rslora", is_flag=True, help="Scale by A / sqrt(R) instead."),
    click.option("--dora", is_flag=True, help="Learn magnitudes apart from directions; slower."),
    click.option("--learning-rate", type=float, metavar="RATE", help="[default: 5e-4]"),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "linear", "constant", "polynomial", "inverse_sqrt"]),
        help="Of the learning rate.  [default: cosine]",
    ),
    click.option("--warmup", type=float, metavar="W", help="A share of the steps, or their number.  [default: 0.05]"),
    click.option(
        "--optimizer",
        type=click.Choice(["adamw", "adam", "rmsprop", "adafactor", "sgd"]),
        help="sgd has a momentum of 0.9.  [default: adamw]",
    ),
    click.option("--weight-decay", type=float, metavar="W", help="[default: 0]"),
    click.option("--max-grad-norm", type=float, metavar="N", help="Clip gradients; 0: never.  [default: 1]"),
    click.option("--epochs", type=float, metavar="N", help="Passes over the data.  [default: 1]"),
    click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Instead of --epochs."),
    click.option("--max-minutes", type=float, metavar="M", help="Train for at most so long."),
    click.option(
        "--batch-size", type=click.IntRange(min=1), metavar="N", help="Examples of a step, in all.  [default: 8]"
    ),
    click.option("--batch-tokens", type=click.IntRange(min=1), metavar="N", help="Tokens of a step, instead."),
    click.option(
        "--gradient-accumulation",
        type=click.IntRange(min=1),
        metavar="N",
        help="Compute a step in N parts: less memory, the same result.  [default: as many as long steps need]",
    ),
    click.option("--gradient-checkpointing", is_flag=True, help="Keep no activations: less memory, slower."),
    click.option(
        "--early-stopping",
        type=click.IntRange(min=1),
        metavar="N",
        help="End after N validations without a better one.  [default: never]",
    ),
    click.option(
        "--max-length", type=click.IntRange(min=2), metavar="N", help="Tokens of an example.  [default: 2048]"
    ),
    click.option(
        "--on-overlong",
        type=click.Choice(["error", "skip", "truncate"]),
        help="What to do with a longer one; answers are never truncated.  [default: truncate]",
    ),
    click.option("--seed", type=click.IntRange(min=0), metavar="N", help="[default: 0]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="[default: auto]"),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Of the base; the adapter is float32.  [default: auto]",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Let code that comes with the model run."),
    click.option(
        "--report-to",
        callback=arguments.names,
        metavar="NAME,...",
        help="tensorboard, wandb, mlflow or trackio, installed by you.  [default: none]",
    ),
    click.option(
        "--output-dir",
        type=arguments.UserPath(file_okay=False),
        help="Holds the run folders of the scores.  [default: runs]",
    ),
)
