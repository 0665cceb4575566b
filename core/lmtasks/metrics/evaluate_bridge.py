"""Metrics of the `evaluate` library as ours, and ours as metrics of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmtasks.compat.scores import module_hash
from lmtasks.errors import MetricError
from lmtasks.isolation import guarded_call, shortened
from lmtasks.metrics.scoring import score_samples
from lmtasks.task import Measurement, Metric, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray

PREFIX = "evaluate:"


@dataclass(frozen=True, slots=True)
class EvaluateMetric(Metric):
    """A module of `evaluate`, named by its id or the path of its folder or script.

    Its scores are the numbers that it returns. It is given the whole corpus, so that they have no intervals.
    """

    name: str
    """With the prefix "evaluate:"."""

    def check(self) -> None:
        """Load the module, so that its errors are found before a model is loaded.

        Raises:
            MetricError: it cannot be loaded, or does not compare texts.
        """
        _accepts_several_references(self.name, _load(self.name))

    def check_references(self, most: int) -> None:
        """Check that the module accepts as many references per example as the data has.

        Raises:
            MetricError: it accepts one, and there are several.
        """
        if most > 1 and not _accepts_several_references(self.name, _load(self.name)):
            raise MetricError(f'metric "{self.name}" takes one reference per example, and some have {most}')

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Compute the module's scores, as `Metric.measure` describes.

        Raises:
            MetricError: the module cannot be loaded, or does not accept texts or several references.
        """
        module = _load(self.name)
        self.check_references(max(len(sample.references) for sample in samples))
        references: list[Any] = [list(sample.references) for sample in samples]
        if not _accepts_several_references(self.name, module):
            references = [texts[0] for texts in references]
        result = module.compute(predictions=[sample.prediction for sample in samples], references=references)
        if not isinstance(result, Mapping):
            raise MetricError(f'metric "{self.name}" returned {type(result).__name__}, expected numbers by name')
        numbers = {shortened(str(key)): float(value) for key, value in result.items() if isinstance(value, Real)}
        if not numbers:
            raise MetricError(f'metric "{self.name}" returned no number, but {shortened(", ".join(map(str, result)))}')
        code = f"module:{(module_hash(module) or 'unknown')[:12]}|evaluate:{version('evaluate')}"
        specs = [
            ScoreSpec(
                name=(name := self._score_name(key, module)),
                signature=f"{name}|{code}",
                unit=f"as {self.name} returns it",
                higher_is_better=None,
            )
            for key in numbers
        ]
        values = np.array(list(numbers.values()))

        def combine(sums: FloatArray) -> FloatArray:
            return np.broadcast_to(values, (*sums.shape[:-1], len(values)))

        return Measurement(statistics=np.zeros((len(samples), 0)), specs=tuple(specs), combine=combine)

    def _score_name(self, key: str, module: Any) -> str:
        name = f"{PREFIX}{Path(self.name.removeprefix(PREFIX)).stem}"
        return name if key in (module.name, name.removeprefix(PREFIX)) else f"{name}/{key}"


def as_evaluate(metric: Metric, *, language: str | None = None) -> Any:
    """Return a metric as an `evaluate.Metric`, for code that expects one; `evaluate.combine` accepts it too.

    Its `compute(predictions=..., references=...)` accepts a text or a list of texts as the references of an example. It
    returns the scores by name, on the same scale as here, and "signatures". A set in several languages has a score for
    each language, with the language after its name.

    Args:
        metric: a built-in one or one of a plugin.
        language: of the references, a BCP 47 tag; None: read from their script.
    """
    import datasets
    import evaluate

    text = datasets.Value("string")

    class Bridged(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description=f"{metric.name} as lmtasks computes it",
                citation="",
                inputs_description="predictions: texts; references: for each a text, or a list of texts",
                features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
            )

        def add_batch(
            self, *, predictions: Sequence[str] | None = None, references: Sequence[str | Sequence[str]] | None = None
        ) -> None:
            """Add outputs and the references of each, a text or a list of texts."""
            listed = references and [[texts] if isinstance(texts, str) else texts for texts in references]
            evaluate.Metric.add_batch(self, predictions=predictions, references=listed)

        def add(self, *, prediction: str | None = None, reference: str | Sequence[str] | None = None) -> None:
            """Add an output and its references, a text or a list of texts."""
            listed = [reference] if isinstance(reference, str) else reference
            evaluate.Metric.add(self, prediction=prediction, reference=listed)

        def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, object]:
            return _computed(metric, predictions, references, language)

    Bridged.__name__ = "Lmtasks" + "".join(part.capitalize() for part in metric.name.replace("+", "p").split(":"))
    return Bridged()


def _computed(
    metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]], language: str | None
) -> dict[str, object]:
    if not predictions:
        raise MetricError("no predictions: there is nothing to score")
    for index, texts in enumerate(references):
        if not texts:
            raise MetricError(f"references[{index}] is empty: every prediction needs at least one reference")
    samples = [
        Sample(
            index=index,
            id=str(index),
            inputs={},
            references=tuple(texts),
            prediction=prediction,
            language=language,
            finish_reason="unknown",
        )
        for index, (prediction, texts) in enumerate(zip(predictions, references, strict=True))
    ]
    scores = score_samples(samples, [metric], resamples=0)
    mixed = len({score.language for score in scores}) > 1
    named = {f"{score.name}_{score.language}" if mixed else score.name: score for score in scores}
    signatures = {name: score.signature for name, score in named.items()}
    return {**{name: score.value for name, score in named.items()}, "signatures": signatures}


@cache
def _load(name: str) -> Any:
    import evaluate

    path = name.removeprefix(PREFIX)
    if not path:
        raise MetricError(f'metric "{name}" names no module: write {PREFIX}ID or {PREFIX}PATH')
    what = f'metric "{name}" cannot be loaded (an id needs the hub or its cache, a folder is named {PREFIX}PATH)'
    with guarded_call(what, MetricError):
        module = evaluate.load(path)
    return module


def _accepts_several_references(name: str, module: Any) -> bool:
    """Return whether a module accepts a list of references per example.

    Raises:
        MetricError: it does not accept texts as predictions and references.
    """
    shapes = []
    with guarded_call(f'metric "{name}": what it takes cannot be read', MetricError):
        declared = module.features
        options: Sequence[Mapping[str, Any]] = declared if isinstance(declared, list) else [declared]
        for features in options:
            texts = getattr(features.get("predictions"), "dtype", "") == "string"
            if set(features) == {"predictions", "references"} and texts:
                shapes.append(getattr(features["references"], "dtype", "list"))
        if not any(shape in ("string", "list") for shape in shapes):
            takes = shortened(str(declared))
            raise MetricError(f'metric "{name}" does not compare texts with references: it takes {takes}')
    return "list" in shapes
