"""The task on documents of different dates: which one is followed, and which ones are shown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from llama_index.core.schema import Document, NodeWithScore

from control.conflict.reader import AnswerReader, read_document
from control.conflict.sources import SourceOptions
from control.state import Query
from evaluation.datasets import sources
from evaluation.datasets.sources import Versions
from evaluation.suites.sources.checks import Check, Table, failures, holds, holds_only, shares
from evaluation.suites.sources.system import AnswerRow, Run
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import date_documents, read

NOW, AS_OF = "now", "as of"


@dataclass(frozen=True)
class IngestedDocuments:
    """The documents of a question, read as a user's files are.

    Attributes:
        nodes: Their passages, in order.
        places: The place of the document of each passage, by the passage's id.
        dates: Of each document, as it was found; empty where none was.
    """

    nodes: tuple[NodeWithScore, ...]
    places: Mapping[str, int]
    dates: tuple[str, ...]


def versions(run: Run, beside: bool = False) -> dict[str, Table]:
    """Whether the newest document is followed, older ones are shown, and an earlier day's held.

    Args:
        run: The run.
        beside: Whether to ask the questions that have documents about other things as well.
    """
    task = "versions-beside" if beside else "versions"
    items = sources.versions(run.limit, beside)
    ingested = {item.id: _ingest(item, run.system.assistant.reader) for item in items}
    rows = run.rows(task, [(item, ingested[item.id].dates) for item in items])
    queries = {(NOW, item.id): Query(item.question, ingested[item.id].nodes) for item in items}
    queries |= {
        (AS_OF, item.id): Query(
            item.question, ingested[item.id].nodes, sources=SourceOptions(as_of=item.as_of[0])
        )
        for item in items
        if item.as_of
    }
    run.answers(rows, queries, task)
    checks = []
    for item in items:
        read_as = ingested[item.id]
        checks += _date_checks(item, read_as)
        checks += _version_checks(item, rows[NOW, item.id], read_as)
        if item.as_of:
            followed = _followed(item, rows[AS_OF, item.id], read_as, item.as_of[1])
            checks.append(
                Check(
                    "held on the day asked for",
                    item.id,
                    followed,
                    f"{item.question} (as of {item.as_of[0]})",
                    item.answers[item.as_of[1]],
                    _shown(rows[AS_OF, item.id]),
                    item.how,
                )
            )
    found: Table = [
        {
            "id": item.id,
            "stated by": item.how,
            "document": document.name,
            "newest": "newest" if place == item.newest else "",
            "date found": ingested[item.id].dates[place],
        }
        for item in items
        for place, document in enumerate(item.documents)
    ]
    return {
        task: shares(checks),
        f"{task}: dates": found,
        "failures": failures(task, checks),
    }


def _ingest(item: Versions, reader: AnswerReader | None) -> IngestedDocuments:
    """Read the documents from files of their names; a title that the text lacks is added."""
    nodes: list[NodeWithScore] = []
    places: dict[str, int] = {}
    dates: list[str] = []
    with TemporaryDirectory() as folder:
        for place, document in enumerate(item.documents):
            path = Path(folder) / document.name
            path.write_text(document.text, encoding="utf-8")
            dates.append("")
            found: Iterable[Document] = read([path], lambda _: None)
            if reader is not None:
                found = date_documents(found, partial(read_document, reader))
            for one in found:
                if one.metadata["title"] == path.stem:
                    one.metadata["title"] = document.title
                dates[place] = dates[place] or str(one.metadata.get("date", ""))
                parts = split(one)
                places |= {part.node_id: place for part in parts}
                nodes += [NodeWithScore(node=part) for part in parts]
    return IngestedDocuments(tuple(nodes), places, tuple(dates))


def _date_checks(item: Versions, read_as: IngestedDocuments) -> list[Check]:
    newest, *others = (
        read_as.dates[item.newest],
        *(date for place, date in enumerate(read_as.dates) if place != item.newest),
    )
    names = [document.name for document in item.documents]
    dated = list(zip(names, read_as.dates, strict=True))
    told = ", ".join(f"{name}: {date or '-'}" for name, date in dated)
    return [
        Check(
            "date found",
            f"{item.id} {name}",
            bool(date),
            item.question,
            f"a date in {name} ({item.how})",
            told,
            item.how,
        )
        for name, date in dated
    ] + [
        Check(
            "newest has the latest date",
            item.id,
            bool(newest) and newest > max(others),
            item.question,
            names[item.newest],
            told,
            item.how,
        )
    ]


def _version_checks(item: Versions, row: AnswerRow, read_as: IngestedDocuments) -> list[Check]:
    stated = {
        place
        for claim in row.from_documents
        if (place := read_as.places.get(claim["source"])) is not None
        and holds(claim["says"], item.accepted(place))
    }
    both = item.newest in stated and len(stated) > 1
    about = (item.question, item.answers[item.newest], _shown(row), item.how)
    return [
        Check("newest followed", item.id, _followed(item, row, read_as, item.newest), *about),
        Check("newest and an older one shown", item.id, both, *about),
    ]


def _followed(item: Versions, row: AnswerRow, read_as: IngestedDocuments, place: int) -> bool:
    """Whether the answer is one document's, and so is every claim that it follows."""
    others = [said for at in range(len(item.answers)) if at != place for said in item.accepted(at)]
    followed = {read_as.places.get(claim["source"]) for claim in row.claims if claim["followed"]}
    return holds_only(row.answer, item.accepted(place), others) and followed == {place}


def _shown(row: AnswerRow) -> str:
    claims = " | ".join(
        f"{claim['says']} ({claim['date'] or 'undated'}{', followed' if claim['followed'] else ''})"
        for claim in row.claims
    )
    return f"{row.answer} [{claims}]"
