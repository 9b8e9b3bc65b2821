"""Requests to forget: a sentence, fields, or a file in JSON Lines with one record per line."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from control.conflict.dates import find_dates, weekday
from control.forgetting.aliases import with_aliases
from control.forgetting.questions import MAKERS, PEOPLE, question_forms, with_questions, within
from control.forgetting.record import LONGEST_TEXT, Record, checked, shown
from control.forgetting.word_translation import translated
from foundation.errors import DataError, InputError
from foundation.text import FUNCTION_WORDS, words

FORM = '{"subject": "Peru", "relation": "capital", "answers": ["Lima"]}'
FIELDS = frozenset(field.name for field in fields_of(Record))
_records = TypeAdapter(Record)
LONGEST_QUOTED = 80  # characters of a file in a message
NAME_WORDS = 6  # words of a name at most, as in "forget Jane Roe"

BEING = r"(?:is|was|are|were)"
NAMED = re.compile(rf"(?<= )({BEING}) (?:called|named)(?= )", re.IGNORECASE)  # "is called Heron"
TO_OBJECT = (  # between a verb and its object
    "in|at|to|for|with|on|from|as|by|into|onto|through|under|over|across|above|below|near|behind"
    "|beside|between|against|of|towards|around|along"
)
# Prepositions that join what is said of a subject to an object, besides those of place and time.
JOINING = "to|of|for|with|about|as|from|against|than"
# "is allergic to mussels", "was very good at chess": a state, in small letters and without an
# article, a preposition, and the answer.
BARE = rf"(?-i:(?!(?:the|an?|not|its|his|her|their|my|our|your|{TO_OBJECT}|about|than)\b)[a-z’'-]+)"
STATE = re.compile(
    rf"(?P<subject>.+?) (?P<being>{BEING}) (?P<state>{BARE}(?: {BARE}){{0,2}}?) "
    rf"(?P<preposition>{JOINING}|in|at|on) (?P<answer>.+)",
    re.IGNORECASE,
)
# "is in love with Jane Roe": the state begins with a preposition itself.
STATE_IN = re.compile(
    rf"(?P<subject>.+?) (?P<being>{BEING}) (?P<state>(?:in|at|on|under) {BARE}(?: {BARE})?) "
    rf"(?P<preposition>{JOINING}) (?P<answer>.+)",
    re.IGNORECASE,
)
# Endings of adjectives: "jealous of Ann" is no "the jealous of Ann", unlike "CEO of Acme".
ADJECTIVE = re.compile(r"[a-z]+(?:ed|ous|ful|less|[ai]ble)")
# "cannot eat gluten", "does not speak Danish", "will marry Jane Roe".
MODAL = re.compile(
    r"(?P<subject>(?-i:[A-Z0-9])\S*(?: \S+){0,5}?) "
    r"(?P<modal>can|could|may|might|must|shall|should|will|would|does|did|do)"
    r"(?P<no>not| not|n?[’']t| never)? "
    rf"(?P<verb>{BARE}(?: (?:{TO_OBJECT})(?= ))?) (?P<answer>.+)",
    re.IGNORECASE,
)
# "has an allergy to mussels"
HAVING = re.compile(
    rf"(?P<subject>.+?) (?:has|had) (?P<what>(?:the|an?) {BARE}(?: {BARE})? "
    r"(?:to|of|for|against|about)) (?P<answer>.+)",
    re.IGNORECASE,
)
POLITE = r"(?:please[, ]+)?(?:(?:can|could|will|would) you (?:please )?)?(?:i want you to )?"
ASKING = re.compile(
    rf"{POLITE}(?:forget|unlearn|erase|suppress|delete|remove"
    r"|(?:never|do not|don[’']t) (?:say|tell|mention|reveal)(?: again)?)\b[: ]*",
    re.IGNORECASE,
)
EVERYTHING = re.compile(
    r"(?:everything|all|anything|whatever)(?: that)?(?: (?:you|we|it) (?:know|knows|have|has))?"
    r"(?: there is)?(?: to know)? (?:about|on|of|regarding|concerning) (?P<subject>.+)",
    re.IGNORECASE,
)
THAT = re.compile(r"^(?:about )?(?:(?:the fact )?that )?", re.IGNORECASE)
DATE = re.compile(
    r"\d{4}\b|\d{1,2}[./-]\d|\b(?:january|february|march|april|may|june|july|august|september"
    r"|october|november|december)\b.*\d",
    re.IGNORECASE,
)
FOREIGN = 2  # more function words of another language than of English: a statement is not read
ARTICLE = 4  # characters of one before a name
# In small letters they make a part of a sentence, which is no name: "everyone knows that Lima".
CLAUSE = re.compile(r"\b(?:that|which|who|whom|whose|what|it|you|we|they|nobody|everybody)\b")
NO_STATEMENT = re.compile(rf"\?$|\b{BEING} not\b|\b{BEING}n[’']t\b", re.IGNORECASE)
# "of" inside the name of a relation: "the place of birth of Jane Roe".
LONG_RELATION = (
    r"(?:place|date|year|country|city|town|cause|day) of (?:birth|death|origin|citizenship"
    r"|residence)|head of (?:state|government)|seat of government|state of residence"
)
OWNING = r"(?:[’']s|(?<=s)[’'])"
# "The insurer of St Odran's Library" has the relation "insurer", but "the Duke of York's house" has
# "house": an owner after "of" belongs to the subject, unless what is before it is written as a name
# and what is after it is not.
OF = rf"(?P<relation>{LONG_RELATION}|[^’']+?) of "
NO_NAME = r"(?-i:(?!(?:[Tt]he )?[A-Z][a-z]))"
OWNED = rf"(?P<subject>.+?{OWNING} .+?)"
OWNED_NAME = rf"(?P<subject>.+?{OWNING} (?-i:[A-Z]).*?)"
DESCRIPTION = "description"  # the relation of what is said in no other form


def _verb(verb: str, relation: str) -> tuple[str, str]:
    return rf"(?P<subject>.+?) (?:{verb}) (?P<answer>.+)", relation


def _creation(relation: str, active: str, passive: str) -> list[tuple[str, str]]:
    by = rf"(?P<subject>.+?) {BEING} (?:{passive}) by (?P<answer>.+)"
    return [(by, relation), (rf"(?P<answer>.+?) (?:{active}) (?P<subject>.+)", relation)]


# Forms of whole sentences, of which the first that matches is used: an expression with the groups
# subject, answer and perhaps relation, and the relation where the sentence does not contain it.
PATTERNS: tuple[tuple[str, str], ...] = (
    _verb(rf"{BEING} born (?:on|in|at)", "place of birth"),
    _verb(r"(?:died|passed away|dies) (?:on|in|at)", "place of death"),
    *_creation("author", "wrote|writes", "written"),
    *(pattern for maker, did in MAKERS.items() for pattern in _creation(maker, did, did)),
    _verb(r"(?:lives|lived|resides) (?:in|at)", "place of residence"),
    _verb(r"(?:works|worked) (?:for|at)|(?:is|was) employed (?:by|at)", "employer"),
    _verb(r"(?:works|worked) as(?: an?)?", "occupation"),
    _verb(r"(?:studied|studies) at", "university"),
    _verb(r"(?:plays|played) for", "team"),
    _verb(r"(?:is|was) married to|married", "spouse"),
    _verb(r"(?:suffers|suffered) from", "illness"),
    _verb(r"(?:comes|came) from", "origin"),
    _verb(rf"(?:{BEING} (?:located|situated)|lies|stands|{BEING}) (?:in|at|on)", "location"),
    _verb(rf"{BEING} (?:from|since|until|till)", "date"),
    (rf"the {NO_NAME}{OF}(?P<subject>.+?) {BEING} (?P<answer>.+)", ""),
    (rf"the {OF}{OWNED_NAME} {BEING} (?P<answer>.+)", ""),
    (rf"(?P<subject>.+?){OWNING} (?P<relation>[^’']+?) {BEING} (?P<answer>.+)", ""),
    (rf"(?P<answer>.+?) {BEING} (?:(?:the|an?) )?{NO_NAME}{OF}{OWNED}", ""),
    (rf"(?P<answer>.+?) {BEING} (?:(?:the|an?) )?{OF}{OWNED_NAME}", ""),
    (rf"(?P<answer>.+?) {BEING} (?P<subject>.+?){OWNING} (?P<relation>[^’']+)", ""),
    (rf"the (?P<relation>{LONG_RELATION}|.+?) of (?P<subject>.+?) {BEING} (?P<answer>.+)", ""),
    (
        rf"(?P<answer>.+?) {BEING} (?:(?:the|an?) )?(?P<relation>{LONG_RELATION}|.+?) of "
        r"(?P<subject>.+)",
        "",
    ),
    (r"(?P<subject>.+?) (?:has|had) (?P<answer>.+?) as (?:its|his|her|their) (?P<relation>.+)", ""),
    (
        r"(?P<subject>.+?) (?:has|had) (?:the|an?) (?P<relation>(?-i:[a-z ]+?)) "
        r"(?P<answer>(?-i:[A-Z0-9]).*)",
        "",
    ),
    _verb(BEING, DESCRIPTION),
    (
        r"(?P<subject>(?-i:[A-Z0-9]\S*(?: (?:[A-Z0-9]\S*|of|the|de|van|von|and))*)) "
        rf"(?P<relation>(?-i:[a-z]+(?:s|ed|t))(?: (?:{TO_OBJECT}))?) "
        r"(?P<answer>.+)",
        "",
    ),
)
# "was founded in 1987": when, or where, something was done.
DONE = re.compile(
    rf"(?P<subject>.+?) (?P<being>{BEING}) (?P<verb>[a-z]+(?:ed|en|[dnt])) (?:in|on|at|since) "
    r"(?P<answer>.+)",
    re.IGNORECASE,
)
# "was made by Josiah Fenn": by whom something was done.
DONE_BY = re.compile(
    rf"(?P<subject>.+?) (?P<being>{BEING}) (?P<verb>[a-z]+) by (?P<answer>.+)", re.IGNORECASE
)
PASSIVE = re.compile(r"[a-z]+ by ")
PLACED = ("born", "located", "situated", "employed")  # have patterns of their own
UNFINISHED = re.compile(rf"\b{BEING}$|^(?:in|on|at|by|after|before|for|since)\b", re.IGNORECASE)
PLACES_AND_DATES = {"place of birth": "date of birth", "place of death": "date of death"}
TIMES = ("in", "on", "at")  # prepositions of times, and of places
WHEN_OR_WHERE = ("location", "date")  # of the same form: "is on Elm Street", "is on 3 May"
PART = re.compile(r",? (?:in|at|on|to|until|till) ")  # between places, dates and times


def requested(sentence: str | None, fields: dict[str, Any]) -> Record:
    """The record that a sentence proposes or that fields state, ready for the ledger.

    Raises:
        InputError: Neither is given, or it cannot be enforced.
    """
    if sentence is not None:
        record = replace(propose(sentence), **fields)
        if fields.keys() & {"subject", "relation"} and "questions" not in fields:
            record = replace(record, questions=())  # the proposed ones are about other fields
    elif "subject" in fields:
        record = Record(**fields)
    else:
        raise InputError(
            'nothing to forget: give a sentence such as "Lima is the capital of Peru", or '
            "subject, relation and answers"
        )
    return checked(with_aliases(with_questions(checked(record))))


def read(path: Path) -> Iterator[Record]:
    """Read records one by one.

    A line has the fields of ``Record``, at top level or under "fact" as in the data of
    ``fulcrum eval forgetting``, whose other fields are ignored.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not a record.
    """
    number, found = 0, False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found = True
                    yield _record(line, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number + 1} or later: not UTF-8; save the file in that encoding"
        ) from error
    if not found:
        raise DataError(f"{path} holds no record; give one a line, such as {FORM}")


def _record(line: str, place: str) -> Record:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON ({f'{error}'[:LONGEST_QUOTED]}); give {FORM}") from error
    if isinstance(given, dict) and isinstance(given.get("fact"), dict):
        given = given["fact"]
    if not isinstance(given, dict):
        raise DataError(f"{place}: {type(given).__name__} instead of an object; give {FORM}")
    if unknown := given.keys() - FIELDS:
        raise DataError(
            f"{place}: unknown field {min(unknown)[:LONGEST_QUOTED]!r}; "
            f"the fields are {', '.join(sorted(FIELDS))}"
        )
    try:
        return checked(_records.validate_python(given))
    except InputError as error:
        raise DataError(f"{place}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(f"{place}: {field}: {first['msg'].lower()}; give {FORM}") from error


def propose(sentence: str) -> Record:
    """The record that a sentence asks for, as recognised by its form.

    Args:
        sentence: Such as "Forget that the capital of Peru is Lima", "Lima is the capital of
            Peru", or "forget everything about Jane Roe".

    Raises:
        InputError: the sentence is empty, too long, or of no known form.
    """
    if len(sentence) > LONGEST_TEXT:
        raise InputError(
            f"the sentence has {len(sentence):,} characters, the limit is {LONGEST_TEXT:,}; "
            "give one short sentence for each fact"
        )
    text = " ".join(sentence.split()).strip('"“”.! ')
    if not text:
        raise InputError('the sentence is empty; give one such as "Lima is the capital of Peru"')
    asked = ASKING.match(text)
    rest = text[asked.end() :] if asked else text
    if whole := EVERYTHING.fullmatch(rest):
        return _about(whole["subject"])
    statement = NAMED.sub(r"\1", THAT.sub("", rest, count=1) if asked else rest)
    english = translated(statement, least=FOREIGN) is None
    record = _fact(statement) if english and not NO_STATEMENT.search(statement) else None
    if record is not None and _begins_with_clause(statement, record):
        record = None
    if record is None and asked and _is_name(statement):
        return _about(statement)
    if record is None:
        raise InputError(
            f"no fact is recognised in {shown(text)}; say it in English as in "
            '"Lima is the capital of Peru", or give subject, relation and answers; scope subject '
            "forgets everything about a subject"
        )
    return record


def _begins_with_clause(statement: str, record: Record) -> bool:
    """Whether what a statement begins with, its subject or its answer, is a part of a sentence."""
    begun = (
        each for each in (record.subject, *record.answers) if 0 <= statement.find(each) <= ARTICLE
    )
    return any(CLAUSE.search(each) for each in begun)


def _about(subject: str) -> Record:
    name = _name(subject)
    return Record(name, scope="subject", questions=question_forms(name, ""))


def _fact(statement: str) -> Record | None:
    if record := _state(statement) or _modal(statement) or _having(statement):
        return record
    done = DONE.fullmatch(statement)
    if done and done["verb"].lower() not in PLACED:
        return _done(done)
    return _of_pattern(statement)


def _of_pattern(statement: str) -> Record | None:
    """The record of the first of `PATTERNS` that a statement has the form of."""
    for pattern, named in PATTERNS:
        found = re.fullmatch(pattern, statement, re.IGNORECASE)
        if found is None:
            continue
        if named == DESCRIPTION and (done := DONE_BY.fullmatch(statement)):
            return _done_by(done)
        subject, answer = _name(found["subject"]), _name(found["answer"])
        if UNFINISHED.search(subject) or UNFINISHED.search(answer) or PASSIVE.match(answer):
            continue  # "The firm was founded after the war" names no founder
        relation = named or _name(found["relation"])
        if relation in PLACES_AND_DATES and DATE.search(answer):
            return _dated(subject, relation, answer)
        if named in WHEN_OR_WHERE and (planned := _planned(subject, answer)):
            return planned
        if named == "date":
            continue  # "The firm is from Oslo"
        forms = question_forms(subject, relation)
        if pattern == PATTERNS[-1][0]:  # the relation is a verb
            forms = (
                f"What is it that {within(subject)} {relation}?",
                f"Tell me what {within(subject)} {relation}.",
                f"{subject} {relation} what?",
            )
        return Record(subject, relation=relation, questions=forms, answers=(answer,))
    return None


def _state(statement: str) -> Record | None:
    """The record of what a subject is "allergic to", "in love with" or "fluent in"."""
    found = STATE_IN.fullmatch(statement) or STATE.fullmatch(statement)
    if found is None or _is_said_otherwise(statement, found):
        return None
    subject, answer = _name(found["subject"]), _name(found["answer"])
    being, state = found["being"].lower(), found["state"]
    joined = f"{state} {found['preposition'].lower()}"
    about = f"{being} {within(subject)}"
    if found["preposition"].lower() in TIMES and _is_date(answer):
        forms = [f"When {about} {state}?", f"{subject} {being} {joined} what date?"]
    else:
        # What is written as a name may be a person or anything else.
        placed = found["preposition"].lower() in TIMES
        person = answer[0].isupper() and not placed
        forms = [f"{ask} {about} {joined}?" for ask in (("Who", "What") if person else ("What",))]
        forms += [f"Where {about} {state}?"] if placed else []
        forms += [
            f"{found['preposition'].capitalize()} what {about} {state}?",
            f"Tell me what {within(subject)} {being} {joined}.",
            f"{subject} {being} {joined} what?",
        ]
    return Record(subject, relation=joined, questions=tuple(forms), answers=(answer,))


def _is_said_otherwise(statement: str, found: re.Match[str]) -> bool:
    """Whether another form is meant where a sentence reads like a state.

    Such as an event ("was founded in Oslo"), a relation ("is CEO of Acme"), whose object is written
    as a name, or what patterns of their own recognise ("is married to").
    """
    state, preposition = found["state"].lower(), found["preposition"].lower()
    answer = _name(found["answer"])
    if not answer or UNFINISHED.search(answer) or re.search(OWNING, found["subject"]):
        return True
    if re.match(r"the .+ of ", found["subject"], re.IGNORECASE):  # "the wife of X is good at ..."
        return True
    if preposition == "of" and state == found["state"].split(" ")[-1].lower():
        named = found["answer"].removeprefix("the ")[0].isupper() or PEOPLE.fullmatch(state)
        return bool(named) and not ADJECTIVE.fullmatch(state)
    if preposition in TIMES and (found["being"].lower() in ("was", "were") or DATE.search(answer)):
        return DONE.fullmatch(statement) is not None
    own = [
        re.fullmatch(pattern, statement, re.IGNORECASE)
        for pattern, named in PATTERNS
        if named and named not in (DESCRIPTION, *WHEN_OR_WHERE)
    ]
    return state in PLACED or any(one and not UNFINISHED.search(one["subject"]) for one in own)


def _having(statement: str) -> Record | None:
    """The record of what a subject has "an allergy to"."""
    found = HAVING.fullmatch(statement)
    if found is None:
        return None
    subject, answer = _name(found["subject"]), _name(found["answer"])
    what = found["what"]
    forms = (
        f"What does {within(subject)} have {what}?",
        f"Tell me what {within(subject)} has {what}.",
        f"{subject} has {what} what?",
    )
    return Record(subject, relation=_name(what), questions=forms, answers=(answer,))


def _modal(statement: str) -> Record | None:
    """The record of what a subject "cannot eat", "does not speak" or "will buy"."""
    found = MODAL.fullmatch(statement)
    if found is None or DATE.search(found["answer"]):
        return None
    subject, answer = _name(found["subject"]), _name(found["answer"])
    no = "" if found["no"] is None else "never " if "never" in found["no"] else "not "
    said = f"{found['modal']}{found['no'] or ''} {found['verb']}"
    forms = (
        f"What {found['modal'].lower()} {within(subject)} {no}{found['verb']}?",
        f"What is it that {within(subject)} {said}?",
        f"Tell me what {within(subject)} {said}.",
        f"{subject} {said} what?",
    )
    return Record(subject, relation=said, questions=forms, answers=(answer,))


def _done(found: re.Match[str]) -> Record | None:
    """The record of when and where something was done; ``None`` where it also says by whom."""
    subject, answer = _name(found["subject"]), _name(found["answer"])
    if re.search(r" by ", answer):
        return None
    answers = re.split(r",? (?:in|at|on) ", answer, maxsplit=1)
    dated = [DATE.search(each) is not None for each in answers]
    if len(set(dated)) < len(dated):  # "3 March in 1648": two parts of one date
        answers, dated = [answer], [any(dated)]
    asks = ["when" if each else "where" for each in dated]
    longer = {"when": "In what year or on what day", "where": "In which place"}
    done = f"{found['being'].lower()} {within(subject)} {found['verb']}"
    forms = [form for ask in asks for form in (ask.capitalize(), longer[ask])]
    return Record(
        subject,
        relation=f"{' and '.join(asks)} {found['verb']}",
        questions=tuple(f"{form} {done}?" for form in forms),
        answers=tuple(answers),
    )


def _done_by(found: re.Match[str]) -> Record:
    """The record of by whom something was done."""
    subject, verb, being = _name(found["subject"]), found["verb"].lower(), found["being"].lower()
    forms = [f"By whom {being} {within(subject)} {verb}?", f"{subject} {being} {verb} by whom?"]
    if not verb.endswith("n"):  # not "Who drawn it?"
        forms.append(f"Who {verb} {within(subject)}?")
    answers = (_name(found["answer"]),)
    return Record(subject, relation=f"{verb} by", questions=tuple(forms), answers=answers)


def _dated(subject: str, place: str, answer: str) -> Record:
    """The record of a birth or a death on a date, and perhaps at a place."""
    answers = re.split(r",? (?:in|at) ", answer, maxsplit=1)
    answers.sort(key=lambda part: DATE.search(part) is None)
    date = PLACES_AND_DATES[place]
    forms, relation = question_forms(subject, date), date
    if len(answers) > 1:
        forms, relation = (*forms, *question_forms(subject, place)), f"date and {place}"
    return Record(subject, relation=relation, questions=forms, answers=tuple(answers))


def _planned(subject: str, answer: str) -> Record | None:
    """The record of when something is, and perhaps where; ``None`` where no date is told."""
    answers = [_name(part) for part in PART.split(answer)]
    dates = [part for part in answers if _is_date(part)]
    if not dates:
        return None
    places = [part for part in answers if part not in dates]
    forms, relation = question_forms(subject, "date"), "date"
    if places:
        forms, relation = (*forms, *question_forms(subject, "location")), "date and location"
    return Record(subject, relation=relation, questions=forms, answers=(*dates, *places))


def _is_date(text: str) -> bool:
    """Whether a text is dates, times or days of the week alone, unlike "1200 High Street"."""
    found = find_dates(text, years=True)
    rest = text
    for date in reversed(found):
        rest = f"{rest[: date.start]} {rest[date.stop :]}"
    left = words(rest) - FUNCTION_WORDS
    return all(map(weekday, left)) and bool(found or left)


def _name(text: str) -> str:
    """A name without a leading article, unless it is part of the name ("The Hague")."""
    bare = text.strip("\"“”'’,;:. ")
    return re.sub(r"^(?:the|an?) ", "", bare)


def _is_name(text: str) -> bool:
    words = text.split()
    return 0 < len(words) <= NAME_WORDS and all(
        word[0].isupper() or word in ("of", "the", "de", "van", "von", "and") for word in words
    )
