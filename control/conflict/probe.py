"""Which side is right where memory and passages disagree? A probe on the model's own states.

Memory claims one thing and the passages another ("The capital of Norway is" Oslo / Cairo). The two
claims are read in the same place, behind the beginning of memory's answer, in three frames: after
the question alone, after question and passages, and in a bare text without the chat. A logistic
regression on how probable they are there and on how the hidden states differ says how likely memory
is right. Hidden states know more of the truth than probabilities do (Marks and Tegmark 2023,
arXiv:2310.06824; Orgad et al. 2024, arXiv:2410.02707), and the difference of two statements in the
same place leaves out what they have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from control.engines.branches import TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUMBERS = 50  # in the evidence: six of each reading of a claim and of memory's answer, eight more
DEPTHS = (0.4, 0.6)  # of the hidden states, as a share of all layers; best on calibration relations


@dataclass(frozen=True)
class ClaimPair:
    """Both claims, read in the same place: readings of their own tokens alone."""

    memory: TokenScores
    passages: TokenScores


@dataclass(frozen=True)
class ProbeFeatures:
    """What the probe sees of one conflict.

    Attributes:
        numbers: Probabilities, entropies and lengths, shape (numbers,).
        states: Hidden states and their differences, shape (states, hidden size).
    """

    numbers: Tensor
    states: Tensor


@dataclass(frozen=True)
class ProbeAnswers:
    """The first sentences of both sides, each read by both branches.

    Attributes:
        passages: The answer with the passages, read with them.
        passages_by_memory: The same answer, read without them.
        memory: The answer without the passages, read without them.
        memory_by_passages: The same answer, read with them.
    """

    passages: TokenScores
    passages_by_memory: TokenScores
    memory: TokenScores
    memory_by_passages: TokenScores


def layers(model: "PreTrainedModel") -> list[int]:
    """Indices of the hidden states that the probe reads."""
    count = model.config.get_text_config().num_hidden_layers
    return [round(count * depth) for depth in DEPTHS]


def evidence(answers: ProbeAnswers, frames: Sequence[ClaimPair], supported: bool) -> ProbeFeatures:
    """Collect what the probe sees.

    Args:
        answers: Both answers, with hidden states at `layers`.
        frames: Both claims in each frame, likewise.
        supported: Whether the passages hold what the passages' answer claims.
    """
    sides = [side for frame in frames for side in (frame.memory, frame.passages)]
    numbers = torch.stack(
        [
            *(number for side in sides for number in _numbers(side)),
            *_numbers(answers.memory),
            answers.memory_by_passages.log_p.mean(),
            answers.passages.log_p.mean(),
            answers.passages.log_p.min(),
            answers.passages.entropy.mean(),
            answers.passages_by_memory.log_p.mean(),
            torch.tensor(float(supported)),
            torch.tensor(float(len(frames[0].memory.log_p))),
            torch.tensor(float(len(frames[0].passages.log_p))),
        ]
    )
    differences = [
        (frame.memory.hidden.mean(dim=1) - frame.passages.hidden.mean(dim=1)) for frame in frames
    ]
    whole = [side.hidden[:1].mean(dim=1) for side in (answers.memory, answers.passages)]
    return ProbeFeatures(numbers, torch.cat([*differences, *whole]))


def _numbers(reading: TokenScores) -> list[Tensor]:
    return [
        reading.log_p.sum(),
        reading.log_p.mean(),
        reading.log_p.min(),
        reading.log_p[0],
        reading.entropy[0],
        reading.entropy.mean(),
    ]


@dataclass(frozen=True)
class MemoryProbe:
    """A fitted logistic regression.

    Attributes:
        numbers: Weight of each number.
        states: Weight of each hidden state's components; empty for a probe that serves any model.
        bias: Of the regression.
    """

    numbers: list[float]
    states: list[list[float]]
    bias: float

    def __call__(self, seen: ProbeFeatures) -> float:
        """Probability that memory is right, given that one side is, in [0, 1]."""
        logit = torch.tensor(self.numbers) @ seen.numbers + self.bias
        if self.states:
            logit = logit + (torch.tensor(self.states) * seen.states).sum()
        return float(torch.sigmoid(logit))
