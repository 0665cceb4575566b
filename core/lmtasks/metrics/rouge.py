"""ROUGE-1, -2, -L and -Lsum, by rouge-score, with a tokenizer of ours where its own drops the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from lmtasks.languages import primary
from lmtasks.metrics.means import mean_measurement, reference_count
from lmtasks.metrics.text import sentences, tokens
from lmtasks.task import Measurement, Sample, ScoreKind

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class _AnyScript:
    """The interface that rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@dataclass(frozen=True, slots=True)
class Rouge:
    """F-measures, the best over an example's references, averaged over examples."""

    name: str = "rouge"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the protocol says.

        English is tokenized and stemmed by rouge-score itself; other languages by `metrics.text.tokens`, not
        stemmed. Sentences for rougeLsum are split by `metrics.text.sentences`.
        """
        from rouge_score.rouge_scorer import RougeScorer

        english = primary(language) == "en"
        scorer = RougeScorer(KINDS, use_stemmer=True) if english else RougeScorer(KINDS, tokenizer=_AnyScript())
        values: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for sample in samples:
            references = ["\n".join(sentences(text)) for text in sample.references]
            best = scorer.score_multi(references, "\n".join(sentences(sample.prediction)))
            for kind in KINDS:
                values[kind].append(best[kind].fmeasure)
        how = f"tok:{'rouge_score|stem:porter' if english else 'lmtasks1|stem:no'}"
        refs = reference_count([len(sample.references) for sample in samples])
        signature = f"{how}|split:lmtasks1|{refs}|agg:max|version:{version('rouge-score')}"
        return mean_measurement({ScoreKind(name=kind, signature=f"{kind}|{signature}"): values[kind] for kind in KINDS})
