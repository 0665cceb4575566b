"""Two runs on the same examples: scores, differences, paired tests, a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
from lmtasks.runs.folder import Run
from lmtasks.task import Metric, Sample

ALPHA = 0.05
"""Differences with a corrected probability below this are called significant."""
SHOWN = 3
"""Examples that changed most, shown for each direction."""

Outcome = Literal["better", "worse", "rises", "falls", "no difference shown", "same", "not tested"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedScore:
    """A score of two runs. Differences are the second minus the first."""

    name: str
    language: str | None
    n: int
    unit: str
    higher_is_better: bool | None
    signature: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    """The 95% interval of the difference, by paired bootstrap; None: the score has no statistics per example."""
    p_bootstrap: float | None
    p_randomisation: float | None
    p_corrected: float | None
    """`p_randomisation` after Holm's correction over all scores and runs that are compared at once."""

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
        """What the second is, seen from the first."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedExample:
    """An example whose score differs much between the runs."""

    id: str
    first: float
    second: float
    predictions: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A run compared with the one that all are compared with."""

    first: Run
    second: Run
    n: int
    """Examples, paired."""
    scores: tuple[ComparedScore, ...]
    health: tuple[ComparedScore, ...]
    changed_by: str | None
    """The score that `changed` goes by: the one that tells most examples apart."""
    changed: tuple[ChangedExample, ...]
    """Those that gained most, then those that lost most."""

    @property
    def has_power(self) -> bool:
        """Whether any difference could be significant."""
        return any(score.has_power for score in self.scores)

    @property
    def verdict(self) -> str:
        """What the scores say together, in words, where the runs are A and B."""
        return self.verdict_of("A", "B")

    def verdict_of(self, first: str, second: str) -> str:
        """Return what the scores say together, in words, with these names for the runs."""
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
                f"Mixed: {second} is significantly better in {', '.join(better)} and worse in {', '.join(worse)}"
            )
        elif found := better or worse:
            parts.append(
                f"{second} is significantly {'better' if better else 'worse'} than {first} in {', '.join(found)}"
            )
        for outcome in ("rises", "falls"):
            if outcome in named:
                parts.append(f"{', '.join(named[outcome])} {outcome} significantly")
        if untested := named.get("not tested"):
            parts.append(f"not tested: {', '.join(untested)}")
        if rest := [*named.get("no difference shown", []), *named.get("same", [])]:
            if len(rest) == len(self.scores):
                n = max(score.n for score in self.scores)
                few = "" if self.has_power else ", too few of them or of trials to show one"
                parts.append(f"No significant difference is shown on these {n} examples{few}")
                parts.append("that does not prove there is none")
            else:
                parts.append(f"no difference is shown in {', '.join(rest)}")
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}." if text.startswith(("not tested", second)) else f"{text}."


def compare_runs(
    runs: Sequence[Run],
    metrics: Iterable[Metric],
    *,
    scored_alike: bool,
    resamples: int,
    trials: int,
    seed: int,
) -> list[Comparison]:
    """Compare runs with the first of them, on the same examples.

    Args:
        runs: at least two, finished, of the same data.
        metrics: to be computed anew for all.
        scored_alike: whether how the runs were scored before does not matter, for the metrics were named.
        resamples: of the paired bootstrap.
        trials: of the approximate randomisation.
        seed: of both.

    Raises:
        RunError: the runs cannot be compared; says why.
        LmtasksError: a metric failed.
    """
    metrics = tuple(metrics)
    samples = [_checked_samples(run) for run in runs]
    for run, own in zip(runs[1:], samples[1:], strict=True):
        _refuse_other_data(runs[0], samples[0], run, own)
    if not any(sample.references for sample in samples[0]):
        raise RunError(f"{runs[0].path}: its data has no references, so that there are no scores to compare")
    measured = [measure_samples(own, metrics) for own in samples]
    health = [measure_outputs(own) for own in samples]
    _refuse_other_signatures(runs, measured, scored_alike=scored_alike)

    def pair(kind: Sequence[Sequence[MetricResult]]) -> list[tuple[ComparedScore, ...]]:
        compared = [
            [
                score
                for ours, theirs in zip(kind[0], other, strict=True)
                for score in _compare(ours, theirs, resamples=resamples, trials=trials, seed=seed)
            ]
            for other in kind[1:]
        ]
        return _corrected(compared)

    return [
        Comparison(
            first=runs[0],
            second=run,
            n=len(samples[0]),
            scores=scores,
            health=sound,
            changed_by=by,
            changed=changed,
        )
        for run, scores, sound, (by, changed) in zip(
            runs[1:],
            pair(measured),
            pair(health),
            (_changed(measured[0], other) for other in measured[1:]),
            strict=True,
        )
    ]


def _checked_samples(run: Run) -> list[Sample]:
    if run.status != "finished":
        raise RunError(f"{run.path}: the run is {run.status}, not finished; run it again to finish it, then compare")
    return run.samples


