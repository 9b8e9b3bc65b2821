"""How likely memory is right where it disagrees with the passages: a probe on hidden states.

Memory claims one thing and the passages another ("The capital of Norway is" Oslo / Cairo). Both
claims are scored in the same place, behind the beginning of memory's answer, in three frames: after
the question alone, after question and passages, and in a bare text without the chat template. A
logistic regression on their log-probabilities and on the difference of their hidden states gives
the probability that memory is right. Hidden states hold more about the truth than probabilities do
(Marks and Tegmark 2023, arXiv:2310.06824; Orgad et al. 2024, arXiv:2410.02707), and the difference
of two statements in the same place cancels what they have in common. Of engines that give no hidden
states, the bare text is left out, and they are asked instead whether either claim is correct
(Kadavath et al. 2022, arXiv:2207.05221).
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
# From engines that give log-probabilities alone: seven of the drafts, and last how much rather the
# model takes memory's answer for correct than that of the passages; where given text is scored,
# between them four of each of three scorings of a claim and how many tokens both claims have. The
# other frames, and each draft scored by the other branch, told nothing more on calibration facts
# (three models, AUROC 0.922, 0.834 and 0.814 without them, 0.913, 0.824 and 0.815 with them).
DRAFT_NUMBERS, LOG_P_NUMBERS = 8, 22
OF_DRAFTS = (*range(DRAFT_NUMBERS - 1), LOG_P_NUMBERS - 1)  # those that need no scores
DEPTHS = (0.4, 0.6)  # of the hidden states, as a share of all layers; best on calibration relations


@dataclass(frozen=True)
class ProbeFeatures:
    """The probe's input for one conflict.

    Attributes:
        numbers: Probabilities, entropies and lengths, shape (numbers,).
        states: Hidden states and their differences, shape (states, hidden size).
    """

    numbers: Tensor
    states: Tensor


def layers(model: "PreTrainedModel") -> list[int]:
    """Indices of the hidden states that the probe uses."""
    count = model.config.get_text_config().num_hidden_layers
    return [round(count * depth) for depth in DEPTHS]


def features(
    passages: TokenScores,
    passages_by_memory: TokenScores,
    memory: TokenScores,
    memory_by_passages: TokenScores,
    frames: Sequence[tuple[TokenScores, TokenScores]],
    supported: bool,
) -> ProbeFeatures:
    """Compute the probe's input; all but the drafts scored by the other branch have hidden states.

    Args:
        passages: The draft with the passages, scored with them.
        passages_by_memory: The same draft, scored without them.
        memory: The draft without the passages, scored without them.
        memory_by_passages: The same draft, scored with them.
        frames: In each frame, memory's claim and the passages', scored in the same place.
        supported: Whether the passages hold what the draft with the passages claims.
    """
    numbers = torch.stack(
        [
            *(number for frame in frames for scores in frame for number in _numbers(scores)),
            *_numbers(memory),
            memory_by_passages.log_p.mean(),
            passages.log_p.mean(),
            passages.log_p.min(),
            _given(passages.entropy).mean(),
            passages_by_memory.log_p.mean(),
            torch.tensor(float(supported)),
            *(torch.tensor(float(len(scores.log_p))) for scores in frames[0]),
        ]
    )
    differences = [
        _given(mine.hidden).mean(dim=1) - _given(theirs.hidden).mean(dim=1)
        for mine, theirs in frames
    ]
    whole = [_given(each.hidden)[:1].mean(dim=1) for each in (memory, passages)]
    return ProbeFeatures(numbers, torch.cat([*differences, *whole]))


def draft_features(passages: Tensor, memory: Tensor, supported: bool) -> ProbeFeatures:
    """Compute what the drafts tell of an engine that gives log-probabilities alone.

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


def claim_features(
    of_drafts: ProbeFeatures, memory: Tensor, after_question: Tensor, after_passages: Tensor
) -> ProbeFeatures:
    """Features with the scores of both claims behind the beginning of memory's draft.

    Args:
        of_drafts: From `draft_features`.
        memory: Log-probability of each token of memory's claim, after the question, in nats.
        after_question: The same of the passages' claim.
        after_passages: The same of the passages' claim after question and passages.
    """
    numbers = [
        number
        for log_p in (memory, after_question, after_passages)
        for number in _numbers(TokenScores(log_p))
    ]
    sizes = [torch.tensor(float(len(log_p))) for log_p in (memory, after_question)]
    joined = torch.cat([of_drafts.numbers, torch.stack([*numbers, *sizes])])
    return ProbeFeatures(joined, of_drafts.states)


def with_judgement(told: ProbeFeatures, memory: float, passages: float) -> ProbeFeatures:
    """Features with what the model itself takes for correct, the last number.

    Args:
        told: From `draft_features` or `claim_features`.
        memory: Log-odds that it calls memory's answer correct, in nats.
        passages: The same of what the passages claim.
    """
    numbers = torch.cat([told.numbers, torch.tensor([memory - passages])])
    return ProbeFeatures(numbers, told.states)


def _given(of_scores: Tensor | None) -> Tensor:
    if of_scores is None:
        raise ValueError("the probe of a model run here needs entropies and hidden states")
    return of_scores


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
