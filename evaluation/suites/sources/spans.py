"""Tasks on answer spans: what the reader finds in texts, and whether spans are told apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control.conflict import values
from control.conflict.passage_claims import UNTITLED, read_passages
from evaluation import metrics
from evaluation.datasets import sources
from evaluation.datasets.sources import ComparedSpans, ReadText
from evaluation.suites.sources.checks import Check, Table, failures, shares
from evaluation.suites.sources.system import RecordRow, Run
from foundation.errors import InputError

PASSAGES = "passages"  # a kind of text
RELATIONS = ("same", "compatible", "contradictory")


@dataclass(frozen=True)
class SpanRow(RecordRow):
    """What the reader found in a text, and the value of it."""

    span: str
    value: str


@dataclass(frozen=True)
class RelationRow(RecordRow):
    """How two spans were said to relate."""

    relation: str


def claims(run: Run) -> dict[str, Table]:
    """The reader alone: whole spans, shared words (F1), and values.

    Sentences are read as drafts are, passages as passages.

    Raises:
        InputError: The system has no reader.
    """
    reader = run.system.assistant.reader
    if reader is None:
        raise InputError("--task claims needs the reader; leave out --without reader")
    items = sources.claims(run.limit)

    def read(batch: Sequence[ReadText]) -> dict[str, SpanRow]:
        passages = [item for item in batch if item.kind == PASSAGES]
        drafts = [item for item in batch if item.kind != PASSAGES]
        found = [
            *read_passages(reader, [(item.question, UNTITLED, item.text) for item in passages]),
            *reader.read([(item.question, item.text) for item in drafts]),
        ]
        return {
            item.id: SpanRow(
                item.id, reading.answer, values.normalised(item.question, reading.answer)
            )
            for item, reading in zip((*passages, *drafts), found, strict=True)
        }

    rows = run.rows("claims", items, SpanRow)
    rows.complete(items, lambda item: [item.id], read, run.batch_size, title="claims")
    checks = [check for item in items for check in _read_checks(item, rows[item.id])]
    # A wrong span always shares too few words: its F1 fails with it.
    lost = failures("claims", [check for check in checks if check.measure != "F1"])
    return {"claims": shares(checks), "failures": lost}


def _read_checks(item: ReadText, row: SpanRow) -> list[Check]:
    about = (item.question, " | ".join(item.answers), row.span)
    exact = metrics.normalise(row.span) in map(metrics.normalise, item.answers)
    shared = max(metrics.token_f1(row.span, answer) for answer in item.answers)
    same = metrics.normalise(row.value) == metrics.normalise(item.value)
    valued = (item.question, item.value, row.value)
    return [
        Check("exact span", item.id, exact, *about, of=item.kind),
        Check("F1", item.id, shared, *about, of=item.kind),
        Check("value", item.id, same, *valued, of=item.kind),
    ]


def compared(run: Run) -> dict[str, Table]:
    """Whether spans have the same value: tables of confusions, and the share told rightly.

    Of pairs that differ in notations, and of pairs that differ in words.
    """
    several = {
        "values": sources.values(run.limit),
        "values in words": sources.values(run.limit, worded=True),
    }
    everything = [item for items in several.values() for item in items]

    def compare(batch: Sequence[ComparedSpans]) -> dict[str, RelationRow]:
        return {
            item.id: RelationRow(item.id, values.compare(item.question, item.a, item.b))
            for item in batch
        }

    rows = run.rows("values", everything, RelationRow)
    rows.complete(everything, lambda item: [item.id], compare, run.batch_size, title="values")
    said = {item.id: rows[item.id].relation for item in everything}
    found: dict[str, Table] = {}
    lost: Table = []
    for name, items in several.items():
        checks = [_relation_check(item, said[item.id]) for item in items]
        found[name] = shares(checks)
        found[f"{name}: confusions"] = _confusions(items, said)
        lost += failures(name, checks)
    return found | {"failures": lost}


def _relation_check(item: ComparedSpans, said: str) -> Check:
    expected = f"{item.a} | {item.b}: {item.relation}"
    right = said == item.relation
    return Check("relation", item.id, right, item.question, expected, said, of=item.relation)


def _confusions(items: Sequence[ComparedSpans], said: Mapping[str, str]) -> Table:
    pairs = Counter((item.relation, said[item.id]) for item in items)
    return [
        {"is": true, "n": sum(item.relation == true for item in items)}
        | {f"said {one}": pairs[true, one] for one in RELATIONS}
        for true in RELATIONS
    ]
