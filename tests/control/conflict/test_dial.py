import copy
import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

from control import prompts
from control.conflict import dial, drafts
from control.conflict.calibration import Thresholds
from control.decoding import generate
from control.decoding.generate import Decoding
from foundation.errors import InputError

TOKENS = 24
ALPHAS = [0.0, 0.25, 0.5, 0.75, 1.0]
DENIED = "Quito is the capital of Peru."


def asked(model, question="What is it?", passages=("It is the other one.", "abc def"), trust=()):
    return prompts.build(model, question, passages, 400, trust)


def capital(model, country, passage, trust=()):
    return asked(model, f"What is the capital of {country}?", [passage], trust)


def several(model):
    """Prompts of different lengths, one of them without passages."""
    return [
        asked(model),
        asked(model, "What is e?", ["e is eee."]),
        asked(model, "And now?", []),
        asked(model, "What is m?", ["m is mmm."]),
    ]


def settle(model, prompt, calibration, alphas=None, **how):
    how = Decoding(**{"max_new_tokens": TOKENS, **how})
    return dial.answer(model, [prompt], how, calibration, alphas)


def ids(settled):
    return [each.trace.ids for each in settled]


def plain(model, asked, tokens=TOKENS, **how):
    how = Decoding(rule="plain", max_new_tokens=tokens, **how)
    return [trace.ids for trace in generate.generate(model, asked, how)]


def closed_book(model, prompt, **how):
    alone = prompts.build(model, prompt.question, [], 400)
    return plain(model, [alone], **how)[0]


@torch.no_grad()
def next_logits(model, text, said):
    read = model.tokenizer(text, add_special_tokens=False).input_ids
    return model.model(torch.tensor([[*read, *said]])).logits[0, -1]


def same_trace(one, other):
    """Whether two traces differ by rounding at most."""
    numbers = ("confidence_gain", "entropy_context", "entropy_memory")
    rest = ("text", "mixed", "source", "disputed")
    return len(one) == len(other) and all(
        all(getattr(a, name) == getattr(b, name) for name in rest)
        and all(getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-3) for name in numbers)
        for a, b in zip(one, other, strict=True)
    )


def test_of_a_long_question_the_bare_frame_reads_the_end_alone(tiny, always, monkeypatch):
    monkeypatch.setattr(drafts, "LONGEST_BARE", 5)
    scored, read_on = list[int](), drafts.batch.read_on

    def watched(model, state, continuations, layers):
        scored.extend(len(text) for texts in continuations for text in texts)
        return read_on(model, state, continuations, layers)

    monkeypatch.setattr(drafts.batch, "read_on", watched)
    prompt = prompts.build(tiny, "What is it? " * 20, ["It is the other one.", "abc def"], 2_000)
    dial.answer(tiny, [prompt], Decoding(max_new_tokens=TOKENS), always(0.5))
    assert scored
    assert max(scored) <= 5 + 2 * drafts.SENTENCE


@pytest.mark.parametrize("confidence", [0, 0.5, 1])
def test_alpha_half_gives_plain_rag_s_answer_and_trace(tiny, always, confidence):
    how = Decoding(alpha=0.5, max_new_tokens=TOKENS)
    settled = dial.answer(tiny, several(tiny), how, always(confidence))
    expected = generate.generate(tiny, several(tiny), Decoding(rule="plain", max_new_tokens=TOKENS))
    assert ids(settled) == [trace.ids for trace in expected]
    assert any(each.conflict for each in settled)
    for each, trace in zip(settled, expected, strict=True):
        assert same_trace(each.trace.tokens, trace.tokens)


@pytest.fixture(scope="module")
def exact(real):
    """The real model in float32: in bfloat16, rounding decides between the ends of an answer."""
    return replace(real, model=copy.deepcopy(real.model).float())


@pytest.mark.parametrize(
    ("country", "passage"),
    [("Peru", DENIED), ("Kenya", "Quito is the capital of Kenya."), ("Peru", "Lima is in Peru.")],
)
def test_alpha_half_of_the_real_model_is_plain_rag(exact, always, country, passage):
    prompt = capital(exact, country, passage)
    assert ids(settle(exact, prompt, always(1))) == plain(exact, [prompt])


def test_without_passages_every_setting_is_closed_book(tiny):
    prompt = asked(tiny, "And now?", [])
    settled = settle(tiny, prompt, None, ALPHAS)
    assert ids(settled) == [closed_book(tiny, prompt)] * len(ALPHAS)
    assert {(each.conflict, each.verdict) for each in settled} == {(False, None)}
    assert {token.source for each in settled for token in each.trace.tokens} == {"memory"}


