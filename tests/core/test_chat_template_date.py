"""Chat templates that tell the date: one date for the life of a run and of an adapter."""

from __future__ import annotations

import datetime

import pytest

import lmtasks
from lmtasks import Example, Task
from lmtasks.errors import UsageError
from lmtasks.prompts import Renderer
from lmtasks.testing import CHAT_TEMPLATE, CharacterTokenizer, FakeModel, _tiny_tokenizer, save_tiny_model

DATED = "Today is {{ strftime_now('%d %B %Y') }}.\n" + CHAT_TEMPLATE
"""As Llama 3.2 and gpt-oss have it."""


def make_task(**changes) -> Task:
    examples = [Example(id=f"e{at}", inputs={"text": f"{at}"}, references=(f"answer {at}",)) for at in range(4)]
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(examples if split == "test" else [])},
        "metrics": ("exact_match",),
    }
    return Task(**(settings | changes))


def dated_model(answers) -> FakeModel:
    model = FakeModel(answers)
    model.tokenizer = CharacterTokenizer(DATED)
    return model


@pytest.fixture
def on_day(monkeypatch):
    """Make a day today."""

    def on_day(year: int, month: int, day: int) -> None:
        class Day(datetime.date):
            @classmethod
            def today(cls) -> datetime.date:
                return datetime.date(year, month, day)

        monkeypatch.setattr("lmtasks.prompts.chat_template.date", Day)

    return on_day


def broken_off(prompt: str) -> str:
    if "Say 2" in prompt:
        raise KeyboardInterrupt
    return f"answer {prompt.partition('Say ')[2][0]}"


def whole(prompt: str) -> str:
    return f"answer {prompt.partition('Say ')[2][0]}"


@pytest.mark.slow
def test_resumed_run_keeps_its_date(tmp_path, on_day):
    on_day(2026, 11, 28)
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=dated_model(broken_off), output_dir=tmp_path)
    on_day(2026, 12, 1)
    model = dated_model(whole)
    run = lmtasks.run(make_task(), model=model, output_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(model.prompts) == 2
    assert all(prompt.startswith("Today is 28 November 2026.") for prompt in model.prompts)
    assert run.record.prompt.chat_template.date == "2026-11-28"
    assert run.record.counts.reused == 2
    assert "date 2026-11-28" in (run.path / "report.md").read_text()


@pytest.mark.slow
def test_new_run_has_the_date_of_its_day(tmp_path, on_day):
    on_day(2026, 11, 28)
    lmtasks.run(make_task(), model=dated_model(whole), output_dir=tmp_path)
    on_day(2026, 12, 1)
    run = lmtasks.run(make_task(), model=dated_model(whole), output_dir=tmp_path)
    assert run.record.prompt.chat_template.date == "2026-12-01"


@pytest.mark.slow
def test_run_with_stated_date_renders_it_and_is_another_run(tmp_path, on_day):
    on_day(2026, 11, 28)
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=dated_model(broken_off), output_dir=tmp_path)
    model = dated_model(whole)
    run = lmtasks.run(make_task(), model=model, output_dir=tmp_path, chat_template_date="2020-02-29")
    assert len(model.prompts) == 4
    assert model.prompts[0].startswith("Today is 29 February 2020.")
    assert run.record.prompt.chat_template.date == "2020-02-29"


def test_run_without_date_in_template_records_none(tmp_path):
    model = FakeModel(whole, chat=True)
    run = lmtasks.run(make_task(), model=model, output_dir=tmp_path, chat_template_date="2020-02-29")
    assert run.record.prompt.chat_template.date is None


@pytest.mark.parametrize("day", ["tomorrow", "2020-13-01", 7])
def test_run_refuses_invalid_date(day, tmp_path):
    with pytest.raises(UsageError, match="chat_template_date must be a date"):
        lmtasks.run(make_task(), model=FakeModel([]), output_dir=tmp_path, chat_template_date=day)


def test_transformers_renders_the_date(on_day):
    on_day(2026, 11, 28)
    tokenizer = _tiny_tokenizer(chat=True)
    tokenizer.chat_template = DATED
    prompt = Renderer(make_task(), tokenizer).render(Example(id="1", inputs={"text": "t"}))
    assert tokenizer.decode(list(prompt.token_ids)).startswith("Today is 28 November 2026.\n<|im_start|>user\nSay t")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("strftime_now('%Y-%m-%d')", "2026-11-28"),
        ('strftime_now ("%-d %B %Y")', "28 November 2026"),
        ("strftime_now(format='%A')", "Saturday"),
        ("strftime_now('%Y' ~ '-%m',)", "2026-11"),
        ("strftime_now('100%% %H:%M')", "100% 00:00"),
        ("strftime_now('%Y%Z')", "2026"),
        ("(strftime_now('%d') | int) + 1", "29"),
    ],
)
def test_chat_template_renders_the_date_for_any_call_of_strftime_now(call, expected, on_day):
    on_day(2026, 11, 28)
    tokenizer = _tiny_tokenizer(chat=True)
    sources = [
        f"{{{{ {call} }}}}",
        f"{{% set clock = strftime_now %}}{{{{ {call.replace('strftime_now', 'clock')} }}}}",
    ]
    for source in [*sources, f"{{% macro m() %}}{{{{ {call} }}}}{{% endmacro %}}{{{{ m() }}}}"]:
        tokenizer.chat_template = source
        prompt = Renderer(make_task(), tokenizer).render(Example(id="1", inputs={"text": "t"}))
        assert tokenizer.decode(list(prompt.token_ids)) == expected


def test_run_warns_of_date_that_the_template_does_not_use(tmp_path, caplog):
    lmtasks.run(make_task(), model=FakeModel(whole), output_dir=tmp_path, chat_template_date="2020-02-29")
    assert "chat_template_date has no effect" in caplog.text


def test_adapter_keeps_its_date(tmp_path, on_day, caplog):
    on_day(2026, 11, 28)
    save_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(DATED)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"id": "{at}", "text": "number {at}", "references": "{at}"}}\n' for at in range(12)))
    options = {"data": data, "eval_limit": 2, "max_new_tokens": 2, "max_steps": 1, "validation": 0, "dtype": "float32"}
    options |= {"output_dir": tmp_path / "runs", "batch_size": 2}
    trained = lmtasks.train(make_task(), tmp_path / "adapter", model=tmp_path / "model", **options)
    assert trained.record.prompt.chat_template.date == "2026-11-28"
    for run in (trained.before, trained.after):
        assert run.record.prompt.chat_template.date == "2026-11-28"
    on_day(2026, 12, 1)
    run = lmtasks.run(
        make_task(),
        model=tmp_path / "model",
        adapter=tmp_path / "adapter",
        output_dir=tmp_path / "later",
        max_new_tokens=2,
    )
    assert run.record.prompt.chat_template.date == "2026-11-28"
    assert "no longer the one" not in caplog.text
