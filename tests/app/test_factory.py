import json
from dataclasses import replace

import pytest

from app import factory
from app import settings as settings_module
from control.conflict import calibration as calibrations
from control.conflict.reader import Reading
from foundation.errors import ModelError
from retrieval.stores.sqlite import LocalStore
from retrieval.trigger import Trigger
from tests.retrieval.conftest import BagOfWords


@pytest.fixture
def settings(tmp_path):
    """Settings with a cache of their own, where calibrations are kept."""

    def load(**given):
        return settings_module.load(cache=tmp_path / "cache", **given)

    return load


@pytest.fixture
def model(tiny):
    return replace(tiny, identity="0123456789abcdef")


@pytest.fixture
def measured(model):
    return replace(calibrations.shipped(model), model=model.identity, name=model.name)


def test_a_measured_calibration_is_used(tmp_path, settings, model, measured):
    assert factory.calibration(settings(), model) == calibrations.shipped(model)
    kept = factory.keep(measured, model, settings(), tmp_path / "out")
    assert factory.calibration(settings(), model) == measured
    assert calibrations.load(kept) == measured
    assert calibrations.load(tmp_path / "out" / "calibration.json") == measured


def test_a_measured_calibration_is_not_used_for_another_model(tmp_path, settings, model, measured):
    factory.keep(measured, model, settings(), tmp_path / "out")
    other = replace(model, identity="fedcba9876543210")
    assert factory.calibration(settings(), other) == calibrations.shipped(other)
    named = settings(calibration=tmp_path / "out" / "calibration.json")
    with pytest.raises(ModelError, match=r"was measured on tiny \(\w+\), not on tiny \(\w+\)"):
        factory.calibration(named, other)


def test_a_given_calibration_takes_precedence(tmp_path, settings, model, measured):
    factory.keep(measured, model, settings(), tmp_path / "out")
    named = replace(measured, known=[0.25])
    named.save(tmp_path / "named.json")
    assert factory.calibration(settings(calibration=tmp_path / "named.json"), model) == named


def test_an_embedding_model_is_opened_once_for_all_that_embed(settings, home):
    named = settings(embedding="http://127.0.0.1:9/v1#words")
    served = factory.embedding(named)
    assert factory.embedding(named.model_copy(update={"top_k": 7})) is served
    assert factory.passage_index(named)._embed_model is served
    packaged = factory.packaged_embedding()
    assert factory.embedding(settings()) is packaged
    assert factory.embedding(settings(embedding="all-MiniLM-L6-v2")) is packaged


def test_what_was_fitted_on_the_packaged_embedding_model_stays_on_it(
    settings, home, model, monkeypatch
):
    monkeypatch.setattr(factory, "rewriter", lambda *_: None)
    assistant = factory.assistant(settings(embedding="http://127.0.0.1:9/v1#words"), model)
    packaged = factory.packaged_embedding()
    judge = assistant.processors[0].judge
    assert judge._embed_model is packaged
    assert assistant.forgetting.router._embed_model is packaged


def test_for_a_model_that_reads_many_passages_the_reader_judges_them(settings, model, monkeypatch):
    read = []

    class Surely:
        def read(self, asked):
            read.extend(asked)
            return [Reading("Lima", 0, 0.99 if "Lima" in text else 0.01) for _, text in asked]

    monkeypatch.setattr(factory, "reader", lambda _: Surely())
    question, texts = "What is the capital of Peru?", ["Peru: Lima.", "Peru: the capital is old."]
    large = replace(model, window=32_768)
    right, other = factory.knowledge_filter(settings(), large).judge(question, texts)
    assert right > other
    assert read == [(question, text) for text in texts]
    read.clear()
    for usual, without in ((model, ()), (large, {"reader"})):
        judge = factory.knowledge_filter(settings(without=without), usual).judge
        right, other = judge(question, texts)
        assert right < other  # nearer to the question's words
    assert read == []


@pytest.fixture
def document(tmp_path):
    """Write the one document there is, with another text each time."""

    def write(text):
        path = tmp_path / "rivers.jsonl"
        path.write_text(json.dumps({"id": "rhine", "title": "Rhine", "text": text}), "utf-8")
        return path

    return write


@pytest.fixture
def index(settings, monkeypatch):
    monkeypatch.setattr(factory, "embedding", lambda _: BagOfWords())
    return factory.passage_index(settings())


def retrieved(settings, index):
    """The passages retrieved for a question that is asked again and again."""
    trigger = Trigger(index, factory.reservoir(settings()), BagOfWords())
    return [node.text for node in trigger.retrieve("Rhine Rhine length")]


def test_replaced_and_deleted_documents_are_not_served_again(settings, index, document):
    index.ingest([document("The length is 1,320 km.")])
    for _ in range(2):
        assert retrieved(settings, index) == ["The length is 1,320 km."]
    index.ingest([document("The length is 1,233 km.")])
    assert retrieved(settings, index) == ["The length is 1,233 km."]
    index.delete("rhine")
    assert retrieved(settings, index) == []


def test_what_was_replaced_is_not_served_again_after_a_kill(settings, index, document, monkeypatch):
    index.ingest([document("The length is 1,320 km.")])
    retrieved(settings, index)
    add = LocalStore.add

    def die_after(*args, **kwargs):
        add(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalStore, "add", die_after)
    with pytest.raises(KeyboardInterrupt):
        index.ingest([document("The length is 1,233 km.")])
    assert retrieved(settings, index) == ["The length is 1,233 km."]
