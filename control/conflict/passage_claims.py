"""What each passage claims about a question, and what is known of its document."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rapidfuzz import fuzz

from control import prompts
from control.conflict.answerability import preference, probability, unsaid_names
from control.conflict.dates import periods_in, periods_named, tells_of
from control.conflict.sources import CORRECTION, NEUTRAL_TRUST, SourceClaim
from control.conflict.versions import Version, find_index, find_version, is_earlier
from control.forgetting.parts import parts
from control.forgetting.text_redaction import MASK
from control.prompts import Prompt, Quote
from foundation.tables import rows_alone
from foundation.text import ARTICLES, FUNCTION_WORDS, normalise, words

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from control.conflict.reader import AnswerReader, Reading

# Probability from which a passage counts as claiming something. Of 120 questions to several
# passages each (`training/documents.jsonl`), 87 % of the disagreements are found, and 81 % of those
# that are found are some; from 0.4 on 91 and 81 %, from 0.8 on 84 and 85 %. Of 120 questions over
# real documents (calibration packages) the surest claim is right for 23 and wrong for 21; from 0.4
# on for 27 and 29, from 0.8 on for 20 and 14.
LEAST_ANSWERS = 0.6
# The same where nothing but documents may be answered from: of 845 questions to the five most
# similar of 171 held-out documents (`fulcrum eval sources --task held-out`), 59 % of those that one
# answers are answered from here on, and 10 % of those that all leave open.
LEAST_ALONE = 0.9
# In place of a title. A text without one the reader takes for an answer to the question, as drafts
# are, which need not name what they are about.
UNTITLED = "Passage"
# Characters in common, in percent, from which two passages say nearly the same. Documents about one
# thing (`training/documents.jsonl`, 204 pairs) have 39 to 48 in common, versions that were worded
# anew (`training/dated.jsonl`, 450) 41 to 52; those in which a number was amended more than 90.
NEARLY_SAME = 70
MOST_SENTENCES = 32  # of a passage that are read alone; longer ones are rare, not measured
# Passages found among which other versions of a document that is kept, and later ones, are looked
# for. The bars for these were chosen where ten were found. Of 20, a later document on something
# else is more often followed in place of the one that answers.
MOST_FOUND = 10
NUMBERS = re.compile(r"\d+")
HEAD = 120  # characters of a passage where a document may be named: a line


@dataclass(frozen=True)
class PassageClaim:
    """A claim of a passage, and what is known of its document.

    Attributes:
        claim: The claim; its group is not yet known.
        document: The id of the document.
        title: Of the document.
        replaces: Titles or dates of documents that this one says it replaces.
        sentence: The sentence of the passage that holds the claim.
        head: The beginning of the passage.
        versions: That the title of the document, its field for it and the name of its file give.
        telling: Whether the sentence can be told alone: it is in the text, and no heading.
        file: What the file of the document is called; empty if it was given.
    """

    claim: SourceClaim
    document: str
    title: str = ""
    replaces: tuple[str, ...] = ()
    sentence: str = ""
    head: str = ""
    versions: tuple[Version, ...] = ()
    telling: bool = True
    file: str = ""

    @property
    def quote(self) -> Quote:
        """What may be told of it."""
        return Quote(self.sentence, self.claim.says, self.claim.confidence or 0.0)


def origin(node: "NodeWithScore") -> str:
    """What a passage is from, as it is read; where a correction is from is none of what it says."""
    return "" if node.node_id.startswith(CORRECTION) else prompts.origin(node.metadata)


def date_of(node: "NodeWithScore") -> str:
    """The date of a passage's document, in ISO 8601; empty if not known."""
    return str(node.metadata.get("date", ""))


def title_read(node: "NodeWithScore") -> str:
    """What a passage is read with: what it is from."""
    return origin(node) or UNTITLED


