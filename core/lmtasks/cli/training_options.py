"""Options of `lmtasks train`; their names are the fields of TrainOptions."""

from __future__ import annotations

import click

from lmtasks.cli import arguments
from lmtasks.cli.options import group, language_option, map_option, metrics_option, set_option, template_options

training_options = group(
    click.option("--data", metavar="DATA", help="Training data, as for `run`.  [default: the task's demo]"),
    click.option("--split", metavar="NAME", help="Split to train on.  [default: train, dev, validation or test]"),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Train on the first N examples."),
    map_option,
    language_option,
    click.option(
        "--eval-data",
        metavar="DATA",
        help="Evaluation data, scored before and after.  [default: another split of the data, or 10% held out of it]",
    ),
    click.option(
        "--eval-split", metavar="NAME", help="Split to evaluate on.  [default: test, devtest, validation, dev or train]"
    ),
    click.option("--eval-limit", type=click.IntRange(min=1), metavar="N", help="Evaluate on the first N examples."),
    click.option("--prompt", metavar="NAME", help="One of the task's prompts (see `lmtasks show`)."),
    set_option,
    template_options,
    metrics_option("the task's"),
    click.option(
        "--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="Length limit of an output in the evaluation."
    ),
    click.option(
        "--validation",
        type=click.IntRange(min=0),
        metavar="N",
        help="Number of examples held out to choose the best checkpoint; 0: keep the last.  [default: 5%, at most 100]",
    ),
    click.option("--rank", type=click.IntRange(min=1), metavar="R", help="LoRA rank.  [default: 16]"),
    click.option(
        "--alpha", type=float, metavar="A", help="LoRA alpha; the adapter is scaled by A / R.  [default: 2 R]"
    ),
    click.option("--dropout", type=float, metavar="P", help="LoRA dropout; needs more memory.  [default: 0]"),
    click.option(
        "--target-modules",
        callback=arguments.names,
        metavar="NAME,...",
        help="Layers to adapt.  [default: all-linear, which is all but the head]",
    ),
    click.option("--rslora", is_flag=True, help="Use rank-stabilized LoRA: scale by A / sqrt(R)."),
    click.option("--dora", is_flag=True, help="Use DoRA; slower."),
    click.option("--learning-rate", type=float, metavar="RATE", help="Peak learning rate.  [default: 5e-4]"),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "linear", "constant", "polynomial", "inverse_sqrt"]),
        help="Learning rate schedule.  [default: cosine]",
    ),
    click.option(
        "--warmup", type=float, metavar="W", help="Warm-up: share of the steps, or number of steps.  [default: 0.05]"
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["adamw", "adam", "rmsprop", "adafactor", "sgd"]),
        help="Optimizer; sgd has a momentum of 0.9.  [default: adamw]",
    ),
    click.option("--weight-decay", type=float, metavar="W", help="Weight decay.  [default: 0]"),
    click.option(
        "--max-grad-norm", type=float, metavar="N", help="Gradient clipping norm; 0: no clipping.  [default: 1]"
    ),
    click.option("--epochs", type=float, metavar="N", help="Number of epochs.  [default: 1]"),
    click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Number of steps, in place of --epochs."),
    click.option("--max-minutes", type=float, metavar="M", help="Time limit in minutes."),
    click.option(
        "--batch-size", type=click.IntRange(min=1), metavar="N", help="Global batch size, examples.  [default: 8]"
    ),
    click.option(
        "--batch-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Global batch size in tokens, in place of --batch-size.",
    ),
    click.option(
        "--gradient-accumulation",
        type=click.IntRange(min=1),
        metavar="N",
        help="Micro-batches per step: less memory, same result.  [default: as many as long steps need]",
    ),
    click.option("--gradient-checkpointing", is_flag=True, help="Recompute activations: less memory, slower."),
    click.option(
        "--early-stopping",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop after N validations without improvement.  [default: never]",
    ),
    click.option(
        "--max-length", type=click.IntRange(min=2), metavar="N", help="Maximum tokens of an example.  [default: 2048]"
    ),
    click.option(
        "--on-overlong",
        type=click.Choice(["error", "skip", "cut"]),
        help="What to do with a longer example; targets are never truncated.  [default: cut]",
    ),
    click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Random seed.  [default: 0]"),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="Device to train on.  [default: auto]"
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Data type of the base model; the adapter is float32.  [default: auto]",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Allow code that comes with the model to run."),
    click.option(
        "--report-to",
        callback=arguments.names,
        metavar="NAME,...",
        help="Experiment trackers: tensorboard, wandb, mlflow or trackio, which you install.  [default: none]",
    ),
    click.option(
        "--output-dir",
        type=arguments.UserPath(file_okay=False),
        help="Folder for the run folders of the evaluation.  [default: runs]",
    ),
)
