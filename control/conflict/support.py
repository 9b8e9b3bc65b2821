"""Which passages support a sentence: by what its words gain from being read with them.

Every word of an answer is scored twice by a language model, with a passage before it and without.
In a sentence that a passage states, the words that carry it become much likelier; where it states
something else, one of them becomes less likely. The weights of a logistic regression on the gains
were fitted on sentences written to passages that state them or something else (`training.support`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from control.conflict.sources import Citation
from control.engines.base import EnginePrompt, ScoreRequest, Token
from control.forgetting.parts import parts
from foundation.errors import ModelError
from foundation.files import replacing
from foundation.text import normalise, words

if TYPE_CHECKING:
    from control.engines.transformers import LanguageModel

PASSAGE = "Text: {text}\n\n"
ANSWER = "Question: {question}\nAnswer:"
FEATURES = ("mean_gain", "least_gain", "mean_log_p", "least_log_p", "numbers_gain", "missing")


@dataclass(frozen=True)
class WordScore:
    """A word of an answer.

    Attributes:
        start: Its first character in the answer.
        text: The word, with the space before it and what follows it up to the next one.
        without: Its log-probability without a passage, in nats.
        with_passages: The same with each passage.
    """

    start: int
    text: str
    without: float
    with_passages: tuple[float, ...]


@dataclass(frozen=True)
class SupportModel:
    """A fitted logistic regression.

    Attributes:
        weights: One for each of `FEATURES`.
        bias: Of the regression.
        threshold: From this probability on, a passage supports a sentence.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float

    def probability(self, features: Sequence[float]) -> float:
        """How likely a passage supports a sentence, in [0, 1]."""
        weighed = sum(w * f for w, f in zip(self.weights, features, strict=True)) + self.bias
        return 1 / (1 + math.exp(-max(min(weighed, 50.0), -50.0)))

    @classmethod
    def load(cls, path: Path) -> "SupportModel":
        """Read it from a file.

        Raises:
            ModelError: It is missing or damaged.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(values["weights"]), values["bias"], values["threshold"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path}: the weights of citations cannot be read ({error}); "
                "fit them again by: fulcrum train reader --out DIR"
            ) from error

    def save(self, path: Path) -> None:
        """Write it into a file."""
        with replacing(path) as new:
            new.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Support:
    """Finds the passages that support sentences.

    Attributes:
        model: Scores the words; it need not be the model that answered.
        fitted: The weights.
    """

    model: "LanguageModel"
    fitted: SupportModel

    def cite(
        self, question: str, answer: str, passages: Sequence[tuple[str, str]]
    ) -> list[Citation]:
        """The passages that support each sentence of an answer.

        Args:
            question: What was asked.
            answer: The answer.
            passages: Id and text of each passage.

        Returns:
            One for each sentence that holds words, in order.
        """
        scored = score_words(self.model, question, answer, [text for _, text in passages])
        citations = []
        for start, end in sentences(answer):
            own = [word for word in scored if start <= word.start < end]
            likely = [
                (self.fitted.probability(features(own, question, text, place)), name)
                for place, (name, text) in enumerate(passages)
                if own
            ]
            supporting = sorted(
                (pair for pair in likely if pair[0] >= self.fitted.threshold),
                key=lambda pair: -pair[0],
            )
            citations.append(Citation(start, end, tuple(name for _, name in supporting)))
        return citations


def sentences(answer: str) -> list[tuple[int, int]]:
    """Start and end of each sentence that holds words, without the space around it."""
    spans = []
    for start, end in parts(answer):
        text = answer[start:end]
        if normalise(text):
            spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    return spans


def score_words(
    model: "LanguageModel", question: str, answer: str, passages: Sequence[str]
) -> list[WordScore]:
    """Score the words of an answer without a passage and with each."""
    encoded = model.tokenizer(
        f" {answer.strip()}", add_special_tokens=False, return_offsets_mapping=True
    )
    tokens = tuple(Token("", each) for each in encoded.input_ids)
    if not tokens:
        return []
    asked = ANSWER.format(question=" ".join(question.split()))
    before = ["", *(PASSAGE.format(text=" ".join(text.split())) for text in passages)]
    table = torch.tensor(
        model.score([ScoreRequest(EnginePrompt(each + asked), (), tokens) for each in before])
    )
    shift = len(answer) - len(answer.lstrip()) - 1  # of the space put before the answer
    found: list[WordScore] = []
    for (start, end), column in zip(encoded.offset_mapping, table.T.tolist(), strict=True):
        text = f" {answer.strip()}"[start:end]
        if found and not text[:1].isspace():
            last = found[-1]
            before_it = (last.without, *last.with_passages)
            without, *others = (a + b for a, b in zip(before_it, column, strict=True))
            found[-1] = WordScore(last.start, last.text + text, without, tuple(others))
        else:
            found.append(WordScore(start + shift + 1, text, column[0], tuple(column[1:])))
    return found


def features(own: Sequence[WordScore], question: str, passage: str, place: int) -> list[float]:
    """What the scores of a sentence's words show of one passage: `FEATURES`.

    Args:
        own: The words of the sentence.
        question: What was asked; its words show nothing.
        passage: The passage.
        place: Its place among those that the words were scored with.
    """
    asked, held = words(question), words(passage)
    content = [word for word in own if words(word.text) - asked] or list(own)
    gains = [word.with_passages[place] - word.without for word in content]
    log_p = [word.with_passages[place] for word in content]
    precise = [
        gain
        for gain, word in zip(gains, content, strict=True)
        if any(char.isdigit() or char.isupper() for char in word.text)
    ]
    missing = sum(not words(word.text) <= held for word in content) / len(content)
    return [
        sum(gains) / len(gains),
        min(gains),
        sum(log_p) / len(log_p),
        min(log_p),
        sum(precise) / len(precise) if precise else sum(gains) / len(gains),
        missing,
    ]
