"""Numerical equalities that two-branch decoding must keep."""

import pytest
import torch

from control import decoding, prompts
from control.decoding import Decoding
from control.rules import RULES, mix

QUESTION = "What is it?"
PASSAGES = ["It is the other one.", "abc def ghi jkl"]
TOKENS = 24


def prompt(model, question=QUESTION, passages=PASSAGES):
    return prompts.build(model.tokenizer, question, passages, model.window - TOKENS)


def ids_of(model, asked, how, alphas=None):
    return [trace.ids for trace in decoding.generate(model, asked, how, alphas)]


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


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"plain"}))
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
    expected = []
    for _ in range(TOKENS):
        said = torch.tensor([expected], dtype=torch.long)
        with torch.no_grad():
            logits = [tiny.model(torch.cat([text, said], dim=1)).logits[:, -1] for text in texts]
        token = int(mix(RULES[rule], *logits, weight).scores.argmax())
        if token == tiny.tokenizer.eos_token_id:
            break
        expected.append(token)
    [ids] = ids_of(tiny, [asked], Decoding(rule=rule, alpha=alpha, max_new_tokens=TOKENS))
    assert ids == expected


def extreme_logits(kind, size=32):
    logits = torch.zeros(1, size)
    if kind == "one-hot":
        logits[:] = -torch.inf
        logits[:, 3] = 0
    if kind == "another one-hot":
        logits[:] = -1e30
        logits[:, 7] = 1e30
    return logits


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "auto"])
@pytest.mark.parametrize("context", ["uniform", "one-hot", "another one-hot"])
@pytest.mark.parametrize("memory", ["uniform", "one-hot", "another one-hot"])
def test_extreme_logits_give_a_distribution(rule, alpha, context, memory):
    weight = None if alpha == "auto" else torch.full((1, 1), alpha)
    step = mix(RULES[rule], extreme_logits(context), extreme_logits(memory), weight)
    probabilities = step.scores.softmax(dim=-1)
    assert torch.isfinite(step.scores).all()
    assert probabilities.sum().item() == pytest.approx(1)
    assert torch.isfinite(step.entropy_context).all()


def test_the_real_model_keeps_alpha_one_half_equal_to_plain_rag(real):
    asked = [
        prompt(real, "What is the capital of Peru?", ["Quito is the capital of Peru."]),
        prompt(real, "Who wrote Emma?", ["Emma is a novel by Jane Austen."]),
    ]
    plain = ids_of(real, asked, Decoding(rule="plain", max_new_tokens=TOKENS))
    how = Decoding(rule="ck_plug", alpha=0.5, max_new_tokens=TOKENS)
    assert ids_of(real, asked, how) == plain
