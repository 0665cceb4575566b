"""For authors of tasks and models: a scripted model, tiny real ones, and a check of everything a task promises."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lmtasks.api import load_model
from lmtasks.data import DataRequest, Dataset, load_dataset
from lmtasks.data.load import TAUGHT, NoSplitError
from lmtasks.errors import PluginError
from lmtasks.inference import Completion, Continuation, LanguageModel, OnText, Request, Rounding
from lmtasks.metrics import find_metrics, score_samples
from lmtasks.model.adapter import Adapter
from lmtasks.model.info import ModelInfo
from lmtasks.plugins import Registry
from lmtasks.prompts import Renderer, Tokenizer
from lmtasks.runs import RunOptions
from lmtasks.runs.runner import parse_completion
from lmtasks.task import Example, Sample, Task

Architecture = Literal["llama", "gpt2", "gpt_neox", "qwen3", "gemma3"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRANGE_TEXTS = ("", " \n", "。", "\ufffd\u200b", "word " * 2000, '{"a": [', "<|im_end|>", "答案：没有", "🙂" * 50)
"""What a model may write; a parser must survive it."""


class CharacterTokenizer:
    """A tokenizer whose ids are code points: what a prompt holds can be read back from its ids."""

    def __init__(self, chat_template: str | None = None) -> None:
        """Take a chat template, or none for a base model's plain form."""
        self.chat_template: str | Mapping[str, str] | None = chat_template

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """None."""
        return {}

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> object:
        """Return the conversation by the template."""
        import jinja2

        template = jinja2.Template(str(self.chat_template))
        return template.render(messages=conversation, add_generation_prompt=add_generation_prompt)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return code points."""
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of code points."""
        return "".join(map(chr, token_ids))


class FakeModel:
    """A model that answers as it is told, and keeps what it was asked.

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
        """Take answers in the order of the prompts, or a function from prompt to answer."""
        self._answers = answers
        self.prompts: list[str] = []
        self.tokenizer: Tokenizer = CharacterTokenizer(CHAT_TEMPLATE if chat else None)
        self.engine = "scripted"
        self.rounding: Rounding | None = None
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
        """Take any adapter; it changes nothing that was scripted."""
        return 1.0

    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        batch_size: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer one prompt after the other; stop strings end an answer, the number of new tokens does not."""
        for place, request in enumerate(requests):
            prompt = self.tokenizer.decode(list(request.token_ids))
            answer = self._answers(prompt) if callable(self._answers) else self._answers[len(self.prompts)]
            self.prompts.append(prompt)
            ends = [at for at in (answer.find(stop) for stop in request.generation.stop) if at >= 0]
            text = answer[: min(ends, default=len(answer))]
            if on_text:
                for length in range(1, len(text) + 1):
                    on_text(text[:length])
            yield [(place, Completion(text, len(text), "stop"))]

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Find every token as likely as heads in the toss of a coin."""
        for place, continuation in enumerate(continuations):
            yield [(place, -math.log(2) * len(continuation.answer_ids))]


def tiny_model(architecture: Architecture = "llama", *, chat: bool = True) -> LanguageModel:
    """Return a real model of a few thousand random weights, loaded as any other. Needs torch."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_model(Path(folder), architecture, chat=chat)
        return load_model(folder, RunOptions(device="cpu", dtype="float32"))


def save_tiny_model(folder: Path, architecture: Architecture = "llama", *, chat: bool = True) -> None:
    """Write a model of random weights (the same every time) and its tokenizer as a folder in transformers format.

    Args:
        folder: is made if it is not there.
        architecture: which family the model is of.
        chat: whether the tokenizer has a chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from lmtasks.model.quiet import quiet

    tokenizer = _tiny_tokenizer(chat=chat)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(_tiny_config(architecture, tokenizer))
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_task(task: Task) -> None:
    """Check everything that a task promises; one line in a plugin's tests.

    Raises:
        AssertionError: data changes between two readings, a prompt fails or depends on the answer, the parser
            fails, or right answers score below empty ones; names what and where.
        LmtasksError: a data set cannot be read, or a metric does not exist.
    """
    metrics = find_metrics(task.metrics, Registry().metric)
    for text in STRANGE_TEXTS:
        try:
            parse_completion(task, text, f"{text[:20]!r}")
        except PluginError as error:
            raise AssertionError(str(error)) from error
    for name in task.datasets:
        for dataset in _splits(task, name):
            where = f'data set "{name}", split "{dataset.split}"'
            again = load_dataset(task, DataRequest(data=name, split=dataset.split))
            _require(dataset.sha256 == again.sha256, task, f"{where}: two readings differ")
            for prompt in task.prompts:
                for template in (None, CHAT_TEMPLATE):
                    renderer = Renderer(task, CharacterTokenizer(template), prompt=prompt)
                    for example in dataset.examples:
                        rendered = renderer.render(example)
                        other = replace(example, references=("another answer",), target=None)
                        told = renderer.render(other).token_ids != rendered.token_ids
                        _require(not told, task, f'{where}: prompt "{prompt}" of "{example.id}" tells the answer')
            gold = [_sample(task, example) for example in dataset.examples]
            empty = [replace(sample, prediction="") for sample in gold]
            for good, bad in zip(
                score_samples(gold, metrics, resamples=0), score_samples(empty, metrics, resamples=0), strict=True
            ):
                sign = {True: 1, False: -1, None: 0}[good.higher_is_better]
                worse = sign * good.value < sign * bad.value
                _require(not worse, task, f"{where}: {good.name} of right answers is worse than that of empty ones")


def _splits(task: Task, name: str) -> Iterator[Dataset]:
    scored = load_dataset(task, DataRequest(data=name))
    yield scored
    for split in TAUGHT:
        if split != scored.split:
            try:
                yield load_dataset(task, DataRequest(data=name, split=split))
            except NoSplitError:
                continue


def _sample(task: Task, example: Example) -> Sample:
    return Sample(
        index=0,
        id=example.id,
        inputs=example.inputs,
        references=example.references,
        language=example.language or task.language,
        meta=example.meta,
        prediction=task.parse(example.answer or ""),
    )


def _require(condition: bool, task: Task, complaint: str) -> None:
    if not condition:
        raise AssertionError(f'task "{task.name}": {complaint}')


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

    # Weights far from zero, so that the likeliest token is likelier by more than rounding.
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
