"""Inference: the door to every model, and models of transformers behind it (`transformers_model`, needs torch)."""

from lmtasks.inference.door import Completion, Continuation, LanguageModel, OnText, Request, Rounding

__all__ = ["Completion", "Continuation", "LanguageModel", "OnText", "Request", "Rounding"]
