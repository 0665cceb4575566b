from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lmtasks
from lmtasks import Example, Field, Generate, Metric, Prompt, RunOptions, Task, TrainOptions
from lmtasks.api import show_adapter
from lmtasks.backends import Completion, Continuation, LanguageModel, Request
from lmtasks.backends.native import runner
from lmtasks.backends.native.prepare import engine_copy
from lmtasks.errors import AdapterError, PluginError, UsageError
from lmtasks.models.adapter_files import find_adapter
from lmtasks.prompts import Renderer
from lmtasks.records.adapter import (
    AdapterRecord,
    BaseRecord,
    SettingsRecord,
    TrainedPromptRecord,
    TrainingRecord,
)
from lmtasks.records.parts import DataRecord
from lmtasks.runs.environment import environment
from lmtasks.runs.run_json import task_record
from lmtasks.task import SamplingParams
from lmtasks.testing import save_tiny_model

ATTENTION = {"gpt2": ["c_attn"]}
MLP = {"gpt2": ["c_fc", "c_proj"]}
ON_CPU = RunOptions(device="cpu", dtype="float32")
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "lmtasks.json"
EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": "ferry at nine " * (1 + number % 3) + str(number)}, references=("nine",))
    for number in range(5)
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several would only wait for each other with matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_task(name: str = "echo", **changes) -> Task:
    settings = {
        "name": name,
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field(truncatable=True)},
        "prompts": {"first": Prompt(user="Say $text", answer_prefix="Said:"), "second": "Repeat $text"},
        "datasets": {"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
        "metrics": ("exact_match", "chrf"),
        "output": Generate(max_new_tokens=6),
    }
    return Task(**(settings | changes))


def load(folder: Path) -> LanguageModel:
    return lmtasks.load_model(folder, ON_CPU)


def make_adapter(base: Path, folder: Path, *, seed: int = 1, scale: float = 0.5, **lora) -> Path:
    """Write an adapter of random weights as peft does; a scale of 0 leaves it as it is before training."""
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **lora}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**lora))
        for name, weight in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                weight.data = torch.randn_like(weight) * scale
            elif "lora_magnitude" in name:
                weight.data *= 1 + torch.rand_like(weight)
    model.save_pretrained(folder)
    return folder


