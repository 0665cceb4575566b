"""Packages that only some metrics need, and that are not installed with lmtasks."""

from __future__ import annotations

from importlib.util import find_spec

from lmtasks.errors import MetricError


def require(module: str, metric: str, install: str) -> None:
    """See that a package is there, before a model is loaded.

    Args:
        module: what is imported.
        metric: who needs it.
        install: what pip is to install.

    Raises:
        MetricError: it is not; names the command that installs it.
    """
    if find_spec(module) is None:
        raise MetricError(f'metric "{metric}" needs a package that is not installed: pip install {install}')
