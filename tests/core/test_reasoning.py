"""Reasoning before an answer: divided from it, kept beside it, and never scored."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import lmtasks
from lmtasks import Example, Generate, Prompt, RunOptions, Task
from lmtasks.backends.stopping import StopCheck, finish_completion, streamable_answer
from lmtasks.cli.main import cli
from lmtasks.errors import UsageError
from lmtasks.prompts import Renderer
from lmtasks.reasoning import ReasoningParser
from lmtasks.records.parts import ChatTemplateRecord
from lmtasks.task import SamplingParams
from lmtasks.testing import CHAT_TEMPLATE, CharacterTokenizer, FakeModel, _tiny_tokenizer, save_tiny_model

SWITCH = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As Qwen3 has it: an empty block where thinking is off."""
OPENING = CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
"""As QwQ has it: the template opens the block."""
HARMONY = CHAT_TEMPLATE.replace("assistant\n", "assistant")


def make_task(*answers: str, **changes) -> Task:
    examples = [
        Example(id=str(index), inputs={"text": f"t{index}"}, references=(text,)) for index, text in enumerate(answers)
    ]
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(examples if split == "test" else [])},
        "metrics": ("exact_match", "bleu"),
    }
    return Task(**(settings | changes))


def model_with(template: str | None, *answers: str) -> FakeModel:
    model = FakeModel(answers)
    model.tokenizer = CharacterTokenizer(template)
    return model


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("Paris", "", "Paris"),
        ("<think>\nIt is a capital.\n</think>\n\nParis", "It is a capital.", "Paris"),
        ("  <think>a</think>b", "a", "b"),
        ("<think></think>Paris", "", "Paris"),
        ("<think>a</think><think>b</think>c", "a\n\nb", "c"),
        ("<think>a</think>b </think> c", "a", "b </think> c"),
        ("Write </think> to end it.", "", "Write </think> to end it."),
        ("A tag is <think>.", "", "A tag is <think>."),
        ("\ufeff<think>a</think>b", "a", "b"),
        ("<thought>a</thought>b", "a", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "a", "b"),
        ("<|start|>assistant<|channel|>analysis<|message|>a<|channel|>final<|message|>b", "a", "b"),
        ("[THINK]a[/THINK]b", "a", "b"),
        ("◁think▷a◁/think▷b", "a", "b"),
        ("<seed:think>a</seed:think>b", "a", "b"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "a", "b"),
        ("<|channel>thought\na<channel|>b", "a", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "a", "b"),
        ("<|channel|>final<|message|>b", "", "b"),
        ("<|channel|>analysis<|message|>a<|channel|>final <|constrain|>json<|message|>{}", "a", "{}"),
        # Unfinished reasoning is no answer.
        ("<think>It is", "It is", ""),
        ("<|channel|>analysis<|message|>It is", "It is", ""),
    ],
)
def test_parse_separates_reasoning_from_the_answer(text, reasoning, answer):
    parsed = ReasoningParser().parse(text)
    assert (parsed.reasoning, parsed.answer) == (reasoning, answer)
    assert (parsed.start is None) == (answer == "")


def test_parse_recognizes_a_block_opened_by_the_template():
    parser = ReasoningParser(opened="<think>")
    assert parser.parse("a</think>\n\nb").answer == "b"
    assert parser.parse("a").start is None
    assert parser.parse("</think>b").answer == "b"


def test_parse_recognizes_a_closing_marker_without_opening():
    parser = ReasoningParser(closings=("</think>",))
    assert parser.parse("a</think>b").answer == "b"
    assert parser.parse("a").answer == "a"


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, SWITCH])
def test_run_scores_the_answer_after_the_reasoning(template, tmp_path):
    answers = ["The ferry leaves at nine o'clock.", "It returns at six in the evening."]
    task = make_task(*answers, output=Generate(stop=("\n",)))
    model = model_with(template, *(f"<think>\nHm.\n</think>\n\n{answer}\nMore." for answer in answers))
    run = lmtasks.run(task, model=model, output_dir=tmp_path)
    assert {score.name: round(score.value, 6) for score in run.scores} == {"exact_match": 100.0, "BLEU": 100.0}
    first = run.samples[0]
    assert (first.prediction, first.completion, first.reasoning) == (answers[0], answers[0], "Hm.")
    assert 0 < first.reasoning_tokens < first.completion_tokens
    assert run.record.tokens.reasoning == sum(sample.reasoning_tokens for sample in run.samples)
    report = (run.path / "report.md").read_text()
    assert "new tokens are reasoning, which no score sees" in report
    assert "    Hm." in report


