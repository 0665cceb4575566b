"""Runs compared on the same examples: scores, differences, paired tests, a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from lmtasks.errors import RunError, option
from lmtasks.isolation import guarded_call
from lmtasks.metrics import MetricResult, measure_outputs, measure_samples
from lmtasks.metrics.statistics import (
    PairedTest,
    can_be_resampled,
    corpus_values,
    holm,
    paired_test,
    smallest_probability,
)
from lmtasks.records.adapter import ComparedScoreRecord
from lmtasks.runs.folder import Run
from lmtasks.task import Metric, Sample

ALPHA = 0.05
"""Differences with a corrected probability below this are called significant."""
SHOWN = 3
"""Examples that changed most, shown for each direction."""

Outcome = Literal["better", "worse", "rises", "falls", "no difference shown", "same", "not tested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedScore:
    """A score of two runs. Differences are candidate minus baseline."""

    name: str
    language: str | None
    n: int
    unit: str
    higher_is_better: bool | None
    signature: str
    baseline: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    """The 95% interval of the difference, by paired bootstrap; None: the score has no statistics per example."""
    p_bootstrap: float | None
    p_randomization: float | None
    p_corrected: float | None
    """`p_randomization` after Holm's correction over all scores and runs that are compared at once."""

    smallest_p: float
    """The smallest `p_corrected` that so many examples and trials, and so many scores at once, can give."""

    @property
    def has_power(self) -> bool:
        """Whether any difference could be significant."""
        return self.smallest_p < ALPHA

    @property
    def significant(self) -> bool:
        """Whether the corrected probability is below `ALPHA`."""
        return self.p_corrected is not None and self.p_corrected < ALPHA

    @property
    def outcome(self) -> Outcome:
        """What the candidate is, compared with the baseline."""
        if self.difference == 0 and self.low in (0, None) and self.high in (0, None):
            return "same"
        if self.p_corrected is None:
            return "not tested"
        if not self.significant:
            return "no difference shown"
        rises = self.difference > 0
        if self.higher_is_better is None:
            return "rises" if rises else "falls"
        return "better" if rises is self.higher_is_better else "worse"


def compared_score_record(score: ComparedScore) -> ComparedScoreRecord:
    """Return the record of a compared score."""
    return ComparedScoreRecord(**asdict(score), outcome=score.outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedExample:
    """An example whose score differs much between the runs."""

    id: str
    baseline: float
    candidate: float
    predictions: tuple[str, str]
    """The baseline's and the candidate's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A run (candidate) compared with the first one (baseline)."""

    baseline: Run
    candidate: Run
    n: int
    """Number of paired examples."""
    scores: tuple[ComparedScore, ...]
    output_checks: tuple[ComparedScore, ...]
    changed_by: str | None
    """The score that `changed` is sorted by: the one that differs for most examples."""
    changed: tuple[ChangedExample, ...]
    """Examples that gained most, then those that lost most."""

    @property
    def has_power(self) -> bool:
        """Whether any difference could be significant."""
        return any(score.has_power for score in self.scores)

    @property
    def verdict(self) -> str:
        """The result of the comparison in words, where the runs are A and B."""
        return self.verdict_of("A", "B")

    def verdict_of(self, baseline: str, candidate: str) -> str:
        """Return the result of the comparison in words, with these names for the runs."""
        if not self.scores:
            return "Nothing to compare: no score is defined on the outputs of both."
        mixed = len({score.language for score in self.scores}) > 1
        named: dict[Outcome, list[str]] = {}
        for score in self.scores:
            named.setdefault(score.outcome, []).append(f"{score.name} ({score.language})" if mixed else score.name)
        if len(named.get("same", [])) == len(self.scores):
            return "The runs score the same."
        better, worse = named.get("better", []), named.get("worse", [])
        parts = []
        if better and worse:
            parts.append(
                f"Mixed: {candidate} is significantly better in {', '.join(better)} and worse in {', '.join(worse)}"
            )
        elif changed := better or worse:
            parts.append(
                f"{candidate} is significantly {'better' if better else 'worse'} than {baseline} in"
                f" {', '.join(changed)}"
            )
        for outcome in ("rises", "falls"):
            if outcome in named:
                parts.append(f"{', '.join(named[outcome])} {outcome} significantly")
        if untested := named.get("not tested"):
            parts.append(f"not tested: {', '.join(untested)}")
        if rest := [*named.get("no difference shown", []), *named.get("same", [])]:
            if len(rest) == len(self.scores):
                n = max(score.n for score in self.scores)
                few = "" if self.has_power else ", which are too few, or the trials are, to show one"
                parts.append(f"No significant difference is shown on these {n} examples{few}")
                parts.append("that does not prove there is none")
            else:
                parts.append(f"no difference is shown in {', '.join(rest)}")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}." if text.startswith(("not tested", candidate)) else f"{text}."


