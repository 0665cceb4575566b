"""Inference: the door to every model, and models of transformers behind it (`transformers_model`, needs torch)."""

from lmtasks.inference.door import Completion, LanguageModel, OnText, Request

__all__ = ["Completion", "LanguageModel", "OnText", "Request"]