def test_a_prompt_without_passages_among_others_is_closed_book_too(tiny, always):
    how = Decoding(max_new_tokens=TOKENS)
    settled = dial.answer(tiny, several(tiny), how, always(1), ALPHAS)[2 * len(ALPHAS) :]
    alone = settled[: len(ALPHAS)]
    assert ids(alone) == [closed_book(tiny, several(tiny)[2])] * len(ALPHAS)
    assert {(each.conflict, each.verdict) for each in alone} == {(False, None)}


@pytest.mark.parametrize("confidence", [0, 0.5, 1])
def test_several_alphas_together_answer_as_each_does_alone(tiny, always, confidence):
    calibration, prompt = always(confidence), asked(tiny)
    together = settle(tiny, prompt, calibration, [*ALPHAS, "auto"])
    alone = [settle(tiny, prompt, calibration, alpha=alpha)[0] for alpha in [*ALPHAS, "auto"]]
    assert ids(together) == ids(alone)
    assert [each.verdict for each in together] == [each.verdict for each in alone]
    assert len({tuple(each) for each in ids(together)}) > 1


def test_alpha_1_gives_a_confident_memory_s_closed_book_answer(tiny, always):
    for prompt in several(tiny):
        assert ids(settle(tiny, prompt, always(1), alpha=1.0)) == [closed_book(tiny, prompt)]


def test_alpha_1_ignores_a_memory_that_is_certainly_wrong(tiny, always):
    prompt, never = asked(tiny), always(0)
    grounded, as_it_stands = settle(tiny, prompt, never, [0.0, 0.5])
    assert ids(settle(tiny, prompt, never, alpha=1.0)) == [grounded.trace.ids]
    strict = always(0, end=Thresholds(memory=0.3, passages=0.0))
    assert ids(settle(tiny, prompt, strict, alpha=1.0)) == [as_it_stands.trace.ids]


@pytest.mark.parametrize(("confidence", "city"), [(1, "Lima"), (0, "Quito")])
def test_alpha_1_of_the_real_model_answers_from_memory_only_what_it_knows(
    real, always, confidence, city
):
    [settled] = settle(real, capital(real, "Peru", DENIED), always(confidence), alpha=1.0)
    assert f"is {city}" in settled.trace.text
    assert settled.conflict


@pytest.mark.parametrize(
    ("country", "passage", "city", "truth"),
    [
        ("Kenya", "Quito is the capital of Kenya.", "Quito", "Nairobi"),
        ("France", "The capital of France is Oslo, a city by the sea.", "Oslo", "Paris"),
    ],
)
@pytest.mark.parametrize("confidence", [0, 1])
def test_alpha_0_of_the_real_model_follows_the_passage_even_where_plain_rag_does_not(
    real, always, country, passage, city, truth, confidence
):
    prompt = capital(real, country, passage)
    zero, half = settle(real, prompt, always(confidence), [0.0, 0.5])
    assert truth in half.trace.text
    assert city not in half.trace.text
    assert city in zero.trace.text
    assert truth not in zero.trace.text
    [chosen] = [token for token in zero.trace.tokens if token.mixed]
    assert chosen.text.strip()
    assert city.startswith(chosen.text.strip())


def test_alpha_0_quotes_what_the_passage_claims_where_plain_rag_does_not_say_it(real, always):
    passage = "By a law of 2031, Oslo is the capital of France. It lies by the sea."
    prompt = capital(real, "France", passage)
    quote = prompts.Quote("By a law of 2031, Oslo is the capital of France.", "Oslo")
    heard = []
    [settled] = dial.answer(
        real,
        [replace(prompt, quote=quote)],
        Decoding(alpha=0.0, max_new_tokens=TOKENS),
        always(0),
        on_token=lambda _, token: heard.append(token.text),
    )
    [half] = settle(real, prompt, always(0), alpha=0.5)
    assert "Paris" in half.trace.text
    assert settled.trace.text.strip() == quote.text
    assert "".join(heard) == settled.trace.text
    assert (settled.verdict.passages_say, settled.verdict.follows) == ("Oslo", "passages")
    assert all(token.mixed and token.log_p_memory is not None for token in settled.trace.tokens)