def compare_runs(
    runs: Sequence[Run],
    metrics: Iterable[Metric],
    *,
    ignore_recorded_signatures: bool,
    resamples: int,
    trials: int,
    seed: int,
) -> list[Comparison]:
    """Compare runs with the first one, on the same examples.

    Args:
        runs: at least two, finished, of the same data.
        metrics: computed again for all.
        ignore_recorded_signatures: whether runs may have been scored differently before: the metrics were named.
        resamples: number of resamples of the paired bootstrap.
        trials: number of trials of the approximate randomization.
        seed: seed of both.

    Raises:
        RunError: the runs cannot be compared; says why.
        LmtasksError: a metric failed.
    """
    metrics = tuple(metrics)
    samples = [_checked_samples(run) for run in runs]
    for run, others in zip(runs[1:], samples[1:], strict=True):
        _refuse_other_data(runs[0], samples[0], run, others)
    if not any(sample.references for sample in samples[0]):
        raise RunError(f"{runs[0].path}: its data has no references, so there are no scores to compare")
    measured = [measure_samples(one, metrics) for one in samples]
    checked = [measure_outputs(one) for one in samples]
    _refuse_other_signatures(runs, measured, ignore_recorded_signatures=ignore_recorded_signatures)

    def pair(results: Sequence[Sequence[MetricResult]]) -> list[tuple[ComparedScore, ...]]:
        compared = [
            [
                score
                for baseline, candidate in zip(results[0], other, strict=True)
                for score in _compare(baseline, candidate, resamples=resamples, trials=trials, seed=seed)
            ]
            for other in results[1:]
        ]
        return _corrected(compared)

    return [
        Comparison(
            baseline=runs[0],
            candidate=run,
            n=len(samples[0]),
            scores=scores,
            output_checks=checks,
            changed_by=by,
            changed=changed,
        )
        for run, scores, checks, (by, changed) in zip(
            runs[1:],
            pair(measured),
            pair(checked),
            (_changed(measured[0], other) for other in measured[1:]),
            strict=True,
        )
    ]


def _checked_samples(run: Run) -> list[Sample]:
    if run.status != "finished":
        raise RunError(f"{run.path}: the run is {run.status}, not finished; run it again to finish it, then compare")
    return run.samples


