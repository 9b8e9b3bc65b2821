"""A process that writes the index is killed at random moments."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from llama_index.core.schema import Document
from sqlalchemy import text

from foundation.sqlite import writing
from retrieval import index as index_module
from retrieval.index import PassageIndex, open_index
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import read
from retrieval.stores.sqlite import LocalStore
from tests.retrieval.conftest import BagOfWords

KILLS = 20
DOCUMENTS = 30
LONGEST_DELAY = 0.3  # seconds after the first batch: about the time of one whole version
MODEL = BagOfWords(dimension=64)
# The first long text loads the splitter: here, so that the processes forked later have it.
split(Document(text="A sentence. " * 500, metadata={"title": "", "content_hash": ""}))


def _write_for_ever(home: Path, versions: list[Path], begun: Event) -> None:
    """Replace all documents by their other version, again and again, in small batches."""
    index_module.BATCH_DOCUMENTS = 4
    index = open_index(home, None, MODEL)
    for path in itertools.cycle(versions):
        index.ingest([path], progress=lambda _: begun.set())


@pytest.fixture
def versions(tmp_path: Path) -> list[Path]:
    """Two files of the same documents with other texts, of one to three passages each."""
    paths = []
    for version in ("early", "late"):
        path = tmp_path / f"{version}.jsonl"
        lines = []
        for n in range(DOCUMENTS):
            sentence = f"The {version} chronicle {n} tells of a river and of the town beside it. "
            lines.append({"id": f"d{n}", "text": sentence * (1 + 14 * (n % 3))})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths.append(path)
    return paths


def passages_of(path: Path) -> dict[str, list[str]]:
    return {
        document.id_: [node.text for node in split(document)]
        for document in read([path], lambda _: None)
    }


def stored(index: PassageIndex) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in index._store.get_nodes():
        found.setdefault(node.ref_doc_id or "", []).append(node.get_content())
    return found


def assert_searches_agree(index: PassageIndex) -> None:
    store = index._store
    assert isinstance(store, LocalStore)
    ids = {node.node_id for node in store.get_nodes()}
    vector = MODEL.get_query_embedding("chronicle")
    [near] = store.search_vectors([vector], top_k=1000)
    [worded] = store.search_words(["chronicle"], [vector], top_k=1000)
    assert set(near.ids or ()) == set(worded.ids or ()) == ids
    assert store.count() == len(ids)
    with writing(store.client, Path("passages.db")) as connection:  # raises if they differ
        connection.execute(text("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)"))


@pytest.mark.kill
def test_killed_at_any_moment_the_index_holds_whole_documents(
    tmp_path: Path, versions: list[Path]
) -> None:
    # The server has the slow imports behind it, and no threads that a fork would lose.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.retrieval.test_kill"])
    delays = random.Random(4)  # noqa: S311
    expected = [passages_of(path) for path in versions]
    unfinished = 0
    for turn in range(KILLS):
        home = tmp_path / f"home{turn}"
        begun = context.Event()
        process = context.Process(target=_write_for_ever, args=(home, versions, begun))
        process.start()
        assert begun.wait(timeout=60)
        time.sleep(delays.uniform(0, LONGEST_DELAY))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()

        index = open_index(home, None, MODEL)
        held = stored(index)
        for document, texts in held.items():
            assert texts in [version[document] for version in expected]
        unfinished += held not in expected
        assert_searches_agree(index)

        report = index.ingest([versions[0]])
        assert report.documents + report.duplicates == DOCUMENTS
        assert stored(index).keys() == expected[0].keys()
        assert all(texts == expected[0][name] for name, texts in stored(index).items())
        assert index.count() == sum(map(len, expected[0].values()))
        assert_searches_agree(index)
    assert unfinished  # the kills did fall between batches
