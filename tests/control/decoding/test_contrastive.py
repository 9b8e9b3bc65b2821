import math

import pytest
import torch

from control.decoding.contrastive import FLOOR, adacad, cad, cocoa, coiecd, confidence_cad

# Five tokens: two within a factor 4 of the first choice, one within a factor 4 of the last.
DOUBTFUL = (0.6, 0.24, 0.1, 0.05, 0.01)
# One token within a factor 4 of the first choice.
CERTAIN = (0.9, 0.05, 0.03, 0.01, 0.01)
MEMORY = (0.1, 0.5, 0.1, 0.2, 0.1)

OURS = [cad, adacad, coiecd, cocoa, confidence_cad]


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


def scores(rule, context, memory, dial=None, **options):
    dials = None if dial is None else alpha(dial)
    return rule(log_p(*context), log_p(*memory), dials, **options).scores[0].tolist()


def test_cad_contrasts_by_the_strength_that_is_given():
    expected = contrast(DOUBTFUL, MEMORY, 0.25)
    assert scores(cad, DOUBTFUL, MEMORY, strength=0.25) == pytest.approx(expected, abs=1e-5)
    memory_end = contrast(DOUBTFUL, MEMORY, -0.25)
    assert scores(cad, DOUBTFUL, MEMORY, 1.0, strength=0.25) == pytest.approx(memory_end, abs=1e-5)


@pytest.mark.parametrize(("logarithm", "strength"), [("binary", 0.048795), ("natural", 0.033822)])
def test_adacad_contrasts_by_the_jensen_shannon_divergence(logarithm, strength):
    # The middle of the two is (0.625, 0.375).
    context, memory = (0.5, 0.5), (0.75, 0.25)
    to_middle = 0.5 * math.log2(0.5 / 0.625) + 0.5 * math.log2(0.5 / 0.375)
    from_memory = 0.75 * math.log2(0.75 / 0.625) + 0.25 * math.log2(0.25 / 0.375)
    assert (to_middle + from_memory) / 2 == pytest.approx(0.048795, abs=1e-6)
    assert 0.048795 * math.log(2) == pytest.approx(0.033822, abs=1e-6)
    expected = contrast(context, memory, strength)
    found = scores(adacad, context, memory, logarithm=logarithm)
    assert found == pytest.approx(expected, abs=1e-5)


def test_adacad_takes_the_natural_logarithm_as_its_code_does():
    natural = scores(adacad, DOUBTFUL, MEMORY, logarithm="natural")
    assert scores(adacad, DOUBTFUL, MEMORY) == natural


def test_adacad_is_never_weaker_than_its_lower_bound():
    expected = contrast(MEMORY, MEMORY, 0.3)  # the divergence is 0
    assert scores(adacad, MEMORY, MEMORY, lower_bound=0.3) == pytest.approx(expected, abs=1e-5)
    context, memory = (0.999, 0.001), (0.001, 0.999)  # the divergence is above it
    free, bound = (scores(adacad, context, memory, lower_bound=low) for low in (0.0, 0.3))
    assert bound == free


def test_adacad_is_cad_where_the_branches_share_no_token_and_plain_where_they_agree():
    found = scores(adacad, (1, 0), (0, 1), logarithm="binary")
    assert found == pytest.approx(scores(cad, (1, 0), (0, 1)))
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


@pytest.mark.parametrize(("bound", "b"), [(0.25, 1.0), (0.5, 1.0), (0.25, 0.5)])
def test_coiecd_equals_its_equations_before_the_entropy_cancels(bound, b):
    context, memory = log_p(*DOUBTFUL), log_p(*MEMORY)
    shift = -context + (memory.exp() * memory).sum()
    p_d = shift.softmax(dim=-1)
    below = p_d < p_d.min() / bound
    if below.sum() == 1:
        below[:] = False
    kept = ~below & (p_d <= bound * p_d.max())
    g = context - memory
    expected = torch.where(kept, memory, context) + b * g
    found = coiecd(context, memory, None, strength=b, factor=1 / bound).scores
    assert torch.allclose(found, expected, atol=1e-5)


def test_cocoa_blends_and_contrasts_as_its_code_does():
    w, gamma = 0.5, 1.0
    expected = [
        w * math.log(c) + (1 - w) * math.log(m) + gamma * (math.log(c) - math.log(m))
        for c, m in zip(DOUBTFUL, MEMORY, strict=True)
    ]
    assert scores(cocoa, DOUBTFUL, MEMORY) == pytest.approx(expected, abs=1e-5)
    expected = contrast(DOUBTFUL, MEMORY, 1.0)  # 0.5 + 1.5 - 1
    assert scores(cocoa, DOUBTFUL, MEMORY, gamma=1.5) == pytest.approx(expected, abs=1e-5)


def test_confidence_cad_weighs_entropy_gap_divergence_and_peakedness():
    context, memory = (0.8, 0.2), (0.5, 0.5)
    gap = 0.693147 - 0.500402
    divergence = 0.105361  # -2 log(sqrt(0.4) + sqrt(0.1)) = -log 0.9
    peakedness = 0.6
    weight = 1 / (1 + math.exp(-(gap + divergence / (1 + divergence) + 5 * peakedness)))
    assert weight == pytest.approx(0.96402, abs=1e-5)
    expected = contrast(context, memory, weight)
    assert scores(confidence_cad, context, memory) == pytest.approx(expected, abs=1e-4)


def test_confidence_cad_weighs_certain_passages_more_than_uncertain_ones():
    def strength(context):
        first, second = scores(confidence_cad, context, (0.4, 0.6))
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