def passage_text(node: "NodeWithScore") -> str:
    """A passage as it is read, with what it is from before it."""
    return prompts.with_title(title_read(node), node.text)


def place_of(node: "NodeWithScore", reading: "Reading") -> int:
    """The first character of what answers in a passage; negative in the title before it."""
    return reading.start - len(passage_text(node)) + len(node.text)


def find(
    read: "Sequence[tuple[NodeWithScore, Reading]]", alone: bool = False
) -> list[PassageClaim]:
    """The claims of the passages that claim something; what lacks a forgotten answer is none.

    Args:
        read: Passages, each with what the reader found in it.
        alone: Whether nothing else may be answered from, so that they have to be surer.
    """
    least = LEAST_ALONE if alone else LEAST_ANSWERS
    files = prompts.file_names(prompts.path(node) for node, _ in read)
    return [
        replace(_passage_claim(node, reading), file=files[prompts.path(node)])
        for node, reading in read
        if reading.answer and MASK not in reading.answer and reading.answers >= least
    ]


def nearest(read: "Sequence[tuple[NodeWithScore, Reading]]") -> PassageClaim | None:
    """What comes nearest to a claim, however unsure, where it stands in a sentence to be told.

    Args:
        read: Passages, each with what the reader found in it.
    """
    says = [each for each in read if each[1].answer and MASK not in each[1].answer]
    telling = [each for pair in says if (each := _passage_claim(*pair)).telling]
    return max(telling, key=lambda each: each.claim.confidence or 0.0, default=None)


def _passage_claim(node: "NodeWithScore", reading: "Reading") -> PassageClaim:
    place, known = place_of(node, reading), node.metadata
    sentence = sentence_at(node.text, place)
    return PassageClaim(
        SourceClaim(
            node.node_id,
            reading.answer,
            date_of(node),
            float(known.get("trust", NEUTRAL_TRUST)),
            reading.answers,
        ),
        document(node),
        str(known.get("title", "")),
        tuple(filter(None, str(known.get("replaces", "")).split("; "))),
        sentence,
        node.text[:HEAD],
        _versions(node),
        place >= 0 and _says_more(sentence, f"{known.get('title')} {known.get('heading')}"),
    )


def related(
    question: str, kept: "Sequence[NodeWithScore]", found: "Sequence[NodeWithScore]"
) -> "list[NodeWithScore]":
    """The passages found that are of the owner of a kept one, or another version of its document.

    Little tells which of several versions a filter keeps, and it drops documents that do not say
    whose they are: those that lie beside a kept one and lack names of the question which others
    there give. Versions are told by the names of their documents, which differ in that alone; or in
    their numbers alone, and they say nearly the same or are dated later.

    Args:
        question: The question.
        kept: Passages.
        found: Those that they were chosen from, and any others.
    """
    series = {version.series for each in kept for version in _versions(each)}
    ids = {each.node_id for each in kept}
    return [
        each
        for each in found[:MOST_FOUND]
        if each.node_id not in ids
        and (
            any(_nearly_same(each, one) or is_outdated(one, each) for one in kept)
            or any(version.series in series for version in _versions(each))
            or (
                any(_is_beside(each, one) for one in kept)
                and unsaid_names(question, passage_text(each), *beside([each], found))
            )
        )
    ]


def is_outdated(node: "NodeWithScore", other: "NodeWithScore") -> bool:
    """Whether another passage is of a later document of the same title, or of a later version.

    Titles may differ in their numbers.
    """
    if is_earlier(_versions(node), _versions(other)):
        return True
    date, later = date_of(node), date_of(other)
    titled = bool(_title(node)) and _title(node) == _title(other)
    return titled and bool(date) and later > date and not later.startswith(date)


def _nearly_same(a: "NodeWithScore", b: "NodeWithScore") -> bool:
    return _title(a) == _title(b) and fuzz.ratio(a.text, b.text) >= NEARLY_SAME


