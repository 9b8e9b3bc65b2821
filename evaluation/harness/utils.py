"""What the tasks beside this file read and count, by the standard library alone.

The harness runs in environments without Fulcrum, so this file repeats what it needs of
`foundation.text`, `control.prompts`, `evaluation.datasets.formats` and `evaluation.metrics`;
tests/evaluation/test_harness.py holds each of them against the other.
"""

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BUILT_IN = Path(__file__).resolve().parents[2] / "data" / "conflicts.jsonl"
BUILT_IN_SPLIT = "test"
MEMORY, PASSAGE = "memory", "passage"
FULCRUM = "fulcrum"  # as every server of Fulcrum calls its model, beside its own name
SYSTEM = "You answer questions briefly and factually."
SEED = 0  # of the order, in which the first questions are a sample of all relations

METRICS = ["known", "ConR", "ParR", "MR", "hit", "ConR_all", "ParR_all", "MR_all", "hit_all"]

Record = Mapping[str, Any]
Conflict = dict[str, Any]
"""``question``, ``context``, ``context_answers``, ``memory_answers``"""

Scored = Sequence[Any]
"""Id of the conflict, `MEMORY` or `PASSAGE`, whether the answer holds the passage's answer, and
whether it holds memory's"""


def dataset(
    form: str,
    ask: Sequence[str],
    data: str | None = None,
    split: str | None = None,
    documents: bool | None = None,
    model: str | None = None,
    **_: Any,
) -> dict[str, Any]:
    """The questions of a task, for its ``custom_dataset``.

    Args:
        form: A key of `FORMATS`; the task's.
        ask: `MEMORY`, `PASSAGE` or both, each a question about every conflict; the task's.
        data: The file; by default the built-in conflicts.
        split: Keep only the conflicts of this split; of the built-in ones ``test`` by default.
        documents: Whether a passage is sent in Fulcrum's field ``documents`` instead of the
            prompt; by default where the model is called `FULCRUM`.
        model: The ``model`` of ``--model_args``.

    Returns:
        ``test``: a `datasets.Dataset`.

    Raises:
        ValueError: There is no file, or not of this format, or nothing in it can be asked.
    """
    from datasets import Dataset

    if data is None and form == "own":
        split = split or BUILT_IN_SPLIT
    if documents is None:
        documents = model == FULCRUM
    found = conflicts(form, data)
    if split is not None:
        found = [conflict for conflict in found if conflict["split"] == split]
    if not found:
        of = f" of the split {split!r}" if split else ""
        raise ValueError(f"{data or BUILT_IN}: no conflict{of} in the format {form!r}")
    random.Random(SEED).shuffle(found)  # noqa: S311 - no secret
    asked = [question(conflict, side, documents) for conflict in found for side in ask]
    return {"test": Dataset.from_list(asked)}


def question(conflict: Conflict, side: str, documents: bool) -> dict[str, Any]:
    """One question about a conflict.

    Returns:
        ``text`` of the user's message and ``system`` message before it, which is empty where
        Fulcrum writes its own; ``plain``, the same text for a model without a chat template;
        ``passages`` to be sent beside it if ``documents``; what `scores` needs.
    """
    passages = [conflict["context"]] if side == PASSAGE else []
    asked = conflict["question"]
    labelled = f"Question: {asked}"
    if passages and not documents:
        asked = labelled = f"Passages:\n[1] {conflict['context']}\n\n{labelled}"
    return {
        "id": conflict["id"],
        "side": side,
        "system": "" if documents else SYSTEM,
        "text": asked,
        "plain": f"{labelled}\nAnswer:",
        "documents": documents,
        "passages": passages,
        "context_answers": conflict["context_answers"],
        "memory_answers": conflict["memory_answers"],
    }


# What an answer holds


