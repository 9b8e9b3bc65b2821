"""Attribution: whom an answer follows, and which passages support each of its sentences."""

from collections.abc import Mapping
from dataclasses import replace

from control.conflict import values
from control.conflict.reader import AnswerReader, read_answers
from control.conflict.sources import MEMORY, Citation, SourceClaim
from control.conflict.support import Support, quotes
from control.conflict.verdict import DecodedAnswer
from control.forgetting.parts import parts
from control.forgetting.suppressor import FactSuppressor
from control.forgetting.text_redaction import MASK
from control.state import ABSTAINED, QuestionState
from foundation import trace
from foundation.text import holds

SAYS = 0.5  # the reader's probability from which a sentence of an answer answers the question
# The same of a passage, below which it supports no such sentence that does not stand there word for
# word. Of the passages that the encoder of support cites for the default model's answers about 24
# files (the calibration split of `evaluation/datasets/sources/files`) 1 of 40 for right ones is
# below, and 5 of 29 for wrong ones.
RULED_OUT = 0.1


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
        passages = [
            (name, _unredacted(read)) for name, read in state.passages_read if name not in against
        ]
        citations = support.cite(text, passages)
        if reader is not None:
            citations = _by_answers(state, text, citations, dict(passages), reader)
        return replace(state, citations=citations)


def _unredacted(passage: str) -> str:
    """A passage without the sentences in which "…" takes the place of a forgotten answer.

    They support no sentence that has anything else in that place.
    """
    return "".join(
        passage[start:end] for start, end in parts(passage) if MASK not in passage[start:end]
    )


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
    alone = not any(each.followed for each in claims) and holds(decoded.trace.text, [says.text])
    own = SourceClaim(
        MEMORY, says.text, confidence=decoded.confidence, group=groups[-1], followed=wins or alone
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
    [read] = read_answers(reader, [(question, said)])
    return [
        replace(each, followed=each.followed and _claims_it(question, each.says, read.answer, said))
        for each in claims
    ]


def _by_answers(
    state: QuestionState,
    text: str,
    citations: list[Citation],
    passages: Mapping[str, str],
    reader: AnswerReader,
) -> list[Citation]:
    """Citations of the sentences that answer the question by passages that answer it, too.

    To the encoder of support, which does not know the question, one thing is much like another: a
    ship's "120 passengers" support what is said of another ship. A passage that claims what the
    sentence does supports it, however short it is ("120"), or less precise ("1968").
    """
    question, followed = state.search.query_str, [c for c in state.claims if c.followed]
    said = [text[each.start : each.end] for each in citations]
    cited = []
    readings = read_answers(reader, [(question, one) for one in said])
    for each, sentence, read in zip(citations, said, readings, strict=True):
        if read.answers < SAYS:
            cited.append(each)
            continue
        answering = [
            name
            for name in each.passages
            if state.answering.get(name, 1.0) >= RULED_OUT or quotes(passages[name], sentence)
        ]
        claiming = [
            claim.source
            for claim in followed
            if claim.source in passages and _claims_it(question, claim.says, read.answer, sentence)
        ]
        cited.append(replace(each, passages=tuple(dict.fromkeys([*answering, *claiming]))))
    return cited


def _claims_it(question: str, says: str, answer: str, text: str) -> bool:
    """Whether a text, which the reader takes for this answer, claims what a passage says."""
    return values.agrees(question, says, answer) or holds(text, [says])
