"""Known and unknown facts with their contexts, from the built-in corpus, conflicts or RAMDocs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.datasets import conflicts as datasets
from evaluation.datasets.formats import Conflict
from evaluation.datasets.questions import ramdocs_documents
from foundation import records
from foundation.errors import DataError
from foundation.records import DataRecord
from foundation.text import holds
from training import conflicts
from training.conflicts import PASSAGES, Context, ContextCase, Embed
from training.corpus import CorpusFact

RAMDOCS = frozenset({"documents", "gold_answers"})
FEWEST_DOCUMENTS = 2


@dataclass(frozen=True)
class Items:
    """What to ask.

    Attributes:
        name: Of the data.
        cases: Facts with their contexts.
    """

    name: str
    cases: tuple[ContextCase, ...]


def read(path: Path | None, split: str | None, limit: int | None, embed: Embed) -> Items:
    """Cases of a file, or of the built-in conflicts; of the latter the test split by default.

    Conflicts with a true passage get three other passages of the same file beside theirs; RAMDocs
    (Wang et al. 2025) brings its own: right ones, misinformation and noise.

    Raises:
        DataError: The file is no such file, or no case can be made of it.
    """
    if path is not None and set(_first(path).values) >= RAMDOCS:
        cases = _ramdocs(path, limit)
    else:
        source = path or datasets.BUILT_IN_CONFLICTS
        split = split or (None if path else "test")
        items = datasets.conflicts(source, split)
        cases = _conflicts(datasets.spread(items, limit), embed)
    if not cases:
        raise DataError(f"{path}: no item has a passage with the right answer; give such a file")
    of_split = f", {split}" if split else ""
    return Items(f"{path.name if path else 'built-in'}{of_split}", tuple(cases))


def _first(path: Path) -> DataRecord:
    loaded = records.load(path)
    if not loaded:
        raise DataError(f"{path}: no items; give conflicts as JSON Lines, CounterFact or RAMDocs")
    return loaded[0]


def _conflicts(items: Sequence[Conflict], embed: Embed) -> list[ContextCase]:
    facts = [
        CorpusFact(
            item.id,
            item.question,
            item.memory_answers,
            item.true_context,
            item.relation or "",
            (item.context, item.context_answers),
        )
        for item in items
        if item.true_context
    ]
    return conflicts.build(facts, embed)


def _ramdocs(path: Path, limit: int | None) -> list[ContextCase]:
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    cases = []
    for record in datasets.spread(records.load(path), limit):
        documents = ramdocs_documents(record)
        by_type = {
            kind: [text for which, text in documents if which == kind]
            for kind in ("correct", "misinfo", "noise")
        }
        right = records.texts(record, "gold_answers")
        wrong = records.aliases(record, "wrong_answers")
        noise = [text for text in by_type["noise"] if text and not holds(text, right)]
        if not noise or not by_type["correct"]:
            continue

        def mixed(answering: list[str], beside: list[str]) -> tuple[str, ...]:
            chosen = [*answering[:FEWEST_DOCUMENTS], *beside][:PASSAGES]
            return tuple(draw.sample(chosen, len(chosen)))

        fact = CorpusFact(
            str(record.number), records.text(record, "question"), right, by_type["correct"][0], ""
        )
        cases.append(
            ContextCase(
                fact,
                Context(mixed(by_type["correct"], noise), right, wrong),
                Context(mixed(by_type["misinfo"], noise), wrong, ()),
                Context(mixed([], noise), (), wrong),
            )
        )
    return cases
