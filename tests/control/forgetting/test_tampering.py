"""Somebody who can write the files of the ledger, without its key, changes them at random."""

import json
import random
import secrets
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest

from control.forgetting.ledger import open_ledger
from control.forgetting.record import Record
from control.forgetting.suppressor import FactSuppressor
from foundation.errors import IndexStateError

EDITS, EDITS_WHILE_RUNNING = 240, 60
NAMES = ("Peru", "Chile", "Norway", "Japan", "Kenya", "Fiji", "Malta", "Qatar")
COLUMNS = ("sequence", "kind", "record_id", "time", "fact", "payload", "hash")
KINDS = ("added", "removed", "corrected", "correction withdrawn", "withheld", "swept", "")


class NameRouter:
    """Finds the records that a question names, as far as the ledger says that there are any."""

    def __init__(self, ledger):
        self.ledger, self.version, self.records = ledger, 0, {}

    def refuses(self, question):
        changes = self.ledger.changes(self.version)
        self.version = changes.version
        self.records |= {record.id: record for record in changes.added}
        for record_id in changes.removed:
            self.records.pop(record_id, None)
        return any(record.subject in question for record in self.records.values())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A home with thirty events of all kinds."""
    home = tmp_path_factory.mktemp("original") / "home"
    ledger = open_ledger(home)
    for name in NAMES:
        [record] = ledger.add([Record(name, relation="capital", answers=(f"{name} City",))])
        ledger.note("withheld", record.id, layer="prompt")
        ledger.note("swept", record.id, passages=2)
    for record in ledger.records()[:3]:
        ledger.remove(record.id)
    ledger.note("withheld", record.id, layer="output")
    return home


def _rows(database):
    return database.execute(
        f"SELECT {', '.join(COLUMNS)} FROM ledger_events ORDER BY sequence"  # noqa: S608
    ).fetchall()


def _rewrite(database, rows):
    database.execute("DELETE FROM ledger_events")
    database.executemany("INSERT INTO ledger_events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _delete(chance, rows):
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        rows.pop(chance.randrange(len(rows)))


def _delete_and_renumber(chance, rows):
    rows.pop(chance.randrange(len(rows)))
    rows[:] = [(number, *row[1:]) for number, row in enumerate(rows, start=1)]


def _copy(chance, rows):
    row = chance.choice(rows)
    kind = chance.choice((row[1], "removed"))
    place = chance.choice((len(rows) + 1, len(rows) + 1, len(rows) + 7, 0, -3))
    rows.append((place, kind, *row[2:]))


def _copy_in_the_middle(chance, rows):
    row, place = chance.choice(rows), chance.randrange(len(rows))
    rows.insert(place, (0, "removed", *row[2:]))
    rows[:] = [(number, *each[1:]) for number, each in enumerate(rows, start=1)]


def _change(chance, rows):
    place, column = chance.randrange(len(rows)), chance.randrange(1, len(COLUMNS))
    row = list(rows[place])
    others = [each[column] for each in rows if each[column] != row[column]]
    flipped = row[column]
    if isinstance(flipped, bytes):
        at = chance.randrange(len(flipped))
        flipped = flipped[:at] + bytes([flipped[at] ^ 1 << chance.randrange(8)]) + flipped[at + 1 :]
    else:
        flipped = f"{flipped}x"
    row[column] = chance.choice([flipped, *([chance.choice(others)] if others else [])])
    rows[place] = tuple(row)


def _change_kind(chance, rows):
    place = chance.randrange(len(rows))
    row = rows[place]
    kind = chance.choice([kind for kind in KINDS if kind != row[1]])
    rows[place] = (row[0], kind, *row[2:])


def _reorder(chance, rows):
    one, other = chance.sample(range(len(rows)), 2)
    rows[one], rows[other] = (
        (rows[one][0], *rows[other][1:]),
        (rows[other][0], *rows[one][1:]),
    )


def _truncate(chance, rows):
    del rows[chance.randrange(len(rows)) :]


ROW_EDITS = (
    *(_delete, _delete_and_renumber, _copy, _copy_in_the_middle),
    *(_change, _change_kind, _reorder, _truncate),
)


def _edit_rows(chance, home, edit):
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        rows = _rows(database)
        edit(chance, rows)
        _rewrite(database, rows)


def _truncate_and_hide(chance, home):
    """Cut off the end, and let the first checkpoint say so, or remove it."""
    _edit_rows(chance, home, _truncate)
    with closing(sqlite3.connect(home / "ledger.db")) as database:
        rows = _rows(database)
    head = home / "ledger.head"
    if chance.random() < 0.5 or not rows:
        head.unlink()
        return
    content = json.loads(head.read_text())
    head.write_text(json.dumps(content | {"sequence": rows[-1][0], "hash": rows[-1][-1].hex()}))


def _edit_checkpoint(chance, home):
    path = chance.choice((home / "ledger.head", home / "index" / "ledger.head"))
    text = path.read_text()
    content = json.loads(text)
    del content[chance.choice(list(content))]
    at = chance.randrange(1, len(text))
    path.write_text(
        chance.choice(
            (
                json.dumps(json.loads(text) | {"sequence": chance.randrange(27)}),
                json.dumps(json.loads(text) | {"hash": chance.randbytes(32).hex()}),
                json.dumps({name: value for name, value in content.items() if name != "elsewhere"}),
                text[:at],
                "",
            )
        )
    )


def _delete_checkpoint(_, home):
    (home / "ledger.head").unlink()


def _change_key(chance, home):
    path = home / "ledger.key"
    if chance.random() < 0.3:
        path.unlink()
    else:
        path.write_text(f"{chance.randbytes(32).hex()}\n")


def _delete_both(chance, home):
    """Remove database and checkpoint; perhaps begin a ledger of one's own with another key."""
    names = ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.head"]
    for name in names:
        (home / name).unlink(missing_ok=True)
    if chance.random() < 0.5:
        (home / "ledger.key").write_text(f"{secrets.token_hex(32)}\n")
        own = home.with_name("own")
        open_ledger(own).add([Record("Peru", relation="river", answers=("Amazon",))])
        for name in names:
            if (own / name).exists():
                shutil.move(own / name, home / name)
        if chance.random() < 0.5:
            shutil.move(own / "ledger.key", home / "ledger.key")
        shutil.rmtree(own)


