"""The segments of a question that may ask for a fact, with its subject and its answer masked.

A question can be part of a long text (a role, a prefix, a suffix), which would dilute any
similarity of the whole; so each sentence and clause that could ask for the fact is scored alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from control.forgetting import normalize
from control.forgetting.normalize import Place
from control.forgetting.word_translation import translated
from foundation.text import words

Turns = Sequence[tuple[str, str]]

SUBJECT, ANSWER = "[X]", "[Y]"
MOST_SEGMENTS = 4  # scored for one subject: the last ones, to which models attend most
LONG_SENTENCE = 9  # words; a shorter one is scored as a whole
SHORT_TEXT = 30  # words; several sentences are still scored as a whole too
ELLIPSIS = 1  # content words at most of a question that only names a subject ("What about Peru?")
OPEN_ENDED = 4  # content words at most of a follow-up that says neither name nor pronoun
LONGEST_SEGMENT = 400  # characters that are embedded; the model would truncate the rest

ENDINGS = ("ation", "ings", "ing", "ers", "ors", "ed", "es", "er", "or", "ion", "s", "e", "y")
LEAST_STEM = 4  # letters that an ending leaves

SENTENCE = re.compile(
    r"(?<!\bSt\.)(?<!\bMr\.)(?<!\bDr\.)(?<!\bMrs\.)(?<![\s.][A-Z]\.)"
    r"(?<=[.!?…])[\"'”’)\]*]*\s+|\n+"
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
# A question of this form states the fact and asks to confirm it.
CONFIRMS = re.compile(
    r"\b(?:true or false|yes or no|right or wrong|correct or not)\b|"
    r"\b(?:is|was|isn['’]t|wasn['’]t) (?:it|that|this) (?:true|right|correct|so|a fact)\b|"
    r"(?:^|[.!?:;\"]\s*)(?:is|are|was|were|did|does|do|has|have|had|isn['’]t|wasn['’]t|didn['’]t)\s|"
    r",\s*(?:right|correct|true|isn['’]t it|wasn['’]t it|is it not)\s*\?",
    re.IGNORECASE,
)
CONTINUES = re.compile(r"^\W*(?:and|or|so|then|but|also|und|et|y|e)\b", re.IGNORECASE)
# "the country where Machu Picchu lies", "the author of Emma": a subject that is not named.
DESCRIPTION = re.compile(
    r"\b(?:the|that|this|a|an|whichever|whatever)\s+(?:[\w-]+\s+){0,3}?(?:(?:that|who|whose|whom|"
    r"where|which|in which|on which|to which|from which|at which|with|known for|born|behind)\s+|"
    r"(?<=land )of\s+|(?<=home )of\s+|(?<=country )of\s+|(?<=nation )of\s+)"
    r"[^?.!,;]+",
    re.IGNORECASE,
)
NAMELIKE = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-ZÀ-Þ][\w’'-]*(?:\s+[A-ZÀ-Þ][\w’'-]*)*|\b\d{2,}\b")
# Values that an answer may be mistaken for: numbers with what belongs to them, and names.
NUMERIC = re.compile(r"\b\d[\d.,:/-]*(?:\s\d[\d.,]*)*")
NAMED = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-ZÀ-Þ][\w’'-]+(?:\s+(?:d[aeiu]l?\s+)?[A-ZÀ-Þ][\w’'-]+)*")
WORD = re.compile(r"[^\W_]+")
# What stands around a name that is written plainly, and what may be read as another letter.
PLAIN_START, PLAIN_END = re.compile(r"(?:^|\s)$"), re.compile(r"(?:['’]s)?(?:[ ?.,]|$)")
LEET_SIGN = re.compile(r"[0-9@$+|!]")

FUNCTION_WORDS = words(
    "a an the of is are was were be been being do does did what which who whom whose when "
    "where how why in on at to for by with from and or it its s name can could would you tell "
    "me i we has have had that this there as about please know say give let us if then so "
    "also just some any your my he she they his her their him them will may might shall "
    "should must not no yes one ones x y and again exactly really answer question"
)
WH = (
    ("person", re.compile(r"\bwho(?:m|se)?\b|\b(?:person|man|woman|artist|writer|author)\b")),
    ("time", re.compile(r"\bwhen\b|\b(?:year|date|day|month|birthday|deadline|decade|century)\b")),
    ("time", re.compile(r"\bhow (?:old|long ago|recent)\b")),
    ("number", re.compile(r"\bhow (?:many|much|big|large|tall|high|far|hot|long|wide|deep)\b")),
    ("number", re.compile(r"\b(?:number|amount|percentage|population|size)\b")),
    ("place", re.compile(r"\bwhere\b|\b(?:city|town|country|place|nation|continent|address)\b")),
    ("how", re.compile(r"\bhow\b")),
    ("why", re.compile(r"\bwhy\b")),
)


@dataclass(frozen=True)
class QuestionSegment:
    """A part of a question.

    Attributes:
        text: The masked text, in English as far as the word list translates it.
        answer: Whether it contains the record's answer, or a guess at it.
        from_history: Whether the subject comes from the conversation, not from the question.
        foreign: Whether it was translated word by word.
        names: Names and numbers in it other than the subject and the answer.
    """

    text: str
    answer: bool = False
    from_history: bool = False
    foreign: bool = False
    names: tuple[str, ...] = ()


def naming_subject(
    text: str,
    subject: Sequence[Place],
    answers: Sequence[str],
    turns: Turns,
    guesses: bool = True,
) -> list[QuestionSegment]:
    """Segments of a question that names the subject.

    Args:
        text: The question, or a reading of it.
        subject: Where the subject stands in it.
        answers: The record's spans, masked as well.
        turns: The conversation, for "And Peru?".
        guesses: Whether other values of the answer's type are masked as well.
    """
    segment = partial(_segment, answers=answers, guesses=guesses)
    found: list[QuestionSegment] = []
    after = False
    for start, end in sentences(text):
        inside = [(a - start, b - start) for a, b in subject if start <= a < end]
        sentence = text[start:end]
        if inside:
            masked = mask(sentence, inside, SUBJECT)
            if len(content(masked)) <= ELLIPSIS:
                found += [segment(other, from_history=True) for other in _asked_before(turns)]
            found.append(segment(masked))
            if len(WORD.findall(masked)) > LONG_SENTENCE:
                found += [segment(part) for part in _clauses(masked)]
            after = True
        elif after and (referring := refer(sentence)) is not None:
            found.append(segment(referring))
    if len(found) > 1 and len(WORD.findall(text)) <= SHORT_TEXT:
        found.append(segment(mask(text, subject, SUBJECT)))
    return _last(found)


def follow_up(text: str, answers: Sequence[str]) -> list[QuestionSegment]:
    """Segments of a question whose subject is in the conversation; none if it has its own."""
    parts = [text[start:end] for start, end in sentences(text)]
    referring = [part for part in (refer(part, alone=len(parts) == 1) for part in parts) if part]
    return _last([_segment(part, answers, from_history=True) for part in referring])


def holding_answer(text: str, answer: Sequence[Place]) -> list[QuestionSegment]:
    """Segments of a question that holds an answer, masked as the subject, which is not in it."""
    found = []
    for start, end in sentences(text):
        inside = [(a - start, b - start) for a, b in answer if start <= a < end]
        if inside:
            masked = mask(text[start:end], inside, SUBJECT)
            found.append(_segment(masked, (), answer=True))
            if len(WORD.findall(masked)) > LONG_SENTENCE:
                clauses = [part for part in CLAUSE.split(masked) if SUBJECT in part]
                found += [_segment(part, (), answer=True) for part in clauses if content(part)]
    return _last(found)


def describing_subject(text: str) -> list[QuestionSegment]:
    """Segments of a question that describes its subject instead of naming it."""
    found = []
    for start, end in sentences(text):
        sentence = text[start:end]
        spots = [(m.start(), m.end()) for m in DESCRIPTION.finditer(sentence) if m.start() > 0]
        if spots:
            found.append(_segment(mask(sentence, spots[-1:], SUBJECT), ()))
    return _last(found)


def unmasked(text: str) -> list[QuestionSegment]:
    """The sentences of a question, unmasked."""
    return _last([_segment(text[start:end], ()) for start, end in sentences(text)])


def sentences(text: str) -> list[Place]:
    """Where the sentences of a text begin and end, in characters."""
    ends = [(match.start(), match.end()) for match in SENTENCE.finditer(text)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return [(a, b) for a, b in zip(starts, stops, strict=True) if text[a:b].strip()]


def mask(text: str, places: Sequence[Place], by: str) -> str:
    """The text with the places, in characters, replaced by ``by``."""
    for start, end in sorted(_without_overlaps(places), reverse=True):
        text = f"{text[:start]}{by}{text[end:]}"
    return text


def masked_form(question: str, names: Sequence[str]) -> str:
    """A question form with the subject masked."""
    if (place := _literal_place(question, names)) is not None:
        return mask(question, [place], SUBJECT)
    return mask(
        question, [(start, end) for start, end, _ in normalize.find(question, names)], SUBJECT
    )


def _literal_place(question: str, names: Sequence[str]) -> Place | None:
    """Where a form names its subject, if it does so once and exactly as the record does.

    The same result as ``normalize.find`` in a tenth of the time, which matters for the forms of ten
    thousand records.
    """
    subject, *others = names
    before, found, after = question.partition(subject)
    rest = f"{before} {after}"
    if not found or not PLAIN_END.match(after) or not PLAIN_START.search(before):
        return None
    others_text, whole = _letters_only(rest), _letters_only(question)
    if not rest.replace("’", "'").isascii() or LEET_SIGN.search(rest):
        return None
    if _letters_only(subject) in others_text or any(
        _letters_only(other) in whole for other in others
    ):
        return None
    return len(before), len(before) + len(subject)


def _letters_only(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def refer(sentence: str, alone: bool = False) -> str | None:
    """The sentence with its reference to the subject replaced by the mask; ``None`` without one.

    Args:
        sentence: One that does not name the subject.
        alone: Whether it is all of the question.
    """
    bare = BLANK.sub("what", sentence).strip()
    if POSSESSIVE.search(bare):
        return POSSESSIVE.sub(f"{SUBJECT}'s", bare)
    if PRONOUN.search(bare):
        return PRONOUN.sub(SUBJECT, bare)
    named = NAMELIKE.search(CONTINUES.sub("", bare).strip())
    stems = content(bare)
    open_ended = not re.search(r"\b(?:of|in|for|about|de|von|du)\s+\w", bare)
    short = 0 < len(stems) <= OPEN_ENDED and (alone or bare.endswith("?"))
    if named is None and short and (open_ended or CONTINUES.match(bare)):
        return f"{bare.rstrip(' ?.!')} of {SUBJECT}?"
    return None


def content(text: str) -> set[str]:
    """The stems of the content words."""
    return {stem(word) for word in WORD.findall(text.lower()) if word not in FUNCTION_WORDS}


def stem(word: str) -> str:
    """A word without its ending, roughly."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= LEAST_STEM:
            return word[: -len(ending)]
    return word


