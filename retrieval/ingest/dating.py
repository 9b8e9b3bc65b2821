"""The date of a document, and what it says that it replaces.

A text states many dates. Its own is told from those of events, deadlines and births by the words
that lead to it: a line or a sentence gives the date of the text if it says nothing else than that
the text was written, issued or is in force, so every other word speaks against it. Titles, letter
heads and lines with nothing but a date count by their place at the edges of the text.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise, takewhile

from retrieval.ingest.content import VERSION_KEY, Content
from retrieval.ingest.dates import (
    DAY_LENGTH,
    YEAR_LENGTH,
    Found,
    dates_in_name,
    find_dates,
    is_possible,
    may_hold,
    stated_date,
    weekdays,
    with_clear_order,
)
from retrieval.ingest.tables import SEPARATOR as TABLE_RULE

DATE_KEY = "date"
REPLACES_KEY = "replaces"
ALL_EARLIER = "*"
HEAD_LINES = 15  # a letter head with both addresses
TAIL_LINES = 6  # a signature and a page footer
EDGE_CHARACTERS = 4_000  # in which those lines are looked for
LONGEST_STATEMENT = 600  # characters of a line; beyond, only its first and last ones are judged
LONGEST_SUBJECT = 5  # words: "The Acme Travel and Expenses Policy is valid from"
SELF_NAMED = 3  # words: "this price list"
MOST_UNKNOWN = 2  # words of what is replaced: "tariff sheet no. 11"
LONGEST_HEADING = 12  # words of a line at the start that may be the title
LONGEST_TITLE = 120  # characters of what a document replaces
FIELD_CELLS = 2  # of a row that is a field: "| Date | 3 May 2021 |"
MOST_DATED_LINES = 2  # lines of nothing but a date: more of them are a diary or a programme


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What says that a text came to be, or is in force.
ISSUED = _set(
    "date dated effective valid validity force effect apply applies applicable binding updated "
    "update lastmod modified revised revision rev reviewed amended edited issued issue published "
    "publication posted adopted approved ratified signed version edition release released created "
    "written made concluded compiled prepared printed generated status sent circulated drafted "
    "draft minutes meeting held done given asof pubdate datepublished datemodified "
    "datum fecha data dato stand"
)
IN_FORCE = _set("effective valid apply applies applicable")
HOLDS = IN_FORCE | _set("force effect")  # "comes into force on", "takes effect on"
STARTS = _set("from since as")  # "as of", "as from"
# What a date ends, or what does not begin with it; "to" is a short form of a day's name, too.
ENDS = _set("to until till through by before not no longer cease ceases end ends expire expires")
OF_ANOTHER = _set("a an the your our new is are was will be")  # "the new law", "a discount is"
DATED = (["date"], ["dated"])  # fields
# Kinds of documents.
KINDS = _set(
    "act law decree ordinance guidance advice document policy policies minutes protocol report "
    "letter memo memorandum notice notes note handbook manual guide guideline guidelines handout "
    "version edition revision release update newsletter bulletin circular agreement contract "
    "terms regulation datasheet sheet conditions rules regulations charter statute statutes "
    "bylaws code plan procedure procedures standard specification page text list statement "
    "announcement press changelog changes brief briefing paper leaflet brochure catalogue invoice "
    "schedule instructions directive order form faq privacy review meeting agenda article post"
)
# What adds nothing of its own between those words and the date.
NEUTRAL = _set(
    "a an and as at by came come comes enter entered enters entry for first from has have been in "
    "into is it its last latest most recently new no of on our since the these this was were went "
    "will with be become becomes took takes place time v ver number current currently here full "
    "day den le la el il de del der vom am du mr ms edt est utc gmt"
)
VERSION_WORDS = _set("version revision rev")
# Words before a year; of the known words, all others lead to a number ("day", "no.").
TIME_LEADS = _set("in of from since year de del")
YEAR_LEADS = ISSUED | KINDS | TIME_LEADS | _set("for the")
OWN = r"\b(?:this|these|the present)"
SELF = re.compile(rf"(?i){OWN}\b")
TO_COME = re.compile(r"(?i)\b(?:next|upcoming|forthcoming|to be)\b")
EVENT = re.compile(r"(?i)\b(?:time|when|where|place|venue|location|doors)\W?[:|]")
MINUTES = re.compile(r"(?i)\b(?:minutes|protocol|meeting notes|notes of)\b")
SERIES = re.compile(r"(?i)\b(?:change ?log|release notes|what.s new|changes|history|news)\b")
MARKS = " \t#*_>|()[]{}<-–—:;,.•·'\"\u2060"
SEPARATOR = re.compile(r"[;|·•\t]|\s{2,}")
LEAD = re.compile(r"([^\W\d_]+)[.:*_\s]*$")
COUNTED = re.compile(r" ([^\W\d_]+)")
SENTENCE_END = re.compile(r"(?:(?<=[^\W\d_]{3}[.!?])|(?<=\d{4}[.!?]))\s+(?=[A-Z])")
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d[\w.]*")
VERSION = re.compile(r"(?i)v?\d+(?:\.\w+)*")
NUMBERED = re.compile(r"(?i)v?\d+(?:\.\w+)+")
AS_OF = re.compile(r"(?i)\bas (?:of|at)\W*$")
BYLINE = re.compile(r"\b[Bb]y:?\s+\w+(?:[ .-]+[A-Z][\w.]*){0,3}")
PLACE_WORDS = r"[^\W\d_a-z][\w.'’-]*(?:[ -][^\W\d_a-z][\w.'’-]*){0,3}"
PLACE = re.compile(rf"{PLACE_WORDS}(?:\s*\([^()]*\))?,")
AT_PLACE = re.compile(rf"\b(?:at|in)\s+{PLACE_WORDS}")
CLOCK = re.compile(r"(?i)^\W*(?:T|at\s)?\s*\d{1,2}[:.]\d\d.{0,24}$")
DAY_NAME = re.compile(r"\b(?:\w+day|den|the|le|on|a|dnia)\b[,.]?\s*$")
DASH_AND_WORD = re.compile(r"\s*[–—-]+\s+\w")
COLUMN_END = re.compile(r"\s{2}|\s*[|·•(]|,\s*[A-Z]")
EDITION = re.compile(r"(?i)\s*\(?(?:edition|version|revision|release|update)\b")
APART = re.compile(r"[,(|·–—-]\s*(?:[A-Z]?\w+day,?\s*)?$")
DATED_HEADING = re.compile(r"^#{1,4} .*[12]\d{3}.*$", re.MULTILINE)
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
ON_ITSELF = re.compile(rf"(?i){OWN}\s(?=[^.\n]{{0,200}}?[12]\d{{3}})[^\n]*")
KEY_PARTS = re.compile(r"[-_.:]|(?<=[a-z])(?=[A-Z])")
REPLACES = r"\b(?:replac(?:es|ing|e)|supersed(?:es|ing|e)|repeal(?:s|ing)?|revok(?:es|ing))\b:?"
EARLIER = re.compile(
    r"(?i)\b(?:all|any|every)\b.*\b(?:earlier|previous|prior|former|older|other)\b"
)
OBJECT_END = (
    r"[;!?()\n]|\.(?:\s+[A-Z]|\s*\Z)|,?\s(?i:which|that|with effect|in (?:its|their) entirety|"
    r"as of|effective|and (?:is|are|applies|apply|takes?|comes?|enters?|will)|(?:from|on|since)\s"
    r"(?=\d|the \d|[A-Z]\w+ \d))"
)
NAMED = rf"(?:(?!{OBJECT_END}).){{0,{2 * LONGEST_TITLE}}}"
REPLACING = re.compile(rf"(?i:{REPLACES})(?=({NAMED}))")
ARTICLE = re.compile(r"(?i)^(?:and\s+)?(?:replaces\s+|supersedes\s+)?(?:the|our|its|a|an)\s+")


def document_date(content: Content, text: str, stem: str, earlier: str = "") -> str:
    """Return the date of a document in ISO 8601, YYYY-MM-DD, YYYY-MM or YYYY; empty if unknown.

    Args:
        content: What the reader found: the front matter, properties and running titles.
        text: Its text, cleaned.
        stem: The file's name without its ending.
        earlier: The date of the part of the same file that came before it.
    """
    return (
        _newest_stated(content.front_matter)
        or text_date(text, content.title or "", content.margin)
        or earlier
        or _file_date(stem, text)
        or _newest_stated(content.properties, may_come=False)
        or _version_date(content.front_matter)
    )


def text_date(text: str, title: str = "", margin: str = "") -> str:
    """Return the date that a text gives for itself, in ISO 8601; empty if it gives none.

    Args:
        text: Plain, or Markdown.
        title: Of the document.
        margin: What stands around the text on each page, such as a page footer.
    """
    text = with_clear_order(without_replaced(text))
    head, tail = _edges(text)
    sentences = (each[:LONGEST_STATEMENT] for each in ON_ITSELF.findall(FENCED.sub("", text)))
    titled = list(_of_title(title, head))
    alone = [iso for line in [*head, *tail] if (iso := _lone_date(line[:LONGEST_STATEMENT]))]
    stated = [
        *_of_edges(head, tail, title),
        *(each for line in _lines(margin) for each in _statements(line)),
        *(each for line in sentences for each in _statements(line, at_edge=False)),
    ]
    best_first = (
        [iso for iso, below in titled if len(iso) == DAY_LENGTH and not below],
        [
            *(iso for iso, below in titled if len(iso) == DAY_LENGTH and below),
            *_of_versions(text, title, head),
            *_of_tables(text),
            *(iso for iso, _ in stated),
        ],
        alone if len(alone) <= MOST_DATED_LINES else [],
        [iso for iso, _ in titled if len(iso) < DAY_LENGTH and not _is_outdated(iso, text)],
    )
    [own, *others] = ([iso for iso in found if is_possible(iso)] for found in best_first)
    earlier = max(next(filter(None, others), []), default="")
    return max(own, default="") or _coming(stated) or earlier


def _coming(stated: Iterable[tuple[str, bool]]) -> str:
    """The day to come from which a text says that it holds; empty if it says that it does already.

    Args:
        stated: Dates, each with whether it is said that the text holds from then on.
    """
    holding = [iso for iso, holds in stated if holds]
    in_force = any(map(is_possible, holding))
    return "" if in_force else min(filter(may_hold, holding), default="")


def document_replaces(content: Content, text: str) -> str:
    """Return what a document replaces by its own words.

    Returns:
        Titles, or dates in ISO 8601, joined by "; "; "*" if all earlier versions; empty if it
        does not say so.
    """
    stated = [
        shown_replaces(value)
        for key, value in content.front_matter.items()
        if re.fullmatch(REPLACES, key, re.IGNORECASE)
    ]
    return next(filter(None, stated), "") or text_replaces(text)


def shown_replaces(value: object) -> str:
    """Return the field ``replaces`` of a document as text: one or a list of titles or dates."""
    values = value if isinstance(value, list | tuple) else [value]
    kept = [each for each in values if each is not None and not isinstance(each, bool | dict)]
    return "; ".join(filter(None, (" ".join(str(each).split()) for each in kept)))


def text_replaces(text: str) -> str:
    """Return what a text says that it replaces; as `document_replaces`."""
    head, tail = _edges(text)
    edges = {*head, *tail}
    named: list[str] = []
    for line in text.split("\n"):
        for match in REPLACING.finditer(line):
            before = SENTENCE_END.split(line[: match.start()])[-1]
            if _is_document(before, at_edge=line.strip() in edges):
                named += _objects(match[1])
    return _joined(named)


def without_replaced(text: str) -> str:
    """A text without what it says that it replaces, whose date is not its own."""
    return re.sub(rf"((?i:{REPLACES})){NAMED}", r"\1", text)


def named_replaced(words: str) -> str:
    """Return what words such as "the tariff of 2019" name, in the form of `document_replaces`."""
    return _joined(_objects(re.split(OBJECT_END, words.strip(MARKS), maxsplit=1)[0]))


def named_date(words: str) -> str:
    """Return the date that words such as "the spring of 2019" name, in ISO 8601; empty if none."""
    return next(
        (
            found.iso
            for found in find_dates(words)
            if is_possible(found.iso) and not _is_numbered(words, found)
        ),
        "",
    )


def _newest_stated(stated: Mapping[str, object], *, may_come: bool = True) -> str:
    """Return the newest date of fields whose names say that they hold the document's.

    Args:
        stated: The fields.
        may_come: Whether it may be a day to come, if the name says that the document holds then.
    """
    dates = []
    for key, value in stated.items():
        name = KEY_PARTS.sub(" ", key)
        words = _words(name)
        if not _says_only_issued(name) or words[-1] == VERSION_KEY or ENDS & set(words):
            continue  # "apiVersion", "valid_to"
        iso = stated_date(value)
        if is_possible(iso) or (may_come and (words in DATED or _first_holds(name))):
            dates.append(iso)
    return max(dates, default="")


def _version_date(stated: Mapping[str, object]) -> str:
    """Return the date that a document's version is; empty if it is a number such as 3.4.2021."""
    version = stated.get(VERSION_KEY)
    numbered = isinstance(version, str) and NUMBERED.fullmatch(version.strip())
    iso = "" if numbered else stated_date(version)
    return iso if is_possible(iso) else ""


