"""Private interfaces of transformers, sacrebleu and evaluate: still there, and working as compat uses them."""

from __future__ import annotations

import ast
import copy
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import evaluate
import pytest
import torch
from datasets import Features
from sacrebleu.metrics import BLEU, CHRF, TER
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, modeling_gguf_pytorch_utils, trainer_callback
from transformers.utils.hub import cached_files

import lmtasks
from lmtasks.compat import architectures, scores, trainer
from lmtasks.training.common.contexts import environment_variables

REMEDY = "{} is gone or has changed: adapt lmtasks/compat/{}.py to what replaces it; {}"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_save_optimizer_and_scheduler", ["self", "output_dir"]),
        ("_save_rng_state", ["self", "output_dir"]),
        ("_prepare_inputs", ["self", "inputs"]),
        ("_get_train_sampler", ["self", "train_dataset"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
    ],
)
def test_trainer_still_has_its_private_methods(method, parameters):
    way_out = "without it checkpoints are not written by lmtasks, or batches lose their order"
    assert hasattr(Trainer, method), REMEDY.format(f"Trainer.{method}", "trainer", way_out)
    signature = list(inspect.signature(getattr(Trainer, method)).parameters)
    assert signature == parameters, REMEDY.format(f"Trainer.{method}", "trainer", way_out)


@pytest.mark.parametrize("name", ["_get_train_sampler", "_save_checkpoint"])
def test_trainer_still_calls_the_methods_that_are_overridden(name):
    way_out = "else Trainer shuffles the data, or writes checkpoints in place"
    source = inspect.getsource(Trainer)
    assert f"self.{name}" in source, REMEDY.format(f"The call of Trainer.{name}", "trainer", way_out)


def test_trainer_callback_still_has_exportable_state():
    way_out = "without it the patience of early stopping does not survive a resume"
    assert hasattr(trainer_callback, "ExportableState"), REMEDY.format("ExportableState", "trainer", way_out)
    assert hasattr(trainer_callback.TrainerControl(), "state"), REMEDY.format(
        "TrainerControl.state", "trainer", way_out
    )


def test_training_arguments_still_count_gpus_in_n_gpu(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    remedy = REMEDY.format("TrainingArguments._n_gpu", "trainer", "several GPUs would tear packed batches apart")
    arguments._n_gpu = 4
    assert arguments.n_gpu == 4, remedy
    trainer.use_one_gpu(arguments)
    assert arguments.n_gpu == 1, remedy


def test_pretrained_model_still_says_what_its_architecture_supports():
    way_out = "architectures that cannot be packed would only be caught by the probe"
    for name in ("_is_stateful", "_supports_attention_backend"):
        assert hasattr(PreTrainedModel, name), (
            f"PreTrainedModel.{name} is gone: adapt lmtasks/kernels/torch_private.py to what replaces it; {way_out}"
        )


def test_gguf_reader_still_has_its_own_progress_bar():
    way_out = "if it obeys transformers' switch now, remove `no_gguf_progress_bar`"
    assert hasattr(modeling_gguf_pytorch_utils, "tqdm"), REMEDY.format("tqdm of GGUF files", "architectures", way_out)
    before = modeling_gguf_pytorch_utils.tqdm
    with architectures.no_gguf_progress_bar():
        assert modeling_gguf_pytorch_utils.tqdm([1]) == [1]
    assert modeling_gguf_pytorch_utils.tqdm is before


def test_set_parameter_leaves_the_original_module_as_it_is():
    layer = nn.Linear(2, 2)
    weight, shallow = layer.weight, copy.copy(layer)
    architectures.set_parameter(shallow, "weight", nn.Parameter(torch.zeros(2, 2)))
    assert layer.weight is weight
    assert not shallow.weight.any()
    assert not shallow(torch.ones(1, 2)).allclose(layer(torch.ones(1, 2)))


@pytest.mark.parametrize("metric", [BLEU(), CHRF(), TER()], ids=["BLEU", "chrF", "TER"])
def test_sacrebleu_statistics_add_up_to_the_corpus_score(metric):
    outputs, references = ["a b c d e", "f g h i"], [["a b c d x", "f g h i"]]
    way_out = "intervals and paired tests need statistics of each segment"
    statistics = scores.corpus_statistics(metric, outputs, references)
    assert len(statistics) == 2, REMEDY.format("_extract_corpus_statistics", "scores", way_out)
    sums = [sum(column) for column in zip(*statistics, strict=True)]
    score = scores.score_from_statistics(metric, sums)
    assert score == metric.corpus_score(outputs, references).score, REMEDY.format(
        "_compute_score_from_stats", "scores", way_out
    )


def test_evaluate_modules_still_carry_a_hash():
    class Module(evaluate.Metric):
        def _info(self):
            return evaluate.MetricInfo(description="", citation="", features=Features({}))

    way_out = "signatures of `evaluate:...` scores would not name the module's code"
    assert scores.module_hash(Module(hash="0123abcd")) == "0123abcd", REMEDY.format("_hash", "scores", way_out)


@pytest.mark.parametrize("kind", ["gated_repo", "missing_entries", "connection_errors"])
def test_cached_file_still_has_keywords_that_make_it_return_none(kind):
    name = f"_raise_exceptions_for_{kind}"
    way_out = "until then it may catch OSError and return None"
    assert name in inspect.signature(cached_files).parameters, REMEDY.format(name, "architectures", way_out)


def test_hub_file_is_none_where_the_hub_is_not_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert architectures.hub_file("lmtasks-test/no-such-model", "config.json", None) is None


@pytest.mark.parametrize("before", [None, "no"])
def test_environment_variables_are_restored(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    else:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", before)
    with pytest.raises(RuntimeError), environment_variables(ACCELERATE_MIXED_PRECISION="bf16"):
        assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
        raise RuntimeError
    assert os.environ.get("ACCELERATE_MIXED_PRECISION") == before


def private_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield attributes and keywords with a leading underscore of objects other than `self`, and such imports."""
    ours = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in ours:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            yield node.value.lineno, f"{node.arg}="
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names if is_private(name.name))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_private_interfaces_are_used_in_compat_alone():
    core = Path(lmtasks.__file__).parent
    allowed = {core / "kernels" / "torch_private.py", *(core / "compat").glob("*.py")}
    uses = [
        f"{path.relative_to(core)}:{line}: {use}: give it a function in lmtasks/compat, and a test here"
        for path in sorted({*core.rglob("*.py")} - allowed)
        for line, use in private_uses(ast.parse(path.read_text("utf-8")))
    ]
    assert not uses, "\n".join(uses)
