"""Query Rewriter+ of ERM4: a question free of ambiguity, and several complementary searches."""

import difflib
import logging
import re
from collections.abc import Callable, Sequence

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.llms import LLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle

from foundation import trail
from foundation.text import words
from retrieval.rewriting import MOST_QUERIES, Rewrite, Turn, instructed, read_back, request

log = logging.getLogger(__name__)

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

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        history: Sequence[Turn] = metadata.get(HISTORY) or ()
        if not words(question):
            return QueryBundle(question, custom_embedding_strs=[question])
        wrote = self._llm.complete(self._request(question, history)).text
        rewrite = read_back(wrote, question)
        if rewrite is None or not _faithful(rewrite, question, history):
            log.info("unusable rewrite of %r: %r", question, wrote)
            trail.notice(NONSENSE)
            return QueryBundle(question, custom_embedding_strs=[question])
        queries = list(dict.fromkeys([rewrite.question, *rewrite.queries]))[:MOST_QUERIES]
        return QueryBundle(rewrite.question, custom_embedding_strs=queries)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


class SparingRewriter(BaseQueryTransform):
    """Rewrites only what the reservoir does not serve as it was asked.

    Rewriting takes longer than all other steps before the answer. A question without a
    conversation, for which a passage with a clear answer is already held, needs none.
    """

    def __init__(self, rewriter: BaseQueryTransform, served: Callable[[str], bool]) -> None:
        """Spare a rewriter where ``served`` says that the question itself is enough."""
        self._rewriter = rewriter
        self._served = served

    def _run(self, query_bundle: QueryBundle, metadata: dict) -> QueryBundle:
        question = query_bundle.query_str
        if not metadata.get(HISTORY) and self._served(question):
            return QueryBundle(question, custom_embedding_strs=[question])
        return self._rewriter.run(query_bundle, metadata)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


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
