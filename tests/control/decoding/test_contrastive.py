import math

import pytest
import torch

from control.decoding.contrastive import FLOOR, adacad, cad, cocoa, coiecd

# Five tokens: two within a factor 4 of the first choice, one within a factor 4 of the last.
DOUBTFUL = (0.6, 0.24, 0.1, 0.05, 0.01)
# One token within a factor 4 of the first choice.
CERTAIN = (0.9, 0.05, 0.03, 0.01, 0.01)
MEMORY = (0.1, 0.5, 0.1, 0.2, 0.1)

OURS = [cad, adacad, coiecd, cocoa]


def log_p(*probabilities):
    return torch.tensor([probabilities]).log().clamp_min(FLOOR)


def alpha(value):
    return torch.full((1, 1), value)


def contrast(context, memory, strength):
    """Hand computation of the scores of one row, a strength for all tokens or one for each."""
    strengths = strength if isinstance(strength, tuple) else (strength,) * len(context)
    return [
        (1 + a) * math.log(c) - a * math.log(m)
        for c, m, a in zip(context, memory, strengths, strict=True)
    ]


def scores(rule, context, memory, dial=None):
    mixture = rule(log_p(*context), log_p(*memory), None if dial is None else alpha(dial))
    return mixture.scores[0].tolist()


def test_adacad_contrasts_by_the_jensen_shannon_divergence_in_bits():
    # The middle of the two is (0.625, 0.375).
    context, memory = (0.5, 0.5), (0.75, 0.25)
    to_middle = 0.5 * math.log2(0.5 / 0.625) + 0.5 * math.log2(0.5 / 0.375)
    from_memory = 0.75 * math.log2(0.75 / 0.625) + 0.25 * math.log2(0.25 / 0.375)
    assert (to_middle + from_memory) / 2 == pytest.approx(0.048795, abs=1e-6)
    expected = contrast(context, memory, 0.048795)
    assert scores(adacad, context, memory) == pytest.approx(expected, abs=1e-5)


def test_adacad_is_cad_where_the_branches_share_no_token_and_plain_where_they_agree():
    assert scores(adacad, (1, 0), (0, 1)) == pytest.approx(scores(cad, (1, 0), (0, 1)))
    assert scores(adacad, MEMORY, MEMORY) == pytest.approx(contrast(MEMORY, MEMORY, 0))


def test_coiecd_contrasts_only_the_tokens_outside_the_constraint():
    # In conflict: above 0.6 / 4 = 0.15, and below 4 * 0.01 = 0.04.
    expected = contrast(DOUBTFUL, MEMORY, (1, 1, 0, 0, 1))
    assert scores(coiecd, DOUBTFUL, MEMORY) == pytest.approx(expected, abs=1e-5)
    assert coiecd(log_p(*DOUBTFUL), log_p(*MEMORY), None).mixed.tolist() == [True]


def test_coiecd_leaves_a_lone_first_choice_unchanged():
    # Above 0.9 / 4 is one token alone, so it is not in conflict; below 4 * 0.01 still is.
    expected = contrast(CERTAIN, MEMORY, (0, 0, 1, 1, 1))
    assert scores(coiecd, CERTAIN, MEMORY) == pytest.approx(expected, abs=1e-5)
    assert coiecd(log_p(*CERTAIN), log_p(*MEMORY), None).mixed.tolist() == [False]


def test_coiecd_equals_its_equations_before_the_entropy_cancels():
    context, memory = log_p(*DOUBTFUL), log_p(*MEMORY)
    shift = -context + (memory.exp() * memory).sum()
    p_d = shift.softmax(dim=-1)
    kept = (p_d >= p_d.min() / 0.25) & (p_d <= 0.25 * p_d.max())
    g = context - memory
    expected = torch.where(kept, memory, context) + g
    assert torch.allclose(coiecd(context, memory, None).scores, expected, atol=1e-5)


def test_cocoa_weighs_entropy_gap_divergence_and_peakedness():
    context, memory = (0.8, 0.2), (0.5, 0.5)
    gap = 0.693147 - 0.500402
    divergence = 0.105361  # -2 log(sqrt(0.4) + sqrt(0.1)) = -log 0.9
    peakedness = 0.6
    weight = 1 / (1 + math.exp(-(gap + divergence / (1 + divergence) + 5 * peakedness)))
    assert weight == pytest.approx(0.96402, abs=1e-5)
    expected = contrast(context, memory, weight)
    assert scores(cocoa, context, memory) == pytest.approx(expected, abs=1e-4)


def test_cocoa_weighs_certain_passages_more_than_uncertain_ones():
    def strength(context):
        first, second = scores(cocoa, context, (0.4, 0.6))
        # The contrast of the two log-odds, solved for the strength.
        odds, memory_odds = math.log(context[0] / context[1]), math.log(0.4 / 0.6)
        return (first - second - odds) / (odds - memory_odds)

    unsure, surer, sure = (strength(each) for each in [(0.51, 0.49), (0.7, 0.3), (0.95, 0.05)])
    assert 0 < unsure < surer < sure < 1


@pytest.mark.parametrize("rule", OURS)
def test_the_dial_goes_from_as_published_over_plain_to_the_opposite(rule):
    published = torch.tensor(scores(rule, DOUBTFUL, MEMORY))
    plain = log_p(*DOUBTFUL)[0]
    assert scores(rule, DOUBTFUL, MEMORY, 0.0) == pytest.approx(published.tolist())
    assert scores(rule, DOUBTFUL, MEMORY, 0.5) == plain.tolist()
    mirrored = (2 * plain - published).tolist()
    assert scores(rule, DOUBTFUL, MEMORY, 1.0) == pytest.approx(mirrored, abs=1e-5)


@pytest.mark.parametrize("rule", OURS)
def test_memory_s_first_choice_gains_along_the_dial(rule):
    def share(dial):
        return torch.tensor(scores(rule, DOUBTFUL, MEMORY, dial)).softmax(dim=-1)[1].item()

    assert share(0.0) < share(0.5) < share(1.0)


@pytest.mark.parametrize("rule", OURS)
def test_sequences_of_a_batch_have_their_own_strength(rule):
    context, memory = log_p(*DOUBTFUL), log_p(*MEMORY)
    dials = torch.tensor([[0.0], [0.5], [0.3]])
    together = rule(
        torch.cat([context, memory, log_p(*CERTAIN)]), torch.cat([memory, context, memory]), dials
    )
    for row, (c, m, dial) in enumerate(
        [(DOUBTFUL, MEMORY, 0.0), (MEMORY, DOUBTFUL, 0.5), (CERTAIN, MEMORY, 0.3)]
    ):
        expected = scores(rule, c, m, dial)
        assert together.scores[row].tolist() == pytest.approx(expected, abs=1e-5)
    assert together.mixed.shape == (3,)