def _file_date(stem: str, text: str) -> str:
    possible = dates_in_name(stem)
    if len({iso[:YEAR_LENGTH] for iso in possible}) != 1:  # none, or a period
        return ""
    newest = max(possible, key=lambda iso: (len(iso), iso))
    return "" if _is_outdated(newest, text) else newest


def _is_outdated(iso: str, text: str) -> bool:
    """Whether a text tells of years after a date that is only known to the month or year."""
    if len(iso) == DAY_LENGTH:
        return False
    lines = text[: 2 * EDGE_CHARACTERS].split("\n")
    told = (each.iso for line in lines for each in find_dates(line))
    limit = str(int(iso[:YEAR_LENGTH]) + 2)  # a plan or a term of validity reaches into the next
    return any(is_possible(other) and other[:YEAR_LENGTH] > limit for other in told)


def _lines(text: str) -> list[str]:
    """The lines of a text that say something, without those of a comment."""
    lines = (line.strip() for line in text.split("\n") if line.strip(MARKS))
    return [line for line in lines if not line.startswith("<!--")]


def _edges(text: str) -> tuple[list[str], list[str]]:
    """Return the first and the last lines of a text that say something."""
    head = _lines(FENCED.sub("", text[:EDGE_CHARACTERS]))[:HEAD_LINES]
    tail = _lines(FENCED.sub("", text[-EDGE_CHARACTERS:]))[-TAIL_LINES:]
    return head, [line for line in tail if line not in head]


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _is_plain(word: str) -> bool:
    return (
        any(word in words for words in (NEUTRAL, ISSUED, weekdays()))
        or bool(VERSION.fullmatch(word))
        or len(word) == 1  # "Revision C"
    )


