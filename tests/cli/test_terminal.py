"""What reaches a terminal, a pipe and a full disk, whatever data, plugins and models say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, one_line

from lmtasks.testing import FakeModel

pty = pytest.importorskip("pty")  # Windows has none

STEERING = "\x1b]0;pwned\x07\x1b[5n\x9b31m\x08\x7f\u202eevil\u2066\u2028\u0085\x0b\r"
SHOWN = (
    r"\u001b]0;pwned\u0007\u001b[5n\u009b31m\u0008\u007f\u202eevil\u2066\u2028\u0085\u000b\r"  # the same, to be seen
)
OF_BARS = re.compile(r"\x1b\[(\?25[lh]|2K|\d*A|[\d;]*m)|\r")
"""What rich draws progress bars with: hide and show the cursor, clear a line, go up, colours."""
START = "from lmtasks.cli.main import main; main()"
WITH_FAKE = f"""
from lmtasks.api import running
from lmtasks.testing import FakeModel
running.load_model = lambda *_, **__: FakeModel(lambda prompt: "At ten " + {STEERING!r} + "!")
{START}
"""


def on_terminal(folder: Path, *arguments: object, script: str = START) -> tuple[int, str]:
    """Return the exit code and what a terminal gets, of a command of which both streams are one."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
        os.execve(sys.executable, [sys.executable, "-c", script, *map(str, arguments)], environment)
    written = b""
    try:
        while block := os.read(terminal, 1 << 16):
            written += block
    except OSError:  # Linux says so that the other end is closed
        pass
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), written.decode("utf-8").replace("\r\n", "\n")


def steering(text: str) -> set[str]:
    """Return the characters that steer a terminal."""
    return set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f]", text))


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """A folder with data, outputs, plugins and an adapter whose every text steers a terminal."""

    def write(name: str, *rows: object) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    rows = [
        {"id": f"{STEERING}\nverdict {n}", "context": f"c {STEERING}", "question": STEERING, "answers": [STEERING]}
        for n in range(3)
    ]
    write("qa.jsonl", *rows)
    write(f"{STEERING}[red].jsonl", *rows)
    write("predictions.jsonl", *({"id": row["id"], "prediction": f"no {STEERING} {n}"} for n, row in enumerate(rows)))
    write("keys.jsonl", {f"{STEERING}\n": "x"})
    write("twice.jsonl", rows[0], rows[0])
    write("body.jsonl", {"id": STEERING, "text": STEERING, "references": ["x"]})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"never read")
    settings = {"peft_type": "LORA", "base_model_name_or_path": STEERING, "r": 8, "target_modules": [STEERING]}
    write("adapter/adapter_config.json", settings)
    (tmp_path / "evil.yaml").write_text(
        "name: evil\nversion: 1\n"
        f"summary: {json.dumps('Summary ' + STEERING)}\n"
        'prompts: {plain: "$text"}\ndatasets: {demo: {path: body.jsonl}}\nmetrics: [rouge]\n'
    )
    (tmp_path / "broken.py").write_text(f"raise ValueError({STEERING + chr(10) + 'lmtasks: all is fine'!r})\n")
    (tmp_path / "warns.py").write_text(f"import sys\nprint({STEERING!r})\nprint({STEERING!r}, file=sys.stderr)\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("score", "qa", "--data", "keys.jsonl", "--references", "x", "--predictions", "x"), id="columns"),
        pytest.param(("score", "qa", "--data", "twice.jsonl", "--predictions", "predictions.jsonl"), id="ids"),
        pytest.param(("score", "qa", "--data", f"{STEERING}[red].jsonl", "--predictions", STEERING), id="file"),
        pytest.param(("data", "check", "keys.jsonl", "--task", "qa"), id="data-check"),
        pytest.param(("data", "check", f"{STEERING}[red].jsonl", "--task", "qa", "--json"), id="data-check-json"),
        pytest.param(("score", STEERING), id="score"),
        pytest.param(("list", "--plugin", "evil.yaml", "--plugin", "broken.py", "--plugin", "warns.py"), id="list"),
        pytest.param(("plugins", "list", "--plugin", "evil.yaml", "--plugin", "broken.py"), id="plugins-list"),
        pytest.param(("plugins", "check", "broken.py"), id="plugins-check"),
        pytest.param(("show", "qa", "--plugin", "broken.py", "-v"), id="traceback"),
        pytest.param(("plugins", "new", STEERING, "--summary", "s", "--author", "a"), id="plugins-new"),
        pytest.param(("models", "pull", STEERING), id="models-pull"),
        pytest.param(("adapters", "show", STEERING), id="adapters-show-missing"),
        pytest.param(("adapters", "show", "adapter"), id="adapters-show"),
        pytest.param(("compare", STEERING, STEERING), id="compare"),
        pytest.param(("run", STEERING + "\nlmtasks: all is fine"), id="run"),
        pytest.param(("run", "qa", "--prompt", STEERING), id="prompt"),
        pytest.param(("run", "qa", "--map", f"{STEERING}"), id="our-bad-parameter"),
        pytest.param(("run", "qa", "--device", STEERING), id="bad-choice"),
        pytest.param(("run", "qa", "--limit", STEERING), id="bad-number"),
        pytest.param((STEERING,), id="command"),
        pytest.param(("list", f"--{STEERING}"), id="option"),
        pytest.param(("list", STEERING), id="argument"),
    ],
)  # fmt: skip
def test_terminal_gets_no_control_character_of_names_and_messages(nasty, arguments):
    assert_clean(*on_terminal(nasty, *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("ask", "qa", "--input", "context=a", "--input", "question=b"), id="ask"),
        pytest.param(("show", "qa", "--data", "qa.jsonl"), id="show"),
        pytest.param(("show", "evil", "--plugin", "evil.yaml"), id="show-task"),
        pytest.param(("run", "qa", "--data", f"{STEERING}[red].jsonl"), id="run"),
    ],
)
def test_terminal_gets_no_control_character_of_answers_and_prompts(nasty, arguments):
    code, output = on_terminal(nasty, *arguments, script=WITH_FAKE)
    assert code == 0, output
    assert_clean(code, output)


