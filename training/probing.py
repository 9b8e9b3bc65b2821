"""What does this model know? Asked closed-book several times, its agreement tells.

The memory whose preference is trained must be the model's own: answers that another model
remembers teach it to make things up.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from control import prompts
from control.engines.transformers import LanguageModel
from control.module_models import replies
from foundation.jsonl import JsonlStore
from foundation.text import holds
from training.corpus import CorpusFact

SAMPLES = 5
TEMPERATURE = 0.5
AGREEMENT = 0.4  # share of the samples that must hold the answer for it to count as known
MAX_NEW_TOKENS = 32  # the answer stands in the first sentence
BATCH = 48  # short prompts: a step costs little more than for one


@dataclass(frozen=True)
class Memory:
    """What the model says to a question.

    Attributes:
        greedy: Its likeliest first sentence, closed-book.
        samples: Further ones, drawn at `TEMPERATURE`.
        reading: The likeliest with the passage that answers.
    """

    greedy: str
    samples: tuple[str, ...]
    reading: str

    def agreement(self, answers: Sequence[str]) -> float:
        """Share of the samples that hold an answer, in [0, 1]: how sure the memory is."""
        return sum(holds(sample, answers) for sample in self.samples) / max(len(self.samples), 1)

    def knows(self, answers: Sequence[str]) -> bool:
        """Whether it replies rightly, and not by a lucky draw."""
        return holds(self.greedy, answers) and self.agreement(answers) >= AGREEMENT


def probe(
    language_model: LanguageModel,
    facts: Sequence[CorpusFact],
    cache: Path,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[Memory]:
    """Ask a model about facts, closed-book and with their passages.

    Replies are kept in ``cache`` by model and question: what was asked once, in this run or in
    another, is not asked again.

    Args:
        language_model: The model.
        facts: What to ask.
        cache: Directory of the replies.
        samples: Draws for each question.
        seed: Of the draws.

    Returns:
        One memory for each fact.
    """
    drawn = {"samples": samples, "temperature": TEMPERATURE, "seed": seed}
    header = {"model": language_model.name, "identity": language_model.identity, **drawn}
    digest = hashlib.sha256(repr(header).encode()).hexdigest()[:16]
    kept: JsonlStore[str, list] = JsonlStore(cache / f"{digest}.jsonl", header)
    keys = [_key(fact) for fact in facts]
    todo = [fact for fact, key in zip(facts, keys, strict=True) if key not in kept]
    todo.sort(key=lambda fact: len(fact.passage))
    with tqdm(total=len(facts), desc="probing", unit=" facts", delay=2) as bar:
        bar.update(len(facts) - len(todo))
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            kept.add(_reply(language_model, batch, samples, seed + start))
            bar.update(len(batch))
    found = [kept[key] for key in keys]
    return [Memory(greedy, tuple(drawn), reading) for greedy, drawn, reading in found]


def _reply(
    language_model: LanguageModel, facts: Sequence[CorpusFact], samples: int, seed: int
) -> dict[str, list]:
    room = language_model.room(MAX_NEW_TOKENS)
    closed = [prompts.build(language_model, fact.question, (), room).context for fact in facts]
    given = [
        prompts.build(language_model, fact.question, [fact.passage], room).context for fact in facts
    ]

    def sentences(texts: list[str], **drawing: Any) -> list[str]:
        return replies(language_model, texts, MAX_NEW_TOKENS, sentence=True, **drawing)

    said, read = sentences(closed), sentences(given)
    drawn = sentences(closed, samples=samples, temperature=TEMPERATURE, seed=seed)
    return {
        _key(fact): [said[place], drawn[place * samples : (place + 1) * samples], read[place]]
        for place, fact in enumerate(facts)
    }


def _key(fact: CorpusFact) -> str:
    return hashlib.sha256(f"{fact.question}\n{fact.passage}".encode()).hexdigest()[:32]
