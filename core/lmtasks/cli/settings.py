"""Settings from a YAML file and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtasks.errors import UsageError, keyword, spell_options, unknown_name

if TYPE_CHECKING:
    from lmtasks.training import TrainOptions


def training_settings(config: Path | None, flags: Mapping[str, Any]) -> tuple[TrainOptions, str | None]:
    """Return the settings of a training, and the base model if one is named.

    Args:
        config: a YAML file with the same keys as TrainOptions, and "model".
        flags: as they were given; None or empty ones were not, and leave a thing to the file.

    Raises:
        UsageError: the file or a value is not what it should be.
        UnknownNameError: there is no such setting; offers the nearest.
        MetricError: the file names a module of `evaluate`, which is code: only a flag does.
    """
    from lmtasks.training import TrainOptions

    given = {name: value for name, value in flags.items() if not (value is None or value is False or value in ((), {}))}
    settings = {**(_read(config, given) if config else {}), **given}
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
    """Return what the file says and flags do not; it is data, and cannot ask for code to be run."""
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
        raise UsageError(f"{config}: a file cannot ask for a model's code to be run; give --trust-remote-code")
    _refuse_modules(config, settings.get("metrics"))
    # YAML 1.1 takes 3e-4 for text: it wants 3.0e-4.
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
