import threading

import pytest

from app.turns import Turns
from foundation.errors import BusyError


@pytest.fixture
def held():
    """Turns whose thread is busy until the event is set."""
    turns, go = Turns(most_waiting=8), threading.Event()
    begun = threading.Event()

    def wait():
        begun.set()
        go.wait()

    turns.submit(wait)
    begun.wait()
    yield turns, go
    go.set()
    turns.close()


def test_turns_go_round_among_clients(held):
    turns, go = held
    done = []
    for name in ("a1", "a2", "a3", "b1", "c1"):
        last = turns.submit(lambda name=name: done.append(name), client=name[0])
    everything = turns.submit(lambda: None, client="a")
    go.set()
    everything.result()
    last.result()
    assert done == ["a1", "b1", "c1", "a2", "a3"]


def test_one_client_cannot_fill_the_queue(held):
    turns, _ = held
    for _ in range(4):
        turns.submit(lambda: None, client="greedy")
    with pytest.raises(BusyError, match="4 of your questions are waiting"):
        turns.submit(lambda: None, client="greedy")
    turns.submit(lambda: None, client="other")


def test_a_full_queue_refuses_until_something_is_cancelled(held):
    turns, _ = held
    futures = [turns.submit(lambda: None, client=str(number)) for number in range(8)]
    with pytest.raises(BusyError, match="8 questions are waiting"):
        turns.submit(lambda: None, client="new")
    futures[0].cancel()
    assert turns.waiting == 7
    turns.submit(lambda: None, client="new")


def test_what_is_cancelled_is_not_done(held):
    turns, go = held
    done = []
    turns.submit(lambda: done.append("cancelled"), client="a").cancel()
    go.set()
    turns.submit(lambda: done.append("kept"), client="b").result()
    assert done == ["kept"]


def test_no_more_is_done_at_once_than_allowed():
    turns, go, under_way = Turns(at_once=2), threading.Event(), []
    both = threading.Barrier(3)

    def work():
        under_way.append(1)
        both.wait()
        go.wait()
        most = len(under_way)
        under_way.pop()
        return most

    first = [turns.submit(work, str(number)) for number in range(2)]
    both.wait()
    third = turns.submit(lambda: len(under_way), "third")
    assert turns.waiting == 1
    go.set()
    assert {each.result() for each in first} <= {1, 2}
    assert third.result() < 2
    turns.close()


def test_whose_turn_it_is_is_settled_once_a_thread_may_go_on():
    lock, done = threading.Lock(), []
    turns = Turns(at_once=4, shared=lambda: lock)
    with lock:
        for name in ("a1", "a2", "a3", "b1"):
            last = turns.submit(lambda name=name: done.append(name), client=name[0])
        first = turns.submit(lambda: done.append("c1"), client="c")
    last.result()
    first.result()
    turns.submit(lambda: None, client="a").result()
    assert sorted(done) == ["a1", "a2", "a3", "b1", "c1"]
    assert done.index("b1") < done.index("a2")
    assert done.index("c1") < done.index("a2")
    turns.close()


def test_a_failure_is_told_to_its_own_client_alone(held):
    turns, go = held
    failing, fine = turns.submit(lambda: 1 // 0), turns.submit(lambda: "fine")
    go.set()
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert fine.result() == "fine"


def test_closed_turns_drop_what_waits_and_take_nothing_more(held):
    turns, go = held
    waiting = turns.submit(lambda: None)
    assert not turns.idle
    turns.close()
    assert waiting.cancelled()
    with pytest.raises(BusyError, match="shutting down"):
        turns.submit(lambda: None)
    go.set()