def _title(node: "NodeWithScore") -> str:
    """The title of a passage's document without its numbers."""
    return NUMBERS.sub("", str(node.metadata.get("title", "")))


def _says_more(sentence: str, headings: str) -> bool:
    """Whether a sentence has a word that is not in the headings above it, and comes to an end."""
    more = any(word.isalpha() for word in words(sentence) - words(headings))
    return more and not sentence.endswith((",", ":"))


def ways_to_ask(question: str, date: str, text: str = "") -> list[str]:
    """The questions for which a passage is read.

    A document whose date the period that the question names covers may tell what held then,
    without naming that date; so it is asked without the date too. Of several dates, those that the
    passage names itself stay: "What do boats registered before 2010 pay in 2023?"

    Args:
        question: The question.
        date: Of the document; empty if not known.
        text: Of the passage.
    """
    dates = periods_in(question)
    if date and len(dates) > 1:
        named = periods_named(text)
        dates = [each for each in dates if not tells_of(named, each.period)]
    if len(dates) != 1 or not date or not dates[0].period.covers(date):
        return [question]
    [asked] = dates
    before = question[: asked.start].split()
    last = normalise(before[-1]) if before and not asked.sided else ""
    if last in FUNCTION_WORDS - ARTICLES:  # "the 2021 fee" is still "the fee" without its date
        before.pop()  # "in 2021"
    rest = question[asked.stop :].lstrip(" ,")
    space = " " if before and rest[:1].isalnum() else ""
    undated = f"{' '.join(before)}{space}{rest}"
    return [question, undated] if normalise(undated) else [question]


def read(
    reader: "AnswerReader",
    asked: "Sequence[tuple[str, Sequence[NodeWithScore], Sequence[NodeWithScore]]]",
) -> "list[list[tuple[NodeWithScore, Reading]]]":
    """Read passages, each for its question, all in one batch.

    Args:
        reader: The reader.
        asked: Questions, each with its passages and with all that were found with them.

    Returns:
        For each question its passages with what the reader found, by the way to ask that is surer.
    """
    passages = [
        (at, node, (way, title_read(node), node.text), near)
        for at, (question, nodes, found) in enumerate(asked)
        for node, near in zip(nodes, beside(nodes, found), strict=True)
        for way in ways_to_ask(question, date_of(node), node.text)
    ]
    surest: dict[tuple[int, str], Reading] = {}
    readings = read_passages(
        reader, [each for _, _, each, _ in passages], [near for *_, near in passages]
    )
    for (at, node, *_), reading in zip(passages, readings, strict=True):
        known = surest.get((at, node.node_id))
        if known is None or reading.answers > known.answers:
            surest[at, node.node_id] = reading
    return [
        [(node, surest[at, node.node_id]) for node in nodes]
        for at, (_, nodes, _) in enumerate(asked)
    ]


def beside(nodes: "Sequence[NodeWithScore]", found: "Sequence[NodeWithScore]") -> list[list[str]]:
    """For each passage those that lie beside it."""
    texts = {each.node_id: passage_text(each) for each in found}
    return [[texts[other.node_id] for other in found if _is_beside(node, other)] for node in nodes]


def _is_beside(one: "NodeWithScore", other: "NodeWithScore") -> bool:
    """Whether passages are of one document, or of files in one folder.

    Documents of one file, such as lines, do not lie beside each other: little tells that they are
    of one owner.
    """
    if document(one) == document(other):
        return True
    file, other_file = (Path(prompts.path(node)) for node in (one, other))
    given = not (file.name and other_file.name)
    return not given and file != other_file and file.parent == other_file.parent


def document(node: "NodeWithScore") -> str:
    """The id of a passage's document."""
    return node.node.ref_doc_id or node.node_id


