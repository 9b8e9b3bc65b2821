"""What the page shows, as HTML: every text goes through Jinja's autoescape, none is ever markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from app.api.errors import told
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
LEAST_SHARE = 0.01  # told as such
SOURCES = {"context": "from the passages", "memory": "from memory", "both": "both say it"}


@dataclass(frozen=True)
class Word:
    """A token as it is shown.

    Attributes:
        space: What stands before it.
        text: The rest.
        source: ``context``, ``memory`` or ``both``.
        told: Whose it is, in words.
        gain: Its confidence gain, in nats.
        passages: What the passages would have said; empty where it is not known.
        memory: The same of memory.
        cites: Numbers of the passages that hold what the sentence ending here claims.
    """

    space: str
    text: str
    source: str
    told: str
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
        score: How near it is to the question.
        verdict: What the filter says of it.
        sentences: Its text, with what bears on the answer marked.
    """

    number: int
    source: Source
    score: str
    verdict: str
    sentences: Sequence[evidence.Sentence]


def render(name: str, /, **values: Any) -> str:
    """The HTML of ``templates/NAME.jinja``."""
    return TEMPLATES.get_template(f"{name}.jinja").render(values)


def spoken(tokens: Sequence[TokenTrace], cites: dict[int, list[int]] | None = None) -> list[Word]:
    """The tokens of an answer; those without text join the next one."""
    numbers = cites or {}
    return [
        _word(token, tuple(numbers.get(place, ())))
        for place, token in enumerate(tokens)
        if token.text or place in numbers
    ]


def words(answer: Answer) -> list[Word]:
    """The tokens of a whole answer, with the passages that bear it out."""
    return spoken(answer.tokens, evidence.cited(answer, [each.text for each in read(answer)]))


def read(answer: Answer) -> list[Source]:
    """The passages that the model read, in the order in which it read them."""
    return [each for each in answer.sources if each.kept]


def passages(answer: Answer) -> list[ShownPassage]:
    """Those that were read, numbered as in the prompt and in the answer."""
    wanted = evidence.claimed(answer)
    return [_passage(number, each, wanted) for number, each in enumerate(read(answer), start=1)]


def unread(answer: Answer) -> list[ShownPassage]:
    """Those that were found and not read."""
    return [_passage(0, each, set()) for each in answer.sources if not each.kept]


def _word(token: TokenTrace, cites: tuple[int, ...]) -> Word:
    text = token.text.lstrip()
    return Word(
        token.text.removesuffix(text),
        text,
        token.source,
        SOURCES[token.source],
        f"{token.confidence_gain:+.2f}",
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
    return ShownPassage(number, source, score, verdict, evidence.evidence(source.text, wanted))


def error(raised: Exception) -> str:
    """An error as its one line."""
    return render("error", error=told(raised)[1])


def fact(record: Record) -> str:
    """A forgotten fact in one line."""
    if record.scope == "subject":
        return f"everything about {record.subject}"
    about = f"{record.relation} of {record.subject}" if record.relation else record.subject
    return f"{about}: {', '.join(record.answers)}"


def happened(event: Event) -> str:
    """The details of an event of the audit in one line."""
    details = event.details
    if event.kind == "added":
        said = fact(Record(**{**details, "answers": tuple(details["answers"])}))
        details = {name: details[name] for name in ("who", "reason")}
    else:
        said = ""
    told = [f"{name}: {value}" for name, value in details.items() if value not in ("", None)]
    return " · ".join([said, *told] if said else told)


TEMPLATES.filters |= {"fact": fact, "happened": happened}
