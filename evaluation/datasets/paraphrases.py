"""Published formats whose prompts or answers are written anew.

As published they hold a finished prompt, a letter to choose or a sentence that no model repeats;
what is made of them here can be asked with a passage and without, and judged by its strings.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.datasets.conflict import Result, distinct
from foundation.errors import DataError
from foundation.records import DataRecord, text, texts, wrong

NO_POLARITY = "its two answers do not tell True from False"

WITH_CONTEXT, CLOSED_BOOK = 0, 1
PAIRED = "0 in one row and 1 in another of input_index {}"
NQ_SYNTH_PROMPT = re.compile(
    r"(?P<context>.+?)\s*\nUsing only the references listed above, answer the following question: "
    r"\nQuestion: (?P<question>.+)\nAnswer:",
    re.DOTALL,
)


@dataclass(frozen=True)
class _ParsedQuestion:
    """A passage of NQ-Synth with its question and answer, out of the authors' prompt."""

    record: DataRecord
    question: str
    context: str
    answer: str


def nq_synth(records: Sequence[DataRecord]) -> Iterator[Result]:
    """NQ-Synth (AdaCAD; Wang et al. 2024): a prompt with the passage and one without it.

    The authors' file holds every question twice, first with a swapped entity in the passage and
    then, further down, with the original one: together they are a conflict. A question that comes
    once leaves the memory's answer open.
    """
    twins: dict[str, list[_ParsedQuestion]] = {}
    for reading in _readings(records):
        twins.setdefault(reading.question, []).append(reading)
    for question, (swapped, *others) in twins.items():
        original = next((other for other in others if _is_original(other, swapped)), None)
        yield distinct(
            swapped.record,
            question=question,
            context=swapped.context,
            context_answers=(swapped.answer,),
            memory_answers=(original.answer,) if original else (),
            true_context=original.context if original else None,
        )


def _readings(records: Sequence[DataRecord]) -> Iterator[_ParsedQuestion]:
    """Join the rows with and without the passage by their index; the first holds all there is."""
    pairs: dict[int, dict[int, DataRecord]] = {}
    for record in records:
        index, process = (record.values.get(name) for name in ("input_index", "assigned_process"))
        if not isinstance(index, int):
            raise wrong(record, "input_index", "a whole number, the same in both rows of a pair")
        if process not in (WITH_CONTEXT, CLOSED_BOOK):
            raise wrong(record, "assigned_process", "0 (with the passage) or 1 (without)")
        if process in pairs.setdefault(index, {}):
            raise wrong(record, "assigned_process", PAIRED.format(index))
        pairs[index][process] = record
    for index, pair in pairs.items():
        record = pair.get(WITH_CONTEXT) or pair[CLOSED_BOOK]
        if len(pair) == 1:
            raise wrong(record, "assigned_process", PAIRED.format(index))
        match = NQ_SYNTH_PROMPT.fullmatch(text(record, "context_string").rstrip())
        if not match:
            raise wrong(record, "context_string", "a passage and a question in NQ-Synth's words")
        yield _ParsedQuestion(
            record, match["question"], match["context"], text(record, "gold_answers")
        )


def _is_original(other: _ParsedQuestion, swapped: _ParsedQuestion) -> bool:
    return swapped.context.replace(swapped.answer, other.answer) == other.context


NEGATIONS = re.compile(
    r"\b(not|no|none|never|nobody|nothing|neither|nor|without|cannot)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
COMMENTS = re.compile(r"\b(true|false|incorrect|claim|note|sorry)\b", re.IGNORECASE)


def conflictqa(record: DataRecord) -> Result:
    """ConflictQA (Xie et al. 2023), the StrategyQA part: yes-or-no questions.

    Its answers are whole sentences that no model repeats, so the question asks for True or False.
    Which of the two a sentence means shows in its negations: as many as the question's, or one
    more. "Yes" and "No" do not count, because "no" also stands in sentences that mean yes.

    The memory's answer is what another model remembered, right or not; its passage is a true one
    only where it is right.
    """
    truth = texts(record, "ground_truth")[0].strip(" .")
    if truth not in {"True", "False"}:
        raise DataError(
            f"{record.where}: field 'ground_truth' is {truth!r}, must be ['True'] or ['False']; "
            "of ConflictQA only the StrategyQA part can be judged"
        )
    question = text(record, "question").strip()
    remembered, contrary = text(record, "memory_answer"), text(record, "counter_answer")
    if COMMENTS.search(remembered + " " + contrary):
        return NO_POLARITY
    asked, memory_odd, contrary_odd = (
        len(NEGATIONS.findall(sentence)) % 2 for sentence in (question, remembered, contrary)
    )
    if memory_odd == contrary_odd:
        return NO_POLARITY
    memory = str(memory_odd == asked)
    return distinct(
        record,
        question=f"{question} Answer True or False.",
        context=text(record, "counter_memory"),
        context_answers=(str(contrary_odd == asked), contrary),
        memory_answers=(memory, remembered),
        true_context=text(record, "parametric_memory") if memory == truth else None,
        offered=True,
    )


OPTIONS = re.compile(r"(?P<context>.+)\nA\. (?P<first>.+)\nB\. (?P<second>.+)\nAnswer:", re.DOTALL)
CONTINUATION = re.compile(
    r'(?P<context>.+?\nto:|.+? ends in the word ".+?"):?\s+(?P<question>.+)', re.DOTALL
)


def memotrap(record: DataRecord) -> Result:
    """MemoTrap (Liu and Liu 2023): an instruction against an ending known by heart.

    As in CAD (Shi et al. 2024) the instruction is the passage: without it, memory completes the
    saying. Where there are options to choose from, the options' texts are the answers, for a
    letter would be found in any sentence with the word "a".
    """
    prompt = text(record, "prompt").strip()
    if match := OPTIONS.fullmatch(prompt):
        answers = [match["first"].strip(), match["second"].strip()]
        question = "Which one is it?\n" + "\n".join(answers)
    elif match := CONTINUATION.fullmatch(prompt):
        answers, question = _classes(record), match["question"]
    else:
        raise wrong(record, "prompt", "an instruction and a beginning, or options A and B")
    index = text(record, "answer_index").strip()
    if index not in {"0", "1"}:
        raise wrong(record, "answer_index", "0 or 1")
    return distinct(
        record,
        question=question,
        context=match["context"].removesuffix("\nto:"),
        context_answers=(answers[int(index)],),
        memory_answers=(answers[1 - int(index)],),
        offered=match.re is OPTIONS,
    )


def _classes(record: DataRecord) -> list[str]:
    try:
        classes = ast.literal_eval(text(record, "classes"))
    except (ValueError, SyntaxError):
        classes = None
    match classes:
        case [str() as first, str() as second] if first.strip(" .") and second.strip(" ."):
            return [first.strip(" ."), second.strip(" .")]
    raise wrong(record, "classes", "a list of two texts, such as \"[' one.', ' two.']\"")
