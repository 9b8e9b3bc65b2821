"""Replicas of the assistant in processes of their own, by Ray Serve, on one or many machines."""

import asyncio
import logging
import math
import os
import re
import socket
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from app import factory
from app.server.queued_work import QueuedPrompts, QueuedQuestions, QueuedWork
from app.server.service import POLL_SECONDS, Service, not_ready
from control.engines.scheduler import Cancelled
from foundation.errors import (
    BusyError,
    ClosingError,
    FulcrumError,
    InputError,
    ModelError,
    NotReadyError,
)
from foundation.text import counted

if TYPE_CHECKING:
    from app.settings import Settings
    from control.answer import Answer
    from control.conflict.calibration import Calibration
    from control.decoding.generate import Decoding
    from control.decoding.trace import TokenTrace
    from control.engines.transformers import LanguageModel
    from control.scoring import ScoredText
    from control.state import Query

log = logging.getLogger(__name__)

ADDRESS_VARIABLE = "RAY_ADDRESS"  # of the cluster, as everywhere with Ray
CONNECT_SECONDS = 5.0  # seconds to reach it
ATTEMPTS = 3  # at an answer whose replica is lost
RETRY_SECONDS = 1.0  # seconds between them
REPLICA_LOST = "the replica that was answering was lost; ask again"


@dataclass(frozen=True)
class ReplicaDescription:
    """The model of a replica: its name, window, calibration and tokenizer."""

    name: str
    window: int
    calibration: "Calibration"
    tokenizer: Any


