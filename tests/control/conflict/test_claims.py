import re

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from control.conflict import claims
from control.conflict.reader import Reading
from control.conflict.text_drafts import Draft
from control.engines.base import Token
from control.prompts import Prompt
from foundation.text import FUNCTION_WORDS, words

ASKED = words("What is the capital of Peru?") | FUNCTION_WORDS


@pytest.fixture
def claimed(real):
    """The claims of a text; each token gains what the dictionary says of its text, or else 1."""

    def claimed(text, gains=None, skip=ASKED):
        ids = real.tokenizer(text, add_special_tokens=False).input_ids
        each = [(gains or {}).get(real.tokenizer.decode([token]), 1.0) for token in ids]
        return claims.claims(claims.DecodedTokens(real.tokenizer, ids), each, skip), ids

    return claimed


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("It is Lima.", True),
        ("It is Lima. ", True),
        ('He asked, "Who?"', True),
        ("(It is Lima.)", True),
        ("It was in 1535!", True),
        ("It is Lima\n", True),
        ("It is Lima", False),
        ("It is Lima,", False),
        ("It was George W.", False),
        ("It was J. R. R.", False),
        ("", False),
    ],
)
def test_a_sentence_ends_at_its_full_stop_and_not_at_an_initial(text, ends):
    assert claims.ends_sentence(text) is ends


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("The capital of Peru is Lima.", ["Lima"]),
        ("The capital of PERÚ is Lima.", ["Lima"]),
        ("Lima is the capital of Peru.", ["Lima"]),
        ("It is New York City.", ["New York City"]),
        ("It is Lima, Quito or Oslo.", ["Lima", "Quito", "Oslo"]),
        ("It is Lima. Quito is not.", ["Lima", "Quito"]),
        ('It is called "Lima" by all.', ["Lima", "all"]),
        ("It is the capital of Peru.", []),
        ("", []),
    ],
)
def test_a_claim_is_what_the_answer_adds_to_the_question(claimed, answer, says):
    assert [claim.text for claim in claimed(answer)[0]] == says


def test_the_caller_names_the_words_that_claim_nothing(claimed):
    answer = "It is Lima, on the coast."
    assert [claim.text for claim in claimed(answer)[0]] == ["Lima", "coast"]
    assert [claim.text for claim in claimed(answer, skip=ASKED | {"lima"})[0]] == ["coast"]


def test_the_full_stop_is_no_part_of_a_claim(real, claimed):
    [claim], ids = claimed("The capital of Peru is Lima.")
    assert real.tokenizer.decode(ids[claim.start : claim.stop]) == " Lima"
    assert real.tokenizer.decode(ids[claim.stop :]) == "."


@pytest.mark.parametrize(
    ("gains", "strongest"),
    [
        ({" red": -1.0, " green": 3.0, " blue": 2.0}, "green"),
        ({" red": -1.0, " green": -3.0, " blue": -9.0}, "red"),
    ],
)
def test_the_strongest_claim_has_the_highest_gain(claimed, gains, strongest):
    found, _ = claimed("It is red, green or blue", {**gains, ",": 0.0})
    assert [claim.text for claim in found] == ["red", "green", "blue"]
    assert claims.strongest(found).text == strongest


def test_without_claims_none_is_the_strongest():
    assert claims.strongest([]) is None


def test_a_claim_of_several_words_gains_what_they_gain_together(claimed):
    [claim], _ = claimed("It is New York City", {" New": 1.5, " York": -0.5, " City": 2.0})
    assert claim.gain == pytest.approx(3.0)


def test_words_are_separated_where_a_lone_token_loses_its_space():
    """As with the tokenizers of Llama 2, TinyLlama and Mistral."""
    pieces = ["▁The", "▁capital", "▁of", "▁Peru", "▁is", "▁Li", "ma", ".", "<unk>"]
    tokenizer = Tokenizer(
        models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    skip = words("What is the capital of Peru?")
    [claim] = claims.claims(claims.DecodedTokens(fast, list(range(8))), [1.0] * 8, skip)
    assert claim.text == "Lima"


@pytest.mark.parametrize(
    ("said", "claimed"),
    [("Is dogs allowed", None), ("Dogs are not allowed", "Dogs are not allowed"), ("No", "No")],
)
def test_a_question_said_again_is_nothing_that_memory_claims(said, claimed):
    question, passage = "Are dogs allowed?", "Dogs are welcome"
    drafts = [Draft(tuple(map(Token, re.findall(r"\S+\s*", text)))) for text in (passage, said)]
    prompt = Prompt("", "", question, (passage,))
    read = (Reading(passage, 0, 0.9), Reading(said, 0, 0.9))
    found = claims.compare(prompt, *drafts, [], read)
    assert (found.remembered_claim and found.remembered_claim.text) == claimed
