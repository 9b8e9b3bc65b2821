"""A forgotten fact."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from foundation.errors import InputError
from foundation.text import SURROGATES, counted, normalise, words

LONGEST_TEXT = 2_000  # characters of any one name, question or answer
LONGEST_WORDING = 100_000  # characters of a text whose wording is kept back: a long chapter
# Consecutive words of such a text that may be told. GPT-2's authors took 8 for shared text (8-grams
# of lower-cased words; Radford et al. 2019, section 4); an extract of 11 words can be a
# reproduction in part (Court of Justice of the EU, C-5/08, Infopaq).
LONGEST_QUOTE = 8
MOST_TEXTS = 200  # names, questions or answers of one record
MOST_SHOWN = 60  # characters of a text in a message
# Suppressing one of these words would suppress every sentence.
TOO_COMMON = words(
    "a an and are as at be by for from has he her his i in is it its of on or she that the their "
    "they this to was were what who will with you"
)

Scope = Literal["fact", "claim", "subject", "verbatim"]


@dataclass(frozen=True)
class Record:
    """One entry of the ledger.

    Attributes:
        subject: The person or thing it is about.
        aliases: Other names of the subject.
        relation: Of the subject, such as "capital"; empty for the scopes ``subject`` and
            ``verbatim``.
        questions: Question forms.
        answers: What must not be stated; empty for the scope ``subject``; for ``verbatim`` whole
            texts.
        answer_aliases: Other names of the answers.
        scope: ``fact`` refuses its question; ``claim`` suppresses these answers only, so that a
            false one is not repeated and the true one may be given; ``subject`` suppresses
            everything about the subject; ``verbatim`` suppresses the wording of its answers, whose
            content may be told in other words.
        reason: Why it is forgotten.
        who: Who asked for it.
        time: When, ISO 8601 in UTC; set by the ledger.
        id: Set by the ledger.
    """

    subject: str
    aliases: tuple[str, ...] = ()
    relation: str = ""
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    answer_aliases: tuple[str, ...] = ()
    scope: Scope = "fact"
    reason: str = ""
    who: str = ""
    time: str = ""
    id: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the subject."""
        return (self.subject, *self.aliases)

    @property
    def spans(self) -> tuple[str, ...]:
        """All answers and aliases, which must not be stated."""
        return (*self.answers, *self.answer_aliases)


def reversed_fact(record: Record) -> Record:
    """The fact with subject and answer exchanged, so that the subject is suppressed."""
    answer, *others = record.spans
    return replace(
        record,
        subject=answer,
        aliases=tuple(others),
        answers=record.names[:1],
        answer_aliases=record.names[1:],
    )


def forbidden(record: Record) -> tuple[str, ...]:
    """What must not be shown of a record: its answers, or else the names of its subject.

    Nothing where only the wording of a text is kept back, see `control.forgetting.verbatim`.
    """
    return () if record.scope == "verbatim" else record.spans or record.names


def telling(span: str) -> bool:
    """Whether an answer tells something without its subject: it has a letter."""
    return any(map(str.isalpha, span))


def checked(record: Record) -> Record:
    """The record, if it can be enforced.

    Raises:
        InputError: A text is empty, too long, or so common that suppressing it would suppress every
            answer; or the scope and the answers contradict each other.
    """
    if record.scope not in get_args(Scope):
        raise InputError(f"scope is {record.scope!r}; give {', '.join(get_args(Scope))}")
    _each("subject", record.names, common=True)
    _each("question", record.questions)
    longest = LONGEST_WORDING if record.scope == "verbatim" else LONGEST_TEXT
    _each("answer", record.spans, common=True, longest=longest)
    for name in ("relation", "reason", "who"):
        _check_text(name, getattr(record, name))
    if record.scope == "verbatim":
        return _checked_wording(record)
    if record.scope != "subject" and not record.answers:
        raise InputError(
            f"the fact about {shown(record.subject)} has no answer, so nothing to suppress; "
            "give answers, or scope subject to forget everything about it"
        )
    if record.scope != "subject" and not (record.relation.strip() or record.questions):
        raise InputError(
            f"the fact about {shown(record.subject)} says neither relation nor question; "
            "give a relation or questions"
        )
    if record.scope == "subject" and record.spans:
        raise InputError("scope subject forgets everything about the subject; leave out the answer")
    return record


def _checked_wording(record: Record) -> Record:
    """The record of a text, if there is a wording to keep back."""
    if not record.answers:
        raise InputError(
            f"scope verbatim needs the text of {shown(record.subject)} whose wording is kept back; "
            "give it as answer"
        )
    if record.relation.strip() or record.questions:
        raise InputError(
            "scope verbatim keeps back the wording of a text, whatever is asked; "
            "leave out relation and question"
        )
    for text in record.spans:
        if (count := len(text.split())) <= LONGEST_QUOTE:
            raise InputError(
                f"the text {shown(text)} has {counted(count, 'word')}, and {LONGEST_QUOTE} "
                "consecutive words may be told; give a longer text, or scope claim to keep back a "
                "phrase"
            )
    return record


def _each(
    what: str, texts: Sequence[str], common: bool = False, longest: int = LONGEST_TEXT
) -> None:
    if len(texts) > MOST_TEXTS:
        raise InputError(f"{len(texts)} {what}s in one record; the limit is {MOST_TEXTS}")
    for text in texts:
        _check_text(what, text, longest)
        # A cheap test first; text is normalised only if it has no letter or digit.
        if not any(map(str.isalnum, text)) and not normalise(text):
            raise InputError(
                f"{what} is {shown(text)}: no word, only spaces or punctuation; give words"
            )
        if common and normalise(text) in TOO_COMMON:
            raise InputError(
                f"{what} is {shown(text)}, a very common word: suppressing it would "
                "suppress all answers; give the name or phrase that must not be stated"
            )


def _check_text(what: str, text: str, longest: int = LONGEST_TEXT) -> None:
    if len(text) > longest:
        todo = "split it into parts" if longest > LONGEST_TEXT else "give the name or phrase alone"
        raise InputError(f"{what} has {len(text):,} characters, the limit is {longest:,}; {todo}")
    if SURROGATES.search(text):
        raise InputError(f"{what} holds bytes that are no text; give it in UTF-8")


def shown(text: str) -> str:
    """A text as quoted in a message: in one line and shortened."""
    line = re.sub(r"\s+", " ", text)
    return repr(line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…")
