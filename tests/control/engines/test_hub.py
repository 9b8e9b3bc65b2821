"""Files of the hub, in a cache laid out as the hub's client does."""

import pytest

from control.engines import hub
from foundation.errors import ModelError

REPOSITORY = "someone/small-model-GGUF"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "models--someone--small-model-GGUF"
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_the_file_of_a_quantisation(cache):
    (cache / "small-model-q4_k_m.gguf").touch()
    (cache / "small-model-q8_0.gguf").touch()
    assert hub.is_gguf_spec(f"{REPOSITORY}:Q4_K_M")
    assert hub.fetched(f"{REPOSITORY}:Q4_K_M") == cache / "small-model-q4_k_m.gguf"


def test_the_first_part_of_several(cache):
    for part in (1, 2):
        (cache / f"small-model-Q8_0-0000{part}-of-00002.gguf").touch()
    assert hub.fetched(f"{REPOSITORY}:Q8_0").name == "small-model-Q8_0-00001-of-00002.gguf"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (f"{REPOSITORY}:Q2_K", "that match are: none"),
        (f"{REPOSITORY}:q", r"that match are: small-model-q4_k_m\.gguf, small-model-q8_0\.gguf"),
        ("someone/else:Q4_0", "cannot be fetched"),
    ],
)
def test_one_line_for_what_is_not_there(cache, spec, said):
    (cache / "small-model-q4_k_m.gguf").touch()
    (cache / "small-model-q8_0.gguf").touch()
    with pytest.raises(ModelError, match=said) as caught:
        hub.fetched(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["HuggingFaceTB/SmolLM2-1.7B", "model.gguf", "C:/models/x", "a/b/c"]
)
def test_what_is_no_such_name(spec):
    assert not hub.is_gguf_spec(spec)


def test_the_recommended_model_is_one():
    assert hub.is_gguf_spec(hub.RECOMMENDED)
