import threading

import pytest

from foundation import trace


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(trace.time, "perf_counter", lambda: now[0])

    def later(seconds):
        now[0] += seconds

    return later


def test_a_step_within_a_step_counts_for_itself_alone(clock):
    with trace.following() as way:
        with trace.step("retrieve"):
            clock(1)
            with trace.step("trigger"):
                clock(10)
            clock(2)
        clock(100)  # between the steps
        with trace.step("retrieve"):
            clock(4)
    assert dict(way.seconds) == {"retrieve": 7, "trigger": 10}


def test_a_step_that_fails_is_booked_and_the_next_one_starts_anew(clock):
    def broken():
        with trace.step("inner"):
            clock(3)
            raise ValueError("broken")

    with trace.following() as way, trace.step("outer"):
        with pytest.raises(ValueError, match="broken"):
            broken()
        clock(5)
    assert dict(way.seconds) == {"inner": 3, "outer": 5}


def test_notices_verdicts_and_counts_reach_the_question_that_is_answered():
    with trace.following() as way:
        trace.notice("The index is old.")
        trace.verdict("a", 0.75, kept=True)
        trace.verdict("b", 0.25, kept=False)
        trace.count("passages", 2)
        trace.count("passages")
    assert way.notices == ["The index is old."]
    assert way.verdicts == {"a": 0.75, "b": 0.25}
    assert way.passed == {"a"}
    assert way.counts["passages"] == 3


def test_a_question_within_a_question_has_a_trail_of_its_own():
    with trace.following() as outer:
        with trace.following() as inner:
            trace.notice("inner")
        trace.notice("outer")
    assert inner.notices == ["inner"]
    assert outer.notices == ["outer"]


def test_outside_an_answer_writing_does_nothing():
    with trace.following() as past:
        pass
    with trace.step("decode"):
        trace.notice("nobody listens")
        trace.verdict("a", 0.5, kept=True)
        trace.count("passages")
    assert (past.notices, past.verdicts, dict(past.seconds)) == ([], {}, {})


def test_questions_answered_at_the_same_time_do_not_mix():
    meeting = threading.Barrier(2, timeout=10)
    told = {}

    def answer(name):
        with trace.following() as way:
            meeting.wait()  # both trails are open
            trace.notice(name)
            meeting.wait()
            told[name] = way.notices

    threads = [threading.Thread(target=answer, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {"one": ["one"], "two": ["two"]}
