"""The date of a document, and what it says that it replaces.

A text states many dates. Its own is told from those of events, deadlines and births by the words
that lead to it: a line or a sentence gives the date of the text if it says nothing else than that
the text was written, issued or is in force, so every other word speaks against it. Titles, letter
heads and lines with nothing but a date count by their place at the edges of the text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from foundation.errors import InputError
from retrieval.ingest.content import VERSION_KEY

if TYPE_CHECKING:
    from retrieval.ingest.content import Content

DATE_KEY = "date"
REPLACES_KEY = "replaces"
ALL_EARLIER = "*"
EARLIEST = 1400  # no document that is dated in our calendar's numbers is much older
HEAD_LINES = 15  # a letter head with both addresses
TAIL_LINES = 6  # a signature and a page footer
EDGE_CHARACTERS = 4_000  # in which those lines are looked for
LONGEST_STATEMENT = 600  # characters of a line; beyond, only its first and last ones are judged
LONGEST_SUBJECT = 5  # words: "The Acme Travel and Expenses Policy is valid from"
MOST_UNKNOWN = 2  # words of what is replaced: "tariff sheet no. 11"
LONGEST_HEADING = 12  # words of a line at the start that may be the title
LONGEST_TITLE = 120  # characters of what a document replaces
MOST_DATED_LINES = 2  # lines of nothing but a date: more of them are a diary or a programme
# Seconds between the creation and the last change of an office file, below which a program made
# it: its dates then may be those of the program's template (python-docx: 0 s, python-pptx: 102 s).
LEAST_WRITING = 300

# Month names of CLDR in these languages; those that mean two months in two of them are left out.
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What says that a text came to be, or is in force.
ISSUED = _set(
    "date dated effective valid validity force effect apply applies applicable binding updated "
    "update lastmod modified revised revision rev reviewed amended edited issued issue published "
    "publication posted adopted approved ratified signed version edition release released created "
    "written made concluded compiled prepared printed generated status sent circulated drafted "
    "draft minutes meeting held done given asof pubdate datepublished datemodified"
)
IN_FORCE = _set("effective valid apply applies applicable")
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
SELF = re.compile(r"(?i)\b(?:this|these|the present)\b")
EVENT = re.compile(r"(?i)\b(?:time|when|where|place|venue|location|doors)\W?[:|]")
MINUTES = re.compile(r"(?i)\b(?:minutes|protocol|meeting notes|notes of)\b")
SERIES = re.compile(r"(?i)\b(?:change ?log|release notes|what.s new|changes|history|news)\b")
MARKS = " \t#*_>|()[]{}<>-–—:;,.•·'\"\u2060"
SEPARATOR = re.compile(r"[;|·•]|\s{2,}|\t")
SENTENCE_END = re.compile(r"(?<=[^\W\d_]{3}[.!?])\s+(?=[A-Z])|(?<=\d{4}[.!?])\s+(?=[A-Z])")
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d[\w.]*")
VERSION = re.compile(r"(?i)^v?\d+(?:\.\w+)*$")
BYLINE = re.compile(r"\b[Bb]y:?\s+\w+(?:[ .-]+[A-Z][\w.]*){0,3}")
PLACE_WORDS = r"[^\W\d_a-z][\w.'’-]*(?:[ -][^\W\d_a-z][\w.'’-]*){0,3}"
PLACE = re.compile(rf"^{PLACE_WORDS}(?:\s*\([^()]*\))?,?$")
AT_PLACE = re.compile(rf"\b(?:at|in)\s+{PLACE_WORDS}")
CLOCK = re.compile(r"(?i)^\W*(?:T|at\s)?\s*\d{1,2}[:.]\d\d.{0,24}$")
DAY_NAME = re.compile(r"\b(?:\w+day|den|the|le|on)\b[,.]?\s*$")
DASH_AND_WORD = re.compile(r"^\s*[–—-]+\s+\w")
COLUMN_END = re.compile(r"^(?:\s{2}|\s*[|·•(]|,\s*[A-Z])")
AFTER = re.compile(r"(?i)^\s*\(?(?:edition|version|revision|release|update)\b")
RANGE_BEFORE = re.compile(r"\d\w{0,2}\s*(?:[-–—/]|to|and)\s*$")
RANGE_AFTER = re.compile(r"^\s*(?:[-–—]|to|until|through)\s*(?:\w+ )?\d")
IN_FIGURES = re.compile(
    r"(?<![\d./-])(?P<a>\d{1,2})(?P<s>[/-])(?P<b>\d{1,2})(?P=s)(?P<y1>[12]\d{3})\b"
)
TABLE_RULE = re.compile(r"^\|[\s:|-]+\|$")
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
STATES_ITSELF = re.compile(r"(?i)\b(?:this|these|the present)\s(?=[^.\n]{0,200}?[12]\d{3})[^\n]*")
REPLACING = re.compile(
    r"(?i)\b(?:replac(?:es|ing|e)|supersed(?:es|ing|e)|repeal(?:s|ing)?|revok(?:es|ing))\b:?"
)
EARLIER = re.compile(
    r"(?i)\b(?:all|any|every)\b.*\b(?:earlier|previous|prior|former|older|other)\b"
)
OBJECT_END = re.compile(
    r"[;!?()\n]|\.(?:\s+[A-Z]|\s*$)|,?\s(?i:which|that|with effect|in (?:its|their) entirety|as of|"
    r"effective|and (?:is|are|applies|apply|takes?|comes?|enters?|will)|(?:from|on|since)\s(?=\d|"
    r"the \d|[A-Z]\w+ \d))"
)
ARTICLE = re.compile(r"(?i)^(?:and\s+)?(?:replaces\s+|supersedes\s+)?(?:the|our|its|a|an)\s+")
FILE_DATE = re.compile(
    r"(?<!\d)(?P<y>[12]\d{3})(?:(?P<sep>[-_.]?)(?P<m>0[1-9]|1[0-2])"
    r"(?:(?P=sep)(?P<d>0[1-9]|[12]\d|3[01]))?)?(?![\d.]?\d)"
)
YEAR = re.compile(r"[12]\d{3}")
KEPT_LINES = 256  # of one text: each is looked at in up to four ways
MONTHS = 12
SHORTEST_NAME = 3  # letters of a month
FULL, MONTH = len("2000-01-01"), len("2000-01")


class Evidence(IntEnum):
    """How a text gives its date, best first."""

    TITLE = 0
    STATEMENT = 1
    LINE = 2
    COARSE_TITLE = 3


@dataclass(frozen=True)
class Found:
    """A date in a text.

    Attributes:
        iso: In ISO 8601, of which day or month may lack; empty if it is none, or ends a period.
        start: Where it begins in the text, in characters.
        end: Where it ends.
        begins_period: Whether "to" or a dash and another date follow.
    """

    iso: str
    start: int
    end: int
    begins_period: bool = False


def parse_dated(given: str) -> str:
    """Return a date that a user gives, in ISO 8601.

    Args:
        given: YYYY-MM-DD, YYYY-MM or YYYY.

    Raises:
        InputError: It is none of these, or is in the future or before 1400.
    """
    text = given.strip()
    shape = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", text, re.ASCII)
    iso = _iso(*shape.groups()) if shape else ""
    if not iso:
        raise InputError(
            f"--dated {given!r} is not a date; give YYYY-MM-DD, YYYY-MM or YYYY, such as 2025-03-01"
        )
    if not _possible(iso):
        raise InputError(
            f"--dated {text} is in the future or before {EARLIEST}; "
            "give the date from which the document holds"
        )
    return iso


def stated_date(value: object) -> str:
    """Return the date of a field or property in ISO 8601; empty if it is none or impossible."""
    if isinstance(value, datetime | date):
        found = value.isoformat()[:FULL]
        return found if _possible(found) else ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    packed = re.match(r"(?:D:)?([12]\d{3})(\d\d)(\d\d)(?!\d{1,5}$)", text)  # of a PDF
    if packed and (iso := _iso(*packed.groups())):
        return iso if _possible(iso) else ""
    return first_date(text)


def first_date(text: str) -> str:
    """Return the first date of a text that a document may have, in ISO 8601; empty if none."""
    return next((found.iso for found in find_dates(text) if _possible(found.iso)), "")


def document_date(content: "Content", text: str, stem: str, earlier: str = "") -> str:
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
        or _newest_stated(content.properties)
        or _version_date(content.front_matter)
    )


def text_date(text: str, title: str = "", margin: str = "") -> str:
    """Return the date that a text gives for itself, in ISO 8601; empty if it gives none.

    Args:
        text: Plain, or Markdown.
        title: Of the document.
        margin: What stands around the text on each page, such as a page footer.
    """
    text = _with_clear_order(without_replaced(text))
    head, tail = _edges(text)
    found = [
        *_of_title(title, head, text),
        *_of_versions(text, title, head),
        *_of_tables(head, text),
        *_of_lines(head, tail, title),
        *_of_sentences(FENCED.sub("", text)),
        *((Evidence.STATEMENT, iso) for line in _lines(margin) for iso in _statements(line)),
    ]
    possible = [(evidence, iso) for evidence, iso in found if _possible(iso)]
    if not possible:
        return ""
    best = min(evidence for evidence, _ in possible)
    return max(iso for evidence, iso in possible if evidence == best)


def document_replaces(content: "Content", text: str) -> str:
    """Return what a document replaces by its own words.

    Returns:
        Titles, or dates in ISO 8601, joined by "; "; "*" if all earlier versions; empty if it
        does not say so.
    """
    stated = [
        shown_replaces(value)
        for key, value in content.front_matter.items()
        if REPLACING.fullmatch(key)
    ]
    return next(filter(None, stated), "") or text_replaces(text)


def shown_replaces(value: object) -> str:
    """Return the field ``replaces`` of a document as text: one or a list of titles or dates."""
    values = value if isinstance(value, list | tuple) else [value]
    kept = [each for each in values if each is not None and not isinstance(each, bool | dict)]
    return "; ".join(" ".join(str(each).split()) for each in kept if str(each).strip())


def text_replaces(text: str) -> str:
    """Return what a text says that it replaces; as `document_replaces`."""
    head, tail = _edges(text)
    edges = {*head, *tail}
    found: dict[str, None] = {}
    for match in REPLACING.finditer(text):
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.end())
        line = text[start : len(text) if end < 0 else end]
        before = SENTENCE_END.split(text[start : match.start()])[-1]
        if not _is_document(before, at_edge=line.strip() in edges):
            continue
        named = text[match.end() : match.end() + 2 * LONGEST_TITLE]
        for each in _objects(named.lstrip(MARKS.replace("(", ""))):
            found[each] = None
    return ALL_EARLIER if ALL_EARLIER in found else "; ".join(found)


def without_replaced(text: str) -> str:
    """A text without what it says that it replaces, whose date is not its own."""
    kept, last = [], 0
    for match in REPLACING.finditer(text):
        if match.end() < last:
            continue
        named = text[match.end() : match.end() + 2 * LONGEST_TITLE]
        end = OBJECT_END.search(named)
        kept.append(text[last : match.end()])
        last = match.end() + (end.start() if end else len(named))
    return "".join([*kept, text[last:]])


def named_replaced(words: str) -> str:
    """Return what words such as "the tariff of 2019" name, in the form of `document_replaces`."""
    found = dict.fromkeys(_objects(words.strip(MARKS)))
    return ALL_EARLIER if ALL_EARLIER in found else "; ".join(found)


@lru_cache(KEPT_LINES)
def find_dates(text: str) -> list[Found]:
    """Return the dates in a text, in order: with a day, of a month, or a year alone.

    A date in figures whose day and month could be exchanged (3/4/2021) gives its year alone,
    unless another one of the text shows their order.
    """
    if not YEAR.search(text):
        return []
    matches = list(_date_pattern().finditer(text))
    day_first = _is_day_first(matches)
    found = []
    for match in matches:
        before, after = text[: match.start()], text[match.end() :]
        if iso := _match_iso(match, day_first):
            ends = RANGE_BEFORE.search(before[-12:])
            begins = bool(RANGE_AFTER.match(after[:16]))
            found.append(Found("" if ends else iso, match.start(), match.end(), begins))
    return found


def _with_clear_order(text: str) -> str:
    """Write dates in figures in ISO 8601 if one of them shows whether the day comes first."""
    dates = list(IN_FIGURES.finditer(text))
    day_first = _is_day_first(dates)
    if day_first is None:
        return text

    def written(match: re.Match[str]) -> str:
        day, month = (match["a"], match["b"]) if day_first else (match["b"], match["a"])
        return _iso(match["y1"], month, day) or match[0]

    return IN_FIGURES.sub(written, text)


@cache
def _months() -> dict[str, int]:
    from babel import Locale

    names: dict[str, set[int]] = {}
    for language in LANGUAGES:
        months = Locale(language).months
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for number, name in months[context][width].items():
                    names.setdefault(name.lower().rstrip("."), set()).add(number)
    names.setdefault("sept", {9})
    return {
        name: min(numbers)
        for name, numbers in names.items()
        if len(numbers) == 1 and not name.isdigit() and len(name) >= SHORTEST_NAME
    }


@cache
def _date_pattern() -> re.Pattern[str]:
    month = "|".join(map(re.escape, sorted(_months(), key=len, reverse=True)))
    year = r"[12]\d{3}(?![\d%€$])"
    ordinal = r"(?:st|nd|rd|th|er|\.|º|ª)?"
    joint = r"[\s.,/-]{0,3}(?:day\s+)?(?:of\s+|de\s+|del\s+)?"
    return re.compile(
        rf"(?<![\d.])(?P<y0>{year})(?P<s0>[-/.])(?P<m0>\d{{1,2}})(?:(?P=s0)(?P<d0>\d{{1,2}}))?(?![\d])(?!-\d)"
        rf"|(?<![\d.])(?P<a>\d{{1,2}})(?P<s>[./-])\s?(?P<b>\d{{1,2}})(?P=s)\s?(?P<y1>{year})"
        rf"|(?<![\d./-])(?P<m8>0[1-9]|1[0-2])[/.](?P<y8>{year})(?![\d/.-]\d)"
        rf"|(?<![\w])(?P<d2>\d{{1,2}}){ordinal}{joint}(?P<m2>{month})\b\.?{joint}(?P<y2>{year})"
        rf"|(?<![\w])(?P<m3>{month})\b\.?\s*(?P<d3>\d{{1,2}}){ordinal},?\s+(?P<y3>{year})"
        rf"|(?<![\w])(?P<y4>{year})[\s-](?P<m4>{month})\b\.?(?:[\s-](?P<d4>\d{{1,2}})\b)?"
        rf"|(?<![\w])(?P<m5>{month})\b\.?{joint}(?P<y5>{year})"
        r"|(?P<y6>[12]\d{3})年\s?(?P<m6>\d{1,2})月(?:\s?(?P<d6>\d{1,2})日)?"
        rf"|(?<![\w.,/$€£–-])(?P<y7>{year})(?![\w/–-])(?![.,]\d)",
        re.IGNORECASE,
    )


def _match_iso(match: re.Match[str], day_first: bool | None) -> str:
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    if "a" in groups:
        first, second = int(groups["a"]), int(groups["b"])
        year = groups["y1"]
        if groups["s"] == "." or first == second:
            return _iso(year, second, first)
        if day_first is None:
            return year
        return _iso(year, second, first) if day_first else _iso(year, first, second)
    number = next(name for name in groups if name.startswith("y"))[1:]
    month = groups.get(f"m{number}")
    if month is not None and not month.isdigit():
        month = str(_months()[month.lower()])
    return _iso(groups[f"y{number}"], month, groups.get(f"d{number}"))


def _is_day_first(matches: Iterable[re.Match[str]]) -> bool | None:
    """Whether dates in figures have the day first; ``None`` if they do not show it."""
    seen = {
        int(match["a"]) > MONTHS
        for match in matches
        if match["a"] and match["s"] != "." and max(int(match["a"]), int(match["b"])) > MONTHS
    }
    return seen.pop() if len(seen) == 1 else None


def _iso(year: object, month: object = None, day: object = None) -> str:
    """Return a date in ISO 8601; empty if there is none such."""
    try:
        whole = date(int(str(year)), int(str(month or 1)), int(str(day or 1)))
    except ValueError:
        return ""
    return whole.isoformat()[: FULL if day else MONTH if month else len("2000")]


def _possible(iso: str) -> bool:
    today = datetime.now(UTC).astimezone().date().isoformat()
    return bool(iso) and iso <= today and int(iso[:4]) >= EARLIEST


def _newest_stated(stated: Mapping[str, object]) -> str:
    """Return the newest date of fields whose names say that they hold the document's."""
    dates = [
        stated_date(value)
        for key, value in stated.items()
        if _is_label(key) and _words(_spaced(key))[-1] != VERSION_KEY  # "apiVersion"
    ]
    return max(dates, default="")


