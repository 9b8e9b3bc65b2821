"""Questions that a language model writes about passages, to train the Knowledge Filter on.

InPars (Bonifacio et al. 2022, "InPars: Data augmentation for information retrieval using large
language models"): a model writes a question for each of many passages, those that it wrote with
the highest probability are kept, and passages that a search finds for the question stand against
its own. As in Promptagator (Dai et al. 2022), a question whose own passage is not found is dropped.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from llama_index.core.schema import BaseNode
from numpy.typing import NDArray
from tqdm import tqdm

from control.engines.base import Engine, EnginePrompt, GenerationRequest
from foundation.jsonl import JsonlStore
from foundation.text import holds
from retrieval.index import PassageIndex
from training.corpus import CorpusFact
from training.verdicts import VerdictExample

ASKED_AT_ONCE = 8
LONGEST_QUESTION = 40  # tokens
LEAST_CHARACTERS = 200  # a shorter passage is a heading, or a line of a table
KEPT = 0.75  # of the questions, those of the highest mean log-probability; InPars keeps a tenth
FOUND_WITHIN = 10
WRONG_PASSAGES = 4  # for each question, of those found for it in other documents
NEAREST_MARGIN = 4  # more are looked at, as some hold the answer too
# Three examples, as in InPars: small models copy an instruction rather than follow it.
EXAMPLES = """\
Passage: pump.conf. The controller polls each sensor every 40 seconds; poll_every changes that. \
Values below 5 are refused, since the bus is then never idle.
Question: How often does the pump controller read its sensors by default?

Passage: Harbour Authority, minutes of the spring meeting. Mr Ekdahl reported that the east crane \
will be out of service until 14 June. The fee for berths longer than 30 m was raised to 210 euros.
Question: What does a berth of more than 30 m cost?

Passage: Command-line options. --keep-going: do not stop at the first damaged frame, but write a \
blank one and go on. --jobs N: decode N frames at a time (at most 16).
Question: which option makes the decoder continue after a damaged frame

"""
PROMPT = EXAMPLES + "Passage: {passage}\nQuestion:"


@dataclass(frozen=True)
class WrittenQuestion:
    """A question about a passage.

    Attributes:
        question: The question.
        log_p: Mean log-probability of its tokens, in nats.
    """

    question: str
    log_p: float


def write_questions(
    engine: Engine, passages: Sequence[BaseNode], target: Path
) -> dict[str, WrittenQuestion]:
    """Have a model write a question about each passage.

    Interrupted, the same call goes on from ``target``.

    Returns:
        By the passage's id; passages for which it wrote no question are left out.
    """
    kept: JsonlStore[str, WrittenQuestion] = JsonlStore(
        target / "questions.jsonl",
        {"model": engine.name},
        lambda row: (row.pop("passage"), WrittenQuestion(**row)),
        lambda name, row: {"passage": name, **asdict(row)},
    )
    left = [passage for passage in passages if passage.node_id not in kept]
    with tqdm(total=len(passages), initial=len(passages) - len(left), desc="questions") as bar:
        for start in range(0, len(left), ASKED_AT_ONCE):
            asked = left[start : start + ASKED_AT_ONCE]
            written = engine.generate([_request(engine, passage) for passage in asked])
            kept.add(
                {
                    passage.node_id: WrittenQuestion(
                        done.text.strip().split("\n")[0],
                        sum(token.log_p for token in done.tokens) / max(len(done.tokens), 1),
                    )
                    for passage, done in zip(asked, written, strict=True)
                }
            )
            bar.update(len(asked))
    chosen = {passage.node_id for passage in passages}
    return {
        name: row for name, row in kept.items() if name in chosen and row.question
    }


def draw_passages(index: PassageIndex, count: int, seed: int) -> list[BaseNode]:
    """Draw passages of an index at random, at most a few of each document."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    nodes = [node for node in index.all_nodes() if len(node.get_content()) >= LEAST_CHARACTERS]
    draw.shuffle(nodes)
    by_document: dict[str, list[BaseNode]] = {}
    for node in nodes:
        by_document.setdefault(str(node.ref_doc_id), []).append(node)
    turns = max(map(len, by_document.values()), default=0)
    ordered = [held[turn] for turn in range(turns) for held in by_document.values() if turn < len(held)]
    return ordered[:count]


def build_examples(
    written: dict[str, WrittenQuestion], index: PassageIndex, seed: int = 0
) -> list[VerdictExample]:
    """Build examples for the filter: each question with its own passage, and with others.

    Args:
        written: Questions by the id of their passage.
        index: Holds the passages.
        seed: Of the order.
    """
    order = sorted(written, key=lambda name: -written[name].log_p)
    best = order[: round(KEPT * len(order))]
    found = index.retrieve_batch([written[name].question for name in best], FOUND_WITHIN)
    examples = [
        example
        for name, nodes in zip(best, found, strict=True)
        for example in _examples(name, written[name].question, [each.node for each in nodes])
    ]
    random.Random(seed).shuffle(examples)  # noqa: S311
    return examples


def examples_of_facts(
    facts: Sequence[CorpusFact], vectors: Callable[[Sequence[str]], NDArray], seed: int = 0
) -> list[VerdictExample]:
    """Build examples for the filter from questions whose passages are known.

    Args:
        facts: Questions, each with a passage that answers it.
        vectors: Texts to unit vectors, shape (texts, dimension).
        seed: Of the order.
    """
    passages = list(dict.fromkeys(fact.passage for fact in facts))
    nearness = vectors([fact.question for fact in facts]) @ vectors(passages).T
    examples = []
    for fact, near in zip(facts, nearness, strict=True):
        order = [passages[place] for place in np.argsort(-near)[: WRONG_PASSAGES + NEAREST_MARGIN]]
        others = [text for text in order if not holds(text, fact.answers)][:WRONG_PASSAGES]
        for text in (fact.passage, *others):
            right = text == fact.passage
            examples.append(VerdictExample("real", "given", fact.question, "", text, right))
    random.Random(seed).shuffle(examples)  # noqa: S311
    return examples


def _examples(own: str, question: str, found: Sequence[BaseNode]) -> Iterator[VerdictExample]:
    right = [node for node in found if node.node_id == own]
    if not right:
        return
    others = [node for node in found if node.ref_doc_id != right[0].ref_doc_id]
    for node in (*right, *others[:WRONG_PASSAGES]):
        title = str(node.metadata["title"])
        text = node.get_content()
        yield VerdictExample("real", "written", question, title, text, node is right[0])


def _request(engine: Engine, passage: BaseNode) -> GenerationRequest:
    title, text = passage.metadata["title"], " ".join(passage.get_content().split())
    asked = PROMPT.format(passage=engine.without_markup(f"{title}. {text}"))
    return GenerationRequest(
        EnginePrompt(asked), max_new_tokens=LONGEST_QUESTION, ended=lambda text: "\n" in text.strip()
    )
