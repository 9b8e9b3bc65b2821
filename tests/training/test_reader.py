"""Training the reader: examples, and a run of two steps that another one goes on from."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from peft.utils import load_peft_weights
from safetensors.torch import save_file

from control.conflict import reader as readers
from control.conflict.reader import DATE_QUESTION
from data import DIRECTORY as DATA
from foundation.errors import InputError, ModelError
from foundation.text import find
from retrieval.embedding import packaged_model
from retrieval.ingest.dates import first_date
from training import encoders, reader, reading


def by_length(texts):
    """Unit vectors by which texts of like length are similar."""
    angles = np.array([len(text) for text in texts]) / 1000
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_question_is_asked_of_a_passage_about_something_else():
    records = reading.dated()[:20]
    found = reading.elsewhere(records, by_length)
    of = {
        each["question"]: place // 2
        for place, one in enumerate(records)
        for each in one["questions"]
    }
    texts = {reading.passage(one): place // 2 for place, one in enumerate(records)}
    assert len(found) == sum(len(one["questions"]) for one in records)
    assert all(texts[each.text] != of[each.question] for each in found)
    assert not any(each.answer for each in found)


def test_companions_leave_the_questions_of_their_versions_open_and_are_on_their_side():
    for held_out in (False, True):
        versions = {
            each["question"] for one in reading.dated(held_out) for each in one["questions"]
        }
        companions = reading.companions(held_out)
        assert companions
        assert all(set(one["unanswered"]) & versions for one in companions)


def test_every_answer_of_the_examples_stands_in_its_text():
    examples = reading.build([], by_length)
    assert len(examples) > 10_000
    assert all(find(one.text, one.answer) for one in examples if one.answer)
    questions = {one.question for one in examples}
    assert DATE_QUESTION in questions
    assert sum(not one.answer for one in examples) > len(examples) / 3


def test_both_versions_of_a_document_are_on_one_side():
    held_out, learned = reading.dated(held_out=True), reading.dated()
    assert len(held_out) % 2 == len(learned) % 2 == 0
    asked = [
        {each["question"] for record in side for each in record["questions"]}
        for side in (held_out, learned)
    ]
    assert not asked[0] & asked[1]


def test_what_is_marked_as_the_date_of_a_document_is_one():
    dated = [record for record in reading.dated() if record["dated"]]
    found = [(first_date(record["dated"]), record["date"]) for record in dated]
    assert all(date and stated.startswith(date) for date, stated in found)


def never():
    """A search that is not to be made before the rest is known to be right."""
    raise AssertionError("searched first")


def test_a_run_leaves_an_adapter_that_another_one_goes_on_from(tmp_path):
    whole = reader.train(tmp_path / "first", smoke=True, base=str(packaged_model()))
    first = tmp_path / "first" / "adapter"
    asked = [("Who leads it?", "Ms Oduya leads the archive.")]
    assert readers.open_reader(str(whole)).read(asked) == readers.load(
        packaged_model(), first
    ).read(asked)
    assert str(packaged_model()) not in (first / "README.md").read_text(encoding="utf-8")
    second = reader.train(tmp_path / "second", smoke=True, start=first)
    loaded = readers.load(packaged_model(), second)
    assert len(loaded.read(asked)) == 1
    with pytest.raises(ModelError, match="holds no adapter to go on from"):
        reader.train(tmp_path / "third", smoke=True, start=tmp_path, search=never)

    mean = encoders.average([first, second], tmp_path / "mean")
    one, other, both = (load_peft_weights(str(each)) for each in (first, second, mean))
    assert any((one[name] != other[name]).any() for name in one)
    for name, weights in both.items():
        assert torch.allclose(
            weights.float(), (one[name].float() + other[name].float()) / 2, atol=1e-3
        )
    [again] = readers.load(packaged_model(), mean).read([("Who?", "Ms Oduya leads it.")])
    assert 0 <= again.answers <= 1


READER = DATA / "adapters" / "reader"


def copied(target, **changed):
    """The reader's adapter with other values in its configuration."""
    shutil.copytree(READER, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changed), encoding="utf-8")
    return target


@pytest.mark.parametrize("base", ["nowhere", "no-words.csv", ""])
def test_what_is_no_encoder_is_named_before_anything_is_read(tmp_path, base):
    (tmp_path / "no-words.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"--base .*: no encoder that can be loaded"):
        reader.train(tmp_path / "run", base=str(tmp_path / base))


def test_only_adapters_of_one_form_are_averaged(tmp_path):
    damaged = copied(tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"no weights")
    endless = copied(tmp_path / "endless")
    weights = {name: each * math.nan for name, each in load_peft_weights(str(READER)).items()}
    save_file(weights, endless / "adapter_model.safetensors")
    for other, told in (
        (DATA / "adapters" / "support", "not of the form of"),
        (copied(tmp_path / "scaled", lora_alpha=1), "not of the form of"),
        (DATA / "adapters" / "knowpo", "of a language model"),
        (tmp_path / "nothing", "holds no adapter"),
        (damaged, "is damaged"),
        (endless, "numbers that are none"),
    ):
        with pytest.raises(ModelError, match=told):
            encoders.average([READER, other], tmp_path / "mean")
        assert not (tmp_path / "mean").exists()


def test_a_mean_replaces_nothing_but_another_adapter(tmp_path):
    own = tmp_path / "documents"
    own.mkdir()
    (own / "letter.txt").write_text("Dear Ann", encoding="utf-8")
    with pytest.raises(InputError, match="no adapter; give a new directory"):
        encoders.average([READER, READER], own)
    assert (own / "letter.txt").read_text(encoding="utf-8") == "Dear Ann"
    adapter = copied(tmp_path / "adapter")
    with pytest.raises(InputError, match="one of the adapters to average"):
        encoders.average([READER, adapter], adapter)
    assert encoders.average([READER, READER], adapter) == adapter
    assert "Mean of adapters" in (adapter / "README.md").read_text(encoding="utf-8")
