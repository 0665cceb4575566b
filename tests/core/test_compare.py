from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import CHRF, TER

import lmtasks
from lmtasks import Example, Generate, Measurement, Metric, Prompt, Run, Sample, ScoreSpec, Task
from lmtasks.errors import MetricError, PluginError, RunError, UnknownNameError, UsageError
from lmtasks.metrics.statistics import holm, paired_test
from lmtasks.runs.gates import Gate
from lmtasks.testing import FakeModel

N = 24
EXAMPLES = [
    Example(id=f"e{n}", inputs={"text": f"number {n}"}, references=(f"the answer to number {n} is as follows",))
    for n in range(N)
]
SAME = "The runs score the same."
TESTS = {"resamples": 200, "trials": 2000}

Answer = Callable[[int], str]
"""From the number of an example to what the model says."""


def right(n: int) -> str:
    return f"the answer to number {n} is as follows"


def nearly(n: int) -> str:
    return f"the answer to number {n} is as followed"


def wrong(n: int) -> str:
    return "xyz"


def nothing(n: int) -> str:
    return ""


def wrong_once(n: int) -> str:
    return wrong(n) if n == 5 else right(n)


def wrong_half(n: int) -> str:
    return wrong(n) if n % 2 else right(n)


def make_task(examples: Sequence[Example] = EXAMPLES, **changes) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(examples if split == "test" else [])},
        "metrics": ("exact_match", "chrf", "ter"),
        "output": Generate(max_new_tokens=10),
        "language": "en",
    }
    return Task(**(settings | changes))


def model(answer: Answer, **settings) -> FakeModel:
    return FakeModel(lambda prompt: answer(int(re.search(r"number (\d+)", prompt)[1])), **settings)


@pytest.fixture
def run(tmp_path):
    def run(answer: Answer, task: Task | None = None, **options) -> Run:
        return lmtasks.run(task or make_task(), model=model(answer), output_dir=tmp_path / "runs", **options)

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[Answer, Run]:
    """A run for each way to answer; no test changes them."""
    folder = tmp_path_factory.mktemp("runs")
    ways = (right, nearly, wrong, nothing, wrong_once, wrong_half)
    return {answer: lmtasks.run(make_task(), model=model(answer), output_dir=folder) for answer in ways}


def compare(*runs: Run, **changes):
    return lmtasks.compare(*runs, **(TESTS | changes))


def by_name(scores):
    return {score.name: score for score in scores}


def outcomes(comparison) -> dict[str, str]:
    return {score.name: score.outcome for score in comparison.scores}


