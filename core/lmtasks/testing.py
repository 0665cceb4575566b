"""For tests of tasks and models: a scripted model, tiny real ones, and the checks of a task."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from lmtasks.api import load_model
from lmtasks.backends import Capabilities, Completion, Continuation, LanguageModel, QuantizationLoss, Request
from lmtasks.checks.character_tokenizer import CHAT_TEMPLATE, CharacterTokenizer
from lmtasks.checks.plugin import check_plugin
from lmtasks.checks.task import STRANGE_TEXTS, run_checks
from lmtasks.models.adapter_files import Adapter
from lmtasks.models.info import ModelInfo
from lmtasks.options import RunOptions
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.task import Task

__all__ = [
    "CHAT_TEMPLATE",
    "STRANGE_TEXTS",
    "CharacterTokenizer",
    "FakeModel",
    "check_task",
    "save_tiny_model",
    "tiny_model",
]

Architecture = Literal["llama", "gpt2", "gpt_neox", "qwen3", "gemma3"]


class FakeModel:
    """A model that returns scripted answers and keeps the prompts.

    >>> model = FakeModel(["a summary", "another"])
    """

    def __init__(
        self,
        answers: Sequence[str] | Callable[[str], str],
        *,
        chat: bool = False,
        context_length: int | None = None,
        languages: tuple[str, ...] = (),
    ) -> None:
        """Make a model.

        Args:
            answers: one for each prompt, in their order, or a function that returns the answer to a prompt.
            chat: whether its tokenizer has a chat template.
            context_length: tokens of prompt and answer; None: no limit.
            languages: as its info states them.
        """
        self._answers = answers
        self.prompts: list[str] = []
        self.tokenizer: Tokenizer = CharacterTokenizer(CHAT_TEMPLATE if chat else None)
        self.backend = "scripted"
        self.capabilities = Capabilities(adapters=True, logprobs=True, streaming=True)
        self.quantization_loss: QuantizationLoss | None = None
        self.info = ModelInfo(
            name="fake",
            source="python",
            revision="none",
            architecture="FakeModel",
            parameters=0,
            dtype="none",
            device="none",
            context_length=context_length,
            chat=chat,
            languages=languages,
        )

    def attach(self, adapter: Adapter) -> float:
        """Accept any adapter; the answers stay as they are."""
        return 1.0

    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        batch_size: int | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Yield the answers one by one; stop strings end an answer, `max_new_tokens` does not."""
        for index, request in enumerate(requests):
            prompt = self.tokenizer.decode(list(request.token_ids))
            answer = self._answers(prompt) if callable(self._answers) else self._answers[len(self.prompts)]
            self.prompts.append(prompt)
            parsed = request.reasoning.parse(answer)
            ends = [end for end in (parsed.answer.find(stop) for stop in request.sampling_params.stop) if end >= 0]
            text = parsed.answer[: min(ends, default=len(parsed.answer))]
            if request.on_text:
                for length in range(1, len(text) + 1):
                    request.on_text(text[:length])
            reasoning = len(answer) if parsed.start is None else parsed.start
            yield [(index, Completion(text, reasoning + len(text), "stop", parsed.reasoning, reasoning))]

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Yield log-likelihoods in which every token has the probability 1/2."""
        for index, continuation in enumerate(continuations):
            yield [(index, -math.log(2) * len(continuation.answer_ids))]


def tiny_model(architecture: Architecture = "llama", *, chat: bool = True) -> LanguageModel:
    """Return a real model of a few thousand random weights, loaded like any other. Needs torch."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_model(Path(folder), architecture, chat=chat)
        return load_model(folder, RunOptions(device="cpu", dtype="float32"))


def save_tiny_model(folder: Path, architecture: Architecture = "llama", *, chat: bool = True) -> None:
    """Write a model of random weights (the same every time) and its tokenizer as a folder in transformers format.

    Args:
        folder: is created if it does not exist.
        architecture: of the model.
        chat: whether the tokenizer has a chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from lmtasks.models.quiet import quiet

    tokenizer = _tiny_tokenizer(chat=chat)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(_tiny_config(architecture, tokenizer))
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_task(task: Task | str | Path) -> None:
    """Run the checks of `lmtasks plugins check`; one line in a plugin's tests.

    Args:
        task: a Task, or the name or file of a plugin for all of its tasks.

    Raises:
        AssertionError: a check failed; says which, where and what to do.
        LmtasksError: the plugin cannot be loaded.
    """
    results = run_checks(task) if isinstance(task, Task) else check_plugin(task)
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise AssertionError("\n".join(f'task "{result.task}": {result.check}: {result.detail}' for result in failed))


def _tiny_tokenizer(*, chat: bool) -> Any:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    lines = [
        "The ferry leaves the harbour at nine, and the last one returns at six.",
        "渡轮九点离开港口，最后一班六点返回。",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE if chat else None,
    )


def _tiny_config(architecture: Architecture, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    # Weights far from zero, so that the most likely token is ahead by more than rounding.
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "gpt2":
        return AutoConfig.for_model("gpt2", n_embd=48, n_layer=2, n_head=4, n_positions=4096, **common)
    common |= {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
    }
    if architecture == "gpt_neox":
        return AutoConfig.for_model("gpt_neox", **common)
    common |= {"num_key_value_heads": 2, "head_dim": 12}
    if architecture == "gemma3":
        layers = ["sliding_attention", "full_attention"]
        return AutoConfig.for_model("gemma3_text", sliding_window=16, layer_types=layers, **common)
    return AutoConfig.for_model(architecture, **common)
