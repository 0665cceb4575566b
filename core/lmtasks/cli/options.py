"""Flags that commands share; their names are the fields of RunOptions."""

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
    "-v", "--verbose", is_flag=True, expose_value=False, callback=arguments.verbose, help="Tell more; show tracebacks."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")

plugin_options = group(
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

model_options = group(
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

map_option = click.option(
    "--map",
    "columns",
    multiple=True,
    callback=arguments.text_pairs,
    metavar="FIELD=COLUMN",
    help="The data's column for a field, or for references, id or language. Repeatable.",
)
language_option = click.option(
    "--language", metavar="TAG", help="Language of the references, such as zh.  [default: as the data says]"
)

data_options = group(
    click.option(
        "--data",
        metavar="DATA",
        help="A set of the task, a JSONL, CSV, TSV (also compressed: .gz, .zst, .bz2, .xz) or Parquet file, or"
        " hub:ID[@REVISION][#CONFIG].  [default: the task's demo]",
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
        help="What a chat template that tells the date takes for today.  [default: as when the adapter was trained, or"
        " the run began]",
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
        help="Show N examples with their answers in the prompt.",
    ),
    click.option(
        "--fewshot-data",
        metavar="DATA",
        help="Where to draw them from.  [default: another split of the data, or of the task's demo]",
    ),
    click.option(
        "--on-overlong",
        type=click.Choice(["error", "skip", "truncate"]),
        default="error",
        show_default=True,
        help="What to do with a prompt too long for the model.",
    ),
)

generation_options = group(
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
        help="bleu (bleu:ja-mecab, bleu:ko-mecab), chrf, chrf++, ter, rouge (rouge:nostem, rouge:jieba, rouge:char),"
        f" exact_match, f1, PLUGIN/METRIC, evaluate:MODULE.  [default: {default}]",
    )


def resampling_options(least: int) -> Callable[[Command], Command]:
    """Return the options of the bootstrap; `least` is the smallest number of resamples."""
    return group(
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

run_options = group(
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
