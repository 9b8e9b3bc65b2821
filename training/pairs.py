"""What to learn from: answers to follow, and pairs of an answer to prefer and one to avoid.

KnowPO (Zhang et al. 2024) names two errors. Contextual ignorance: the passages answer, the model
answers from memory. Contextual overinclusion: it answers with a wrong span of the passages. An
answer has one form throughout, a sentence in the model's own words with the answer in its place, so
that chosen and rejected differ in what they claim and in nothing else.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from control.forgetting.parts import parts
from foundation.errors import DataError
from foundation.text import holds, words
from training.conflicts import Context, ContextCase, Kind
from training.probing import Memory

Length = Callable[[str], int]
"""Of a text, in tokens"""

Ratios = Mapping[str, float]
Error = Literal["ignorance", "overinclusion"]

REFUSALS = (
    "I don't know.",
    "I don't know the answer.",
    "I don't know the answer to this question.",
    "I don't know, and the passages do not say it either.",
    "I don't know the answer to this question, and the passages do not give it either.",
)
REFUSED = re.compile(r"\b(?:do not|don['’]t|does not|cannot|can['’]t) (?:know|say|tell)\b", re.I)
ENDS = (".", "!")
TELLING = 4  # letters of a word that tells what is asked about
LONGEST = 40  # tokens of a sentence that makes a form
APART = 0.25  # share of the longer answer by which lengths may differ

# Shares of the kinds. The released code takes as many of each as its data give; these shares are
# this project's choice, since neither paper nor code states any.
SFT_RATIOS: Ratios = {
    "relevant": 3,
    "counterfactual": 2,
    "irrelevant, known": 2,
    "irrelevant, unknown": 1,  # more of them, and what is known is refused, too
    "empty, known": 2,  # else what was known is forgotten
}
DPO_RATIOS: Ratios = {
    "ignorance, counterfactual": 1,
    "ignorance, relevant": 1,
    "overinclusion, relevant": 1,
    "overinclusion, irrelevant, known": 1,
    "overinclusion, irrelevant, unknown": 0.25,  # at 1, soon all is refused beside such passages
}


@dataclass(frozen=True)
class ExampleForm:
    """A sentence with a gap where the answer stands."""

    before: str
    after: str

    def say(self, answer: str) -> str:
        """The sentence with this answer."""
        said = f"{self.before}{answer}{self.after}"
        return said[:1].upper() + said[1:]


@dataclass(frozen=True)
class PreferenceExample:
    """Something to learn.

    Attributes:
        fact: Its id.
        kind: A key of `SFT_RATIOS` or `DPO_RATIOS`.
        question: The question.
        passages: What is read with it.
        chosen: The answer to give.
        rejected: The one to avoid; empty in supervised fine-tuning.
    """

    fact: str
    kind: str
    question: str
    passages: tuple[str, ...]
    chosen: str
    rejected: str = ""


@dataclass
class ExampleSet:
    """Examples, and how many facts were of no use, by reason."""

    examples: list[PreferenceExample]
    left_out: Counter[str] = field(default_factory=Counter)


def build_sft(
    cases: Sequence[ContextCase],
    memories: Sequence[Memory],
    length: Length,
    count: int,
    ratios: Ratios = SFT_RATIOS,
    seed: int = 0,
) -> ExampleSet:
    """Answers to follow, ``count`` of them in the proportions of ``ratios``.

    Raises:
        DataError: The model knows none of the facts, or a kind that is wanted has no example.
    """
    made = _find_forms(cases, memories, length)
    found: dict[str, list[PreferenceExample]] = defaultdict(list)
    for case, memory, form in made.formed:
        right = case.fact.answers
        known, said = memory.knows(right), form.say(right[0])
        found["relevant"].append(_example(case, "relevant", "relevant", said))
        instead = "irrelevant, known" if known else "irrelevant, unknown"
        unknown = _closest(REFUSALS, length(said), length)
        found[instead].append(_example(case, instead, "irrelevant", said if known else unknown))
        if known:
            contrary = form.say(case.counterfactual.says[0])
            found["counterfactual"].append(
                _example(case, "counterfactual", "counterfactual", contrary)
            )
            found["empty, known"].append(_example(case, "empty, known", "empty", said))
    return ExampleSet(_draw_examples(found, ratios, count, seed), made.left_out)


def build_dpo(
    cases: Sequence[ContextCase],
    memories: Sequence[Memory],
    length: Length,
    count: int,
    ratios: Ratios = DPO_RATIOS,
    match_lengths: bool = True,
    seed: int = 0,
) -> ExampleSet:
    """Pairs of an answer to prefer and one to avoid, as `build_sft`.

    Args:
        cases: Facts with their contexts.
        memories: What the model says to each.
        length: Of a text, in tokens.
        count: Pairs.
        ratios: Proportions of the kinds.
        match_lengths: Only pairs of like length. Otherwise memory's wrong answer is the whole
            reply, as in the released code, where it is 1.8 times as long as the chosen one.
        seed: Of the draw.

    Raises:
        DataError: As `build_sft`.
    """
    made = _find_forms(cases, memories, length)
    found: dict[str, list[PreferenceExample]] = defaultdict(list)
    for case, memory, form in made.formed:
        pairs = _pairs(case, memory, form, length, match_lengths)
        for kind, context, chosen, rejected in pairs:
            if match_lengths and not _has_similar_length(length(chosen), length(rejected)):
                made.left_out[f"{kind}: lengths apart"] += 1
                continue
            found[kind].append(_example(case, kind, context, chosen, rejected))
    return ExampleSet(_draw_examples(found, ratios, count, seed), made.left_out)


def _pairs(
    case: ContextCase, memory: Memory, form: ExampleForm, length: Length, match_lengths: bool
) -> list[tuple[str, Kind, str, str]]:
    """Kind, context, chosen and rejected."""
    right = case.fact.answers
    said = form.say(right[0])
    made: list[tuple[str, Kind, str, str]] = []
    if memory.knows(right):
        contrary = form.say(case.counterfactual.says[0])
        remembered = said if match_lengths else memory.greedy
        made.append(("ignorance, counterfactual", "counterfactual", contrary, remembered))
        if taken := _say_wrong_span(case.irrelevant, right, form, length, said):
            made.append(("overinclusion, irrelevant, known", "irrelevant", said, taken))
    else:
        wrong = [] if holds(memory.greedy, right) else [memory.greedy]
        if match_lengths:
            wrong = [first_sentence(reply) for reply in (memory.greedy, *memory.samples)]
            wrong = [reply for reply in wrong if reply and not holds(reply, right)]
        if wrong:
            remembered = _closest(wrong, length(said), length)
            made.append(("ignorance, relevant", "relevant", said, remembered))
        if taken := _say_wrong_span(case.irrelevant, right, form, length, said):
            refusal = _closest(REFUSALS, length(taken), length) if match_lengths else REFUSALS[0]
            made.append(("overinclusion, irrelevant, unknown", "irrelevant", refusal, taken))
    if taken := _say_wrong_span(case.relevant, right, form, length, said):
        made.append(("overinclusion, relevant", "relevant", said, taken))
    return made


def _say_wrong_span(
    context: Context, right: Sequence[str], form: ExampleForm, length: Length, said: str
) -> str | None:
    """The answer with a wrong span of the passages, about as long as what is said instead."""
    wrong = [form.say(span) for span in context.distractors if not holds(span, right)]
    return _closest(wrong, length(said), length) if wrong else None


@dataclass
class _FormedCases:
    formed: list[tuple[ContextCase, Memory, ExampleForm]]
    left_out: Counter[str]


def _find_forms(
    cases: Sequence[ContextCase], memories: Sequence[Memory], length: Length
) -> _FormedCases:
    """The facts for which the model has a sentence, with it."""
    formed, left_out = [], Counter[str]()
    for case, memory in zip(cases, memories, strict=True):
        form = find_form(memory, case.fact.answers, length)
        if form is None:
            left_out["the model forms no sentence with the answer"] += 1
        else:
            formed.append((case, memory, form))
    if not any(memory.knows(case.fact.answers) for case, memory, _ in formed):
        raise DataError(
            f"the model knows none of {len(cases)} facts closed-book "
            f"({len(cases) - len(formed)} of them it cannot even read off a passage); "
            "give questions that it can answer, or a stronger model"
        )
    return _FormedCases(formed, left_out)


def find_form(memory: Memory, answers: Sequence[str], length: Length) -> ExampleForm | None:
    """The shortest sentence of the model that states the answer once, with a gap in its place."""
    names = "|".join(re.escape(name) for name in sorted(answers, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE)
    forms = []
    for reply in (memory.greedy, memory.reading, *memory.samples):
        sentence = first_sentence(reply)
        stated = list(pattern.finditer(sentence))
        if len(stated) == 1 and length(sentence) <= LONGEST and sentence.endswith(ENDS):
            start, end = stated[0].span()
            forms.append((length(sentence), ExampleForm(sentence[:start], sentence[end:])))
    return min(forms, key=lambda one: one[0])[1] if forms else None


def to_cloze(case: ContextCase, memory: Memory, length: Length) -> ContextCase:
    """The fact asked as a sentence to finish ("The capital of Mexico is").

    The sentence is the model's own. Where the answer does not end it, or it lacks most of what is
    asked about ("The answer is"), the case is as it was.
    """
    form = find_form(memory, case.fact.answers, length)
    if form is None or form.after not in ENDS:
        return case
    about = {word for word in words(case.fact.question) if len(word) >= TELLING}
    if 2 * len(about & words(form.before)) < max(1, len(about)):
        return case
    return replace(case, fact=replace(case.fact, question=form.before.strip()))


def first_sentence(reply: str) -> str:
    """The first sentence of a reply."""
    found = parts(reply)
    return reply[slice(*found[0])].strip() if found else ""


def refuses(answer: str) -> bool:
    """Whether an answer says that it does not know."""
    return bool(REFUSED.search(first_sentence(answer)))


def _example(
    case: ContextCase, kind: str, context: Kind, chosen: str, rejected: str = ""
) -> PreferenceExample:
    passages = case.context(context).passages
    return PreferenceExample(case.fact.id, kind, case.fact.question, passages, chosen, rejected)


def _has_similar_length(one: int, other: int) -> bool:
    return abs(one - other) <= max(1.0, APART * max(one, other))


def _closest(texts: Sequence[str], wanted: int, length: Length) -> str:
    return min(texts, key=lambda text: abs(length(text) - wanted))


def _draw_examples(
    found: Mapping[str, list[PreferenceExample]], ratios: Ratios, count: int, seed: int
) -> list[PreferenceExample]:
    """``count`` examples in these proportions, fewer where a kind has not enough."""
    counts = {kind: len(found.get(kind, ())) for kind, share in ratios.items() if share}
    if empty := [kind for kind, there in counts.items() if not there]:
        raise DataError(
            f"no example of the kind {empty[0]!r} can be made "
            f"({', '.join(f'{kind}: {there}' for kind, there in counts.items())}); "
            "give more questions, or set its ratio to 0"
        )
    total = sum(ratios.values())
    scale = min([count, *(there * total / ratios[kind] for kind, there in counts.items())]) / total
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    chosen = [
        example
        for kind in counts
        for example in draw.sample(found[kind], max(1, round(scale * ratios[kind])))
    ]
    draw.shuffle(chosen)
    return chosen