def _is_known(word: str) -> bool:
    return word in KINDS or _is_plain(word)


def _last(words: list[str], holds: Callable[[str], bool]) -> int:
    """The place of the last word of which something holds; -1 if of none."""
    return max((place for place, word in enumerate(words) if holds(word)), default=-1)


def _says_only_issued(before: str, *, at_edge: bool = True) -> bool:
    """Whether what stands before a date says that the text was issued or holds, and no more.

    Args:
        before: From the start of the sentence or label, or from the date before it.
        at_edge: Whether it stands at the start or the end of the text, where "the policy" is it.
    """
    if TO_COME.search(before):
        return False
    before = BYLINE.sub("by", before)
    words = _words(AT_PLACE.sub("at", before))
    if ISSUED.isdisjoint(words) and not AS_OF.search(before):
        return False
    if not at_edge and (KINDS.isdisjoint(words) or not SELF.search(before)):
        return False
    last = _last(words, lambda word: not _is_known(word))
    if last < 0 or last > LONGEST_SUBJECT:
        return last < 0
    follows = words[last + 1 :]
    if follows and follows[0] in KINDS:  # "The Acme Travel Policy is valid from"
        return not ISSUED.isdisjoint(follows)
    past = {"was", "were", "had"} & set(words)  # a law of history
    return at_edge and not past and not IN_FORCE.isdisjoint(follows)  # "Prices apply from"


