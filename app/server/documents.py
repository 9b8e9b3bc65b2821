"""The documents of an index, as clients see them: added, listed, read and removed."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from app import described
from app.server.uploads import ParserLimits
from control.forgetting.clearing import HIDDEN_ID, NOTHING, Cleared, Door
from foundation.errors import DocumentError

if TYPE_CHECKING:
    from control.forgetting.record import Record
    from retrieval.index import IngestReport, PassageIndex
    from retrieval.stores.base import StoredDocument

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestProgress:
    """The progress of an ingestion.

    Attributes:
        file: Name of the current file; empty in the last item.
        read: Files that are finished.
        files: All files.
        documents: Documents stored so far, including those that replaced older content.
        passages: Their passages.
        duplicates: Documents not stored because their content is in the index already.
        replaced: Documents whose id was in the index with other content.
        skipped: Files that could not be read, each with the reason.
        notices: Files of which a part could not be used, each with the reason.
        finished: Whether this is the last item.
    """

    file: Cleared
    read: int
    files: int
    documents: int = 0
    passages: int = 0
    duplicates: int = 0
    replaced: int = 0
    skipped: tuple[tuple[Cleared, Cleared], ...] = ()
    notices: tuple[tuple[Cleared, Cleared], ...] = ()
    finished: bool = False


@dataclass(frozen=True)
class ListedDocument:
    """A document of the index as it is listed; what is withheld of it is empty.

    Attributes:
        id: Its id, or what stands for it, by which it can be named as well.
        title: Its title.
        source: The file that it came from.
        passages: Their number.
        trust: Its trust against memory, in [0, 1]; ``None`` if not given.
        date: In ISO 8601, of which day or month may lack; empty if not known.
    """

    id: Cleared
    title: Cleared
    source: Cleared
    passages: int
    trust: float | None = None
    date: Cleared = NOTHING


@dataclass(frozen=True)
class ElsewhereDocument:
    """A document that holds the answer of a fact without the name of its subject.

    Attributes:
        id: Its id, or what stands for it.
        name: Its file, else its title, else its id.
        passages: The number of such passages.
    """

    id: Cleared
    name: Cleared
    passages: int


class Documents:
    """The documents of an index, cleared of forgotten facts. Thread-safe."""

    def __init__(
        self,
        index: "Callable[[], PassageIndex]",
        door: Callable[[], Door],
        limits: ParserLimits,
    ) -> None:
        """Nothing is opened before it is needed.

        Args:
            index: The index.
            door: What clears all that is shown.
            limits: Of the reading of one file.
        """
        self._index, self._door, self._limits = index, door, limits
        self._ingesting = threading.Lock()

    def ingest(
        self, paths: Sequence[Path], trust: float | None = None, dated: str | None = None
    ) -> Iterator[IngestProgress]:
        """Add files to the index; each is parsed in a process of its own, within limits.

        Files that cannot be read, or not wholly, are reported with the reason. What was stored is
        swept for what is forgotten.

        Args:
            paths: Files; their documents say that they come from a file of this name.
            trust: Of the documents, in [0, 1], where they do not state it themselves.
            dated: Their date, as for `retrieval.ingest.documents.read`.

        Yields:
            The progress at each file and each stored batch of documents; the last item is
            ``finished``.
        """
        from app.server import uploads
        from retrieval.index import IngestReport

        report, now = IngestReport(), IngestProgress(NOTHING, 0, len(paths))
        with self._ingesting:
            for number, path in enumerate(paths):
                clear = self._door().open()
                now = replace(now, file=clear.line(path.name), read=number)
                yield now
                notices: list[str] = []
                try:
                    read = uploads.documents(path, self._limits, trust, dated, notices.append)
                    for so_far in self._index().ingest_documents(read, report):
                        now = _with_counts(now, so_far)
                        yield now
                except DocumentError as error:
                    skipped = (*now.skipped, (clear.line(path.name), clear.line(str(error))))
                    now = replace(_with_counts(now, report), skipped=skipped)
                noted = ((clear.line(path.name), clear.line(notice)) for notice in notices)
                now = replace(now, notices=(*now.notices, *noted))
        yield replace(now, file=NOTHING, read=len(paths), finished=True)

    def listed(
        self, offset: int = 0, limit: int | None = None, search: str = "", paths: bool = True
    ) -> list[ListedDocument]:
        """Return the index's documents in order of ingestion, cleared of forgotten facts.

        Args:
            offset: Leave out so many.
            limit: At most so many.
            search: Only those whose title, file or date holds this, in any case.
            paths: Whether files have their folders, which only administrators may see.
        """
        wanted = search.strip().casefold()

        def matches(document: "StoredDocument | ListedDocument") -> bool:
            shown = f"{document.title}\n{PurePath(document.source).name}\n{document.date}"
            return wanted in shown.casefold()

        if not wanted:
            return self._listed(self._index().documents(offset, limit), paths)
        found = self._listed([each for each in self._index().documents() if matches(each)], paths)
        end = None if limit is None else offset + limit
        # Once more, so that nobody finds out what was redacted.
        return [each for each in found if matches(each)][offset:end]

    def passages(self, document_id: str, limit: int) -> list[Cleared]:
        """Return the texts of a document's first passages, cleared of forgotten facts.

        Args:
            document_id: As it is listed.
            limit: At most so many.
        """
        index = self._index()
        nodes = index.passages_of(document_id, limit)
        nodes = nodes or index.passages_of(self._stored_id(document_id), limit)
        clear = self._door().open()
        texts = [
            clear.text(node.get_content(), str(node.metadata.get("title", ""))) for node in nodes
        ]
        return [text for text in texts if text.strip()]

    def remove(self, document_id: str) -> int:
        """Remove a document and return how many passages it had; 0 if there is none of this id.

        Args:
            document_id: Its own, or as it is listed.
        """
        index = self._index()
        return index.delete(document_id) or index.delete(self._stored_id(document_id))

    def count(self) -> int:
        """Return the number of passages in the index."""
        return self._index().count()

    def only_elsewhere(self, record: "Record") -> list[ElsewhereDocument]:
        """Documents in which a fact that is not forgotten yet may stand under another name.

        They hold its answer, and no passage holds it together with a name of the subject.
        """
        from control.forgetting.sweep import only_elsewhere

        index = self._index()
        try:
            found = only_elsewhere(index, record) if index.count() else []
        except Exception as error:  # the fact can be forgotten all the same
            log.error("stored passages could not be searched: %s", type(error).__name__)
            return []
        clear = self._door().open()
        passages = Counter(str(node.ref_doc_id) for node in found)
        names = {str(node.ref_doc_id): described.document(node) for node in found}
        return [
            ElsewhereDocument(clear.id(key), clear.line(names[key]), count)
            for key, count in passages.items()
        ]

    def _listed(self, found: "list[StoredDocument]", paths: bool) -> list[ListedDocument]:
        clear = self._door().open()
        return [
            ListedDocument(
                clear.id(each.id),
                clear.name(each.title),
                clear.name(each.source if paths else PurePath(each.source).name),
                each.passages,
                each.trust,
                clear.name(each.date),
            )
            for each in found
        ]

    def _stored_id(self, shown: str) -> str:
        """The id of the document that is listed under an id."""
        clear = self._door().open()
        if clear.redactor is None or not HIDDEN_ID.fullmatch(shown):
            return shown
        ids = (each.id for each in self._index().documents())
        return next((each for each in ids if clear.id(each) == shown), shown)


def _with_counts(now: IngestProgress, report: "IngestReport") -> IngestProgress:
    return replace(
        now,
        documents=report.documents,
        passages=report.passages,
        duplicates=report.duplicates,
        replaced=report.replaced,
    )
