"""Flags that commands share; types, choices and defaults are those of the settings' dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from lmtasks.cli import arguments
from lmtasks.cli.completion import complete_models, complete_plugins
from lmtasks.cli.flags import flag
from lmtasks.models.catalog import DEFAULT
from lmtasks.options import Options, RunOptions, ScoreOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def setting(
    settings: type[Options], name: str, help: str, *, metavar: str | None = None, default: str = "", **more: Any
) -> Callable[[Command], Command]:
    """Return the flag of a setting; its value is None where the flag is not given.

    Type, choices and default come from the dataclass, which also checks ranges.

    Args:
        settings: the dataclass.
        name: of the field.
        help: one sentence.
        metavar: placeholder of the value.
        default: description of the default, where the field's own default is None.
        **more: further arguments of `click.option`.
    """
    value = next(field.default for field in fields(settings) if field.name == name)  # type: ignore[arg-type]
    if not default and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        default = f"{value:g}" if isinstance(value, float) else str(value)
    text = f"{help}  [default: {default}]" if default else help
    return click.option(
        flag(name), name, metavar=metavar, help=text, **{**_reading(get_type_hints(settings)[name]), **more}
    )


def _reading(hint: Any) -> dict[str, Any]:
    """Return how click reads values of a type."""
    if get_origin(hint) is Literal:
        return {"type": click.Choice(get_args(hint))}
    types = [part for part in get_args(hint) if part is not NoneType] if NoneType in get_args(hint) else [hint]
    if bool in types:
        return {"is_flag": True, "default": None}
    if any(get_origin(part) is tuple for part in types):
        return {"callback": arguments.names}
    if any(get_origin(part) is not None and issubclass(get_origin(part), Mapping) for part in types):
        return {"multiple": True, "callback": arguments.text_pairs}
    return {"type": next((part for part in types if part in (int, float)), str)}


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings whose flags were given."""
    return {
        name: value for name, value in settings.items() if not (value is None or value is False or value in ((), {}))
    }


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


def model_options(settings: type[Options]) -> Callable[[Command], Command]:
    """Return the flags of `ModelOptions`."""
    return group(
        setting(settings, "device", "Device to run on; auto: a GPU if there is one."),
        setting(settings, "dtype", "Data type of the weights; auto: bfloat16 if the hardware supports it."),
        setting(settings, "trust_remote_code", "Allow code that comes with the model to run."),
    )


inference_options = group(
    click.option(
        "--model",
        default=DEFAULT,
        show_default=True,
        metavar="MODEL",
        shell_complete=complete_models,
        help="Model name (see `lmtasks models list`), folder, .gguf file or hub id (ORG/NAME[@REVISION]).",
    ),
    model_options(RunOptions),
    setting(
        RunOptions,
        "backend",
        "Backend that runs the weights; auto: native if a short test at loading shows the same results as"
        " transformers, else hf-generate.",
    ),
    setting(
        RunOptions,
        "quantize",
        "int8: quantize weights and activations, for a CPU without bfloat16; the quality loss is measured.",
    ),
    setting(RunOptions, "kv_cache_gib", "Size limit of the KV cache in GiB; weights come on top.", metavar="GIB"),
)

adapter_option = setting(
    RunOptions,
    "adapter",
    "LoRA adapter: folder or hub id; none: no adapter.",
    metavar="ADAPTER",
    default="the one bundled with the task, if any",
)


def columns_option(settings: type[Options], also: str = "") -> Callable[[Command], Command]:
    """Return the flag that maps fields to columns; `also` names further ones."""
    return setting(
        settings,
        "columns",
        f"Column of a field, or of references, id{also} or language. Repeatable.",
        metavar="FIELD=COLUMN",
    )


def language_option(settings: type[Options]) -> Callable[[Command], Command]:
    """Return the flag for the language of the references."""
    return setting(
        settings, "language", "Language of the references, such as zh.", metavar="TAG", default="from the data"
    )


def limit_option(settings: type[Options], help: str = "Use the first N examples.") -> Callable[[Command], Command]:
    """Return the flag that limits the number of examples."""
    return setting(settings, "limit", help, metavar="N")


