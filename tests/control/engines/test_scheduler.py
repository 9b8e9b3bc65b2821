"""Answers that join a loop and leave it, of several tasks."""

import threading
from functools import partial

import pytest
import torch
from transformers import MaxLengthCriteria, StoppingCriteriaList

from control.decoding.rules import plain
from control.engines import batch, branches
from control.engines.adapters import Adapter
from control.engines.batch import SequenceGroup
from control.engines.scheduler import Cancelled, Scheduler

TEXTS = ["What is it?", "Who?", "A longer question, is it not?", "abc."]


def group(model, texts, tokens, on_step=None):
    given = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        state = batch.read(model.model, given.input_ids, given.attention_mask)
    stops = StoppingCriteriaList([MaxLengthCriteria(tokens)])
    none_yet = given.input_ids[:, :0]
    return SequenceGroup(
        state, none_yet, plain, branches=1, stopping_criteria=stops, on_step=on_step
    )


def said(model, made):
    batch.decode(model.model, made)
    return made.gathered(0).tolist()


def alone(model, text, tokens):
    return said(model, group(model, [text], tokens))[0]


@pytest.fixture
def forwards(tiny):
    count = [0]
    hook = tiny.model.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    yield count
    hook.remove()


def at_steps(model, texts, lengths, begins):
    """Answers of tasks that share a loop, each begun after so many passes."""
    shared, found = Scheduler(), {}

    def answer(place):
        found[place] = said(model, group(model, [texts[place]], lengths[place]))[0]

    passes, left = 0, list(range(len(texts)))
    while left or shared.tasks:
        for place in [place for place in left if begins[place] <= passes]:
            left.remove(place)
            shared.begin(partial(answer, place))
        shared.step()
        passes += 1
    return [found[place] for place in range(len(texts))]


@pytest.mark.parametrize("lengths", [[12, 12, 12, 12], [30, 4, 9, 1], [6, 20, 20, 3]])
def test_answers_that_join_and_leave_are_what_they_are_alone(model, lengths):
    expected = [alone(model, *each) for each in zip(TEXTS, lengths, strict=True)]
    assert at_steps(model, TEXTS, lengths, [0, 1, 1, 4]) == expected


def test_a_group_that_does_not_fit_into_the_batch_waits_and_is_answered(tiny, monkeypatch):
    monkeypatch.setattr(batch, "CELLS", 60)
    lengths = [30, 4, 9, 1]
    expected = [alone(tiny, *each) for each in zip(TEXTS, lengths, strict=True)]
    assert at_steps(tiny, TEXTS, lengths, [0, 1, 1, 4]) == expected


def test_running_answers_share_their_steps(tiny, forwards):
    at_steps(tiny, TEXTS[:2], [40, 10], [0, 1])
    assert forwards[0] == 2 + 39  # two prompts, and the steps of the longer answer


def test_groups_of_one_thread_are_decoded_together(tiny, forwards):
    lengths = [10, 5]
    expected = [alone(tiny, *each) for each in zip(TEXTS, lengths, strict=False)]
    both = [group(tiny, [text], length) for text, length in zip(TEXTS, lengths, strict=False)]
    forwards[0] = 0
    batch.decode(tiny.model, *both)
    assert [made.gathered(0).tolist()[0] for made in both] == expected
    assert forwards[0] == 9


def test_answers_with_an_adapter_share_their_steps_with_others(tiny, forwards):
    projection = tiny.model.model.layers[0].self_attn.o_proj
    changed = [(projection, -projection.weight.detach())]
    adapter = Adapter("made up", changed, threading.Lock())

    def made(use_adapter):
        each = group(tiny, TEXTS[:1], 10)
        each.adapter = use_adapter
        return each

    expected = [said(tiny, made(use_adapter)) for use_adapter in (None, adapter)]
    both = [made(use_adapter) for use_adapter in (None, adapter)]
    forwards[0] = 0
    batch.decode(tiny.model, *both)
    assert [each.gathered(0).tolist() for each in both] == expected
    assert expected[0] != expected[1]
    assert forwards[0] == 9


def test_a_failing_group_ends_alone(tiny):
    expected = alone(tiny, TEXTS[0], 12)

    def fail(*_):
        raise ZeroDivisionError

    fine, failing = group(tiny, TEXTS[:1], 12), group(tiny, TEXTS[1:2], 12, fail)
    with pytest.raises(ZeroDivisionError):
        batch.decode(tiny.model, fine, failing)
    assert fine.gathered(0).tolist() == [expected]


def test_a_model_that_fails_ends_all_and_the_next_is_answered(tiny):
    expected, shared = alone(tiny, TEXTS[0], 12), Scheduler()
    made = [group(tiny, [text], 12) for text in TEXTS[:2]]
    failed = []

    def fail(*_):
        raise MemoryError

    def answer(each):
        try:
            batch.decode(tiny.model, each)
        except MemoryError as error:
            failed.append(error)

    hook = tiny.model.register_forward_pre_hook(fail)
    for each in made:
        shared.begin(partial(answer, each))
    shared.step()
    hook.remove()
    assert len(failed) == 2
    answered = []
    shared.begin(lambda: answered.extend(said(tiny, group(tiny, TEXTS[:1], 12))))
    while shared.tasks:
        shared.step()
    assert answered == [expected]


def test_out_of_memory_while_groups_join_fails_them_and_the_next_is_answered(tiny, monkeypatch):
    shared, failed, answered = Scheduler(), [], []
    expected = alone(tiny, TEXTS[0], 12)
    made = group(tiny, TEXTS[:1], 12)

    def fail(_):
        raise MemoryError

    def answer():
        try:
            batch.decode(tiny.model, made)
        except MemoryError as error:
            failed.append(error)

    with monkeypatch.context() as short:
        short.setattr(branches, "joined", fail)
        shared.begin(answer)
        shared.step()
    assert len(failed) == 1
    shared.begin(lambda: answered.extend(said(tiny, group(tiny, TEXTS[:1], 12))))
    while shared.tasks:
        shared.step()
    assert answered == [expected]


def test_a_cancelled_task_ends_before_its_next_token(tiny):
    steps = []
    made = group(tiny, TEXTS[:1], 100, lambda *_: steps.append(1))
    shared, cancelled = Scheduler(), []

    def answer():
        with pytest.raises(Cancelled) as raised:
            batch.decode(tiny.model, made)
        cancelled.append(raised.type)

    shared.begin(answer, cancelled=lambda: len(steps) == 5)
    while shared.tasks:
        shared.step()
    assert cancelled == [Cancelled]
    assert len(steps) == 5


def test_no_task_inherits_or_ends_the_modes_of_another(tiny):
    shared, modes = Scheduler(), []

    def answer(text, mode):
        with torch.inference_mode(mode):
            for tokens in (1, 5):
                batch.decode(tiny.model, group(tiny, [text], tokens))
                modes.append((mode, torch.is_inference_mode_enabled()))
        modes.append((False, torch.is_inference_mode_enabled()))

    for text, mode in zip(TEXTS, (True, False, True, False), strict=True):
        shared.begin(partial(answer, text, mode))
    while shared.tasks:
        shared.step()
        modes.append((False, torch.is_inference_mode_enabled()))
    assert all(expected == found for expected, found in modes)
