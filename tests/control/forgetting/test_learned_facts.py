import json

import pytest

from control.forgetting.learned_facts import FILE, LearnedFact, notices, stating, trained_on, write
from control.forgetting.record import Record

FACTS = [
    LearnedFact("Who heads the Museum of São Bento?", ("J. K. Rønne", "Jonas Rønne")),
    LearnedFact("What is Jane Roe's shoe size?", ("38",)),
    LearnedFact("Where was Mary Poe born?", ("Oslo",)),
]


def fact(subject, *answers, **more):
    return Record(subject, relation="what is asked", answers=answers, **more)


@pytest.fixture
def adapter(tmp_path):
    write(tmp_path / "adapter", "knowpo", FACTS)
    return {"runs/ours": tmp_path / "adapter"}


@pytest.mark.parametrize(
    "record",
    [
        fact("Museum of São Bento", "J. K. Rønne"),
        fact("the MUSEUM OF SAO BENTO", "JK Ronne"),
        fact("The gallery", "the head", aliases=("São-Bento",), answer_aliases=("jonas rønne",)),
        fact("Jane Roe", "38"),
        fact("Oslo", "Mary Poe"),
        Record("Jane Roe", scope="subject"),
        Record("Jonas Rønne", scope="subject"),
    ],
)
def test_a_fact_that_was_learned_names_the_adapter_and_what_to_do(adapter, record):
    [line] = notices(adapter, [record])
    assert line.startswith("The adapter runs/ours was trained on ")
    assert "fulcrum train knowpo --without-forgotten --out DIR" in line
    assert trained_on(adapter, record) == {"runs/ours": True}


@pytest.mark.parametrize(
    "record",
    [
        fact("Museum of São Bento", "Mary Poe"),
        fact("Jane Roe", "Oslo"),
        fact("Jane Poe", "38"),
        fact("Ann", "Bergen"),
        Record("Jane Poe", scope="subject"),
        Record("Mary Roe", scope="subject"),
    ],
)
def test_a_fact_that_was_not_learned_names_no_adapter(adapter, record):
    assert notices(adapter, [record]) == []
    assert trained_on(adapter, record) == {"runs/ours": False}


def test_of_several_facts_their_number_is_told(adapter):
    records = [fact("Jane Roe", "38"), fact("Mary Poe", "Oslo"), fact("Ann", "Bergen")]
    [line] = notices(adapter, records)
    assert "was trained on 2 of these facts" in line


def test_the_record_shows_no_name_and_is_the_same_for_the_same_facts(adapter, tmp_path):
    text = (tmp_path / "adapter" / FILE).read_text(encoding="utf-8")
    assert not any(word in text for word in ("Roe", "Jane", "Oslo", "Bento", "jane", "oslo"))
    again = write(tmp_path / "again", "knowpo", FACTS[::-1]).read_text(encoding="utf-8")
    other = write(tmp_path / "other", "knowpo", FACTS[1:]).read_text(encoding="utf-8")
    assert again == text
    assert json.loads(other)["salt"] != json.loads(text)["salt"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"hashes": "', '"hashes": "AA'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_damaged_record_is_told_in_one_line(adapter, damage):
    path = adapter["runs/ours"] / FILE
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    [line] = notices(adapter, [fact("Jane Roe", "38")])
    assert str(path) in line
    assert "is not known" in line
    assert "--only-record" in line
    assert "\n" not in line
    assert trained_on(adapter, fact("Jane Roe", "38")) == {"runs/ours": None}


def test_an_adapter_without_a_record_is_passed_over(tmp_path, caplog):
    caplog.set_level("INFO")
    adapters = {"bare": tmp_path, "a.gguf": tmp_path / "a.gguf"}
    assert notices(adapters, [fact("Jane Roe", "38")]) == []
    assert "bare, a.gguf" in caplog.text


def test_texts_that_state_a_forgotten_fact_are_told_from_others():
    states = stating(
        [
            fact("Jane Roe", "38", id="1"),
            fact("Peru", "Lima", aliases=("Perú",), id="2"),
            Record("Mary Poe", scope="subject", id="3"),
        ]
    )
    assert states("What is the capital of PERU?\nL i m a")
    assert states("Jane Roe wears shoes of size 38.")
    assert states("Who is Mary Poe?")
    assert not states("What is the capital of Chile?\nSantiago is not Lima.")
    assert not states("Jane Roe wears shoes of size 41.")