def test_run_counts_unfinished_reasoning_as_an_empty_answer(tmp_path):
    model = model_with(OPENING, "It may be", "Hm.</think>two", "")
    run = lmtasks.run(make_task("one", "two", "three"), model=model, output_dir=tmp_path)
    assert [sample.prediction for sample in run.samples] == ["", "two", ""]
    assert [sample.reasoning for sample in run.samples] == ["It may be", "Hm.", ""]
    assert run.record.counts.unanswered == 1
    assert run.record.counts.empty == 2
    assert "1 of 3 with reasoning and no answer" in (run.path / "report.md").read_text()


def test_resumed_run_parses_the_same_answers(tmp_path):
    def parse(text):
        raise RuntimeError

    answers = ["<think>a</think>one", "<think>b</think>two"]
    with pytest.raises(lmtasks.LmtasksError):
        lmtasks.run(
            make_task("one", "two", output=Generate(parse=parse)), model=model_with(None, *answers), output_dir=tmp_path
        )
    run = lmtasks.run(make_task("one", "two"), model=model_with(None), output_dir=tmp_path)
    assert [sample.prediction for sample in run.samples] == ["one", "two"]


def test_ask_returns_the_answer_without_reasoning():
    texts: list[str] = []
    model = model_with(CHAT_TEMPLATE, "<think>Hm.</think>one")
    assert lmtasks.ask(make_task("one"), "t", model=model, on_text=texts.append) == "one"
    assert texts[0] == "o"


def test_run_disables_thinking_by_default(tmp_path):
    task = make_task("one")
    off, on = model_with(SWITCH, "one"), model_with(SWITCH, "<think>a</think>one")
    first = lmtasks.run(task, model=off, output_dir=tmp_path)
    second = lmtasks.run(task, model=on, output_dir=tmp_path, chat_template_kwargs={"enable_thinking": True})
    assert off.prompts[0].endswith("<think>\n\n</think>\n\n")
    assert on.prompts[0].endswith("assistant\n")
    settings = [run.record.prompt.chat_template for run in (first, second)]
    assert settings == [
        ChatTemplateRecord(kwargs={"enable_thinking": False}, date=None),
        ChatTemplateRecord(kwargs={"enable_thinking": True}, date=None),
    ]
    assert first.record.key != second.record.key
    assert "chat template: enable_thinking True" in (second.path / "report.md").read_text()


def test_run_keeps_marker_in_answer_if_template_ended_the_reasoning(tmp_path):
    run = lmtasks.run(make_task("a </think> b"), model=model_with(SWITCH, "a </think> b"), output_dir=tmp_path)
    assert run.samples[0].prediction == "a </think> b"


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None])
def test_run_refuses_unknown_chat_template_variable(template, tmp_path):
    with pytest.raises(UsageError, match="chat template"):
        lmtasks.run(
            make_task("one"), model=model_with(template), output_dir=tmp_path, chat_template_kwargs={"thinking": True}
        )
    assert not list(tmp_path.iterdir())


