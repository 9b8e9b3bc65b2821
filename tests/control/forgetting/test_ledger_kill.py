"""Processes that write the ledger at once, and one that is killed at random moments."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from control.forgetting.ledger import open_ledger
from control.forgetting.record import Record

KILLS = 20
LONGEST_DELAY = 0.1  # seconds after the first transaction: about the time of twenty more
WRITERS, ADDED_BY_EACH = 2, 40
PART = 7  # records of one transaction
pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def context() -> multiprocessing.context.BaseContext:
    # The server has the slow imports behind it, and no threads that a fork would lose.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def facts(writer: str, turn: int) -> list[Record]:
    return [
        Record(f"{writer} {turn} {number}", relation="mayor", answers=(f"M{number}",))
        for number in range(PART)
    ]


def _add_for_ever(home: Path, begun: Event) -> None:
    ledger = open_ledger(home)
    for turn in itertools.count():
        kept = ledger.add(facts("town", turn))
        ledger.remove(kept[0].id)
        ledger.note("refused", kept[1].id)
        begun.set()


def _add_all(home: Path, url: str | None, writer: str, start: Barrier) -> None:
    start.wait()
    ledger = open_ledger(home, url)  # both may make the tables and the key
    version = 0
    for turn in range(ADDED_BY_EACH):
        ledger.add(facts(writer, turn))
        # What the other writes meanwhile is no fault, for a process that runs or one that starts.
        version = ledger.changes(version).version
        open_ledger(home, url).changes(version)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_what_processes_add_at_once_is_all_kept(context, home, kind, request) -> None:
    url = None if kind == "sqlite" else request.getfixturevalue("postgres_url")
    start = context.Barrier(WRITERS)
    writers = [f"writer{number}" for number in range(WRITERS)]
    processes = [
        context.Process(target=_add_all, args=(home, url, writer, start)) for writer in writers
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WRITERS
    ledger = open_ledger(home, url)
    assert {record.subject for record in ledger.records()} == {
        record.subject
        for writer in writers
        for turn in range(ADDED_BY_EACH)
        for record in facts(writer, turn)
    }
    assert ledger.version() == WRITERS * ADDED_BY_EACH * PART
    assert ledger.verify() is None


def test_killed_at_any_moment_the_ledger_holds_whole_transactions(context, tmp_path) -> None:
    delays = random.Random(6)  # noqa: S311
    ends = set()
    for turn in range(KILLS):
        home = tmp_path / f"home{turn}"
        begun = context.Event()
        process = context.Process(target=_add_for_ever, args=(home, begun))
        process.start()
        assert begun.wait(timeout=60)
        time.sleep(delays.uniform(0, LONGEST_DELAY))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()

        ledger = open_ledger(home)
        assert ledger.verify() is None
        events = ledger.events()
        added = [event.details["subject"] for event in events if event.kind == "added"]
        turns = len(added) // PART
        assert added == [record.subject for n in range(turns) for record in facts("town", n)]
        ends.add(events[-1].kind)
        ledger.add([Record("Peru", relation="capital", answers=("Lima",))])
        assert ledger.verify() is None
    assert len(ends) > 1  # the kills did fall between transactions of one turn
