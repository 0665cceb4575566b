"""Prompts: the one renderer of tasks, chat templates, and control tokens that data may spell."""

from lmtasks.prompts.renderer import (
    OnOverlong,
    OverlongPromptError,
    RenderedPair,
    RenderedPrompt,
    Renderer,
)

__all__ = ["OnOverlong", "OverlongPromptError", "RenderedPair", "RenderedPrompt", "Renderer"]