def normalise(text: str) -> str:
    """Text without case, diacritics and punctuation, words separated by one space."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", bare))


def holds(text: str, wanted: Iterable[str]) -> bool:
    """Whether normalised ``text`` holds one of ``wanted``, as whole words."""
    padded = f" {normalise(text)} "
    return any(f" {words} " in padded for phrase in wanted if (words := normalise(phrase)))


def scores(doc: Record, results: Sequence[str]) -> dict[str, Scored]:
    """The metrics of a task that asks both ways; they are counted over all answers together."""
    return dict.fromkeys(METRICS, _scored(doc, results))


def memory_scores(doc: Record, results: Sequence[str]) -> dict[str, Scored]:
    """The metric of a task that asks memory alone."""
    return {"known": _scored(doc, results)}


def _scored(doc: Record, results: Sequence[str]) -> Scored:
    answer = results[0]
    held = (holds(answer, doc[f"{source}_answers"]) for source in ("context", "memory"))
    return doc["id"], doc["side"], *held


# Over all answers, in percent


def known(items: Sequence[Scored]) -> float:
    """Share of the facts that the model answers rightly without the passage."""
    return _percent(par for _, side, _, par in items if side == MEMORY)


def con_r(items: Sequence[Scored]) -> float:
    """Share of answers to known facts that hold the passage's answer."""
    return _percent(con for con, _ in _of_known(items))


def par_r(items: Sequence[Scored]) -> float:
    """Share of answers to known facts that hold memory's answer."""
    return _percent(par for _, par in _of_known(items))


def memory_ratio(items: Sequence[Scored]) -> float:
    """MR = ParR / (ParR + ConR) of known facts; 0 if neither was held."""
    return _memory_ratio(_of_known(items))


def hit(items: Sequence[Scored]) -> float:
    """Share of answers to known facts that hold either."""
    return _percent(con or par for con, par in _of_known(items))


def con_r_all(items: Sequence[Scored]) -> float:
    """`con_r` of all facts."""
    return _percent(con for con, _ in _with_passage(items))


def par_r_all(items: Sequence[Scored]) -> float:
    """`par_r` of all facts."""
    return _percent(par for _, par in _with_passage(items))


def memory_ratio_all(items: Sequence[Scored]) -> float:
    """`memory_ratio` of all facts."""
    return _memory_ratio(_with_passage(items))


def hit_all(items: Sequence[Scored]) -> float:
    """`hit` of all facts."""
    return _percent(con or par for con, par in _with_passage(items))


def _with_passage(items: Sequence[Scored]) -> list[tuple[bool, bool]]:
    return [(con, par) for _, side, con, par in items if side == PASSAGE]


def _of_known(items: Sequence[Scored]) -> list[tuple[bool, bool]]:
    remembered = {name for name, side, _, par in items if side == MEMORY and par}
    return _with_passage([item for item in items if item[0] in remembered])


