import pytest

from control import prompts
from control.decoding import generate as decoding
from control.decoding.generate import Decoding
from foundation.errors import InputError


def prompt(model, passages=("abc def",)):
    return prompts.build(model, "What is it?", list(passages), 400)


def answer(model, **how):
    how = Decoding(**{"rule": "ck_plug", "max_new_tokens": 16, **how})
    [trace] = decoding.generate(model, [prompt(model)], how)
    return trace


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": "much"}, "alpha is 'much'"),
        ({"rule": "magic"}, "choose one of fulcrum, plain, cad"),
        ({"reliance": 1.5}, "reliance is 1.5"),
        ({"reliance": 0.5, "rule": "cad"}, "measured for rule fulcrum, not for cad"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top-p is 0.0"),
        ({"max_new_tokens": 0}, "max-new-tokens is 0"),
    ],
)
def test_settings_that_cannot_be_decoded_with_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Decoding(**wrong)


def test_the_trace_spells_the_answer(tiny):
    trace = answer(tiny, alpha=0.8)
    assert trace.text
    assert "".join(token.text for token in trace.tokens) == trace.text


def test_tokens_are_handed_over_as_they_come(tiny):
    streamed = []
    [trace] = decoding.generate(
        tiny,
        [prompt(tiny)],
        Decoding(rule="ck_plug", max_new_tokens=16),
        on_token=lambda index, token: streamed.append((index, token)),
    )
    assert [token for _, token in streamed] == trace.tokens
    assert {index for index, _ in streamed} == {0}


def test_sampling_repeats_with_its_seed_and_varies_without(tiny):
    first, again = (answer(tiny, temperature=1.5, seed=7).text for _ in range(2))
    assert first == again
    assert len({answer(tiny, temperature=1.5, seed=seed).text for seed in range(4)}) > 1


def test_a_tiny_top_p_is_greedy(tiny):
    assert answer(tiny, temperature=1.0, top_p=1e-6).text == answer(tiny).text


def test_confidence_gain_is_the_entropy_that_the_passages_took_away(tiny):
    for token in answer(tiny).tokens:
        assert token.confidence_gain == pytest.approx(token.entropy_memory - token.entropy_context)


def test_each_token_holds_the_choices_of_both_branches(tiny):
    for token in answer(tiny, rule="plain").tokens:
        for choices in (token.context_choices, token.memory_choices):
            shares = [choice.probability for choice in choices]
            assert len(choices) == 3
            assert shares == sorted(shares, reverse=True)
            assert 0 < sum(shares) <= 1
        assert token.context_choices[0].text == token.text


def test_without_passages_both_branches_are_memory(tiny):
    how = Decoding(rule="ck_plug", max_new_tokens=16)
    [trace] = decoding.generate(tiny, [prompt(tiny, ())], how)
    assert {token.confidence_gain for token in trace.tokens} == {0}
    assert not any(token.disputed for token in trace.tokens)


def test_adaptive_and_fixed_alphas_do_not_share_a_batch(tiny):
    with pytest.raises(InputError, match="decode them apart"):
        decoding.generate(tiny, [prompt(tiny)], Decoding(rule="ck_plug"), ["auto", 0.5])


def test_a_rule_that_decides_whole_answers_is_refused(tiny):
    with pytest.raises(
        InputError, match=r"rule fulcrum settles whole answers.*ask control\.conflict\.dial"
    ):
        decoding.generate(tiny, [prompt(tiny)], Decoding(rule="fulcrum"))


def test_transformers_streamer_gets_nothing_from_a_callable_custom_generate(tiny):
    """Why decoding takes its own token callback: generate() would stream the prompt, no answer."""

    class Spy:
        def __init__(self):
            self.put_calls = []

        def put(self, value):
            self.put_calls.append(value)

        def end(self):
            self.put_calls.append("end")

    spy = Spy()
    encoded = tiny.tokenizer(prompt(tiny).context, return_tensors="pt", add_special_tokens=False)
    tiny.model.generate(
        **encoded,
        custom_generate=decoding.two_branch_decoding,
        rule=decoding.RULES["plain"],
        branches=1,
        streamer=spy,
        max_new_tokens=4,
    )
    assert len(spy.put_calls) == 1


@pytest.mark.parametrize("model", ["mistral", "qwen2"], indirect=True)
@pytest.mark.parametrize("rule", ["plain", "cad"])
def test_a_token_rule_works_with_a_sliding_window(model, rule):
    prompt = prompts.build(model, "What is a?", ["a is aaa."], 400)
    how = Decoding(rule=rule, alpha=0.5, max_new_tokens=24)
    [trace] = decoding.generate(model, [prompt], how)
    given = model.tokenizer(prompt.context, return_tensors="pt", add_special_tokens=False)
    output = model.model.generate(**given, max_new_tokens=24, do_sample=False)[0]
    said = output[given.input_ids.shape[1] :].tolist()
    assert trace.ids == (said[:-1] if said[-1] == model.tokenizer.eos_token_id else said)
