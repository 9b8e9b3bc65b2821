"""Facts to forget from files: the format of this project, built-in facts, RESTOR and TOFU.

Several files are read together: RESTOR's facts belong to its documents, TOFU's forget10 to its
retain90. Which is which shows in the fields of the first record.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from control.forgetting.record import Record as Fact
from control.forgetting.record import checked
from evaluation.datasets import builtin_facts, restor, tofu
from evaluation.datasets.conflicts import spread
from evaluation.datasets.probes import (
    NEIGHBOUR,
    ForgetRequest,
    LeakProbe,
    Neighbour,
    ProbedFact,
    Requests,
    probes,
)
from evaluation.datasets.questions import write_documents
from foundation import records
from foundation.errors import DataError, InputError
from foundation.records import DataRecord

BUILT_IN = builtin_facts.DATA / "questions.jsonl"
SPLIT = "test"  # of the built-in facts: nothing was tuned on it
ORDINARY = 300  # questions that show what forgetting costs
TURN = 2  # a turn of a history: what was asked, what was answered

# A field of the first record by which a file is known.
_KINDS = {
    "fact": "own",
    "dset": "RESTOR facts",
    "passage_id": "built-in",
    "task_id": "TOFU forget10",
    "perturbed_answer": "TOFU others",
    "text": "RESTOR documents",
    "question": "TOFU retain90",
}


def read(
    paths: Sequence[Path], target: Path, limit: int | None = None, past: Sequence[int] = ()
) -> Requests:
    """Facts to forget with probes, neighbours and documents.

    Args:
        paths: Files that are read together; the built-in facts if there are none.
        target: Directory for documents that have to be brought into a form to ingest.
        limit: At most so many facts, the same share of every source.
        past: Leave out the facts that this limit would have drawn, and so on from what is left, so
            that what was tuned on them is measured on others.

    Raises:
        DataError: No fact is left; or a file is of no known kind, lacks a field, or misses the file
            that belongs to it.
    """
    files: dict[str, list[DataRecord]] = {}
    where: dict[str, Path] = {}
    for path in paths or (BUILT_IN,):
        loaded = records.load(path)
        kind = _kind(path, loaded)
        files[kind], where[kind] = files.get(kind, []) + loaded, path
    groups: list[list[ForgetRequest]] = []
    documents: list[Path] = []
    beside: list[Neighbour] = []
    if "own" in files:
        groups.append([_read_request(record) for record in files["own"]])
    if "built-in" in files:
        groups.append(builtin_facts.requests(SPLIT, None if past else limit))
        documents.append(builtin_facts.PASSAGES)
    if "RESTOR facts" in files or "RESTOR documents" in files:
        found, written = _restor(files, where, target)
        groups.append(found)
        documents.append(written)
    if "TOFU forget10" in files:
        forget = tofu.forgotten(files["TOFU forget10"])
        retain = tofu.retained(files.get("TOFU retain90", []), forget)
        groups.append(tofu.requests(forget, retain))
        pairs = [f"Q: {pair.question}\nA: {pair.answer}" for pair in (*forget, *retain)]
        path = target / "tofu.jsonl"
        documents.append(write_documents(path, _numbered("tofu", pairs), "Questions and answers"))
    if "TOFU others" in files:
        beside += tofu.ordinary(files["TOFU others"])
    items = _draw_requests(groups, limit, past)
    if not items:
        raise DataError(
            f"{', '.join(map(str, paths))}: no fact to forget; RESTOR needs its facts and its "
            "documents, TOFU its forget10"
        )
    if "built-in" in files:
        beside += builtin_facts.ordinary(SPLIT, ORDINARY, items)
    return Requests(tuple(items), tuple(documents), tuple(beside))


def read_tofu(
    paths: Sequence[Path], target: Path, limit: int | None = None
) -> tuple[tofu.Benchmark, Path, Path]:
    """TOFU as its authors judge it, with files of all its documents and of those retained.

    Args:
        paths: Its forget10 with perturbed answers, and the files about real authors and the world.
        target: Directory for the documents.
        limit: At most so many questions of each part.

    Raises:
        DataError: A file is of another kind, or forget10 is missing.
    """
    loaded = {path: records.load(path) for path in paths}
    kinds = {path: _kind_of(each) for path, each in loaded.items()}
    forget = [loaded[path] for path, kind in kinds.items() if kind == "TOFU forget10"]
    others = {path.stem: loaded[path] for path, kind in kinds.items() if kind == "TOFU others"}
    if len(forget) != 1 or len(others) + 1 < len(loaded):
        raise DataError(
            f"{', '.join(map(str, paths)) or 'no file'}: --measure tofu needs TOFU's forget10 with "
            "perturbed answers, and may have those about real authors and world facts"
        )
    found = tofu.benchmark(forget[0], others, limit)
    if not (found.authors and found.retain):
        raise DataError(
            f"{', '.join(map(str, paths))}: --measure tofu needs pairs of task_id {tofu.OFFICIAL}, "
            "whose authors are forgotten, and of other tasks, whose authors are not"
        )
    everything, retained = (
        write_documents(target / name, _numbered("tofu", texts), "Questions and answers")
        for name, texts in (
            ("tofu.jsonl", (*found.forget, *found.retain)),
            ("tofu-retained.jsonl", found.retain),
        )
    )
    return found, everything, retained


def _draw_requests(
    groups: Sequence[list[ForgetRequest]], limit: int | None, past: Sequence[int] = ()
) -> list[ForgetRequest]:
    """The same share of every source, without what the limits of ``past`` would have drawn."""
    for earlier in past:
        before = {id(item) for item in _draw_requests(groups, earlier)}
        groups = [[item for item in group if id(item) not in before] for group in groups]
        if before and not any(groups):
            raise DataError(f"--past {earlier} leaves no fact; give less than the data has")
    share = None if limit is None else -(-limit // max(len(groups), 1))
    return [item for group in groups for item in spread(group, share)][:limit]


def _kind(path: Path, loaded: Sequence[DataRecord]) -> str:
    if kind := _kind_of(loaded):
        return kind
    raise DataError(
        f"{path}: not facts to forget; give JSON Lines of fact, probes and neighbours, or the "
        "files of RESTOR or TOFU"
    )


def _kind_of(loaded: Sequence[DataRecord]) -> str:
    """The kind of a file's records; empty where it is none that is read here."""
    fields = loaded[0].values if loaded else {}
    return next((kind for field, kind in _KINDS.items() if field in fields), "")