def data_options(settings: type[Options]) -> Callable[[Command], Command]:
    """Return the flags of `DataOptions`, but for the limit."""
    return group(
        setting(
            settings,
            "data",
            "Named data set of the task, JSONL, CSV, TSV (also .gz, .zst, .bz2, .xz) or Parquet file, or"
            " hub:ID[@REVISION][#CONFIG].",
            metavar="DATA",
            default="the task's demo",
        ),
        setting(settings, "split", "Split to use.", metavar="NAME", default="test, devtest, validation, dev or train"),
        columns_option(settings, ", prediction" if issubclass(settings, ScoreOptions) else ""),
        language_option(settings),
    )


def prompt_options(
    settings: type[Options], on_overlong: str, date: str = "date of the adapter's training, or of the run"
) -> Callable[[Command], Command]:
    """Return the flags of `PromptOptions`.

    Args:
        settings: the dataclass.
        on_overlong: help of the flag for examples that are too long.
        date: description of the chat template's default date.
    """
    return group(
        setting(settings, "prompt", "One of the task's prompts (see `lmtasks show`).", metavar="NAME"),
        setting(
            settings,
            "parameters",
            "Set a parameter of the task (see `lmtasks show`). Repeatable.",
            metavar="NAME=VALUE",
        ),
        setting(
            settings,
            "chat_template_kwargs",
            "Set a variable of the model's chat template, such as enable_thinking=true. Repeatable.",
            metavar="NAME=VALUE",
            default="no thinking",
            callback=arguments.template_values,
        ),
        setting(
            settings,
            "chat_template_date",
            "Current date for chat templates that show it.",
            metavar="YYYY-MM-DD",
            default=date,
        ),
        setting(settings, "on_overlong", on_overlong),
    )


run_prompt_options = group(
    prompt_options(RunOptions, "What to do with a prompt that is too long for the model."),
    setting(RunOptions, "num_fewshot", "Number of examples with answers in the prompt.", metavar="N"),
    setting(
        RunOptions,
        "fewshot_data",
        "Data to draw these examples from.",
        metavar="DATA",
        default="another split of the data, or of the task's demo",
    ),
)

generation_options = group(
    setting(RunOptions, "max_new_tokens", "Length limit of an output.", metavar="N", default="the task's"),
    setting(RunOptions, "temperature", "Sampling temperature; 0: greedy.", metavar="T", default="0"),
    setting(RunOptions, "top_p", "Nucleus sampling.", metavar="P"),
    setting(RunOptions, "top_k", "Top-k sampling.", metavar="K"),
    setting(RunOptions, "repetition_penalty", "Above 1: penalize repeated tokens.", metavar="P", default="1"),
    setting(
        RunOptions,
        "stop",
        "Stop string, in place of the task's. Repeatable.",
        metavar="TEXT",
        multiple=True,
        callback=arguments.stops,
    ),
    setting(RunOptions, "seed", "Seed of sampling and of the few-shot draw."),
)


def metrics_option(settings: type[Options], default: str) -> Callable[[Command], Command]:
    """Return the flag for metrics; `default` describes the metrics used without it."""
    return setting(
        settings,
        "metrics",
        "Metrics: bleu (bleu:ja-mecab, bleu:ko-mecab), chrf, chrf++, ter, rouge (rouge:nostem, rouge:jieba,"
        " rouge:char), exact_match, f1, PLUGIN/METRIC, evaluate:MODULE.",
        metavar="NAME,...",
        default=default,
    )


resampling_options = group(
    setting(ScoreOptions, "resamples", "Bootstrap resamples for the confidence intervals.", metavar="N"),
    setting(ScoreOptions, "seed", "Seed of the resamples."),
)


def output_dir_option(
    settings: type[Options], help: str = "Folder for run folders.", default: str = ""
) -> Callable[[Command], Command]:
    """Return the flag for the folder of run folders."""
    return setting(settings, "output_dir", help, type=arguments.UserPath(file_okay=False), default=default)


run_options = group(
    limit_option(RunOptions),
    metrics_option(RunOptions, "the task's"),
    setting(RunOptions, "loglikelihood", "Also measure the log-likelihood of the references."),
    setting(
        RunOptions,
        "batch_size",
        "Maximum number of prompts processed at once.",
        metavar="N",
        default="64, or as many as fit the KV cache",
    ),
    output_dir_option(RunOptions),
)