class Replica:
    """One assistant, which answers what the server sends it, through a fair queue."""

    def __init__(self, settings: "Settings") -> None:
        """Load it.

        Raises:
            ModelError: It does not load.
        """
        self._service = Service(settings)
        self._service.load()
        if self._service.state.name == "failed":
            raise ModelError(self._service.state.message)

    def description(self) -> ReplicaDescription:
        """Return what the server needs to know of the model."""
        from control.engines.transformers import LanguageModel

        model, calibration = self._service.language_model, self._service.calibration
        if not isinstance(model, LanguageModel):
            raise ModelError(
                f"--replicas copies a model of this process, and {model.name} is not one: it "
                "answers many at once already; leave --replicas out"
            )
        tokenizer = model.tokenizer.backend_tokenizer
        return ReplicaDescription(model.name, model.window, calibration, tokenizer)

    async def answers(
        self, queries: "Sequence[Query]", decoding: "Decoding", client: str
    ) -> "AsyncIterator[tuple[int, TokenTrace] | list[Answer] | FulcrumError | None]":
        """Yield tokens with their questions' places, and last the answers or an error.

        ``None`` is yielded from time to time, so that cancellation is noticed.
        """
        loop, cancelled = asyncio.get_running_loop(), threading.Event()
        tokens: asyncio.Queue[tuple[int, TokenTrace] | None] = asyncio.Queue()

        def hand_over(item: "tuple[int, TokenTrace] | None") -> None:
            loop.call_soon_threadsafe(tokens.put_nowait, item)

        try:
            future = self._service.submit(
                queries, decoding, lambda place, token: hand_over((place, token)), cancelled, client
            )
        except FulcrumError as error:
            yield error
            return
        future.add_done_callback(lambda _: hand_over(None))
        try:
            while True:
                try:
                    item = await asyncio.wait_for(tokens.get(), POLL_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                if item is None:
                    break
                yield item
            failed = future.exception()
            if failed is not None and not isinstance(failed, FulcrumError):
                raise failed
            yield failed or future.result()
        finally:
            cancelled.set()
            future.cancel()

    async def score(
        self, prompts: "Sequence[str | Sequence[int]]", most: int, predict: bool, client: str
    ) -> "list[ScoredText] | FulcrumError":
        """Return scored texts, as `Service.score`, or the error."""
        cancelled = threading.Event()
        try:
            future = self._service.score(prompts, most, predict, cancelled, client)
            return await asyncio.wrap_future(future)
        except FulcrumError as error:
            return error
        finally:
            cancelled.set()


class ReplicatedService(Service):
    """A service whose questions are answered by replicas.

    Ledger, index and uploads are its own. It loads a model only for the laboratory.
    """

    def __init__(self, settings: "Settings") -> None:
        """Return at once; `load` starts the replicas."""
        super().__init__(settings)
        self._most = settings.waiting * settings.replicas
        self._threads = ThreadPoolExecutor(self._most, "fulcrum-replica")
        self._counting, self._under_way, self._closed = threading.Lock(), 0, False
        self._pool: ReplicaPool | None = None

    @property
    def model_name(self) -> str:
        """The name of the language model."""
        return self._ready_pool().description.name

    @property
    def window(self) -> int:
        """Longest prompt plus answer, in the model's tokens."""
        return self._ready_pool().description.window

    @property
    def calibration(self) -> "Calibration":
        """How the model's dial is to be read."""
        return self._ready_pool().description.calibration

    @property
    def language_model(self) -> "LanguageModel":
        """The model, loaded in this process too; use it inside `run` only."""
        with self._counting:
            return self._local_model

    @property
    def waiting(self) -> int:
        """How many questions are being answered or wait."""
        return self._under_way

    @property
    def idle(self) -> bool:
        """Whether no question is being answered and none waits."""
        return super().idle and not self._under_way

    def close(self) -> None:
        """Take no more questions; answers under way go on."""
        self._closed = True
        super().close()

    def end(self) -> None:
        """Stop the replicas."""
        self.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.end()

    def _load(self) -> None:
        self.ledger.version()  # what is wrong with them shows before anything is started
        self._index.count()
        self._pool = ReplicaPool(self.settings)

    def _submit(self, asked: QueuedWork) -> "Future[Any]":
        with self._counting:
            if self._closed:
                raise ClosingError
            if self._under_way >= self._most:
                waiting = counted(self._most, "question is", "questions are")
                raise BusyError(f"{waiting} waiting already; ask again later")
            self._under_way += 1
        future = self._threads.submit(self._ready_pool().result, asked)
        future.add_done_callback(self._done)
        return future

    def _check_ready(self) -> None:
        self._ready_pool()

    def _ready_pool(self) -> "ReplicaPool":
        if self._pool is None:
            raise not_ready(self.state)
        return self._pool

    def _done(self, _: "Future[Any]") -> None:
        with self._counting:
            self._under_way -= 1

    @cached_property
    def _local_model(self) -> "LanguageModel":

        return factory.local_model(self.settings)

    @property
    def _tokenizer(self) -> Any:
        return self._ready_pool().description.tokenizer


class ReplicaPool:
    """The replicas, on the cluster at ``RAY_ADDRESS`` or on a local one that ends with them."""

    def __init__(self, settings: "Settings") -> None:
        """Start them and wait until all are loaded.

        Raises:
            InputError: Nothing answers at ``RAY_ADDRESS``, the cluster has no room for them, or
                they cannot share what is stored.
            ModelError: They do not load.
        """
        import ray
        from ray import serve

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        quiet = {"enable_access_log": False, "log_level": "ERROR"}
        address = os.environ.get(ADDRESS_VARIABLE, "local")
        self._own, self._name = address == "local", f"fulcrum-{uuid.uuid4().hex[:8]}"
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        # Ray ties a cluster to the thread that starts it (PR_SET_PDEATHSIG), so that one
        # must not end before.
        self._starter = ThreadPoolExecutor(1, "fulcrum-ray")
        if not ray.is_initialized():
            cores = max(settings.replicas, os.cpu_count() or 1) if self._own else None
            self._starter.submit(_connect, address, cores).result()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        shared = _replica_settings(settings, len(nodes))
        deployment = serve.deployment(
            name="assistant",
            num_replicas=settings.replicas,
            max_ongoing_requests=settings.waiting,
            ray_actor_options=_replica_resources(
                settings.replicas, [node["Resources"] for node in nodes]
            ),
            logging_config=quiet,
        )(Replica)
        serve.start(proxy_location="Disabled", logging_config=quiet)
        try:
            self._handle = serve.run(
                deployment.bind(shared), name=self._name, route_prefix=None, logging_config=quiet
            )
            self.description: ReplicaDescription = self._handle.description.remote().result()
        except RuntimeError as error:
            self.end()
            found = re.search(r"(?:Model|Input|IndexState)Error: (.*)", str(error))
            raise ModelError(found[1] if found else "the replicas cannot be started") from error

    def result(self, asked: QueuedWork) -> Any:
        """Return the result of a replica; of another one if it is lost.

        Raises:
            FulcrumError: There is none, or the replica was lost.
        """
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

        losses = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
        attempts = Retrying(
            retry=retry_if_exception_type(losses),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_fixed(RETRY_SECONDS),
        )
        try:
            if isinstance(asked, QueuedQuestions):
                return attempts(self._answers, asked, defaultdict(list))
            return attempts(self._scores, asked)
        except RetryError:
            raise NotReadyError(REPLICA_LOST) from None

    def _scores(self, asked: QueuedPrompts) -> "list[ScoredText]":
        response = self._handle.score.remote(asked.prompts, asked.most, asked.predict, asked.client)
        while not asked.is_over():
            with suppress(TimeoutError):
                scored = response.result(timeout_s=POLL_SECONDS)
                if isinstance(scored, BaseException):
                    raise scored
                return scored
        response.cancel()
        raise Cancelled if asked.cancelled.is_set() else ClosingError

    def _answers(self, asked: QueuedQuestions, sent: defaultdict[int, list[str]]) -> "list[Answer]":
        """Ask a replica; ``sent`` are the texts of the tokens that the client has received."""
        received = Counter[int]()
        answers: Any = self._handle.options(stream=True).answers
        response = answers.remote(asked.queries, asked.decoding, asked.client)
        for item in response:
            if asked.cancelled.is_set():
                response.cancel()
                raise Cancelled
            if asked.abandoned.is_set():
                response.cancel()
                raise ClosingError
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, list):
                return item
            if item is not None:
                place, token = item
                received[place] += 1
                if received[place] > len(sent[place]):
                    sent[place].append(token.text)
                    if asked.on_token is not None:
                        asked.on_token(place, token)
                elif sent[place][received[place] - 1] != token.text:
                    raise NotReadyError(REPLICA_LOST)  # it was sampled or batched otherwise
        raise NotReadyError(REPLICA_LOST)

    def end(self) -> None:
        """Stop the replicas, and the local cluster if there is one."""
        import ray
        from ray import serve

        if self._own:
            ray.shutdown()
        else:
            serve.delete(self._name)
        self._starter.shutdown(wait=False)


