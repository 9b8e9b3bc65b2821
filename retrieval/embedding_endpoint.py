"""An embedding model behind the ``/v1/embeddings`` of an OpenAI-compatible server."""

from collections.abc import Callable
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import openai
from llama_index.core.bridge.pydantic import PrivateAttr
from pydantic import BaseModel, Field, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from foundation.errors import ModelError
from retrieval.embedding import CachedEmbedding, Vectors, unit_vectors

KEY_VARIABLE = "FULCRUM_EMBEDDING_KEY"
EXAMPLE = "http://127.0.0.1:8000/v1"
BATCH_TEXTS = 64  # of one request
ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between two attempts: 0.5, 1, 2, 4 and a little
LONGEST_ASKED = 60.0  # seconds: a server that asks for a longer pause is not waited for
CONNECT_SECONDS = 5.0
READ_SECONDS = 300.0  # of one request: 64 passages by a large model on a processor
PASSING = (408, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
LONGEST_REASON = 160  # characters of a server's own words
SHOWN_MODELS = 10

Answer = TypeVar("Answer", bound=BaseModel)


class EndpointEmbedding(CachedEmbedding):
    """A model behind an OpenAI-compatible server, such as vLLM, llama.cpp, Ollama or OpenAI.

    Texts are sent as they are, in batches: a prompt such as "query: " is the server's business.
    Requests are repeated while the server is busy or away.
    """

    _server: "Server" = PrivateAttr()
    _served_name: str = PrivateAttr()
    _dimension: int | None = PrivateAttr(default=None)

    def __init__(
        self, url: str, key: str | None = None, embed_batch_size: int = BATCH_TEXTS
    ) -> None:
        """Connect; the server is asked for its models only if the URL names none.

        An index records the model by the name that the server gives it, so the server may move.

        Args:
            url: Up to ``/v1``, with ``#name`` where the server has several models.
            key: If the server wants one.
            embed_batch_size: Texts of one request.

        Raises:
            ModelError: The URL or the key cannot be used; or the URL names no model, and the
                server cannot be asked, or has not just one.
        """
        address, _, name = url.partition("#")
        server = Server(address, key)
        name = name or server.only_model()
        super().__init__(model_name=f"{name} (served)", embed_batch_size=embed_batch_size)
        self._server, self._served_name = server, name

    @property
    def public_name(self) -> str:
        """The name that the server gives the model."""
        return self._served_name

    def _embed(self, kind: str, texts: list[str]) -> Vectors:
        """Return vectors of length 1, shape (texts, dimension).

        Raises:
            ModelError: The server cannot embed them, or gives another dimension than before.
        """
        size = self.embed_batch_size
        vectors: list[list[float]] = []
        for start in range(0, len(texts), size):
            vectors += self._server.embed(self._served_name, texts[start : start + size])
        for length in map(len, vectors):
            if self._dimension not in (None, length):
                raise ModelError(
                    f"{self._server.option}#{self._served_name}: the server gave vectors of "
                    f"{length} numbers, before of {self._dimension}; it serves another model now: "
                    "start it with the former one"
                )
            self._dimension = length
        return unit_vectors(vectors)


class Server:
    """Requests to one server, repeated where that helps; errors are one line.

    Attributes:
        option: The option with the server's address, to begin a message.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        """Check address and key; nothing is sent yet.

        Raises:
            ModelError: They cannot be used.
        """
        if not _is_usable(address):
            raise ModelError(
                f"--embedding names no server: give its URL up to /v1, as in {EXAMPLE}, with "
                f"#name where it has several models; a key goes into {KEY_VARIABLE}"
            )
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ModelError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
        self.option = f"--embedding {address}"
        self._client = openai.OpenAI(
            base_url=address,
            api_key=key or "none",  # left out, the client would send the key for OpenAI's own API
            max_retries=0,
            timeout=openai.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        )

    def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """Embed texts in one request; vectors of any length, one for each text.

        Raises:
            ModelError: The server has no such model or cannot embed the texts.
        """
        create = self._client.embeddings.with_raw_response.create
        try:
            answer = self._asked(
                lambda: create(model=model, input=texts, encoding_format="float").text, _Embeddings
            )
        except openai.NotFoundError as error:
            names = self._names()
            if model not in names:
                raise ModelError(self._no_model(model, names)) from error
            self._fail(error)
        except (openai.OpenAIError, ValidationError) as error:
            self._fail(error)
        found = sorted(answer.data, key=lambda each: each.index)
        if [each.index for each in found] != list(range(len(texts))):
            raise ModelError(
                f"{self.option}: the server gave {len(found)} vectors for {len(texts)} texts; "
                "it is not compatible with OpenAI's /v1/embeddings, use another one"
            )
        return [each.embedding for each in found]

    def only_model(self) -> str:
        """Return the name of the one model that the server has.

        Raises:
            ModelError: It cannot be asked, or has not just one.
        """
        try:
            names = self._asked_names()
        except (openai.OpenAIError, ValidationError) as error:
            self._fail(error)
        if len(names) != 1:
            raise ModelError(
                f"{self.option}: the server has {_listed(names)}; name one after a #, "
                f"as in {EXAMPLE}#{names[0] if names else 'name'}"
            )
        return names[0]

    def _asked_names(self) -> list[str]:
        answer = self._asked(lambda: self._client.models.with_raw_response.list().text, _Models)
        return [each.id for each in answer.data]

    def _names(self) -> list[str]:
        """Return the names of the models, none where the server does not tell them."""
        try:
            return self._asked_names()
        except (openai.OpenAIError, ValidationError):
            return []

    def _asked(self, request: Callable[[], str], form: type[Answer]) -> Answer:
        """Return the answer to a request, sent again while the server is busy or away."""
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            reraise=True,
        )
        return form.model_validate_json(retrying(request))

    def _no_model(self, model: str, names: list[str]) -> str:
        if names:
            return (
                f"{self.option}#{model}: the server has no such model; it has {_listed(names)}, "
                "name one after the #"
            )
        return (
            f"{self.option}#{model}: the server has no such model, or no embeddings at this "
            f"address; give its URL up to /v1, as in {EXAMPLE}, and after the # a model of it"
        )

    def _fail(self, error: Exception) -> NoReturn:
        """Raise an error of the client as one that says what to do."""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            problem = f"the server refuses the key; set {KEY_VARIABLE} to a valid one"
        elif isinstance(error, openai.APITimeoutError):
            problem = f"no answer in {READ_SECONDS:.0f} seconds; try again later"
        elif isinstance(error, openai.APIConnectionError):
            problem = "the server cannot be reached; start it, or give the right address"
        elif isinstance(error, openai.APIStatusError):
            again = "try again later" if error.status_code in PASSING else "give another model"
            problem = f"the server answers {error.status_code} ({_reason(error)}); {again}"
        else:
            problem = (
                "the server's answer is not that of an OpenAI-compatible server; give its URL up "
                f"to /v1, as in {EXAMPLE}"
            )
        raise ModelError(f"{self.option}: {problem}") from error


class _Embedding(BaseModel):
    index: int
    embedding: list[float] = Field(min_length=1)


class _Embeddings(BaseModel):
    data: list[_Embedding]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _is_usable(address: str) -> bool:
    """Whether an address is that of a server, and holds no password that messages would show."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0 and not (parts.username or parts.query)
    except ValueError:  # its port is no number
        return False


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in PASSING and _asked_pause(error) <= LONGEST_ASKED
    away = isinstance(error, openai.APIConnectionError)
    return away and not isinstance(error, openai.APITimeoutError)  # it took long enough


def _pause(state: RetryCallState) -> float:
    """Return the seconds until the next attempt: longer each time, and what the server asks."""
    error = state.outcome.exception() if state.outcome else None
    asked = _asked_pause(error) if isinstance(error, openai.APIStatusError) else 0.0
    return max(asked, wait_exponential_jitter(FIRST_WAIT, LONGEST_WAIT, jitter=FIRST_WAIT)(state))


def _asked_pause(error: openai.APIStatusError) -> float:
    """Return the seconds of ``Retry-After``; 0 where there is none."""
    asked = error.response.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else 0.0


def _reason(error: openai.APIStatusError) -> str:
    """Return the server's own words, in one line."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(str(message or error.message).split())[:LONGEST_REASON]


def _listed(names: list[str]) -> str:
    """Return the names of models, of many the first."""
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more if names else "no model"