def _first_holds(before: str, *, at_edge: bool = True) -> bool:
    """Whether what stands before a date says that the text holds from then on, and not before.

    Args:
        before: As of `_says_only_issued`.
        at_edge: Likewise.
    """
    words = _words(before)
    holds = _last(words, HOLDS.__contains__)
    if holds < 0 or TO_COME.search(before) or ENDS & set(words):
        return False
    follows = words[holds + 1 :]
    started = words[holds] not in IN_FORCE - {"effective"} or STARTS & set(follows)
    if not started or not all(map(_is_plain, follows)):
        return False  # "valid on", "effective use of"
    if SELF.search(before):
        return True  # "these opening hours come into force on"
    subject = words[:holds]
    itself = all(map(_is_known, subject)) and "new" not in subject
    return at_edge and (itself or OF_ANOTHER.isdisjoint(subject))  # "fares valid from"


def _clauses(line: str) -> Iterator[tuple[str, Found]]:
    """Yield each date of a line with what stands before it in its sentence."""
    before, start = "", 0
    for found in find_dates(line):
        before = SENTENCE_END.split(f"{before} {line[start : found.start].strip()}".strip())[-1]
        pieces = [piece for piece in SEPARATOR.split(before) if piece.strip(MARKS)]
        before = pieces[-1] if pieces else ""
        yield before, found
        start = found.end