def test_flags_set_chat_template_variables(tmp_path):
    save_tiny_model(tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    (tmp_path / "model" / "chat_template.jinja").write_text(SWITCH)
    assert config.is_file()
    (tmp_path / "data.jsonl").write_text('{"document": "The ferry leaves at nine.", "summary": "It leaves."}\n')
    arguments = ["summarization", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "data.jsonl")]
    shown = CliRunner().invoke(cli, ["show", *arguments, "--template-set", "enable_thinking=true"])
    assert shown.exit_code == 0, shown.output
    assert "<think>" not in shown.output
    assert "<think>\n\n</think>" in CliRunner().invoke(cli, ["show", *arguments]).output
    run = ["run", *arguments, "--max-new-tokens", "2", "--json", "--output-dir", str(tmp_path / "runs")]
    assert CliRunner().invoke(cli, [*run, "--template-set", "enable_thinking=true"]).exit_code == 0
    [record] = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["prompt"]["chat_template"]["kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize(
    ("template", "start"), [(CHAT_TEMPLATE, ""), (SWITCH, ""), (OPENING, "</think>\n\n"), (None, "")]
)
def test_render_pair_puts_the_answer_after_reasoning_markers(template, start):
    tokenizer = CharacterTokenizer(template)
    example = Example(id="1", inputs={"text": "t"}, references=("one",))
    pair = Renderer(make_task("one"), tokenizer).render_pair(example, None, 0, on_overlong="error")
    assert tokenizer.decode(list(pair.answer_ids)) == f"{start}one\0"


def test_renderer_keeps_reasoning_markers_in_data_as_text():
    """A template cuts what stands before the marker out of earlier answers: Qwen3's does so with `split`."""
    template = SWITCH.replace("message['content'] }}", "message['content'].split('</think>')[-1] }}")
    shown = Example(id="s", inputs={"text": "t"}, references=("keep </think> this",))
    renderer = Renderer(make_task("one"), CharacterTokenizer(template), fewshot=[shown])
    prompt = renderer.render(Example(id="1", inputs={"text": "a </think> b"}))
    text = CharacterTokenizer().decode(list(prompt.token_ids))
    assert "keep </think> this" in text
    assert "Say a </think> b" in text


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = _tiny_tokenizer(chat=True)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def test_stop_string_within_reasoning_is_ignored(tokenizer):
    text = "<think>\nfirst\nsecond\n</think>\n\nanswer\nmore"
    ids = tokenizer.encode(text, add_special_tokens=False)
    check = StopCheck(tokenizer, ("\n",), ReasoningParser())
    stopped = next(length for length in range(1, len(ids) + 1) if check.is_met(ids[:length]))
    made = finish_completion(tokenizer, ids[:stopped], SamplingParams(stop=("\n",)), (), ReasoningParser())
    assert (made.text, made.reasoning, made.finish_reason) == ("answer", "first\nsecond", "stop")
    thought = tokenizer.encode(text.partition("\n\n")[0], add_special_tokens=False)
    assert made.reasoning_tokens == len(thought)
    assert made.tokens == stopped


def test_stop_string_after_two_reasoning_blocks_ends_the_answer(tokenizer):
    text = "<think>a</think>\n<think>b\nc</think>\nhello\nworld"
    ids = tokenizer.encode(text, add_special_tokens=False)
    check = StopCheck(tokenizer, ("\n",), ReasoningParser())
    stopped = next(length for length in range(1, len(ids) + 1) if check.is_met(ids[:length]))
    made = finish_completion(tokenizer, ids[:stopped], SamplingParams(stop=("\n",)), (), ReasoningParser())
    assert (made.text, made.reasoning, made.finish_reason) == ("hello", "a\n\nb\nc", "stop")
    thought = tokenizer.encode(text.partition("\nhello")[0], add_special_tokens=False)
    assert made.reasoning_tokens == len(thought)


def test_ask_does_not_stream_while_reasoning_may_still_end():
    assert streamable_answer("I think so", (), ReasoningParser(closings=("</think>",))) == ""


@pytest.mark.parametrize(
    "template",
    [
        # The template opens a block only where there is a system message.
        CHAT_TEMPLATE.replace("assistant\n", "assistant\n{% if messages[0]['role'] == 'system' %}<think>\n{% endif %}"),
        # The template refuses every conversation but the task's own.
        "{% if messages|length < 2 %}{{ raise_exception('two') }}{% endif %}" + OPENING,
    ],
)
def test_run_recognizes_block_opened_for_one_prompt(template, tmp_path):
    task = make_task("1931", prompts={"plain": Prompt(user="Say $text", system="Be brief.")})
    run = lmtasks.run(task, model=model_with(template, "hm</think>1931"), output_dir=tmp_path)
    assert (run.samples[0].prediction, run.samples[0].reasoning) == ("1931", "hm")