def read_passages(
    reader: "AnswerReader",
    asked: Sequence[tuple[str, str, str]],
    beside: Sequence[Sequence[str]] | None = None,
) -> "list[Reading]":
    """Read passages whole, and each of their sentences alone.

    How likely a passage answers is told by all of it, and by the names that it lacks; which words
    of it answer, by the surest of these readings, those of a sentence that lacks names which the
    passage gives counting less. So they are found in more of the held-out texts:
    of documents 74 instead of 66 % have half of the answer's words or more, of texts about several
    things 73 instead of 64.

    Args:
        reader: The reader.
        asked: Questions, each with the title and the text of a passage.
        beside: For each of them passages of the same owner, as of `answerability.probability`.

    Returns:
        Places are those in the text with its title.
    """
    whole = [(question, prompts.with_title(title, text)) for question, title, text in asked]
    alone = [
        (place, start, (question, prompts.with_title(title, sentence)), len(sentence))
        for place, (question, title, text) in enumerate(asked)
        for start, sentence in sentences_of(text)
    ]
    readings = reader.read([*whole, *(pair for _, _, pair, _ in alone)])
    found = readings[: len(whole)]
    likely = [each.answers for each in found]
    before = [len(pair[1]) - len(text) for pair, (_, _, text) in zip(whole, asked, strict=True)]
    preferred = list[float]()
    for each, pair, (_, title, text), skipped in zip(found, whole, asked, before, strict=True):
        own = prompts.with_title(title, sentence_at(text, each.start - skipped))
        preferred.append(preference(*pair, own, each.answers))
    for (place, start, (_, titled), size), each in zip(alone, readings[len(whole) :], strict=True):
        within = each.start - (len(titled) - size)
        if each.answer and within >= 0:
            gain = preference(*whole[place], titled, each.answers)
            if gain > preferred[place]:
                preferred[place] = gain
                found[place] = replace(each, start=before[place] + start + within)
    return [
        replace(each, answers=probability(*pair, answers, near))
        for each, pair, answers, near in zip(
            found, whole, likely, beside or [()] * len(asked), strict=True
        )
    ]


def sentences_of(text: str) -> list[tuple[int, str]]:
    """The sentences of a text with their places; none of one, or where rows are read alone."""
    found = [] if rows_alone(text) else parts(text)
    cut = [(start, text[start:end]) for start, end in found[:MOST_SENTENCES]]
    spans = [(start + len(each) - len(each.lstrip()), each.strip()) for start, each in cut]
    return [(start, each) for start, each in spans if each] if len(spans) > 1 else []


def with_quote(prompt: Prompt, reader: "AnswerReader | None") -> Prompt:
    """A prompt with the sentence of its passages that surest claims an answer, if one does."""
    if reader is None or not prompt.texts:
        return prompt
    readings = read_passages(reader, [(prompt.question, UNTITLED, text) for text in prompt.texts])
    text, reading = max(zip(prompt.texts, readings, strict=True), key=lambda each: each[1].answers)
    if not reading.answer or reading.answers < LEAST_ANSWERS:
        return prompt
    before = len(prompts.with_title(UNTITLED, text)) - len(text)
    sentence = sentence_at(text, reading.start - before)
    return replace(prompt, quote=Quote(sentence, reading.answer, reading.answers))


def _versions(node: "NodeWithScore") -> tuple[Version, ...]:
    title, file = str(node.metadata.get("title", "")), Path(prompts.path(node)).stem
    names = [title, file]
    if stated := node.metadata.get("version"):
        names.append(f"{title} version {stated}")
    first, _, rest = node.text.partition("\n")
    heading = first if rest and title == file else title  # plain text is titled by its file's name
    found = [*map(find_version, names), find_index(file, heading)]
    return tuple(each for each in found if each is not None)


def sentence_at(text: str, place: int) -> str:
    """The sentence of a text, or the row of a table, in which a character stands, on one line.

    All of the text where it stands in what is read before it.
    """
    for start, end in parts(text):
        if start <= place < end:
            return " ".join(text[start:end].split())
    return " ".join(text.split())
