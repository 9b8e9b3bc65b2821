"""What each published format of knowledge conflicts says, as conflicts.

docs/evaluation.md holds the same as a table, with the papers. Where a published item cannot be
judged by the strings of an answer, its reader gives the reason instead of a conflict.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from evaluation.datasets import paraphrases
from evaluation.datasets.conflict import Conflict, Result, distinct
from foundation.records import DataRecord, aliases, size, text, texts, wrong

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


# In order: the field of CounterFact also stands in MQuAKE.
FORMATS = (
    Format("MQuAKE", frozenset({"new_answer", "questions", "single_hops"}), _each(_mquake)),
    Format("CounterFact", frozenset({"requested_rewrite"}), _each(_counterfact)),
    Format("NQ-Synth", frozenset({"assigned_process", "context_string"}), paraphrases.nq_synth),
    Format(
        "ConflictQA", frozenset({"counter_memory", "counter_answer"}), _each(paraphrases.conflictqa)
    ),
    Format("RAMDocs", frozenset({"documents"}), _each(_ramdocs)),
    Format("MemoTrap", frozenset({"answer_index", "classes"}), _each(paraphrases.memotrap)),
    Format("ConFiQA", frozenset({"cf_context", "cf_answer"}), _each(_confiqa)),
    Format("NQ-Swap", frozenset({"sub_context", "sub_answer"}), _each(_nq_swap)),
    Format(
        "JSON Lines with question, context, context_answers, memory_answers",
        frozenset({"context_answers", "memory_answers"}),
        _each(_contract),
    ),
)
