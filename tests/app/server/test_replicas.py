"""Replicas on two nodes of a Ray cluster, with ledger and index on PostgreSQL."""

import contextlib
import os
import secrets
import signal
import threading
import time
from pathlib import Path

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster

from app import settings as settings_module
from app.server import replicas
from app.server.replicas import ReplicatedService
from app.server.service import Service
from control.decoding.generate import Decoding
from control.engines.scheduler import Cancelled
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.suppressor import REFUSALS
from control.state import Query
from foundation.errors import InputError, ModelError

HOW = Decoding(max_new_tokens=16)
COUNTRIES = ("Peru", "Chile", "Norway", "France", "Japan", "Kenya")
ASKED = [Query(f"What is the capital of {country}?") for country in COUNTRIES]
pytestmark = [pytest.mark.kill, pytest.mark.model, pytest.mark.postgres, pytest.mark.ray]
DOCUMENT = "The capital of Peru is Quito.\n\nThe capital of Norway is Bergen.\n"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each."""
    head = {"num_cpus": 1, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")  # this cluster is not the product's
        both = Cluster(initialize_head=True, head_node_args=head)
        both.add_node(num_cpus=1)
        patched.setenv("RAY_ADDRESS", both.address)
        yield both
        serve.shutdown()
        ray.shutdown()
        both.shutdown()


@pytest.fixture(scope="module")
def given(cache, postgres):
    """Settings that share ledger and index between machines."""
    databases = [postgres.new_database(), postgres.new_database()]
    index, ledger = map(postgres.url, databases)
    yield {
        "cache": cache,
        "index": index,
        "ledger": ledger,
        "ledger_key": secrets.token_hex(32),
        "without": ("rewriter", "filter", "reservoir"),
    }
    for database in databases:
        postgres.drop(database)


@pytest.fixture(scope="module")
def service(cluster, given, tmp_path_factory):
    """A service with two replicas, whose index holds the document."""
    replicated = ReplicatedService(settings_module.load(**given, replicas=2))
    replicated.load()
    assert replicated.state.name == "ready", replicated.state.message
    file = tmp_path_factory.mktemp("documents") / "capitals.txt"
    file.write_text(DOCUMENT, encoding="utf-8")
    *_, counted = replicated.documents.ingest([file])
    assert counted.documents == 1
    yield replicated
    replicated.end()


def workers(cluster):
    """Process id and parent of each replica of the cluster."""
    nodes = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                state = process.joinpath("stat").read_text().rpartition(")")[2].split()
                if int(state[1]) in nodes:  # other tests may have a cluster too
                    found[int(process.name)] = int(state[1])
    return found


def test_two_nodes_answer_as_one_process(cluster, service, given):
    alone = Service(settings_module.load(**given))
    alone.load()
    assert (service.model_name, service.window) == (alone.model_name, alone.window)
    assert len(set(workers(cluster).values())) == 2  # one on each node
    for query in ASKED:
        [expected], [answer] = alone.ask([query], HOW), service.ask([query], HOW)
        assert answer.answer == expected.answer
        assert [source.text for source in answer.sources] == [
            source.text for source in expected.sources
        ]
    assert "Quito" in service.ask([ASKED[0]], HOW)[0].answer
    alone.close()


def test_an_answer_streams(service):
    *tokens, answer = service.stream(ASKED[1], HOW)
    assert len(tokens) > 1
    assert "".join(token.text for token in tokens).strip() == answer.answer


def test_what_is_forgotten_at_the_front_no_replica_says(service):
    peru = Record(subject="Peru", relation="capital", answers=("Quito", "Lima"))
    [kept] = service.forget([with_questions(peru)])
    together = [service.submit([ASKED[0]], HOW, client=str(each)) for each in range(6)]
    assert {answer.answer for each in together for answer in each.result()} <= {*REFUSALS}
    service.unforget(kept.id)
    service.sweep()
    assert "Quito" in service.ask([ASKED[0]], HOW)[0].answer


def test_replicas_score_as_one_process(service, given):
    alone = Service(settings_module.load(**given))
    alone.load()
    texts = ["The capital of Peru is Lima", alone.language_model.tokenizer("Who?").input_ids]
    assert service.score(texts, 2, True).result() == alone.score(texts, 2, True).result()
    alone.close()
    with pytest.raises(InputError, match="shorten it"):
        service.score(["a " * 10_000]).result()
    [kept] = service.forget([with_questions(Record("Peru", relation="capital", answers=("Lima",)))])
    [scored] = service.score(texts[:1]).result()
    assert scored.forgotten == (kept.id,)
    service.unforget(kept.id)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        service.score(texts, cancelled=cancelled).result()


def test_who_leaves_ends_the_answer(service):
    answer = service.stream(ASKED[0], Decoding(max_new_tokens=500))
    next(answer)
    answer.close()
    while not service.idle:
        time.sleep(0.1)
    assert service.ask([ASKED[1]], HOW)[0].answer


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        ("index", "set FULCRUM_INDEX"),
        ("ledger", "set FULCRUM_LEDGER"),
        ("ledger_key", "LEDGER_KEY"),
    ],
)
def test_what_lies_on_one_machine_cannot_be_shared_by_two(cluster, given, left_out, says):
    left = {name: value for name, value in given.items() if name != left_out}
    assert says in failing(**left, replicas=2)


def test_more_replicas_than_cores_are_refused(cluster, given):
    assert "3 replicas" in failing(**given, replicas=3)


def failing(**given):
    """Why a service does not start."""
    service = ReplicatedService(settings_module.load(**given))
    service.load()
    service.end()
    assert service.state.name == "failed"
    return service.state.message


def test_a_replica_killed_under_load_loses_no_answer(cluster, service):
    first, *_ = workers(cluster)
    heard, said = threading.Event(), {}

    def listening(answer):
        for item in answer:
            heard.set()
            yield item

    def ask(number):
        query = ASKED[number % len(ASKED)]
        for _ in range(20):
            with contextlib.suppress(ModelError):
                *_, said[number] = listening(service.stream(query, HOW, client=str(number)))
                return

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for client in clients:
        client.start()
    heard.wait()
    os.kill(first, signal.SIGKILL)
    for client in clients:
        client.join()
    assert sorted(said) == list(range(12))
    assert all(answer.answer for answer in said.values())


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense"])
def test_a_cluster_that_does_not_answer_is_named(given, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"RAY_ADDRESS '{address}': no cluster answers there"):
        replicas.ReplicaPool(settings_module.load(replicas=2, **given))