def _version_date(stated: Mapping[str, object]) -> str:
    """Return the date that a document's version is; empty if it is a number such as 3.4.2021."""
    version = stated.get(VERSION_KEY)
    numbered = isinstance(version, str) and "." in version and VERSION.match(version.strip())
    return "" if numbered else stated_date(version)


def _is_label(name: str) -> bool:
    return _says_only_issued(_spaced(name))


def _spaced(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.sub(r"[-_.:]", " ", spaced)


def _file_date(stem: str, text: str) -> str:
    found = [_iso(match["y"], match["m"], match["d"]) for match in FILE_DATE.finditer(stem)]
    named = [each.iso for each in find_dates(re.sub(r"[_]", " ", stem))]
    possible = [iso for iso in (*found, *named) if _possible(iso)]
    if len({iso[:4] for iso in possible}) != 1:  # none, or a period
        return ""
    newest = max(possible, key=lambda iso: (len(iso), iso))
    return "" if _is_outdated(newest, text) else newest


def _is_outdated(iso: str, text: str) -> bool:
    """Whether a text tells of years after a date that is only known to the month or year."""
    if len(iso) == FULL:
        return False
    lines = text[: 2 * EDGE_CHARACTERS].split("\n")
    told = (each.iso for line in lines for each in find_dates(line))
    limit = str(int(iso[:4]) + 2)  # a plan or a term of validity reaches into the next years
    return any(_possible(other) and other[:4] > limit for other in told)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip(MARKS)]


