from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts a command that trains

WORDS = ["ferry", "harbour", "nine", "last", "six", "returns", "leaves", "one", "at", "the"]
PAIRED = ("--device", "cpu", "--dtype", "float32", "--max-new-tokens", "4", "--dropout", "0")


@pytest.fixture
def work(tmp_path: Path, tiny_folder: Path) -> Path:
    """A folder with data of its own, from which commands are started."""
    for name, start, count in (("train", 0, 24), ("test", 100, 6)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for number in range(start, start + count):
                text = [WORDS[(number * 7 + index * 3 + index * number) % len(WORDS)] for index in range(12)]
                row = {"id": f"{name}{number}", "document": f"{number} {' '.join(text)}", "summary": " ".join(text[:2])}
                file.write(json.dumps(row) + "\n")
    return tmp_path


# A process group of its own machine: nothing must be looked up in a network.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def lmtasks(work: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "lmtasks", *map(str, arguments)]
    return subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def training(tiny: Path, output: str, *more: object) -> tuple[object, ...]:
    data = ("--data", "train.jsonl", "--eval-data", "test.jsonl", "--model", tiny)
    return ("train", "summarization", *data, *PAIRED, "-o", output, *more)


def train(work: Path, tiny: Path, output: str, *more: object, **how: tuple[str, ...]) -> str:
    done = lmtasks(work, *training(tiny, output, *more), **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trust_remote_code: true", "--trust-remote-code"),
        ("metrics: evaluate:gift/m", "--metrics evaluate:gift/m"),
        ("metrics: [rouge, evaluate:gift/m]", "--metrics rouge,evaluate:gift/m"),
    ],
)
def test_settings_file_cannot_ask_for_code_to_be_run(work, tiny_folder, setting, message):
    (work / "settings.yaml").write_text(f"rank: 2\n{setting}\n")
    done = lmtasks(work, *training(tiny_folder, "adapter", "--config", "settings.yaml", "--plan"))
    [line] = done.stderr.splitlines()
    assert done.returncode in (1, 2)
    assert "settings.yaml: " in line and message in line


def test_train_flags_allow_what_a_settings_file_cannot(work, tiny_folder):
    (work / "settings.yaml").write_text("trust_remote_code: true\nmetrics: evaluate:gift/m\n")
    flags = ("--trust-remote-code", "--metrics", "chrf", "--config", "settings.yaml", "--plan")
    assert lmtasks(work, *training(tiny_folder, "adapter", *flags)).returncode == 0


def record(work: Path, output: str) -> dict[str, object]:
    return json.loads((work / output / "lmtasks.json").read_text())


def losses(work: Path, output: str) -> list[float]:
    history = record(work, output)["training"]["history"]
    return [entry[name] for entry in history for name in ("loss", "eval_loss") if name in entry]


def test_train_prints_scores_and_writes_adapter_and_two_runs(work, tiny_folder):
    said = train(work, tiny_folder, "adapter", "--max-steps", "2")
    assert said.startswith("summarization on ")
    for word in ("base", "adapter - base", "rouge1", "chrF", "Verdict: ", "adapter: adapter", "report: runs/"):
        assert word in said
    assert {path.name for path in (work / "adapter").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "learning-curve.svg", "lmtasks.json"
    }  # fmt: skip
    before, after = sorted((work / "runs").iterdir())
    report = (after / "report.md").read_text()
    for part in ("## Before and after fine-tuning", "## Fine-tuning", "(learning-curve.svg)", "rank 16"):
        assert part in report
    assert "Fine-tuning" not in (before / "report.md").read_text()
    picture = (after / "learning-curve.svg").read_text()
    assert "<svg" in picture and "loss, nats per token of the answer" in picture


