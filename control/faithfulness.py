"""Faithfulness: what is told of the documents' claims, and answers that give way to them."""

from collections.abc import Sequence
from dataclasses import replace

from control import prompts
from control.conflict import policies, values
from control.conflict.policies import Settlement
from control.conflict.reader import AnswerReader, read_answers
from control.conflict.support import Support
from control.conflict.tables import cell_lines
from control.conflict.verdict import DecodedAnswer
from control.decoding.trace import written
from control.engines.base import Engine
from control.forgetting.suppressor import FactSuppressor
from control.forgetting.text_redaction import MASK
from control.state import ABSTAINED, QuestionState


def cleared(state: QuestionState, forgetting: FactSuppressor) -> Settlement:
    """What is told, without claims and names of documents that give a forgotten fact away.

    Where one claim is left, nothing is told: the model answers.
    """
    settled = state.settlement
    if not settled.told:
        return settled
    clear = forgetting.door.open(forgetting.watch(state.facts), state.question)
    free = set(forgetting.leak_free([each.says for each in settled.told], state.facts))
    told = []
    for each in settled.told:
        if each.says in free:
            names = dict.fromkeys(clear.name(name) or policies.WITHHELD for name in each.names)
            told.append(replace(each, names=tuple(names)))
    if len(told) <= 1:
        return replace(settled, told=(), reason="")
    return replace(settled, told=tuple(told))


def quote(
    state: QuestionState, model: Engine, support: Support | None, forgetting: FactSuppressor
) -> prompts.Quote | None:
    """What the passages claim, unless they disagree and nothing decides between them.

    Where they surely claim nothing, what comes nearest to that, of a table then the whole row. A
    quote would not follow a system message, which says how to answer: it counts as not sure then.
    """
    settlement, near, row = state.settlement, state.nearest, ""
    if near is not None:
        if MASK in forgetting.without_wording(near.sentence):
            return None  # it may come near by what it lacks
        text, says, sure = near.sentence, near.quote.claim, near.quote.confidence
    elif settlement.quoted and (settlement.decided or not settlement.disagree):
        whole, says = _quoted(settlement, forgetting), settlement.followed[0]
        text = _cell_told(whole, state, support)
        row = whole if text != whole else ""
        sure = max(each.confidence or 0.0 for each in settlement.claims if each.followed)
    else:
        return None
    text, sure = model.without_markup(text), 0.0 if state.query.system else sure
    return prompts.Quote(text, says, sure, row)


def hold_to_documents(
    states: Sequence[QuestionState],
    answers: Sequence[DecodedAnswer],
    reader: AnswerReader | None,
    support: Support | None,
    forgetting: FactSuppressor,
) -> list[DecodedAnswer]:
    """Answers of which the documents decide the words.

    Where documents disagree and nothing decides, every claim is told. Where one of them is
    followed, only documents are to be answered from, or a correction is pinned, an answer that
    does not claim what they do gives way to the sentence that does, or to `ABSTAINED`; in the
    last two cases sentences without support are left out. Of a row of a table the cell that answers
    is told, with its column and what names the row. An answer that follows memory stays
    where documents disagree, and what the guard has blocked stays blocked.
    """
    held, places = list(answers), list[int]()
    for at, state in enumerate(states):
        by_memory, settlement = held[at].follows_memory, state.settlement
        if settlement.told:
            held[at] = held[at] if by_memory else _all_told(state, held[at], forgetting)
        elif state.strict or (settlement.decided and not by_memory):
            places += [] if held[at].trace.blocked else [at]
    if reader is None or not places:
        return held
    asked = [(states[at].search.query_str, held[at].trace.text) for at in places]
    readings = read_answers(reader, asked)
    for at, (question, text), reading in zip(places, asked, readings, strict=True):
        settlement = states[at].settlement
        claimed = any(values.agrees(question, says, reading.answer) for says in settlement.followed)
        kept = text.strip() if claimed else ""
        if kept and states[at].strict:
            kept = _supported(text, states[at], support)
        told = _cell_told(kept or _quoted(settlement, forgetting), states[at], support)
        if not text.strip() == kept == told:
            held[at] = _rewritten_as(held[at], told or ABSTAINED)
        if kept != text.strip():
            if states[at].strict:
                held[at] = replace(held[at], conflict=False, verdict=None)
            else:
                held[at] = _judged_by(question, settlement.followed[0], held[at])
    return held


def _all_told(
    state: QuestionState, decoded: DecodedAnswer, forgetting: FactSuppressor
) -> DecodedAnswer:
    """Every claim of the documents in place of an answer."""
    decoded = _rewritten_as(decoded, forgetting.without_wording(state.settlement.text))
    for claim in state.settlement.followed:
        decoded = _judged_by(state.search.query_str, claim, decoded)
    return decoded


def _quoted(settlement: Settlement, forgetting: FactSuppressor) -> str:
    """The sentence that holds the claim to follow; the claim where it cannot be told."""
    says = [*settlement.followed, ""][0]
    whole = settlement.quoted or says
    told = forgetting.without_wording(whole)
    return whole if told == whole else forgetting.without_wording(says)


def _cell_told(told: str, state: QuestionState, support: Support | None) -> str:
    """What is told; where that is a row of a table, its cell that answers, if it can be cited."""
    says = {claim.source: claim.says for claim in state.settlement.claims if claim.followed}
    passages = [(name, text) for name, text in state.passages_read if name in says]
    for node in state.followed:
        if node.node_id not in says:
            continue
        for line in cell_lines(state.search.query_str, node.text, told, says[node.node_id]):
            cited = support.cite(line, passages) if support is not None else []
            if all(each.passages for each in cited):
                return line
    return told


def _supported(text: str, state: QuestionState, support: Support | None) -> str:
    """The sentences of an answer that a passage supports."""
    if support is None:
        return text.strip()
    cited = support.cite(text, state.passages_read)
    return " ".join(text[each.start : each.end] for each in cited if each.passages)


def _judged_by(question: str, claim: str, decoded: DecodedAnswer) -> DecodedAnswer:
    """A rewritten answer with the conflict between memory and what it now claims, if any."""
    verdict = decoded.verdict
    if verdict is None:
        return decoded
    if values.compare(question, claim, verdict.memory_says) != "contradictory":
        return replace(decoded, conflict=False, verdict=None)
    verdict = replace(verdict, passages_say=claim, follows="passages")
    return replace(decoded, verdict=verdict)


def _rewritten_as(decoded: DecodedAnswer, text: str) -> DecodedAnswer:
    """An answer with another text; one that the guard has blocked stays as it is."""
    if decoded.trace.blocked:
        return decoded
    trace = written(text)
    trace.withheld = list(decoded.trace.withheld)
    return replace(decoded, trace=trace)
