"""How likely memory is right where it disagrees with the passages: a probe on hidden states.

Memory claims one thing and the passages another ("The capital of Norway is" Oslo / Cairo). Both
claims are scored in the same place, behind the beginning of memory's answer, in three frames: after
the question alone, after question and passages, and in a bare text without the chat template. A
logistic regression on their log-probabilities and on the difference of their hidden states gives
the probability that memory is right. Hidden states hold more about the truth than probabilities do
(Marks and Tegmark 2023, arXiv:2310.06824; Orgad et al. 2024, arXiv:2410.02707), and the difference
of two statements in the same place cancels what they have in common. Engines that give no hidden
states are asked instead whether either claim is correct (Kadavath et al. 2022, arXiv:2207.05221).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from control.engines.branches import TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUMBERS = 50  # six of each scoring of a claim and of memory's answer, and eight more
# The same without entropies, from engines that give log-probabilities alone, and how much rather
# the model takes memory's answer for correct than that of the passages.
LOG_P_NUMBERS = 36
# Those of them that need no scores of given text.
OF_DRAFTS = (24, 25, 26, 27, 29, 30, 32, LOG_P_NUMBERS - 1)
DRAFT_NUMBERS = len(OF_DRAFTS)
DEPTHS = (0.4, 0.6)  # of the hidden states, as a share of all layers; best on calibration relations


@dataclass(frozen=True)
class ClaimPair:
    """Scores of both claims' own tokens in the same place."""

    memory: TokenScores
    passages: TokenScores


@dataclass(frozen=True)
class ProbeFeatures:
    """The probe's input for one conflict.

    Attributes:
        numbers: Probabilities, entropies and lengths, shape (numbers,).
        states: Hidden states and their differences, shape (states, hidden size).
    """

    numbers: Tensor
    states: Tensor


@dataclass(frozen=True)
class ProbeAnswers:
    """Both drafts, each scored by both branches.

    Attributes:
        passages: The draft with the passages, scored with them.
        passages_by_memory: The same draft, scored without them.
        memory: The draft without the passages, scored without them.
        memory_by_passages: The same draft, scored with them.
    """

    passages: TokenScores
    passages_by_memory: TokenScores
    memory: TokenScores
    memory_by_passages: TokenScores


def layers(model: "PreTrainedModel") -> list[int]:
    """Indices of the hidden states that the probe uses."""
    count = model.config.get_text_config().num_hidden_layers
    return [round(count * depth) for depth in DEPTHS]


def features(answers: ProbeAnswers, frames: Sequence[ClaimPair], supported: bool) -> ProbeFeatures:
    """Compute the probe's input.

    Args:
        answers: Both drafts, with hidden states at `layers`.
        frames: Both claims in each frame, likewise.
        supported: Whether the passages hold what the draft with the passages claims.
    """
    sides = [scores for frame in frames for scores in (frame.memory, frame.passages)]
    numbers = torch.stack(
        [
            *(number for scores in sides for number in _numbers(scores)),
            *_numbers(answers.memory),
            answers.memory_by_passages.log_p.mean(),
            answers.passages.log_p.mean(),
            answers.passages.log_p.min(),
            *([] if answers.passages.entropy is None else [answers.passages.entropy.mean()]),
            answers.passages_by_memory.log_p.mean(),
            torch.tensor(float(supported)),
            torch.tensor(float(len(frames[0].memory.log_p))),
            torch.tensor(float(len(frames[0].passages.log_p))),
        ]
    )
    if answers.memory.hidden is None:
        return ProbeFeatures(numbers, torch.zeros(0, 0))
    differences = [
        _hidden(frame.memory).mean(dim=1) - _hidden(frame.passages).mean(dim=1) for frame in frames
    ]
    whole = [_hidden(scores)[:1].mean(dim=1) for scores in (answers.memory, answers.passages)]
    return ProbeFeatures(numbers, torch.cat([*differences, *whole]))


def with_judgement(of_scores: ProbeFeatures, memory: float, passages: float) -> ProbeFeatures:
    """Features with what the model itself takes for correct, the last of `LOG_P_NUMBERS`.

    Args:
        of_scores: From `features` or `draft_features`.
        memory: Log-odds that it calls memory's answer correct, in nats.
        passages: The same of what the passages claim.
    """
    numbers = torch.cat([of_scores.numbers, torch.tensor([memory - passages])])
    return ProbeFeatures(numbers, of_scores.states)


def draft_features(passages: Tensor, memory: Tensor, supported: bool) -> ProbeFeatures:
    """Compute the probe's input where the engine scores no given text: `OF_DRAFTS` but the last.

    Args:
        passages: Log-probability of each token of the draft with the passages, in nats.
        memory: The same of memory's draft.
        supported: Whether the passages hold what the draft with the passages claims.
    """
    numbers = [
        *_numbers(TokenScores(memory)),
        passages.mean(),
        passages.min(),
        torch.tensor(float(supported)),
    ]
    return ProbeFeatures(torch.stack(numbers), torch.zeros(0, 0))


def _hidden(scores: TokenScores) -> Tensor:
    if scores.hidden is None:
        raise ValueError("some scores have hidden states and others none")
    return scores.hidden


def _numbers(scores: TokenScores) -> list[Tensor]:
    log_p, entropy = scores.log_p, scores.entropy
    of_entropy = [] if entropy is None else [entropy[0], entropy.mean()]
    return [log_p.sum(), log_p.mean(), log_p.min(), log_p[0], *of_entropy]


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

    def __call__(self, features: ProbeFeatures) -> float:
        """Probability that memory is right, given that it or the passages are, in [0, 1]."""
        logit = torch.tensor(self.numbers) @ features.numbers + self.bias
        if self.states:
            logit = logit + (torch.tensor(self.states) * features.states).sum()
        return float(torch.sigmoid(logit))
