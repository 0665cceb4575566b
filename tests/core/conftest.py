"""What the tests of metrics share: small corpora in five languages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lmtasks import LogLikelihood, Sample

NREFS = {"one": (1, 1, 1, 1), "three": (3, 3, 3, 3), "ragged": (3, 1, 2, 1)}
# By language: predictions, one of them empty, and three references for each.
CORPORA = {
    "en": [
        (
            "The ferry leaves the harbour at nine.",
            "The ferry leaves the harbour at nine o'clock.",
            "At nine the ferry leaves the harbour.",
            "The boat leaves the harbour at nine.",
        ),
        (
            "It returns at six o'clock in the evening.",
            "It comes back at six o'clock in the evening.",
            "It returns at six in the evening.",
            "Its return is at six.",
        ),
        ("", "Nobody was on board.", "There was nobody on board.", "The boat was empty."),
        (
            "Bread costs two euros here!",
            "Bread costs two euros.",
            "Here bread costs two euros!",
            "A loaf is two euros here.",
        ),
    ],
    "zh": [
        ("渡轮九点离开港口。", "渡轮九点钟离开港口。", "九点渡轮离开港口。", "船九点离开港口。"),
        ("它晚上六点钟返回。", "它晚上六点回来。", "它在晚上六点钟返回。", "回程是六点。"),
        ("", "船上没有人。", "没有人在船上。", "船是空的。"),
        ("这里的面包两欧元！", "面包两欧元。", "这里的面包卖两欧元！", "一个面包两欧元。"),
    ],
    "ja": [
        (
            "フェリーは九時に港を出ます。",
            "フェリーは九時に港を出発します。",
            "九時にフェリーは港を出ます。",
            "船は九時に港を出ます。",
        ),
        ("夕方六時に戻ります。", "夕方の六時に戻ってきます。", "夕方六時に戻る。", "帰りは六時です。"),
        ("", "船には誰もいませんでした。", "誰も船にいなかった。", "船は空でした。"),
        (
            "ここのパンは二ユーロです。",
            "パンは二ユーロです。",
            "ここではパンが二ユーロです。",
            "パン一個で二ユーロ。",
        ),
    ],
    "ko": [
        (
            "페리는 아홉 시에 항구를 떠납니다.",
            "페리는 아홉 시에 항구를 출발합니다.",
            "아홉 시에 페리가 항구를 떠납니다.",
            "배는 아홉 시에 떠납니다.",
        ),
        (
            "저녁 여섯 시에 돌아옵니다.",
            "저녁 여섯 시에 다시 옵니다.",
            "여섯 시에 돌아옵니다.",
            "돌아오는 시간은 여섯 시입니다.",
        ),
        ("", "배에는 아무도 없었습니다.", "아무도 배에 없었습니다.", "배는 비어 있었습니다."),
        ("여기 빵은 2유로입니다.", "빵은 2유로입니다.", "여기서 빵은 2유로예요.", "빵 하나에 2유로입니다."),
    ],
    "th": [
        (
            "เรือออกจากท่าเวลาเก้าโมง",
            "เรือข้ามฟากออกจากท่าตอนเก้าโมง",
            "เวลาเก้าโมงเรือออกจากท่า",
            "เรือออกเก้าโมง",
        ),
        ("กลับมาตอนหกโมงเย็น", "เรือกลับมาเวลาหกโมงเย็น", "กลับมาตอนเย็นหกโมง", "กลับหกโมง"),
        ("", "ไม่มีใครอยู่บนเรือ", "บนเรือไม่มีใคร", "เรือว่าง"),
        ("ขนมปังที่นี่ราคาสองยูโร", "ขนมปังราคาสองยูโร", "ที่นี่ขนมปังราคาสองยูโร", "ขนมปังก้อนละสองยูโร"),
    ],
}


@pytest.fixture(scope="session")
def corpus() -> Callable[..., list[Sample]]:
    """From a language and "one", "three" or "ragged" references per example to samples that every metric can take."""

    def make(language: str, nrefs: str = "one") -> list[Sample]:
        return [
            Sample(
                index=index,
                id=str(index),
                inputs={},
                references=tuple(references[:count]),
                language=language,
                prediction=prediction,
                loglikelihoods=tuple(
                    LogLikelihood(
                        logprob=-0.25 * len(text.encode()) - index, tokens=len(text), bytes=len(text.encode())
                    )
                    for text in references[:count]
                ),
            )
            for index, ((prediction, *references), count) in enumerate(
                zip(CORPORA[language], NREFS[nrefs], strict=True)
            )
        ]

    return make