def refused(error: type[Exception], runs: Sequence[Run], *problem: object, **changes) -> None:
    """See that a comparison is refused in one line that names all the runs and tells these things."""
    with pytest.raises(error) as caught:
        compare(*runs, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for thing in (*(run.path for run in runs), *problem):
        assert str(thing) in message


# Verdicts


def test_compare_run_with_itself_is_same(runs):
    [comparison] = compare(runs[wrong_half], runs[wrong_half])
    assert comparison.verdict == SAME
    for score in (*comparison.scores, *comparison.output_checks):
        assert (score.difference, score.low, score.high) == (0, 0, 0)
        assert (score.p_bootstrap, score.p_randomization, score.p_corrected) == (1, 1, 1)
        assert (score.outcome, score.significant) == ("same", False)
    assert comparison.changed == ()
    assert comparison.n == N


def test_compare_runs_with_equal_outputs_is_same(runs, run):
    [comparison] = compare(runs[wrong_half], run(wrong_half))
    assert comparison.verdict == SAME
    assert comparison.baseline.path != comparison.candidate.path


def test_compare_calls_clearly_better_run_better(runs):
    [comparison] = compare(runs[wrong], runs[right])
    assert outcomes(comparison) == dict.fromkeys(("exact_match", "chrF", "TER"), "better")
    assert comparison.verdict == "B is significantly better than A in exact_match, chrF, TER."
    assert by_name(comparison.scores)["TER"].difference == -100
    assert all(score.p_corrected < 0.05 for score in comparison.scores)


def test_compare_calls_clearly_worse_run_worse(runs):
    [comparison] = compare(runs[right], runs[wrong])
    assert outcomes(comparison) == dict.fromkeys(("exact_match", "chrF", "TER"), "worse")
    assert comparison.verdict == "B is significantly worse than A in exact_match, chrF, TER."


def test_compare_calls_better_and_worse_scores_mixed(runs):
    [comparison] = compare(runs[nearly], runs[wrong_half])
    assert outcomes(comparison) == {"exact_match": "better", "chrF": "worse", "TER": "worse"}
    assert comparison.verdict.startswith("Mixed: B is significantly better in exact_match and worse in chrF, TER")


def test_compare_shows_no_difference_for_one_changed_example(runs):
    [comparison] = compare(runs[right], runs[wrong_once])
    assert set(outcomes(comparison).values()) == {"no difference shown"}
    assert comparison.verdict.startswith("No significant difference is shown on these 24 examples")
    assert all(score.p_corrected > 0.5 for score in comparison.scores)
    assert by_name(comparison.scores)["exact_match"].difference == pytest.approx(-100 / N)


def test_verdict_names_scores_without_difference(runs):
    [comparison] = compare(runs[right], runs[nearly])
    assert outcomes(comparison) == {"exact_match": "worse", "chrF": "worse", "TER": "worse"}
    [comparison] = compare(runs[right], runs[nearly], metrics=("exact_match", "rouge"))
    # The stemmer leaves "follow" of both.
    assert comparison.verdict == (
        "B is significantly worse than A in exact_match; no difference is shown in rouge1, rouge2, rougeL, rougeLsum."
    )


# Numbers


def test_difference_is_candidate_minus_baseline(runs):
    [there] = compare(runs[nearly], runs[wrong_half])
    [back] = compare(runs[wrong_half], runs[nearly])
    for score, other in zip(there.scores, back.scores, strict=True):
        [first] = [one for one in runs[nearly].scores if one.name == score.name]
        [second] = [one for one in runs[wrong_half].scores if one.name == score.name]
        assert (score.baseline, score.candidate) == (first.value, second.value)
        assert (score.signature, score.unit, score.n) == (first.signature, first.unit, first.n)
        assert score.difference == second.value - first.value == -other.difference
        assert score.low <= score.difference <= score.high
        assert (score.low, score.high) == pytest.approx((-other.high, -other.low))


def test_compare_gives_p_of_paired_test(runs):
    [comparison] = compare(runs[right], runs[wrong_once], metrics=("exact_match",), seed=3)
    [score] = comparison.scores

    def measured(answer: Answer) -> Measurement:
        kind = ScoreSpec(name="exact_match", signature="")
        hits = np.array([[float(answer(n) == right(n)), 1.0] for n in range(N)])
        return Measurement(statistics=hits, specs=(kind,), combine=lambda sums: 100 * sums[..., :1] / sums[..., 1:])

    test = paired_test(measured(right), measured(wrong_once), **TESTS, seed=3)
    found = (score.low, score.high, score.p_bootstrap, score.p_randomization)
    assert found == pytest.approx((test.low[0], test.high[0], test.p_bootstrap[0], test.p_randomization[0]))


def test_compare_repeats_with_its_seed(runs):
    pair = runs[wrong_half], runs[nearly]
    [first], [again], [other] = (compare(*pair, metrics=("chrf",), seed=seed) for seed in (1, 1, 2))
    assert first.scores == again.scores
    assert first.scores[0].low != other.scores[0].low
    assert first.scores[0].difference == other.scores[0].difference


def test_compare_corrects_tests_of_all_runs_together(runs):
    ways = (wrong_once, right, wrong_half, wrong, nearly)
    comparisons = compare(*(runs[way] for way in ways))
    assert [comparison.candidate.path for comparison in comparisons] == [runs[way].path for way in ways[1:]]
    assert {comparison.baseline.path for comparison in comparisons} == {runs[wrong_once].path}
    tested = [score for comparison in comparisons for score in comparison.scores]
    assert len(tested) == 12
    assert [score.p_corrected for score in tested] == holm([score.p_randomization for score in tested])
    health = [score for comparison in comparisons for score in comparison.output_checks]
    assert [score.p_corrected for score in health] == holm([score.p_randomization for score in health])
    # Other tests at once make each of them harder to pass, and change nothing else.
    [alone] = compare(runs[wrong_once], runs[wrong])
    for score, among in zip(alone.scores, comparisons[2].scores, strict=True):
        assert among.p_corrected > score.p_corrected
        assert among.smallest_p > score.smallest_p
        assert replace(among, p_corrected=None, smallest_p=0) == replace(score, p_corrected=None, smallest_p=0)


def test_correction_may_remove_significance(runs, run):
    def wrong_on(count: int) -> Answer:
        return lambda n: wrong(n) if n < count else right(n)

    # 7 of 24: two in 2**7 ways to deal out the differences are as far apart, 0.016.
    one = run(wrong_on(7))
    [alone] = compare(runs[right], one, metrics=("exact_match",))
    assert alone.scores[0].outcome == "worse"
    among, *_ = compare(runs[right], one, *[run(wrong_on(6))] * 4, metrics=("exact_match",))
    assert among.scores[0].p_randomization == alone.scores[0].p_randomization < 0.05
    assert among.scores[0].outcome == "no difference shown"


def test_compare_includes_output_checks(runs):
    [comparison] = compare(runs[right], runs[nothing])
    health = by_name(comparison.output_checks)
    assert (health["empty"].baseline, health["empty"].candidate, health["empty"].outcome) == (0, 100, "worse")
    assert (health["length_ratio"].candidate, health["length_ratio"].outcome) == (0, "falls")
    assert (health["repeating"].outcome, health["repeating"].p_corrected) == ("same", 1)
    assert not set(health) & set(by_name(comparison.scores))


# What changed


def test_compare_shows_most_changed_examples(run):
    def before(n: int) -> str:
        return right(n)[: 5 + n].strip()

    def after(n: int) -> str:
        return right(n)[: 5 + (n * 7) % N].strip()

    [comparison] = compare(run(before), run(after), metrics=("chrf",))
    chrf = CHRF()
    scored = {
        n: tuple(chrf.sentence_score(text(n), [right(n)]).score for text in (before, after))
        for n in range(N)
        if before(n) != after(n)
    }
    order = sorted(scored, key=lambda n: scored[n][0] - scored[n][1])
    assert len({scored[n][1] - scored[n][0] for n in order}) == len(order), "ties would be in any order"
    expected = [*order[:3], *order[:-4:-1]]
    assert comparison.changed_by == "chrF"
    assert [example.id for example in comparison.changed] == [f"e{n}" for n in expected]
    for example, n in zip(comparison.changed, expected, strict=True):
        assert (example.baseline, example.candidate) == pytest.approx(scored[n])
        assert example.predictions == (before(n), after(n))


def test_changed_examples_are_sorted_by_most_sensitive_score(run):
    [comparison] = compare(run(lambda n: "x" * n), run(lambda n: right(n) if n == 3 else "t" * n))
    # One example has become right, but of t and x every reference has the first alone.
    assert comparison.changed_by == "chrF"
    assert comparison.changed[0].id == "e3"
    assert comparison.changed[0].candidate == 100


def test_compare_shows_only_changed_examples(runs):
    [comparison] = compare(runs[right], runs[wrong_once])
    assert [(example.id, example.predictions) for example in comparison.changed] == [("e5", (right(5), "xyz"))]


# Metrics


def test_compare_computes_requested_metrics(runs):
    [comparison] = compare(runs[right], runs[wrong_half], metrics=["chrf++", "f1"])
    assert [score.name for score in comparison.scores] == ["chrF++", "f1"]
    chrf = CHRF(word_order=2).corpus_score([wrong_half(n) for n in range(N)], [[right(n) for n in range(N)]])
    assert comparison.scores[0].candidate == pytest.approx(chrf.score)


def test_compare_warns_of_metrics_that_one_run_lacks(runs, run, caplog):
    [comparison] = compare(runs[right], run(wrong, metrics=("chrf", "f1")))
    assert [score.name for score in comparison.scores] == ["chrF"]
    [warning] = [record.getMessage() for record in caplog.records]
    assert "exact_match, f1, ter" in warning
    assert "name the metrics to compare" in warning


def test_compare_refuses_runs_without_common_metric(run):
    with pytest.raises(RunError, match=r"no metric.*name some with metrics"):
        compare(run(right, metrics=("rouge",)), run(right, metrics=("chrf",)))


class Length(Metric):
    """A metric of which nobody can say which way is better."""

    name = "length"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        lengths = np.array([[len(sample.prediction), 1.0] for sample in samples])
        kind = ScoreSpec(name="length", signature="length|v:1", unit="characters", higher_is_better=None)
        return Measurement(statistics=lengths, specs=(kind,), combine=lambda sums: sums[..., :1] / sums[..., 1:])


def test_compare_handles_metric_without_direction(runs):
    [comparison] = compare(runs[right], runs[wrong], metrics=(Length(),))
    [score] = comparison.scores
    assert (score.name, score.candidate, score.outcome) == ("length", 3, "falls")
    assert score.significant


def test_verdict_names_score_that_falls(runs):
    [comparison] = compare(runs[right], runs[wrong], metrics=(Length(),))
    assert "No significant difference" not in comparison.verdict
    [comparison] = compare(runs[right], runs[wrong], metrics=(Length(), "chrf"))
    assert "no difference is shown" not in comparison.verdict


def test_verdict_keeps_names_of_scores(runs):
    [comparison] = compare(runs[right], runs[wrong], metrics=(Length(),))
    assert re.search(r"\blength\b", comparison.verdict)


def test_compare_takes_one_metric_as_text(runs):
    [comparison] = compare(runs[right], runs[wrong], metrics="chrf")
    assert [score.name for score in comparison.scores] == ["chrF"]


def test_verdict_says_that_nothing_is_defined(runs):
    with pytest.raises(MetricError, match=r'perplexity.*"e0".*loglikelihood=True'):
        compare(runs[right], runs[wrong], metrics=("perplexity",))
    with pytest.raises(UnknownNameError, match="chrf"):
        compare(runs[right], runs[wrong], metrics=("chfr",))


def test_compare_does_not_test_one_example(run):
    one = make_task(EXAMPLES[:1])
    [comparison] = compare(run(right, one), run(wrong, one))
    assert set(outcomes(comparison).values()) == {"not tested"}
    assert comparison.verdict.startswith("Not tested")
    for score in comparison.scores:
        assert score.difference
        assert {score.low, score.high, score.p_bootstrap, score.p_randomization, score.p_corrected} == {None}


def test_verdict_separates_untested_from_no_difference(run):
    one = make_task(EXAMPLES[:1])
    [comparison] = compare(run(nearly, one), run(wrong, one))
    assert outcomes(comparison) == {"exact_match": "same", "chrF": "not tested", "TER": "not tested"}
    assert "No significant difference" not in comparison.verdict


# Sets in several languages


CHINESE = [
    Example(id=f"z{n}", inputs={"text": f"number {n}"}, references=("问题的答案如下",), language="zh")
    for n in range(10)
]


def test_compare_tests_each_language(run):
    task = make_task([*EXAMPLES, *CHINESE], metrics=("exact_match",))
    [comparison] = compare(run(right, task), run(wrong, task))
    found = {(score.language, score.n, score.difference) for score in comparison.scores}
    assert found == {("en", N, -100), ("zh", 10, 0)}
    assert comparison.n == N + 10


def test_verdict_names_languages(run):
    task = make_task([*EXAMPLES, *CHINESE], metrics=("exact_match",))
    [comparison] = compare(run(right, task), run(wrong, task))
    assert re.search(r"\ben\b", comparison.verdict)


# Runs that cannot be compared


OTHER_DATA = {
    "other ids": ([replace(example, id=f"x{example.id}") for example in EXAMPLES], ["ids", '"e0"', "xe0"]),
    "another order": ([*EXAMPLES[:22], EXAMPLES[23], EXAMPLES[22]], ["ids", '"e22"', "e23"]),
    "other references": (
        [*EXAMPLES[:7], replace(EXAMPLES[7], references=("another",)), *EXAMPLES[8:]],
        ["references", '"e7"', "another"],
    ),
    "one reference more": (
        [*EXAMPLES[:7], replace(EXAMPLES[7], references=(right(7), "another")), *EXAMPLES[8:]],
        ["references", '"e7"', "another"],
    ),
    "other inputs": ([replace(EXAMPLES[0], inputs={"text": "the number 0"}), *EXAMPLES[1:]], ["inputs", '"e0"']),
    "another language": ([replace(EXAMPLES[0], language="de"), *EXAMPLES[1:]], ["languages", '"e0"', "de"]),
    "fewer": (EXAMPLES[:20], ["24 and 20 examples"]),
}


@pytest.mark.parametrize(("examples", "problem"), OTHER_DATA.values(), ids=OTHER_DATA)
def test_compare_refuses_other_data_with_reason(runs, run, examples, problem):
    other = run(right, make_task(examples))
    refused(RunError, (runs[right], other), *problem)
    refused(RunError, (other, runs[right]), problem[0].replace("24 and 20", "20 and 24"))


def test_compare_checks_data_of_every_run(runs, run):
    other = run(right, limit=20)
    with pytest.raises(RunError, match="24 and 20 examples"):
        compare(runs[right], runs[wrong], other)


def test_compare_refuses_other_language(runs, run):
    refused(RunError, (runs[right], run(right, language="de")), "languages", "de")


def test_a_run_that_has_not_finished_is_refused(runs, tmp_path):
    said = []

    def interrupted(n: int) -> str:
        if len(said) == 5:
            raise KeyboardInterrupt
        said.append(n)
        return right(n)

    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=model(interrupted), output_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    for pair in ((runs[right], Run(folder)), (Run(folder), runs[right])):
        with pytest.raises(RunError) as caught:
            compare(*pair)
        assert str(folder) in str(caught.value)
        assert "interrupted" in str(caught.value)


LONG = Example(id="long", inputs={"text": "number 24 " + "word " * 20}, references=(right(24),))


def test_compare_refuses_example_skipped_by_one_run(run, tmp_path):
    task = make_task([*EXAMPLES, LONG])
    whole = run(right, task)
    short = model(right, context_length=60)
    skipping = lmtasks.run(task, model=short, output_dir=tmp_path, on_overlong="skip")
    assert skipping.record.counts.skipped == 1
    for pair in ((whole, skipping), (skipping, whole)):
        refused(RunError, pair, '"long"', f"skipped by {skipping.path} alone")


def test_compare_leaves_out_example_skipped_by_both(tmp_path):
    task = make_task([*EXAMPLES, LONG])
    skipping = [
        lmtasks.run(task, model=model(answer, context_length=60), output_dir=tmp_path, on_overlong="skip")
        for answer in (right, wrong_half)
    ]
    [comparison] = compare(*skipping)
    assert {score.n for score in comparison.scores} == {N}


def by_another_version(run: Run) -> Run:
    """The same run, as an upgrade that changed the scores of answers leaves it."""
    record = run.path / "run.json"
    text = record.read_text(encoding="utf-8")
    assert "norm:squad1.1|nrefs:1|agg:max|version:1|" in text
    record.write_text(text.replace("|agg:max|version:1|", "|agg:max|version:0|"), encoding="utf-8")
    return Run(run.path)


def test_compare_refuses_other_recorded_signatures(runs, run):
    other = by_another_version(run(wrong))
    refused(RunError, (runs[right], other), "exact_match", "version:1", "version:0", "name the metrics to compare")
    # Named metrics are computed anew for both, in the same way.
    assert compare(runs[right], other, metrics=("chrf", "exact_match"))[0].scores
    [comparison] = compare(runs[right], other, metrics=("chrf", "ter"))
    assert comparison.verdict == "B is significantly worse than A in chrF, TER."
    [comparison] = compare(other, other)
    assert comparison.verdict == SAME


class Tally(Length):
    """A metric whose signature tells of the outputs, as one may that adapts to them."""

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        measured = super().measure(samples, language)
        empty = sum(not sample.prediction for sample in samples)
        return replace(measured, specs=(ScoreSpec(name="length", signature=f"length|empty:{empty}"),))


def test_compare_refuses_other_computed_signatures(runs):
    refused(RunError, (runs[right], runs[nothing]), "length|empty:0|", "length|empty:24|", metrics=(Tally(),))
    [comparison] = compare(runs[right], runs[wrong], metrics=(Tally(),))
    assert comparison.scores[0].outcome == "worse"


def test_compare_with_metrics_ignores_recorded_signatures(run):
    stemmed, plain = run(right, metrics=("rouge",)), run(nearly, metrics=("rouge:nostem",))
    [comparison] = compare(stemmed, plain, metrics=("rouge",))
    assert comparison.verdict == SAME  # to the stemmer
    [comparison] = compare(stemmed, plain, metrics=("rouge:nostem",))
    assert set(outcomes(comparison).values()) == {"worse"}
    assert {"stem:no" in score.signature for score in comparison.scores} == {True}


def test_compare_refuses_perplexities_of_other_tokens(tmp_path):
    # Behind the cue of the plain form an answer begins with a space: a token more for a model of characters.
    task = make_task(prompts={"plain": Prompt(user="Say $text", answer_prefix="Answer:")})
    plain, chat = (
        lmtasks.run(task, model=model(right, chat=chat), output_dir=tmp_path, loglikelihood=True)
        for chat in (False, True)
    )
    tokens = sum(len(right(n)) for n in range(N))
    for metrics in (None, ("perplexity",)):
        refused(RunError, (plain, chat), f"tokens:{tokens}|", f"tokens:{tokens + N}|", metrics=metrics)
    [comparison] = compare(plain, chat, metrics=("loglikelihood",))
    [score] = comparison.scores
    assert score.name == "logprob_per_byte"
    assert (score.baseline, score.candidate) == pytest.approx((-np.log(2) * (tokens + N) / tokens, -np.log(2)))
    assert score.outcome == "better"


def test_compare_tests_log_likelihoods_of_equal_tokens(run):
    first, second = (run(answer, loglikelihood=True) for answer in (right, wrong))
    [comparison] = compare(first, second, metrics=("loglikelihood", "perplexity"))
    assert outcomes(comparison) == dict.fromkeys(("logprob_per_byte", "logprob_per_token", "perplexity"), "same")
    assert by_name(comparison.scores)["perplexity"].baseline == pytest.approx(2)


def test_compare_refuses_data_without_references(run):
    bare = make_task([replace(example, references=()) for example in EXAMPLES])
    first = run(right, bare)
    with pytest.raises(RunError, match="no references"):
        compare(first, first)


@pytest.mark.parametrize(
    ("count", "changes", "problem"),
    [
        (0, {}, "at least two"),
        (1, {}, "at least two"),
        (2, {"resamples": 1}, "resamples must be a whole number of at least 2"),
        (2, {"trials": 0}, "trials must be a whole number of at least 1"),
        (2, {"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_compare_refuses_too_few_runs_resamples_or_trials(runs, count, changes, problem):
    with pytest.raises(UsageError, match=problem):
        compare(*[runs[right]] * count, **changes)


def test_compare_names_folder_that_is_not_a_run(runs, tmp_path):
    with pytest.raises(RunError, match=r"not a run folder.*run\.json"):
        compare(runs[right], tmp_path)


# Outputs that were made elsewhere


def scored(folder: Path, name: str, answer: Answer, **changes) -> Path:
    data, outputs = folder / "data.jsonl", folder / name
    rows = [{"id": example.id, **example.inputs, "references": example.references} for example in EXAMPLES]
    data.write_text("\n".join(map(json.dumps, rows)))
    outputs.write_text("".join(f"{answer(n)}\n" for n in range(N)))
    path = lmtasks.score(
        make_task(), data=data, predictions=outputs, output_dir=folder / "scored", resamples=20, **changes
    ).path
    assert path is not None
    return path


def test_compare_takes_outputs_made_elsewhere(runs, tmp_path):
    good, bad = scored(tmp_path, "good.txt", right), scored(tmp_path, "bad.txt", wrong)
    for pair in ((bad, good), (str(bad), runs[right]), (runs[wrong].path, Run(good))):
        [comparison] = compare(*pair)
        assert comparison.verdict == "B is significantly better than A in exact_match, chrF, TER."
        # Whether an output made elsewhere was finished, nobody knows.
        assert "unfinished" not in by_name(comparison.output_checks)
        assert "empty" in by_name(comparison.output_checks)


def test_compare_refuses_outputs_with_other_signatures(runs, tmp_path):
    other = by_another_version(Run(scored(tmp_path, "a.txt", right)))
    refused(RunError, (other, runs[right]), "exact_match", "version:0", "version:1")


# Gates


@pytest.fixture(scope="module")
def worse(runs):
    [comparison] = compare(runs[right], runs[wrong_half])
    return comparison


@pytest.fixture(scope="module")
def better(runs):
    [comparison] = compare(runs[wrong_half], runs[right])
    return comparison


@pytest.fixture(scope="module")
def hardly(runs):
    [comparison] = compare(runs[right], runs[wrong_once])
    return comparison


@pytest.mark.parametrize(
    "condition",
    [
        "exact_match drops",
        "EXACT_MATCH  drops",
        " chrf drops ",
        "chrF drops by 5",
        "exact_match drops by 49.9",
        "exact_match drops by 0",
        "TER rises",
        "ter rises by 49.99",
        "length_ratio drops by 0.1",
    ],
)
def test_gate_fails_when_its_condition_holds(worse, condition):
    said = Gate.parse(condition).failing(worse)
    name, change, *_ = condition.split()
    assert said is not None
    assert said.lower().startswith(f"{name.lower()} {change} by ")


@pytest.mark.parametrize(
    "condition",
    [
        "exact_match rises",
        "exact_match rises by 0",
        "exact_match drops by 50",
        "chrF drops by 99",
        "TER drops",
        "TER drops by 1",
        "TER rises by 50",
        "empty rises",
    ],
)
def test_gate_passes_when_its_condition_does_not_hold(worse, condition):
    assert Gate.parse(condition).failing(worse) is None


@pytest.mark.parametrize("condition", ["TER drops", "exact_match rises", "chrF rises by 10"])
def test_gate_may_refuse_an_improvement(better, condition):
    assert Gate.parse(condition).failing(better)


def test_gate_reports_amount_of_change(worse):
    said = Gate.parse("exact_match drops").failing(worse)
    corrected = by_name(worse.scores)["exact_match"].p_corrected
    assert said == f"exact_match drops by 50.00, from 100.00 to 50.00, p = {corrected:.4f} corrected"
    [ter] = [score for score in worse.scores if score.name == "TER"]
    assert ter.candidate == pytest.approx(
        TER().corpus_score([wrong_half(n) for n in range(N)], [list(map(right, range(N)))]).score
    )
    assert f"to {ter.candidate:.2f}" in Gate.parse("TER rises").failing(worse)


def test_gate_without_number_requires_significance(hardly):
    assert Gate.parse("exact_match drops").failing(hardly) is None
    assert Gate.parse("exact_match drops by 4.16").failing(hardly)
    assert Gate.parse("exact_match drops by 4.17").failing(hardly) is None


def test_gate_on_unknown_score_names_known_scores(worse):
    with pytest.raises(UnknownNameError, match=r'"x"; the comparison has exact_match, chrF, TER, empty'):
        Gate.parse("x drops").failing(worse)


def test_gate_on_untested_score_needs_number(run):
    one = make_task(EXAMPLES[:1])
    [comparison] = compare(run(right, one), run(nearly, one))
    with pytest.raises(UsageError, match=r"chrF drops by NUMBER"):
        Gate.parse("chrF drops").failing(comparison)
    assert Gate.parse("chrF drops by 1").failing(comparison).startswith("chrF drops by ")
    assert Gate.parse("chrF drops by 99").failing(comparison) is None
    [same] = compare(comparison.baseline, comparison.baseline)
    assert Gate.parse("chrF drops").failing(same) is None


@pytest.mark.parametrize(
    "condition",
    ["", "chrF", "drops", "chrF falls", "chrF drops by", "chrF drops 5", "chrF drops by five", "chrF drops by -1",
     "chrF drops by 5%", "chrF drops by 5 points", "chrF drops, TER rises", "chrF < 5"],
)  # fmt: skip
def test_gate_refuses_other_conditions(condition):
    with pytest.raises(UsageError) as caught:
        Gate.parse(condition)
    assert f'"{condition}"' in str(caught.value)
    assert "SCORE drops by NUMBER" in str(caught.value)


# What is undefined


def test_changed_examples_exclude_undefined_values(run):
    unanswerable = [Example(id=f"u{n}", inputs={"text": f"number {n}"}, references=("",)) for n in range(N, 2 * N)]
    task = make_task(
        [*EXAMPLES, *unanswerable], metrics=("exact_match", "f1"), output=Generate(max_new_tokens=10, no_answer="none")
    )
    first = run(lambda n: right(n) if n < N else "", task)
    second = run(lambda n: (wrong(n) if n in (3, 7) else right(n)) if n < N else "", task)
    [comparison] = compare(first, second)
    assert {example.id for example in comparison.changed} == {"e3", "e7"}


def test_changed_examples_respect_direction(runs):
    [comparison] = compare(runs[right], runs[wrong_once], metrics=("ter",))
    assert (comparison.changed_by, [example.id for example in comparison.changed]) == ("TER", ["e5"])


def test_gate_on_five_examples_is_refused(run):
    five = make_task(EXAMPLES[:5], metrics=("exact_match",))
    [comparison] = compare(run(right, five), run(wrong, five))
    [score] = comparison.scores
    # All five have to be swapped, or none: 2 of 32 ways.
    assert score.p_randomization == score.smallest_p == 2 / 32
    assert "too few" in comparison.verdict
    with pytest.raises(UsageError, match="cannot be tested on 5 examples.*by NUMBER"):
        Gate.parse("exact_match drops").failing(comparison)
    assert Gate.parse("exact_match drops by 50").failing(comparison)


def test_verdict_is_not_same_for_equal_scores_of_other_outputs(run):
    task = make_task(metrics=("exact_match",))
    first, second = run(wrong_half, task), run(lambda n: right(n) if n % 2 else wrong(n), task)
    [comparison] = compare(first, second)
    assert comparison.scores[0].difference == 0
    assert comparison.scores[0].outcome == "no difference shown"
    assert comparison.verdict != SAME


class Undefined(Length):
    """A metric that is not defined on these examples."""

    name = "undefined"

    def measure(self, samples, language):
        measurement = super().measure(samples, language)
        return replace(measurement, combine=lambda sums: np.full((*sums.shape[:-1], 1), np.nan))


def test_verdict_does_not_call_undefined_scores_equal(runs, caplog):
    [comparison] = compare(runs[right], runs[wrong], metrics=(Undefined(),))
    assert comparison.verdict.startswith("Nothing to compare")
    scored = lmtasks.score(runs[right], metrics=(Undefined(), "chrf"))
    assert [score.name for score in scored.scores] == ["chrF"]
    assert "not defined" in caplog.text


def test_compare_names_failing_metric(runs):
    class Failing(Length):
        name = "failing"

        def measure(self, samples, language):
            return replace(super().measure(samples, language), combine=lambda sums: 1 / 0)

    with pytest.raises(PluginError, match='"failing" failed: ZeroDivisionError'):
        compare(runs[right], runs[wrong], metrics=(Failing(),))
