"""What the user should know about an answer, or about the model, one sentence each."""

from datetime import date
from typing import TYPE_CHECKING

from control.conflict import passage_claims
from control.conflict.calibration import ANY_MODEL, Calibration
from control.conflict.claims import ends_sentence
from control.conflict.dates import periods_named
from control.conflict.passage_claims import is_outdated
from control.conflict.policies import is_to_come
from control.conflict.sources import MEMORY
from control.engines.base import Engine
from control.engines.base import notices as engine_notices
from control.prompts import Quote
from control.state import QuestionState
from foundation.text import holds

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

NOT_CALIBRATED = (
    "the dial has not been calibrated for {model}: it judges by probabilities alone and may turn "
    "too far or too little; calibrate it by: fulcrum eval dial --calibrate --quick --out DIR"
)
NOTHING_FOUND = "no passages were found{so}; add documents by: fulcrum ingest"
NOTHING_KEPT = "none of the {found} passages found holds a clear answer{so}"
ALL_LATER = "all passages that may answer are dated later than {as_of}{so}"
FROM_MEMORY = ", so the answer is from memory alone"
NOT_SAID = "the passages claim {claims}, which the answer does not say"
NEAREST = (
    "no passage surely answers; the answer is the sentence that comes nearest "
    "(probability {sure:.2f})"
)
LEFT_OUT = (
    "no passage that was kept surely answers; the answer is a sentence of one that the filter had "
    "left out (probability {sure:.2f})"
)
CUT_OFF = "the answer was cut off at {tokens} tokens, the most that were allowed"
OUTDATED = (
    "a later document, {title}{dated}, was read and claims nothing sure about this; the answer may "
    "be outdated"
)
NOT_YET = "what the documents say here is dated {date}, and not yet in force"
UNSUPPORTED = "no passage that was read supports the answer, which may be made up"
REMEMBERED = "no passage that was read supports the answer; the model remembers it"
WITHOUT_SUPPORT = (UNSUPPORTED, REMEMBERED)
LIKELIEST = "of the {all} passages given, the {read} that most likely answer were read"
TOO_LONG = (
    "{dropped} of {all} passages did not fit into the model's window and were left out, "
    "the last ones first"
)


def of_answer(state: QuestionState, model: Engine) -> list[str]:
    """The notices of an answer, besides those of the steps.

    Args:
        state: Of its question.
        model: The language model.
    """
    return [*_of_passages(state), *_of_claims(state), *engine_notices(model)]


def of_model(name: str, calibration: Calibration) -> list[str]:
    """The notices that hold for every answer by the dial, to be told once.

    Args:
        name: Of the language model.
        calibration: Of the dial for it.
    """
    return [NOT_CALIBRATED.format(model=name)] if calibration.model == ANY_MODEL else []


def _of_passages(state: QuestionState) -> list[str]:
    """What was not found or not read."""
    notices, searched = [], state.query.given is None
    so = "" if state.abstained else FROM_MEMORY
    if searched and not state.retrieved:
        notices.append(NOTHING_FOUND.format(so=so))
    elif searched and not state.kept:
        notices.append(NOTHING_KEPT.format(found=len(state.retrieved), so=so))
    elif state.kept and not state.followed and state.dated_later:
        notices.append(ALL_LATER.format(as_of=state.query.sources.as_of, so=so))
    if not searched and len(state.kept) < len(state.retrieved):
        notices.append(LIKELIEST.format(all=len(state.retrieved), read=len(state.kept)))
    if dropped := len(state.followed) - len(state.read):
        notices.append(TOO_LONG.format(dropped=dropped, all=len(state.followed)))
    return notices


def _of_claims(state: QuestionState) -> list[str]:
    """What speaks against the answer, or lacks in it."""
    notices = []
    if _cut_off(state):
        notices.append(CUT_OFF.format(tokens=state.decoding.max_new_tokens))
    if (near := _nearest_told(state)) is not None:
        sure = near.confidence >= passage_claims.LEAST_ANSWERS  # of one that was read for it alone
        notices.append((LEFT_OUT if sure else NEAREST).format(sure=near.confidence))
    elif _unsupported(state):
        agreed = state.decoded is None or state.decoded.verdict is None
        remembers = agreed and any(each.source == MEMORY for each in state.claims)
        notices.append(REMEMBERED if remembers else UNSUPPORTED)
    elif unsaid := _unsaid(state):
        notices.append(NOT_SAID.format(claims=" and ".join(f'"{each}"' for each in unsaid)))
    asks_when = periods_named(state.search.query_str)  # of that time nothing is outdated
    if not asks_when and (later := _silent_later(state)) is not None:
        title, day = str(later.metadata.get("title", "")), passage_claims.date_of(later)
        notices.append(OUTDATED.format(title=title, dated=f" ({day})" if day else ""))
    dates = [claim.date for claim in state.settlement.claims if claim.followed]
    asked = asks_when or state.query.sources.as_of
    if dates and not asked and is_to_come(min(dates), date.today().isoformat()):
        notices.append(NOT_YET.format(date=min(dates)))
    return notices


def _nearest_told(state: QuestionState) -> Quote | None:
    """What comes nearest to a claim, where it was told in place of the model's answer."""
    if state.nearest is None or state.prompt is None or state.decoded is None:
        return None
    quote = state.prompt.quote
    told = quote is not None and state.decoded.trace.text.strip() == quote.text.strip()
    return state.nearest.quote if told else None


def _silent_later(state: QuestionState) -> "NodeWithScore | None":
    """A passage that claims nothing, of a later document than any of its title that claims.

    Where none claims anything, those that support the answer count.
    """
    claiming = {claim.source: claim.followed for claim in state.claims if claim.source != MEMORY}
    told = claiming or {name: True for each in state.citations for name in each.passages}
    read = [n for n in (*state.kept, *state.related) if n.node_id not in state.dated_later]
    telling = [node for node in read if node.node_id in told]
    documents = {passage_claims.document(node) for node in telling}
    return next(
        (
            node
            for node in read
            if passage_claims.document(node) not in documents
            and any(is_outdated(one, node) for one in telling if told[one.node_id])
            and not any(is_outdated(node, one) for one in telling)
        ),
        None,
    )


def _unsaid(state: QuestionState) -> list[str]:
    """What passages claim, where the answer says none of it and nothing else tells why."""
    told = state.decoded is None or state.decoded.follows_memory or state.settlement.reason
    if told or any(claim.followed for claim in state.claims):
        return []
    return list(dict.fromkeys(claim.says for claim in state.claims if claim.source != MEMORY))


def _cut_off(state: QuestionState) -> bool:
    """Whether the answer has come to its greatest length in the middle of a sentence."""
    trace = state.decoded.trace if state.decoded else None
    if trace is None or len(trace.tokens) < state.decoding.max_new_tokens:
        return False
    return not ends_sentence(trace.text.rstrip())


def _unsupported(state: QuestionState) -> bool:
    """Whether passages claim nothing and support no sentence, and no verdict says whose it is.

    A verdict does not if the answer, which is not memory's, lacks what it gives for the passages'.
    """
    checked = bool(state.citations) and not any(each.passages for each in state.citations)
    if not checked or state.settlement.claims or state.decoded is None:
        return False
    verdict, text = state.decoded.verdict, state.decoded.trace.text
    if verdict is None:
        return True
    return verdict.follows != MEMORY and not holds(text, [verdict.passages_say])
