"""The assistant behind page and API: loaded once, asked by many."""

import copy
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from app import home
from app.server.fair_queue import FairQueue
from app.server.uploads import ParserLimits
from control.engines import scheduler
from control.engines.scheduler import Cancelled
from foundation.errors import ClosingError, DocumentError, FulcrumError, ModelError

if TYPE_CHECKING:
    from app.settings import Settings
    from control.answer import Answer
    from control.assistant import Assistant, Query
    from control.conflict.calibration import Calibration
    from control.decoding.generate import Decoding, OnToken
    from control.decoding.trace import TokenTrace
    from control.engines.transformers import LanguageModel
    from control.forgetting.ledger import Ledger
    from control.forgetting.record import Record
    from control.forgetting.redaction import Redactor
    from retrieval.embedding import Vectors
    from retrieval.index import IngestReport, PassageIndex
    from retrieval.stores.base import StoredDocument

log = logging.getLogger(__name__)
Result = TypeVar("Result")

LOADING = "the model is being loaded; ask again in a moment"
AT_ONCE = 16  # questions that are answered at once; on a CPU, more of them gain little
GLANCE = 0.2  # seconds after which one who waits for a token looks whether it is still wanted


@dataclass(frozen=True)
class State:
    """Whether questions can be answered; ``message`` is one line for people."""

    name: Literal["loading", "ready", "failed"]
    message: str


@dataclass(frozen=True)
class Progress:
    """How far an ingestion is.

    Attributes:
        file: Name of the file at hand; empty in the last item.
        read: Files that are done.
        files: Files that were given.
        documents: Documents stored so far, those that replaced an older content included.
        passages: Passages that they were cut into.
        duplicates: Documents not stored because their content is in the index already.
        replaced: Documents whose id was in the index with other content.
        skipped: Files that could not be read, each with the reason.
        finished: Whether this is the last item.
    """

    file: str
    read: int
    files: int
    documents: int = 0
    passages: int = 0
    duplicates: int = 0
    replaced: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    finished: bool = False


