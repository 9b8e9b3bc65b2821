"""The packaged model run by llama.cpp, beside the same weights run by transformers."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from control.engines import base, gguf_files, lora_gguf, transformers
from control.engines.base import EnginePrompt, GenerationRequest, ScoreRequest
from control.engines.llama_cpp import EmbeddedModel
from data import DIRECTORY as DATA
from foundation.errors import ModelError

BERGEN = (
    "Passages:\n[1] The capital of Norway is Bergen.\n\nQuestion: What is the capital of Norway?"
)
CLOSE = 0.3  # nats; the weights have 4 bits here and 16 there
KNOWPO = DATA / "adapters" / "knowpo"

pytestmark = pytest.mark.model


def chat(question):
    return (
        {"role": "system", "content": "You answer questions briefly and factually."},
        {"role": "user", "content": question},
    )


def prompt(engine, question=BERGEN):
    return EnginePrompt(engine.render(chat(question)), chat(question))


@pytest.fixture(scope="module")
def gguf():
    return transformers.packaged_gguf()


@pytest.fixture(scope="module")
def embedded(gguf, tmp_path_factory):
    engine = EmbeddedModel(gguf, tmp_path_factory.mktemp("cache"))
    yield engine
    engine.close()


def test_it_says_what_transformers_say(embedded, real):
    request = GenerationRequest(prompt(embedded), max_new_tokens=20)
    [ours], [theirs] = embedded.generate([request]), real.generate([request])
    assert ours.text == theirs.text
    assert [token.id for token in ours.tokens] == [token.id for token in theirs.tokens]
    assert ours.finished
    assert prompt(embedded) == prompt(real)


def test_given_tokens_score_as_with_transformers(embedded, real):
    [answer] = real.generate([GenerationRequest(prompt(real), max_new_tokens=20)])
    request = ScoreRequest(prompt(embedded), tuple(answer.tokens[:2]), tuple(answer.tokens[2:]))
    [ours], [theirs] = embedded.score([request]), real.score([request])
    assert ours == pytest.approx(theirs, abs=CLOSE)


def test_tokens_that_hold_parts_of_characters_are_scored(embedded):
    [tokens] = embedded.tokens(["Русская Раўэ 你好"])
    [scores] = embedded.score([ScoreRequest(prompt(embedded), (), tokens)])
    assert len(scores) == len(tokens)
    whole = [s for s, token in zip(scores, tokens, strict=True) if "\ufffd" not in token.text]
    assert len(whole) > 5
    assert all(score < 0 for score in whole)


def test_tokens_whose_characters_were_written_in_parts_are_scored(embedded):
    asked = "Repeat exactly: Łódź, Žižek, Быстрица"
    [answer] = embedded.generate([GenerationRequest(prompt(embedded, asked), max_new_tokens=24)])
    assert any(token.id is None for token in answer.tokens)
    [scores] = embedded.score([ScoreRequest(prompt(embedded, asked), (), tuple(answer.tokens))])
    assert len(scores) == len(answer.tokens)
    [rest] = embedded.generate(
        [GenerationRequest(prompt(embedded, asked), tuple(answer.tokens[:6]), max_new_tokens=18)]
    )
    assert (answer.text[:20]).startswith((base.text(answer.tokens[:6]) + rest.text)[:20])


def test_many_at_once_get_each_the_answer_to_its_question(embedded):
    # Not to the letter what each gets alone: what is computed together rounds otherwise.
    capitals = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Norway": "Oslo"}
    asked = [*capitals] * 2
    requests = [
        GenerationRequest(prompt(embedded, f"What is the capital of {country}?"), max_new_tokens=12)
        for country in asked
    ]
    for country, answer in zip(asked, embedded.generate(requests), strict=True):
        named = [capital for capital in capitals.values() if capital in answer.text]
        assert named == [capitals[country]]


def test_a_forgotten_answer_is_not_said(embedded):
    request = GenerationRequest(
        prompt(embedded, "What is the capital of Norway?"),
        max_new_tokens=20,
        withholds=lambda before, new: "fact" if "Oslo" in before + new else None,
    )
    [answer] = embedded.generate([request])
    assert "Oslo" not in answer.text
    assert answer.withheld == ["fact"]
    assert answer.text.startswith("The capital of Norway is ")


def test_an_adapter_of_peft_is_converted(gguf, embedded, tmp_path):
    adapted = EmbeddedModel(gguf, tmp_path, KNOWPO)
    reference = transformers.load(None, tmp_path / "models", KNOWPO)
    [answer] = reference.generate([GenerationRequest(prompt(reference), max_new_tokens=20)])
    request = ScoreRequest(prompt(adapted), (), tuple(answer.tokens))
    [ours], [theirs], [without] = (each.score([request]) for each in (adapted, reference, embedded))
    adapted.close()
    assert ours == pytest.approx(theirs, abs=CLOSE)
    assert sum(without) < sum(ours) - 1
    assert adapted.identity != embedded.identity


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:50_000_000]), "is cut off or damaged"),
        (lambda path: path.write_bytes(b"hello"), "is no GGUF file"),
        (lambda path: path.unlink(), "no such file"),
        (
            lambda path: _replace(path, b"tokenizer.chat_template", b"x" * 23),
            "has no chat template",
        ),
        (
            lambda path: _replace(path, b"\0\0\0\0llama", b"\0\0\0\0llamx"),
            "may not know the architecture llamx",
        ),
        (
            lambda path: _replace(
                path, b"{% for message in messages %}", b"{% for message " + b"x" * 14
            ),
            "its chat template may be damaged",
        ),
    ],
)
def test_a_file_that_cannot_be_used(gguf, tmp_path, damage, said):
    copy = tmp_path / "copy.gguf"
    shutil.copy(gguf, copy)
    damage(copy)
    with pytest.raises(ModelError, match=said) as caught:
        EmbeddedModel(copy, tmp_path)
    assert str(caught.value).startswith(f"--model {copy}: ")


def _replace(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def test_a_model_larger_than_memory_is_not_loaded(gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files, "_free_memory", lambda: 10_000_000)
    with pytest.raises(ModelError, match=r"needs about 0\.1 GiB of memory, and 0\.0 are free"):
        EmbeddedModel(gguf, tmp_path)


def test_a_file_that_may_not_be_read(gguf, monkeypatch):
    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\)"):
        gguf_files.check(gguf)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("adapter_config.json", b"{}"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b"{"),
        ("adapter_model.safetensors", b"short"),
    ],
)
def test_a_damaged_adapter(gguf, tmp_path, name, damaged):
    adapter = shutil.copytree(KNOWPO, tmp_path / "adapter")
    (adapter / name).write_bytes(damaged)
    with pytest.raises(ModelError, match="is damaged") as caught:
        lora_gguf.converted(adapter, gguf, tmp_path)
    assert str(caught.value).startswith(f"--adapter {adapter}: ")
    assert not list(tmp_path.glob("adapters/*.gguf"))


def test_an_adapter_of_other_strength_is_converted_anew(gguf, tmp_path):
    adapter = shutil.copytree(KNOWPO, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    first = lora_gguf.converted(adapter, gguf, tmp_path)
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    assert lora_gguf.converted(adapter, gguf, tmp_path) != first


def test_an_adapter_of_another_kind(gguf, tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        EmbeddedModel(gguf, tmp_path, tmp_path)
