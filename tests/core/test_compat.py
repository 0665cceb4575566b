"""Private interfaces of transformers, sacrebleu and evaluate: still there, and working as compat uses them."""

from __future__ import annotations

import copy
import inspect
import os

import evaluate
import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF, TER
from torch import nn
from transformers import PreTrainedModel, Trainer, modeling_gguf_pytorch_utils, trainer_callback

from lmtasks.compat import architectures, scores
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


def test_trainer_callback_still_has_exportable_state():
    way_out = "without it the patience of early stopping does not survive a resume"
    assert hasattr(trainer_callback, "ExportableState"), REMEDY.format("ExportableState", "trainer", way_out)
    assert hasattr(trainer_callback.TrainerControl(), "state"), REMEDY.format(
        "TrainerControl.state", "trainer", way_out
    )


def test_training_arguments_still_count_gpus_in_n_gpu():
    source = inspect.getsource(__import__("transformers").TrainingArguments)
    way_out = "several GPUs would tear packed batches apart"
    assert "self._n_gpu" in source, REMEDY.format("TrainingArguments._n_gpu", "trainer", way_out)


def test_pretrained_model_still_says_whether_it_is_stateful_and_takes_attention_functions():
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
    way_out = "signatures of `evaluate:...` scores would not name the module's code"
    assert "_hash" in inspect.getsource(evaluate.EvaluationModule), REMEDY.format("_hash", "scores", way_out)


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