def assert_clean(code: int, output: str) -> None:
    assert code in (0, 1, 2), output
    text = OF_BARS.sub("", output)
    assert steering(text) == set()
    assert r"\u202eevil\u2066" in text


@pytest.mark.slow
def test_terminal_gets_no_control_character_of_a_comparison(nasty):
    run = ("score", "qa", "--data", "qa.jsonl", "--output-dir")
    for folder, predictions in (("first", "predictions.jsonl"), ("second", "qa.jsonl")):
        extra = ("--map", "prediction=question") if folder == "second" else ()
        done = subprocess.run(
            [sys.executable, "-c", START, *run, folder, "--predictions", predictions, *extra],
            cwd=nasty, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    runs = [next((nasty / name).iterdir()) for name in ("first", "second")]
    code, output = on_terminal(nasty, "compare", *runs)
    assert code == 0
    assert steering(output) == set()
    assert SHOWN + r"\nverdict 0: " in output
    code, output = on_terminal(nasty, "compare", *runs, "--json")
    assert code == 0
    assert steering(output) == set()
    changed = {example["id"] for example in json.loads(output)["comparisons"][0]["changed"]}
    assert changed == {f"{STEERING}\nverdict {n}" for n in range(3)}


def test_terminal_shows_markup_of_progress_as_text(tmp_path):
    script = """
import sys, logging
from lmtasks.cli.streams import standard_streams
from lmtasks.cli.terminal import progress
with standard_streams(), progress() as on_progress:
    handler = logging.StreamHandler(sys.stderr)
    on_progress("loading [/x] [link=evil]a[/link] :smile: \\x1b[5n", 1, 2, "loss [bold]3 \\x9b31m")
    handler.emit(logging.makeLogRecord({"msg": "beside [/y] \\x1b[5n"}))
    print("half [/z]", end="", file=sys.stderr, flush=True)
"""
    code, output = on_terminal(tmp_path, script=script)
    assert code == 0, output
    text = OF_BARS.sub("", output)
    for message in (
        r"loading [/x] [link=evil]a[/link] :smile: \u001b[5n",
        r"1/2, loss [bold]3 \u009b31m",
        r"beside [/y] \u001b[5n",
        "half [/z]",
    ):
        assert message in text
    assert steering(text) == set()


def test_progress_bars_of_tqdm_are_drawn(tmp_path):
    (tmp_path / "bar.py").write_text(
        "import sys\nfor text in ('\\r 10%', '\\r 20%\\r\\n', '\\x1b[A', 'a\\x1b[A\\n'):\n    sys.stderr.write(text)\n"
    )
    _, output = on_terminal(tmp_path, "list", "--plugin", "bar.py")
    assert "\r 10%\r 20%\\r\n\x1b[Aa\\u001b[A\n" in output


def test_pipe_gets_the_exact_answer(nasty):
    command = [sys.executable, "-c", WITH_FAKE, "ask", "qa", "--input", "context=a", "--input", "question=b"]
    done = subprocess.run(command, cwd=nasty, capture_output=True)
    assert done.returncode == 0
    assert done.stdout.decode("utf-8") == f"At ten {STEERING}!\n"


def test_errors_are_one_line_where_stderr_is_no_terminal(call, nasty, monkeypatch):
    monkeypatch.chdir(nasty)
    line = one_line(call("score", "qa", "--predictions", "x", "--data", STEERING + "\nlmtasks: all is fine.jsonl"))
    assert f"{SHOWN}\\nlmtasks: all is fine.jsonl" in line


def test_warnings_are_one_line(tmp_path):
    script = """
import importlib, logging
command = importlib.import_module("lmtasks.cli.list")
command.print_errors = lambda _: logging.getLogger("lmtasks.data").warning("%s", "a\\nlmtasks: b\\x1b[5n")
from lmtasks.cli.main import main
main(["list"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "lmtasks: a\\nlmtasks: b\\u001b[5n\n"


def test_bytes_are_escaped_too(tmp_path):
    script = "import sys\nfrom lmtasks.cli.streams import standard_streams\nimport click\nwith standard_streams():\n"
    script += f"    click.echo({STEERING!r}.encode()); sys.stderr.buffer.write(b'\\x1b[5n\\xff.'); sys.stderr.flush()\n"
    _, output = on_terminal(tmp_path, script=script)
    assert output == f"{SHOWN}\n\\u001b[5n\\xff."


def test_ascii_terminal_gets_no_control_character(nasty, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")  # click makes a writer of its own for such streams
    code, output = on_terminal(nasty, "score", STEERING)
    assert code == 2
    assert SHOWN in output
    assert steering(output) == set()


# Where nothing can be written


def in_shell(command: str, folder: Path) -> Outcome:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


LMTASKS = '"$PYTHON" -m lmtasks'
FULL = "lmtasks: cannot write the results: No space left on device\n"
CLOSED = "lmtasks: cannot write the results: stdout is closed\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "arguments", ["list", "list --json", "--help", "--version", "models list", "schema task", "completion bash"]
)
def test_full_disk_is_one_line(tmp_path, arguments):
    assert in_shell(f"{LMTASKS} {arguments} >/dev/full", tmp_path) == Outcome(1, "", FULL)


@pytest.mark.parametrize("arguments", ["list", "--help", "models list"])
def test_closed_stdout_is_one_line(tmp_path, arguments):
    assert in_shell(f"{LMTASKS} {arguments} >&-", tmp_path) == Outcome(1, "", CLOSED)


def test_closed_stderr_loses_only_messages(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError\n")
    listed = in_shell(f"{LMTASKS} list --plugin broken.py 2>&-", tmp_path)
    assert (listed.code, listed.err) == (0, "")
    assert "summarization" in listed.out
    assert in_shell(f"{LMTASKS} run nosuch 2>&-", tmp_path) == Outcome(2, "", "")
    assert in_shell(f"{LMTASKS} list <&- >&- 2>&-", tmp_path) == Outcome(1, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_behind_stderr_loses_only_messages(tmp_path):
    assert in_shell(f"{LMTASKS} run nosuch 2>/dev/full", tmp_path) == Outcome(2, "", "")
    assert in_shell(f"{LMTASKS} list --json 2>/dev/full", tmp_path).code == 0


def test_closed_streams_never_write_into_our_files(tmp_path):
    # Without anything at 1 and 2, the first file that is opened would get the number of stdout.
    script = (
        "import os; from lmtasks.cli import streams\n"
        "with streams.standard_streams():\n"
        "    file = os.open('samples.jsonl', os.O_CREAT | os.O_WRONLY)\n"
        "    assert file > 2\n"
        "    os.write(2, b'printed by compiled code')\n"
    )
    (tmp_path / "script.py").write_text(script)
    assert in_shell('"$PYTHON" script.py <&- >&- 2>&-', tmp_path).code == 0
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


def test_reader_that_exits_early_is_not_an_error(tmp_path):
    outcome = in_shell(f"set -o pipefail; {LMTASKS} list | head -n 1", tmp_path)
    assert outcome.err == ""
    assert outcome.out.startswith("task ")
    assert in_shell(f"{LMTASKS} list --json | true", tmp_path).err == ""
    assert in_shell(f"{LMTASKS} run nosuch 2>&1 | true; exit ${{PIPESTATUS[0]}}", tmp_path) == Outcome(2, "", "")


# Text of ask


@pytest.fixture
def asked(call, monkeypatch) -> Callable[..., tuple[Outcome, list[str]]]:
    """Ask for a summary, and see what the model was asked."""

    def ask(*arguments: object, **streams: object) -> tuple[Outcome, list[str]]:
        prompts: list[str] = []
        model = FakeModel(lambda prompt: prompts.append(prompt) or "Fine.")
        monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: model)
        return call("ask", "summarization", *arguments, **streams), prompts

    return ask


@pytest.mark.parametrize("arguments", [("@@alice wrote: @home @@",), ("--input", "text=@@alice wrote: @home @@")])
def test_two_at_signs_escape_one(asked, arguments):
    if arguments[0] == "--input":
        arguments = ("--input", arguments[1].replace("text", "document"))
    outcome, [prompt] = asked(*arguments)
    assert (outcome.code, outcome.out) == (0, "Fine.\n")
    assert "@alice wrote: @home @@" in prompt
    assert "@@alice" not in prompt


@pytest.mark.parametrize(
    "text",
    ["alice wrote: hello", "~nosuchuser/x", "a\0b", "a\udcffb", "a\ud800b", "x" * 300, "x " * 20_000, "", "."],
    ids=["text", "user", "nul", "bytes", "surrogate", "long", "longer", "empty", "folder"],
)
def test_unreadable_file_explains_two_at_signs(call, text):
    outcome = call("ask", "summarization", f"@{text}")
    assert (outcome.code, outcome.out) == (2, "")
    error = outcome.err.splitlines()[-1]
    assert error.startswith("Error: TEXT: ")
    assert error.endswith('to ask about a text that begins with "@", write "@@"')
    assert len(error) < 300


@pytest.mark.parametrize("text", ["a\udcffb", "@@a\ud800b"])
def test_text_that_is_not_utf8_is_refused(call, text):
    outcome = call("ask", "summarization", text)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "Error: TEXT: the text is not UTF-8"


def test_closed_stdin_is_one_line(tmp_path):
    outcome = in_shell(f"{LMTASKS} ask summarization - <&-", tmp_path)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "Error: TEXT: cannot read standard input: it is closed"
