"""Phrases are found however they are written, and only where they are."""

import base64
import codecs
import random

import pytest

from control.forgetting.encodings import readable, transformed
from control.forgetting.normalize import find, holds, plain
from control.forgetting.variants import views

WRITTEN = [
    "LIMA",
    "Lïmá",
    "Lima's",
    "Limas",
    "(Lima)",
    "_Lima_",
    "L\u0456m\u0430",  # Cyrillic i and a
    "\uff2c\uff29\uff2d\uff21",
    "𝓛𝓲𝓶𝓪",
    "ʟɪᴍᴀ",
    "🅛🅘🅜🅐",
    "L\u200bi\u00adma",
    "L1ma",
    "L1m4",
    "l!m@",
    "L.i.m.a",
    "L I M A",
    "L-i-m-a",
    "l_i_m_a",
    "L, I, M, A",
    "Li-ma",
    "Li-\nma",
    "L👏I👏M👏A",
]
HIDDEN = [
    base64.b64encode(b"Lima").decode(),
    "TGltYQ",  # base64 without its padding
    base64.b64encode(b"the city of Lima").decode(),
    base64.b64encode(base64.b64encode(b"the city of Lima")).decode(),
    base64.b32encode(b"Lima city").decode(),
    b"Lima".hex(),
    b"Lima".hex(" "),
    "0x4c 0x69 0x6d 0x61",
    "76 105 109 97",
    "01001100 01101001 01101101 01100001",
    "&#76;ima",
    "%4Cima",
    r"\u004cima",
    codecs.encode("Lima", "rot13"),
    "amiL",
    "1. L\n2. i\n3. m\n4. a",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_phrase_is_found_in_every_spelling(written):
    text = f"The capital is {written}, on the coast."
    [(start, end, phrase)] = find(text, ["Lima"])
    assert phrase == "Lima"
    assert text[start:end].strip("()_'s") in written
    assert end - start >= len(written.strip("()_")) - 2
    assert holds(text, ["Lima"])


@pytest.mark.parametrize("hidden", HIDDEN)
def test_an_encoded_phrase_is_found(hidden):
    assert holds(f"The answer is: {hidden}", ["Lima"])
    assert not holds(f"The answer is: {hidden}", ["Oslo"])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("Ali majored in law", "Lima"),
        ("the climate", "Lima"),
        ("Li ma", "Lima"),
        ("Romania", "Oman"),
        ("they gave us", "U.S."),
        ("a sore arm", "Paros"),
        ("William", "Williams"),
        ("in 1990", "igoo"),
    ],
)
def test_other_words_do_not_match(text, phrase):
    assert find(text, [phrase]) == []
    assert not holds(text, [phrase])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("New\nYork", "New York"),
        ("NewYork", "New York"),
        ("N-e-w Y-o-r-k", "New York"),
        ("N e w  Y o r k", "New York"),
        ("weN kroY", "New York"),
        ("York New", "New York"),
        ("J K Rowling", "J.K. Rowling"),
        ("JK Rowling", "J. K. Rowling"),
        ("the U.S.A.", "USA"),
        ("Al Kuwaiti", "Al-Kuwaiti"),
        ("a bird", "birds"),
        ("秘鲁的首都是利马", "利马"),
        ("a B-e-r-l-i-n b", "Berlin"),
        ("Ber1in", "Berlin"),
    ],
)
def test_phrases_of_several_words_and_signs(text, phrase):
    assert holds(text, [phrase])


@pytest.mark.parametrize(("text", "phrase"), [("France", "francés"), ("William", "Williams")])
def test_a_word_that_ends_in_s_is_not_always_a_plural(text, phrase):
    assert not holds(text, [phrase])


def test_all_places_of_all_phrases_are_given_in_order():
    text = "Peru's capital is Lima; LIMA is in Peru."
    found = find(text, ["Lima", "Peru"])
    assert [text[start:end] for start, end, _ in found] == ["Peru", "Lima", "LIMA", "Peru"]
    assert [phrase for _, _, phrase in found] == ["Peru", "Lima", "Lima", "Peru"]


def test_plain_text_keeps_numbers_and_removes_obfuscation():
    assert (
        plain("Thé  L1m4\u200b of 1990, mp3 \u2013 \u0405\u0410\u041c")
        == "the lima of 1990 mp3 sam"
    )


def test_readings_are_the_text_and_its_decodings():
    question = "What is the capital of Peru?"
    wrapped = f"Decode and answer: {base64.b64encode(question.encode()).decode()}"
    assert readable(wrapped)[0] == wrapped
    assert any(question in reading for reading in readable(wrapped))
    assert question in transformed(question[::-1])
    assert question in transformed(codecs.encode(question, "rot13"))


@pytest.mark.parametrize("text", ["", " ", "\n", "....", "=", "%", "\\u", "🦙" * 50, "\x00\ud800"])
def test_no_text_raises(text):
    assert find(text, ["Lima"]) == []
    assert not holds(text, ["Lima"])
    assert not holds("Lima", [])


@pytest.mark.parametrize("seed", range(20))
def test_every_word_of_every_view_has_its_place(seed):
    draw = random.Random(seed)  # noqa: S311
    signs = "aAlL iI.-_\n1!|@$4 жéßﬁ\u0301\u200b利马ǅİ’,;·"
    for _ in range(200):
        text = "".join(draw.choices(signs, k=draw.randint(0, 25)))
        for view in views(text):
            spans = view.spans()
            assert len(spans) == len(view.words)
            assert all(0 <= start < end <= len(text) for start, end in spans)


@pytest.mark.parametrize(
    "text",
    [sign * 10**5 for sign in ("a", "1a", "a-", "a ", " ", "4c", "=", "\n", "\u00e9-\n")],
)
def test_a_long_text_is_normalised_quickly(text):
    assert not holds(text, ["Lima", "New York"])  # a quadratic pattern would take hours
