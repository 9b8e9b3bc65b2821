"""Attribution: whom an answer follows, and which passages support each of its sentences."""

from dataclasses import replace

from control.conflict import values
from control.conflict.reader import AnswerReader
from control.conflict.sources import MEMORY, Citation, SourceClaim
from control.conflict.support import Support
from control.conflict.verdict import DecodedAnswer
from control.forgetting.suppressor import FactSuppressor
from control.state import ABSTAINED, QuestionState
from foundation import trace
from foundation.text import holds


def cite(
    state: QuestionState,
    reader: AnswerReader | None,
    support: Support | None,
    forgetting: FactSuppressor,
) -> QuestionState:
    """Say whom the answer follows, and which passages support each of its sentences.

    A passage whose claim the answer does not follow supports none.
    """
    decoded = state.decoded
    if decoded is None:
        return state
    with trace.step("cite"):
        claims, text = _claims(state, decoded, reader, forgetting), decoded.trace.text.strip()
        state = replace(state, claims=claims)
        if text and text == state.settlement.text:
            return replace(state, citations=state.settlement.citations)
        if support is None or text == ABSTAINED or not state.kept:
            return state
        against = {claim.source for claim in claims if not claim.followed}
        passages = [(name, read) for name, read in state.passages_read if name not in against]
        citations = support.cite(text, passages)
        if state.query.sources.policy == "majority" and state.settlement.decided:
            citations = _with_majority(state, text, citations, reader)
        return replace(state, citations=citations)


def _claims(
    state: QuestionState,
    decoded: DecodedAnswer,
    reader: AnswerReader | None,
    forgetting: FactSuppressor,
) -> list[SourceClaim]:
    """What each passage claims, and memory if it claims anything; which the answer follows."""
    claims, says = _followed(state, decoded, reader), decoded.memory
    if says is None or not forgetting.leak_free([says.text], state.facts):
        return claims
    groups = values.group(state.search.query_str, [*(each.says for each in claims), says.text])
    wins = decoded.follows_memory
    own = SourceClaim(
        MEMORY, says.text, confidence=decoded.confidence, group=groups[-1], followed=wins
    )
    if wins:
        claims = [replace(each, followed=each.group == own.group) for each in claims]
    return [*claims, own]


def _followed(
    state: QuestionState, decoded: DecodedAnswer, reader: AnswerReader | None
) -> list[SourceClaim]:
    """The claims of the passages; where nothing else decided, those that the answer makes."""
    settlement, claims = state.settlement, list(state.settlement.claims)
    agreed = state.strict and not settlement.disagree
    decided = settlement.decided or settlement.told or agreed
    if reader is None or decided or not claims:
        return claims
    question, said = state.search.query_str, decoded.trace.text
    [read] = reader.read([(question, said)])
    return [
        replace(each, followed=each.followed and _claims_it(question, each.says, read.answer, said))
        for each in claims
    ]


def _with_majority(
    state: QuestionState, text: str, citations: list[Citation], reader: AnswerReader | None
) -> list[Citation]:
    """Citations with all documents of the majority where a sentence claims what they do.

    What supports a sentence need not be all of those that count: one says "12 March 1968", and
    another one "1968".
    """
    if reader is None or not citations:
        return citations
    question, followed = state.search.query_str, [c for c in state.claims if c.followed]
    said = [text[each.start : each.end] for each in citations]
    readings = reader.read([(question, sentence) for sentence in said])
    cited = []
    for each, reading, sentence in zip(citations, readings, said, strict=True):
        claims = any(_claims_it(question, c.says, reading.answer, sentence) for c in followed)
        more = [c.source for c in followed if c.source != MEMORY] if claims else []
        cited.append(replace(each, passages=tuple(dict.fromkeys([*each.passages, *more]))))
    return cited


def _claims_it(question: str, says: str, answer: str, text: str) -> bool:
    """Whether a text, which the reader takes for this answer, claims what a passage says."""
    return values.agrees(question, says, answer) or holds(text, [says])
