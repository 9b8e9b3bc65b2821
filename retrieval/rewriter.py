"""Query Rewriter+ of ERM4: a question free of ambiguity, and several complementary searches.

A rewrite has one form, written for training and read back with tolerance:

    Question: same            <- or the question, free of what only the conversation explains
    Search: Peru currency
    Search: The currency of Peru is

A search may name what an earlier one finds: in ``Search: capital of #1``, ``#1`` stands for the
answer to the first search.
"""

import difflib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import LLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle

from foundation import trace
from foundation.text import words
from foundation.trace import RequestTrace

log = logging.getLogger(__name__)

Turn = tuple[str, str]
"""(question, answer)"""

Asked = tuple[str, Sequence[Turn], RequestTrace]
"""A question, the conversation before it, and its trail."""

Served = Callable[[str], bool]
"""Whether a question, as it was asked, is enough to find what answers it."""

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
STEP = "rewrite"
HISTORY = "history"
NONSENSE = "the rewriter wrote nothing that can be used, so the question itself was searched"
ALIKE = 0.7  # of difflib's ratio: "Azerbajan" is meant where "Azerbaijan" is written
NAME = re.compile(r"\b[A-Z][\w'’-]+")
# What questions begin with: a capital letter there makes no name of it.
OPENERS = {
    *("a", "an", "and", "are", "at", "by", "can", "could", "did", "do", "does", "for", "from"),
    *("has", "have", "how", "i", "in", "is", "it", "its", "my", "name", "now", "of", "ok", "on"),
    *("or", "so", "tell", "the", "their", "then", "these", "they", "this", "those", "to", "under"),
    *("was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will"),
    *("with", "would"),
}


@dataclass(frozen=True)
class Rewrite:
    """A question made ready for search.

    Attributes:
        question: Free of ambiguity, as far as the rewriter could tell.
        queries: Searches, the most direct first; one may stand on an earlier one by ``#1``.
    """

    question: str
    queries: tuple[str, ...]


@runtime_checkable
class Batching(Protocol):
    """A language model that continues several texts in one batch."""

    def complete_batch(self, prompts: Sequence[str]) -> list[str]:
        """Continue each of the texts."""


class QueryRewriter(BaseQueryTransform):
    """Writes the question so that it stands on its own, and the searches that find its answer.

    The bundle that it returns has the clear question as ``query_str`` and the searches, the
    question itself first, as ``custom_embedding_strs``. The conversation so far is handed over as
    ``run(question, {"history": [(question, answer), ...]})``.
    """

    def __init__(self, llm: LLM, trained: bool) -> None:
        """Write with a language model.

        Args:
            llm: Any instruct model, or one that wears the rewriter's adapter.
            trained: Whether it wears it; one that does not is told what to do and shown examples.
        """
        self._llm = llm
        self._request = request if trained else instructed

    def rewrite_batch(self, asked: Sequence[Asked]) -> list[QueryBundle]:
        """Rewrite questions of several conversations in one batch."""
        found = [as_asked(question) for question, *_ in asked]
        places = [place for place, (question, *_) in enumerate(asked) if words(question)]
        prompts = [self._request(*asked[place][:2]) for place in places]
        started = time.perf_counter()
        wrote = _completed(self._llm, prompts) if prompts else []
        share = (time.perf_counter() - started) / max(len(prompts), 1)
        for place, text in zip(places, wrote, strict=True):
            question, history, followed = asked[place]
            followed.seconds[STEP] += share
            with trace.following(followed):
                found[place] = _read(text, question, history)
        return found

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        history: Sequence[Turn] = metadata.get(HISTORY) or ()
        if not words(question):
            return as_asked(question)
        return _read(self._llm.complete(self._request(question, history)).text, question, history)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


class ConditionalRewriter(BaseQueryTransform):
    """Rewrites only what is not served as it was asked.

    Rewriting takes longer than all other steps before the answer. A question without a
    conversation, for which a passage with a clear answer is at hand, needs none.
    """

    def __init__(self, rewriter: QueryRewriter, *served: Served) -> None:
        """Spare a rewriter where one of ``served``, asked in turn, finds the question enough."""
        self._rewriter = rewriter
        self._ways = served

    def rewrite_batch(self, asked: Sequence[Asked]) -> list[QueryBundle]:
        """Rewrite those of several questions that are not served, in one batch."""
        spared = []
        for question, history, followed in asked:
            with trace.following(followed):
                spared.append(not history and self._served(question))
        left = [each for each, enough in zip(asked, spared, strict=True) if not enough]
        rewritten = iter(self._rewriter.rewrite_batch(left))
        return [
            as_asked(question) if enough else next(rewritten)
            for (question, *_), enough in zip(asked, spared, strict=True)
        ]

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        if not metadata.get(HISTORY) and self._served(question):
            return as_asked(question)
        return self._rewriter.run(query_bundle, metadata)

    def _served(self, question: str) -> bool:
        return any(served(question) for served in self._ways)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


def as_asked(question: str) -> QueryBundle:
    """The question itself, and as the only search."""
    return QueryBundle(question, custom_embedding_strs=[question])


def _completed(llm: LLM, prompts: Sequence[str]) -> list[str]:
    """In one batch, if the model can."""
    if isinstance(llm, Batching):
        return llm.complete_batch(prompts)
    return [llm.complete(prompt).text for prompt in prompts]


def _read(wrote: str, question: str, history: Sequence[Turn]) -> QueryBundle:
    rewrite = read_back(wrote, question)
    if rewrite is None or not _faithful(rewrite, question, history):
        log.info("unusable rewrite of %r: %r", question, wrote)
        trace.notice(NONSENSE)
        return as_asked(question)
    queries = list(dict.fromkeys([rewrite.question, *rewrite.queries]))[:MOST_QUERIES]
    return QueryBundle(rewrite.question, custom_embedding_strs=queries)


def _faithful(rewrite: Rewrite, question: str, history: Sequence[Turn]) -> bool:
    """Whether every name in the rewrite was said, and every name in the question was kept.

    A small model may put a name of its own in the place of an unusual one.
    """
    said = words(" ".join([question, *(text for turn in history for text in turn)]))
    kept = words(rewrite.question)
    return all(_near(name, said) for name in _names(rewrite.question)) and all(
        _near(name, kept) for name in _names(question)
    )


def _names(text: str) -> set[str]:
    found = {word for name in NAME.findall(text) for word in words(name) if len(word) > 1}
    return found - OPENERS


def _near(name: str, said: set[str]) -> bool:
    return name in said or bool(difflib.get_close_matches(name, said, n=1, cutoff=ALIKE))


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
