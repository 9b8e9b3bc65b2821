"""A small corpus of made-up facts, and memories of them that no model had to be asked for."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from retrieval.embedding import unit_vectors
from tests.retrieval.conftest import BagOfWords
from training.corpus import CorpusFact
from training.probing import Memory

NAMES = [a + b + c for a in "BDFGHJ" for b in "aeiou" for c in "xyz"]  # ninety, all as long
TOWNS, SHIPS = NAMES[:45], NAMES[45:]


def town(place):
    name = TOWNS[place]
    return CorpusFact(
        f"town-{place}",
        f"Where is {name}?",
        (f"Land{name}", f"Old{name}"),
        f"{name} is in Land{name}. Old{name} is its name.",
        "town",
    )


def ship(place):
    name = SHIPS[place]
    return CorpusFact(
        f"ship-{place}",
        f"Who built {name}?",
        (f"Wright{name}",),
        f"Wright{name} built {name}.",
        "ship",
    )


@pytest.fixture
def facts():
    return [town(place) for place in range(len(TOWNS))] + [
        ship(place) for place in range(len(SHIPS))
    ]


@pytest.fixture
def embed():
    bag = BagOfWords()
    return lambda texts: unit_vectors(np.array([bag._vector(text) for text in texts]))


def remembered(fact, right):
    """What a model says that knows the fact, or that takes it for something else."""
    verb = "lies in" if fact.kind == "town" else "is by"
    subject = fact.question.split()[-1].rstrip("?")
    claim = fact.answers[0] if right else "Nowhere"
    said = f"{subject} {verb} {claim}."
    return Memory(said, (said,) * 4, f"{subject} {verb} {fact.answers[0]}.")


@pytest.fixture
def memories(facts):
    """Every second fact is known."""
    return [remembered(fact, place % 2 == 0) for place, fact in enumerate(facts)]


@pytest.fixture
def fresh(tiny):
    """The tiny model for one alone: training changes it."""
    return lambda: replace(
        tiny, model=copy.deepcopy(tiny.model), tokenizer=copy.deepcopy(tiny.tokenizer)
    )
