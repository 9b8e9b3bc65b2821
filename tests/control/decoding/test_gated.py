import math

import pytest
import torch

from control.decoding.contrastive import FLOOR, cocoa
from control.decoding.gated import grd, nwcad
from control.decoding.rules import mix, next_token

# The passages say token 0, memory token 1; of the two, memory is the surer one.
PASSAGES = (0.5, 0.1, 0.2, 0.2)
SURE_MEMORY = (0.1, 0.8, 0.05, 0.05)
UNSURE_MEMORY = (0.3, 0.4, 0.2, 0.1)
AGREEING = (0.6, 0.2, 0.1, 0.1)


def log_p(*rows):
    return torch.tensor(rows).log().clamp_min(FLOOR)


def along(rule, steps, **options):
    """The outputs of a rule along an answer, given (context, memory) of each token."""
    outputs, state = [], ()
    for context, memory in steps:
        outputs.append(rule(log_p(context), log_p(memory), None, *state, **options))
        state = (outputs[-1].state,)
    return outputs


def choices(outputs):
    return [output.scores.argmax().item() for output in outputs]


def test_grd_decides_for_the_whole_answer_at_the_first_token_in_dispute():
    trusting = along(grd, [(AGREEING, AGREEING), (PASSAGES, SURE_MEMORY), (PASSAGES, SURE_MEMORY)])
    assert choices(trusting) == [0, 1, 1]
    assert [output.mixed.item() for output in trusting] == [False, True, True]
    # Memory comes to be sure only after the passages have been trusted.
    doubting = along(grd, [(PASSAGES, UNSURE_MEMORY), (PASSAGES, SURE_MEMORY)])
    assert choices(doubting) == [0, 0]
    assert not any(output.mixed.item() for output in doubting)


def test_grd_trusts_memory_that_is_above_one_half_and_surer_than_the_passages():
    def trusts(context, memory, **options):
        return along(grd, [(context, memory)], **options)[0].mixed.item()

    assert trusts(PASSAGES, SURE_MEMORY)
    assert not trusts(PASSAGES, SURE_MEMORY, confidence=0.8)  # it has to be above
    assert not trusts((0.97, 0.01, 0.01, 0.01), SURE_MEMORY)  # the passages are surer
    evenly = (0.28, 0.24, 0.24, 0.24)
    below_half = (0.1, 0.49, 0.40, 0.01)
    assert not trusts(evenly, below_half)
    assert trusts(evenly, below_half, confidence=0.4)


@pytest.mark.parametrize("depth", [0.25, 0.75])
def test_grd_scores_by_the_pairwise_reversal_threshold(depth):
    [output] = along(grd, [(PASSAGES, SURE_MEMORY)], depth=depth)
    m_c, m_m = math.log(0.5 / 0.1), math.log(0.8 / 0.1)
    tau = (1 - depth) * m_m / (m_c + m_m)
    expected = [
        tau * math.log(c) + (1 - tau) * math.log(m)
        for c, m in zip(PASSAGES, SURE_MEMORY, strict=True)
    ]
    assert output.scores[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_at_no_depth_both_tokens_of_grd_score_alike_and_at_full_depth_memory_s_distribution():
    [even] = along(grd, [(PASSAGES, SURE_MEMORY)], depth=0.0)
    assert even.scores[0, 0].item() == pytest.approx(even.scores[0, 1].item(), abs=1e-5)
    [memory] = along(grd, [(PASSAGES, SURE_MEMORY)], depth=1.0)
    assert torch.allclose(memory.scores, log_p(SURE_MEMORY), atol=1e-6)


def test_grd_leaves_a_token_on_which_the_branches_agree_to_plain_rag():
    last = along(grd, [(PASSAGES, SURE_MEMORY), (AGREEING, (0.9, 0.1, 0, 0))])[-1]
    assert torch.equal(last.scores, log_p(AGREEING))


def test_answers_of_a_batch_decide_for_themselves():
    first = grd(log_p(PASSAGES, PASSAGES, AGREEING), log_p(SURE_MEMORY, UNSURE_MEMORY, AGREEING), 0)
    second = grd(log_p(*[PASSAGES] * 3), log_p(*[SURE_MEMORY] * 3), 0, first.state)
    assert first.scores.argmax(dim=-1).tolist() == [1, 0, 0]
    assert second.scores.argmax(dim=-1).tolist() == [1, 0, 1]
    # The answer in the middle ends, as a group of sequences lets it go.
    third = grd(log_p(*[PASSAGES] * 2), log_p(*[UNSURE_MEMORY] * 2), 0, second.state[[0, 2]])
    assert third.mixed.tolist() == [True, True]


def test_a_step_hands_the_rule_what_it_returned_at_the_last_one():
    context, memory = next_token(log_p(PASSAGES)), next_token(log_p(UNSURE_MEMORY))
    first = mix(grd, context, memory, None)
    step = mix(grd, context, next_token(log_p(SURE_MEMORY)), None, first.state)
    assert not step.mixed.item()
    assert mix(grd, context, next_token(log_p(SURE_MEMORY)), None).mixed.item()


def test_nwcad_agrees_with_memory_where_the_passages_bring_nothing():
    context, memory = log_p((0.55, 0.25, 0.1, 0.1)), log_p((0.6, 0.2, 0.1, 0.1))
    output = nwcad(context, memory, None, tau=0.05, kappa_memory=0.3)
    assert torch.equal(output.scores, memory)
    assert output.mixed.item()


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"kappa_memory": 0.5}])
def test_nwcad_follows_passages_that_are_sure_where_the_first_gate_is_shut(options):
    context, memory = log_p((0.65, 0.15, 0.1, 0.1)), log_p((0.6, 0.2, 0.1, 0.1))
    output = nwcad(context, memory, None, **{"kappa_memory": 0.3, "kappa_context": 0.4} | options)
    assert torch.equal(output.scores, context)
    assert not output.mixed.item()


def test_nwcad_falls_back_to_cocoa_where_neither_gate_opens():
    context, memory = log_p((0.4, 0.3, 0.2, 0.1)), log_p(SURE_MEMORY)
    output = nwcad(context, memory, None, kappa_context=0.2)
    assert torch.equal(output.scores, cocoa(context, memory, None).scores)
    assert output.mixed.item()


def test_nwcad_s_divergence_is_the_jensen_shannon_in_nats():
    context, memory = log_p((0.5, 0.5)), log_p((0.75, 0.25))  # 0.048795 bits, 0.033822 nats
    for tau, followed in ((0.0339, memory), (0.0337, context)):
        output = nwcad(context, memory, None, tau=tau, kappa_memory=0.5, kappa_context=0.0)
        assert torch.equal(output.scores, followed)
