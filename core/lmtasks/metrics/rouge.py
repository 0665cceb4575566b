"""ROUGE-1, -2, -L and -Lsum: as rouge-score for English, and by the same formulas for other languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from lmtasks.languages import primary
from lmtasks.metrics.language import is_by_character
from lmtasks.metrics.lcs import lcs_length, lcs_positions
from lmtasks.metrics.means import mean_measurement, reference_count
from lmtasks.metrics.packages import require
from lmtasks.metrics.tokenize import is_word, normal, sentences, tokens
from lmtasks.task import Measurement, Metric, Sample, ScoreSpec

VARIANTS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@dataclass(frozen=True, slots=True)
class Rouge(Metric):
    """F-measures: the best over the references of an example, averaged over examples.

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; Lsum clips repeated tokens as rouge-score does.
    """

    name: str = "rouge"
    stem: bool = True
    """Whether English words are stemmed (Porter)."""
    jieba: bool = False
    """Whether Chinese is compared by words, which jieba segments, and not by characters."""
    char: bool = False
    """Whether every character but white space is a token, as in papers on Chinese data."""

    def check(self) -> None:
        """Check that jieba is installed if it is needed.

        Raises:
            MetricError: it is not.
        """
        if self.jieba:
            require("jieba", "rouge:jieba", "jieba")

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples, as `Metric.measure` describes.

        English is tokenized by rouge-score's tokenizer; other languages, and texts that are stated to be English but
        have a script without spaces, by `metrics.tokenize.tokens`, without stemming. Sentences for Lsum are split by
        `metrics.tokenize.sentences`.
        """
        tokenize, how = self._tokenizer(primary(language), by_character=is_by_character(samples, language))

        def read(text: str) -> _Text:
            return _Text.of([words for sentence in sentences(text) if (words := tokenize(sentence))])

        values = []
        for sample in samples:
            prediction = read(sample.prediction)
            scored = [_rouge(read(text), prediction) for text in sample.references]
            values.append([max(column) for column in zip(*scored, strict=True)])
        refs = reference_count([len(sample.references) for sample in samples])
        signature = f"{how}|split:lmtasks1|{refs}|agg:max|version:{version('rouge-score')}"
        setting = self.name.removeprefix("rouge")  # other settings give scores of other names
        names = [f"{variant}{setting}" for variant in VARIANTS]
        specs = [ScoreSpec(name=name, signature=f"{name}|{signature}") for name in names]
        return mean_measurement(dict(zip(specs, zip(*values, strict=True), strict=True)))

    def _tokenizer(self, language: str, *, by_character: bool) -> tuple[Callable[[str], list[str]], str]:
        """Return the tokenizer of a language, and its part of the signature."""
        if self.char:
            return _characters, "tok:char|stem:no"
        if language == "en" and not by_character:
            return _english(stem=self.stem), f"tok:rouge_score|stem:{'porter' if self.stem else 'no'}"
        if language == "zh" and self.jieba:
            return _jieba(), f"tok:jieba-{version('jieba')}|norm:lmtasks2|stem:no"
        return tokens, "tok:lmtasks2|stem:no"


@dataclass(frozen=True, slots=True)
class _Text:
    """A tokenized text, for all variants and for every text that it is compared with."""

    sentences: list[list[str]]
    tokens: list[str]
    ngrams: tuple[Mapping[Hashable, int], Mapping[Hashable, int]]
    """Counts of unigrams and bigrams."""

    @classmethod
    def of(cls, sentences: list[list[str]]) -> _Text:
        tokens = [token for sentence in sentences for token in sentence]
        return cls(sentences, tokens, (Counter(tokens), Counter(zip(tokens, tokens[1:], strict=False))))


def _rouge(reference: _Text, prediction: _Text) -> tuple[float, float, float, float]:
    """Return the F-measures of `VARIANTS`, each 0 to 1."""
    m, n = len(reference.tokens), len(prediction.tokens)
    if not m or not n:
        return 0.0, 0.0, 0.0, 0.0
    unigrams, bigrams = (_common(*pair) for pair in zip(reference.ngrams, prediction.ngrams, strict=True))
    longest = lcs_length(reference.tokens, prediction.tokens)
    alone = len(reference.sentences) == len(prediction.sentences) == 1
    union = longest if alone else _union_lcs(reference, prediction)
    return (
        _f_measure(unigrams, m, n),
        _f_measure(bigrams, m - 1, n - 1),
        _f_measure(longest, m, n),
        _f_measure(union, m, n),
    )


def _common(reference: Mapping[Hashable, int], prediction: Mapping[Hashable, int]) -> int:
    return sum(min(count, prediction[ngram]) for ngram, count in reference.items() if ngram in prediction)


def _union_lcs(reference: _Text, prediction: _Text) -> int:
    """Return how many tokens of the reference's sentences lie on a common subsequence with any of the prediction's.

    A token counts at most as often as it stands in either text.
    """
    left = [dict(reference.ngrams[0]), dict(prediction.ngrams[0])]
    # Repetitive outputs contain few sentences, many times.
    others = list(dict.fromkeys(map(tuple, prediction.sentences)))
    common: dict[tuple[str, ...], set[int]] = {}
    hits = 0
    for sentence in map(tuple, reference.sentences):
        if sentence not in common:
            common[sentence] = {index for other in others for index in lcs_positions(sentence, other)}
        for token in (sentence[index] for index in common[sentence]):
            if all(counts.get(token, 0) > 0 for counts in left):
                hits += 1
                for counts in left:
                    counts[token] -= 1
    return hits


def _f_measure(hits: int, m: int, n: int) -> float:
    """Return the harmonic mean of recall hits/m and precision hits/n."""
    return 2 * hits / (m + n) if hits else 0.0


def _characters(text: str) -> list[str]:
    """Return all characters but white space, in their own case and width.

    Papers on Chinese data do the same, with numbers for characters in ROUGE-1.5.5: the published ROUGE-1 and -2 of
    CSDS (Lin et al. 2021) are these, and its ROUGE-L, by sentences, is Lsum here.
    """
    return list("".join(text.split()))


def _english(*, stem: bool) -> Callable[[str], list[str]]:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.tokenize import tokenize

    class Stemmer:
        """Porter's stemmer with a cache: stemming is most of the work."""

        stem = staticmethod(cache(PorterStemmer().stem))

    stemmer = Stemmer if stem else None
    return lambda text: list(tokenize(text, stemmer))


def _jieba() -> Callable[[str], list[str]]:
    import jieba

    jieba.setLogLevel("WARNING")  # it reports its dictionary on stderr
    return lambda text: [word for word in jieba.lcut(normal(text)) if is_word(word)]
