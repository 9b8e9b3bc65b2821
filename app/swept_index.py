"""The passage index that documents are added to: what is stored is swept for forgotten facts."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app import factory, home
from control.forgetting.clearing import Door
from control.forgetting.sweep import sweep_added
from foundation.errors import FulcrumError
from retrieval.index import IngestReport, OnProgress, PassageIndex

if TYPE_CHECKING:
    from llama_index.core.schema import Document

    from app.settings import Settings
    from control.forgetting.ledger import Ledger
    from control.forgetting.redaction import Redactor

log = logging.getLogger(__name__)


class SweptIndex(PassageIndex):
    """A passage index whose new passages are redacted right after each batch was stored.

    Attributes:
        settings: Say where the ledger lies.
        redacted: How many new passages were redacted so far.
    """

    def __init__(self, settings: "Settings", *stored: Any, **how: Any) -> None:
        """As `PassageIndex`, with the settings before its arguments."""
        super().__init__(*stored, **how)
        self.settings = settings
        self.redacted = 0

    def ingest_documents(
        self,
        documents: "Iterable[Document]",
        report: IngestReport,
        progress: OnProgress = lambda _: None,
        superseded: Callable[[], set[str]] = set,
    ) -> Iterator[IngestReport]:
        """Ingest documents; as `PassageIndex.ingest_documents`."""
        read: list[str] = []
        stored, redacted = report.documents, self.redacted

        def noted() -> "Iterator[Document]":
            for document in documents:
                read.append(document.id_)
                yield document

        batches = super().ingest_documents(noted(), report, progress, superseded)
        try:
            for so_far in batches:
                if report.documents > stored:
                    self._sweep(read)
                read, stored = [], report.documents
                yield so_far
        finally:  # also of a batch before a file that cannot be read
            if report.documents > stored:
                self._sweep(read)
            if self.redacted > redacted:
                self.finish()

    def hidden_source(self, source: str) -> str:
        """What is stored in place of a file's path that holds a forgotten fact."""
        return self._door.hidden_id(source)

    def _sweep(self, document_ids: list[str]) -> None:
        """Redact what was stored of these documents."""
        if not home.has_ledger(self.settings):
            return
        ledger, redactor = self._facts
        if not redactor.refresh():
            return
        try:
            nodes = [
                node.node_id
                for document_id in dict.fromkeys(document_ids)
                for node in self.passages_of(document_id, sys.maxsize)
            ]
            self.redacted += sweep_added(ledger, self, redactor, nodes).passages
        except FulcrumError as error:  # what it was to redact is redacted whenever it is read
            log.warning(
                "new documents could not be swept for forgotten facts (%s); run: fulcrum forget "
                "sweep",
                type(error).__name__,
            )

    @cached_property
    def _door(self) -> Door:
        return Door(ledger=self._facts[0])

    @cached_property
    def _facts(self) -> "tuple[Ledger, Redactor]":
        ledger = home.ledger(self.settings)
        return ledger, factory.redactor(ledger)
