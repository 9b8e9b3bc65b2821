"""What the language model answers from single passages, where the reader may be wrong.

The reader is a small encoder, which often marks the wrong words of a text that answers, or of one
that does not. So a model that reads well is asked for the answer in a few words, of one passage at
a time:

- where the documents disagree, of each by itself; where those words stand in the passage, they are
  what it claims. That it answers at all is still told by the reader, since a model seldom says that
  a text does not; but for other versions of a document that does, of which nearly all answer;
- where what they claim is not sure, of the surest passage; if its answer stands there, claims that
  say something else count less, those that say the same a little more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import expit, logit

from control import prompts
from control.conflict import values
from control.conflict.notations import in_digits
from control.conflict.passage_claims import (
    LEAST_ALONE,
    LEAST_ANSWERS,
    document,
    is_outdated,
    passage_text,
    place_of,
    sentences_of,
)
from control.conflict.reader import Reading
from control.conflict.sources import CORRECTION
from control.engines.base import Engine, EnginePrompt, GenerationRequest, text
from foundation.tables import find_rows
from foundation.text import FUNCTION_WORDS, find, words

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore

    PassageReadings = list[tuple[NodeWithScore, Reading]]

LONGEST = 24  # tokens of an answer in a few words
CLAIMLESS = FUNCTION_WORDS | {"yes", "no"}  # that stand in a passage by chance
# Least cosine of two passages of documents with one title that are taken for versions of one text.
# Pairs of held-out versions (`training/dated.jsonl`) have 0.62 to 0.88.
ALIKE = 0.6
# How sure such a passage counts as being. Of 38 held-out versions in which the reader finds nothing
# sure, while it does in the one before, a model of 1.5B answers words of 29; 22 of them are right.
# Of 9, while it does in the next one, words of 8, of which 7 are right.
AS_SURE = LEAST_ALONE
# By how much the log-odds of a claim change that the model agrees with, or not, if what it answers
# stands in the passage. Of 113 surest claims between 0.5 and 0.99, of questions to the five most
# similar held-out documents, a model of 1.5B says the same as 59 of 60 right ones and 27 of 53
# wrong ones, and other words of the passage than 1 and 18. Of 41 surer ones it says others than 4,
# of which 3 are right. A model of 0.5B seldom answers in words of the passage: of 90, others than
# 2, both wrong. Of cells of tables 1.5B differs from 8 of 29 right ones and 8 of 10 others, so it
# is not asked of them.
AGREES, DIFFERS = 0.7, -2.6
BARS = (LEAST_ANSWERS, LEAST_ALONE)  # from which a claim counts


@dataclass(frozen=True)
class _Draft:
    """What is asked of the passage at a place of a question's: to answer it, for a purpose."""

    question: int
    place: int
    purpose: Literal["words", "version", "check"]


def reread(
    model: Engine,
    asked: "Sequence[tuple[str, PassageReadings]]",
    embed_model: "BaseEmbedding | None" = None,
) -> "list[PassageReadings]":
    """The readings, changed by what the model answers from some of the passages.

    Those are the passages that disagree, and where another version claims nothing, that one and
    those that claim something; otherwise the surest one, if its answer decides whether it counts.

    Args:
        model: The language model; all passages of all questions are one batch.
        asked: Questions, each with its passages and what the reader found in them.
        embed_model: Tells which passages are versions of one text; without it, none are.
    """
    requests, drafts = list[GenerationRequest](), list[_Draft]()
    for at, (question, read) in enumerate(asked):
        for draft in _drafts(at, question, read, embed_model):
            request = _request(model, question, read[draft.place][0])
            if request is not None:
                requests.append(request)
                drafts.append(draft)
    changed = [list(read) for _, read in asked]
    if not requests:
        return changed
    for draft, generated in zip(drafts, model.generate(requests), strict=True):
        question, read = asked[draft.question][0], changed[draft.question]
        said = text(generated.tokens).strip().strip("\"'“”").rstrip(".")
        node, reading = read[draft.place]
        claiming = _claiming(question, node, reading, said)
        if claiming is None:
            continue
        if draft.purpose == "check":
            changed[draft.question] = _checked(question, read, said)
        else:
            sure = AS_SURE if draft.purpose == "version" else 0.0
            read[draft.place] = node, replace(claiming, answers=max(claiming.answers, sure))
    return changed


