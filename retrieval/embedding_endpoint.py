"""An embedding model behind the ``/v1/embeddings`` of an OpenAI-compatible server."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

import openai
from llama_index.core.bridge.pydantic import PrivateAttr
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying

from foundation import model_server
from foundation.errors import ModelError
from retrieval.embedding import CachedEmbedding, Vectors, unit_vectors

KEY_VARIABLE = "FULCRUM_EMBEDDING_KEY"
BATCH_TEXTS = 64  # of one request
READ_SECONDS = 300.0  # of one request: 64 passages by a large model on a processor

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
        self.option = f"--embedding {address}"
        self._client = openai.OpenAI(
            **model_server.client_settings(self.option, address, key, KEY_VARIABLE, READ_SECONDS)
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
        return model_server.chosen(self.option, names, "")

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
        return form.model_validate_json(Retrying(**model_server.retry_settings())(request))

    def _no_model(self, model: str, names: list[str]) -> str:
        if names:
            return (
                f"{self.option}#{model}: the server has no such model; it has "
                f"{model_server.listed(names)}, name one after the #"
            )
        return (
            f"{self.option}#{model}: the server has no such model, or no embeddings at this "
            f"address; give its URL up to /v1, as in {model_server.EXAMPLE}, and after the # a "
            "model of it"
        )

    def _fail(self, error: Exception) -> NoReturn:
        """Raise an error of the client as one that says what to do."""
        reason = model_server.problem(error, KEY_VARIABLE, READ_SECONDS)
        raise ModelError(f"{self.option}: {reason}") from error


class _Embedding(BaseModel):
    index: int
    embedding: list[float] = Field(min_length=1)


class _Embeddings(BaseModel):
    data: list[_Embedding]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]