@pytest.mark.parametrize("letter", "bem")
def test_alpha_0_bans_the_words_of_memory(tiny, always, letter):
    prompt = asked(tiny, f"What is {letter}?", [f"{letter} is {letter * 3}."])
    [settled] = settle(tiny, prompt, always(1), alpha=0.0)
    [view] = drafts.compare(tiny, [prompt], Decoding(max_new_tokens=TOKENS)).comparisons
    begun, banned = view.grounded.ids, view.grounded.banned
    assert tiny.tokenizer.decode(banned)[0] in tiny.tokenizer.decode(view.memory)
    said = list(begun)
    while len(said) < TOKENS:
        logits = next_logits(tiny, prompt.context, said)
        logits[banned] = -torch.inf
        said.append(int(logits.argmax()))
    assert settled.trace.ids == said


@pytest.mark.parametrize(
    ("alpha", "follows", "ends"),
    [(0.5, "passages", "the passages."), (1.0, "memory", "the model's memory.")],
)
def test_the_verdict_holds_both_claims_and_the_source_of_the_answer(
    real, always, alpha, follows, ends
):
    [settled] = settle(real, capital(real, "Peru", DENIED), always(1), alpha=alpha)
    verdict = settled.verdict
    assert (verdict.passages_say, verdict.memory_says) == ("Quito", "Lima")
    assert verdict.confidence == pytest.approx(1)
    assert verdict.follows == follows
    assert str(verdict) == (
        'The passages say "Quito", the model remembers "Lima" with confidence 1.00; '
        f"the answer follows {ends}"
    )


@pytest.mark.parametrize(("alpha", "follows"), [(0.0, "passages"), (0.5, "memory")])
@pytest.mark.parametrize("city", ["Quito", "Baden-Baden"])
def test_where_plain_rag_answers_from_memory_the_verdict_says_so(
    real, always, alpha, follows, city
):
    prompt = capital(real, "Kenya", f"{city} is the capital of Kenya.")
    [settled] = settle(real, prompt, always(0), alpha=alpha)
    assert (settled.verdict.passages_say, settled.verdict.memory_says) == (city, "Nairobi")
    assert settled.verdict.follows == follows


def test_without_a_conflict_there_is_no_verdict(real, always):
    prompt = capital(real, "Peru", "Lima is the capital of Peru.")
    settled = settle(real, prompt, always(1), ALPHAS)
    assert {(each.conflict, each.verdict) for each in settled} == {(False, None)}
    assert len({each.trace.text for each in settled}) == 1


@pytest.mark.parametrize("confidence", [0, 1])
def test_full_trust_moves_plain_rag_s_setting_to_the_passages(real, always, confidence):
    trusted = capital(real, "Kenya", "Quito is the capital of Kenya.", [1.0])
    [settled] = settle(real, trusted, always(confidence), alpha=0.5)
    assert "Quito" in settled.trace.text
    assert "Nairobi" not in settled.trace.text


@pytest.mark.parametrize(("confidence", "city"), [(1, "Lima"), (0, "Quito")])
def test_no_trust_moves_plain_rag_s_setting_to_a_memory_that_knows(real, always, confidence, city):
    [settled] = settle(real, capital(real, "Peru", DENIED, [0.0]), always(confidence), alpha=0.5)
    assert f"is {city}" in settled.trace.text


def test_neutral_trust_changes_nothing(tiny, always):
    unknown, neutral = (
        ids(settle(tiny, asked(tiny, trust=trust), always(1), ALPHAS)) for trust in ((), (0.5, 0.5))
    )
    assert unknown == neutral


@pytest.mark.parametrize(
    ("trust", "bar", "follows"),
    [
        (0.1, 0.89, "memory"),
        (0.1, 0.91, "passages"),
        (0.8, 0.19, "memory"),
        (0.8, 0.21, "passages"),
    ],
)
def test_at_auto_trust_is_the_passages_chance_of_being_right(real, always, trust, bar, follows):
    undecided = always(0.5, auto=Thresholds(memory=bar, passages=0.0))
    [settled] = settle(real, capital(real, "Peru", DENIED, [trust]), undecided, alpha="auto")
    assert settled.verdict.follows == follows


@pytest.mark.parametrize(("others", "city"), [([0.0, 1.0], "Lima"), ([1.0, 0.0], "Quito")])
def test_the_trust_that_counts_is_that_of_the_passage_which_says_it(real, always, others, city):
    passages = [DENIED, "Peru exports copper and gold."]
    prompt = asked(real, "What is the capital of Peru?", passages, others)
    assert "Quito" in settle(real, asked(real, prompt.question, passages), always(1))[0].trace.text
    [settled] = settle(real, prompt, always(1), alpha=0.5)
    assert city in settled.trace.text


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_streaming_hands_over_the_tokens_of_the_trace(tiny, always, temperature):
    streamed = {}
    settled = dial.answer(
        tiny,
        several(tiny),
        Decoding(temperature=temperature, max_new_tokens=TOKENS),
        always(1),
        ALPHAS,
        on_token=lambda index, token: streamed.setdefault(index, []).append(token),
    )
    assert [streamed[index] for index in range(len(settled))] == [s.trace.tokens for s in settled]
    for each in settled:
        assert "".join(token.text for token in each.trace.tokens) == each.trace.text


