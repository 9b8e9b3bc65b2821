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
from foundation.text import normalise, words
from foundation.trace import RequestTrace
from retrieval.stores.bm25 import STOP_WORDS

log = logging.getLogger(__name__)

Turn = tuple[str, str]
"""(question, answer)"""

RewriteRequest = tuple[str, Sequence[Turn], RequestTrace]
"""(question, the conversation before it, the question's trace)"""

SearchCheck = Callable[[str], bool]
"""Whether the question itself, not rewritten, finds a passage that answers it."""

SAME = "same"
MOST_QUERIES = 4
MOST_TURNS = 3  # of the conversation; what lies further back is seldom meant
LONGEST_TURN = 300  # characters of an earlier answer that the prompt repeats
LONGEST_QUERY = 300
# Characters of a question that is rewritten. A longer one cannot be written again in a line, and
# to read it would take as long as to answer it: it is searched as it is.
LONGEST_QUESTION = 2_000
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
NOT_REWRITTEN = (
    "the question was searched as it was asked and may not be understood without the conversation; "
    "ask it in full"
)
# What stands for something named before, besides the words of a question.
PRONOUNS = {
    *("he", "her", "hers", "him", "his", "it", "its", "one", "ones", "same", "she", "that"),
    *("their", "theirs", "them", "there", "these", "they", "this", "those"),
}
SPELLING_RATIO = 0.7  # of difflib's ratio: "Azerbajan" is meant where "Azerbaijan" is written
NAME = re.compile(r"\b[A-Z][\w'’-]+")
# What questions begin with: a capital letter there makes no name of it.
QUESTION_WORDS = {
    *("a", "an", "and", "are", "at", "by", "can", "could", "did", "do", "does", "for", "from"),
    *("has", "have", "how", "i", "in", "is", "it", "its", "my", "name", "now", "of", "ok", "on"),
    *("or", "so", "tell", "the", "their", "then", "these", "they", "this", "those", "to", "under"),
    *("was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will"),
    *("with", "would"),
}


@dataclass(frozen=True)
class Rewrite:
    """A rewritten question and its search queries.

    Attributes:
        question: The question, free of ambiguity.
        queries: Search queries, the most direct first; ``#1`` in one stands for what the first
            finds.
    """

    question: str
    queries: tuple[str, ...]


@runtime_checkable
class BatchLLM(Protocol):
    """A language model that continues several texts in one batch."""

    def complete_batch(self, prompts: Sequence[str]) -> list[str]:
        """Continue each of the texts."""


class _PromptlessTransform(BaseQueryTransform):
    """A transform that has no prompts to be changed from outside."""

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


class QueryRewriter(_PromptlessTransform):
    """Rewrites a question so that it stands on its own, with the search queries for its answer.

    The bundle that it returns has the rewritten question as ``query_str`` and the queries, that
    question first, as ``custom_embedding_strs``. Pass the conversation so far as
    ``run(question, {"history": [(question, answer), ...]})``. Without one the question stays as it
    was asked, since nothing in it refers to what was said before; its rewrite is only searched.
    """

    def __init__(self, llm: LLM, trained: bool) -> None:
        """Write with a language model.

        Args:
            llm: Any instruct model, or one with the rewriter's adapter.
            trained: Whether it has the adapter; others get instructions and examples.
        """
        self._llm = llm
        self._prompt = rewrite_prompt if trained else few_shot_prompt

    def rewrite_batch(self, requests: Sequence[RewriteRequest]) -> list[QueryBundle]:
        """Rewrite questions of several conversations in one batch."""
        bundles = [unchanged(question) for question, *_ in requests]
        places = [place for place, (question, *_) in enumerate(requests) if _rewritable(question)]
        prompts = [self._prompt(*requests[place][:2]) for place in places]
        started = time.perf_counter()
        completions = _complete(self._llm, prompts) if prompts else []
        share = (time.perf_counter() - started) / max(len(prompts), 1)
        for place, text in zip(places, completions, strict=True):
            question, history, request_trace = requests[place]
            request_trace.seconds[STEP] += share
            with trace.following(request_trace):
                bundles[place] = _to_bundle(text, question, history)
        return bundles

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        history: Sequence[Turn] = metadata.get(HISTORY) or ()
        if not _rewritable(question):
            return unchanged(question)
        return _to_bundle(
            self._llm.complete(self._prompt(question, history)).text, question, history
        )


class ConditionalRewriter(_PromptlessTransform):
    """Rewrites only the questions that do not find an answering passage as they are.

    Rewriting takes longer than all other steps before the answer.
    """

    def __init__(self, rewriter: QueryRewriter, *checks: SearchCheck) -> None:
        """Skip a rewriter where there is no conversation and one of ``checks`` is true."""
        self._rewriter = rewriter
        self._checks = checks

    def rewrite_batch(self, requests: Sequence[RewriteRequest]) -> list[QueryBundle]:
        """Rewrite those of several questions that need it, in one batch."""
        skipped = []
        for question, history, request_trace in requests:
            with trace.following(request_trace):
                skipped.append(not history and self._is_searchable(question))
        rest = [request for request, skip in zip(requests, skipped, strict=True) if not skip]
        rewritten = iter(self._rewriter.rewrite_batch(rest))
        return [
            unchanged(question) if skip else next(rewritten)
            for (question, *_), skip in zip(requests, skipped, strict=True)
        ]

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        if not metadata.get(HISTORY) and self._is_searchable(question):
            return unchanged(question)
        return self._rewriter.run(query_bundle, metadata)

    def _is_searchable(self, question: str) -> bool:
        return any(check(question) for check in self._checks)