def _cells(row: str) -> list[str]:
    return row.strip("| ").split("|")


def _lead(line: str, found: Found) -> str:
    """The word right before a date; empty if there is none."""
    lead = LEAD.search(line[: found.start])
    return lead[1] if lead else ""


def _is_numbered(line: str, found: Found) -> bool:
    """Whether a year alone is the number of what the word before it names: "no. 1812"."""
    word = _lead(line, found).lower()
    return found.is_year and bool(word) and _is_known(word) and word not in YEAR_LEADS


def _is_number(line: str, found: Found) -> bool:
    """Whether a year alone is a number, by the words beside it: "valid for 1500 vehicles"."""
    before, counted = _lead(line, found), COUNTED.match(line, found.end)
    if not found.is_year or before.lower() in TIME_LEADS or not line[: found.start].strip(MARKS):
        return False
    beside = (before, counted[1] if counted else "")
    return _is_numbered(line, found) or any(
        word.islower() and not _is_known(word) for word in beside
    )


def _statements(line: str, *, at_edge: bool = True) -> Iterator[tuple[str, bool]]:
    """Yield the dates that a line states to be the text's, and whether it holds from then on."""
    if line.startswith("|") and len(_cells(line)) != FIELD_CELLS:
        return  # a row of data
    for before, found in _clauses(line):
        if found.is_year and (AS_OF.search(before) or _is_number(line, found)):
            continue  # "as of" may be of a number in an article
        edition = EDITION.match(line, found.end) and all(map(_is_known, _words(before)))
        if not is_possible(found.iso):
            if _first_holds(before, at_edge=at_edge):
                yield found.iso, True
        elif edition or _says_only_issued(before, at_edge=at_edge):
            yield found.iso, not HOLDS.isdisjoint(_words(before))


