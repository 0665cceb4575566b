"""A run as a Markdown report, made from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmtasks import markdown
from lmtasks.errors import RunError
from lmtasks.files import atomic_write
from lmtasks.reports.fine_tuning import CURVE, fine_tuning_sections
from lmtasks.reports.learning_curve import write_learning_curve
from lmtasks.reports.values import HEALTH, interval, number, rounding_loss
from lmtasks.runs import Run
from lmtasks.task import Sample, Score

ENGINES = {
    "slots": "packed prompts and slots",
    "generate": "generate of transformers (the architecture cannot be packed)",
}
"""What computed answers, as it is told."""
SHOWN_SAMPLES = 5
LONGEST_QUOTE = 600
"""Characters of a text that a report quotes."""
FILE = "report.md"


def write_report(run: Run) -> None:
    """Write report.md into a run folder.

    Raises:
        RunError: the run is damaged, or the folder cannot be written.
    """
    report = markdown_report(run)
    if training := run.record.get("training"):
        write_learning_curve(run.path / CURVE, training["training"])
    try:
        atomic_write(run.path / FILE, report.encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"{run.path / FILE}: cannot be written ({error})") from error


def markdown_report(run: Run) -> str:
    """Return the report of a run: scores, outputs, speed, how it was made, and some samples."""
    record = run.record
    parts = [
        f"# {markdown.inline(record['task']['name'])} with {markdown.inline(record['model']['name'])}"
        + (" and an adapter" if record.get("adapter") else ""),
        _summary(record),
        "## Scores",
        score_table(run.scores) if run.scores else _no_scores(run),
        *(fine_tuning_sections(record["training"]) if record.get("training") else []),
        "## Outputs",
        *([_health_table(run.health)] if run.health else []),
        _outputs(record),
        "## How it was made",
        _origin(record),
        "## Samples",
        *_samples(run.samples),
    ]
    return "\n\n".join(parts) + "\n"


def _no_scores(run: Run) -> str:
    return (
        f"No scores: {markdown.inline(run.why_no_scores)}."
        if run.status == "finished"
        else "None: the run has not finished."
    )


def score_table(scores: Sequence[Score]) -> str:
    """Return scores with their signatures as a Markdown table."""
    rows = [
        (
            score.name,
            score.language or "unknown",
            score.n,
            number(score.value, score.unit),
            interval(score.low, score.high, score.unit),
            _better(score),
            score.signature,
        )
        for score in scores
    ]
    header = ("score", "language", "n", "value", "95% interval", "better", "signature")
    return markdown.table(header, rows, right=(2, 3), spans=(6,))


def _health_table(scores: Sequence[Score]) -> str:
    rows = [
        (
            HEALTH.get(score.name, score.name),
            number(score.value, score.unit) + ("%" if score.unit == "0-100" else ""),
            interval(score.low, score.high, score.unit),
            _better(score),
        )
        for score in scores
    ]
    return markdown.table(("outputs", "value", "95% interval", "better"), rows, right=(1,))


def _better(score: Score) -> str:
    return {True: "higher", False: "lower", None: ""}[score.higher_is_better]


def _summary(record: Mapping[str, Any]) -> str:
    data, prompt = record["data"], record["prompt"]
    split = markdown.inline(f', split "{data["split"]}"') if data["split"] else ""
    asked = ", outputs made elsewhere"
    if prompt:
        asked = f", prompt {markdown.code(prompt['name'])} ({markdown.inline(prompt['form'])} form)"
    text = (
        f"{data['count']} examples of {markdown.code(data['name'])}{split}{asked},"
        f" {markdown.inline(record['started'])}. Status: {markdown.inline(record['status'])}."
    )
    return f"{text}\n\nIt failed: {markdown.inline(record['error'])}" if record["error"] else text


def _outputs(record: Mapping[str, Any]) -> str:
    counts = record["counts"]
    said = {
        "scored": "have references and were scored",
        "unparsed": "outputs could not be read by the task; they count as empty",
        "empty": "outputs are empty where an answer was expected; they count in every score",
        "unfinished": "outputs were ended by the limit of new tokens",
        "unanswered": "outputs are reasoning without an answer; they count as giving none",
        "cut": "prompts lost text to fit the model",
        "skipped": "examples were skipped as too long, and are in no score",
        "reused": "samples were taken over from an interrupted run",
    }
    if record["prompt"] is None:  # made elsewhere: nothing more is known of them
        said = {name: said[name] for name in ("scored", "empty")}
    lines = [f"- {counts.get(name, 0)} of {record['data']['count']} {text}" for name, text in said.items()]
    if record["prompt"] is None:
        return "\n".join(lines)
    seconds, tokens = record["timings"]["generate_seconds"], record["tokens"]
    made = counts["examples"] - counts["skipped"]
    if seconds and made:
        lines.append(
            f"- {seconds:.1f} s of generation: {made / seconds:.2f} examples/s,"
            f" {tokens['completion'] / seconds:.1f} new tokens/s after {tokens['prompt']} prompt tokens"
        )
    if reasoning := tokens.get("reasoning"):
        lines.append(f"- {reasoning} of {tokens['completion']} new tokens are reasoning, which no score sees")
    if record["peak_memory_bytes"]:
        lines.append(f"- {record['peak_memory_bytes'] / 2**30:.2f} GiB peak memory of the process")
    return "\n".join(lines)


def _origin(record: Mapping[str, Any]) -> str:
    task, model, data, machine = record["task"], record["model"], record["data"], record["environment"]
    git = machine["git"]
    origin = f"{task['distribution']} {task['distribution_version']}" if task["distribution"] else "Python"
    intervals = record.get("intervals")
    values = {
        "task": f"{task['name']}, version {task['version']}, from {origin}",
        "parameters": ", ".join(f"{name} {value}" for name, value in task.get("parameters", {}).items()),
        **(_made_by_model(record) if record["prompt"] else {"outputs": f"{model['name']}, {model['revision']}"}),
        "data": f"{data['name']}, examples' SHA-256 {data['sha256']}",
        "data file": data["file_sha256"] and f"SHA-256 {data['file_sha256']}",
        "intervals": intervals
        and f"{intervals['method']}, {intervals['resamples']} resamples, seed {intervals['seed']}",
        "versions": ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        "machine": f"Python {machine['python']}, {machine['platform']}, {machine['cpu_count']} CPUs",
        "started in": git and f"git {git['commit']}{', with uncommitted changes' if git['dirty'] else ''}",
    }
    return markdown.facts({name: value for name, value in values.items() if value not in (None, "")})


def _made_by_model(record: Mapping[str, Any]) -> dict[str, object]:
    model, prompt = record["model"], record["prompt"]
    fewshot = prompt["fewshot"]
    size = f"{model['architecture']}, {model['parameters']:,} parameters"
    return {
        "model": f"{model['name']} ({size}, from {model['source']})",
        "weights": model["revision"],
        "adapter": _adapter(record.get("adapter")),
        "computed in": f"{model['dtype']} on {model['device']}{_rounding(record)}",
        "answered by": ENGINES.get(str(record.get("engine"))),
        "prompts": f"SHA-256 {prompt['sha256']} of all as rendered",
        "chat template": _chat_template(prompt.get("chat_template")),
        "few-shot": fewshot
        and f"{len(fewshot['ids'])} of {fewshot['data']} ({fewshot['split']}): {', '.join(fewshot['ids'])}",
        "generation": ", ".join(f"{name} {value!r}" for name, value in record["generation"].items()),
        "seed": record["seed"],
        "remote code": "allowed" if model["remote_code"] else None,
    }


def _chat_template(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return ""
    told = {**settings["kwargs"], **({"date": settings["date"]} if settings["date"] else {})}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _rounding(record: Mapping[str, Any]) -> str:
    kind, found = record["model"].get("quantize", "none"), record.get("rounding")
    if kind == "none":
        return ""
    return f", linear layers rounded to {kind}" + (f" ({rounding_loss(found)})" if found else "")


def _adapter(adapter: Mapping[str, Any] | None) -> str | None:
    if adapter is None:
        return None
    trained = f"trained for {adapter['task']}, " if adapter["task"] else ""
    kinds = "".join(f", {name}" for name in ("rslora", "dora") if adapter[name])
    return (
        f"{adapter['source']} ({trained}rank {adapter['rank']}, alpha {adapter['alpha']:g}{kinds}), SHA-256"
        f" {adapter['sha256']}; moves logits by up to {adapter['effect']:.2f}"
    )


def _samples(samples: Sequence[Sample]) -> list[str]:
    # Evenly over the data, so that a sorted file does not show one kind alone.
    step = max(1, len(samples) // SHOWN_SAMPLES)
    parts = []
    for sample in samples[::step][:SHOWN_SAMPLES]:
        parts.append(f"### {markdown.code(sample.id)}")
        parts += [f"{markdown.paragraph(name)}:\n\n{_quote(text)}" for name, text in sample.inputs.items()]
        ended = "" if sample.finish == "unknown" else f" ({markdown.inline(sample.finish)})"
        if sample.reasoning:
            parts.append(f"reasoning ({sample.reasoning_tokens} tokens):\n\n{_quote(sample.reasoning)}")
        parts.append(f"prediction{ended}:\n\n{_quote(sample.prediction)}")
        parts += [f"reference:\n\n{_quote(text)}" for text in sample.references[:1]]
    return parts


def _quote(text: str) -> str:
    short = text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]} [...]"
    return markdown.indented(short)
