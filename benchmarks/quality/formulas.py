"""Writes docs/which-score.md: the same outputs by the formulas in common use, side by side, and which to quote.

    python benchmarks/quality/formulas.py [--check]

--check writes nothing and fails if the page is not what this script would write.
"""

from __future__ import annotations

import argparse
import statistics
import string
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from lmtasks.metrics import BUILTIN_METRICS, score_samples
from lmtasks.task import Sample

PAGE = Path(__file__).parents[2] / "docs" / "which-score.md"
Pair = tuple[str, list[str]]
"""An output and its references."""

ENGLISH: list[Pair] = [
    ("The ferry to the island leaves at nine.", ["The ferry to the island departs at nine o'clock."]),
    ("Tickets are sold on board and at the harbour.", ["You can buy tickets on board or at the harbour office."]),
    ("", ["Dogs travel free of charge if they are on a lead."]),
    ("In bad weather, the last boat may be cancelled.", ["In bad weather the last boat may be cancelled."]),
    ("Please be there ten minutes before departure.", ["Please arrive ten minutes before the departure."]),
    ("Closed Mondays, WiFi password 2024.", ["Closed on Mondays, the WiFi password is 2024."]),
]
CHINESE: list[Pair] = [
    ("去岛上的渡轮九点开。", ["开往岛上的渡轮九点钟出发。"]),
    ("船上和港口都卖票。", ["您可以在船上或港口的售票处买票。"]),
    ("", ["狗只要拴着绳子就可以免费乘船。"]),
    ("天气不好时，最后一班船可能取消。", ["天气不好时，最后一班船可能会取消。"]),
    ("请在出发前十分钟到达。", ["请在开船前十分钟到达。"]),
    ("周一休息，WiFi 密码是 2024。", ["每周一休息，WiFi 的密码是 2024。"]),
]
SUMMARIES: list[Pair] = [
    (
        "The island's school got a new roof. Parents paid half of it. Lessons start on Monday.",
        [
            "The school on the island has a new roof. Half of the cost was paid by parents.",
            "Lessons start again on Monday. The school's roof is new.",
        ],
    ),
    (
        "Two boats collided in fog. Nobody was hurt.",
        ["Nobody was injured when two boats collided. There was thick fog.", "Two boats hit each other in the fog."],
    ),
    ("The mayor plans a museum.", ["The mayor is planning a museum about fishing.", "A fishing museum is planned."]),
]
CHINESE_SUMMARIES: list[Pair] = [
    ("岛上的学校换了新屋顶。家长付了一半费用。", ["岛上学校有了新屋顶，一半费用由家长承担。"]),
    ("两艘船在雾中相撞，没有人受伤。", ["大雾中两船相撞。无人受伤。"]),
    ("市长打算建一座博物馆。", ["市长计划建造渔业博物馆。"]),
]
ANSWERS: list[Pair] = [
    ("The harbour office.", ["harbour office", "the office at the harbour"]),
    ("9 o'clock", ["nine o'clock", "9 o’clock"]),
    ("", ["ten minutes"]),
    ("fog", ["thick fog"]),
]
CHINESE_ANSWERS: list[Pair] = [
    ("港口售票处", ["港口的售票处"]),
    ("《渡轮时刻表》", ["渡轮时刻表"]),
    ("", ["十分钟"]),
    ("大雾", ["浓雾"]),
]

Row = tuple[str, float, str]
"""What the formula is called, its value, and what is to be said of it; a value to be quoted begins with "**Quote"."""


def ours(pairs: Sequence[Pair], metric: str, score: str, language: str) -> float:
    samples = [
        Sample(index=i, id=str(i), inputs={}, references=tuple(references), prediction=output, language=language)
        for i, (output, references) in enumerate(pairs)
    ]
    scores = score_samples(samples, [BUILTIN_METRICS[metric]], resamples=0)
    return next(each.value for each in scores if each.name == score)


def sacre(pairs: Sequence[Pair], *, lowercase: bool = False, tokenize: str = "13a") -> float:
    streams = [[references[0] for _, references in pairs]]
    return float(
        BLEU(lowercase=lowercase, tokenize=tokenize, force=True).corpus_score([o for o, _ in pairs], streams).score
    )


def untransposed(pairs: Sequence[Pair]) -> float:
    return float(BLEU(force=True).corpus_score([o for o, _ in pairs], [references for _, references in pairs]).score)


def mean_of_sentences(pairs: Sequence[Pair], tokenize: str) -> float:
    bleu = BLEU(tokenize=tokenize, effective_order=True, force=True)
    return statistics.fmean(bleu.sentence_score(output, references).score for output, references in pairs)


def nltk_corpus(pairs: Sequence[Pair]) -> float:
    wanted = [[text.split() for text in references] for _, references in pairs]
    return 100 * float(corpus_bleu(wanted, [output.split() for output, _ in pairs]))


def nltk_sentences(pairs: Sequence[Pair], split: Callable[[str], list[str]]) -> float:
    smooth = SmoothingFunction().method3
    values = []
    for output, references in pairs:
        wanted = [split(text) for text in references]
        values.append(float(sentence_bleu(wanted, split(output), smoothing_function=smooth)) if output else 0.0)
    return 100 * statistics.fmean(values)


