"""Numerical equalities that two-branch decoding must keep."""

import pytest
import torch

from control import prompts
from control.conflict import dial, drafts
from control.conflict.calibration import ANY_MODEL, Calibration, Thresholds
from control.conflict.probe import NUMBERS, MemoryProbe
from control.decoding import generate
from control.decoding.generate import Decoding
from control.decoding.rules import RULES, WITHOUT_DIAL, mix, next_token

QUESTION = "What is it?"
PASSAGES = ["It is the other one.", "abc def ghi jkl"]
TOKENS = 24


def prompt(model, question=QUESTION, passages=PASSAGES):
    return prompts.build(model, question, passages, model.window - TOKENS)


def ids_of(model, asked, how, alphas=None):
    return [trace.ids for trace in generate.generate(model, asked, how, alphas)]


def greedy(model, text, **options):
    """The library's own greedy decoding of one text, without the end token."""
    encoded = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    output = model.model.generate(**encoded, max_new_tokens=TOKENS, do_sample=False, **options)
    ids = output[0, encoded.input_ids.shape[1] :].tolist()
    return ids[:-1] if ids[-1] == model.model.generation_config.eos_token_id else ids


def test_the_plain_rule_is_the_library_s_own_generation(tiny):
    asked = prompt(tiny)
    [ids] = ids_of(tiny, [asked], Decoding(rule="plain", max_new_tokens=TOKENS))
    assert ids == greedy(tiny, asked.context)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"plain", *WITHOUT_DIAL}))
def test_alpha_one_half_is_plain_rag(tiny, rule):
    asked = [prompt(tiny), prompt(tiny, "Who?"), prompt(tiny, "Where is abc?", ["abc is there."])]
    plain = ids_of(tiny, asked, Decoding(rule="plain", max_new_tokens=TOKENS))
    assert ids_of(tiny, asked, Decoding(rule=rule, alpha=0.5, max_new_tokens=TOKENS)) == plain


def test_alpha_one_with_every_token_mixed_is_closed_book(tiny):
    asked = prompt(tiny)
    [ids] = ids_of(tiny, [asked], Decoding(rule="cad", alpha=1.0, max_new_tokens=TOKENS))
    assert ids == greedy(tiny, asked.memory)
    assert ids != greedy(tiny, asked.context)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.4])
def test_cad_is_the_library_s_classifier_free_guidance(tiny, alpha):
    asked = prompt(tiny)
    memory = tiny.tokenizer(asked.memory, return_tensors="pt", add_special_tokens=False)
    expected = greedy(
        tiny,
        asked.context,
        guidance_scale=2 - 2 * alpha,
        negative_prompt_ids=memory.input_ids,
        negative_prompt_attention_mask=memory.attention_mask,
    )
    [ids] = ids_of(tiny, [asked], Decoding(rule="cad", alpha=alpha, max_new_tokens=TOKENS))
    assert ids == expected


@pytest.mark.parametrize("rule", list(RULES))
def test_a_batch_answers_as_its_questions_do_alone(tiny, rule):
    asked = [
        prompt(tiny),
        prompt(tiny, "A much longer question, is it not?", ["Yes."]),
        prompt(tiny, "No passages here?", []),
    ]
    how = Decoding(rule=rule, alpha=0.8, max_new_tokens=TOKENS)
    alone = [ids_of(tiny, [each], how)[0] for each in asked]
    assert ids_of(tiny, asked, how) == alone


@pytest.mark.parametrize("rule", list(RULES))
def test_several_alphas_in_one_batch_answer_as_each_does_alone(tiny, rule):
    asked, alphas = [prompt(tiny), prompt(tiny, "Who?")], [0.0, 0.5, 0.9]
    together = ids_of(tiny, asked, Decoding(rule=rule, max_new_tokens=TOKENS), alphas)
    alone = [
        ids_of(tiny, [each], Decoding(rule=rule, alpha=alpha, max_new_tokens=TOKENS))[0]
        for each in asked
        for alpha in alphas
    ]
    assert together == alone


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("alpha", [0.2, 0.9, "auto"])
def test_cached_decoding_equals_reading_everything_again(tiny, rule, alpha):
    asked = prompt(tiny)
    texts = [
        tiny.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        for text in (asked.context, asked.memory)
    ]
    weight = None if alpha == "auto" else torch.full((1, 1), alpha)
    expected, state = [], None
    for _ in range(TOKENS):
        said = torch.tensor([expected], dtype=torch.long)
        with torch.no_grad():
            logits = [tiny.model(torch.cat([text, said], dim=1)).logits[:, -1] for text in texts]
        step = mix(RULES[rule], *map(next_token, logits), weight, state)
        token, state = int(step.scores.argmax()), step.state
        if token == tiny.tokenizer.eos_token_id:
            break
        expected.append(token)
    [ids] = ids_of(tiny, [asked], Decoding(rule=rule, alpha=alpha, max_new_tokens=TOKENS))
    assert ids == expected


