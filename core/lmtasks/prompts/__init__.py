"""Prompts: the one renderer, chat templates, truncation, and control tokens that data may spell."""

from lmtasks.prompts.rendered import OverlongPromptError, RenderedPair, RenderedPrompt
from lmtasks.prompts.renderer import Renderer
from lmtasks.prompts.truncation import OnOverlong, PromptLimit

__all__ = ["OnOverlong", "OverlongPromptError", "PromptLimit", "RenderedPair", "RenderedPrompt", "Renderer"]
