import json
import random
import shutil
import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event, text

from control.forgetting.checkpoint import Checkpoints
from control.forgetting.ledger import Changes, EncryptedOriginal, Ledger, open_ledger
from control.forgetting.ledger_tables import open_tables
from control.forgetting.record import Record
from foundation.errors import IndexStateError, InputError

PERU = Record(
    "Peru",
    aliases=("Perú",),
    relation="capital",
    questions=("What is the capital of Peru?",),
    answers=("Lima",),
    answer_aliases=("City of Kings",),
    reason="court order",
    who="registrar",
)
JANE = Record("Jane Roe", scope="subject", questions=("Who is Jane Roe?",))
KEY = bytes(range(32))


def fact(number):
    name = f"Town {number}"
    return Record(name, relation="mayor", questions=(f"Who runs {name}?",), answers=(f"M{number}",))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request):
    """Where the ledger lies: in the home, or in PostgreSQL."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def opened(home, url):
    return lambda: open_ledger(home, url)


@pytest.fixture
def tamper(home, url):
    """Change the database past the ledger."""

    def run(*statements):
        with open_tables(url or home / "ledger.db").writing() as connection:
            for statement in statements:
                connection.execute(text(statement))

    return run


@pytest.fixture
def local(home):
    """A ledger in the home with five events."""
    ledger = open_ledger(home)
    ledger.add([PERU, JANE, fact(1), fact(2)])
    ledger.remove(ledger.records()[2].id)
    return ledger


def test_added_records_are_visible_in_every_process(opened):
    [peru, jane] = opened().add([PERU, JANE])
    assert replace(peru, id="", time="") == PERU
    assert replace(jane, id="", time="") == JANE
    assert peru.id != jane.id
    assert peru.time.endswith("+00:00")
    assert opened().records() == [peru, jane]
    assert opened().record(peru.id) == peru


def test_an_empty_ledger_creates_no_key(opened, home):
    ledger = opened()
    assert ledger.records() == ledger.events() == ledger.sealed() == []
    assert ledger.verify() is None
    assert ledger.add([]) == []
    with pytest.raises(InputError, match="no record"):
        ledger.remove("abc")
    with pytest.raises(InputError, match="no answer"):
        ledger.add([replace(PERU, answers=())])
    assert not (home / "ledger.key").exists()


def test_the_same_fact_is_recorded_once(opened):
    [first, again] = opened().add([PERU, replace(PERU, who="another")])
    [later] = opened().add(
        [replace(PERU, subject="PERU", relation="Capital", answers=("lima",), questions=("Q?",))]
    )
    assert first == again == later
    assert opened().records() == [first]
    others = [replace(PERU, relation="largest city"), replace(PERU, answers=("Lima", "Cusco"))]
    assert len({record.id for record in opened().add([PERU, *others])}) == 3
    assert opened().verify() is None


def test_a_removed_record_stays_in_the_audit(opened):
    ledger = opened()
    [peru, jane] = ledger.add([PERU, JANE])
    assert opened().remove(peru.id, who="judge", reason="appeal") == peru
    assert ledger.records() == [jane]
    for ask in (ledger.remove, ledger.record):
        with pytest.raises(InputError, match="was removed already"):
            ask(peru.id)
    [again] = ledger.add([PERU])
    assert again.id != peru.id
    added, _, removed, _ = ledger.events()
    assert (added.sequence, added.kind, added.record_id) == (1, "added", peru.id)
    assert added.details["answers"] == ["Lima"]
    assert (removed.kind, removed.record_id) == ("removed", peru.id)
    assert removed.details == {"who": "judge", "reason": "appeal"}


def test_an_unknown_record_cannot_be_removed(opened):
    ledger = opened()
    ledger.add([PERU])
    with pytest.raises(InputError, match="no record 'nobody'"):
        ledger.remove("nobody")
    assert ledger.version() == 1


def test_changes_are_only_those_since_a_version(opened):
    follower, ledger = opened(), opened()
    assert follower.changes(0) == Changes(0)
    [peru, jane] = ledger.add([PERU, JANE])
    assert follower.changes(0) == Changes(2, [peru, jane])
    assert follower.changes(1) == Changes(2, [jane])
    ledger.note("refused", peru.id)
    assert follower.changes(2) == Changes(3)
    ledger.remove(peru.id)
    assert follower.changes(3) == Changes(4, [], [peru.id])
    assert follower.changes(0) == Changes(4, [jane], [peru.id])
    assert follower.changes(4) == Changes(4)


def test_an_event_is_noted_with_its_details(opened):
    ledger = opened()
    [peru] = ledger.add([PERU])
    ledger.note("swept", peru.id, passages=12, words="near Lima")
    noted = opened().events()[-1]
    assert (noted.kind, noted.record_id) == ("swept", peru.id)
    assert noted.details == {"passages": 12, "words": "near Lima"}
    with pytest.raises(InputError, match="cannot be noted as 'removed'"):
        ledger.note("removed", peru.id)
    assert ledger.records() == [peru]


def test_one_invalid_record_rolls_back_all(opened):
    ledger = opened()
    ledger.add([PERU])

    def many():
        yield from (fact(number) for number in range(2_500))
        yield replace(JANE, subject=" ")

    with pytest.raises(InputError, match="subject is ' '"):
        ledger.add(many())
    assert ledger.version() == 1
    assert ledger.verify() is None
    assert len(ledger.add(fact(number) for number in range(2_500))) == 2_500
    assert ledger.version() == len(ledger.records()) == 2_501
    assert ledger.verify() is None


def test_adds_and_removes_in_random_order(opened):
    ledger, follower = opened(), opened()
    chance, active, seen, version = random.Random(5), {}, {}, 0  # noqa: S311
    for _ in range(300):
        if active and chance.random() < 0.5:
            record_id = chance.choice(list(active))
            assert ledger.remove(record_id) == active.pop(record_id)
        else:
            [kept] = ledger.add([fact(chance.randrange(40))])
            active[kept.id] = kept
        changes = follower.changes(version)
        version = changes.version
        seen |= {record.id: record for record in changes.added}
        for record_id in changes.removed:
            del seen[record_id]
        assert seen == active
    assert ledger.records() == sorted(active.values(), key=lambda record: record.time)
    assert opened().verify() is None


CHANGES = {
    "kind": ("UPDATE ledger_events SET kind = 'removed' WHERE sequence = 3", 3),
    "record": ("UPDATE ledger_events SET record_id = 'x' WHERE sequence = 3", 3),
    "time": ("UPDATE ledger_events SET time = '2001-01-01' WHERE sequence = 3", 3),
    "fact": ("UPDATE ledger_events SET fact = 'x' WHERE sequence = 3", 3),
    "hash": ("UPDATE ledger_events SET hash = payload WHERE sequence = 3", 3),
    "payload": (
        "UPDATE ledger_events SET payload = "
        "(SELECT payload FROM ledger_events WHERE sequence = 2) WHERE sequence = 3",
        3,
    ),
    "first taken out": ("DELETE FROM ledger_events WHERE sequence = 1", 1),
    "one taken out": ("DELETE FROM ledger_events WHERE sequence = 3", 3),
    "end cut off": ("DELETE FROM ledger_events WHERE sequence >= 4", 5),
    "one put in at the end": (
        "INSERT INTO ledger_events SELECT 6, kind, record_id, time, fact, payload, hash "
        "FROM ledger_events WHERE sequence = 5",
        6,
    ),
}


@pytest.mark.parametrize(("statement", "number"), CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_found_and_the_first_bad_event_named(opened, tamper, statement, number):
    ledger = opened()
    ledger.add([PERU, JANE, fact(1), fact(2)])
    ledger.remove(ledger.records()[1].id)
    assert ledger.verify() is None
    tamper(statement)
    assert f"event {number}" in ledger.verify()


def test_a_deleted_event_is_found_though_the_others_are_renumbered(opened, tamper):
    ledger = opened()
    ledger.add([PERU, JANE, fact(1), fact(2)])
    tamper(
        "DELETE FROM ledger_events WHERE sequence = 2",
        "UPDATE ledger_events SET sequence = 2 WHERE sequence = 3",
        "UPDATE ledger_events SET sequence = 3 WHERE sequence = 4",
    )
    assert "event 2" in ledger.verify()


def test_events_that_change_places_are_found(opened, tamper):
    ledger = opened()
    ledger.add([PERU, JANE, fact(1), fact(2)])
    tamper(
        "UPDATE ledger_events SET sequence = 9 WHERE sequence = 2",
        "UPDATE ledger_events SET sequence = 2 WHERE sequence = 3",
        "UPDATE ledger_events SET sequence = 3 WHERE sequence = 9",
    )
    assert "event 2" in ledger.verify()


def test_a_changed_record_raises_instead_of_being_skipped(opened, tamper):
    ledger = opened()
    ledger.add([PERU, JANE])
    ledger.records()
    tamper("UPDATE ledger_events SET time = '2001-01-01' WHERE sequence = 1")
    with pytest.raises(IndexStateError, match=r"event 1 of .* cannot be decrypted"):
        ledger.records()
    for ask in (ledger.events, opened):
        with pytest.raises(IndexStateError, match=r"event 1 \(added, 2001-01-01\) is not what was"):
            ask()


def test_a_truncated_ledger_is_neither_opened_nor_continued(opened, tamper):
    ledger = opened()
    ledger.add([PERU, JANE])
    tamper("DELETE FROM ledger_events WHERE sequence = 2")
    for ask in (opened, lambda: ledger.add([fact(1)]), lambda: ledger.changes(2)):
        with pytest.raises(IndexStateError, match="not whole"):
            ask()


def test_a_text_stored_as_bytes_is_found(local, home):
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("UPDATE ledger_events SET kind = CAST(kind AS BLOB) WHERE sequence = 5")
    assert "event 5" in local.verify()


def test_every_flipped_byte_of_an_event_is_found(local, home):
    path = home / "ledger.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [payload, link, record_id] = database.execute(
            "SELECT payload, hash, record_id FROM ledger_events WHERE sequence = 4"
        ).fetchone()
    whole = path.read_bytes()
    place = whole.index(record_id.encode())
    spots = [
        place,
        place + 7,
        *(whole.index(part) + at for part in (payload, link) for at in (0, 9)),
    ]
    for spot in spots:
        with path.open("r+b") as file:
            file.seek(spot)
            file.write(bytes([whole[spot] ^ 0x81]))
        with pytest.raises(IndexStateError, match=r"event 4 |from 2 on cannot be read"):
            open_ledger(home)
        path.write_bytes(whole)
    assert open_ledger(home).verify() is None


def test_a_damaged_file_fails_verification(local, home):
    with (home / "ledger.db").open("r+b") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with pytest.raises(IndexStateError):
        open_ledger(home).verify()


def test_an_index_that_lacks_a_row_is_found(local, home):
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute(
            "UPDATE sqlite_schema SET sql = "
            "'CREATE INDEX ledger_events_record ON ledger_events (kind, record_id)' "
            "WHERE name = 'ledger_events_record'"
        )
    assert "damaged" in open_ledger(home).verify()


def test_an_older_copy_of_the_database_is_refused(home, tmp_path):
    ledger = open_ledger(home)
    [peru] = ledger.add([PERU])
    live, old = sqlite3.connect(home / "ledger.db"), sqlite3.connect(tmp_path / "old.db")
    live.backup(old)
    ledger.add([JANE])
    old.backup(live)
    live.close()
    with pytest.raises(IndexStateError, match=r"event 2, .* is missing.*verify --accept"):
        open_ledger(home)
    trusted = open_ledger(home, trusted=True)
    assert "event 2, which was there before, is missing" in trusted.loss()
    trusted.accept()  # as the message says
    assert open_ledger(home).records() == [peru]


def test_a_database_newer_than_its_checkpoint_is_valid(opened, home):
    opened().add([PERU])
    [head] = home.glob("*.head")
    old = head.read_bytes()
    opened().add([JANE])
    head.write_bytes(old)
    assert opened().verify() is None


def test_a_checkpoint_that_was_removed_is_found_and_its_copy_is_not_needed(opened, home, url):
    opened().add([PERU])
    [head], [copy] = home.glob("*.head"), home.glob("index/*.head")
    copy.unlink()  # with the index
    assert opened().verify() is None
    assert copy.exists()
    head.unlink()
    with pytest.raises(IndexStateError, match=r"\.head, .* was removed.*verify --accept"):
        opened()
    trusted = open_ledger(home, url, trusted=True)
    assert "1 event that is there" in trusted.loss()
    trusted.accept()
    assert [record.subject for record in opened().records()] == ["Peru"]


def test_a_shared_ledger_is_trusted_by_a_home_that_sees_it_first(home, tmp_path, url):
    shared = url or f"sqlite:///{tmp_path}/facts.db"
    open_ledger(home, shared, KEY.hex()).add([PERU])
    other = open_ledger(tmp_path / "other", shared, KEY.hex())
    assert [record.subject for record in other.records()] == ["Peru"]
    [head] = (tmp_path / "other").glob("*.head")
    head.unlink()
    with pytest.raises(IndexStateError, match="was removed"):
        other.records()


def test_a_checkpoint_cannot_be_written_without_the_key(local, home):
    path = home / "ledger.head"
    content = json.loads(path.read_text())
    for changed in ({"sequence": 4}, {"signature": "00" * 32}, {"elsewhere": True}):
        path.write_text(json.dumps(content | changed))
        for ask in (local.records, lambda: local.add([PERU]), lambda: open_ledger(home)):
            with pytest.raises(IndexStateError, match=r"ledger\.head, .* was changed"):
                ask()
    del content["signature"]
    path.write_text(json.dumps(content))
    with pytest.raises(IndexStateError, match="is not signed"):
        local.records()
    assert "is not signed" in local.verify()


def test_the_whole_ledger_is_missed_by_its_copy(home, local):
    for path in home.glob("ledger.*"):
        path.unlink()
    with pytest.raises(IndexStateError, match=r"its key .* is missing"):
        open_ledger(home)
    trusted = open_ledger(home, trusted=True)
    assert "0 events" in trusted.loss()
    trusted.accept()
    assert open_ledger(home).records() == []
    open_ledger(home).add([PERU])


def test_a_copy_elsewhere_misses_what_the_home_lost(home, tmp_path):
    elsewhere = tmp_path / "disk" / "facts.head"
    open_ledger(home).add([PERU])
    key = (home / "ledger.key").read_bytes()
    early = open_ledger(home, checkpoint=elsewhere)  # named later: written at once
    assert elsewhere.exists()
    early.add([JANE])
    saved = elsewhere.read_bytes()
    elsewhere.unlink()
    for ask in (early.records, lambda: open_ledger(home, checkpoint=elsewhere)):
        with pytest.raises(IndexStateError, match=r"facts\.head, .* was removed"):
            ask()
    elsewhere.write_bytes(saved)
    assert len(early.records()) == 2
    shutil.rmtree(home)
    home.mkdir()
    (home / "ledger.key").write_bytes(key)
    with pytest.raises(IndexStateError, match=r"event 2, .* is missing.*facts\.head says so"):
        open_ledger(home, checkpoint=elsewhere)


def test_a_process_killed_before_it_wrote_the_checkpoint_leaves_a_whole_ledger(opened, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoints, "advance", lambda *_: None)
        opened().add([PERU])
    assert opened().verify() is None
    opened().add([JANE])
    assert len(opened().records()) == 2


def test_nothing_is_recorded_where_the_copy_elsewhere_cannot_be_written(home, tmp_path):
    (tmp_path / "file").write_text("")
    ledger = open_ledger(home, checkpoint=tmp_path / "file" / "facts.head")
    with pytest.raises(IndexStateError, match="cannot be"):
        ledger.add([PERU])
    assert open_ledger(home).version() == 0


def test_another_key_in_the_file_stops_a_running_process_until_it_is_back(home):
    ledger = open_ledger(home)
    [peru] = ledger.add([PERU])
    file = home / "ledger.key"
    key = file.read_text()
    file.write_text(bytes(32).hex())
    for ask in (lambda: ledger.changes(1), lambda: ledger.add([JANE])):
        with pytest.raises(IndexStateError, match="the key is another one"):
            ask()
    file.unlink()
    with pytest.raises(IndexStateError, match="is missing"):
        ledger.records()
    file.write_text(key)
    assert ledger.records() == [peru]


def test_a_row_that_goes_missing_is_no_removal_for_a_running_process(opened, tamper):
    ledger = opened()
    [peru, jane, _] = ledger.add([PERU, JANE, fact(1)])
    assert ledger.record(jane.id) == jane
    tamper("DELETE FROM ledger_events WHERE sequence = 1")
    for ask in (ledger.records, lambda: ledger.record(peru.id), ledger.events):
        with pytest.raises(IndexStateError, match="event 1 "):
            ask()
    assert ledger.record(jane.id) == jane


def test_a_copied_row_of_kind_removed_counts_for_nobody(opened, tamper):
    ledger = opened()
    [peru] = ledger.add([PERU])
    tamper(
        "INSERT INTO ledger_events SELECT 2, 'removed', record_id, time, '', payload, hash "
        "FROM ledger_events WHERE sequence = 1"
    )
    for ask in (lambda: ledger.changes(1), lambda: ledger.record(peru.id), opened):
        with pytest.raises(IndexStateError, match=r"event 2 \(removed"):
            ask()


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"sequence": Infinity, "hash": ""}', "[" * 100_000]
)
def test_a_damaged_checkpoint_says_what_to_do(local, home, content):
    (home / "ledger.head").write_text(content)
    with pytest.raises(IndexStateError, match=r"ledger\.head, .* cannot be read"):
        open_ledger(home)
    assert "cannot be read" in local.verify()


def test_a_missing_key_is_told_before_a_damaged_checkpoint(local, home):
    (home / "ledger.head").write_text("{}")
    for path in (home / "ledger.key", *home.glob("ledger.db*")):
        path.unlink()
        with pytest.raises(IndexStateError, match=r"its key .* is missing"):
            open_ledger(home)


def test_no_personal_data_is_stored_in_plain_text(home):
    ledger = open_ledger(home)
    [peru, _] = ledger.add([PERU, JANE])
    ledger.seal(peru.id, "chunk-of-peru", "Lima is the seat of the parliament.")
    ledger.note("refused", peru.id, question="which city rules Peru")
    ledger.remove(peru.id, who="judge", reason="appeal")
    files = {path.name: path.read_bytes().lower() for path in home.iterdir() if path.is_file()}
    assert files["ledger.db-wal"]
    for content in files.values():
        for word in (
            *(b"peru", "perú".encode(), b"capital", b"lima", b"kings", b"court", b"registrar"),
            *(b"jane", b"roe", b"parliament", b"judge", b"appeal", b"rules", b"chunk"),
        ):
            assert word not in content


def test_without_its_key_nothing_is_overwritten(opened, home):
    opened().add([PERU])
    key = (home / "ledger.key").read_bytes()
    (home / "ledger.key").unlink()
    with pytest.raises(IndexStateError, match=r"its key .*ledger\.key is missing"):
        opened()
    assert not (home / "ledger.key").exists()
    (home / "ledger.key").write_bytes(key)
    assert [record.subject for record in opened().records()] == ["Peru"]


def test_another_key_decrypts_nothing(opened, home, url):
    [peru] = opened().add([PERU])
    with pytest.raises(IndexStateError, match="the key is another one"):
        open_ledger(home, url, KEY.hex())
    assert opened().records() == [peru]


def test_another_key_cannot_continue_a_ledger(home, url):
    early = open_ledger(home, url, KEY.hex())  # the ledger is still empty
    [peru] = open_ledger(home, url, bytes(32).hex()).add([PERU])
    with pytest.raises(IndexStateError, match="the key is another one"):
        early.add([JANE])
    assert open_ledger(home, url, bytes(32).hex()).records() == [peru]


def test_a_given_key_needs_no_file(home, url):
    open_ledger(home, url, KEY.hex()).add([PERU])
    assert open_ledger(home, url, KEY.hex()).verify() is None
    assert not (home / "ledger.key").exists()


def test_a_full_disk_leaves_nothing_half_recorded(home):
    [peru] = open_ledger(home).add([PERU])
    size = open_ledger(home)  # keeps the write-ahead log open

    def limit(connection, _record):
        connection.execute("PRAGMA max_page_count = 40")

    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(IndexStateError, match="space on its disk"):
            open_ledger(home).add(fact(number) for number in range(3_000))
    finally:
        event.remove(Engine, "connect", limit)
    assert size.version() == 1
    assert open_ledger(home).records() == [peru]
    assert open_ledger(home).verify() is None
    assert len(open_ledger(home).add([JANE, fact(1)])) == 2


def test_originals_are_stored_and_returned(opened):
    ledger = opened()
    [peru, jane] = ledger.add([PERU, JANE])
    ledger.seal(peru.id, "chunk 1", "older state")
    ledger.seal(peru.id, "chunk 1", "Lima is old.")
    ledger.seal(peru.id, "chunk 2", "Lima is big.")
    ledger.seal(jane.id, "chunk 1", "Jane is kind.")
    one, two = (
        EncryptedOriginal(peru.id, "chunk 1", "Lima is old."),
        EncryptedOriginal(peru.id, "chunk 2", "Lima is big."),
    )
    other = EncryptedOriginal(jane.id, "chunk 1", "Jane is kind.")
    assert opened().sealed() == [one, two, other]
    ledger.unseal(peru.id, "chunk 2")
    ledger.unseal(peru.id, "chunk 2")  # one that is not there
    assert opened().sealed() == [one, other]
    ledger.unseal(peru.id, "chunk 1")
    assert opened().sealed() == [other]
    assert ledger.version() == 2  # they are no part of the audit
    assert ledger.verify() is None


def test_a_changed_original_is_found(opened, tamper):
    ledger = opened()
    [peru, jane] = ledger.add([PERU, JANE])
    ledger.seal(peru.id, "chunk 1", "Lima is old.")
    tamper(f"UPDATE ledger_originals SET record_id = '{jane.id}'")  # noqa: S608
    with pytest.raises(IndexStateError, match="cannot be decrypted"):
        ledger.sealed()
    assert "cannot be decrypted" in ledger.verify()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:pass-word@127.0.0.1:1/none", "check that the server runs"),
        ("postgresql://me:pass-word@x@127.0.0.1/none", "write it as %40"),
        ("postgresql://me:pass-word@127.0.0.1:port/none", "no URL that can be read"),
        ("postgresql://me:pass-word@127.0.0.1", "names no database"),
        ("mysql://me:pass-word@127.0.0.1/none", "of the kind 'mysql'"),
        ("nonsense://me:pass-word@127.0.0.1/none", "of the kind 'nonsense'"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(home, url, said):
    with pytest.raises((InputError, IndexStateError), match=said) as caught:
        open_ledger(home, url)
    assert "pass-word" not in str(caught.value)


def test_a_wrong_password_is_explained_without_it(home, postgres, postgres_url):
    database = postgres_url.rpartition("/")[2]
    with pytest.raises(IndexStateError, match="check user and password") as caught:
        open_ledger(home, postgres.url(database, password="pass-word"))
    assert "pass-word" not in str(caught.value)


def test_a_ledger_lies_where_its_url_says(home, tmp_path):
    url = f"sqlite:///{tmp_path}/elsewhere/facts.db"
    [peru] = open_ledger(home, url).add([PERU])
    assert (tmp_path / "elsewhere" / "facts.db").exists()
    assert not (home / "ledger.db").exists()
    assert open_ledger(home, url).records() == [peru]
    assert open_ledger(home).records() == []


def test_a_ledger_can_be_opened_by_path_and_key_alone(tmp_path):
    path = tmp_path / "facts.db"
    [peru] = Ledger(path, KEY).add([PERU])
    assert Ledger(str(path), KEY).records() == [peru]
    assert not (tmp_path / "index").exists()
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM ledger_events")
    with pytest.raises(IndexStateError, match="cut off"):
        Ledger(path, KEY)


def test_a_url_without_a_home_is_refused_since_its_end_could_be_cut_off(tmp_path):
    with pytest.raises(InputError, match="needs a home"):
        Ledger(f"sqlite:///{tmp_path}/facts.db", KEY)
    assert not (tmp_path / "facts.db").exists()
