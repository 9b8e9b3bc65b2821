"""What the language model answers from each passage alone, where the passages disagree.

The reader is a small encoder, which often marks the wrong words of a text that answers. So a model
that reads well is asked for the answer in a few words, of each passage by itself; where those words
stand in the passage, they are what it claims. That the passage answers at all is still told by the
reader: a model seldom says that it does not.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from control import prompts
from control.conflict import values
from control.conflict.notations import in_digits
from control.conflict.passage_claims import LEAST_ANSWERS, document, passage_text, sentences_of
from control.conflict.reader import Reading
from control.engines.base import Engine, EnginePrompt, GenerationRequest, text
from foundation.text import FUNCTION_WORDS, find, words

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    PassageReadings = list[tuple[NodeWithScore, Reading]]

LONGEST = 24  # tokens of an answer in a few words
CLAIMLESS = FUNCTION_WORDS | {"yes", "no"}  # that stand in a passage by chance


def reread(
    model: Engine, asked: "Sequence[tuple[str, PassageReadings]]"
) -> "list[PassageReadings]":
    """The readings, those that disagree with the words that the model answers from each passage.

    Args:
        model: The language model; all passages of all questions are one batch.
        asked: Questions, each with its passages and what the reader found in them.
    """
    requests, owners = list[GenerationRequest](), list[tuple[int, int]]()
    for at, (question, read) in enumerate(asked):
        for place in _disputed(question, read):
            request = _request(model, question, read[place][0])
            if request is not None:
                requests.append(request)
                owners.append((at, place))
    if not requests:
        return [read for _, read in asked]
    changed = [list(read) for _, read in asked]
    for (at, place), generated in zip(owners, model.generate(requests), strict=True):
        node, reading = changed[at][place]
        said = text(generated.tokens).strip().strip("\"'“”").rstrip(".")
        changed[at][place] = node, _claiming(asked[at][0], node, reading, said)
    return changed


def _disputed(question: str, read: "PassageReadings") -> list[int]:
    """The places of the surest passages of documents that claim different answers."""
    surest = dict[str, int]()
    for place, (node, reading) in enumerate(read):
        name = document(node)
        if reading.answer and reading.answers >= LEAST_ANSWERS:
            known = surest.setdefault(name, place)
            if reading.answers > read[known][1].answers:
                surest[name] = place
    places = list(surest.values())
    groups = values.group(question, [read[place][1].answer for place in places])
    return places if len(set(groups)) > 1 else []


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


def _claiming(question: str, node: "NodeWithScore", reading: Reading, said: str) -> Reading:
    """What a passage claims if the model answers so; the reading where the passage lacks that."""
    if not words(said) - CLAIMLESS or values.agrees(question, said, reading.answer):
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
    return max(held, key=lambda each: each[0], default=(0, reading))[1]
