import subprocess
import sys
import threading

import pytest

from app.server.fair_queue import FairQueue
from control.engines import scheduler
from foundation.errors import BusyError, ClosingError


@pytest.fixture
def held():
    """A queue whose thread is busy until the event is set."""
    turns, go = FairQueue(most_waiting=8), threading.Event()
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


class Waits:
    """A request that takes some passes, and the batch that counts them."""

    failure = None

    def __init__(self, passes):
        self.left = passes

    @property
    def done(self):
        return self.left == 0

    empty = done

    def add(self, request):
        pass

    remove = add

    def step(self):
        self.left -= 1


def test_others_are_begun_while_one_waits_for_the_model_up_to_so_many():
    turns, begun, most = FairQueue(at_once=2), [], []

    def work(name, passes):
        begun.append(name)
        most.append(len(begun))
        waits = Waits(passes)
        scheduler.current().run(waits, lambda: waits, [waits])
        begun.remove(name)
        return name

    go = threading.Event()
    turns.submit(go.wait)
    futures = [
        turns.submit(lambda each=each: work(*each), each[0])
        for each in (("long", 9), ("short", 2), ("third", 1))
    ]
    ended = []
    for name, future in zip(("long", "short", "third"), futures, strict=True):
        future.add_done_callback(lambda _, name=name: ended.append(name))
    go.set()
    assert [future.result() for future in futures] == ["long", "short", "third"]
    assert ended == ["short", "third", "long"]
    assert max(most) == 2
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
    with pytest.raises(ClosingError):
        waiting.result(timeout=0)
    with pytest.raises(ClosingError, match="shutting down"):
        turns.submit(lambda: None)
    go.set()


ENDS_AMID_A_JOB = """
import threading
from app.server.fair_queue import FairQueue
from control.engines import scheduler
from foundation.errors import ClosingError
from foundation.threads import BackgroundThread

begun = threading.Event()

class Endless:
    failure, done, empty = None, False, False
    def add(self, request):
        pass
    remove = add
    def step(self):
        begun.set()

def load():
    endless = Endless()
    try:
        turns.submit(lambda: scheduler.current().run(endless, lambda: endless, [endless])).result()
    except ClosingError:
        print("told", flush=True)

turns = FairQueue()
BackgroundThread(load, "loading")
begun.wait()
"""


@pytest.mark.kill
def test_whoever_waits_for_a_job_is_told_when_the_program_ends():
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_AMID_A_JOB],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "told\n", "")