def _connect(address: str, cores: int | None) -> None:
    """Join the cluster at an address, or start one with so many cores.

    Raises:
        InputError: Nothing answers there.
    """
    import ray

    try:
        if address not in ("local", "auto"):  # which Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, num_cpus=cores, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{ADDRESS_VARIABLE} {address!r}: no cluster answers there ({error}); start one by "
            "`ray start --head` and give its HOST:PORT, or unset it to have the replicas on this "
            "machine"
        ) from error


def _replica_settings(settings: "Settings", nodes: int) -> "Settings":
    """Return the replicas' settings; several machines cannot share local files."""
    changed: dict[str, Any] = {"replicas": 1}
    if nodes > 1:
        missing = [
            name
            for name in ("index", "ledger")
            if not (getattr(settings, name) or "").startswith("postgresql")
        ]
        if missing:
            raise InputError(
                f"replicas on {nodes} machines cannot share files: set FULCRUM_"
                f"{missing[0].upper()} to the URL of a PostgreSQL database that all of them reach"
            )
        if settings.ledger_key is None:
            raise InputError(
                f"replicas on {nodes} machines need the key of the ledger: set FULCRUM_LEDGER_KEY"
            )
        # A machine that forgets a fact cannot clear the reservoirs of the others.
        changed["without"] = settings.without | {"reservoir"}
    return settings.model_copy(update=changed)


def _replica_resources(replicas: int, nodes: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the processors and accelerators of each replica."""
    cores = [node.get("CPU", 0.0) for node in nodes]
    if sum(map(int, cores)) < replicas:
        raise InputError(
            f"{replicas} replicas take a core each at least, and the cluster has "
            f"{sum(map(int, cores))}; start fewer, or add machines to it"
        )
    each = max(1, int(min(cores) // math.ceil(replicas / len(nodes))))
    accelerators = sum(node.get("GPU", 0.0) for node in nodes)
    return {"num_cpus": each, "num_gpus": min(1.0, accelerators / replicas)}
