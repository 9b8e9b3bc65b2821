import math

import pytest
import torch

from control.decoding.ck_plug import ck_plug, ck_plug_paper
from control.decoding.contrastive import FLOOR, log_probabilities
from control.decoding.rules import (
    RULES,
    check_options,
    configured,
    mix,
    next_token,
    parameters,
    plain,
)
from foundation.errors import InputError


def log_p(*probabilities):
    return torch.tensor([probabilities]).log().clamp_min(FLOOR)


def alpha(value):
    return torch.full((1, 1), value)


SURE = (0.97, 0.01, 0.01, 0.01)
UNSURE = (0.1, 0.4, 0.3, 0.2)


def test_paper_gate_fires_only_at_a_negative_confidence_gain():
    assert ck_plug_paper(log_p(*UNSURE), log_p(*SURE), alpha(1.0)).mixed.item()
    assert not ck_plug_paper(log_p(*SURE), log_p(*UNSURE), alpha(1.0)).mixed.item()


def test_released_gate_fires_until_memory_has_twice_the_entropy():
    slightly_less_sure = (0.3, 0.3, 0.2, 0.2)
    context, memory = log_p(*UNSURE), log_p(*slightly_less_sure)
    assert not ck_plug_paper(context, memory, alpha(1.0)).mixed.item()
    assert ck_plug(context, memory, alpha(1.0), gate="released").mixed.item()


@pytest.mark.parametrize("gate", ["paper", "released"])
def test_the_gate_fires_below_one_plus_epsilon_times_the_context_s_entropy(gate):
    def fires(epsilon):
        # Entropies ln 4 and ln 2: twice as much without the passages.
        context, memory = log_p(0.5, 0.5, 0, 0), log_p(0.25, 0.25, 0.25, 0.25)
        mixture = ck_plug(context, memory, alpha(1.0), gate=gate, epsilon=epsilon)
        return mixture.mixed.item()

    assert [fires(epsilon) for epsilon in (0, 0.9, 1.1, 3)] == [False, False, True, True]
    assert fires(-3)  # as the paper prints it for Qwen2.5


def test_the_paper_s_rule_and_the_code_s_differ_in_their_threshold():
    context, memory = log_p(0.4, 0.3, 0.2, 0.1), log_p(0.3, 0.3, 0.2, 0.2)
    assert not ck_plug_paper(context, memory, alpha(1.0)).mixed.item()
    assert ck_plug_paper(context, memory, alpha(1.0), epsilon=-1).mixed.item()
    assert ck_plug(context, memory, alpha(1.0)).mixed.item()


def test_the_paper_s_head_is_of_memory_and_of_the_log_ratio():
    size = 40
    memory = torch.full((1, size), 1.0)
    memory[0, :10] = 2.0  # memory's ten best
    context = memory.clone()
    context[0, 10:20] += 3.0  # the ten that gain most by the passages
    context[0, 20] = 3.9  # of more probability than some of them, and in neither
    memory[0, 20] = 1.9
    scores = [
        ck_plug(
            context.log_softmax(-1), memory.log_softmax(-1), alpha(0.5), head=head, epsilon=100
        ).scores[0]
        for head in ("paper", "released")
    ]
    kept = [set((each > FLOOR / 2).nonzero()[:, 0].tolist()) for each in scores]
    assert kept[0] == set(range(20))
    assert 20 in kept[1]


def test_a_gate_that_does_not_fire_leaves_the_passages_distribution():
    scores = ck_plug_paper(log_p(*SURE), log_p(*UNSURE), alpha(1.0)).scores
    assert torch.equal(scores, log_p(*SURE))


@pytest.mark.parametrize(("dial", "first"), [(0.0, 1), (1.0, 0)])
def test_the_dial_decides_a_conflict(dial, first):
    scores = ck_plug_paper(log_p(*UNSURE), log_p(*SURE), alpha(dial)).scores
    assert scores.argmax().item() == first


def test_the_mixture_is_the_paper_s_equation():
    scores = ck_plug_paper(log_p(*UNSURE), log_p(*SURE), alpha(0.7)).scores
    expected = 0.7 * log_p(*SURE) + 0.3 * (log_p(*UNSURE) - log_p(*SURE))
    assert torch.allclose(scores, expected)


def test_adaptive_alpha_is_the_paper_s_equation_10():
    def entropy(probabilities):
        return -sum(p * math.log(p) for p in probabilities)

    weight = entropy(UNSURE) / (entropy(UNSURE) + entropy(SURE))
    adaptive = ck_plug_paper(log_p(*UNSURE), log_p(*SURE), None).scores
    fixed = ck_plug_paper(log_p(*UNSURE), log_p(*SURE), alpha(weight)).scores
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
    mixture = ck_plug_paper(context, memory, torch.tensor([[0.0], [1.0], [1.0]]))
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


def test_the_options_of_a_rule_are_the_keyword_arguments_of_its_function(monkeypatch):
    def sharp(log_p_c, _log_p_m, _alpha, *, times: float = 2.0, side=0):
        return plain(times * log_p_c, _log_p_m, _alpha)

    monkeypatch.setitem(RULES, "sharp", sharp)
    found = parameters("sharp")
    assert {name: each.default for name, each in found.items()} == {"times": 2.0, "side": 0}
    rule = configured("sharp", {"times": 3.0})
    assert torch.equal(rule(log_p(*SURE), log_p(*SURE), None).scores, 3 * log_p(*SURE))
    assert configured("sharp", {}) is sharp
    assert parameters("fulcrum") == parameters("plain") == {}


def test_every_option_of_the_built_in_rules_is_swept_over_values_that_it_takes():
    swept = {rule: parameters(rule) for rule in RULES if rule != "plain"}
    assert all(swept.values())
    for rule, options in swept.items():
        for name, option in options.items():
            assert option.default in option.swept, (rule, name)
            for value in option.swept:
                check_options(rule, {name: value})


@pytest.mark.parametrize(
    ("rule", "options", "says"),
    [
        ("cad", {"epsilon": 1}, "rule cad has no option 'epsilon'; it has strength"),
        ("plain", {"strength": 1}, "rule plain has no option 'strength'; it has none"),
        ("cad", {"strength": -1}, "option strength of rule cad is -1: .* greater than or equal"),
        ("cad", {"strength": "much"}, "option strength of rule cad is 'much': .* valid number"),
        ("cad", {"strength": float("nan")}, "is nan: .* finite number"),
        ("ck_plug", {"gate": "open"}, "is 'open': .* 'released' or 'paper'"),
        ("grd", {"depth": 1.5}, "is 1.5: .* less than or equal to 1"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(rule, options, says):
    with pytest.raises(InputError, match=says):
        configured(rule, options)
