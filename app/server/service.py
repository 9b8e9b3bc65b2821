"""The assistant behind page and API, shared by all clients."""

import copy
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from app import factory, home
from app.server.documents import Documents
from app.server.fair_queue import FairQueue
from app.server.queued_work import QueuedPrompts, QueuedQuestions, QueuedWork
from app.server.uploads import ParserLimits
from control.engines.scheduler import Cancelled
from control.forgetting import learned_facts
from control.forgetting.clearing import Cleared, ClearedToken, Door, own
from foundation.errors import (
    ClosingError,
    FulcrumError,
    InputError,
    ModelError,
    NotReadyError,
    UnavailableError,
)

if TYPE_CHECKING:
    from app.settings import Settings
    from control.answer import Answer
    from control.assistant import Assistant
    from control.conflict.calibration import Calibration
    from control.corrections import Corrections
    from control.decoding.generate import Decoding
    from control.engines.base import Engine
    from control.forgetting.ledger import Ledger
    from control.forgetting.record import Record
    from control.forgetting.redaction import Redactor
    from control.forgetting.suppressor import OnClearedToken
    from control.scoring import ScoredText
    from control.state import Query
    from retrieval.embedding import Vectors
    from retrieval.index import PassageIndex

log = logging.getLogger(__name__)
Result = TypeVar("Result")

LOADING = "the model is being loaded; ask again in a moment"
UNABLE = "the model cannot answer; ask again later, or ask who runs this server: its log says why"
AT_ONCE = 16  # questions answered concurrently; on a CPU, more of them gain little
POLL_SECONDS = 0.2  # seconds between checks for cancellation while waiting for a token


@dataclass(frozen=True)
class ServiceState:
    """Whether questions can be answered.

    Attributes:
        name: What it is doing.
        message: One line for users.
        passing: Whether it failed since a model's server is away, so that another try may succeed.
    """

    name: Literal["loading", "ready", "failed"]
    message: Cleared
    passing: bool = False


def not_ready(state: ServiceState) -> ModelError:
    """The error of a question while there is no model."""
    kind = NotReadyError if state.name == "loading" else ModelError
    return kind(state.message)


