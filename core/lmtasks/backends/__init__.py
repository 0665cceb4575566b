"""Backends: the interface of all models (`base`), their names (`registry`), and those that run weights."""

from lmtasks.backends.base import (
    Capabilities,
    Completion,
    Continuation,
    LanguageModel,
    OnText,
    QuantizationLoss,
    Request,
)

__all__ = ["Capabilities", "Completion", "Continuation", "LanguageModel", "OnText", "QuantizationLoss", "Request"]
