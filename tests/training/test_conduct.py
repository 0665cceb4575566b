"""The finished adapter: record, model card, runs."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from peft import PeftModel
from training_setup import FINISHED, ON_CPU, WEIGHTS, make_task, rows, validations, write
from transformers import AutoModelForCausalLM, AutoTokenizer

import lmtasks
from lmtasks import Example
from lmtasks.models.loading import load
from lmtasks.options import TrainOptions
from lmtasks.prompts import Renderer
from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.reading import validate
from lmtasks.training import plan_training


def test_the_record_says_what_was_learned_on_what_and_with_which_result(whole, tiny_folder, data):
    record = json.loads((whole.path / "lmtasks.json").read_text())
    assert validate(AdapterRecord, record) == whole.record
    assert record["weights_sha256"] == hashlib.sha256((whole.path / WEIGHTS).read_bytes()).hexdigest()
    loaded = load(str(tiny_folder), trust_remote_code=False, on_progress=lambda *_: None, **ON_CPU)
    assert record["base"]["revision"] == loaded.info.revision
    renderer = Renderer(make_task(), loaded.tokenizer)
    assert record["prompt"] == {
        "name": "plain",
        "form": "chat",
        "sha256": renderer.fingerprint(),
        "chat_template": {"kwargs": {}, "date": None},
    }
    plan = plan_training(make_task(), None, TrainOptions(**data, validation=4))
    for name, part in (("data", plan.data), ("evaluation", plan.evaluation)):
        assert record[name]["sha256"] == part.sha256
        file = data["data" if name == "data" else "eval_data"]
        assert record[name]["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record["task"]["name"], record["task"]["version"]) == ("first", 3)
    assert (record["training"]["examples"], record["training"]["validation_examples"]) == (20, 4)
    losses = dict(validations(whole.record))
    assert list(losses) == list(range(0, 21, 2))
    assert losses[record["training"]["best_step"]] == min(losses.values()) < losses[0]


def test_the_record_has_the_scores_of_the_runs_before_and_after(whole):
    record = whole.record
    assert (record.before, record.after) == (whole.before.path.name, whole.after.path.name)
    assert [score.name for score in record.scores] == ["exact_match", "chrF"]
    for score, before, after in zip(record.scores, whole.before.scores, whole.after.scores, strict=True):
        assert (score.baseline, score.candidate) == (pytest.approx(before.value), pytest.approx(after.value))
    assert record.scores[1].baseline != record.scores[1].candidate
    assert record.verdict
    assert whole.before.record.adapter is None
    assert whole.after.record.adapter.sha256 == record.weights_sha256
    assert whole.after.record.training == record


def test_the_readme_is_a_model_card_with_the_scores(whole):
    from huggingface_hub import ModelCard

    card = ModelCard((whole.path / "README.md").read_text())
    assert card.data.library_name == "peft"
    assert card.data.base_model == whole.record.base.name
    told = {(result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert told == {(score.name, round(score.candidate, 4)) for score in whole.record.scores}
    assert {result.dataset_name for result in card.data.eval_results} == {"test.jsonl"}
    for score in whole.record.scores:
        assert f"| {score.name} | {score.baseline:.2f} | {score.candidate:.2f} |" in card.text
    assert whole.record.verdict in card.text


def test_bare_peft_writes_what_lmtasks_wrote_with_the_adapter(whole, tiny_folder, data):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, whole.path).eval()
    renderer = Renderer(make_task(), tokenizer)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    for sample in whole.after.samples:
        prompt = list(renderer.render(Example(id=sample.id, inputs=sample.inputs)).token_ids)
        with torch.no_grad():
            output = model.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, eos_token_id=ends)
        assert tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True) == sample.completion
    completions = [[sample.completion for sample in run.samples] for run in (whole.before, whole.after)]
    assert completions[0] != completions[1]


def test_a_later_run_with_the_adapter_writes_the_same(tmp_path, whole, tiny_folder, data):
    run = lmtasks.run(
        make_task(), model=tiny_folder, data=data["eval_data"], adapter=whole.path, output_dir=tmp_path, **ON_CPU
    )  # fmt: skip
    assert [sample.completion for sample in run.samples] == [sample.completion for sample in whole.after.samples]


def test_without_references_to_score_there_is_an_adapter_and_nothing_to_compare(tmp_path, tiny_folder, data):
    bare = [{"id": row["id"], "text": row["text"]} for row in rows(2, 200)]
    files = {**data, "eval_data": write(tmp_path / "bare.jsonl", bare), "output_dir": tmp_path / "runs"}
    done = lmtasks.train(make_task(), tmp_path / "adapter", model=tiny_folder, max_steps=1, **files, **ON_CPU)
    assert done.comparison is None
    assert done.record.scores == ()
    assert "no references" in (done.path / "README.md").read_text()
    assert {path.name for path in done.path.iterdir()} == FINISHED