def extreme_logits(size=32):
    """Of three tokens: all alike, one certain by what is ruled out, one certain by far."""
    logits = torch.zeros(3, size)
    logits[1], logits[1, 3] = -torch.inf, 0
    logits[2], logits[2, 7] = -1e30, 1e30
    return logits


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "auto"])
def test_extreme_logits_give_finite_scores(rule, alpha):
    context, memory = torch.cartesian_prod(torch.arange(3), torch.arange(3)).unbind(dim=1)
    weight = None if alpha == "auto" else torch.full((9, 1), alpha)
    logits = extreme_logits()
    step = mix(RULES[rule], next_token(logits[context]), next_token(logits[memory]), weight)
    assert torch.isfinite(step.scores).all()
    assert torch.isfinite(step.entropy_context).all()


def test_the_real_model_keeps_alpha_one_half_equal_to_plain_rag(real):
    asked = [
        prompt(real, "What is the capital of Peru?", ["Quito is the capital of Peru."]),
        prompt(real, "Who wrote Emma?", ["Emma is a novel by Jane Austen."]),
    ]
    plain = ids_of(real, asked, Decoding(rule="plain", max_new_tokens=TOKENS))
    how = Decoding(rule="ck_plug", alpha=0.5, max_new_tokens=TOKENS)
    assert ids_of(real, asked, how) == plain


@pytest.fixture
def calibration():
    """One whose probe weighs all numbers of a conflict, so that conflicts differ in confidence."""
    weights = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(0)) / NUMBERS
    return Calibration(
        model=ANY_MODEL,
        name="made up",
        probe=MemoryProbe(weights.tolist(), [], 2.4),
        known=[0.3, 0.4, 0.5, 0.6, 0.7],
        end=Thresholds(memory=0.4, passages=0.2),
        auto=Thresholds(memory=0.6, passages=0.3),
        alphas=[0.0, 1.0],
        ratios=[0.0, 1.0],
        measured={},
    )


# In none of their answers does the random model say its padding token.
CONFLICTS = [
    (QUESTION, PASSAGES),
    ("What is e?", ["e is eee."]),
    ("And now?", []),
    ("What is m?", ["m is mmm.", "It is not abc def ghi jkl mno."]),
]
DIALS = [0.0, 0.25, 0.5, 0.75, 1.0, "auto"]


def dialled(model, asked, calibration, alphas):
    return dial.answer(model, asked, Decoding(max_new_tokens=TOKENS), calibration, alphas)


def test_the_dial_at_one_half_is_plain_rag(tiny, calibration):
    asked = [prompt(tiny, *each) for each in CONFLICTS]
    plain = ids_of(tiny, asked, Decoding(rule="plain", max_new_tokens=TOKENS))
    assert [each.trace.ids for each in dialled(tiny, asked, calibration, [0.5])] == plain


def test_the_dial_at_one_half_is_the_library_s_own_generation(tiny, calibration):
    asked = prompt(tiny)
    [settled] = dialled(tiny, [asked], calibration, [0.5])
    assert settled.trace.ids == greedy(tiny, asked.context)


def test_the_dial_settles_a_batch_as_each_question_and_each_alpha_alone(tiny, calibration):
    asked = [prompt(tiny, *each) for each in CONFLICTS]
    together = dialled(tiny, asked, calibration, DIALS)
    alone = [dialled(tiny, [each], calibration, [alpha])[0] for each in asked for alpha in DIALS]
    assert [each.trace.ids for each in together] == [each.trace.ids for each in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.conflict == other.conflict
        assert sides_of(one) == sides_of(other)
        assert confidence(one) == pytest.approx(confidence(other), abs=1e-4)
    assert len({confidence(each) for each in together}) == len(CONFLICTS)
    assert {each.verdict.follows for each in together if each.verdict} == {"passages", "memory"}


def sides_of(settled):
    verdict = settled.verdict
    return verdict and (verdict.passages_say, verdict.memory_says, verdict.follows)


def confidence(settled):
    return settled.verdict.confidence if settled.verdict else 0.0


def test_an_answer_that_is_chosen_goes_on_as_reading_everything_again(tiny, calibration):
    """Whatever the dial chose to begin with, its own branch says every later token."""
    asked = prompt(tiny)
    [view] = drafts.compare(tiny, [asked], Decoding(max_new_tokens=TOKENS)).comparisons
    for settled in dialled(tiny, [asked], calibration, DIALS):
        memory = settled.verdict.follows == "memory"
        text = asked.memory if memory else asked.context
        said = settled.trace.ids
        read = tiny.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = tiny.model(torch.cat([read, torch.tensor([said])], dim=1)).logits[0]
        if said[: len(view.grounded.ids)] == view.grounded.ids:
            logits[:, view.grounded.banned] = -torch.inf
        chosen = logits[read.shape[1] - 1 : -1].argmax(dim=-1).tolist()
        for token, own, trace in zip(said, chosen, settled.trace.tokens, strict=True):
            assert token == own or (trace.mixed and not memory)