def _restor(
    files: dict[str, list[DataRecord]], where: dict[str, Path], target: Path
) -> tuple[list[ForgetRequest], Path]:
    for needed in ("RESTOR facts", "RESTOR documents"):
        if needed not in files:
            [there] = {"RESTOR facts", "RESTOR documents"} - {needed}
            raise DataError(f"{where[there]}: needs {needed} beside it; give --data for both")
    facts = where["RESTOR facts"]
    people = restor.facts(facts.read_text(encoding="utf-8"), facts)
    documents = [records.text(record, "text") for record in files["RESTOR documents"]]
    path = write_documents(target / "restor.jsonl", _numbered("restor", documents))
    return restor.requests(people, documents), path


def _numbered(name: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Texts with ids."""
    return ((f"{name}-{number:04}", text) for number, text in enumerate(texts))


def _read_request(record: DataRecord) -> ForgetRequest:
    """The format of this project; probes are written where the record brings none."""
    fact = _fact(record)
    given = [_probe(record, number) for number in range(_size(record, "probes"))]
    neighbours = tuple(_neighbour(record, number) for number in range(_size(record, "neighbours")))
    return ForgetRequest("data", fact, tuple(given or probes(ProbedFact(fact))), neighbours)


def _fact(record: DataRecord) -> Fact:
    """The fact, as ``forget add`` would take it."""
    many = ("aliases", "questions", "answer_aliases")
    fields: dict[str, Any] = {
        "subject": records.text(record, "fact.subject"),
        "answers": records.texts(record, "fact.answers"),
        **{name: records.aliases(record, f"fact.{name}") for name in many},
    }
    if record.values["fact"].get("relation"):
        fields["relation"] = records.text(record, "fact.relation")
    try:
        return checked(Fact(**fields))
    except InputError as error:
        raise DataError(f"{record.where}: {error}") from error


def _probe(record: DataRecord, number: int) -> LeakProbe:
    field = f"probes.{number}"
    values = record.values["probes"][number]
    history = values.get("history") or []
    if not all(isinstance(turn, list) and len(turn) == TURN for turn in history):
        raise records.wrong(record, f"{field}.history", "a list of [question, answer]")
    return LeakProbe(
        records.text(record, f"{field}.kind"),
        records.text(record, f"{field}.prompt"),
        _context(record, field, values),
        tuple((str(asked), str(answered)) for asked, answered in history),
    )


def _neighbour(record: DataRecord, number: int) -> Neighbour:
    field = f"neighbours.{number}"
    values = record.values["neighbours"][number]
    return Neighbour(
        records.text(record, f"{field}.kind") if values.get("kind") else NEIGHBOUR,
        records.text(record, f"{field}.question"),
        records.texts(record, f"{field}.answers"),
        _context(record, field, values),
    )


def _context(record: DataRecord, field: str, values: dict[str, Any]) -> str | None:
    return records.text(record, f"{field}.context") if values.get("context") else None


def _size(record: DataRecord, field: str) -> int:
    """How many objects a list holds that may be absent."""
    values = record.values.get(field)
    if values is None:
        return 0
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise records.wrong(record, field, "a list of objects")
    return len(values)
