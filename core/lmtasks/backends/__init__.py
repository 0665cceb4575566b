"""Inference: the door to every model, and models of transformers behind it (`transformers_model`, needs torch)."""

from lmtasks.backends.base import Completion, Continuation, LanguageModel, OnText, QuantizationLoss, Request

__all__ = ["Completion", "Continuation", "LanguageModel", "OnText", "Request", "QuantizationLoss"]
