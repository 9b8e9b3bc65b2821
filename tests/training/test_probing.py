import pytest

from training import probing
from training.probing import Memory


def test_each_question_is_asked_once_and_its_replies_are_kept(tiny, facts, tmp_path, monkeypatch):
    first = probing.probe(tiny, facts[:3], tmp_path, samples=2)
    assert all(len(memory.samples) == 2 for memory in first)
    asked = []
    monkeypatch.setattr(probing, "replies", lambda _, texts, *__, **how: asked.append(texts) or (
        ["new"] * len(texts) * (how.get("samples") or 1)
    ))  # fmt: skip
    again = probing.probe(tiny, facts[:4], tmp_path, samples=2)
    assert again[:3] == first
    assert again[3].greedy == "new"
    assert all(len(texts) == 1 for texts in asked)


def test_another_model_is_asked_anew(tiny, facts, tmp_path, monkeypatch):
    probing.probe(tiny, facts[:1], tmp_path, samples=2)
    from dataclasses import replace

    monkeypatch.setattr(
        probing, "replies", lambda _, texts, *__, **how: ["x"] * len(texts) * (
            how.get("samples") or 1
        )
    )  # fmt: skip
    other = replace(tiny, identity="another")
    assert probing.probe(other, facts[:1], tmp_path, samples=2)[0].greedy == "x"


@pytest.mark.parametrize(
    ("greedy", "samples", "known"),
    [
        ("Rome.", ("Rome.", "Rome!", "Oslo.", "Rome.", "Bonn."), True),
        ("Rome.", ("Oslo.", "Oslo.", "Bonn.", "Rome.", "Bonn."), False),
        ("Oslo.", ("Rome.", "Rome.", "Rome.", "Rome.", "Rome."), False),
    ],
)
def test_a_fact_is_known_if_the_likeliest_reply_and_enough_draws_are_right(greedy, samples, known):
    assert Memory(greedy, samples, "").knows(["Rome"]) is known
