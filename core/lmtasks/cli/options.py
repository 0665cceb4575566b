"""Options that several commands share; their names are the fields of RunOptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lmtasks.cli import arguments
from lmtasks.cli.completion import complete_models, complete_plugins
from lmtasks.models.catalog import DEFAULT

Command = TypeVar("Command", bound=Callable[..., Any])


def group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=arguments.verbose,
    help="Verbose output, with tracebacks.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

plugin_options = group(
    click.option(
        "--plugin",
        multiple=True,
        expose_value=False,
        callback=arguments.plugin_files,
        metavar="FILE",
        help="Load a plugin from a Python or YAML file. Repeatable.",
    ),
    click.option(
        "--no-plugin",
        multiple=True,
        expose_value=False,
        callback=arguments.plugins_off,
        metavar="NAME",
        shell_complete=complete_plugins,
        help="Disable an installed plugin. Repeatable.",
    ),
    verbose_option,
)

model_options = group(
    click.option(
        "--model",
        default=DEFAULT,
        show_default=True,
        metavar="MODEL",
        shell_complete=complete_models,
        help="Model name (see `lmtasks models list`), folder, .gguf file or hub id (ORG/NAME[@REVISION]).",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Device to run on; auto: a GPU if there is one.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Data type of the weights; auto: bfloat16 if the hardware supports it.",
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", "native", "hf-generate"]),
        default="auto",
        show_default=True,
        help="What runs the weights. auto: the native engine where it supports the architecture, else generate.",
    ),
    click.option(
        "--quantize",
        type=click.Choice(["none", "int8"]),
        default="none",
        show_default=True,
        help="int8: quantize weights and activations, for a CPU without bfloat16; the quality loss is measured.",
    ),
    click.option(
        "--memory",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        metavar="GIB",
        help="Size limit of the KV cache; weights come on top.",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Allow code that comes with the model to run."),
)

adapter_option = click.option(
    "--adapter",
    metavar="ADAPTER",
    help="LoRA adapter: folder or hub id; none: no adapter.  [default: the one bundled with the task, if any]",
)

map_option = click.option(
    "--map",
    "columns",
    multiple=True,
    callback=arguments.text_pairs,
    metavar="FIELD=COLUMN",
    help="Column of a field, or of references, id or language. Repeatable.",
)
language_option = click.option(
    "--language", metavar="TAG", help="Language of the references, such as zh.  [default: from the data]"
)

data_options = group(
    click.option(
        "--data",
        metavar="DATA",
        help="Named data set of the task, JSONL, CSV, TSV (also .gz, .zst, .bz2, .xz) or Parquet file, or"
        " hub:ID[@REVISION][#CONFIG].  [default: the task's demo]",
    ),
    click.option("--split", metavar="NAME", help="Split to use.  [default: test, devtest, validation, dev or train]"),
    click.option(
        "--map",
        "columns",
        multiple=True,
        callback=arguments.text_pairs,
        metavar="FIELD=COLUMN",
        help="Column of a field, or of references, id, language or (`score`) prediction. Repeatable.",
    ),
    language_option,
)

set_option = click.option(
    "--set",
    "parameters",
    multiple=True,
    callback=arguments.text_pairs,
    metavar="NAME=VALUE",
    help="Set a parameter of the task (see `lmtasks show`). Repeatable.",
)


template_options = group(
    click.option(
        "--template-set",
        "chat_template_kwargs",
        multiple=True,
        callback=arguments.template_values,
        metavar="NAME=VALUE",
        help="Set a variable of the model's chat template, such as enable_thinking=true. Repeatable.  [default: no"
        " thinking]",
    ),
    click.option(
        "--template-date",
        "chat_template_date",
        metavar="YYYY-MM-DD",
        help="Current date for chat templates that show it.  [default: date of the adapter's training, or of the run]",
    ),
)

prompt_options = group(
    click.option("--prompt", metavar="NAME", help="One of the task's prompts (see `lmtasks show`)."),
    set_option,
    template_options,
    click.option(
        "--num-fewshot",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Number of examples with answers in the prompt.",
    ),
    click.option(
        "--fewshot-data",
        metavar="DATA",
        help="Data to draw these examples from.  [default: another split of the data, or of the task's demo]",
    ),
    click.option(
        "--on-overlong",
        type=click.Choice(["error", "skip", "truncate"]),
        default="error",
        show_default=True,
        help="What to do with a prompt that is too long for the model.",
    ),
)

generation_options = group(
    click.option(
        "--max-new-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Length limit of an output.  [default: the task's]",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        metavar="T",
        help="Sampling temperature; 0: greedy.  [default: 0]",
    ),
    click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), metavar="P", help="Nucleus sampling."),
    click.option("--top-k", type=click.IntRange(min=0), metavar="K", help="Top-k sampling."),
    click.option(
        "--repetition-penalty",
        type=click.FloatRange(min=0, min_open=True),
        metavar="P",
        help="Above 1: penalize repeated tokens.  [default: 1]",
    ),
    click.option(
        "--stop",
        multiple=True,
        callback=arguments.stops,
        metavar="TEXT",
        help="Stop string, in place of the task's. Repeatable.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of sampling and of the few-shot draw."),
)

limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use the first N examples.")


def metrics_option(default: str) -> Callable[[Command], Command]:
    """Return the option for metrics; `default` describes the metrics used without it."""
    return click.option(
        "--metrics",
        callback=arguments.names,
        metavar="NAME,...",
        help="Metrics: bleu (bleu:ja-mecab, bleu:ko-mecab), chrf, chrf++, ter, rouge (rouge:nostem, rouge:jieba,"
        f" rouge:char), exact_match, f1, PLUGIN/METRIC, evaluate:MODULE.  [default: {default}]",
    )


def resampling_options(minimum: int) -> Callable[[Command], Command]:
    """Return the options of the bootstrap; `minimum` is the smallest number of resamples."""
    return group(
        click.option(
            "--resamples",
            type=click.IntRange(min=minimum),
            default=1000,
            show_default=True,
            metavar="N",
            help="Bootstrap resamples for the confidence intervals.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the resamples."),
    )


output_dir_option = click.option(
    "--output-dir",
    type=arguments.UserPath(file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder for run folders.",
)

run_options = group(
    limit_option,
    metrics_option("the task's"),
    click.option("--loglikelihood", is_flag=True, help="Also measure the log-likelihood of the references."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum number of prompts processed at once.  [default: 64, or as many as fit --memory]",
    ),
    output_dir_option,
)