def sign(folder: Path, base: LanguageModel, task: Task, **changes) -> Path:
    """Write what lmtasks would have recorded of an adapter's training."""
    renderer = Renderer(task, base.tokenizer)
    data = DataRecord(
        name="demo", split="train", count=1, sha256="0", file_sha256=None, limit=None, columns={}, language=None
    )  # fmt: skip
    record = AdapterRecord(
        made="2026-11-28T00:00:00+00:00",
        weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        task=task_record(task, None),
        prompt=TrainedPromptRecord(
            name=renderer.name, form="chat", sha256=renderer.fingerprint(), chat_template=None
        ),
        base=BaseRecord(**{name: getattr(base.info, name) for name in BaseRecord.model_fields}),
        data=data,
        evaluation=data,
        settings=SettingsRecord(
            **{name: getattr(TrainOptions(alpha=32.0), name) for name in SettingsRecord.model_fields}
        ),
        training=TrainingRecord(
            steps=1, planned_steps=1, best_step=1, validation_loss=None, examples=1, validation_examples=0, skipped=0,
            overlap_removed=0, truncated=0, epochs=1.0, tokens=1, trainable_weights=1, packed=True, processes=1,
            micro_batches=1, seconds=1.0, resumed_at=None, history=(),
        ),
        environment=environment(),
        scores=(),
        output_checks=(),
        verdict="",
    ).to_json()  # fmt: skip
    (folder / RECORD).write_text(json.dumps(record | changes))
    return folder


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LanguageModel:
    """A model that adapters are put on and left on; tests that look at its base load one of their own."""
    return load(tiny_folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An adapter of peft alone."""
    return make_adapter(tiny_folder, tmp_path_factory.mktemp("adapters") / "bare")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Another of peft alone, of another rank and on other layers."""
    folder = tmp_path_factory.mktemp("adapters") / "other"
    return make_adapter(tiny_folder, folder, seed=2, r=2, target_modules=["up_proj", "down_proj"])


@pytest.fixture(scope="module")
def trained_adapter(tmp_path_factory: pytest.TempPathFactory, bare: Path, model: LanguageModel) -> Path:
    """An adapter that lmtasks trained for the task "echo"."""
    folder = tmp_path_factory.mktemp("adapters") / "own"
    shutil.copytree(bare, folder)
    return sign(folder, model, make_task())


@pytest.fixture
def copied(tmp_path: Path, bare: Path) -> Path:
    """An adapter to be spoilt."""
    return Path(shutil.copytree(bare, tmp_path / "spoilt"))


def tokens(model: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer.encode(text, add_special_tokens=False))


def put(model: LanguageModel, folder: Path) -> str:
    adapter = find_adapter(folder)
    model.attach(adapter)
    return adapter.id


def ask(model: LanguageModel, requests: Sequence[Request], **how) -> list[Completion]:
    answers: dict[int, Completion] = {}
    for finished in model.generate(requests, seed=0, **how):
        answers.update(finished)
    return [answers[index] for index in range(len(requests))]


def say(model: LanguageModel, adapter: str | None = None, rows: int = 5, new: int = 8) -> list[str]:
    """Return what a model says to some prompts."""
    asked = [
        Request(str(row), tokens(model, "ferry at nine " * row), SamplingParams(max_new_tokens=new), adapter)
        for row in range(1, rows + 1)
    ]
    return [answer.text for answer in ask(model, asked)]


def one_line(error: pytest.ExceptionInfo, *said: object) -> str:
    text = str(error.value)
    assert "\n" not in text
    for part in said:
        assert str(part) in text
    return text


# Together as alone


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gemma3"])
def test_generate_answers_mixed_adapters_as_each_alone(architecture, tmp_path):
    save_tiny_model(tmp_path / "base", architecture)
    model = load(tmp_path / "base")
    attention = ATTENTION.get(architecture, ["q_proj", "v_proj"])
    mlp = MLP.get(architecture, ["gate_proj", "down_proj"])
    first = make_adapter(tmp_path / "base", tmp_path / "first", target_modules=attention)
    second = make_adapter(tmp_path / "base", tmp_path / "second", seed=2, r=7, lora_alpha=7, target_modules=mlp)
    dora = make_adapter(tmp_path / "base", tmp_path / "dora", seed=3, use_dora=True, target_modules=attention)
    adapters = [None, *(put(model, folder) for folder in (first, second, dora))]

    def requests(stops: Sequence[tuple[str, ...]]) -> list[Request]:
        lengths = (3, 40, 7, 1, 22, 9, 15, 2, 30, 5, 11, 18)
        limits = (4, 14, 9)
        return [
            Request(
                str(index),
                tokens(model, "ferry at nine " * length),
                SamplingParams(max_new_tokens=limits[index % 3], stop=stops[index]),
                adapters[index % 4],
            )
            for index, length in enumerate(lengths)
        ]

    whole = [ask(model, [request])[0] for request in requests([()] * 12)]
    # Every second one gets a stop string of its own that it will meet.
    mixed = requests(
        [(answer.text[2:4],) if index % 2 and answer.text[2:4] else () for index, answer in enumerate(whole)]
    )
    alone = [ask(model, [request])[0] for request in mixed]
    assert {answer.finish_reason for answer in alone} == {"stop", "length"}
    for size in (1, 3, 16, None):
        assert ask(model, mixed, batch_size=size) == alone
    assert len({tuple(say(model, adapter)) for adapter in adapters}) == 4, "adapters that change nothing test nothing"


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_loglikelihood_of_mixed_adapters_is_that_of_each_alone(architecture, tmp_path):
    save_tiny_model(tmp_path / "base", architecture)
    model = load(tmp_path / "base")
    attention = ATTENTION.get(architecture, ["q_proj", "v_proj"])
    kinds = [{}, {"seed": 2, "r": 7}, {"seed": 3, "use_dora": True}]
    folders = [
        make_adapter(tmp_path / "base", tmp_path / str(number), target_modules=attention, **kind)
        for number, kind in enumerate(kinds)
    ]
    adapters = [None, *(put(model, folder) for folder in folders)]
    behind = tokens(model, " at nine, and the last one at six")
    asked = [
        Continuation(tokens(model, "ferry " * (1 + index * 5 % 7)), behind[: 1 + index % 6], adapters[index % 4])
        for index in range(12)
    ]
    alone = [next(iter(model.loglikelihood([item])))[0][1] for item in asked]
    for size in (3, 16):
        together = dict(pair for done in model.loglikelihood(asked, batch_size=size) for pair in done)
        assert [together[index] for index in range(12)] == pytest.approx(alone, abs=1e-4)
    # What they are compared with is peft, without us.
    for folder, index in zip(folders, (1, 2, 3), strict=True):
        bare = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), folder).eval()
        ids = torch.tensor([[*asked[index].token_ids, *asked[index].answer_ids]])
        with torch.no_grad():
            logprobs = bare(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
        assert alone[index] == pytest.approx(float(logprobs[-len(asked[index].answer_ids) :].sum()), abs=1e-4)


def test_loglikelihood_of_adapters_shares_engine_copies(tiny_folder, bare, other, monkeypatch):
    model = load(tiny_folder)
    made: list[object] = []
    monkeypatch.setattr(runner, "engine_copy", lambda *args, **how: made.append(how) or engine_copy(*args, **how))
    adapters = [put(model, bare), put(model, other), None]
    asked = [Continuation(tokens(model, "ferry"), tokens(model, " at nine"), adapter) for adapter in adapters]
    list(model.loglikelihood(asked))
    several = len(made)
    for item in asked:
        list(model.loglikelihood([item]))
    assert len(made) == several


# On a model


def test_attach_leaves_base_and_earlier_adapters_unchanged(tiny_folder, bare, other):
    model = load(tiny_folder)
    before = say(model)
    first = put(model, bare)
    changed = say(model, first)
    second = put(model, other)
    assert say(model) == before != changed == say(model, first) != say(model, second)


def test_attach_reuses_adapter_of_the_same_content(tiny_folder, tmp_path, bare):
    model = load(tiny_folder)
    adapter = find_adapter(bare)
    moved = model.attach(adapter)
    assert moved > 0.01
    said = say(model, adapter.id)
    again = find_adapter(shutil.copytree(bare, tmp_path / "again"))
    assert (again.id, model.attach(again)) == (adapter.id, moved)
    assert say(model, adapter.id) == said


def test_attach_keeps_apart_equal_weights_of_different_alpha(tiny_folder, copied, bare):
    spoil(copied / CONFIG, lora_alpha=80)
    model = load(tiny_folder)
    assert say(model, put(model, bare)) != say(model, put(model, copied))


def test_attach_draws_no_random_numbers(tiny_folder, bare, other):
    model = load(tiny_folder)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    put(model, bare), put(model, other)
    assert torch.equal(torch.rand(3), expected)


def test_run_warns_of_adapter_that_changes_no_output(tmp_path, tiny_folder, caplog):
    idle = make_adapter(tiny_folder, tmp_path / "idle", scale=0)
    assert load(tiny_folder).attach(find_adapter(idle)) == 0
    lmtasks.run(make_task(), ON_CPU, model=tiny_folder, adapter=idle, output_dir=tmp_path)
    assert f"{idle} does not change the output of {tiny_folder}" in caplog.text


# Refused


def refused(model: LanguageModel, folder: Path | str, *said: object) -> None:
    with pytest.raises(AdapterError) as error:
        model.attach(find_adapter(folder))
    one_line(error, *said)


def spoil(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def test_attach_refuses_adapter_of_another_base_by_both_names(tmp_path, trained_adapter):
    save_tiny_model(tmp_path / "gpt", "gpt2")
    refused(load(tmp_path / "gpt"), trained_adapter, "was trained on", "and the model is", "gpt", "its own base alone")


def test_attach_refuses_adapter_of_a_base_with_other_weights(tmp_path, tiny_folder, trained_adapter):
    shutil.copytree(tiny_folder, tmp_path / "moved")
    weights = load_file(tmp_path / "moved" / "model.safetensors")
    weights[next(iter(weights))] += 1
    save_file(weights, tmp_path / "moved" / "model.safetensors", metadata={"format": "pt"})
    refused(load(tmp_path / "moved"), trained_adapter, "was trained on")


def test_attach_refuses_peft_adapter_for_other_layers(tmp_path, bare):
    save_tiny_model(tmp_path / "gpt", "gpt2")
    refused(load(tmp_path / "gpt"), bare, f"does not fit {tmp_path / 'gpt'}")


def without_one(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(weights.items())[1:])


def with_a_stranger(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**weights, "base_model.model.nowhere.lora_A.weight": torch.ones(2, 2)}


def of_another_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("layers.0", "layers.7"): weight for name, weight in weights.items()}


def of_other_shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight[:, :-1].contiguous() for name, weight in weights.items()}