def _edges(text: str) -> tuple[list[str], list[str]]:
    """Return the first and the last lines of a text that say something."""

    def kept(part: str) -> list[str]:
        plain = FENCED.sub("", part)
        return [line for line in _lines(plain) if not line.startswith("<!--")]

    head = kept(text[:EDGE_CHARACTERS])[:HEAD_LINES]
    tail = kept(text[-EDGE_CHARACTERS:])[-TAIL_LINES:]
    return head, [line for line in tail if line not in head]


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _is_plain(word: str) -> bool:
    return (
        word in NEUTRAL
        or word in ISSUED
        or word in _weekdays()
        or bool(VERSION.match(word))
        or len(word) == 1  # "Revision C"
    )


@cache
def _weekdays() -> frozenset[str]:
    from babel import Locale

    return frozenset(
        name.lower().rstrip(".")
        for language in LANGUAGES
        for width in ("wide", "abbreviated")
        for name in Locale(language).days["format"][width].values()
    )


def _says_only_issued(before: str, *, at_edge: bool = True) -> bool:
    """Whether what stands before a date says that the text was issued or holds, and no more.

    Args:
        before: From the start of the sentence or label, or from the date before it.
        at_edge: Whether it stands at the start or the end of the text, where "the policy" is it.
    """
    before = BYLINE.sub("by", before)
    words = _words(AT_PLACE.sub("at", before))
    issued = [number for number, word in enumerate(words) if word in ISSUED]
    if not issued and re.search(r"(?i)\bas (?:of|at)\W*$", before):
        issued = [len(words)]
    if not issued:
        return False
    kinds = [number for number, word in enumerate(words) if word in KINDS]
    unknown = [
        number for number, word in enumerate(words) if not _is_plain(word) and word not in KINDS
    ]
    own = bool(SELF.search(before)) and bool(kinds)
    if not at_edge and not own:
        return False
    if not unknown:
        return True
    last = unknown[-1]
    if last >= LONGEST_SUBJECT + 1:
        return False
    follows = words[last + 1 :]
    if follows and follows[0] in KINDS:  # "The Acme Travel Policy is valid from"
        return any(word in ISSUED for word in follows)
    past = {"was", "were", "had"} & set(words)  # a law of history
    return at_edge and not past and any(word in IN_FORCE for word in follows)  # "Prices apply from"