def answered(pairs: Sequence[Pair]) -> list[Pair]:
    return [(output, references) for output, references in pairs if output]


def rouge(
    pairs: Sequence[Pair], kind: str, *, stem: bool, best: Callable[..., float] = max, part: str = "fmeasure"
) -> float:
    scorer = RougeScorer([kind], use_stemmer=stem)
    values = [
        best([getattr(scorer.score(text, output)[kind], part) for text in references]) for output, references in pairs
    ]
    return 100 * statistics.fmean(values)


def raw_exact_match(pairs: Sequence[Pair]) -> float:
    return 100 * statistics.fmean(output in references for output, references in pairs)


def squad_f1_by_spaces(pairs: Sequence[Pair]) -> float:
    """SQuAD's F1 as it stands, on text without spaces."""

    def words(text: str) -> list[str]:
        return text.lower().translate(str.maketrans("", "", string.punctuation)).split()

    values = []
    for output, references in pairs:
        values.append(max(float(bool(words(output)) and words(output) == words(text)) for text in references))
    return 100 * statistics.fmean(values)


def character_f1(pairs: Sequence[Pair]) -> float:
    # Characters as a multiset are what lmtasks takes for languages that have no definition of their own.
    return ours(pairs, "f1", "f1", "th")


def sections() -> list[tuple[str, str, list[Row]]]:
    return [
        (
            "Translation into English",
            "Six outputs, one of them empty.",
            [
                (
                    "lmtasks `bleu` = sacreBLEU, corpus",
                    ours(ENGLISH, "bleu", "BLEU", "en"),
                    "**Quote this**, with its signature.",
                ),
                ("sacreBLEU, lower case", sacre(ENGLISH, lowercase=True), "Another metric: say so (`case:lc`)."),
                (
                    "sacreBLEU without the empty output",
                    sacre(answered(ENGLISH)),
                    "Failing raised the score: never drop outputs.",
                ),
                (
                    "sacreBLEU, references not transposed",
                    untransposed(ENGLISH),
                    "No error is raised, but only the first output was scored, against the references of all.",
                ),
                (
                    "mean of sentence BLEU",
                    mean_of_sentences(ENGLISH, "13a"),
                    "Not BLEU: short sentences have the same weight as long ones.",
                ),
                (
                    "NLTK corpus BLEU, split at spaces",
                    nltk_corpus(ENGLISH),
                    "Punctuation sticks to words; depends on who tokenized.",
                ),
                (
                    "NLTK sentence BLEU, smoothing 3, mean",
                    nltk_sentences(ENGLISH, str.split),
                    'The "BLEU-4" of several trainers.',
                ),
                (
                    "lmtasks `chrf` = sacreBLEU chrF",
                    ours(ENGLISH, "chrf", "chrF", "en"),
                    "**Quote this** beside BLEU; it works for short texts.",
                ),
                (
                    "lmtasks `chrf++`",
                    ours(ENGLISH, "chrf++", "chrF++", "en"),
                    "Counts words too; another number than chrF.",
                ),
                (
                    "lmtasks `ter`",
                    ours(ENGLISH, "ter", "TER", "en"),
                    "Edits per 100 words: lower is better. Minutes for one text of a thousand words.",
                ),
            ],
        ),
        (
            "Translation into Chinese",
            "The same six sentences.",
            [
                (
                    "lmtasks `bleu` = sacreBLEU, tokenizer zh",
                    ours(CHINESE, "bleu", "BLEU", "zh"),
                    "**Quote this**, with its signature (`tok:zh`).",
                ),
                (
                    "sacreBLEU as it comes (13a)",
                    sacre(CHINESE),
                    "A sentence is one word: nearly every translation gets about 0.",
                ),
                (
                    "sacreBLEU, tokenizer char",
                    sacre(CHINESE, tokenize="char"),
                    "Splits numbers and Latin words too; not what WMT publishes.",
                ),
                (
                    "NLTK sentence BLEU of characters, smoothing 3, mean",
                    nltk_sentences(CHINESE, list),
                    "Not BLEU; cannot be compared with published numbers.",
                ),
                ("lmtasks `chrf`", ours(CHINESE, "chrf", "chrF", "zh"), "**Quote this** beside BLEU."),
                (
                    "lmtasks `chrf++`",
                    ours(CHINESE, "chrf++", "chrF++", "zh"),
                    "Its words are separated by spaces: of little use for Chinese.",
                ),
            ],
        ),
        (
            "English summaries",
            "Three outputs with two references each.",
            [
                (
                    "lmtasks `rouge`, rougeL = rouge-score with stemming, best reference",
                    ours(SUMMARIES, "rouge", "rougeL", "en"),
                    "**Quote this**: F-measure, `stem:porter`, `agg:max`.",
                ),
                (
                    "without stemming (`rouge:nostem`)",
                    ours(SUMMARIES, "rouge:nostem", "rougeL:nostem", "en"),
                    "The default of rouge-score and of `evaluate`: a few points lower.",
                ),
                (
                    "mean over references instead of the best",
                    rouge(SUMMARIES, "rougeL", stem=True, best=statistics.fmean),
                    "Punishes references that differ from each other.",
                ),
                (
                    "recall instead of F-measure",
                    rouge(SUMMARIES, "rougeL", stem=True, part="recall"),
                    "Rewards length; copying the input wins.",
                ),
                (
                    "lmtasks `rouge`, rougeLsum, split into sentences",
                    ours(SUMMARIES, "rouge", "rougeLsum", "en"),
                    "**Quote this** for summaries of several sentences (`split:lmtasks1`).",
                ),
                (
                    "rougeLsum without newlines between sentences",
                    rouge(SUMMARIES, "rougeLsum", stem=True),
                    "Equals rougeL.",
                ),
            ],
        ),
        (
            "Chinese summaries",
            "Three outputs, one reference each.",
            [
                (
                    "lmtasks `rouge`, rougeL, characters",
                    ours(CHINESE_SUMMARIES, "rouge", "rougeL", "zh"),
                    "**Quote this** (`tok:lmtasks2`): without marks; a number is one token, as is a Latin word.",
                ),
                (
                    "lmtasks `rouge:char`, rougeL, every character",
                    ours(CHINESE_SUMMARIES, "rouge:char", "rougeL:char", "zh"),
                    "**Quote this** beside what Chinese papers publish: marks, digits and letters count (`tok:char`).",
                ),
                (
                    "rouge-score as it comes",
                    rouge(CHINESE_SUMMARIES, "rougeL", stem=True),
                    "Its tokenizer drops all that is not ASCII: 0, even for identical texts.",
                ),
            ],
        ),
        (
            "Answers in English",
            "Four answers, one of them empty; aliases in the references.",
            [
                (
                    "lmtasks `exact_match` = SQuAD",
                    ours(ANSWERS, "exact_match", "exact_match", "en"),
                    "**Quote this**: case, articles and punctuation do not count (`norm:squad1.1`).",
                ),
                (
                    "exact match of strings",
                    raw_exact_match(ANSWERS),
                    "A full stop or a capital letter makes an answer wrong.",
                ),
                ("lmtasks `f1` = SQuAD", ours(ANSWERS, "f1", "f1", "en"), "**Quote this** beside exact match."),
                (
                    "SQuAD's F1 without the empty answer",
                    ours(answered(ANSWERS), "f1", "f1", "en"),
                    "Failing raised the score.",
                ),
            ],
        ),
        (
            "Answers in Chinese",
            "Four answers, one of them empty.",
            [
                (
                    "lmtasks `exact_match` = CMRC 2018",
                    ours(CHINESE_ANSWERS, "exact_match", "exact_match", "zh"),
                    "**Quote this** (`norm:cmrc2018`): Chinese marks do not count.",
                ),
                (
                    "exact match of strings",
                    raw_exact_match(CHINESE_ANSWERS),
                    "《》 around a title makes the answer wrong.",
                ),
                (
                    "lmtasks `f1` = CMRC 2018",
                    ours(CHINESE_ANSWERS, "f1", "f1", "zh"),
                    "**Quote this**: the longest run of characters that both have.",
                ),
                (
                    "F1 of characters in any order",
                    character_f1(CHINESE_ANSWERS),
                    "Higher: order does not count. Not what CMRC and DRCD publish.",
                ),
                (
                    "SQuAD's F1 as it stands",
                    squad_f1_by_spaces(CHINESE_ANSWERS),
                    "An answer is one word: all or nothing.",
                ),
            ],
        ),
    ]


