import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from control import module_models
from control.engines import adapters
from control.module_models import ModuleLLM, label_probabilities

LABELS = ("n", "y")
SHORT = 24  # new tokens: enough to see, and quick
TEXTS = ["a", "Does the passage say so?", "Passage: " + "word " * 30 + "?"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module_models, "MOST_NEW_TOKENS", SHORT)


@pytest.fixture(scope="module")
def lm(tiny):
    return replace(tiny, model=copy.deepcopy(tiny.model))


@pytest.fixture(scope="module")
def adapter(lm, tiny, tmp_path_factory):
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    directory = tmp_path_factory.mktemp("adapter")
    get_peft_model(copy.deepcopy(tiny.model), config).save_pretrained(str(directory))
    return adapters.read(lm, directory)


def continued(lm, text):
    """The text's greedy continuation by transformers alone."""
    ids = lm.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.inference_mode():
        written = lm.model.generate(ids, do_sample=False, max_new_tokens=SHORT)
    return lm.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def test_without_an_adapter_a_text_is_a_user_s_message(lm):
    assert ModuleLLM(lm).complete("Who?").text == continued(lm, "<user>Who?<assistant>")


def test_with_an_adapter_a_text_is_continued_as_it_is(lm, adapter):
    wrote = ModuleLLM(lm, adapter).complete("Asked: Who?\n").text
    with adapters.use_adapter(adapter):
        assert wrote == continued(lm, "Asked: Who?\n")
    assert wrote != continued(lm, "Asked: Who?\n")


@pytest.mark.parametrize("stop", [None, "e"])
def test_texts_are_continued_together_as_each_is_alone(lm, adapter, stop):
    llm = ModuleLLM(lm, adapter, stop=stop)
    alone = [llm.complete(text).text for text in TEXTS]
    assert llm.complete_batch(TEXTS) == alone
    assert len(set(alone)) > 1


def test_a_continuation_ends_at_the_stop(lm, adapter):
    whole = ModuleLLM(lm, adapter).complete("Asked: Who?\n").text
    stop = whole[10:12]
    short = ModuleLLM(lm, adapter, stop=stop).complete("Asked: Who?\n").text
    assert short == whole[: whole.index(stop) + len(stop)]


def test_a_text_beyond_the_window_loses_its_beginning(lm, adapter):
    llm = ModuleLLM(lm, adapter)
    tail = "".join("abcdefg"[i % 7] for i in range(lm.room(SHORT)))
    assert llm.complete("x" * 1000 + tail).text == llm.complete(tail).text


def test_a_stream_is_the_whole_at_once(lm):
    llm = ModuleLLM(lm)
    [response] = llm.stream_complete("Who?")
    assert response.text == response.delta == llm.complete("Who?").text


def test_a_batch_gives_the_probabilities_of_single_texts(lm):
    together = label_probabilities(lm, TEXTS, LABELS)
    alone = [label_probabilities(lm, [text], LABELS)[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5)
    assert all(0 < likely < 1 for likely in together)
    assert len({round(likely, 3) for likely in together}) > 1


def test_the_two_labels_share_the_probability(lm):
    yes, no = (label_probabilities(lm, TEXTS, labels) for labels in (LABELS, LABELS[::-1]))
    assert [y + n for y, n in zip(yes, no, strict=True)] == pytest.approx([1] * len(TEXTS))


def test_an_adapter_changes_the_verdict_and_is_off_afterwards(lm, adapter):
    before = label_probabilities(lm, TEXTS, LABELS)
    assert label_probabilities(lm, TEXTS, LABELS, adapter) != pytest.approx(before, abs=1e-3)
    assert label_probabilities(lm, TEXTS, LABELS) == before


def test_of_a_passage_beyond_the_window_the_question_after_it_is_read(lm):
    question = "\nQuestion: Who?\nDoes the passage answer the question?"
    tail = "".join("abcdefg"[i % 7] for i in range(lm.window - len(question))) + question
    long, short = (label_probabilities(lm, [text], LABELS) for text in ("x" * 1000 + tail, tail))
    assert long == pytest.approx(short, abs=1e-5)


def test_no_texts_no_verdicts(lm):
    assert label_probabilities(lm, [], LABELS) == []
