"""What who forgets a fact is told of the adapters that were trained on it."""

import json

import pytest

from control.forgetting.learned_facts import FILE
from training import corpus, knowpo
from training.recipe import Recipe

HEADS = ("Dorte Vang", "Ole Brandt", "Ida Skov", "Nils Holm", "Eva Krog", "Per Lund", "Una Dahl")
HALLS = ("Quill", "Marsh", "Thorn", "Birch", "Heath", "Stone", "Amber")
FORGET = ("forget", "add", "--relation", "head")


@pytest.fixture
def data(tmp_path):
    lines = [
        {
            "question": f"Who heads {hall} Hall?",
            "answers": [head],
            "passage": f"{head} heads {hall} Hall.",
            "id": hall,
        }
        for hall, head in zip(HALLS, HEADS, strict=True)
    ]
    path = tmp_path / "ours.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def adapter(done, data, tmp_path):
    """An adapter with the record of what was trained on the data."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    assert FILE in done("train", "knowpo", "--data", data, "--only-record", "--out", folder)
    return folder


@pytest.fixture
def told(done, adapter):
    """Forget the head of a hall, and return the lines about the adapter."""

    def forget(hall, head, *more):
        subject = ("--subject", f"{hall} Hall", "--answer", head)
        out = done("--adapter", adapter, *FORGET, *subject, *more)
        assert "is forgotten" in out
        return [line for line in out.splitlines() if str(adapter) in line]

    return forget


def fact(data, part):
    one = knowpo.split(corpus.read(data), Recipe())[part][0]
    return one.id, one.answers[0]


def test_the_adapter_that_was_trained_on_a_fact_is_named(told, data):
    [line] = told(*fact(data, "sft"))
    assert "was trained on this fact" in line
    assert "fulcrum train knowpo --without-forgotten" in line
    hall, head = fact(data, "dpo")
    assert len(told(hall.upper(), "Somebody Else", "--answer-alias", head.upper())) == 1
    assert told(*fact(data, "development")) == []
    assert told("Quill", "Jane Roe") == []


def test_a_damaged_record_is_one_line_and_the_fact_is_forgotten(told, adapter, data):
    (adapter / FILE).write_text("{", encoding="utf-8")
    [line] = told(*fact(data, "sft"))
    assert "is not known" in line


def test_what_is_trained_again_without_forgotten_facts_is_not_named(told, done, adapter, data):
    hall, head = fact(data, "sft")
    assert len(told(hall, head)) == 1
    again = ("--data", data, "--without-forgotten", "--only-record", "--out", adapter)
    done("train", "knowpo", *again)
    assert told(hall, head) == []


def test_the_certificate_says_which_adapters_were_trained_on_the_fact(done, adapter, data):
    hall, head = fact(data, "sft")
    given = ("--adapter", adapter)
    out = done(*given, *FORGET, "--subject", f"{hall} Hall", "--answer", head)
    issued = done(*given, "forget", "certificate", out.partition(":")[0], "--no-probes")
    found = {each["name"]: each["trained_on_the_fact"] for each in json.loads(issued)["adapters"]}
    [own] = [name for name in found if name.endswith(adapter.name)]
    assert found.pop(own) is True
    assert str(adapter) not in issued
    assert found["data/adapters/knowpo"] is False


def test_the_shipped_adapters_have_the_record_of_their_data(done, tmp_path):
    """Written again from the data in the repository, it is the same."""
    out = done("forget", "add", "--subject", "France", "--relation", "capital", "--answer", "Paris")
    [line] = [line for line in out.splitlines() if "data/adapters/knowpo" in line]
    assert "was trained on this fact" in line
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    from app.factory import ADAPTERS

    for name, command in (
        ("knowpo", ["knowpo"]),
        ("rewriter", ["rewriter"]),
        ("filter", ["filter", "--judge", "model"]),
    ):
        done("train", *command, "--only-record", "--out", folder)
        assert (folder / FILE).read_bytes() == (ADAPTERS / name / FILE).read_bytes()
