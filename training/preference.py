"""Whom an answer follows: the passages, memory, a wrong span of the passages, or nobody.

The measures are this project's own, since KnowPO's formulas are not published:

- R_Ad, adherence: share of conflicts over known facts whose answer holds what the passages say and
  not what memory says;
- R_Ro, robustness: share of known facts that are still answered rightly with irrelevant passages,
  the answer holding nothing that those passages offer instead;
- refusal: share of unknown facts with irrelevant passages where the answer says that it does not
  know.
"""

from collections.abc import Sequence

import numpy as np

from control import prompts
from control.engines.transformers import LanguageModel
from control.module_models import replies
from control.prompts import SYSTEM
from foundation.errors import InputError
from foundation.text import holds
from training.conflicts import Context, ContextCase
from training.pairs import PreferenceExample, refuses

MAX_NEW_TOKENS = 32  # the answer stands in the first sentence
BATCH = 16
WANTED = ("R_Ad", "R_Ro", "kept")  # their sum chooses the adapter that is kept


def adheres(answer: str, case: ContextCase) -> bool:
    """Whether the answer follows the counterfactual passages, and they alone."""
    return holds(answer, case.counterfactual.says) and not holds(answer, case.fact.answers)


def is_robust(answer: str, case: ContextCase) -> bool:
    """Whether the answer is right although the passages are irrelevant, and owes them nothing."""
    wrong = [each for each in case.irrelevant.distractors if not holds(each, case.fact.answers)]
    asked = case.fact.question
    return holds(answer, case.fact.answers) and not any(
        holds(answer, [each]) for each in wrong if not holds(asked, [each])
    )


def build_prompt(
    language_model: LanguageModel, question: str, passages: Sequence[str] = (), system: str = SYSTEM
) -> str:
    """A prompt as the assistant writes it.

    Raises:
        InputError: It does not fit into the model's window; without one of its passages it would
            ask something else.
    """
    room = language_model.room(MAX_NEW_TOKENS)
    built = prompts.build(language_model.tokenizer, question, passages, room, system=system)
    if built.passages < len(passages):
        raise InputError(
            f"{len(passages)} passages do not fit into the {room:,} tokens that the window of "
            f"{language_model.name} leaves ({question!r}); give shorter passages"
        )
    return built.context


def answers(
    language_model: LanguageModel, cases: Sequence[tuple[ContextCase, Context]]
) -> list[str]:
    """Greedy answers of plain RAG to questions with these contexts, in batches of like length."""
    texts = [
        build_prompt(language_model, case.fact.question, context.passages)
        for case, context in cases
    ]
    said = dict[int, str]()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = replies(language_model, [texts[place] for place in places], MAX_NEW_TOKENS)
        said |= dict(zip(places, batch, strict=True))
    return [said[place] for place in range(len(texts))]


def measure_progress(
    language_model: LanguageModel, known: Sequence[ContextCase], unknown: Sequence[ContextCase]
) -> dict[str, float]:
    """Where training stands, in percent: R_Ad, R_Ro, refusal, and known facts that are kept.

    Args:
        language_model: With the adapter in training on.
        known: Facts that the base model knows.
        unknown: Facts that it does not know.
    """
    wrong = answers(language_model, [(case, case.counterfactual) for case in known])
    beside = answers(language_model, [(case, case.irrelevant) for case in known])
    alone = answers(language_model, [(case, case.context("empty")) for case in known])
    lost = answers(language_model, [(case, case.irrelevant) for case in unknown])
    flags = {
        "R_Ad": [adheres(answer, case) for answer, case in zip(wrong, known, strict=True)],
        "R_Ro": [is_robust(answer, case) for answer, case in zip(beside, known, strict=True)],
        "kept": [
            holds(answer, case.fact.answers) for answer, case in zip(alone, known, strict=True)
        ],
        "refusal": [refuses(answer) for answer in lost],
    }
    return {name: 100 * float(np.mean(each)) if each else 0.0 for name, each in flags.items()}


def trl_record(language_model: LanguageModel, example: PreferenceExample) -> dict[str, str]:
    """An example as trl reads it."""
    prompt = build_prompt(language_model, example.question, example.passages)
    if not example.rejected:
        return {"prompt": prompt, "completion": example.chosen}
    return {"prompt": prompt, "chosen": example.chosen, "rejected": example.rejected}