def unchanged(question: str) -> QueryBundle:
    """Return the question itself, also as the only query."""
    return QueryBundle(question, custom_embedding_strs=[question])


def _rewritable(question: str) -> bool:
    return len(question) <= LONGEST_QUESTION and bool(words(question))


def _complete(llm: LLM, prompts: Sequence[str]) -> list[str]:
    """Continue prompts, in one batch if the model can."""
    if isinstance(llm, BatchLLM):
        return llm.complete_batch(prompts)
    return [llm.complete(prompt).text for prompt in prompts]


def _to_bundle(completion: str, question: str, history: Sequence[Turn]) -> QueryBundle:
    rewrite = parse_rewrite(completion, question)
    if rewrite is None or not _is_faithful(rewrite, question, history):
        log.info("unusable rewrite of %r: %r", question, completion)
        if history:  # a first question is answered as it was asked, whatever the rewrite
            trace.notice(NOT_REWRITTEN)
        before = [f"{asked} {question}" for asked, _ in history[-1:]]
        return QueryBundle(question, custom_embedding_strs=[question, *before])
    told = words(" ".join([question, *(text for turn in history for text in turn)]))
    searched = [query for query in rewrite.queries if _is_about(query, told)]
    asked = rewrite.question if history else question
    queries = list(dict.fromkeys([asked, rewrite.question, *searched]))[:MOST_QUERIES]
    return QueryBundle(asked, custom_embedding_strs=queries)


def _is_faithful(rewrite: Rewrite, question: str, history: Sequence[Turn]) -> bool:
    """Whether the rewrite adds no name or number to question and conversation, and drops none.

    A small model may replace an unusual name by another one, or ask again what was asked before, be
    it of something else: "How much is shipping to Norway?" is not "What is the capital of Norway?"
    after a question for a capital. So a question without a pronoun keeps all of its words.
    """
    before = {normalise(asked) for asked, _ in history} - {normalise(question)}
    if normalise(rewrite.question) in before:
        return False
    given = words(" ".join([question, *(text for turn in history for text in turn)]))
    rewritten, own = words(rewrite.question), words(question)
    alone = bool(history) and not own & PRONOUNS
    kept = own - STOP_WORDS - QUESTION_WORDS if alone else _names(question)
    return all(_occurs(name, given) for name in _names(rewrite.question)) and all(
        _occurs(name, rewritten) for name in kept
    )


def _is_about(query: str, told: set[str]) -> bool:
    """Whether a query shares a word with question and conversation.

    A model that was not trained to rewrite may copy a query from the examples of its prompt.
    """
    return not told.isdisjoint(words(query) - STOP_WORDS)


def _names(text: str) -> set[str]:
    """The words of its names, and all with a digit."""
    found = {word for name in NAME.findall(text) for word in words(name) if len(word) > 1}
    return (found - QUESTION_WORDS) | {word for word in words(text) if _has_digit(word)}


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def _occurs(name: str, text_words: set[str]) -> bool:
    """Whether the name is among the words, without digits also in a slightly different spelling."""
    return name in text_words or (
        not _has_digit(name)
        and bool(difflib.get_close_matches(name, text_words, n=1, cutoff=SPELLING_RATIO))
    )


def rewrite_prompt(question: str, history: Sequence[Turn]) -> str:
    """Return the prompt of a trained rewriter."""
    lines = []
    if history:
        lines.append("Conversation:")
        for asked, answered in history[-MOST_TURNS:]:
            lines += [f"Q: {_line(asked)}", f"A: {_line(answered)[:LONGEST_TURN]}"]
    return "\n".join([*lines, f"Asked: {_line(question)}", ""])


def few_shot_prompt(question: str, history: Sequence[Turn]) -> str:
    """Return the prompt for other models: instructions and two examples before it."""
    shown = [f"{rewrite_prompt(asked, past)}{rewrite}" for past, asked, rewrite in EXAMPLES]
    return "\n\n".join([INSTRUCTIONS, *shown, rewrite_prompt(question, history)])


def format_rewrite(question: str | None, queries: Sequence[str]) -> str:
    """Return a rewrite as a model writes it; ``None`` for a question that stands on its own."""
    return "\n".join([f"Question: {question or SAME}", *(f"Search: {query}" for query in queries)])


def parse_rewrite(text: str, asked: str) -> Rewrite | None:
    """Return the rewrite in what a model wrote, or ``None`` if there is none.

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