def _refuse_other_data(baseline: Run, samples: Sequence[Sample], candidate: Run, others: Sequence[Sample]) -> None:
    where = f"{baseline.path} and {candidate.path} cannot be compared"
    if len(samples) != len(others):
        raise RunError(f"{where}: they have {len(samples)} and {len(others)} examples; compare runs of the same data")
    checks: tuple[tuple[str, Callable[[Sample], object]], ...] = (
        ("ids", lambda sample: sample.id),
        ("references", lambda sample: sample.references),
        ("inputs", lambda sample: dict(sample.inputs)),
        ("languages", lambda sample: sample.language),
    )
    for a, b in zip(samples, others, strict=True):
        for what, get in checks:
            if get(a) != get(b):
                raise RunError(
                    f'{where}: the {what} of example "{a.id}" differ ({_short(get(a))} and {_short(get(b))}); compare'
                    " runs of the same data"
                )
        if (a.finish_reason == "skipped") != (b.finish_reason == "skipped"):
            skipping = baseline if a.finish_reason == "skipped" else candidate
            raise RunError(
                f'{where}: example "{a.id}" was skipped by {skipping.path} alone; use'
                f" {option('on_overlong', 'truncate')}"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_other_signatures(
    runs: Sequence[Run], measured: Sequence[Sequence[MetricResult]], *, ignore_recorded_signatures: bool
) -> None:
    """Refuse scores of one name with different signatures, computed now or recorded by the runs."""
    now = [
        {
            (spec.name, result.language): result.signature(index)
            for result in results
            for index, spec in enumerate(result.measurement.specs)
        }
        for results in measured
    ]
    then = [{(score.name, score.language): score.signature for score in run.scores} for run in runs]
    for signatures in (now,) if ignore_recorded_signatures else (now, then):
        for run, others in zip(runs[1:], signatures[1:], strict=True):
            for key in now[0]:
                if key in others and key in signatures[0] and others[key] != signatures[0][key]:
                    raise RunError(
                        f"{runs[0].path} and {run.path} cannot be compared by {key[0]}, which is scored differently:"
                        f" {signatures[0][key]} and {others[key]}; name the metrics to compare with {option('metrics')}"
                    )


def _compare(
    baseline: MetricResult, candidate: MetricResult, *, resamples: int, trials: int, seed: int
) -> Iterable[ComparedScore]:
    test: PairedTest | None = None
    with guarded_call(f"{baseline.label} failed"):
        before, after = corpus_values(baseline.measurement), corpus_values(candidate.measurement)
        if can_be_resampled(baseline.measurement):
            test = paired_test(
                baseline.measurement, candidate.measurement, resamples=resamples, trials=trials, seed=seed
            )

    for index, spec in enumerate(baseline.measurement.specs):
        if not (math.isfinite(before[index]) and math.isfinite(after[index])):
            continue  # a score that is not defined on the outputs of one of them

        n = len(baseline.samples) if spec.n is None else spec.n

        def finite_or_none(array: str, index: int = index, n: int = n) -> float | None:
            value = float(getattr(test, array)[index]) if test and n > 1 else math.nan
            return None if math.isnan(value) else value

        yield ComparedScore(
            name=spec.name,
            language=baseline.language,
            n=n,
            unit=spec.unit,
            higher_is_better=spec.higher_is_better,
            signature=baseline.signature(index),
            baseline=float(before[index]),
            candidate=float(after[index]),
            difference=float(after[index] - before[index]),
            low=finite_or_none("low"),
            high=finite_or_none("high"),
            p_bootstrap=finite_or_none("p_bootstrap"),
            p_randomization=finite_or_none("p_randomization"),
            p_corrected=None,
            smallest_p=smallest_probability(n, trials),
        )


def _corrected(compared: Sequence[Sequence[ComparedScore]]) -> list[tuple[ComparedScore, ...]]:
    """Correct all tests that were made at once, of all runs together."""
    tested = [score.p_randomization for scores in compared for score in scores if score.p_randomization is not None]
    corrected = iter(holm(tested))
    return [
        tuple(
            replace(
                score,
                p_corrected=None if score.p_randomization is None else next(corrected),
                smallest_p=min(1.0, len(tested) * score.smallest_p),
            )
            for score in scores
        )
        for scores in compared
    ]


def _changed(
    baselines: Sequence[MetricResult], candidates: Sequence[MetricResult]
) -> tuple[str | None, tuple[ChangedExample, ...]]:
    """Return the examples that changed most, by the score that differs for most of them."""
    name, most, sign = None, 0, 1
    values: list[tuple[float, float, Sample, Sample]] = []
    for baseline, candidate in zip(baselines, candidates, strict=True):
        if not can_be_resampled(baseline.measurement):
            continue
        with guarded_call(f"{baseline.label} failed"):
            before, after = (one.measurement.combine(one.measurement.statistics) for one in (baseline, candidate))
        defined = np.isfinite(before) & np.isfinite(after)
        for index, spec in enumerate(baseline.measurement.specs):
            different = int((defined & (before != after))[:, index].sum())
            # Scores of what was written: a likelihood has no text to show.
            if different > most and spec.unit == "0-100" and spec.higher_is_better is not None:
                name, most, sign = spec.name, different, 1 if spec.higher_is_better else -1
                rows = zip(
                    before[:, index],
                    after[:, index],
                    baseline.samples,
                    candidate.samples,
                    defined[:, index],
                    strict=True,
                )
                values = [(a, b, sample, changed) for a, b, sample, changed, known in rows if known]
    gained = sorted(values, key=lambda value: sign * (value[0] - value[1]))
    chosen = [value for value in gained[:SHOWN] if sign * (value[1] - value[0]) > 0]
    chosen += [value for value in reversed(gained[-SHOWN:]) if sign * (value[1] - value[0]) < 0]
    return name, tuple(
        ChangedExample(
            id=a.id, baseline=float(before), candidate=float(after), predictions=(a.prediction, b.prediction)
        )
        for before, after, a, b in chosen
    )
