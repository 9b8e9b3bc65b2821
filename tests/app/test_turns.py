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


def test_what_is_alike_is_done_at_once_whoever_wants_it(held):
    turns, go = held
    batches = []

    def work(items):
        batches.append(items)
        return items

    wanted = (("a", 1, "x"), ("a", 2, "x"), ("b", 3, "y"), ("c", 4, "x"))
    futures = [turns.join(work, item, alike, client) for client, item, alike in wanted]
    alone = turns.join(work, 5, None, "d")
    go.set()
    assert [future.result() for future in futures] == [1, 2, 3, 4]
    assert alone.result() == 5
    assert batches == [[1, 4, 2], [3], [5]]


def test_no_more_is_done_at_once_than_allowed():
    turns, go, batches = Turns(most_together=2), threading.Event(), []

    def work(items):
        go.wait()
        batches.append(items)
        return items

    futures = [turns.join(work, item, "x", str(item)) for item in range(5)]
    go.set()
    assert [future.result() for future in futures] == [0, 1, 2, 3, 4]
    assert max(map(len, batches)) == 2
    turns.close()


def test_one_of_a_batch_may_fail_alone(held):
    turns, go = held
    fine, failing = (turns.join(_halves, item, "x", item) for item in ("fine", "odd"))
    go.set()
    assert fine.result() == "fine"
    with pytest.raises(ValueError, match="odd"):
        failing.result()


def _halves(items):
    return [ValueError(item) if item == "odd" else item for item in items]


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