def with_embeddings(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**weights, "base_model.model.model.embed_tokens.weight": torch.ones(256, 16)}


@pytest.mark.parametrize("second", [False, True], ids=["on a bare model", "beside another"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, "1 of its weights are missing, 0 find no place"),
        (with_a_stranger, "0 of its weights are missing, 1 find no place"),
        (of_another_layer, "4 of its weights are missing, 4 find no place"),
        (of_other_shapes, "size mismatch"),
        (with_embeddings, "holds weights beside those of LoRA (first: base_model.model.model.embed_tokens.weight)"),
    ],
)
def test_attach_refuses_weights_that_do_not_fit_and_model_still_works(
    tiny_folder, copied, bare, other, second, change, message
):
    model = load(tiny_folder)
    first = put(model, other) if second else None
    before = say(model), say(model, first)
    change_weights(copied, change)
    for _ in range(2):
        refused(model, copied, message)
        assert (say(model), say(model, first)) == before
    assert say(model, put(model, bare)) not in before
    assert (say(model), say(model, first)) == before


@pytest.mark.parametrize(
    "setting",
    [
        {"bias": "lora_only"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 1], [0, 1]]},
        {"lora_bias": True},
        {"target_parameters": ["weight"]},
        {"alora_invocation_tokens": [1, 2]},
    ],
    ids=str,
)
def test_attach_refuses_settings_that_change_more_than_layers(tiny_folder, copied, setting):
    spoil(copied / CONFIG, **setting)
    model = load(tiny_folder)
    before = say(model)
    refused(model, copied, f"its {next(iter(setting))} is not supported")
    assert say(model) == before


