"""Optional packages, which only some metrics need."""

from __future__ import annotations

from importlib.util import find_spec

from lmtasks.errors import MetricError


def require(module: str, metric: str, install: str) -> None:
    """Check that a package is installed, before a model is loaded.

    Args:
        module: name that is imported.
        metric: name of the metric that needs it.
        install: requirement for pip.

    Raises:
        MetricError: it is not installed; names the command that installs it.
    """
    if find_spec(module) is None:
        raise MetricError(f'metric "{metric}" needs a package that is not installed: pip install {install}')
