import math

import pytest
import torch

from control.decoding.ck_plug import ck_plug
from control.decoding.contrastive import FLOOR, log_probabilities
from control.decoding.rules import mix, next_token, plain


def log_p(*probabilities):
    return torch.tensor([probabilities]).log().clamp_min(FLOOR)


def alpha(value):
    return torch.full((1, 1), value)


SURE = (0.97, 0.01, 0.01, 0.01)
UNSURE = (0.1, 0.4, 0.3, 0.2)


def test_paper_gate_fires_only_at_a_negative_confidence_gain():
    assert ck_plug(log_p(*UNSURE), log_p(*SURE), alpha(1.0), gate="paper").mixed.item()
    assert not ck_plug(log_p(*SURE), log_p(*UNSURE), alpha(1.0), gate="paper").mixed.item()


def test_released_gate_fires_until_memory_has_twice_the_entropy():
    slightly_less_sure = (0.3, 0.3, 0.2, 0.2)
    context, memory = log_p(*UNSURE), log_p(*slightly_less_sure)
    assert not ck_plug(context, memory, alpha(1.0), gate="paper").mixed.item()
    assert ck_plug(context, memory, alpha(1.0), gate="released").mixed.item()


def test_a_gate_that_does_not_fire_leaves_the_passages_distribution():
    scores = ck_plug(log_p(*SURE), log_p(*UNSURE), alpha(1.0), gate="paper").scores
    assert torch.equal(scores, log_p(*SURE))


@pytest.mark.parametrize(("dial", "first"), [(0.0, 1), (1.0, 0)])
def test_the_dial_decides_a_conflict(dial, first):
    scores = ck_plug(log_p(*UNSURE), log_p(*SURE), alpha(dial), gate="paper").scores
    assert scores.argmax().item() == first


def test_the_mixture_is_the_paper_s_equation():
    scores = ck_plug(log_p(*UNSURE), log_p(*SURE), alpha(0.7), gate="paper").scores
    expected = 0.7 * log_p(*SURE) + 0.3 * (log_p(*UNSURE) - log_p(*SURE))
    assert torch.allclose(scores, expected)


def test_adaptive_alpha_is_the_paper_s_equation_10():
    def entropy(probabilities):
        return -sum(p * math.log(p) for p in probabilities)

    weight = entropy(UNSURE) / (entropy(UNSURE) + entropy(SURE))
    adaptive = ck_plug(log_p(*UNSURE), log_p(*SURE), None, gate="paper").scores
    fixed = ck_plug(log_p(*UNSURE), log_p(*SURE), alpha(weight), gate="paper").scores
    assert torch.allclose(adaptive, fixed, atol=1e-5)


def test_tokens_outside_the_head_vocabulary_are_never_chosen():
    size = 200
    generator = torch.Generator().manual_seed(0)
    context = log_probabilities(torch.randn(1, size, generator=generator) * 6)
    memory = log_probabilities(torch.randn(1, size, generator=generator) * 6)
    for gate in ("paper", "released"):
        # At the passage end the log ratio alone would favour what memory finds impossible.
        said = ck_plug(context, memory, alpha(0.0), gate=gate).scores.argmax().item()
        ranks = [int((each > each[0, said]).sum()) for each in (context, memory)]
        assert min(ranks) < 10


def test_sequences_of_a_batch_have_their_own_gate_and_alpha():
    context = torch.cat([log_p(*UNSURE), log_p(*SURE), log_p(*UNSURE)])
    memory = torch.cat([log_p(*SURE), log_p(*UNSURE), log_p(*SURE)])
    mixture = ck_plug(context, memory, torch.tensor([[0.0], [1.0], [1.0]]), gate="paper")
    assert mixture.mixed.tolist() == [True, False, True]
    assert mixture.scores.argmax(dim=-1).tolist() == [1, 0, 0]


def test_the_step_reports_entropies_in_nats():
    step = mix(
        plain,
        next_token(torch.zeros(1, 8)),
        next_token(torch.tensor([[0.0] + [-torch.inf] * 7])),
        None,
    )
    assert step.entropy_context.item() == pytest.approx(math.log(8))
    assert step.entropy_memory.item() == pytest.approx(0)
