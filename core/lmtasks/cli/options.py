"""Flags that commands share; their names are the fields of RunOptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lmtasks.cli import arguments
from lmtasks.cli.completion import complete_models, complete_plugins
from lmtasks.model.catalogue import DEFAULT

Command = TypeVar("Command", bound=Callable[..., Any])


def _group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=arguments.verbose, help="Tell more; show tracebacks."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")

plugin_options = _group(
    click.option(
        "--plugin",
        multiple=True,
        expose_value=False,
        callback=arguments.plugin_files,
        metavar="FILE",
        help="Take a plugin from a Python or YAML file. Repeatable.",
    ),
    click.option(
        "--no-plugin",
        multiple=True,
        expose_value=False,
        callback=arguments.plugins_off,
        metavar="NAME",
        shell_complete=complete_plugins,
        help="Leave an installed plugin out. Repeatable.",
    ),
    verbose_option,
)

model_options = _group(
    click.option(
        "--model",
        default=DEFAULT,
        show_default=True,
        metavar="MODEL",
        shell_complete=complete_models,
        help="A name of `lmtasks models list`, a folder, a .gguf file, or a hub id (ORG/NAME[@REVISION]).",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="auto: a GPU where there is one.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="auto: bfloat16 where the hardware computes in it.",
    ),
    click.option(
        "--quantize",
        type=click.Choice(["none", "int8"]),
        default="none",
        show_default=True,
        help="int8: round weights and activations to 8 bits, for a CPU without bfloat16; the loss is measured.",
    ),
    click.option(
        "--memory",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        metavar="GIB",
        help="For keys and values of what is generated at once; weights come on top.",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Let code that comes with the model run."),
)

adapter_option = click.option(
    "--adapter",
    metavar="ADAPTER",
    help="A folder or hub id of a LoRA adapter; none: not even the task's own.  [default: the task's own, if any]",
)

data_options = _group(
    click.option(
        "--data",
        metavar="DATA",
        help="A set of the task, a JSONL, CSV, TSV or Parquet file, or hub:ID[@REVISION][#CONFIG].  [default: the"
        " task's demo]",
    ),
    click.option("--split", metavar="NAME", help="Of the data.  [default: test, devtest, validation, dev or train]"),
    click.option(
        "--map",
        "columns",
        multiple=True,
        callback=arguments.text_pairs,
        metavar="FIELD=COLUMN",
        help="The data's column for a field, or for references, id or language; `score` also takes prediction=COLUMN,"
        " of the outputs. Repeatable.",
    ),
    click.option("--language", metavar="TAG", help="Of the references, such as zh.  [default: as the data says]"),
)

set_option = click.option(
    "--set",
    "parameters",
    multiple=True,
    callback=arguments.text_pairs,
    metavar="NAME=VALUE",
    help="Set a parameter of the task (see `lmtasks show`). Repeatable.",
)

prompt_options = _group(
    click.option("--prompt", metavar="NAME", help="One of the task's prompts (see `lmtasks show`)."),
    set_option,
    click.option(
        "--num-fewshot",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Show N examples with their answers in the prompt.",
    ),
    click.option(
        "--fewshot-data",
        metavar="DATA",
        help="Where to draw them from.  [default: another split of the data, or of the task's demo]",
    ),
    click.option(
        "--on-overlong",
        type=click.Choice(["error", "skip", "cut"]),
        default="error",
        show_default=True,
        help="What to do with a prompt too long for the model.",
    ),
)

generation_options = _group(
    click.option("--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="[default: as the task says]"),
    click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.  [default: 0]"),
    click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), metavar="P"),
    click.option("--top-k", type=click.IntRange(min=0), metavar="K"),
    click.option(
        "--repetition-penalty",
        type=click.FloatRange(min=0, min_open=True),
        metavar="P",
        help="Above 1: what was said already becomes less likely.  [default: 1]",
    ),
    click.option(
        "--stop",
        multiple=True,
        callback=arguments.stops,
        metavar="TEXT",
        help="Ends an answer, instead of the task's own. Repeatable.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of sampling and the few-shot draw."),
)

limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N examples.")


def metrics_option(default: str) -> Callable[[Command], Command]:
    """Return the option that names metrics; `default` says which are taken without it."""
    return click.option(
        "--metrics",
        callback=arguments.names,
        metavar="NAME,...",
        help="bleu (bleu:ja-mecab, bleu:ko-mecab), chrf, chrf++, ter, rouge (rouge:nostem, rouge:jieba), exact_match,"
        f" f1, PLUGIN/METRIC, evaluate:MODULE.  [default: {default}]",
    )


def resampling_options(least: int) -> Callable[[Command], Command]:
    """Return the options of the bootstrap; `least` is the smallest number of resamples."""
    return _group(
        click.option(
            "--resamples",
            type=click.IntRange(min=least),
            default=1000,
            show_default=True,
            metavar="N",
            help="Of the bootstrap, for intervals.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resamples."),
    )


output_dir_option = click.option(
    "--output-dir",
    type=arguments.UserPath(file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Holds run folders.",
)

run_options = _group(
    limit_option,
    metrics_option("the task's"),
    click.option("--loglikelihood", is_flag=True, help="Measure how likely the model finds the references, too."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Prompts at once.  [default: 64, or as memory allows]",
    ),
    output_dir_option,
)

training_options = _group(
    click.option("--data", metavar="DATA", help="What is learned, as for `run`.  [default: the task's own]"),
    click.option("--split", metavar="NAME", help="Of it.  [default: train, dev, validation or test]"),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Learn from the first N examples."),
    click.option(
        "--map",
        "columns",
        multiple=True,
        callback=arguments.text_pairs,
        metavar="FIELD=COLUMN",
        help="The data's column for a field, or for references, id or language. Repeatable.",
    ),
    click.option("--language", metavar="TAG", help="Of the references, such as zh.  [default: as the data says]"),
    click.option(
        "--eval-data",
        metavar="DATA",
        help="What is scored before and after.  [default: another split of the data, else 10% of it, held out]",
    ),
    click.option("--eval-split", metavar="NAME", help="Of it.  [default: test, devtest, validation, dev or train]"),
    click.option("--eval-limit", type=click.IntRange(min=1), metavar="N", help="Score the first N examples."),
    click.option("--prompt", metavar="NAME", help="One of the task's prompts (see `lmtasks show`)."),
    set_option,
    metrics_option("the task's"),
    click.option("--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="Of the answers that are scored."),
    click.option(
        "--validation",
        type=click.IntRange(min=0),
        metavar="N",
        help="Examples held out of the data to choose the best checkpoint; 0: the last is kept.  [default: 5%, at most"
        " 100]",
    ),
    click.option("--rank", type=click.IntRange(min=1), metavar="R", help="Of the adapter.  [default: 16]"),
    click.option("--alpha", type=float, metavar="A", help="It is scaled by A / R.  [default: 2 R]"),
    click.option("--dropout", type=float, metavar="P", help="Of the adapter's inputs; costs memory.  [default: 0]"),
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
        type=click.Choice(["error", "skip", "cut"]),
        help="What to do with a longer one; answers are never cut.  [default: cut]",
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