def _refuse_other_data(first: Run, ours: Sequence[Sample], second: Run, theirs: Sequence[Sample]) -> None:
    where = f"{first.path} and {second.path} cannot be compared"
    if len(ours) != len(theirs):
        raise RunError(f"{where}: they have {len(ours)} and {len(theirs)} examples; compare runs of the same data")
    checks: tuple[tuple[str, Callable[[Sample], object]], ...] = (
        ("ids", lambda sample: sample.id),
        ("references", lambda sample: sample.references),
        ("inputs", lambda sample: dict(sample.inputs)),
        ("languages", lambda sample: sample.language),
    )
    for a, b in zip(ours, theirs, strict=True):
        for what, get in checks:
            if get(a) != get(b):
                raise RunError(
                    f'{where}: the {what} of example "{a.id}" differ ({_short(get(a))} and {_short(get(b))}); compare'
                    " runs of the same data"
                )
        if (a.finish == "skipped") != (b.finish == "skipped"):
            skipping = first if a.finish == "skipped" else second
            raise RunError(
                f'{where}: example "{a.id}" was skipped by {skipping.path} alone; use {option("on_overlong", "cut")}'
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_other_signatures(
    runs: Sequence[Run], measured: Sequence[Sequence[MetricResult]], *, scored_alike: bool
) -> None:
    """Refuse scores under one name that are made in different ways, by what is computed now or was when they ran."""
    now = [
        {(kind.name, one.language): one.signature(at) for one in own for at, kind in enumerate(one.measurement.specs)}
        for own in measured
    ]
    then = [{(score.name, score.language): score.signature for score in run.scores} for run in runs]
    for signatures in (now,) if scored_alike else (now, then):
        for run, own in zip(runs[1:], signatures[1:], strict=True):
            for key in now[0]:
                if key in own and key in signatures[0] and own[key] != signatures[0][key]:
                    raise RunError(
                        f"{runs[0].path} and {run.path} cannot be compared by {key[0]}, which is scored differently:"
                        f" {signatures[0][key]} and {own[key]}; name the metrics to compare with {option('metrics')}"
                    )


def _compare(
    ours: MetricResult, theirs: MetricResult, *, resamples: int, trials: int, seed: int
) -> Iterable[ComparedScore]:
    test: PairedTest | None = None
    with guarded_call(f"{ours.label} failed"):
        first, second = corpus_values(ours.measurement), corpus_values(theirs.measurement)
        if can_be_resampled(ours.measurement):
            test = paired_test(ours.measurement, theirs.measurement, resamples=resamples, trials=trials, seed=seed)

    for at, kind in enumerate(ours.measurement.specs):
        if not (math.isfinite(first[at]) and math.isfinite(second[at])):
            continue  # a score that is not defined on the outputs of one of them

        n = len(ours.samples) if kind.n is None else kind.n

        def told(array: str, at: int = at, n: int = n) -> float | None:
            value = float(getattr(test, array)[at]) if test and n > 1 else math.nan
            return None if math.isnan(value) else value

        yield ComparedScore(
            name=kind.name,
            language=ours.language,
            n=n,
            unit=kind.unit,
            higher_is_better=kind.higher_is_better,
            signature=ours.signature(at),
            first=float(first[at]),
            second=float(second[at]),
            difference=float(second[at] - first[at]),
            low=told("low"),
            high=told("high"),
            p_bootstrap=told("p_bootstrap"),
            p_randomisation=told("p_randomisation"),
            p_corrected=None,
            smallest_p=smallest_probability(n, trials),
        )


def _corrected(compared: Sequence[Sequence[ComparedScore]]) -> list[tuple[ComparedScore, ...]]:
    """Correct all tests that were made at once, of all runs together."""
    tested = [score.p_randomisation for scores in compared for score in scores if score.p_randomisation is not None]
    corrected = iter(holm(tested))
    return [
        tuple(
            replace(
                score,
                p_corrected=None if score.p_randomisation is None else next(corrected),
                smallest_p=min(1.0, len(tested) * score.smallest_p),
            )
            for score in scores
        )
        for scores in compared
    ]


def _changed(
    ours: Sequence[MetricResult], theirs: Sequence[MetricResult]
) -> tuple[str | None, tuple[ChangedExample, ...]]:
    """Return the examples that changed most, by the score that tells most of them apart."""
    name, most, sign = None, 0, 1
    values: list[tuple[float, float, Sample, Sample]] = []
    for mine, other in zip(ours, theirs, strict=True):
        if not can_be_resampled(mine.measurement):
            continue
        with guarded_call(f"{mine.label} failed"):
            first, second = (one.measurement.combine(one.measurement.statistics) for one in (mine, other))
        told = np.isfinite(first) & np.isfinite(second)
        for at, kind in enumerate(mine.measurement.specs):
            apart = int((told & (first != second))[:, at].sum())
            # Scores of what was written: a likelihood has nothing to show.
            if apart > most and kind.unit == "0-100" and kind.higher_is_better is not None:
                name, most, sign = kind.name, apart, 1 if kind.higher_is_better else -1
                rows = zip(first[:, at], second[:, at], mine.samples, other.samples, told[:, at], strict=True)
                values = [(a, b, sample, changed) for a, b, sample, changed, known in rows if known]
    gained = sorted(values, key=lambda value: sign * (value[0] - value[1]))
    chosen = [value for value in gained[:SHOWN] if sign * (value[1] - value[0]) > 0]
    chosen += [value for value in reversed(gained[-SHOWN:]) if sign * (value[1] - value[0]) < 0]
    return name, tuple(
        ChangedExample(id=a.id, first=float(first), second=float(second), predictions=(a.prediction, b.prediction))
        for first, second, a, b in chosen
    )