class Service:
    """The assistant behind page and API: loaded once, asked by many.

    Questions begin in fair turns between clients, several of them at once: each goes its way alone
    but for the decoding, which is one loop for all. Uploads, documents and the ledger wait for none
    of this. Safe to use from several threads.

    Attributes:
        settings: What it was made from.
        state: Whether it answers yet.
    """

    def __init__(self, settings: "Settings") -> None:
        """Return at once; `load` loads."""
        self.settings = settings
        self.state = State("loading", LOADING)
        self._turns = FairQueue(settings.waiting, AT_ONCE)
        self._limits = ParserLimits(settings.upload_seconds, settings.upload_memory * 1_000_000)
        self._assistant: Assistant | None = None
        self._opening, self._ingesting = threading.Lock(), threading.Lock()
        self._sweeps = ThreadPoolExecutor(1, "fulcrum-sweep")
        self._abandoned = threading.Event()

    def load(self) -> None:
        """Load the models and open the state; a failure is kept in ``state``."""
        try:
            self._turns.submit(self._load).result()
        except FulcrumError as error:
            self.state = State("failed", str(error))
        except Exception as error:
            log.error("loading failed: %s", type(error).__name__)
            message = f"the model cannot be loaded ({type(error).__name__}); see the log"
            self.state = State("failed", message)
        else:
            self.state = State("ready", "ready")
            self._sweep_soon()  # a sweep that was killed is done to its end

    def stream(
        self,
        query: "Query",
        how: "Decoding",
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> "Iterator[TokenTrace | Answer]":
        """Answer a question: its tokens once they are certain, the answer last.

        Closing the iterator or setting the event ends decoding at the next token; no answer comes
        then. A refused question has no tokens.

        Args:
            query: The question.
            how: Rule, alpha, sampling and length.
            cancelled: Set by whoever no longer wants the answer.
            client: Who asks; turns go round among clients.

        Raises:
            InputError: The question cannot be answered as it is.
            ModelError: The model is not loaded.
            BusyError: Too many wait already.
        """
        cancelled = cancelled or threading.Event()
        said: queue.SimpleQueue[TokenTrace | None] = queue.SimpleQueue()
        future = self.submit([query], how, lambda _, token: said.put(token), cancelled, client)
        future.add_done_callback(lambda _: said.put(None))
        try:
            while not cancelled.is_set():
                try:
                    token = said.get(timeout=GLANCE)
                except queue.Empty:
                    continue
                if token is None:
                    break
                yield token
            if not cancelled.is_set():
                yield future.result()[0]
        except Cancelled:
            return
        finally:
            cancelled.set()
            future.cancel()

    def ask(self, queries: "Sequence[Query]", how: "Decoding", client: str = "") -> "list[Answer]":
        """Answer questions in one batch; errors as for `stream`."""
        return self.submit(queries, how, client=client).result()

    def submit(
        self,
        queries: "Sequence[Query]",
        how: "Decoding",
        on_token: "OnToken | None" = None,
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> "Future[list[Answer]]":
        """Let questions be answered when it is their turn.

        Args:
            queries: The questions, answered in one batch.
            how: Rule, alpha, sampling and length.
            on_token: Called in the decoding thread with a question's place and its token.
            cancelled: Set once the answers are no longer wanted: decoding ends at its next token.
                Cancelling the future is enough while it waits.
            client: Who asks.
        """
        self._check_ready()
        given_up = (cancelled or threading.Event()).is_set
        return self._turns.submit(partial(self._answers, queries, how, on_token, given_up), client)

    def run(self, work: Callable[[], Result], client: str = "") -> Result:
        """Do something with the language model when it is this client's turn.

        Others wait meanwhile, but for where it decodes: give long work in parts.
        """
        self._check_ready()
        return self._turns.submit(work, client).result()

    def ingest(self, paths: Sequence[Path], trust: float | None = None) -> Iterator[Progress]:
        """Add files to the index; each is parsed in a process of its own, within limits.

        What cannot be read is skipped and told with its reason in the items that follow.

        Args:
            paths: Files; their documents say that they come from a file of this name.
            trust: In the documents, in [0, 1], where they do not say it themselves.

        Yields:
            An item for each file as it begins and for each batch of documents stored; the last
            one, ``finished``, holds the counts.
        """
        from app.server import uploads
        from retrieval.index import IngestReport

        report, now = IngestReport(), Progress("", 0, len(paths))
        with self._ingesting:
            for number, path in enumerate(paths):
                now = replace(now, file=path.name, read=number)
                yield now
                try:
                    read = uploads.documents(path, self._limits, trust)
                    for so_far in self._index.ingest_documents(read, report):
                        now = _counted(now, so_far)
                        yield now
                except DocumentError as error:
                    skipped = (*now.skipped, (path.name, str(error)))
                    now = replace(_counted(now, report), skipped=skipped)
        yield replace(now, file="", read=len(paths), finished=True)

    def documents(self, offset: int = 0, limit: int | None = None) -> "list[StoredDocument]":
        """The documents of the index, in the order they came, without what is forgotten."""
        found = self._index.documents(offset, limit)
        redactor = self._redactor
        if redactor is None:
            return found
        texts = [text for document in found for text in (document.title, document.source)]
        left = [part.text for part in redactor.redact_all([(text, "") for text in texts])]
        return [
            replace(document, title=title, source=source)
            for document, title, source in zip(found, left[::2], left[1::2], strict=True)
        ]

    def remove_document(self, document_id: str) -> int:
        """Remove a document; how many passages it had, 0 if there is none of this id."""
        return self._index.delete(document_id)

    def count(self) -> int:
        """How many passages the index holds."""
        return self._index.count()

    def embed(self, texts: Sequence[str]) -> "Vectors":
        """Texts as unit vectors, shape (texts, dimension), as documents are embedded."""
        from app import factory

        return factory.vectors(texts)

    def tokens(self, text: str) -> int:
        """How many tokens of the language model a text takes."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    @property
    def ledger(self) -> "Ledger":
        """The forgotten facts; after writing to it directly, call `sweep`."""
        with self._opening:
            return self._ledger

    def forget(self, records: "Sequence[Record]") -> "list[Record]":
        """Forget facts from now on; what is stored is redacted soon after.

        Returns:
            The records as the ledger holds them, with id and time.
        """
        kept = self.ledger.add(records)
        self._sweep_soon()
        return kept

    def unforget(self, record_id: str, who: str = "", reason: str = "") -> "Record":
        """Let a fact be said again; what was redacted because of it comes back soon after.

        Raises:
            InputError: There is no such record.
        """
        record = self.ledger.remove(record_id, who, reason)
        self._sweep_soon()
        return record

    def sweep(self) -> None:
        """Redact and restore what is stored, and wait until that is done."""
        self._sweeps.submit(self._sweep).result()

    @property
    def model_name(self) -> str:
        """The name of the language model."""
        return self._ready().model.name

    @property
    def language_model(self) -> "LanguageModel":
        """The model; to be used inside `run` alone."""
        return self._ready().model

    @property
    def calibration(self) -> "Calibration":
        """How the model's dial is to be read."""
        return self._ready().calibration

    @property
    def waiting(self) -> int:
        """How many questions wait for their turn."""
        return self._turns.waiting

    @property
    def idle(self) -> bool:
        """Whether no question is being answered and none waits."""
        return self._turns.idle

    def abandon(self) -> None:
        """End the answers under way before their next token, with a `ClosingError`."""
        self._abandoned.set()

    def end(self) -> None:
        """Let go of what lives as long as the service."""
        self.close()

    def close(self) -> None:
        """Take no more questions and refuse those that wait; answers under way go on."""
        self._turns.close()
        self._sweeps.shutdown(wait=False, cancel_futures=True)  # what is left the next start does

    def _load(self) -> None:
        from app import factory
        from control.assistant import Query
        from control.decoding.generate import Decoding

        self.ledger.version()  # what is wrong with it shows before anything is loaded
        assistant = factory.assistant(self.settings, index=self._index)
        assistant.forgetting.wait()
        # The first answer of a process takes seconds more than the next ones.
        self.embed(["Hello"])
        assistant.ask_batch([Query("Hello", ())], Decoding(max_new_tokens=1))
        self._assistant = assistant

    def _check_ready(self) -> None:
        self._ready()

    def _ready(self) -> "Assistant":
        if self._assistant is None:
            raise ModelError(self.state.message)
        return self._assistant

    @property
    def _redactor(self) -> "Redactor | None":
        return self._assistant.forgetting.redactor if self._assistant else None

    @property
    def _tokenizer(self) -> Any:
        """As the model's, of the tokenizers package."""
        return self._ready().model.tokenizer.backend_tokenizer

    def _answers(
        self,
        queries: "Sequence[Query]",
        how: "Decoding",
        on_token: "OnToken | None",
        given_up: Callable[[], bool],
    ) -> "list[Answer]":
        def over() -> bool:
            return given_up() or self._abandoned.is_set()

        try:
            if over():
                raise Cancelled
            with scheduler.until(over):
                return self._ready().ask_batch(queries, how, on_token)
        except Cancelled:
            if self._abandoned.is_set() and not given_up():
                raise ClosingError from None
            raise

    def _sweep_soon(self) -> None:
        with suppress(RuntimeError):  # the server is closing: the next start does it
            self._sweeps.submit(self._sweep)

    def _sweep(self) -> None:
        from app import factory
        from control.forgetting.redaction import Redactor
        from control.forgetting.sweep import sweep

        try:
            if self._index.count():
                facts = self.ledger
                redactor = Redactor(facts, factory.embedding())
                sweep(facts, self._index, factory.reservoir(self.settings), redactor)
        except Exception as error:  # what it was to redact is redacted whenever it is read
            log.error("stored passages could not be swept: %s", type(error).__name__)

    @cached_property
    def _ledger(self) -> "Ledger":
        return home.ledger(self.settings)

    @property
    def _index(self) -> "PassageIndex":
        with self._opening:
            return self._opened_index

    @cached_property
    def _opened_index(self) -> "PassageIndex":
        from app import factory

        return factory.passage_index(self.settings)

    @cached_property
    def _counter(self) -> Any:
        # A copy, since what others ask of a tokenizer changes it for a moment.
        counter = copy.deepcopy(self._tokenizer)
        counter.no_padding()
        counter.no_truncation()
        return counter


def _counted(now: Progress, report: "IngestReport") -> Progress:
    return replace(
        now,
        documents=report.documents,
        passages=report.passages,
        duplicates=report.duplicates,
        replaced=report.replaced,
    )