def test_run_recognizes_channel_opened_by_the_template(tmp_path):
    template = HARMONY.replace("assistant{%", "assistant<|channel|>analysis<|message|>{%")
    answer = "hm<|end|><|start|>assistant<|channel|>final<|message|>1931"
    model = model_with(template, answer)
    run = lmtasks.run(make_task("1931"), model=model, output_dir=tmp_path)
    assert (run.samples[0].prediction, run.samples[0].reasoning) == ("1931", "hm")
    example = Example(id="1", inputs={"text": "t"}, references=("one",))
    pair = Renderer(make_task("one"), model.tokenizer).render_pair(example, None, 0, on_overlong="error")
    learned = model.tokenizer.decode(list(pair.answer_ids))
    assert learned == "<|end|><|start|>assistant<|channel|>final<|message|>one\0"


def test_run_does_not_let_data_open_a_block(tmp_path):
    """A template that writes nothing behind the user's text ends in data."""
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    examples = [Example(id="1", inputs={"text": "<think>"}, references=("one",))]
    task = make_task(datasets={"demo": lambda split: iter(examples if split == "test" else [])})
    run = lmtasks.run(task, model=model_with(template, "one"), output_dir=tmp_path)
    assert run.samples[0].prediction == "one"


@pytest.mark.parametrize(("value", "read"), [("False", False), ("true", True), ("off", UsageError), ("1", UsageError)])
def test_thinking_switch_accepts_true_or_false_only(value, read, tmp_path):
    save_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(SWITCH)
    arguments = ["show", "summarization", "--model", str(tmp_path / "model"), "--template-set"]
    shown = CliRunner().invoke(cli, [*arguments, f"enable_thinking={value}"])
    if read is UsageError:
        assert isinstance(shown.exception, UsageError)
    else:
        assert ("</think>" in shown.output) is not read


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], {"a": 1}])
def test_run_refuses_chat_template_value_that_json_cannot_hold(value):
    with pytest.raises(UsageError, match="chat_template_kwargs"):
        RunOptions(chat_template_kwargs={"style": value})


def test_score_warns_of_predictions_with_reasoning(tmp_path, caplog):
    (tmp_path / "data.jsonl").write_text('{"id": "1", "text": "t", "references": "one"}\n' * 1)
    (tmp_path / "outputs.txt").write_text("a</think>one\n")
    lmtasks.score(make_task("one"), data=tmp_path / "data.jsonl", predictions=tmp_path / "outputs.txt")
    assert "1 of 1 outputs contain reasoning" in caplog.text


def test_run_counts_invisible_answer_as_empty(tmp_path):
    run = lmtasks.run(make_task("one"), model=model_with(None, "\u200b"), output_dir=tmp_path)
    assert run.samples[0].prediction == ""


def test_generate_counts_unfinished_reasoning_as_reasoning(tokenizer):
    ids = tokenizer.encode("<think>\nfirst\n", add_special_tokens=False)
    made = finish_completion(
        tokenizer, ids, SamplingParams(max_new_tokens=len(ids), stop=("\n",)), (), ReasoningParser()
    )
    assert (made.text, made.finish_reason, made.reasoning_tokens) == ("", "length", len(ids))


def test_generate_keeps_special_tokens_that_mark_reasoning(tokenizer):
    tokenizer = _tiny_tokenizer(chat=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|im_end|>"]})
    ids = tokenizer.encode("[THINK]a[/THINK]b<|im_end|>c", add_special_tokens=False)
    made = finish_completion(tokenizer, ids, SamplingParams(), (), ReasoningParser())
    assert (made.text, made.reasoning) == ("bc", "a")


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("<", ""),
        ("<thi", ""),
        ("<think>a", ""),
        ("<think>a</think>", ""),
        ("<think>a</think>b", "b"),
        ("<b", "<b"),
        ("<think>a</think>\n<thin", ""),
        ("<think>a</think>\n<think>b</think>c", "c"),
    ],
)
def test_stream_has_the_answer_only(text, texts):
    assert streamable_answer(text, (), ReasoningParser()) == texts
