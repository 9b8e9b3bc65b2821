"""The page's HTML, from Jinja templates that escape every text."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from app import described
from app.api.errors import describe_error
from app.page import evidence, words
from app.page.markup import MarkedText, cut
from control.answer import Answer, Source, source_names
from control.conflict.sources import CORRECTION, MEMORY, SourceClaim
from control.forgetting.ledger import Event
from control.notices import WITHOUT_SUPPORT

if TYPE_CHECKING:
    from app.server.service import Service

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
# What is no HTML needs no escapes.
MARKDOWN = TEMPLATES.overlay(autoescape=False)
YOUR_PASSAGE = "your passage"  # has no title
MEMORY_SAYS = "the model’s memory"
PINNED = "Correction"


@dataclass(frozen=True)
class ShownPassage:
    """A passage as it is shown.

    Attributes:
        number: As in the prompt, from 1; 0 for one that was not read.
        source: The passage.
        score: Its score for the question.
        verdict: The result of the filter.
        html: Its text, with the sentences marked that support the answer.
        name: What it is called.
    """

    number: int
    source: Source
    score: str
    verdict: str
    html: Markup
    name: str


@dataclass(frozen=True)
class ShownClaim:
    """What one source claims, or several that claim the same.

    Attributes:
        says: The claim.
        sources: Who says so: (number of the passage that was read, else 0; its name).
        since: The first and the last date, in ISO 8601, or the only one; empty if none is known.
        trust: In the sources, in [0, 1].
        sure: How likely they say so, or memory is right; empty if unknown.
        followed: Whether the answer follows it.
        memory: Whether memory says so.
    """

    says: str
    sources: Sequence[tuple[int, str]]
    since: Sequence[str]
    trust: str
    sure: str
    followed: bool
    memory: bool


def render(name: str, /, **values: Any) -> str:
    """Render ``templates/NAME.jinja``."""
    return TEMPLATES.get_template(f"{name}.jinja").render(values)


def answer_html(answer: Answer, place: str) -> Markup:
    """Render a complete answer with its citations; one that abstains states nothing to support.

    Args:
        answer: The answer.
        place: Names the turn in the links to its passages.
    """
    if answer.abstained:
        return words.to_html(answer.answer, ())
    numbers = _numbers(answer)
    text, sentences = answer.answer, []
    for each in answer.citations or evidence.find_citations(answer):
        end = each.start + len(text[each.start : each.end].rstrip())
        cited = sorted({numbers[passage] for passage in each.passages if passage in numbers})
        sentences.append(words.CitedSentence(each.start, end, tuple(cited)))
    return words.to_html(text, answer.tokens, sentences, place)


def passages(answer: Answer) -> list[ShownPassage]:
    """Return the passages that were read, numbered as in the prompt."""
    wanted = evidence.claimed_words(answer)
    return _passages(answer, enumerate(evidence.read(answer), start=1), wanted)


def unread(answer: Answer) -> list[ShownPassage]:
    """Return the passages that were found and not read."""
    return _passages(answer, ((0, each) for each in answer.sources if not each.kept))


def claims(answer: Answer) -> list[ShownClaim]:
    """Return what the sources claim, the followed claim first.

    None where there is nothing to compare: all passages say the same, and memory nothing.
    """
    groups: dict[int, list[SourceClaim]] = {}
    for claim in answer.claims:
        groups.setdefault(claim.group, []).append(claim)
    if len(groups) <= 1 and all(claim.source != MEMORY for claim in answer.claims):
        return []
    numbers = _numbers(answer)
    names = {name: said or YOUR_PASSAGE for name, said in source_names(answer.sources).items()}
    shown = [_claim(group, numbers, names) for group in groups.values()]
    return sorted(shown, key=lambda claim: not claim.followed)


def _claim(
    group: Sequence[SourceClaim], numbers: Mapping[str, int], names: Mapping[str, str]
) -> ShownClaim:
    sources = [(numbers.get(one.source, 0), _name(one.source, names)) for one in group]
    sure = [claim.confidence for claim in group if claim.confidence is not None]
    return ShownClaim(
        group[0].says,
        sources,
        _ends([claim.date for claim in group if claim.date]),
        " to ".join(_ends([f"{claim.trust:.2f}" for claim in group])),
        words.percent(max(sure)) if sure else "",
        any(claim.followed for claim in group),
        any(claim.source == MEMORY for claim in group),
    )


def _name(source: str, names: Mapping[str, str]) -> str:
    if source == MEMORY:
        return MEMORY_SAYS
    if not source.startswith(CORRECTION):
        return names.get(source, YOUR_PASSAGE)
    origin = names.get(source, PINNED)  # has its own title where nobody said where it is from
    return PINNED if origin in (PINNED, YOUR_PASSAGE) else f"{PINNED}: {origin}"


def _ends(values: Sequence[str]) -> Sequence[str]:
    """The least and the greatest of some dates or numbers, as they sort as text."""
    return sorted({min(values), max(values)}) if values else ()


def _numbers(answer: Answer) -> dict[str, int]:
    """The numbers of the passages that were read, by their ids."""
    return {each.id: number for number, each in enumerate(evidence.read(answer), start=1)}


def _passages(
    answer: Answer, chosen: Iterable[tuple[int, Source]], wanted: Collection[str] = ()
) -> list[ShownPassage]:
    names = source_names(answer.sources)
    return [
        _passage(number, each, names[each.id] or YOUR_PASSAGE, wanted) for number, each in chosen
    ]


def _passage(number: int, source: Source, name: str, wanted: Collection[str]) -> ShownPassage:
    verdict: str = source.reason
    if source.kept and source.answers is not None:
        sure = words.percent(source.answers)
        verdict = f"kept by the filter, which gives it {sure} before it is read"
    score = "given with the question" if source.score is None else f"score {source.score:.2f}"
    html = passage_html(source.text, wanted)
    return ShownPassage(number, source, score, verdict, html, name)


def passage_html(text: str, wanted: Collection[str] = ()) -> Markup:
    """Render a passage's Markdown, and mark the sentences and words that support an answer.

    Args:
        text: The passage.
        wanted: Normalised words of the answer.
    """
    found = evidence.find_evidence(text, set(wanted))

    def draw(piece: str, start: int) -> Markup:
        drawn = Markup("")
        for left, right, sentence in cut(start, start + len(piece), found.sentences):
            inner = Markup("")
            for first, last, word in cut(left, right, found.words):
                part = escape(piece[first - start : last - start])
                inner += part if word is None else Markup("<b>{}</b>").format(part)
            drawn += inner if sentence is None else Markup("<mark>{}</mark>").format(inner)
        return drawn

    return MarkedText(text).html(draw)


def error(raised: Exception, service: "Service") -> str:
    """Render an error as one line."""
    return render("error", error=describe_error(raised, service.error_line)[1])


def describe_event(event: Event) -> str:
    """Describe an event of the audit in one line."""
    said, details = described.event(event)
    parts = [f"{name}: {value}" for name, value in details.items() if value not in ("", None)]
    return " · ".join([said, *parts] if said else parts)


def quoted(text: str) -> str:
    """Return a text as a quotation in Markdown."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def cell(text: str) -> str:
    """Return a text as a cell of a table in Markdown."""
    return " ".join(text.split()).replace("|", "\\|")


TEMPLATES.filters |= {
    "agrees": described.agrees,
    "sentence": lambda notice: f"{notice[0].upper()}{notice[1:]}.",
    "cell": cell,
    "fact": described.fact,
    "happened": describe_event,
    "quoted": quoted,
}
TEMPLATES.globals["WITHOUT_SUPPORT"] = WITHOUT_SUPPORT