def test_attach_refuses_nan_weights(tiny_folder, copied):
    change_weights(copied, lambda weights: {key: weight * float("nan") for key, weight in weights.items()})
    refused(load(tiny_folder), copied, "computes logits that are NaN or infinite")


def test_attach_refuses_truncated_weights(tiny_folder, copied):
    content = (copied / WEIGHTS).read_bytes()
    (copied / WEIGHTS).write_bytes(content[: len(content) // 2])
    refused(load(tiny_folder), copied, "does not fit")


def test_find_adapter_refuses_weights_that_differ_from_the_record(tmp_path, trained_adapter):
    folder = Path(shutil.copytree(trained_adapter, tmp_path / "exchanged"))
    change_weights(folder, lambda weights: {key: weight * 2 for key, weight in weights.items()})
    with pytest.raises(AdapterError) as error:
        find_adapter(folder)
    one_line(error, folder / WEIGHTS, "damaged, or exchanged")


def no_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def no_json(folder: Path) -> None:
    (folder / CONFIG).write_text('{"peft_type": "LO')


def list_config(folder: Path) -> None:
    (folder / CONFIG).write_text("[1]")


def prefix_tuning(folder: Path) -> None:
    spoil(folder / CONFIG, peft_type="PREFIX_TUNING")


def in_training(folder: Path) -> None:
    no_config(folder)
    (folder / "training").mkdir()


def of_tomorrow(folder: Path) -> None:
    (folder / RECORD).write_text('{"schema": 3}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "echo"}, "task: expected an object, got 'echo'"),
        ({"task": {"name": "echo"}}, "task.version: missing"),
        (
            {"prompt": {"name": 1, "form": "chat", "sha256": "x", "chat_template": None}},
            "prompt.name: expected text, got 1",
        ),
        ({"prompt": None}, "prompt: expected an object, got None"),
        ({"base": {"name": "x", "source": "y"}}, "base.revision: missing"),
        ({"weights_sha256": 7}, "weights_sha256: expected text, got 7"),
        (
            {"prompt": {"name": "p", "form": "chat", "sha256": "x", "chat_template": {"kwargs": {}, "date": "today"}}},
            "prompt.chat_template.date: expected a date such as 2026-01-31 or null, got 'today'",
        ),
    ],
)
def test_find_adapter_refuses_record_of_wrong_types(copied, model, change, message):
    folder = sign(copied, model, make_task())
    (folder / RECORD).write_text(json.dumps(json.loads((folder / RECORD).read_text()) | change))
    with pytest.raises(AdapterError, match=r"lmtasks\.json: damaged") as error:
        find_adapter(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_adapter_record_that_lacks_a_part_is_refused(copied, model):
    folder = sign(copied, model, make_task())
    record = json.loads((folder / RECORD).read_text())
    del record["task"]["plugin"]
    (folder / RECORD).write_text(json.dumps(record))
    for read in (find_adapter, show_adapter):
        with pytest.raises(AdapterError, match=r"lmtasks\.json: damaged \(task\.plugin: missing\)"):
            read(folder)


@pytest.mark.parametrize(
    ("spoiling", "message"),
    [
        (no_config, "it has no adapter_config.json"),
        (no_weights, "pickled weights (.bin) are not read"),
        (no_json, "adapter_config.json: cannot be read"),
        (list_config, "adapter_config.json: damaged, expected an object"),
        (prefix_tuning, "of type PREFIX_TUNING; only LoRA"),
        (in_training, "its training has not finished: resume it with resume=True"),
        (of_tomorrow, "schema 3; this lmtasks reads schema 2"),
        (shutil.rmtree, "no such adapter folder"),
    ],
)
def test_find_adapter_refuses_folder_that_is_no_adapter(copied, spoiling, message):
    spoiling(copied)
    with pytest.raises(AdapterError) as error:
        find_adapter(copied)
    one_line(error, copied, message)


def test_find_adapter_looks_up_hub_ids_in_the_hub_cache(tmp_path, bare, tiny_folder):
    # The layout in which the hub's own library keeps what it fetched; offline is read at its import.
    repository = tmp_path / "hub" / "models--team--dialogue"
    shutil.copytree(bare, repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    code = "import sys; from lmtasks.models.adapter_files import find_adapter; print(find_adapter(sys.argv[1]).sha256)"

    def look_up(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True, text=True)

    assert look_up("team/dialogue").stdout.strip() == find_adapter(bare).sha256
    assert "team/nowhere: there is no such adapter folder, and the hub has" in look_up("team/nowhere").stderr


# For a run


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_run_records_fitting_adapter_without_a_warning(tmp_path, model, trained_adapter, caplog):
    run = lmtasks.run(make_task(), ON_CPU, model=model, adapter=trained_adapter, output_dir=tmp_path)
    assert warnings_of(caplog) == []
    adapter = find_adapter(trained_adapter)
    recorded = {"source": str(trained_adapter), "sha256": adapter.sha256, "task": "echo", "rank": 4, "alpha": 8}
    assert recorded.items() <= run.record.adapter.to_json().items()
    assert run.record.adapter.max_logit_change == model.attach(adapter) > 0
    report = (run.path / "report.md").read_text()
    assert adapter.sha256 in report and "trained for echo, rank 4, alpha 8" in report
    base = lmtasks.run(make_task(), ON_CPU, model=model, output_dir=tmp_path)
    assert base.record.key != run.record.key
    assert [sample.completion for sample in base.samples] != [sample.completion for sample in run.samples]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ({"name": "other"}, {}, 'was trained for task "echo", not for "other"'),
        ({}, {"prompt": "second"}, 'with the prompt "first", and is used with "second": see prompt'),
        ({"prompts": {"first": "Tell $text"}}, {}, 'the prompt "first" of task "echo" is no longer the one'),
    ],
    ids=["task", "prompt", "wording"],
)
def test_run_warns_of_adapter_trained_for_another_task_or_prompt(
    tmp_path, model, trained_adapter, caplog, task, changes, message
):
    run = lmtasks.run(make_task(**task), ON_CPU, model=model, adapter=trained_adapter, output_dir=tmp_path, **changes)
    assert len(warnings_of(caplog)) == 1 and message in warnings_of(caplog)[0]
    assert run.record.adapter.sha256 == find_adapter(trained_adapter).sha256


def test_run_warns_of_adapter_without_a_record(tmp_path, model, bare, caplog):
    lmtasks.run(make_task(), ON_CPU, model=model, adapter=bare, output_dir=tmp_path)
    assert ["does not say which weights and prompt" in message for message in warnings_of(caplog)] == [True]


def test_run_with_recorded_adapter_needs_no_stop_strings(tmp_path, trained_adapter, bare):
    save_tiny_model(tmp_path / "plain", chat=False)
    model = load(tmp_path / "plain")
    # Of the same weights: only the tokenizer has lost its template.
    signed = sign(Path(shutil.copytree(trained_adapter, tmp_path / "own")), model, make_task())
    stops = []
    for adapter in (None, bare, signed):
        run = lmtasks.run(make_task(), ON_CPU, model=model, adapter=adapter, output_dir=tmp_path)
        stops.append(run.record.generation.stop)
    assert stops == [("\n\n",), ("\n\n",), ()]


def test_ask_answers_with_an_adapter(model, trained_adapter, bare, tmp_path):
    without = lmtasks.ask(make_task(), "ferry at nine", ON_CPU, model=model)
    text = lmtasks.ask(make_task(), "ferry at nine", ON_CPU, model=model, adapter=trained_adapter)
    assert text != without
    assert lmtasks.ask(make_task(), "ferry at nine", ON_CPU, model=model) == without


# Several tasks


def completions(run: lmtasks.Run) -> list[str]:
    return [sample.completion for sample in run.samples]


def test_run_all_with_adapters_gives_the_same_results_as_run(tmp_path, model, bare, other):
    long = make_task("long", output=Generate(max_new_tokens=11), prompts={"first": "Now $text"})
    tasks = [(make_task(), bare), (long, other), (make_task("third"), None)]
    together = lmtasks.api.run_all(tasks, replace(ON_CPU, output_dir=tmp_path / "together"), model=model)
    for (task, adapter), run in zip(tasks, together, strict=True):
        alone = lmtasks.run(task, ON_CPU, model=model, adapter=adapter, output_dir=tmp_path / "alone")
        assert run.record.task.name == task.name
        assert (run.record.adapter and run.record.adapter.source) == (str(adapter) if adapter else None)
        assert run.record.key == alone.record.key
        assert run.samples == alone.samples
        assert run.scores == alone.scores


def test_run_all_says_that_dora_runs_alone(tmp_path, tiny_folder, model, bare, caplog):
    dora = make_adapter(tiny_folder, tmp_path / "dora", use_dora=True)
    options = replace(ON_CPU, output_dir=tmp_path)
    lmtasks.api.run_all([(make_task(), bare), (make_task("second"), dora)], options, model=model)
    assert any(f"{dora} runs alone" in message for message in warnings_of(caplog))


def test_run_all_resumes_interrupted_tasks_together(tmp_path, tiny_folder, bare, other, monkeypatch):
    options = replace(ON_CPU, output_dir=tmp_path / "runs", batch_size=4)
    tasks = [(make_task(), bare), (make_task("second"), other)]
    model = load(tiny_folder)
    asked: list[int] = []
    answer = model.generate

    def interrupted(requests, **how):
        for number, done in enumerate(answer(requests, **how)):
            if number == 1:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lmtasks.api.run_all(tasks, options, model=model)
    assert [lmtasks.Run(path).status for path in (tmp_path / "runs").iterdir()] == ["interrupted"] * 2

    def counted(requests, **how):
        asked.append(len(requests))
        return answer(requests, **how)

    monkeypatch.setattr(model, "generate", counted)
    runs = lmtasks.api.run_all(tasks, options, model=model)
    assert asked == [6]
    assert sum(run.record.counts.reused for run in runs) == 4
    assert len(list((tmp_path / "runs").iterdir())) == 2
    whole = lmtasks.api.run_all(tasks, replace(options, output_dir=tmp_path / "whole"), model=model)
    assert [completions(run) for run in runs] == [completions(run) for run in whole]


def test_run_all_keeps_scores_of_other_tasks_when_a_parser_fails(tmp_path, model, bare, other):
    def parse(text: str) -> str:
        raise ValueError("no")

    options = replace(ON_CPU, output_dir=tmp_path, batch_size=16)
    with pytest.raises(PluginError, match='task "second": its parser failed'):
        lmtasks.api.run_all(
            [(make_task(), bare), (make_task("second", output=Generate(max_new_tokens=6, parse=parse)), other)],
            options,
            model=model,
        )
    kept = {run.record.task.name: run for run in map(lmtasks.Run, tmp_path.iterdir())}
    assert {name: run.status for name, run in kept.items()} == {"echo": "finished", "second": "failed"}
    assert [len(kept[name].samples) for name in ("echo", "second")] == [5, 5]
    assert all(sample.error and sample.completion for sample in kept["second"].samples)
    assert all((run.path / "report.md").is_file() for run in kept.values())


def test_run_all_keeps_scores_of_other_tasks_when_a_metric_fails(tmp_path, model, bare):
    class Broken(Metric):
        name = "broken"

        def measure(self, samples, language):
            raise ValueError("no")

    tasks = [(make_task("first", metrics=(Broken(),)), bare), (make_task("second"), None)]
    with pytest.raises(PluginError, match="broken"):
        lmtasks.api.run_all(tasks, replace(ON_CPU, output_dir=tmp_path), model=model)
    status = {run.record.task.name: (run.status, len(run.scores)) for run in map(lmtasks.Run, tmp_path.iterdir())}
    assert status == {"first": ("failed", 0), "second": ("finished", 2)}


def test_compare_adapters_compares_each_with_the_base(tmp_path, model, bare, other):
    options = replace(ON_CPU, output_dir=tmp_path)
    with_bare, with_other = lmtasks.api.compare_adapters(make_task(), [bare, other], options, model=model, trials=50)
    assert with_bare.baseline.path == with_other.baseline.path
    assert with_bare.baseline.record.adapter is None
    assert with_bare.candidate.record.adapter.source == str(bare)
    assert with_other.candidate.record.adapter.source == str(other)
    assert [score.name for score in with_bare.scores] == ["exact_match", "chrF"]
    with pytest.raises(UsageError, match="at least one adapter"):
        lmtasks.api.compare_adapters(make_task(), [], options, model=model)


# Brought by a task


def test_run_uses_adapter_of_the_task_unless_told_otherwise(tmp_path, model, trained_adapter, bare, caplog):
    task = make_task(adapter=str(trained_adapter))

    def source(**changes: object) -> str | None:
        run = lmtasks.run(task, ON_CPU, model=model, output_dir=tmp_path, **changes)
        return run.record.adapter and run.record.adapter.source

    assert source() == str(trained_adapter)
    assert warnings_of(caplog) == []
    assert source(adapter="none") is None
    assert source(adapter=bare) == str(bare)


def test_run_skips_adapter_of_the_task_for_another_base(tmp_path, trained_adapter, caplog):
    save_tiny_model(tmp_path / "gpt", "gpt2")
    task = make_task(adapter=str(trained_adapter))
    run = lmtasks.run(task, ON_CPU, model=tmp_path / "gpt", output_dir=tmp_path / "runs")
    assert run.record.adapter is None
    [message] = warnings_of(caplog)
    assert 'the adapter that task "echo" brings is for' in message and "gpt runs without it" in message


def test_run_refuses_missing_adapter_of_the_task(tmp_path, model):
    task = make_task(adapter=str(tmp_path / "nowhere"))
    with pytest.raises(AdapterError) as error:
        lmtasks.run(task, ON_CPU, model=model, output_dir=tmp_path)
    one_line(error, 'task "echo" brings an adapter', "nowhere", "adapter='none' runs without it")


def test_train_scores_the_base_without_adapter_of_the_task(tmp_path, tiny_folder, trained_adapter):
    rows = [{"id": str(number), "text": f"ferry {number}", "target": "nine"} for number in range(8)]
    for name, part in (("train", rows[:6]), ("test", rows[6:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    done = lmtasks.train(
        make_task(adapter=str(trained_adapter)),
        tmp_path / "adapter",
        model=tiny_folder,
        data=tmp_path / "train.jsonl",
        eval_data=tmp_path / "test.jsonl",
        output_dir=tmp_path / "runs",
        max_steps=1,
        device="cpu",
        dtype="float32",
    )
    assert done.before.record.adapter is None
    assert done.after.record.adapter.sha256 == find_adapter(done.path).sha256


# Merged


@pytest.mark.parametrize(
    "kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["LoRA", "rank-stabilized", "DoRA"]
)
def test_merged_model_answers_as_base_with_adapter(tmp_path, tiny_folder, kind):
    folder = make_adapter(tiny_folder, tmp_path / "adapter", **kind)
    model = load(tiny_folder)
    adapted = say(model, put(model, folder))
    path = lmtasks.api.merge_adapter(folder, tmp_path / "merged", model=tiny_folder)
    assert adapted == say(load(path)) != say(model)
    # With transformers alone, of which nothing of peft is left.
    bare = AutoModelForCausalLM.from_pretrained(path)
    assert not any("lora" in name for name in bare.state_dict())
    ids = torch.tensor([tokens(model, "ferry at nine ")])
    with torch.no_grad():
        output = bare.generate(ids, max_new_tokens=8, do_sample=False)
    text = AutoTokenizer.from_pretrained(path).decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert text == adapted[0]
    assert {entry.name for entry in tmp_path.iterdir()} == {"adapter", "merged"}


def test_merge_adapter_finds_the_base_in_the_record(tmp_path, trained_adapter, tiny_folder):
    record = json.loads((trained_adapter / RECORD).read_text())
    folder = Path(shutil.copytree(trained_adapter, tmp_path / "own"))
    spoil(folder / RECORD, base={**record["base"], "name": str(tiny_folder)})
    path = lmtasks.api.merge_adapter(folder, tmp_path / "merged")
    assert (path / "model.safetensors").is_file()


def test_merge_adapter_refuses_one_side_of_tied_embeddings(tmp_path, tiny_folder):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tied"))
    spoil(folder / "config.json", tie_word_embeddings=True)
    adapter = make_adapter(folder, tmp_path / "adapter", target_modules=["lm_head", "q_proj"])
    with pytest.raises(AdapterError, match="cannot be merged"):
        lmtasks.api.merge_adapter(adapter, tmp_path / "merged", model=folder)


def test_merge_adapter_leaves_nothing_when_it_refuses(tmp_path, trained_adapter, bare, tiny_folder, monkeypatch):
    merge = lmtasks.api.merge_adapter
    target = tmp_path / "merged"
    save_tiny_model(tmp_path / "gpt", "gpt2")
    with pytest.raises(AdapterError) as error:
        merge(trained_adapter, target, model=tmp_path / "gpt")
    one_line(error, "its own base alone")
    with pytest.raises(AdapterError) as error:
        merge(bare, target)
    one_line(error, "does not say which model it belongs to; name it with model")
    with pytest.raises(UsageError) as error:
        merge(trained_adapter, target, trust_remote_code=True)
    one_line(error, "the adapter's file does not decide whose code may run; name the model with model")
    with pytest.raises(AdapterError) as error:
        merge(bare, tmp_path / "gpt", model=tiny_folder)
    one_line(error, "gpt: is there already; name another folder")
    with monkeypatch.context() as full:
        full.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(AdapterError) as error:
            merge(bare, target, model=tiny_folder)
    one_line(error, target, "No space left on device")
    assert [entry.name for entry in tmp_path.iterdir()] == ["gpt"]
    target.mkdir()
    assert merge(bare, target, model=tiny_folder) == target