def _drafts(
    at: int,
    question: str,
    read: "PassageReadings",
    embed_model: "BaseEmbedding | None",
) -> list[_Draft]:
    """What is asked for one question."""
    surest = _surest(read)
    silent = [] if embed_model is None else _silent(embed_model, read, surest)
    if silent or _disagree(question, read, surest):
        versions = [_Draft(at, place, "version") for place in silent]
        return [*(_Draft(at, place, "words") for place in surest), *versions]
    sure, place = max(
        ((each.answers, place) for place, (_, each) in enumerate(read) if each.answer),
        default=(0.0, 0),
    )
    if not any(_shifted(sure, DIFFERS) < bar <= _shifted(sure, AGREES) for bar in BARS):
        return []
    pinned = read[place][0].node_id.startswith(CORRECTION)
    return [] if pinned or _is_cell(*read[place]) else [_Draft(at, place, "check")]


def _is_cell(node: "NodeWithScore", reading: Reading) -> bool:
    """Whether what answers stands in a row of a table, where the reader marks better."""
    place = place_of(node, reading)
    return any(start <= place < end for start, end in find_rows(node.text))


def _checked(question: str, read: "PassageReadings", said: str) -> "PassageReadings":
    """The readings, with claims that say what the model does surer, and the others less sure."""
    shifts = [AGREES if _says(question, said, each.answer) else DIFFERS for _, each in read]
    return [
        (node, replace(each, answers=_shifted(each.answers, by)) if each.answer else each)
        for (node, each), by in zip(read, shifts, strict=True)
    ]


def _says(question: str, said: str, claim: str) -> bool:
    """Whether what the model answers, in a few words or a sentence, is a claim."""
    return (
        values.agrees(question, said, claim) or find(in_digits(said), in_digits(claim)) is not None
    )


def _shifted(probability: float, by: float) -> float:
    """A probability with other log-odds."""
    return float(expit(logit(probability) + by))


def _surest(read: "PassageReadings") -> list[int]:
    """The place of the surest passage of each document that claims something."""
    surest = dict[str, int]()
    for place, (node, reading) in enumerate(read):
        name = document(node)
        if reading.answer and reading.answers >= LEAST_ANSWERS:
            known = surest.setdefault(name, place)
            if reading.answers > read[known][1].answers:
                surest[name] = place
    return list(surest.values())


def _disagree(question: str, read: "PassageReadings", surest: Sequence[int]) -> bool:
    """Whether the claims at these places are different answers."""
    groups = values.group(question, [read[place][1].answer for place in surest])
    return len(set(groups)) > 1


def _silent(
    embed_model: "BaseEmbedding", read: "PassageReadings", surest: Sequence[int]
) -> list[int]:
    """The places of passages without a claim that are other versions of one with it.

    Of each document that which is most like it.
    """
    claiming = [read[place][0] for place in surest]
    documents = set(map(document, claiming))
    versions = [
        (place, node, others)
        for place, (node, _) in enumerate(read)
        if document(node) not in documents
        and (others := [one for one in claiming if _are_versions(one, node)])
    ]
    likest = dict[str, tuple[float, int]]()
    for place, node, others in versions:
        texts = [node.text, *(one.text for one in others)]
        own, *vectors = np.asarray(embed_model.get_text_embedding_batch(texts))  # of length 1
        found = max(float(own @ vector) for vector in vectors), place
        likest[document(node)] = max(likest.get(document(node), found), found)
    return [place for alike, place in likest.values() if alike >= ALIKE]


def _are_versions(one: "NodeWithScore", other: "NodeWithScore") -> bool:
    return is_outdated(one, other) or is_outdated(other, one)


def _request(model: Engine, question: str, node: "NodeWithScore") -> GenerationRequest | None:
    """What asks for the answer of one passage; ``None`` where it does not fit into the window."""
    room = model.room(LONGEST)
    prompt = prompts.build(
        model, question, [node.text], room, titles=[prompts.origin(node.metadata)]
    )
    briefly = prompts.briefly(model, prompt, room) if prompt.texts else None
    if briefly is None:
        return None
    return GenerationRequest(
        EnginePrompt(briefly.context, briefly.context_chat), max_new_tokens=LONGEST
    )


def _claiming(question: str, node: "NodeWithScore", reading: Reading, said: str) -> Reading | None:
    """What a passage claims if the model answers so; ``None`` where the passage lacks that."""
    if not words(said) - CLAIMLESS:
        return None
    if reading.answer and values.agrees(question, said, reading.answer):
        return reading
    asked, held = words(question) - FUNCTION_WORDS, list[tuple[int, Reading]]()
    before = len(passage_text(node)) - len(node.text)
    for start, sentence in sentences_of(node.text) or [(0, node.text)]:
        place = find(sentence, said)
        if place is not None:
            answer, begins = sentence[place[0] : place[1]], start + place[0]
        elif find(in_digits(sentence), in_digits(said)) is not None:
            answer, begins = said, start  # "3 weeks", where the sentence has "three weeks"
        else:
            continue
        shared = len(words(sentence) & asked)
        held.append((shared, replace(reading, answer=answer, start=before + begins)))
    return max(held, key=lambda each: each[0], default=(0, None))[1]