def _percent(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return 100 * sum(listed) / len(listed) if listed else 0.0


def _memory_ratio(held: Sequence[tuple[bool, bool]]) -> float:
    said, remembered = (sum(side) for side in zip(*held, strict=True)) if held else (0, 0)
    return 100 * remembered / max(said + remembered, 1)


# Conflicts, out of the files


def conflicts(form: str, data: str | None = None) -> list[Conflict]:
    """The conflicts of a file, with ``id`` and ``split``, without those that no string decides.

    Raises:
        ValueError: There is no file, or it is not of this format.
    """
    if data is None and form != "own":
        raise ValueError(
            f"the file of {form} is missing; get it from its authors and give it by "
            '--metadata \'{"data": "FILE"}\''
        )
    path = Path(data) if data is not None else BUILT_IN
    if not path.is_file():
        raise ValueError(f'{path}: no such file; give one by --metadata \'{{"data": "FILE"}}\'')
    records = _records(path)
    read = FORMATS[form]
    try:
        found = list(read(records))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in the format {form!r} ({error!r})") from error
    return [
        {"id": str(number), "split": None, **conflict}
        for number, conflict in enumerate(found)
        if conflict
    ]


def _records(path: Path) -> list[Record]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        # Not splitlines(): JSON may hold the line separators of Unicode inside a text.
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: neither a JSON list nor JSON Lines ({error})") from error


def _distinct(
    question: str,
    context: str,
    context_answers: Sequence[str],
    memory_answers: Sequence[str],
    offered: bool = False,
) -> Conflict | None:
    """The conflict, unless a text would count for a side that it does not take."""
    said, remembered = list(context_answers), list(memory_answers)
    if any(holds(phrase, remembered) for phrase in said):
        return None
    if any(holds(phrase, said) for phrase in remembered):
        return None
    if not offered and holds(question, said + remembered):
        return None
    return {
        "question": question,
        "context": context,
        "context_answers": said,
        "memory_answers": remembered,
    }


Found = Iterator[Conflict | None]


def _own(records: Sequence[Record]) -> Found:
    for number, record in enumerate(records):
        kept = ("question", "context", "context_answers", "memory_answers")
        yield {
            **{name: record[name] for name in kept},
            "id": str(record.get("id", number)),
            "split": record.get("split"),
        }


def _counterfact(records: Sequence[Record]) -> Found:
    for record in records:
        edit = record["requested_rewrite"]
        cloze = edit["prompt"].replace("{}", edit["subject"])
        said, true = edit["target_new"]["str"], edit["target_true"]["str"]
        yield _distinct(cloze, f"{cloze} {said.rstrip('.')}.", [said], [true])


NQ_SYNTH_PROMPT = re.compile(
    r"(?P<context>.+?)\s*\nUsing only the references listed above, answer the following question: "
    r"\nQuestion: (?P<question>.+)\nAnswer:",
    re.DOTALL,
)


def _nq_synth(records: Sequence[Record]) -> Found:
    """Each question stands twice, with a swapped entity in the passage and with the original."""
    twins: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        if record["assigned_process"] != 0:  # without the passage
            continue
        match = NQ_SYNTH_PROMPT.fullmatch(record["context_string"].rstrip())
        if match is None:
            raise KeyError("context_string")
        twin = match["context"], record["gold_answers"]
        twins.setdefault(match["question"], []).append(twin)
    for asked, ((context, said), *others) in twins.items():
        original = [true for text, true in others if context.replace(said, true) == text][:1]
        yield _distinct(asked, context, [said], original)


NEGATIONS = re.compile(
    r"\b(not|no|none|never|nobody|nothing|neither|nor|without|cannot)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
COMMENTS = re.compile(r"\b(true|false|incorrect|claim|note|sorry)\b", re.IGNORECASE)


def _conflictqa(records: Sequence[Record]) -> Found:
    """The StrategyQA part; whether a sentence means True shows in its negations."""
    for record in records:
        if record["ground_truth"][0].strip(" .") not in {"True", "False"}:
            raise KeyError("ground_truth: of ConflictQA only the StrategyQA part can be judged")
        asked = record["question"].strip()
        remembered, contrary = record["memory_answer"], record["counter_answer"]
        odd, memory_odd, contrary_odd = (
            len(NEGATIONS.findall(sentence)) % 2 for sentence in (asked, remembered, contrary)
        )
        if memory_odd == contrary_odd or COMMENTS.search(f"{remembered} {contrary}"):
            yield None
            continue
        yield _distinct(
            f"{asked} Answer True or False.",
            record["counter_memory"],
            [str(contrary_odd == odd), contrary],
            [str(memory_odd == odd), remembered],
            offered=True,
        )


def _ramdocs(records: Sequence[Record]) -> Found:
    for record in records:
        wrong = [each for each in record["documents"] if each["type"] == "misinfo"]
        yield (
            _distinct(
                record["question"], wrong[0]["text"], [wrong[0]["answer"]], record["gold_answers"]
            )
            if wrong
            else None
        )


FORMATS: dict[str, Callable[[Sequence[Record]], Found]] = {
    "own": _own,
    "counterfact": _counterfact,
    "nq_synth": _nq_synth,
    "conflictqa": _conflictqa,
    "ramdocs": _ramdocs,
}
