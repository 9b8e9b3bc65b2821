"""The segments of a message that may ask for a fact.

A question can be part of a long text (a role, a prefix, a suffix), in which it would be lost; so
each sentence that could ask for the fact is read alone, too.
"""

import re
from collections.abc import Sequence

from control.forgetting.normalize import Place
from foundation.text import words

Turns = Sequence[tuple[str, str]]

SUBJECT = "[X]"
MOST_SEGMENTS = 4  # of one message that are read: the last ones, to which models attend most
SHORT_TEXT = 60  # words; a message of so many is read as a whole too
OPEN_ENDED = 4  # content words at most of a follow-up that says neither name nor pronoun
LONGEST_SEGMENT = 600  # characters that are read

SENTENCE = re.compile(
    r"(?<!\bSt\.)(?<!\bMr\.)(?<!\bDr\.)(?<!\bMrs\.)(?<![\s.][A-Z]\.)"
    r"(?<=[.!?…])[\"'”’)\]*]*\s+(?!(?<=\b[A-Z][a-z]\.\s)[a-z])|\n+"  # "King Jr. was", "Acme Co. is"
)
CLAUSE = re.compile(r"[,;:—\u2013()\"“”«»]|\s[-|>]\s|\b(?:because|although|whereas|since)\b")
BLANK = re.compile(r"_{2,}|\.{3,}|…|\[(?:blank|mask|\.\.\.)\]|<(?:blank|mask)>", re.IGNORECASE)
POSSESSIVE = re.compile(r"\b(?:its|his|her|their)\b", re.IGNORECASE)
PRONOUN = re.compile(
    r"\b(?:it|he|she|they|him|them|there|(?:this|that|these|those|the same)"
    r"(?: (?:country|nation|state|land|place|city|person|man|woman|author|writer|book|novel|work|"
    r"company|firm|project|element|god|goddess|film|song|guy|one))?)\b",
    re.IGNORECASE,
)
# What a question that is answered by yes or no begins with. "Can you tell me" asks for more.
AUXILIARY = r"(?:is|are|was|were|did|does|do|has|have|had)(?:n['’]t)?"
MODAL = r"(?:can['’]t|won['’]t|(?:can|could|will|would|should|may|might|must)(?:n['’]t)?)"
# A question of this form states the fact and asks to confirm it.
CONFIRMS = re.compile(
    r"\b(?:true or false|yes or no|right or wrong|correct or not)\b|"
    r"\b(?:is|was|isn['’]t|wasn['’]t) (?:it|that|this) (?:true|right|correct|so|a fact)\b|"
    rf"(?:^|[.!?:;\"]\s*)(?:{AUXILIARY}|{MODAL}(?! (?:you|I|we|someone|anyone)\b))\s|"
    r"\bwhether\b|"
    rf",\s*(?:right|correct|true|(?:{AUXILIARY}|{MODAL}) (?:he|she|it|they)(?: not)?)\s*\?",
    re.IGNORECASE,
)
CONTINUES = re.compile(r"^\W*(?:and|or|so|then|but|also|und|et|y|e)\b", re.IGNORECASE)
NAMELIKE = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-ZÀ-Þ][\w’'-]*(?:\s+[A-ZÀ-Þ][\w’'-]*)*|\b\d{2,}\b")
WORD = re.compile(r"[^\W_]+")
FUNCTION_WORDS = words(
    "a an the of is are was were be been being do does did what which who whom whose when "
    "where how why in on at to for by with from and or it its s name can could would you tell "
    "me i we has have had that this there as about please know say give let us if then so "
    "also just some any your my he she they his her their him them will may might shall "
    "should must not no yes one ones x y and again exactly really answer question"
)


def excerpts(text: str, places: Sequence[Place] | None = None) -> list[str]:
    """The parts of a message that are read: all of it if it is short, and single sentences.

    Args:
        text: The message.
        places: Where it names a subject; each sentence that does is read alone, and with the next
            one. ``None``: each sentence is read alone.
    """
    spans = sentences(text)
    found = [] if len(WORD.findall(text)) > SHORT_TEXT else [text]
    for number, (start, end) in enumerate(spans):
        if places is None or any(start <= first < end for first, _ in places):
            found.append(text[start:end])
            if places and number + 1 < len(spans):
                found.append(text[start : spans[number + 1][1]])
    unique = dict.fromkeys(part.strip()[-LONGEST_SEGMENT:] for part in found)
    return list(unique)[-MOST_SEGMENTS:]


def follow_up(text: str) -> bool:
    """Whether a message leaves its subject to what was said before."""
    spans = sentences(text)
    return any(_refers(text[start:end], alone=len(spans) == 1) for start, end in spans)


def unfinished(text: str) -> bool:
    """Whether a message ends without the sign that ends a sentence, so that it may be continued."""
    return re.search(r"[.!?][\"'”’)\]]*\s*$", text) is None or BLANK.search(text) is not None


def sentences(text: str) -> list[Place]:
    """Where the sentences of a text begin and end, in characters."""
    gaps = [place for match in SENTENCE.finditer(text) for place in match.span()]
    borders = [0, *gaps, len(text)]
    spans = zip(borders[::2], borders[1::2], strict=True)
    return [(start, end) for start, end in spans if text[start:end].strip()]


def mask(text: str, places: Sequence[Place], by: str) -> str:
    """The text with ``by`` in place of the spans; one that overlaps an earlier one is left out."""
    masked, done = "", 0
    for start, end in sorted(set(places), key=lambda place: (place[0], -place[1])):
        if start >= done:
            masked += text[done:start] + by
            done = end
    return masked + text[done:]


def _refers(sentence: str, alone: bool) -> bool:
    """Whether a sentence has a pronoun, or is short and names nothing.

    Where it is not ``alone`` in its message, only a question counts as short.
    """
    bare = BLANK.sub("what", sentence).strip()
    if POSSESSIVE.search(bare) or PRONOUN.search(bare):
        return True
    named = NAMELIKE.search(CONTINUES.sub("", bare).strip())
    own = content(bare)
    open_ended = not re.search(r"\b(?:of|in|for|about|de|von|du)\s+\w", bare)
    short = 0 < len(own) <= OPEN_ENDED and (alone or bare.endswith("?"))
    return named is None and short and (open_ended or CONTINUES.match(bare) is not None)


def content(text: str) -> set[str]:
    """The content words, in small letters."""
    return {word for word in WORD.findall(text.lower()) if word not in FUNCTION_WORDS}