def _clauses(line: str) -> Iterator[tuple[str, Found, str]]:
    """Yield each date of a line with what stands before it in its sentence, and after it."""
    before, start = "", 0
    for found in find_dates(line):
        before = SENTENCE_END.split(f"{before} {line[start : found.start].strip()}".strip())[-1]
        pieces = [piece for piece in SEPARATOR.split(before) if piece.strip(MARKS)]
        before = pieces[-1] if pieces else ""
        yield before, found, line[found.end :]
        start = found.end


def _statements(line: str, *, at_edge: bool = True) -> Iterator[str]:
    """Yield the dates of a line that are stated to be the text's."""
    if line.startswith("|") and len(line.strip("| ").split("|")) != 2:  # noqa: PLR2004
        return  # a row of data
    for before, found, after in _clauses(line):
        year_alone = len(found.iso) == len("2000")
        if not found.iso:
            continue
        if year_alone and re.search(r"(?i)\bas (?:of|at)\W*$", before):
            continue  # of a number in an article
        edition = AFTER.match(after) and all(map(_is_known, _words(before)))
        if edition or _says_only_issued(before, at_edge=at_edge):
            yield found.iso


def _is_known(word: str) -> bool:
    return _is_plain(word) or word in KINDS


def _of_sentences(text: str) -> Iterator[tuple[Evidence, str]]:
    """Yield the dates of sentences anywhere that speak of the text itself."""
    for match in STATES_ITSELF.finditer(text):
        for iso in _statements(match[0][:LONGEST_STATEMENT], at_edge=False):
            yield Evidence.STATEMENT, iso


