"""GGUF files that are truncated, or whose headers state what cannot be."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import Request
from lmtasks.errors import ModelError
from lmtasks.models import store
from lmtasks.task import SamplingParams

ON_CPU = RunOptions(device="cpu", dtype="float32")
HIDDEN, FEED_FORWARD, LAYERS = 64, 96, 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of two layers with random weights."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path / "home"))


def write(
    file: Path, *, layers: int = LAYERS, embedding: int = HIDDEN, between: int = FEED_FORWARD, tied: bool = False
) -> None:
    tokens = ["<|endoftext|>", *gguf_bytes()]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(embedding)
    writer.add_feed_forward_length(between)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["f e", "fe r"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (len(tokens), HIDDEN), "output_norm": (HIDDEN,), "output": (len(tokens), HIDDEN)}
    if tied:
        del shapes["output"]
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_q": (HIDDEN, HIDDEN),
                "attn_k": (HIDDEN // 2, HIDDEN),
                "attn_v": (HIDDEN // 2, HIDDEN),
                "attn_output": (HIDDEN, HIDDEN),
                "ffn_gate": (FEED_FORWARD, HIDDEN),
                "ffn_up": (FEED_FORWARD, HIDDEN),
                "ffn_down": (HIDDEN, FEED_FORWARD),
                "attn_norm": (HIDDEN,),
                "ffn_norm": (HIDDEN,),
            }.items()
        }
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_bytes() -> list[str]:
    """Return the letters that byte-level tokenizers write bytes with, and two merged tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + number) for number in range(len(others))), "fe", "fer"]


def refused(file: Path, *said: str) -> None:
    with pytest.raises(ModelError) as error:
        lmtasks.load_model(file, ON_CPU)
    for part in (file.name, *said):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in (store.home() / "models").glob("*") if path.suffix != ".lock"]


@pytest.mark.parametrize("tied", [False, True])
def test_gguf_file_is_converted_and_answers(tmp_path, tied):
    write(tmp_path / "tiny.gguf", tied=tied)
    model = lmtasks.load_model(tmp_path / "tiny.gguf", ON_CPU)
    ids = tuple(model.tokenizer.encode("ferry", add_special_tokens=False))
    [[(_, answer)]] = model.generate([Request("a", ids, SamplingParams(max_new_tokens=3))], seed=0)
    assert answer.tokens == 3 or answer.finish_reason == "stop"


def test_gguf_file_is_refused_wherever_it_is_truncated(tmp_path, whole):
    for length in (5, 9, 23, 24, 40, 200, 2000, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        refused(tmp_path / "cut.gguf", "damaged", "ends at byte")


def test_gguf_file_that_is_empty_is_refused(tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    refused(tmp_path / "empty.gguf", "no GGUF file")


def header(*parts: bytes, tensors: int = 0, pairs: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + b"".join(parts) + bytes(64)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def array(kind: int, count: int, *items: bytes) -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + b"".join(items)


LIES: dict[str, bytes] = {
    "tensors": header(tensors=10**18, pairs=0),
    "pairs": header(pairs=10**18),
    "length of a name": header(struct.pack("<Q", 2**63)),
    "items of numbers": header(text("a") + array(4, 10**18)),
    "items of many numbers": header(text("a") + array(0, 2**40)),
    "items of strings": header(text("a") + array(8, 10**18)),
    "arrays of arrays": header(text("a") + array(9, 1, *[struct.pack("<IQ", 9, 1)] * 2000)),
    "type": header(text("a") + struct.pack("<I", 77)),
    "layers": header(text("llama.block_count") + struct.pack("<IQ", 10, 10**12)),
    "version": b"GGUF" + struct.pack("<IQQ", 9, 0, 0) + bytes(64),
    "dimensions": header(text("w") + struct.pack("<I", 2**31), tensors=1, pairs=0),
    "size of a tensor": header(text("w") + struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0), tensors=1, pairs=0),
    "type of a tensor": header(text("w") + struct.pack("<IQIQ", 1, 4, 999, 0), tensors=1, pairs=0),
    "offset of a tensor": header(text("w") + struct.pack("<IQIQ", 1, 4, 0, 2**62), tensors=1, pairs=0),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_gguf_header_with_impossible_values_is_refused(tmp_path, content):
    (tmp_path / "lies.gguf").write_bytes(content)
    refused(tmp_path / "lies.gguf", "damaged")


@pytest.mark.parametrize(
    "change",
    [{"layers": 3}, {"layers": 10**9}, {"embedding": 2**20}, {"between": 2**32 - 1}],
    ids=str,
)
def test_gguf_model_larger_than_its_weights_is_refused(tmp_path, change):
    write(tmp_path / "large.gguf", **change)
    refused(tmp_path / "large.gguf")


@pytest.mark.parametrize("damage", [b"\xff", b"\0"])
def test_gguf_file_with_wrong_bytes_loads_or_fails_in_one_line(tmp_path, whole, damage):
    for offset in range(24, 400, 97):
        (tmp_path / "wrong.gguf").write_bytes(whole[:offset] + damage * 3 + whole[offset + 3 :])
        try:
            lmtasks.load_model(tmp_path / "wrong.gguf", ON_CPU)
        except ModelError as error:
            assert "\n" not in str(error)
