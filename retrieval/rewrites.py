"""The one form in which questions are rewritten: written for training, read back with tolerance.

    Question: same            <- or the question, free of what only the conversation explains
    Search: Peru currency
    Search: The currency of Peru is

A search may name what an earlier one finds: in ``Search: capital of #1``, ``#1`` stands for the
answer to the first search.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

Turn = tuple[str, str]
"""(question, answer)"""

SAME = "same"
MOST_QUERIES = 4
MOST_TURNS = 3  # of the conversation; what lies further back is seldom meant
LONGEST_TURN = 300  # characters of an earlier answer that the prompt repeats
LONGEST_QUERY = 300
END = "\n\n"

INSTRUCTIONS = """\
You prepare questions for a search engine. If the question only makes sense with the conversation, \
write it so that it stands on its own; otherwise write "same". Then write 2 or 3 short, different \
searches that together find the answer. If one thing has to be found first, write #1 for what the \
first search finds. Answer in exactly this form:"""
EXAMPLES: tuple[tuple[tuple[Turn, ...], str, str], ...] = (
    (
        (("Who wrote Emma?", "Jane Austen."),),
        "And when was it published?",
        "Question: When was Emma published?\nSearch: Emma year of publication\n"
        "Search: Emma by Jane Austen was published in",
    ),
    (
        (),
        "How high is the highest mountain of the country where Sony was founded?",
        "Question: same\nSearch: In which country was Sony founded?\n"
        "Search: height of the highest mountain of #1",
    ),
)


@dataclass(frozen=True)
class Rewrite:
    """A question made ready for search.

    Attributes:
        question: Free of ambiguity, as far as the rewriter could tell.
        queries: Searches, the most direct first; one may stand on an earlier one by ``#1``.
    """

    question: str
    queries: tuple[str, ...]


def request(question: str, history: Sequence[Turn]) -> str:
    """The text that a rewriter continues."""
    lines = []
    if history:
        lines.append("Conversation:")
        for asked, answered in history[-MOST_TURNS:]:
            lines += [f"Q: {_line(asked)}", f"A: {_line(answered)[:LONGEST_TURN]}"]
    return "\n".join([*lines, f"Asked: {_line(question)}", ""])


def instructed(question: str, history: Sequence[Turn]) -> str:
    """The same for a model that was never trained for it: with instructions and two examples."""
    shown = [f"{request(asked, past)}{written}" for past, asked, written in EXAMPLES]
    return "\n\n".join([INSTRUCTIONS, *shown, request(question, history)])


def written(question: str | None, queries: Sequence[str]) -> str:
    """A rewrite in its form; ``None`` for a question that stands on its own."""
    return "\n".join([f"Question: {question or SAME}", *(f"Search: {query}" for query in queries)])


def read_back(text: str, asked: str) -> Rewrite | None:
    """What a model wrote, or ``None`` if no rewrite can be found in it.

    Tolerates other bullets, numbers and names of the fields, JSON, code fences and chatter.
    """
    question, queries = asked, list[str]()
    begun = False
    for line in _lines(text):
        found = _FIELD.match(line) or (_ITEM.match(line) if begun else None)
        if not found:
            continue
        begun = True
        value = found["value"].strip().strip("\",'[]*").strip()
        if not re.search(r"\w", value) or len(value) > LONGEST_QUERY:
            continue
        name = found.groupdict().get("name", "search").lower()
        if not name.startswith(("search", "quer")):
            if value.rstrip(".").lower() not in (SAME, "the same", "unchanged"):
                question = value
        elif value not in queries:
            queries.append(value)
    queries = [query for query in queries[:MOST_QUERIES] if not query.startswith("#")]
    return Rewrite(question, tuple(queries)) if queries else None


_FIELD = re.compile(
    r"""^[\s{\["'*\-•\d.)]*                                   # bullets, numbers, JSON
    (?P<name>question|rewritten\w*|search\w*|quer(?:y|ies)) (?:[ ](?:question|query)|\s*\d+)?
    ["'*]*\s*[:=]\s*(?P<value>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+(?P<value>.+)$")  # of a list, below a field


def _lines(text: str) -> list[str]:
    """The lines of a text; of one that holds a JSON object, a line for each value in it."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError:
        return text.split("\n")
    return [
        f"{name}: {value}"
        for name, values in found.items()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, str)
    ]


def _line(text: str) -> str:
    return " ".join(text.split())