def _of_title(title: str, head: list[str], text: str) -> Iterator[tuple[Evidence, str]]:
    headings = [line for line in head if line.startswith("#")][:1]
    short = [line for line in head[:3] if len(_words(line)) <= LONGEST_HEADING]
    for line in dict.fromkeys([title, *short, *headings]):
        if len(line) > LONGEST_STATEMENT or line.rstrip().endswith("."):
            continue
        for found in find_dates(line)[:1]:
            before, after = line[: found.start], line[found.end :]
            if line in short[1:] and before.rstrip().endswith(":"):
                continue
            if not found.iso or found.begins_period or not _is_titled(before, after):
                continue
            if len(found.iso) == FULL:
                first = line not in short[1:]
                yield (Evidence.TITLE if first else Evidence.STATEMENT), found.iso
            elif not _is_outdated(found.iso, text):
                yield Evidence.COARSE_TITLE, found.iso


def _is_titled(before: str, after: str) -> bool:
    """Whether a title names a kind of document and then its date, or a date and then the kind."""
    words = _words(before)
    if MINUTES.search(before):
        return True
    if any(word in KINDS for word in words):
        apart = bool(re.search(r"[,(|·–—-]\s*(?:[A-Z]?\w+day,?\s*)?$", before))
        kind = max(number for number, word in enumerate(words) if word in KINDS)
        return apart or all(map(_is_plain, words[kind + 1 :]))
    return not words and any(word in KINDS for word in _words(after)[:LONGEST_SUBJECT])