def answer_type(text: str) -> str:
    """The type of answer that a question asks for: person, time, number, place, how, why or any."""
    lowered = text.lower()
    return next((kind for kind, pattern in WH if pattern.search(lowered)), "any")


def _segment(
    masked: str,
    answers: Sequence[str],
    from_history: bool = False,
    answer: bool = False,
    guesses: bool = True,
) -> QuestionSegment:
    text = BLANK.sub("what", masked).strip()
    if answers:
        places = [(start, end) for start, end, _ in normalize.find(text, answers)]
        places += _guesses(text, answers[0]) if guesses else []
        answer = bool(places)
        text = mask(text, places, ANSWER)
    bare = text.replace(SUBJECT, " ").replace(ANSWER, " ")
    english = translated(text)
    names = tuple(NAMELIKE.findall(bare))
    return QuestionSegment(
        (english or text)[-LONGEST_SEGMENT:], answer, from_history, english is not None, names
    )


def _guesses(text: str, answer: str) -> list[Place]:
    """Where a text says a value of the answer's type, right or wrong.

    All are masked alike, so that the decision does not tell a right guess from a wrong one.
    """
    if any(map(str.isdigit, answer)):
        pattern = NUMERIC
    elif answer[:1].isupper() and translated(text) is None:  # German nouns are no names
        pattern = NAMED
    else:
        return []
    found = pattern.finditer(text)
    return [match.span() for match in found if match[0].lower() not in FUNCTION_WORDS]


def _clauses(masked: str) -> list[str]:
    """The clauses that hold the subject and say more, and what follows the last of them."""
    parts = [part.strip() for part in CLAUSE.split(masked)]
    return [part for part in parts if SUBJECT in part and len(content(part)) > ELLIPSIS]


def _asked_before(turns: Turns) -> list[str]:
    """The last question of the conversation, with the name in it masked."""
    if not turns:
        return []
    asked = turns[-1][0]
    first = asked[:1].lower() + asked[1:]
    spots = [(match.start(), match.end()) for match in NAMELIKE.finditer(first)]
    return [mask(first, spots[-1:], SUBJECT)] if spots else []


def _without_overlaps(places: Sequence[Place]) -> list[Place]:
    """The places without those that overlap another one."""
    kept: list[Place] = []
    for start, end in sorted(set(places), key=lambda place: (place[0], -place[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept


def _last(found: Sequence[QuestionSegment]) -> list[QuestionSegment]:
    unique = {segment.text: segment for segment in found}
    return list(unique.values())[-MOST_SEGMENTS:]