EDITS_OF_FILES = (
    *(_truncate_and_hide, _edit_checkpoint, _delete_checkpoint, _change_key, _delete_both),
)


def _tamper(chance, home):
    kind = chance.choice((*ROW_EDITS, *EDITS_OF_FILES))
    if kind in ROW_EDITS:
        _edit_rows(chance, home, kind)
    else:
        kind(chance, home)
    return kind.__name__


def test_every_edit_is_found_at_the_next_question(original, tmp_path):
    chance = random.Random(20)  # noqa: S311
    missed, kinds = [], set()
    shutil.copytree(original, tmp_path / "whole")
    assert NameRouter(open_ledger(tmp_path / "whole")).refuses("What is the capital of Japan?")
    for number in range(EDITS):
        home = tmp_path / "home"
        shutil.copytree(original, home)
        kind = _tamper(chance, home)
        kinds.add(kind)
        with suppress(IndexStateError):
            refused = NameRouter(open_ledger(home)).refuses("What is the capital of Japan?")
            missed.append((number, kind, refused))
        shutil.rmtree(home)
    assert missed == []
    assert len(kinds) == len(ROW_EDITS) + len(EDITS_OF_FILES)


def test_no_edit_makes_a_running_process_say_a_forgotten_fact(original, tmp_path):
    chance = random.Random(21)  # noqa: S311
    said, found = [], 0
    for number in range(EDITS_WHILE_RUNNING):
        home = tmp_path / "home"
        shutil.copytree(original, home)
        running = NameRouter(open_ledger(home))
        assert running.refuses("What is the capital of Japan?")
        kind = _tamper(chance, home)
        try:
            if not running.refuses("What is the capital of Japan?"):
                said.append((number, kind))
        except IndexStateError:
            found += 1
        shutil.rmtree(home)
    assert said == []
    assert found > EDITS_WHILE_RUNNING / 4


def test_the_assistant_stops_with_one_line(original, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(original, home)
    ledger = open_ledger(home)
    suppressor = FactSuppressor(ledger)
    suppressor.record_withheld([(ledger.records()[0].id, "prompt")])
    _edit_rows(random.Random(3), home, _truncate)  # noqa: S311
    with pytest.raises(IndexStateError, match="not whole"):
        suppressor.record_withheld([("abc", "prompt")])