def _of_versions(text: str, title: str, head: list[str]) -> Iterator[tuple[Evidence, str]]:
    """Yield the dates of headings that name a version, as in release notes."""
    series = bool(SERIES.search(f"{title}\n" + "\n".join(head[:1])))
    headings = re.findall(r"^#{1,4} .*[12]\d{3}.*$", text, re.MULTILINE)
    for line in [title, *head[:1], *headings]:
        for before, found, _ in _clauses(line):
            words = _words(before)
            version = bool(words) and bool(re.match(r"v?\d+(?:\.\w+)+$", words[-1]))
            if found.iso and (version or (series and not words)):
                yield Evidence.STATEMENT, found.iso


def _of_tables(head: list[str], text: str) -> Iterator[tuple[Evidence, str]]:
    """Yield the dates of a table of the document's versions."""
    if "|" not in text:
        return
    lines = text.split("\n")
    for number, line in enumerate(lines[1:], start=1):
        if not TABLE_RULE.match(line.strip()):
            continue
        cells = [_words(cell) for cell in lines[number - 1].strip("| ").split("|")]
        if not any({"version", "revision", "rev"} & set(cell) for cell in cells):
            continue
        columns = [place for place, cell in enumerate(cells) if _is_label(" ".join(cell))]
        for row in lines[number + 1 :]:
            if not row.startswith("|"):
                break
            values = row.strip("| ").split("|")
            for place in columns:
                for found in find_dates(values[place] if place < len(values) else ""):
                    yield Evidence.STATEMENT, found.iso


def _of_lines(head: list[str], tail: list[str], title: str) -> Iterator[tuple[Evidence, str]]:
    minutes = bool(MINUTES.search("\n".join([title, *head[:3]])))
    alone: list[str] = []
    for lines in (head, tail):
        for number, line in enumerate(lines):
            near = lines[number + 1 : number + 3] + lines[max(0, number - 1) : number]
            event = any(map(EVENT.search, [line, *near])) and not minutes
            if len(line) > LONGEST_STATEMENT:
                line = line[:LONGEST_STATEMENT]  # noqa: PLW2901
            if not event:
                yield from ((Evidence.STATEMENT, iso) for iso in _statements(line))
            alone += _alone(line)
    if 0 < len(alone) <= MOST_DATED_LINES:
        yield from ((Evidence.LINE, iso) for iso in alone)


