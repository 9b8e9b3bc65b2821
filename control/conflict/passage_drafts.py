"""What the language model answers from single passages, where the documents disagree.

The reader is a small encoder, which often marks the wrong words of a text that answers. So a model
that reads well is asked for the answer in a few words, of each passage by itself; where those words
stand in the passage, they are what it claims. That the passage answers at all is still told by the
reader, since a model seldom says that it does not; but for other versions of a document that does,
of which nearly all answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from control import prompts
from control.conflict import values
from control.conflict.notations import in_digits
from control.conflict.passage_claims import (
    LEAST_ALONE,
    LEAST_ANSWERS,
    document,
    is_outdated,
    passage_text,
    sentences_of,
)
from control.conflict.reader import Reading
from control.engines.base import Engine, EnginePrompt, GenerationRequest, text
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


def reread(
    model: Engine,
    asked: "Sequence[tuple[str, PassageReadings]]",
    embed_model: "BaseEmbedding | None" = None,
) -> "list[PassageReadings]":
    """The readings, some of them with the words that the model answers from the passage.

    Those are the passages that disagree, and where another version claims nothing, that one and
    those that claim something.

    Args:
        model: The language model; all passages of all questions are one batch.
        asked: Questions, each with its passages and what the reader found in them.
        embed_model: Tells which passages are versions of one text; without it, none are.
    """
    requests, owners = list[GenerationRequest](), list[tuple[int, int, float]]()
    for at, (question, read) in enumerate(asked):
        surest = _surest(read)
        silent = [] if embed_model is None else _silent(embed_model, read, surest)
        if not silent and not _disagree(question, read, surest):
            continue
        for place in [*surest, *silent]:
            request = _request(model, question, read[place][0])
            if request is not None:
                requests.append(request)
                owners.append((at, place, AS_SURE if place in silent else 0.0))
    if not requests:
        return [read for _, read in asked]
    changed = [list(read) for _, read in asked]
    for (at, place, sure), generated in zip(owners, model.generate(requests), strict=True):
        node, reading = changed[at][place]
        said = text(generated.tokens).strip().strip("\"'“”").rstrip(".")
        claiming = _claiming(asked[at][0], node, reading, said)
        if claiming is not None:
            answers = max(claiming.answers, sure)
            changed[at][place] = node, replace(claiming, answers=answers)
    return changed


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
