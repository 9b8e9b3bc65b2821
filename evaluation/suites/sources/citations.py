"""The task on citations: which passages are named for each sentence of a given answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from control.conflict.passage_claims import passage_text
from evaluation.datasets import sources
from evaluation.datasets.sources import WrittenAnswer
from evaluation.suites.sources.checks import Check, Table, failures, shares
from evaluation.suites.sources.system import RecordRow, Run, given, place
from foundation.errors import InputError


@dataclass(frozen=True)
class CitationRow(RecordRow):
    """The places of the passages cited for each sentence."""

    cited: list[list[int]]


def sentences(run: Run) -> dict[str, Table]:
    """Precision and recall of pairs of sentence and passage, and what is cited without support.

    Raises:
        InputError: The system cites nothing.
    """
    support = run.system.assistant.support
    if support is None:
        raise InputError("--task sentences needs what finds citations; leave out --without reader")
    items = sources.sentences(run.limit)

    def cite(batch: Sequence[WrittenAnswer]) -> dict[str, CitationRow]:
        rows = {}
        for item in batch:
            nodes = given(item.id, item.passages)
            text, spans = _joined(item)
            found = support.cite(text, [(node.node_id, passage_text(node)) for node in nodes])
            cited = [
                sorted(
                    {
                        place(name)
                        for citation in found
                        if citation.start < end and start < citation.end
                        for name in citation.passages
                    }
                )
                for start, end in spans
            ]
            rows[item.id] = CitationRow(item.id, cited)
        return rows

    rows = run.rows("sentences", items, CitationRow)
    rows.complete(items, lambda item: [item.id], cite, 1, title="sentences", unit="answers")
    checks = [check for item in items for check in _checks(item, rows[item.id])]
    return {"sentences": shares(checks), "failures": failures("sentences", checks)}


def _joined(item: WrittenAnswer) -> tuple[str, list[tuple[int, int]]]:
    """The answer, with start and end of each sentence in it."""
    text, spans = "", []
    for sentence in item.sentences:
        start = len(text) + bool(text)
        text = f"{text} {sentence.text}".strip()
        spans.append((start, len(text)))
    return text, spans


def _checks(item: WrittenAnswer, row: CitationRow) -> list[Check]:
    checks = []
    for number, (sentence, cited) in enumerate(zip(item.sentences, row.cited, strict=True), 1):
        name, at = f"{item.id} {number}", f"sentence {number}"
        about = (sentence.text, f"passages {list(sentence.passages)}", f"passages {cited}")
        checks += [
            Check("pairs: precision", f"{name} {one}", one in sentence.passages, *about, of=at)
            for one in cited
        ]
        checks += [
            Check("pairs: recall", f"{name} {one}", one in cited, *about, of=at)
            for one in sentence.passages
        ]
        if sentence.planted:
            checks.append(Check("contradiction not cited", name, not cited, *about, of=at))
        elif not sentence.passages:
            checks.append(Check("unsupported not cited", name, not cited, *about, of=at))
    return checks
