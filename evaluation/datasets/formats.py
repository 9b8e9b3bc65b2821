"""Conflicts between a passage and what is generally known, in each published format.

docs/evaluation.md holds the same as a table, with the papers. Where a published item cannot be
judged by the strings of an answer, its reader gives the reason instead of a conflict. NQ-Synth,
ConflictQA and MemoTrap hold a finished prompt, a letter to choose or a sentence that no model
repeats; their readers write a question that can be asked with a passage and without.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from foundation.errors import DataError
from foundation.records import DataRecord, aliases, size, text, texts, wrong
from foundation.text import holds

INDISTINCT = "the answers of passage and memory hold one another"
ECHO = "the question holds an answer, so that repeating it would count"


@dataclass(frozen=True)
class Conflict:
    """A question whose passage contradicts what is generally known.

    Attributes:
        id: Stable name of the item.
        question: The question.
        context: The counterfactual passage.
        context_answers: What the passage says, aliases included.
        memory_answers: What is true and may be known from training, aliases included; empty only
            where an NQ-Synth file does not say it.
        true_context: The passage with the right answer, if there is one.
        split: Part of the data that it belongs to, if any.
        relation: Kind of fact, if stated.
        source: Kind of text that the passages are, if stated; a calibration weighs each alike.
    """

    id: str
    question: str
    context: str
    context_answers: tuple[str, ...]
    memory_answers: tuple[str, ...]
    true_context: str | None
    split: str | None
    relation: str | None
    source: str | None = None


Result = Conflict | str
"""A conflict, or why there is none to be had from the record."""


def distinct(
    record: DataRecord,
    question: str,
    context: str,
    context_answers: tuple[str, ...],
    memory_answers: tuple[str, ...],
    true_context: str | None = None,
    relation: str | None = None,
    offered: bool = False,
) -> Result:
    """The conflict, unless a text would count for a side that it does not take.

    Args:
        record: Where it comes from.
        question: Its question.
        context: Its passage.
        context_answers: What the passage says.
        memory_answers: What the memory says.
        true_context: The passage with the right answer.
        relation: Kind of fact.
        offered: Whether the question offers both answers to choose from.
    """
    if any(holds(phrase, memory_answers) for phrase in context_answers) or any(
        holds(phrase, context_answers) for phrase in memory_answers
    ):
        return INDISTINCT
    if not offered and holds(question, context_answers + memory_answers):
        return ECHO
    return Conflict(
        id=str(record.values.get("case_id", record.number)),
        question=question,
        context=context,
        context_answers=context_answers,
        memory_answers=memory_answers,
        true_context=true_context,
        split=None,
        relation=relation,
    )


ONE_PASSAGE = "no document is misinformation"


@dataclass(frozen=True)
class Format:
    """A data format.

    Attributes:
        name: As its authors call it.
        keys: Fields of which any one in the first record tells the format.
        read: From its records to conflicts.
    """

    name: str
    keys: frozenset[str]
    read: Callable[[Sequence[DataRecord]], Iterator[Result]]


def _contract(record: DataRecord) -> Conflict:
    """The format of this project: a conflict as it is."""
    values = record.values
    return Conflict(
        id=str(values.get("id", record.number)),
        question=text(record, "question"),
        context=text(record, "context"),
        context_answers=texts(record, "context_answers"),
        memory_answers=texts(record, "memory_answers"),
        true_context=text(record, "true_context") if "true_context" in values else None,
        split=text(record, "split") if values.get("split") is not None else None,
        relation=text(record, "relation") if values.get("relation") is not None else None,
        source=text(record, "source") if values.get("source") is not None else None,
    )


def _counterfact(record: DataRecord) -> Result:
    """CounterFact (Meng et al. 2022): a cloze, completed rightly or wrongly, is the passage."""
    cloze = _filled(record, "requested_rewrite")
    said, true = (text(record, f"requested_rewrite.{which}.str") for which in TARGETS)
    return distinct(
        record,
        question=cloze,
        context=_sentence(cloze, said),
        context_answers=(said,),
        memory_answers=(true,),
        true_context=_sentence(cloze, true),
        relation=text(record, "requested_rewrite.relation_id"),
    )


def _mquake(record: DataRecord) -> Result:
    """MQuAKE (Zhong et al. 2023): the passage states each hop of the changed chain.

    A file without the hops gives the edits alone; the later hops are then left to the memory.
    """
    hops = "new_single_hops" in record.values
    return distinct(
        record,
        question=text(record, "questions.0"),
        context=_hops(record, "new_single_hops") if hops else _edits(record, "target_new"),
        context_answers=(text(record, "new_answer"), *aliases(record, "new_answer_alias")),
        memory_answers=(text(record, "answer"), *aliases(record, "answer_alias")),
        true_context=_hops(record, "single_hops") if hops else _edits(record, "target_true"),
    )


def _confiqa(record: DataRecord) -> Result:
    """ConFiQA (Bi et al. 2024)."""
    return distinct(
        record,
        question=text(record, "question"),
        context=text(record, "cf_context"),
        context_answers=(text(record, "cf_answer"), *aliases(record, "cf_alias")),
        memory_answers=(text(record, "orig_answer"), *aliases(record, "orig_alias")),
        true_context=text(record, "orig_context"),
    )


def _nq_swap(record: DataRecord) -> Result:
    """NQ-Swap (Longpre et al. 2021)."""
    return distinct(
        record,
        question=text(record, "question"),
        context=text(record, "sub_context"),
        context_answers=texts(record, "sub_answer"),
        memory_answers=texts(record, "org_answer"),
        true_context=text(record, "org_context"),
    )


def _ramdocs(record: DataRecord) -> Result:
    """RAMDocs (Wang et al. 2025): the first misinforming document against all right answers."""
    first: dict[str, str] = {}
    for number in range(size(record, "documents")):
        first.setdefault(text(record, f"documents.{number}.type"), f"documents.{number}")
    if "misinfo" not in first:
        return ONE_PASSAGE
    return distinct(
        record,
        question=text(record, "question"),
        context=text(record, f"{first['misinfo']}.text"),
        context_answers=(text(record, f"{first['misinfo']}.answer"),),
        memory_answers=texts(record, "gold_answers"),
        true_context=text(record, f"{first['correct']}.text") if "correct" in first else None,
    )


TARGETS = "target_new", "target_true"


def _filled(record: DataRecord, field: str) -> str:
    prompt = text(record, f"{field}.prompt")
    if "{}" not in prompt:
        raise wrong(record, f"{field}.prompt", "a text with {} where the subject goes")
    return prompt.replace("{}", text(record, f"{field}.subject"))


def _sentence(cloze: str, answer: str) -> str:
    return f"{cloze} {answer.rstrip('.')}."


def _edits(record: DataRecord, target: str) -> str:
    fields = [f"requested_rewrite.{number}" for number in range(size(record, "requested_rewrite"))]
    return " ".join(
        _sentence(_filled(record, field), text(record, f"{field}.{target}.str")) for field in fields
    )


def _hops(record: DataRecord, hops: str) -> str:
    fields = [f"{hops}.{number}" for number in range(size(record, hops))]
    return " ".join(
        _sentence(text(record, f"{field}.cloze"), text(record, f"{field}.answer"))
        for field in fields
    )


def _each(
    read: Callable[[DataRecord], Result],
) -> Callable[[Sequence[DataRecord]], Iterator[Result]]:
    return lambda records: map(read, records)


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


def _nq_synth(records: Sequence[DataRecord]) -> Iterator[Result]:
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


def _conflictqa(record: DataRecord) -> Result:
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


def _memotrap(record: DataRecord) -> Result:
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


# In order: the field of CounterFact also stands in MQuAKE.
FORMATS = (
    Format("MQuAKE", frozenset({"new_answer", "questions", "single_hops"}), _each(_mquake)),
    Format("CounterFact", frozenset({"requested_rewrite"}), _each(_counterfact)),
    Format("NQ-Synth", frozenset({"assigned_process", "context_string"}), _nq_synth),
    Format("ConflictQA", frozenset({"counter_memory", "counter_answer"}), _each(_conflictqa)),
    Format("RAMDocs", frozenset({"documents"}), _each(_ramdocs)),
    Format("MemoTrap", frozenset({"answer_index", "classes"}), _each(_memotrap)),
    Format("ConFiQA", frozenset({"cf_context", "cf_answer"}), _each(_confiqa)),
    Format("NQ-Swap", frozenset({"sub_context", "sub_answer"}), _each(_nq_swap)),
    Format(
        "JSON Lines with question, context, context_answers, memory_answers",
        frozenset({"context_answers", "memory_answers"}),
        _each(_contract),
    ),
)
