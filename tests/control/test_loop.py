"""Answers that join a loop and leave it, from several threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import MaxLengthCriteria, StoppingCriteriaList

from control import branches, decoding, loop
from control.groups import SequenceGroup
from control.loop import GivenUp, Loop
from control.rules import plain

TEXTS = ["What is it?", "Who?", "A longer question, is it not?", "abc."]


def group(model, texts, tokens, on_step=None):
    given = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        state = branches.read(model.model, given.input_ids, given.attention_mask)
    stops = StoppingCriteriaList([MaxLengthCriteria(tokens)])
    none_yet = given.input_ids[:, :0]
    return SequenceGroup(
        state, none_yet, plain, branches=1, stopping_criteria=stops, on_step=on_step
    )


def said(model, made):
    decoding.decode(model.model, made)
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
    """Answers in threads of one loop, each begun at a step of the first."""
    shared, go = Loop(), [threading.Event() for _ in texts]
    there = threading.Barrier(len(texts))
    step = [0]

    def on_step(*_):
        for event, begin in zip(go, begins, strict=True):
            if begin == step[0]:
                event.set()
        step[0] += 1

    def answer(place):
        if place:
            there.wait()
            go[place].wait()
            with shared.shared():
                return said(model, group(model, [texts[place]], lengths[place]))[0]
        with shared.shared():
            there.wait()  # the others cannot go on before this one waits for its tokens
            return said(model, group(model, [texts[0]], lengths[0], on_step))[0]

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(answer, range(len(texts))))


@pytest.mark.parametrize("lengths", [[12, 12, 12, 12], [30, 4, 9, 1], [6, 20, 20, 3]])
def test_answers_that_join_and_leave_are_what_they_are_alone(model, lengths):
    expected = [alone(model, *each) for each in zip(TEXTS, lengths, strict=True)]
    assert at_steps(model, TEXTS, lengths, [0, 1, 1, 4]) == expected


def test_answers_under_way_share_their_steps(tiny, forwards):
    at_steps(tiny, TEXTS[:2], [40, 10], [0, 1])
    assert forwards[0] == 2 + 39  # two prompts, and the steps of the longer answer


def test_groups_of_one_thread_are_decoded_together(tiny, forwards):
    lengths = [10, 5]
    expected = [alone(tiny, *each) for each in zip(TEXTS, lengths, strict=False)]
    both = [group(tiny, [text], length) for text, length in zip(TEXTS, lengths, strict=False)]
    forwards[0] = 0
    decoding.decode(tiny.model, *both)
    assert [made.gathered(0).tolist()[0] for made in both] == expected
    assert forwards[0] == 9


def test_one_that_fails_ends_alone(tiny):
    expected = alone(tiny, TEXTS[0], 12)

    def fail(*_):
        raise ZeroDivisionError

    fine, failing = group(tiny, TEXTS[:1], 12), group(tiny, TEXTS[1:2], 12, fail)
    with pytest.raises(ZeroDivisionError):
        decoding.decode(tiny.model, fine, failing)
    assert fine.gathered(0).tolist() == [expected]


def test_a_model_that_fails_ends_all_and_the_next_is_answered(tiny):
    expected, shared = alone(tiny, TEXTS[0], 12), Loop()
    made = [group(tiny, [text], 12) for text in TEXTS[:2]]

    def fail(*_):
        raise MemoryError

    with shared.shared():
        hook = tiny.model.register_forward_pre_hook(fail)
        with pytest.raises(MemoryError):
            decoding.decode(tiny.model, *made)
        hook.remove()
        assert all(each.failure is not None for each in made)
        assert said(tiny, group(tiny, TEXTS[:1], 12)) == [expected]


def test_what_nobody_waits_for_ends_before_its_next_token(tiny):
    steps = []
    made = group(tiny, TEXTS[:1], 100, lambda *_: steps.append(1))
    with loop.until(lambda: len(steps) == 5), pytest.raises(GivenUp):
        decoding.decode(tiny.model, made)
    assert len(steps) == 5


def test_threads_that_share_a_loop_go_on_one_at_a_time(tiny):
    shared, inside, most = Loop(), [], []

    def answer(text):
        with shared.shared():
            for _ in range(3):
                inside.append(text)
                most.append(len(inside))
                made = group(tiny, [text], 5)
                inside.remove(text)
                decoding.decode(tiny.model, made)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, TEXTS))
    assert set(most) == {1}