def _alone(line: str) -> Iterator[str]:
    """Yield the date of a line of nothing else, or with a place or an author, as in a letter."""
    dates = [] if line.startswith("|") else find_dates(line)
    if not dates or not dates[0].iso or dates[0].begins_period:
        return
    found = dates[0]
    if len(found.iso) == len("2000"):  # under a title
        if line.strip(MARKS.replace(".", "")) == found.iso:
            yield found.iso
        return
    column = re.search(r"(?:^|[;|·•\t]|\s{2})\s*$", line[: found.start])
    before = "" if column else SEPARATOR.split(line[: found.start])[-1]
    place = DAY_NAME.sub("", BYLINE.sub("", before).strip(" #*_>-–—(")).strip()
    named = place.endswith(",") and bool(PLACE.match(place))
    label = before.rstrip().endswith(":") or bool(set(_words(place)) - NEUTRAL - _weekdays())
    if place.strip(MARKS) and label and not named:
        return
    after = line[found.end :]
    dash = DASH_AND_WORD.match(after)
    if dash or len(dates) > 1:
        if dash and named:  # "BERLIN, 3 May 2021 — The ministry"
            yield found.iso
        return
    rest = BYLINE.sub("", after).strip(MARKS)
    if CLOCK.match(rest):
        if not _weekdays() & set(_words(before)):  # with both it is an event
            yield found.iso
    elif not rest or (len(_words(rest)) <= LONGEST_SUBJECT and COLUMN_END.match(after)):
        yield found.iso


def _is_document(before: str, *, at_edge: bool) -> bool:
    """Whether the subject of "replaces" is the document."""
    words = _words(before)
    if not words or words in (["it"], ["they"]):
        return at_edge
    if words[-1] in {"be", "to", "not"}:
        return False
    subject = [number for number, word in enumerate(words) if word in KINDS]
    own = bool(SELF.search(before)) or at_edge
    others = [word for word in words[max(subject, default=0) + 1 :] if not _is_known(word)]
    return bool(subject) and own and len(others) <= LONGEST_SUBJECT


def _objects(named: str) -> Iterator[str]:
    """Yield what is named after "replaces": titles, dates, or all earlier versions."""
    end = OBJECT_END.search(named)
    phrase = " ".join(named[: end.start() if end else len(named)].split()).strip(MARKS)
    if EARLIER.search(phrase):
        yield ALL_EARLIER
        return
    parts = [part for part in re.split(r",?\s+and\s+(?=the\b|\d)|;\s*", phrase) if part]
    for part in parts:
        title = ARTICLE.sub("", part.strip(MARKS)).strip(MARKS)
        words = _words(title)
        dates = [found for found in find_dates(title) if found.iso]
        named_title = any(word[:1].isupper() for word in title.split())
        rest = [word for word in words if not _is_known(word)]
        if dates and len(dates[0].iso) > len("2000"):
            yield dates[0].iso
            name, _, last = title[: dates[0].start].strip(MARKS).rpartition(" ")
            name = name if _is_plain(last.lower()) else f"{name} {last}"  # "of", "dated"
            if _proper(name):
                yield name.strip(MARKS)[:LONGEST_TITLE]
        elif words and (dates or (named_title and any(word in KINDS for word in words))):
            yield title[:LONGEST_TITLE]
        elif words and len(rest) <= MOST_UNKNOWN and re.search(r"\d", title):
            yield title[:LONGEST_TITLE]  # "version 2.1"


def _proper(text: str) -> bool:
    return any(word[:1].isupper() for word in text.split())


def office_dates(created: str, modified: str) -> dict[str, object]:
    """Return the dates in an office file's properties that say when it was written.

    Args:
        created: As the file states it, in ISO 8601 with its time; empty if it does not.
        modified: Likewise.
    """
    try:
        times = [datetime.fromisoformat(each) for each in (created, modified)]
        written = abs((times[1] - times[0]).total_seconds()) >= LEAST_WRITING
    except (ValueError, TypeError):  # one is missing, or only one has a time zone
        written = False
    return {"modified": modified} if written else {}