def _of_title(title: str, head: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield the dates of the title and of lines like it, and whether these are below the first."""
    headings = [line for line in head if line.startswith("#")][:1]
    short = [line for line in head[:3] if len(_words(line)) <= LONGEST_HEADING]
    for line in dict.fromkeys([title, *short, *headings]):
        if len(line) > LONGEST_STATEMENT or line.rstrip().endswith("."):
            continue
        below = line in short[1:]
        for found in find_dates(line)[:1]:
            before, after = line[: found.start], line[found.end :]
            label = below and before.rstrip().endswith(":")
            left_out = label or found.begins_period or _is_number(line, found)
            if found.iso and not left_out and _is_titled(before, after):
                yield found.iso, below


def _is_titled(before: str, after: str) -> bool:
    """Whether a title names a kind of document and then its date, or a date and then the kind."""
    if TO_COME.search(before):
        return False
    words = _words(before)
    kind = _last(words, KINDS.__contains__)
    if MINUTES.search(before):
        return True
    if kind >= 0:
        return bool(APART.search(before)) or all(map(_is_plain, words[kind + 1 :]))
    return not words and not KINDS.isdisjoint(_words(after)[:LONGEST_SUBJECT])


def _of_versions(text: str, title: str, head: list[str]) -> Iterator[str]:
    """Yield the dates of headings that name a version, as in release notes."""
    first = head[:1]
    series = SERIES.search("\n".join([title, *first]))
    for line in [title, *first, *DATED_HEADING.findall(text)]:
        for before, found in _clauses(line):
            words = _words(before)
            if NUMBERED.fullmatch(words[-1]) if words else series:
                yield found.iso


def _of_tables(text: str) -> Iterator[str]:
    """Yield the dates of a table of the document's versions."""
    lines = text.split("\n") if "|" in text else []
    for number, (header, rule) in enumerate(pairwise(lines), start=2):
        if not TABLE_RULE.match(rule.strip()) or VERSION_WORDS.isdisjoint(_words(header)):
            continue
        columns = [place for place, name in enumerate(_cells(header)) if _says_only_issued(name)]
        for row in takewhile(lambda line: line.startswith("|"), lines[number:]):
            cells = dict(enumerate(_cells(row)))
            for place in columns:
                yield from (found.iso for found in find_dates(cells.get(place, "")))


def _of_edges(head: list[str], tail: list[str], title: str) -> Iterator[tuple[str, bool]]:
    """Yield what `_statements` does of the first and last lines, but for dates of an event."""
    minutes = MINUTES.search("\n".join([title, *head[:3]]))
    for lines in (head, tail):
        for number, line in enumerate(lines):
            near = lines[max(0, number - 1) : number + 3]
            if minutes or not any(map(EVENT.search, near)):
                yield from _statements(line[:LONGEST_STATEMENT])


def _lone_date(line: str) -> str:
    """The date of a line of nothing else, or with a place or an author, as in a letter."""
    dates = [] if line.startswith("|") else find_dates(line)
    if not dates or dates[0].begins_period:
        return ""
    found = dates[0]
    if found.is_year:  # under a title
        alone = line.strip(MARKS.replace(".", "")) == found.iso
    else:
        alone = _is_alone(line[: found.start], line[found.end :], several=len(dates) > 1)
    return found.iso if alone else ""


def _is_alone(before: str, after: str, *, several: bool) -> bool:
    """Whether only a place or an author stands before and after the first date of a line."""
    before = SEPARATOR.split(before)[-1]
    place = DAY_NAME.sub("", BYLINE.sub("", before).strip(" #*_>-–—(")).strip()
    named = bool(PLACE.fullmatch(place))
    label = before.rstrip().endswith(":") or set(_words(place)) - NEUTRAL - weekdays()
    if place.strip(MARKS) and label and not named:
        return False
    dash = DASH_AND_WORD.match(after)
    if dash or several:
        return bool(dash) and named  # "BERLIN, 3 May 2021 — The ministry"
    rest = BYLINE.sub("", after).strip(MARKS)
    if CLOCK.match(rest):
        return weekdays().isdisjoint(_words(before))  # with both it is an event
    return len(rest) <= 1 or (
        len(_words(rest)) <= LONGEST_SUBJECT and bool(COLUMN_END.match(after))
    )


def _is_document(before: str, *, at_edge: bool) -> bool:
    """Whether the subject of "replaces" is the document."""
    words = _words(before)
    if not words or words in (["it"], ["they"]):
        return at_edge
    if words[-1] in {"be", "to", "not"}:
        return False
    if SELF.match(before) and len(words) <= SELF_NAMED:
        return True  # "this tariff"
    subject = _last(words, KINDS.__contains__)
    if subject < 0:
        return False
    others = [word for word in words[subject + 1 :] if not _is_known(word)]
    return len(others) <= LONGEST_SUBJECT and (at_edge or bool(SELF.search(before)))


def _objects(phrase: str) -> Iterator[str]:
    """Yield what the object of "replaces" names: titles, dates, or all earlier versions."""
    phrase = " ".join(phrase.split()).strip(MARKS)
    if EARLIER.search(phrase):
        yield ALL_EARLIER
        return
    for part in re.split(r",?\s+and\s+(?=the\b|\d)|;\s*", phrase):
        title = ARTICLE.sub("", part.strip(MARKS)).strip(MARKS)
        words = _words(title)
        date = next((found for found in find_dates(title) if found.iso), None)
        if date and not date.is_year:
            yield date.iso
            name, _, last = title[: date.start].strip(MARKS).rpartition(" ")
            name = name if _is_plain(last.lower()) else f"{name} {last}"  # "of", "dated"
            if _is_proper(name):
                yield name.strip(MARKS)[:LONGEST_TITLE]
        elif words:
            titled = _is_proper(title) and not KINDS.isdisjoint(words)
            few = sum(not _is_known(word) for word in words) <= MOST_UNKNOWN
            if date or titled or (few and re.search(r"\d", title)):  # "version 2.1"
                yield title[:LONGEST_TITLE]


def _is_proper(text: str) -> bool:
    return any(word[:1].isupper() for word in text.split())


def _joined(named: Iterable[str]) -> str:
    kept = dict.fromkeys(named)
    return ALL_EARLIER if ALL_EARLIER in kept else "; ".join(kept)