def test_train_plan_is_printed_and_writes_nothing(work, tiny_folder):
    data = ("--data", "train.jsonl", "--eval-data", "test.jsonl", "--model", tiny_folder)
    done = lmtasks(work, "train", "summarization", *data, "--plan")
    assert done.returncode == 0, done.stderr
    for said in ("23 examples of train.jsonl", "1 example held out", "6 examples of test.jsonl", "24,576", "steps"):
        assert said in done.stdout
    assert {path.name for path in work.iterdir()} == {"train.jsonl", "test.jsonl"}
    plan = json.loads(lmtasks(work, "train", "summarization", *data, "--plan", "--json").stdout)
    assert (plan["examples"], plan["steps"], plan["trainable_weights"]) == (23, 3, 24_576)


def test_train_flags_win_over_the_settings_file(work, tiny_folder):
    (work / "settings.yaml").write_text(
        "rank: 2\nlearning_rate: 3e-4\nvalidation: 4\ntarget_modules: [q_proj, v_proj]\n"
    )
    train(work, tiny_folder, "adapter", "--config", "settings.yaml", "--max-steps", "1", "--validation", "0")
    settings = record(work, "adapter")["settings"]
    assert settings["rank"] == 2
    assert settings["learning_rate"] == 3e-4
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    assert settings["validation"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rat: 1", "Did you mean learning_rate"),
        ("rank: many", "rank must be a whole number"),
        ("dora: 1", "dora must be true or false"),
        ("- rank", "expected lines such as"),
        ("rank: [", "not YAML"),
        ("max_steps: 3\nepochs: 1", "exclude each other"),
    ],
)
def test_settings_file_with_wrong_setting_is_refused_by_name(work, content, message):
    (work / "settings.yaml").write_text(content)
    done = lmtasks(work, "train", "summarization", "-o", "adapter", "--config", "settings.yaml")
    assert done.returncode == 2
    assert message in done.stderr and "settings.yaml" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (work / "adapter").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "-o ADAPTER is missing"),
        (("-o", "train.jsonl"), 1, "train.jsonl: a file"),
        (("-o", "new", "--resume"), 1, "new: nothing to resume"),
        (
            ("-o", "new", "--data", "train.jsonl", "--eval-data", "train.jsonl"),
            1,
            "24 examples are in the evaluation data train.jsonl too",
        ),
        (("-o", "new", "--data", "nowhere.jsonl"), 1, "nowhere.jsonl: no such data file"),
        (("-o", "new", "--prompt", "plane"), 2, "Did you mean plain?"),
        (("-o", "new", "--epochs", "-1"), 2, "epochs must be a number of more than 0"),
        (("-o", "new", "--config", "nowhere.yaml"), 2, "nowhere.yaml: cannot be read"),
    ],
)
def test_train_refuses_wrong_arguments(work, arguments, code, message):
    done = lmtasks(work, "train", "summarization", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert not (work / "new" / "lmtasks.json").exists()


def test_train_in_two_processes_reaches_the_losses_of_one(work, tiny_folder):
    settings = ("--max-steps", "40", "--learning-rate", "2e-3", "--validation", "4", "--batch-size", "6")
    train(work, tiny_folder, "one", *settings)
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = train(work, tiny_folder, "two", *settings, launcher=two)
    assert said.count("Verdict") == 1
    assert losses(work, "two") == pytest.approx(losses(work, "one"), abs=1e-3)
    assert record(work, "two")["training"]["processes"] == 2
    assert len(list((work / "runs").iterdir())) == 4

    # Killed in the middle, they go on to the same weights.
    command = [sys.executable, *two, "-m", "lmtasks", *map(str, training(tiny_folder, "killed", *settings))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=work, env=ENVIRONMENT, start_new_session=True, **quiet)
    while not (work / "killed/training/checkpoint-8").exists():
        assert process.poll() is None
        time.sleep(0.005)
    # The two are in a session of their own: they would outlive the one that started them.
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    for pid in (process.pid, *children):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    train(work, tiny_folder, "killed", *settings, "--resume", launcher=two)
    assert record(work, "killed")["training"]["resumed_at"] in range(8, 40)
    weights = [(work / name / "adapter_model.safetensors").read_bytes() for name in ("two", "killed")]
    assert weights[0] == weights[1]
