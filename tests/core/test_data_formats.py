"""Files as they come: compressed, in other encodings, JSON that is no JSONL, files that cannot be read."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import socket
from pathlib import Path

import pyarrow
import pytest
from data_files import examples, load, make_task, refusal, write

from lmtasks import DataFile, Example
from lmtasks.data import DataRequest, file_sha256, load_dataset, load_fewshot, read_predictions
from lmtasks.errors import DataError, PathError


def zstd(content: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(content, asbytes=True)


COMPRESS = {".gz": gzip.compress, ".zst": zstd, ".bz2": bz2.compress, ".xz": lzma.compress}
ROWS = [{"id": f"r{number}", "document": f"text {number}", "summary": f"sum {number}"} for number in range(3)]
EXAMPLES = tuple(
    Example(id=f"r{n}", inputs={"document": f"text {n}"}, references=(f"sum {n}",), target=f"sum {n}") for n in range(3)
)


def compressed(path: Path) -> Path:
    """Return the compressed file beside a plain one, by the suffix that its name has last."""
    plain = path.with_suffix("")
    path.write_bytes(COMPRESS[path.suffix.lower()](plain.read_bytes()))
    return path


# Compression


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson", "data.csv"])
def test_compressed_file_is_read_like_the_plain_one(tmp_path: Path, name: str, suffix: str):
    plain = write(tmp_path / name, ROWS)
    path = compressed(tmp_path / f"{name}{suffix}")
    dataset = load(path)
    assert dataset.examples == load(plain).examples == EXAMPLES
    assert dataset.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_compressed_tsv_with_a_suffix_in_capitals_is_read(tmp_path: Path):
    path = tmp_path / "DATA.TSV.GZ"
    path.write_bytes(gzip.compress("\ufeffdocument\tsummary\na\tb\n".encode()))
    [example] = examples(path)
    assert (example.inputs, example.references) == ({"document": "a"}, ("b",))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_file_of_several_compressed_parts_is_read_whole(tmp_path: Path, suffix: str):
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(b"".join(COMPRESS[suffix](line) for line in lines))
    assert examples(path) == EXAMPLES


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("data.jsonl", b'{"document": "a"}\n\n{"document": \n', 3),
        ("data.jsonl", b'{"document": "a"}\n{"document": "caf\xe9"}\n', 2),
        ("data.csv", b'document\n"a\nb"\ncaf\xe9\n', 4),
        ("data.csv", b'document\na\n"b"c\n', 3),
    ],
)
def test_error_in_a_compressed_file_names_the_line(tmp_path: Path, name: str, content: bytes, line: int):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(content))
    assert refusal(path).startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize(
    ("suffix", "rest"),
    [
        *((suffix, b"") for suffix in COMPRESS),
        # Without a checksum zstd cannot know that a text was changed.
        *((suffix, b"\xff\0\xff\0" * 10) for suffix in COMPRESS if suffix != ".zst"),
    ],
)
def test_damaged_compression_is_one_line(tmp_path: Path, suffix: str, rest: bytes):
    content = COMPRESS[suffix](b'{"document": "a text"}\n' * 50)
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(content[: len(content) // 2] + rest)
    assert f"{path}: damaged" in refusal(path)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("behind", ["garbage", "short", "damaged", "cut", "text"])
def test_compressed_streams_after_the_first_are_read(tmp_path: Path, suffix: str, behind: str):
    first, second = (COMPRESS[suffix](f'{{"document": "text {n}"}}\n'.encode()) for n in (1, 2))
    damaged = second[:4] + bytes(255 - byte for byte in second[4:])
    path = tmp_path / f"data.jsonl{suffix}"
    rest = {"garbage": b"garbage" * 3000, "short": b"x", "damaged": damaged, "cut": second[:-5], "text": b"{}\n"}
    path.write_bytes(first + rest[behind])
    assert f"{path}: damaged" in refusal(path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_zeros_between_compressed_streams_are_padding(tmp_path: Path, suffix: str):
    parts = [COMPRESS[suffix](json.dumps(row).encode() + b"\n") for row in ROWS]
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(b"".join(part + bytes(9000) for part in parts))
    assert examples(path) == EXAMPLES


@pytest.mark.parametrize("suffix", COMPRESS)
def test_empty_compressed_file_has_no_rows(tmp_path: Path, suffix: str):
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b""))
    assert refusal(path) == f"{path}: no data rows; expected at least one example"


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv"])
def test_compressed_data_with_another_suffix_names_the_right_one(tmp_path: Path, name: str, suffix: str):
    path = tmp_path / name
    path.write_bytes(COMPRESS[suffix](b"document\na\n"))
    assert f"rename it to {name}{suffix}" in refusal(path)
    other = tmp_path / f"{name}{'.zst' if suffix != '.zst' else '.gz'}"
    other.write_bytes(path.read_bytes())
    assert f"rename it to {name}{suffix}" in refusal(other)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.jsonl.gz", b'{"document": "a"}\n', "not gzip data, though its name ends in .gz; rename it to data.js"),
        ("data.jsonl.gz", b"", "an empty file"),
        ("data.csv", b"PK\x03\x04xl/workbook", "a zip archive or a workbook of Excel"),
        ("data.jsonl", b"PAR1\x15\x04\x15", "holds Parquet data; rename it to data.parquet"),
        ("data.parquet.gz", gzip.compress(b"PAR1", mtime=0), "Parquet is compressed inside; decompress the file to"),
        ("data.parquet", b"document\na\n", "not a readable Parquet file: it does not begin with PAR1"),
        ("data.parquet", b"", "not a readable Parquet file: it is empty"),
        ("data.json", b'[{"document": "a"}]', "jq -c '.[]'"),
        ("data.json.gz", gzip.compress(b'[{"document": "a"}]', mtime=0), "JSON is read as JSONL"),
        (
            "data.txt.gz",
            gzip.compress(b"a", mtime=0),
            "expected a name that ends in .jsonl, .ndjson, .csv, .tsv, .parquet",
        ),
    ],
)
def test_content_unlike_its_suffix_is_refused(tmp_path: Path, name: str, content: bytes, says: str):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert says in message


def test_csv_may_begin_with_letters_of_other_formats(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_text("PAR1,BZh,document\np,b,a\n")
    assert examples(path)[0].meta == {"PAR1": "p", "BZh": "b"}


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv"])
def test_line_that_is_too_long_is_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"document\n" * (name == "data.csv") + b"a" * (64 * 2**20 + 1))
    assert f"{path}, line {1 + (name == 'data.csv')}: longer than 64 MiB" in refusal(path)


def test_cell_that_is_too_long_is_refused(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'document\n"' + (b"a" * 2**20 + b"\n") * 65 + b'"\n')
    assert f"{path}, line 65: field larger than field limit" in refusal(path)


def test_small_file_that_decompresses_too_far_is_refused(tmp_path: Path):
    path = tmp_path / "data.jsonl.gz"
    row = b'{"document": "' + b"a" * 2**20 + b'"}\n'
    path.write_bytes(gzip.compress(row * 70, compresslevel=6))
    assert f"{path}: decompresses to more than 200 times its size" in refusal(path)


# Predictions


@pytest.mark.parametrize("name", ["system.jsonl", "system.csv", "system.txt", "system.hyp"])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_predictions_are_read(tmp_path: Path, name: str, suffix: str):
    plain = tmp_path / name
    if plain.suffix in (".jsonl", ".csv"):
        write(plain, [{"id": "r1", "prediction": "b"}, {"id": "r0", "prediction": "a"}, {"id": "r2", "prediction": ""}])
    else:
        plain.write_text("\ufeffa\nb\n\n", encoding="utf-8")
    assert read_predictions(compressed(tmp_path / f"{name}{suffix}"), EXAMPLES) == ["a", "b", ""]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\n" * 10, "10 lines, but the data has 3 examples"),
        (b"a\ncaf\xe9\nb\n", "line 2: not UTF-8"),
        ("a\nb\nc\n".encode("utf-16"), "UTF-16, not UTF-8"),
        (gzip.compress(b"a\nb\nc\n", mtime=0), "rename it to system.txt.gz"),
    ],
)
def test_lines_of_predictions_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "system.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_predictions(path, EXAMPLES)
    assert str(caught.value).startswith(str(path))


PLAIN = [Example(id=f"r{n}", inputs={}, references=(f"Der Zug {n}.",)) for n in range(3)]
JSON_LINES = [json.dumps({"id": example.id, "prediction": "a"}) for example in PLAIN]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (JSON_LINES, "every line is a JSON object; if they hold predictions and ids, rename the file to .jsonl"),
        ([JSON_LINES[0], "", JSON_LINES[1]], "every line is a JSON object"),
        (JSON_LINES[:2], "every line is a JSON object"),
        (["['a']", "['b', 'c']", "[]"], "every line is a list written as text"),
        (["{'a'}", "set()", "array(['b'])"], "every line is a set written as text"),
        (["b'a'", "b'b'", "b'c'"], "every line is bytes written as text"),
        (['["a"]', '{"text": "b"}', ""], "every line is a JSON list written as text"),
        (['"Der Zug."', r'"Er sagt \"ja\"."', ""], "every line is in quotation marks"),
        (["'Der Zug.'", "'Das Haus.'", r"'Er sagt \'ja\'.'"], "every line is in quotation marks"),
        (["id,prediction", "r0,a", "r1,b"], "the lines are rows of a table, with ids; rename the file to .csv"),
        (["id,prediction", "r0,a", 'r1,"b, c"', "r2,c"], "rename the file to .csv"),
        (["id\toutput", "r2\ta", "r0\tb"], "rename the file to .tsv"),
        (["a text", "b\0", "c"], "line 2: holds a NUL character"),
    ],
)
def test_prediction_lines_in_another_format_are_refused(tmp_path: Path, lines: list[str], says: str):
    path = tmp_path / "system.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        read_predictions(path, PLAIN)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        ["", "", ""],
        [JSON_LINES[0], "a", JSON_LINES[1]],
        ["['a']", "plain", "['b']"],
        ['"a"', '"b', '"c"'],
        ['"a" and "b"', '"c"', '"d"'],
        ["prediction", "a, b", "r1, c"],
        ["id, name", "r0, a", "r1, b"],
        ["output", "r0", "r1"],
    ],
)
def test_prediction_lines_are_plain_text(tmp_path: Path, lines: list[str]):
    path = tmp_path / "system.txt"
    path.write_text("\n".join(lines) + "\n")
    assert read_predictions(path, PLAIN) == lines


@pytest.mark.parametrize(
    ("lines", "reference"),
    [(['"a"', "'b'", '"c"'], '"Der Zug"'), (JSON_LINES, '{"a": 1}'), (["[1]", "[2]", "[3]"], "['x']")],
)
def test_prediction_lines_may_look_like_references(tmp_path: Path, lines: list[str], reference: str):
    path = tmp_path / "system.txt"
    path.write_text("\n".join(lines) + "\n")
    answered = [Example(id=str(n), inputs={}, references=(reference,)) for n in range(3)]
    assert read_predictions(path, answered) == lines


# Encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.tsv", "data.jsonl.gz"])
def test_utf16_is_refused_with_a_remedy(tmp_path: Path, name: str, encoding: str):
    path = tmp_path / name
    content = '{"document": "a"}\n'.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    message = refusal(path)
    assert encoding.upper()[:6] in message or "UTF-16" in message
    assert "save the file as UTF-8" in message


def test_nul_character_in_a_table_is_refused_with_its_line(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"document\na\nb\0c\n")
    assert refusal(path).startswith(f"{path}, line 3: holds a NUL character")


def test_table_with_the_line_ends_of_old_macs_is_read(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"document,summary\ra,b\rc,d\r")
    assert [example.references for example in examples(path)] == [("b",), ("d",)]


# JSON


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps([{"document": "a"}], indent=1), "JSON with an array that spans several lines"),
        ('[{"document": "a"},\n{"document": "b"}]', "JSON with an array that spans several lines"),
        (json.dumps({"document": "a"}, indent=2), "JSON with an object that spans several lines"),
        (json.dumps([{"document": "a"}]), "expected an object such as {...}, got list"),
    ],
)
def test_json_that_is_not_jsonl_is_refused_with_a_command(tmp_path: Path, text: str, says: str):
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(f"{path}, line 1: {says}")
    assert "jq -c" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"document": "a"},\n{"document": "b"}\n', "line 1: a comma after the object"),
        ('{"document": "a"}\n{"document": "b"} , \n', "line 2: a comma after the object"),
        ('{"document": "a"}{"document": "b"}\n', "line 1: more than one object; JSONL has"),
        ('{"document": "a",\n"summary": "b"}\n', "line 1: JSON with an object that spans several lines"),
    ],
)
def test_jsonl_with_other_separators_is_refused(tmp_path: Path, text: str, says: str):
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    assert refusal(path).startswith(f"{path}, {says}")


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz"])
def test_csv_with_tabs_names_the_right_suffix(tmp_path: Path, name: str):
    path = tmp_path / name
    content = b"document\tsummary\na, b, c\td\n"
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert refusal(path).startswith(f"{path}, line 1: cells are separated by tabs, not commas; name the file .tsv")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"document": "a", "document": "b"}', "document"),
        ('{"document": "a", "answers": {"text": ["a"], "text": ["b"]}}', "text"),
        ('{"document": "a", "answers": [{"x": 1, "x": 1}]}', "x"),
        (r'{"document": "a", "\u0061b": 1, "ab": 2}', "ab"),
        (r'{"document": "a", "\ud800": 1, "\ud801": 2}', "?"),
    ],
)
def test_duplicate_key_is_refused(tmp_path: Path, line: str, key: str):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "first"}\n' + line + "\n")
    assert refusal(path) == f'{path}, line 2: the key "{key}" appears twice in one object; rename one of the two'


def test_keys_that_differ_in_case_are_different(tmp_path: Path):
    [example] = examples(write(tmp_path / "data.jsonl", [{"document": "a", "Document": "b"}]))
    assert (example.inputs, example.meta) == ({"document": "a"}, {"Document": "b"})


def test_key_with_a_lone_surrogate_has_a_question_mark(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text(r'{"document": "a", "\ud800": "b", "n": {"\udc00": 1}}' + "\n")
    assert examples(path)[0].meta == {"?": "b"}


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_deeply_nested_json_is_one_line(tmp_path: Path, opened: str):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "a", "x": ' + opened * 200_000)
    assert refusal(path).startswith(f"{path}, line 1: not JSON")


# Names and files


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * 300, "bytes, but file systems take 255"),
        ("x" * 300 + ".jsonl", "bytes, but file systems take 255"),
        ("~nosuchuser/data.jsonl", "home folder of no known user"),
        ("a\0.jsonl", "NUL character"),
        ("a\ud800.jsonl", "half a surrogate pair"),
        ("", "the name is empty"),
    ],
)
def test_data_path_that_is_impossible_is_refused(tmp_path: Path, name: str, says: str):
    assert says in refusal(name)
    dataset = load(write(tmp_path / "data.jsonl", ROWS))
    with pytest.raises(PathError, match=says):
        read_predictions(name, dataset.examples)


@pytest.mark.parametrize("name", ["~nosuchuser/data.jsonl", "x" * 300 + ".jsonl"])
def test_fewshot_and_plugin_path_that_is_impossible_is_refused(tmp_path: Path, name: str):
    dataset = load(write(tmp_path / "data.jsonl", ROWS))
    with pytest.raises(PathError):
        load_fewshot(make_task(), dataset, count=1, seed=0, data=name)
    with pytest.raises(PathError):
        load_dataset(make_task(datasets={"demo": DataFile(path=Path(name))}), DataRequest())


def test_file_that_is_not_regular_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s.jsonl"))
    for name in ("pipe.jsonl", "s.jsonl"):
        assert "not a regular file" in refusal(tmp_path / name)
        with pytest.raises(DataError, match="not a regular file"):
            read_predictions(tmp_path / name, EXAMPLES)
    listening.close()


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.parquet", "data.jsonl.gz"])
def test_file_that_cannot_be_opened_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / name
    path.write_text("a")

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may open every file, so the refusal is played
    assert "Permission denied" in refusal(path)
    for read in (file_sha256, lambda path: read_predictions(path, EXAMPLES)):
        with pytest.raises(DataError, match="Permission denied") as caught:
            read(path)
        assert str(caught.value).startswith(str(path))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and fails to be read")
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.jsonl.gz", "data.parquet", "data.txt"])
def test_file_that_fails_while_it_is_read_is_one_line(tmp_path: Path, name: str):
    path = tmp_path / name
    path.symlink_to("/proc/self/mem")
    if name != "data.txt":
        assert f"{path}: " in refusal(path)
    with pytest.raises(DataError, match="Input/output error"):
        read_predictions(path, EXAMPLES)
