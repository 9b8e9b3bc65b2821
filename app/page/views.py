"""The page's HTML, from Jinja templates that escape every text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from app.api.errors import describe_error
from app.page import evidence
from control.answer import Answer, Source
from control.decoding.trace import Choice, TokenTrace
from control.forgetting.ledger import Event
from control.forgetting.record import Record

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
LEAST_SHARE = 0.01  # smaller ones are shown as "< 1 %"
SOURCES = {"context": "from the passages", "memory": "from memory", "both": "both say it"}


@dataclass(frozen=True)
class ShownToken:
    """A token as it is shown.

    Attributes:
        space: The whitespace before it.
        text: The rest.
        source: ``context``, ``memory`` or ``both``.
        label: The source in words.
        gain: Its confidence gain, in nats; empty where the engine does not tell.
        passages: Most probable tokens of the context branch; empty if unknown.
        memory: Those of the memory branch.
        cites: Numbers of the passages that support the sentence ending here.
    """

    space: str
    text: str
    source: str
    label: str
    gain: str
    passages: str
    memory: str
    cites: tuple[int, ...]


@dataclass(frozen=True)
class ShownPassage:
    """A passage as it is shown.

    Attributes:
        number: As in the prompt, from 1; 0 for one that was not read.
        source: The passage.
        score: Its score for the question.
        verdict: The result of the filter.
        sentences: Its text, with the sentences marked that support the answer.
    """

    number: int
    source: Source
    score: str
    verdict: str
    sentences: Sequence[evidence.Sentence]


def render(name: str, /, **values: Any) -> str:
    """Render ``templates/NAME.jinja``."""
    return TEMPLATES.get_template(f"{name}.jinja").render(values)


def to_tokens(
    tokens: Sequence[TokenTrace], cites: dict[int, list[int]] | None = None
) -> list[ShownToken]:
    """Return the tokens of an answer as shown, without those that have no text."""
    numbers = cites or {}
    return [
        _word(token, tuple(numbers.get(place, ())))
        for place, token in enumerate(tokens)
        if token.text or place in numbers
    ]


def answer_tokens(answer: Answer) -> list[ShownToken]:
    """Return the tokens of a complete answer, with citations."""
    return to_tokens(
        answer.tokens, evidence.find_citations(answer, [each.text for each in read(answer)])
    )


def read(answer: Answer) -> list[Source]:
    """Return the passages that the model read, in reading order."""
    return [each for each in answer.sources if each.kept]


def passages(answer: Answer) -> list[ShownPassage]:
    """Return the passages that were read, numbered as in the prompt."""
    wanted = evidence.claimed_words(answer)
    return [_passage(number, each, wanted) for number, each in enumerate(read(answer), start=1)]


def unread(answer: Answer) -> list[ShownPassage]:
    """Return the passages that were found and not read."""
    return [_passage(0, each, set()) for each in answer.sources if not each.kept]


def _word(token: TokenTrace, cites: tuple[int, ...]) -> ShownToken:
    text = token.text.lstrip()
    return ShownToken(
        token.text.removesuffix(text),
        text,
        token.source,
        SOURCES[token.source],
        "" if token.confidence_gain is None else f"{token.confidence_gain:+.2f}",
        _choices(token.context_choices),
        _choices(token.memory_choices),
        cites,
    )


def _choices(choices: Sequence[Choice]) -> str:
    return ", ".join(
        f"{choice.text.strip() or repr(choice.text)} {_percent(choice.probability)}"
        for choice in choices
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= LEAST_SHARE else "< 1 %"


def _passage(number: int, source: Source, wanted: set[str]) -> ShownPassage:
    verdict = source.reason
    if source.kept and source.answers is not None:
        verdict = f"the filter lets it through: {100 * source.answers:.0f} % sure that it answers"
    score = "given with the question" if source.score is None else f"score {source.score:.2f}"
    return ShownPassage(
        number, source, score, verdict, evidence.mark_sentences(source.text, wanted)
    )


def error(raised: Exception) -> str:
    """Render an error as one line."""
    return render("error", error=describe_error(raised)[1])


def describe_fact(record: Record) -> str:
    """Describe a forgotten fact in one line."""
    if record.scope == "subject":
        return f"everything about {record.subject}"
    about = f"{record.relation} of {record.subject}" if record.relation else record.subject
    return f"{about}: {', '.join(record.answers)}"


def describe_event(event: Event) -> str:
    """Describe an event of the audit in one line."""
    details = event.details
    if event.kind == "added":
        said = describe_fact(Record(**{**details, "answers": tuple(details["answers"])}))
        details = {name: details[name] for name in ("who", "reason")}
    else:
        said = ""
    parts = [f"{name}: {value}" for name, value in details.items() if value not in ("", None)]
    return " · ".join([said, *parts] if said else parts)


TEMPLATES.filters |= {"fact": describe_fact, "happened": describe_event}