def told_first_after(model, prompt, calibration, alpha):
    """How many passes the model had done at the first token that was told."""
    passes, told = [0], []
    hook = model.model.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
    how = Decoding(alpha=alpha, max_new_tokens=TOKENS)
    dial.answer(model, [prompt], how, calibration, on_token=lambda *_: told.append(passes[0]))
    hook.remove()
    return told[0]


def test_alpha_half_streams_at_once_and_other_settings_after_the_drafts(tiny, always):
    prompt = asked(tiny)
    assert told_first_after(tiny, prompt, always(1), 0.5) == 1  # both prompts, and nothing more
    assert told_first_after(tiny, prompt, always(1), 0.75) > 1
    assert told_first_after(tiny, prompt, always(1), "auto") > 1


def test_a_trust_that_could_change_the_answer_delays_the_stream(tiny, always):
    for trust, early in (((0.5, 0.5), True), ((0.9, 0.5), False)):
        prompt = asked(tiny, trust=trust)
        assert (told_first_after(tiny, prompt, always(1), 0.5) == 1) == early


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sampling_repeats_with_its_seed_and_varies_without(tiny, always, alpha):
    def drawn(seed):
        return ids(settle(tiny, asked(tiny), always(1), alpha=alpha, temperature=1.5, seed=seed))[0]

    assert drawn(7) == drawn(7)
    assert len({tuple(drawn(seed)) for seed in range(4)}) > 1


def test_a_tiny_top_p_is_greedy(tiny, always):
    greedy = settle(tiny, asked(tiny), always(1), ALPHAS)
    sampled = settle(tiny, asked(tiny), always(1), ALPHAS, temperature=1.0, top_p=1e-6)
    assert ids(sampled) == ids(greedy)


@pytest.mark.parametrize("tokens", [1, 2, 6, 20, 32, 33, 50])
def test_an_answer_is_never_longer_than_asked_for(tiny, always, tokens):
    prompts = [asked(tiny), asked(tiny, "What is m?", ["m is mmm."])]
    how = Decoding(max_new_tokens=tokens)
    lengths = [len(each) for each in ids(dial.answer(tiny, prompts, how, always(1), ALPHAS))]
    assert max(lengths) == tokens
    for row, expected in enumerate(plain(tiny, prompts, 60)):
        [half] = settle(tiny, prompts[row], always(1), alpha=0.5, max_new_tokens=tokens)
        assert half.trace.ids == expected[:tokens]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_first_sentence_that_fills_the_answer_ends_it(exact, always, alpha):
    prompt = capital(exact, "Peru", DENIED)
    [whole] = settle(exact, prompt, always(1), alpha=alpha)
    length = len(whole.trace.ids)
    assert whole.trace.text.endswith(".")
    [filled] = settle(exact, prompt, always(1), alpha=alpha, max_new_tokens=length)
    assert filled.trace.ids == whole.trace.ids


@pytest.mark.parametrize("model", ["mistral", "qwen2"], indirect=True)
@pytest.mark.parametrize("question", ["What is it?", "Where is abc?"])
def test_a_model_with_a_sliding_window_has_the_same_dial(model, always, question):
    def generated(text):
        given = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        output = model.model.generate(**given, max_new_tokens=TOKENS, do_sample=False)[0]
        said = output[given.input_ids.shape[1] :].tolist()
        return said[:-1] if said[-1] == model.tokenizer.eos_token_id else said

    prompt = asked(model, question)
    assert ids(settle(model, prompt, always(1), alpha=0.5)) == [generated(prompt.context)]
    assert ids(settle(model, prompt, always(1), alpha=1.0)) == [generated(prompt.memory)]
    assert ids(settle(model, prompt, always(1), alpha=0.0)) != [generated(prompt.context)]


@pytest.mark.parametrize("rule", ["ck_plug", "cad"])
def test_a_token_rule_is_decoded_by_itself_and_needs_no_calibration(tiny, rule):
    how = Decoding(rule=rule, alpha=0.8, max_new_tokens=TOKENS)
    settled = dial.answer(tiny, several(tiny), how, None)
    traces = generate.generate(tiny, several(tiny), how)
    assert [each.trace for each in settled] == traces
    assert [each.conflict for each in settled] == [trace.disputed for trace in traces]
    assert {each.verdict for each in settled} == {None}