HEAD = """# Which score to quote

Different numbers are published under the same name. This page scores the same outputs with the formulas in
common use. All values are on 0-100. The outputs were written for this page; they are in
`benchmarks/quality/formulas.py`, which computes every number here:

```bash
python benchmarks/quality/formulas.py
```

Rules for all tasks:

- A number without its signature is not a result. lmtasks prints it below every table of scores.
- A number without its interval says little about a small set: `lmtasks score` and `lmtasks run` give 95% intervals,
  `lmtasks compare` tests a difference on the same examples.
- Empty outputs count. A tool that drops them lets a model win by saying nothing.
- Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer, Tibetan, Yi, Javanese and others)
  are never split at spaces. `bleu` takes sacrebleu's tokenizers for Chinese, Japanese and Korean, and `char` where most
  letters of the references are of another such script, whatever language is stated; `rouge` takes characters;
  `bleu:ja-mecab`, `bleu:ko-mecab` and `rouge:jieba` take words, where the package for it is installed.
"""


def page() -> str:
    parts = [HEAD]
    for title, about, rows in sections():
        table = ["| formula | value | |", "|---|--:|---|"]
        table += [f"| {name} | {value:.2f} | {remark} |" for name, value, remark in rows]
        parts.append(f"## {title}\n\n{about}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is stale")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE.name} is stale: run python benchmarks/quality/formulas.py")
        return
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
