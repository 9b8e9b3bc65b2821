"""Repetition: an answer that begins to say again what it has said ends before the repeat.

Small models fall into loops: one sentence or a few words, again and again up to the length limit. A
text is compared with itself, as normalised words, which serves every engine and tokenizer. It
repeats itself where

- a sentence of some words is one that it has written before, whatever its label in a list;
- its last words are one run of words, several times in a row: two times for a run as long as a
  clause, more often for a shorter one.

So short lines ("}", "-", "N/A") and lines of code, which good answers repeat, are no repetition.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import StoppingCriteria

from foundation.text import normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.conflict.verdict import DecodedAnswer
    from control.decoding.trace import TokenTrace

    OnToken = Callable[[int, TokenTrace], None]

SENTENCE_WORDS = 4  # of a sentence that is not written twice; "I don't know." may be
CLAUSE_WORDS = 5  # of a run that is not written twice in a row; "row, row, row your boat" may be
CYCLE_WORDS = 16  # that a shorter run takes up before it is a loop and no row of a table
CYCLE_TIMES = 3
# Scripts that put no spaces between words are compared by character.
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")
# Only what follows tells "is 3." from "is 3.5".
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*]*(?=\s)|[。\uff01\uff1f]+|\n")
PROSE = re.compile(r"[\w,'’\"“”\u2013—-][\w ,'’\"“”:;\u2013—-]*\n")  # a line that is no code
LABEL = re.compile(r"\s*(?:[-*•>]\s+)*(?:[\[(]?\d{1,3}[.):\]]+(?=\s))?\s*")
LABEL_BEFORE = re.compile(
    r"(?:^|(?<=[\n.!?…:。\uff01\uff1f]))\s*(?:[-*•>]\s*)*(?:[\[(]?\d{0,3}[.):\]]*)?\s*$"
)
OPENING = " \t\r\n[({<\"'“\u2018«*_#`"  # before a word, and belongs to it
FENCE = "```"  # around code


@dataclass(frozen=True)
class Repetition:
    """How much of a text stands, whatever follows it.

    Attributes:
        stands: Characters; what is behind them is a repeat, or may become one.
        certain: Whether it is one, so that the text is to end after ``stands``.
    """

    stands: int
    certain: bool


def find(text: str, ended: bool = False) -> Repetition:
    """Where a text repeats itself, if it does.

    Args:
        text: An answer so far.
        ended: Whether nothing follows. Its last words are a sentence then; where they only begin
            like an earlier one, they are its repeat, cut off by the length limit.
    """
    if ended and (found := find(text)).certain:
        return found
    words = [(normalise(match.group()), match.start()) for match in WORD.finditer(text)]
    whole = len(words) - (not ended and WORD.fullmatch(text[-1:]) is not None)
    starts = (_repeated_sentence(text, ended), _repeated_run(words[:whole]))
    repeated = [start for start in starts if start is not None]
    if ended and not repeated:
        return Repetition(len(text), certain=False)
    start = min(repeated) if repeated else _may_repeat(text, words)
    label = LABEL_BEFORE.search(text, 0, start)
    if label and words and label.start() > words[0][1]:
        start = label.start()
    return Repetition(len(text[:start].rstrip(OPENING)), bool(repeated))


def repeats(text: str) -> bool:
    """Whether a text repeats itself, so that it should end."""
    return find(text).certain


def _repeated_sentence(text: str, ended: bool) -> int | None:
    """Where the first sentence begins that stands in the text before."""
    written = text + "\n" if ended else text
    edges = [0, *(match.end() for match in SENTENCE_END.finditer(written))]
    known: list[list[str]] = []
    for start, stop in pairwise(edges):
        begin = cast("re.Match[str]", LABEL.match(written, start, stop)).end()
        sentence = normalise(" ".join(WORD.findall(written, begin, stop))).split()
        line = written[begin:stop]
        least = SENTENCE_WORDS
        if line.endswith("\n") and (begin == 0 or written[start - 1] == "\n"):
            least = CLAUSE_WORDS if PROSE.fullmatch(line) else len(line)
        if len(sentence) < least or written.count(FENCE, 0, begin) % 2:
            continue
        if sentence in known:
            return begin
        if ended and stop == len(written) and any(_begins(each, sentence) for each in known):
            return begin
        known.append(sentence)
    return None


def _begins(sentence: Sequence[str], beginning: Sequence[str]) -> bool:
    """Whether a sentence begins so, the last word perhaps cut off."""
    *whole, last = beginning
    at = len(whole)
    return sentence[:at] == whole and len(sentence) > at and sentence[at].startswith(last)


def _repeated_run(words: Sequence[tuple[str, int]]) -> int | None:
    """Where the last words begin to be the run of words before them."""
    written = [word for word, _ in words]
    for length in range(1, len(written) // 2 + 1):
        if written[-1] != written[-1 - length]:
            continue
        same = _same(written, length)
        run = written[-length:]
        if length < CLAUSE_WORDS:
            loops = same >= (CYCLE_TIMES - 1) * length and same + length >= CYCLE_WORDS
        else:
            loops = same >= length and not any(
                length % part == 0 and run == run[:part] * (length // part)
                for part in range(1, length)
            )
        if loops:
            return words[len(words) - same][1]
    return None


def _may_repeat(text: str, words: Sequence[tuple[str, int]]) -> int:
    """Where the longest end of a text begins that also stands in it before."""
    written = [word for word, _ in words]
    whole = not written or WORD.fullmatch(text[-1:]) is None
    longest = 0
    for length in range(1, len(written)):
        last, before = written[-1], written[-1 - length]
        if last == before or (not whole and before.startswith(last)):
            longest = max(longest, 1 + _same(written[:-1], length))
    return words[len(words) - longest][1] if longest else len(text)


def _same(words: Sequence[str], distance: int) -> int:
    """How many of the last words are those so many words before."""
    pairs = zip(reversed(words), reversed(words[: len(words) - distance]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclass(frozen=True)
class RepetitionEnd(StoppingCriteria):
    """Ends the answers that repeat themselves.

    Attributes:
        tokenizer: Of the model.
        start: Where answers begin in the ids.
        pad: Fills up the beginning of shorter answers.
    """

    tokenizer: "PreTrainedTokenizerBase"
    start: int = 0
    pad: int | None = None

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        """Whether each answer has ended, shape (n,)."""
        texts = map(self._text, input_ids[:, self.start :].tolist())
        return torch.tensor([repeats(text) for text in texts], device=input_ids.device)

    def _text(self, ids: list[int]) -> str:
        begin = next((at for at, token in enumerate(ids) if token != self.pad), len(ids))
        return self.tokenizer.decode(ids[begin:], skip_special_tokens=True)


@dataclass
class _Answer:
    """An answer that is streamed: its text, and the tokens that may belong to a repeat."""

    text: str = ""
    told: int = 0  # characters
    waiting: "list[TokenTrace]" = field(default_factory=list)
    over: bool = False


class RepetitionFilter:
    """Keeps repeats out of streams and answers.

    A token is handed on once it cannot belong to a repeat any more, mostly at once.
    """

    def __init__(self, on_token: "OnToken | None") -> None:
        """Stream to ``on_token``, if to anything."""
        self._on_token = on_token
        self._answers: dict[int, _Answer] = {}

    def token(self, index: int, token: "TokenTrace") -> None:
        """Take the next token of an answer."""
        answer = self._answers.setdefault(index, _Answer())
        if answer.over:
            return
        answer.text += token.text
        answer.waiting.append(token)
        found = find(answer.text)
        answer.over = found.certain
        self._tell(index, answer, found.stands)

    def end(self, answers: "Sequence[DecodedAnswer]") -> "list[DecodedAnswer]":
        """Hand on what is left, and return the answers without repeats."""
        for index, answer in self._answers.items():
            if not answer.over:
                answer.over = True
                self._tell(index, answer, find(answer.text, ended=True).stands)
        return [_cut(answer) for answer in answers]

    def _tell(self, index: int, answer: _Answer, stands: int) -> None:
        """Hand on the tokens that stand; of an answer's last one, the part that does."""
        while answer.waiting and answer.told < stands:
            token = answer.waiting[0]
            if len(token.text) > stands - answer.told:
                if not answer.over:
                    return
                token = replace(token, text=token.text[: stands - answer.told])
            answer.waiting.pop(0)
            answer.told += len(token.text)
            if self._on_token is not None:
                self._on_token(index, token)


def _cut(answer: "DecodedAnswer") -> "DecodedAnswer":
    found = find(answer.trace.text, ended=True)
    if not found.certain:
        return answer
    return replace(answer, trace=answer.trace.until(found.stands))