class Service:
    """The assistant behind page and API: loaded once, asked by many.

    A fair queue starts questions of several clients concurrently; their decoding shares one loop.
    Uploads, documents and the ledger do not wait for it. Safe to use from several threads.

    Attributes:
        settings: The settings.
        state: Whether it answers yet.
        documents: Those of the index.
    """

    def __init__(self, settings: "Settings") -> None:
        """Return at once; `load` loads."""
        self.settings = settings
        self.state = ServiceState("loading", own(LOADING))
        self._queue = FairQueue(settings.waiting, AT_ONCE)
        limits = ParserLimits(settings.upload_seconds, settings.upload_memory * 1_000_000)
        self.documents = Documents(lambda: self._index, lambda: self.door, limits)
        self._assistant: Assistant | None = None
        self._opening = threading.Lock()
        self._sweeps = ThreadPoolExecutor(1, "fulcrum-sweep")
        self._abandoned = threading.Event()

    def load(self) -> None:
        """Load the models and open the stores; a failure is recorded in ``state``."""
        try:
            self._queue.submit(self._load).result()
        except FulcrumError as error:
            passing = isinstance(error, UnavailableError)
            self.state = ServiceState("failed", self._cleared(error), passing)
        except Exception as error:
            log.error("loading failed: %s", type(error).__name__)
            message = f"the model cannot be loaded ({type(error).__name__}); see the log"
            self.state = ServiceState("failed", own(message))
        else:
            self.state = ServiceState("ready", own("ready"))
            self._schedule_sweep()  # a sweep that was killed is done to its end

    def stream(
        self,
        query: "Query",
        decoding: "Decoding",
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> "Iterator[ClearedToken | Answer]":
        """Answer a question: yield its tokens once they are final, and last the answer.

        Closing the iterator or setting the event stops decoding at the next token, without an
        answer. A refused question has no tokens.

        Args:
            query: The question.
            decoding: Rule, alpha, sampling and length.
            cancelled: Set it to stop.
            client: Who asks, for the fair queue.

        Raises:
            InputError: The question cannot be answered as it is.
            ModelError: The model is not loaded.
            BusyError: Too many wait already.
        """
        cancelled = cancelled or threading.Event()
        tokens: queue.SimpleQueue[ClearedToken | None] = queue.SimpleQueue()
        future = self.submit(
            [query], decoding, lambda _, token: tokens.put(token), cancelled, client
        )
        future.add_done_callback(lambda _: tokens.put(None))
        try:
            while not cancelled.is_set():
                try:
                    token = tokens.get(timeout=POLL_SECONDS)
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

    def ask(
        self, queries: "Sequence[Query]", decoding: "Decoding", client: str = ""
    ) -> "list[Answer]":
        """Answer questions in one batch; errors as for `stream`."""
        return self.submit(queries, decoding, client=client).result()

    def submit(
        self,
        queries: "Sequence[Query]",
        decoding: "Decoding",
        on_token: "OnClearedToken | None" = None,
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> "Future[list[Answer]]":
        """Queue questions to be answered.

        Args:
            queries: The questions, answered in one batch.
            decoding: Rule, alpha, sampling and length.
            on_token: Called in the decoding thread with a question's place and its token.
            cancelled: Set it to stop at the next token; cancelling the future is enough while it
                waits.
            client: Who asks, for the fair queue.
        """
        self._check_ready()
        return self._submit(
            QueuedQuestions(
                queries=queries,
                decoding=decoding,
                on_token=on_token,
                client=client,
                cancelled=cancelled or threading.Event(),
                abandoned=self._abandoned,
            )
        )

    def score(
        self,
        prompts: "Sequence[str | Sequence[int]]",
        most: int = 0,
        predict: bool = False,
        cancelled: threading.Event | None = None,
        client: str = "",
    ) -> "Future[list[ScoredText]]":
        """Queue texts whose tokens the model alone is to score, as `control.scoring.score`.

        Args:
            prompts: Texts, or the ids of their tokens.
            most: Alternatives to each token.
            predict: Whether to name the most probable next token too.
            cancelled: Set it to stop.
            client: Who asks, for the fair queue.
        """
        self._check_ready()
        return self._submit(
            QueuedPrompts(
                prompts=prompts,
                most=most,
                predict=predict,
                client=client,
                cancelled=cancelled or threading.Event(),
                abandoned=self._abandoned,
            )
        )

    def run(self, work: Callable[[], Result], client: str = "") -> Result:
        """Run a function that uses the language model when it is this client's turn.

        Others wait meanwhile, except where it decodes, so split long work.
        """
        self._check_ready()
        return self._queue.submit(work, client).result()

    def embed(self, texts: Sequence[str]) -> "Vectors":
        """Embed texts as documents: unit vectors, shape (texts, dimension)."""
        from retrieval.embedding import unit_vectors

        embed_model = factory.embedding(self.settings)
        return unit_vectors(embed_model.get_text_embedding_batch(list(texts)))

    @property
    def embedding_name(self) -> str:
        """The name of the index's embedding model."""
        return factory.embedding(self.settings).public_name

    def tokens(self, text: str) -> int:
        """Return the number of the language model's tokens in a text."""
        if self._tokenizer is None:
            model = self._ready().model
            return len(model.tokens([text])[0]) or model.length(text)
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the language model's tokens, without its control tokens.

        Raises:
            InputError: The model has no such token.
        """
        for token in ids:
            if self._counter.id_to_token(token) is None:
                raise InputError(f"token {token} is none of {self.model_name}'s")
        return self._counter.decode(list(ids), skip_special_tokens=True)

    @property
    def door(self) -> Door:
        """What clears all that leaves the server."""
        return self._assistant.forgetting.door if self._assistant else self._own_door

    @property
    def shown_state(self) -> ServiceState:
        """The state as whoever asks may see it; see `error_line`."""
        hidden = self.state.name == "failed" and self.settings.read_key
        return replace(self.state, message=own(UNABLE)) if hidden else self.state

    def error_line(self, error: FulcrumError) -> Cleared:
        """What an error says; where the ledger cannot be read, that instead.

        With keys, others than those who run the server ask. What only these can mend may name
        files and addresses of theirs, so it is told in the log alone.
        """
        operators = isinstance(error, ModelError) and not isinstance(error, NotReadyError)
        if operators and self.settings.read_key:
            log.warning("%s", self._cleared(error))
            return own(UNABLE)
        return self._cleared(error)

    def _cleared(self, error: FulcrumError) -> Cleared:
        try:
            return self.door.line(" ".join(str(error).split()))
        except FulcrumError as damage:
            return own(" ".join(str(damage).split()))

    @property
    def ledger(self) -> "Ledger":
        """The forgotten facts; after writing to it directly, call `sweep`."""
        with self._opening:
            return self._ledger

    def forget(self, records: "Sequence[Record]") -> "list[Record]":
        """Forget facts from now on; stored passages are redacted soon after.

        Returns:
            The records as the ledger holds them, with id and time.
        """
        kept = self.ledger.add(records)
        self._schedule_sweep()
        return kept

    def adapter_notices(self, records: "Sequence[Record]") -> list[str]:
        """Which adapters were trained on facts that are forgotten, a line each."""
        return learned_facts.notices(home.adapters(self.settings), records)

    def unforget(self, record_id: str, who: str = "", reason: str = "") -> "Record":
        """Stop forgetting a fact; what was redacted because of it is restored soon after.

        Raises:
            InputError: There is no such record.
        """
        record = self.ledger.remove(record_id, who, reason)
        self._schedule_sweep()
        return record

    @property
    def corrections(self) -> "Corrections":
        """The pinned corrections."""
        with self._opening:
            return self._corrections

    def sweep(self) -> None:
        """Redact and restore stored passages, and wait until that is done."""
        self._sweeps.submit(self._sweep).result()

    @property
    def model_name(self) -> str:
        """The name of the language model."""
        return self._ready().model.name

    @property
    def window(self) -> int:
        """Longest prompt plus answer, in the model's tokens."""
        return self._ready().model.window

    @property
    def language_model(self) -> "Engine":
        """The model; use it inside `run` only."""
        return self._ready().model

    @property
    def calibration(self) -> "Calibration":
        """The calibration of the model's dial."""
        return self._ready().calibration

    @property
    def model_notices(self) -> list[str]:
        """What the user should know of the model, whatever is asked, one sentence each."""
        from control.notices import of_model

        return of_model(self.model_name, self.calibration)

    @property
    def waiting(self) -> int:
        """How many questions wait for their turn."""
        return self._queue.waiting

    @property
    def idle(self) -> bool:
        """Whether no question is being answered and none waits."""
        return self._queue.idle

    def abandon(self) -> None:
        """Stop the running answers before their next token, with a `ClosingError`."""
        self._abandoned.set()

    def end(self) -> None:
        """Release what the service owns."""
        self.close()

    def close(self) -> None:
        """Take no more questions and refuse the queued ones; running answers go on."""
        self._queue.close()
        self._sweeps.shutdown(wait=False, cancel_futures=True)  # the next start does the rest

    def _load(self) -> None:
        from control.decoding.generate import Decoding
        from control.state import Query

        self.ledger.version()  # raises before anything is loaded
        assistant = factory.assistant(self.settings, index=self._index)
        assistant = replace(assistant, even_time=True)
        assistant.forgetting.wait()
        # The first answer of a process takes seconds more than the next ones.
        self.embed(["Hello"])
        assistant.ask_batch([Query("Hello", ())], Decoding(max_new_tokens=1))
        self._assistant = assistant

    def _submit(self, asked: QueuedWork) -> "Future[Any]":
        def result() -> Any:
            try:
                if asked.is_over():
                    raise Cancelled
                return asked.result(self._ready())
            except Cancelled:
                if asked.abandoned.is_set() and not asked.cancelled.is_set():
                    raise ClosingError from None
                raise

        return self._queue.submit(result, asked.client, asked.is_over)

    def _check_ready(self) -> None:
        self._ready()

    def _ready(self) -> "Assistant":
        if self._assistant is None:
            raise not_ready(self.state)
        return self._assistant

    @cached_property
    def _own_door(self) -> Door:
        return Door(self._own_redactor, self.ledger)

    @cached_property
    def _own_redactor(self) -> "Redactor":
        """While there is no model, and where it does not load."""
        return factory.redactor(self.ledger)

    @property
    def _tokenizer(self) -> Any:
        """As the model's, of the tokenizers package; ``None`` where only its server has one."""
        from control.engines.transformers import LanguageModel

        model = self._ready().model
        return model.tokenizer.backend_tokenizer if isinstance(model, LanguageModel) else None

    def _schedule_sweep(self) -> None:
        with suppress(RuntimeError):  # the server is closing: the next start does it
            self._sweeps.submit(self._sweep)

    def _sweep(self) -> None:
        from control.forgetting.sweep import sweep

        try:
            if self._index.count():
                facts = self.ledger
                sweep(facts, self._index, factory.reservoir(self.settings), self._own_redactor)
        except Exception as error:  # what it was to redact is redacted whenever it is read
            log.error("stored passages could not be swept: %s", type(error).__name__)

    @cached_property
    def _ledger(self) -> "Ledger":
        return home.ledger(self.settings)

    @cached_property
    def _corrections(self) -> "Corrections":
        return factory.corrections(self.settings, self._ledger)

    @property
    def _index(self) -> "PassageIndex":
        with self._opening:
            return self._opened_index

    @cached_property
    def _opened_index(self) -> "PassageIndex":
        return factory.swept_index(self.settings)

    @cached_property
    def _counter(self) -> Any:
        # A copy, since what others ask of a tokenizer changes it for a moment.
        counter = copy.deepcopy(self._tokenizer)
        counter.no_padding()
        counter.no_truncation()
        return counter