def test_the_dial_needs_a_calibration(tiny):
    with pytest.raises(InputError, match="needs a calibration"):
        settle(tiny, asked(tiny), None)


def test_the_dial_leaves_the_model_unchanged(tiny, always):
    """Reading hidden states and caches must not change what is decoded next."""
    before = plain(tiny, several(tiny))
    dial.answer(tiny, several(tiny), Decoding(max_new_tokens=TOKENS), always(1), ALPHAS)
    assert plain(tiny, several(tiny)) == before
    assert not torch.is_inference_mode_enabled()


def asked_about(model, letter="a"):
    return prompts.build(model, f"What is {letter}?", [f"{letter} is {letter * 3}."], 400)


def ids_of(settled):
    return [each.trace.ids for each in settled]


def said_plainly(model, prompt, tokens):
    [trace] = generate.generate(model, [prompt], Decoding(rule="plain", max_new_tokens=tokens))
    return trace.ids


@pytest.mark.parametrize("letter", "acdijklo")
@pytest.mark.parametrize("tokens", [8, 24, 60])
def test_padding_tokens_in_an_answer_count_as_any_others(tiny, always, letter, tokens):
    how = Decoding(max_new_tokens=tokens)
    settled = dial.answer(tiny, [asked_about(tiny, letter)], how, always(1), [0.0, 0.5, 1.0])
    assert max(map(len, ids_of(settled))) <= tokens
    assert settled[1].trace.ids == said_plainly(tiny, asked_about(tiny, letter), tokens)


@pytest.mark.parametrize("model", ["mistral", "qwen2"], indirect=True)
@pytest.mark.parametrize("question", ["What is it?", "Who?", "Where is abc?"])
def test_several_alphas_together_answer_as_each_alone_with_a_sliding_window(
    model, always, question
):
    prompt = prompts.build(model, question, ["It is the other one.", "abc def ghi jkl"], 400)
    how = Decoding(max_new_tokens=24)
    together = dial.answer(model, [prompt], how, always(1), [0.0, 0.5, 1.0])
    ends = [0.0, 0.5, 1.0]
    together = dial.answer(model, [prompt], how, always(1), ends)
    alone = [
        dial.answer(model, [prompt], replace(how, alpha=alpha), always(1))[0] for alpha in ends
    ]
    assert ids_of(together) == ids_of(alone)


def test_a_base_model_stops_at_a_blank_line_that_ends_its_first_sentence(tiny, always):
    spelt = json.loads(tiny.tokenizer.backend_tokenizer.to_str())
    vocabulary = spelt["model"]["vocab"]
    vocabulary["\n\n"] = vocabulary.pop("L")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spelt)),
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
    )
    base = replace(tiny, tokenizer=tokenizer)
    expected = said_plainly(base, asked_about(base, "e"), 24)
    assert expected[-1] == vocabulary["\n\n"]
    how = Decoding(max_new_tokens=24)
    assert ids_of(dial.answer(base, [asked_about(base, "e")], how, always(0), [0.5])) == [expected]


class Loop(LogitsProcessor):
    """Says one sentence again and again, whatever the model does."""

    said = "Lima is the capital. "

    def __init__(self, tokenizer):
        self.ids = tokenizer(self.said, add_special_tokens=False).input_ids
        self.start = None
        self.steps = 0

    def __call__(self, input_ids, scores):
        self.start = input_ids.shape[1] if self.start is None else self.start
        self.steps = input_ids.shape[1] - self.start
        forced = torch.full_like(scores, -50.0)
        forced[:, self.ids[self.steps % len(self.ids)]] = 0.0
        return forced


@pytest.mark.parametrize("rule", ["cad", "fulcrum"])
def test_an_answer_that_repeats_itself_ends_before_it_does(tiny, always, rule, monkeypatch):
    loops, sampling = [], generate.sampling_kwargs

    def looping(*given):
        loops.append(Loop(tiny.tokenizer))
        return sampling(*given) | {"logits_processor": LogitsProcessorList(loops[-1:])}

    monkeypatch.setattr(generate, "sampling_kwargs", looping)
    heard, how = [], Decoding(rule=rule, max_new_tokens=400)
    [answer] = dial.answer(
        tiny,
        [asked(tiny)],
        how,
        always(1),
        on_token=lambda _, token: heard.append(token.text),
    )
    assert answer.trace.text.strip() == Loop.said.strip()
    assert "".join(heard).strip() == Loop.said.strip()
    assert max(loop.steps for loop in loops) < 3 * len(Loop.said)  # it was not decoded further
