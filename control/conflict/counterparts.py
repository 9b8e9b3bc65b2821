"""What a document says where another version of it claims the answer.

Versions of a document are worded anew, and the reader may find the answer in one of them alone;
then an outdated one would be followed. So in the others the sentence is found that is most
similar to the one with the claim, by the cosine of their embeddings, and it is read by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from control import prompts
from control.conflict.answerability import probability
from control.conflict.passage_claims import (
    LEAST_ANSWERS,
    MOST_FOUND,
    beside,
    date_of,
    document,
    is_outdated,
    passage_text,
    place_of,
    sentence_at,
    sentences_of,
    title_read,
    ways_to_ask,
)
from control.conflict.reader import Reading

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore

    from control.conflict.reader import AnswerReader

# Least cosine of two sentences that are taken for each other's counterparts. Of 183 questions of
# which one of two held-out versions (`training/dated.jsonl`) claims the answer, the other answers
# 151 and claims it for 122, 91 times rightly; this adds 18 right claims and 6 wrong ones, and of
# the 16 that it leaves open 6, 4 of which agree. Of 174 texts beside them that leave the question
# open and claim nothing (`training/companions.jsonl`) 15 would claim something, 6 of which agree.
# With 0.4 it would be 25 and 6, and 33 of 174.
ALIKE = 0.5
# The same of a later document that the filter dropped. Of 198 questions to 175 documents of 50
# owners in one index (`training/folders.jsonl`, every other one), 68 of which several documents
# answer differently, the newest answer is followed for 30 instead of 27 and an outdated one for 10
# instead of 13; of the other 130 nothing changes. With 0.5 it is 30 and 9, and one more is wrong.
ALIKE_DROPPED = 0.6


@dataclass(frozen=True)
class _Counterpart:
    """A sentence of a passage that stands for the one in which another version makes a claim."""

    place: int
    way: str
    start: int
    sentence: str


def read_counterparts(
    reader: "AnswerReader",
    embed_model: "BaseEmbedding",
    question: str,
    read: "Sequence[tuple[NodeWithScore, Reading]]",
    found: "Sequence[NodeWithScore]",
) -> "list[tuple[NodeWithScore, Reading]]":
    """The readings, with those of documents that claim nothing where another version does.

    Args:
        reader: The reader.
        embed_model: Compares sentences; the packaged one, on which the least cosine was measured.
        question: The question.
        read: Passages, each with what the reader found in it.
        found: All that were found with them.

    Returns:
        The same passages; a reading is another one where a counterpart claims something. Then those
        that were found, but not read, of later documents, which do so.
    """
    sure = [pair for pair in read if pair[1].answers >= LEAST_ANSWERS and pair[1].answer]
    claimed = [(node, sentence_at(node.text, place_of(node, reading))) for node, reading in sure]
    claiming = {document(node) for node, _ in sure}
    ids = {node.node_id for node, _ in read}
    later = [
        node
        for node in found[:MOST_FOUND]
        if node.node_id not in ids and sure and all(_is_later(node, one) for one, _ in sure)
    ]
    changed = [*read, *((node, Reading()) for node in later)]
    asked = [
        counterpart
        for place, (node, _) in enumerate(changed)
        if document(node) not in claiming
        and (claims := [said for one, said in claimed if _of_another_time(node, one)])
        for counterpart in _counterparts(
            embed_model,
            question,
            place,
            node,
            claims,
            ALIKE_DROPPED if place >= len(read) else ALIKE,
        )
    ]
    nodes = [node for node, _ in changed]
    titled = [prompts.with_title(title_read(nodes[each.place]), each.sentence) for each in asked]
    pairs = [(each.way, text) for each, text in zip(asked, titled, strict=True)]
    near = beside(nodes, found)
    for each, (_, alone), reading in zip(asked, pairs, reader.read(pairs), strict=True):
        node, known = changed[each.place]
        text, within = passage_text(node), reading.start - len(alone) + len(each.sentence)
        likely = probability(each.way, text, reading.answers, near[each.place])
        if reading.answer and within >= 0 and likely >= max(LEAST_ANSWERS, known.answers):
            start = len(text) - len(node.text) + each.start + within
            changed[each.place] = node, replace(reading, start=start, answers=likely)
    return [*changed[: len(read)], *(pair for pair in changed[len(read) :] if pair[1].answer)]


def _is_later(node: "NodeWithScore", other: "NodeWithScore") -> bool:
    """Whether a passage is of a document that is dated later than another's, or a later version."""
    date, of_other = date_of(node), date_of(other)
    later = bool(of_other) and date > of_other and not date.startswith(of_other)
    return later or is_outdated(other, node)


def _of_another_time(node: "NodeWithScore", other: "NodeWithScore") -> bool:
    """Whether passages are of documents with different dates, or of two versions of one."""
    return _is_later(node, other) or _is_later(other, node)


def _counterparts(
    embed_model: "BaseEmbedding",
    question: str,
    place: int,
    node: "NodeWithScore",
    claims: Sequence[str],
    alike: float,
) -> list[_Counterpart]:
    """The sentence of a passage most similar to one of the claims', for each way to ask."""
    sentences = sentences_of(node.text) or [(0, node.text)]
    texts = [*(sentence for _, sentence in sentences), *claims]
    vectors = np.asarray(embed_model.get_text_embedding_batch(texts))  # of length 1
    cosines = (vectors[: len(sentences)] @ vectors[len(sentences) :].T).max(axis=1)
    best = int(cosines.argmax())
    if cosines[best] < alike:
        return []
    ways = ways_to_ask(question, date_of(node), node.text)
    return [_Counterpart(place, way, *sentences[best]) for way in ways]
