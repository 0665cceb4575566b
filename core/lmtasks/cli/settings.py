"""Settings of a training from a YAML file and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtasks.cli.options import given
from lmtasks.errors import UsageError, keyword, spell_options, unknown_name

if TYPE_CHECKING:
    from lmtasks.options import TrainOptions


def training_settings(config: Path | None, flags: Mapping[str, Any]) -> tuple[TrainOptions, str | None]:
    """Return the settings of a training, and the base model if it is given.

    Args:
        config: a YAML file with the same keys as TrainOptions, and "model".
        flags: values of flags; None and empty values mean that the flag was not given, and the file decides.

    Raises:
        UsageError: the file or a value is invalid.
        UnknownNameError: a setting does not exist; offers the nearest.
        MetricError: the file names a module of `evaluate`, which is code: only a flag can do so.
    """
    from lmtasks.options import TrainOptions

    stated = given(flags)
    settings = {**(_read(config, stated) if config else {}), **stated}
    known = [field.name for field in dataclasses.fields(TrainOptions)]
    for name in settings:
        if name not in (*known, "model"):
            raise unknown_name(f"setting of a training ({config})", name, [*known, "model"])
    model = settings.pop("model", None)
    if model is not None and not isinstance(model, str):
        raise UsageError(f"{config}: model must be a name or a path, not {model!r}")
    if config is None:
        return TrainOptions(**settings), model
    try:
        with spell_options(keyword):  # as the file has them
            return TrainOptions(**settings), model
    except UsageError as error:
        raise UsageError(f"{error} (see {config})") from error


def _read(config: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the file that no flag gives; the file is data and cannot enable code."""
    import yaml

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{config}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{config}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f'{config}: expected lines such as "learning_rate: 3e-4"')
    settings = {name: value for name, value in content.items() if name not in flags}
    if settings.get("trust_remote_code"):
        raise UsageError(f"{config}: a file cannot allow code of a model to run; give --trust-remote-code")
    _refuse_modules(config, settings.get("metrics"))
    # YAML 1.1 reads 3e-4 as text; it would need 3.0e-4.
    return {str(name): _number(value) for name, value in settings.items()}


def _refuse_modules(config: Path, metrics: object) -> None:
    from lmtasks.metrics import check_metric, metrics_in_file

    listed = metrics if isinstance(metrics, list) else [metrics]
    for metric in metrics_in_file([name for name in listed if isinstance(name, str)], lambda _: str(config)):
        if not isinstance(metric, str):
            check_metric(metric)


def _number(value: object) -> object:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
