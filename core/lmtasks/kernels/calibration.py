"""Calibration texts for int8: they show which activations of a model are large before it is quantized.

A few of many kinds: an announcement, a letter, a dialogue, a question, other languages and scripts, a program. Always
the same ones, so that a model is quantized the same way whatever it is asked.
"""

CALIBRATION_TEXTS = (
    "The ferry leaves the harbour at nine in the morning and returns at half past six. Tickets cost 12.50 euros;"
    " children under five travel free of charge.",
    "Dear Ms. Weber, thank you for your letter of 3 March. Unfortunately the parcel was sent to the wrong address. We"
    " have ordered a new one, which should reach you by Friday. Kind regards, Tom",
    "#Person1#: Did you finish the report? #Person2#: Not yet, I'm waiting for the figures from Anna. #Person1#: OK,"
    " then let's meet tomorrow at ten instead.",
    "Question: Who wrote the first part?\nAnswer: It was written by a group of students in 1987, who later founded a"
    " company in Berlin.",
    "渡轮每天早上九点离开港口，晚上六点半返回。票价为十二元，五岁以下儿童免费。",
    "Die Fähre verlässt den Hafen um neun Uhr. Le bateau quitte le port à neuf heures. El barco sale del puerto a las"
    " nueve.",
    "def mean(values):\n    return sum(values) / len(values)\n\n1. Open the file. 2. Read it. 3. Close it again.",
)
