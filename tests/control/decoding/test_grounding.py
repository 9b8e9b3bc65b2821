import pytest
import torch

from control import prompts
from control.conflict import drafts
from control.conflict.claims import Claim
from control.decoding import grounding
from control.decoding.generate import Decoding
from control.engines import branches

QUESTION = "Who?"
WORDS = ("abc", "Def", "3gh", "Klm")
FIRST = Claim(0, 3, "it", 0.0)


def asked(model, *passages, question=QUESTION):
    return prompts.build(model, question, passages, 400)


@pytest.fixture
def ground(tiny):
    """Ground answers, by default one that begins with ``FIRST``."""

    @torch.no_grad()
    def ground(asked, answers=("xyz",), unsupported=((FIRST,),), remembered=((),)):
        texts = [each.context for each in asked] + [each.memory for each in asked]
        given = tiny.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        state = branches.read(
            tiny.model, given.input_ids, given.attention_mask, groups=2, whole=True
        )
        ids = [tiny.tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
        return grounding.ground(tiny, state, asked, ids, unsupported, remembered)

    return ground


@torch.no_grad()
def contrast(model, prompt, said=""):
    """How much the passages want each next token against memory, by hand."""
    log_p = [
        model.model(
            model.tokenizer(text + said, return_tensors="pt", add_special_tokens=False).input_ids
        )
        .logits[0, -1]
        .log_softmax(dim=-1)
        for text in (prompt.context, prompt.memory)
    ]
    return log_p[0] - 0.5 * log_p[1]


def test_the_passages_word_of_the_highest_contrast_replaces_the_claim(tiny, ground):
    prompt = asked(tiny, " ".join(WORDS[:3]), WORDS[3])
    [grounded] = ground([prompt])
    wanted = contrast(tiny, prompt)
    first = {word: tiny.tokenizer.convert_tokens_to_ids(word[0]) for word in WORDS}
    best = max(WORDS, key=lambda word: wanted[first[word]])
    assert grounded.claim == best
    assert grounded.ids == [first[best]]


@pytest.mark.parametrize(
    ("passage", "remembered", "offered"),
    [
        ("who is abc", [], "abc"),  # the question's word and one that answers nothing
        ("abc Def", ["abc"], "Def"),
        ("abc ABC Ábc def", ["Abc"], "def"),
        ("it is Def-Ghi.", ["not"], "Def-Ghi"),
    ],
)
def test_words_of_question_and_memory_are_not_offered(tiny, ground, passage, remembered, offered):
    [grounded] = ground([asked(tiny, passage)], remembered=[remembered])
    assert grounded.claim == offered


@pytest.mark.parametrize(("passage", "remembered"), [("Who is it?", []), ("abc", ["abc"])])
def test_without_a_word_of_the_passages_own_nothing_is_grounded(tiny, ground, passage, remembered):
    assert ground([asked(tiny, passage)], remembered=[remembered]) == [None]


def test_of_several_claims_the_one_with_the_highest_contrast_is_replaced(tiny, ground):
    prompt, answer = asked(tiny, "abc def"), "xyz"
    # Behind the answer's beginning a word begins with its space.
    at_first = contrast(tiny, prompt)[tiny.tokenizer.convert_tokens_to_ids(["a", "d"])].max()
    space = tiny.tokenizer.convert_tokens_to_ids(" ")
    later = {start: contrast(tiny, prompt, answer[:start])[space] for start in (1, 2)}
    wanted = {0: at_first, **later}
    best = max(wanted, key=lambda start: wanted[start])
    [grounded] = ground([prompt], [answer], [[Claim(at, at + 1, "it", 0.0) for at in (0, 1, 2)]])
    assert len(grounded.ids) == best + 1
    assert tiny.tokenizer.decode(grounded.ids[:-1]) == answer[:best]


def test_questions_are_grounded_together_as_each_alone(tiny, ground):
    several = [asked(tiny, "abc Def 3gh"), asked(tiny, "x"), asked(tiny, "It is the other one.")]
    answers = ["xyz", "a longer answer", "b"]
    added = [["Uvw"], [], ["other"]]
    unsupported = [[FIRST], [Claim(2, 8, "longer", 0.0)], [Claim(0, 1, "b", 0.0)]]
    together = ground(several, answers, unsupported, added)
    alone = [
        ground([prompt], [answer], [claims], [words])[0]
        for prompt, answer, claims, words in zip(several, answers, unsupported, added, strict=True)
    ]
    assert together == alone


@pytest.mark.parametrize(
    ("remembered", "banned"),
    [([], ""), (["xyz"], "x"), (["Uvw", "xyz"], "Ux"), (["axe", "xyz"], "x")],
)
def test_memory_s_words_are_banned_unless_a_word_of_the_passages_begins_alike(
    tiny, ground, remembered, banned
):
    [grounded] = ground([asked(tiny, "abc Def")], remembered=[remembered])
    assert set(tiny.tokenizer.convert_ids_to_tokens(grounded.banned)) == set(banned)


@pytest.mark.parametrize(
    ("country", "passage", "city"),
    [
        ("Kenya", "Quito is the capital of Kenya.", "Quito"),
        ("France", "The capital of France is Oslo, a city by the sea.", "Oslo"),
    ],
)
def test_the_real_model_s_answer_from_memory_is_grounded(real, country, passage, city):
    prompt = asked(real, passage, question=f"What is the capital of {country}?")
    [view] = drafts.compare(real, [prompt], Decoding(max_new_tokens=24)).comparisons
    assert view.states_memory
    assert view.grounded.claim == city
    begun = real.tokenizer.decode(view.grounded.ids)
    assert f"The capital of {country} is {city}".startswith(begun)
    assert begun.startswith(f"The capital of {country} is ")


def test_a_supported_answer_is_not_grounded(real):
    prompt = asked(real, "Quito is the capital of Peru.", question="What is the capital of Peru?")
    [view] = drafts.compare(real, [prompt], Decoding(max_new_tokens=24)).comparisons
    assert "Quito" in real.tokenizer.decode(view.passages)
    assert view.grounded is None
