"""Answers that say the same again end before they do; what good answers repeat stays."""

import pytest

from control.conflict.verdict import DecodedAnswer
from control.decoding.repetition import RepetitionFilter, find
from control.decoding.trace import TokenTrace, Trace

CODE = """Use a loop:

```python
for i in range(10):
    if i % 2 == 0:
        print("an even number it is.")
    else:
        print("an odd number it is.")
for i in range(10):
    if i % 2 == 0:
        print("an even number it is.")
```

That is all."""
GO = "if err != nil {\n\treturn err\n}\nx, err := f(a)\nif err != nil {\n\treturn err\n}\n}\n}\n}"


def token(text):
    return TokenTrace(text, None, None, None, False, "context", False, [], [], None, None)


def told(text, size=3):
    """What a stream and the answer hold of a text that comes in tokens of a size."""
    heard = []
    without_repeats = RepetitionFilter(lambda _, each: heard.append(each.text))
    trace = Trace(True)
    for start in range(0, len(text), size):
        each = token(text[start : start + size])
        trace.append(each)
        without_repeats.token(0, each)
        if find(trace.text).certain:  # decoding ends
            break
    [answer] = without_repeats.end([DecodedAnswer(trace, False, None)])
    assert "".join(heard).strip() == answer.trace.text.strip()
    assert "".join(each.text for each in answer.trace.tokens) == answer.trace.text
    return answer.trace.text


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize(
    ("looping", "stays"),
    [
        ("Lima is the capital. Lima is the capital. Lima is", "Lima is the capital."),
        ("It is Lima. Lima is in Peru. Lima is in Peru! Lima", "It is Lima. Lima is in Peru."),
        ("The answer to your question is:\n\n" * 4, "The answer to your question is:"),
        ("The answer to your question is: " * 4, "The answer to your question is:"),
        ("1. Lima is the capital.\n2. Lima is the capital.\n3. L", "1. Lima is the capital."),
        (
            "- Lima is in Peru\n- Quito is not there\n" * 3,
            "- Lima is in Peru\n- Quito is not there",
        ),
        ("[1] [2] [3] " * 9, "[1] [2] [3]"),
        ("and so and so " * 9, "and so"),
        ("北京是中国的首都。" * 3, "北京是中国的首都。"),
        ("Lima is the capital. It is old. Lima is the cap", "Lima is the capital. It is old."),
    ],
)
def test_a_repeat_reaches_neither_stream_nor_answer(looping, stays, size):
    assert told(looping, size) == stays


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize(
    "good",
    [
        CODE,
        GO,
        "| a | yes | no | yes |\n| b | yes | no | yes |\n| c | yes | no | yes |",
        "0 0 0\n0 1 0\n0 0 0\n",
        "- N/A\n- N/A\n- N/A\n- yes\n- N/A",
        "Monday: closed all day long.\nTuesday: closed all day long.",
        "Pi is more than 3. As I said, it is 3.14. Pi is more than 3.1.",
        "The capital of Peru is Lima. The capital of Norway is Oslo.",
        "Row, row, row your boat. No. No. I don't know.",
        "5",
        "2. Lima",
    ],
)
def test_what_good_answers_repeat_stays(good, size):
    assert told(good, size) == good


def test_a_stream_waits_only_where_a_repeat_may_have_begun():
    heard = []
    stream = RepetitionFilter(lambda _, each: heard.append(each.text))
    for text in ["The", " capital", " of", " Peru", " is", " Lima"]:
        stream.token(0, token(text))
        assert heard[-1] == text
    for text in [".", " The", " capital", " of"]:
        stream.token(0, token(text))
    assert heard[-1] == "."
    stream.token(0, token(" Chile"))
    assert heard[-4:] == [" The", " capital", " of", " Chile"]


def test_answers_of_a_batch_repeat_each_on_its_own():
    heard = []
    stream = RepetitionFilter(lambda place, each: heard.append((place, each.text)))
    for place in (0, 1):
        stream.token(place, token("Lima is the capital."))
    assert heard == [(0, "Lima is the capital."), (1, "Lima is the capital.")]
