import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from control.forgetting.cipher import FIRST_LINK, KeyFile, LedgerCipher, parse_key
from foundation.errors import IndexStateError, InputError

KEY = bytes(range(32))
PLACE = (7, "added", "abc")


@pytest.fixture
def vault():
    return LedgerCipher(KEY)


def test_what_is_sealed_opens_in_its_place_and_shows_nothing(vault):
    sealed = vault.seal("Lima é a capital", PLACE)
    assert b"Lima" not in sealed
    assert vault.open(sealed, PLACE) == "Lima é a capital"


def test_the_same_text_is_sealed_differently_each_time(vault):
    assert vault.seal("Lima", PLACE) != vault.seal("Lima", PLACE)


@pytest.mark.parametrize("place", [(8, "added", "abc"), (7, "added", "abd"), (7, "addeda", "bc")])
def test_in_another_place_it_does_not_open(vault, place):
    assert vault.open(vault.seal("Lima", PLACE), place) is None


def test_with_another_key_it_does_not_open(vault):
    assert LedgerCipher(bytes(32)).open(vault.seal("Lima", PLACE), PLACE) is None


def test_changed_or_cut_off_it_does_not_open(vault):
    sealed = vault.seal("Lima", PLACE)
    for number in range(len(sealed)):
        changed = bytearray(sealed)
        changed[number] ^= 1
        assert vault.open(bytes(changed), PLACE) is None
        assert vault.open(sealed[:number], PLACE) is None


@pytest.mark.parametrize(
    "columns", [("ab", ""), ("", "ab"), ("a", b"b"), (b"a", "b"), ("a", "b", ""), ("b", "a")]
)
def test_no_other_columns_have_the_same_hash(vault, columns):
    assert vault.link(FIRST_LINK, columns) != vault.link(FIRST_LINK, ("a", "b"))


def test_a_hash_depends_on_the_one_before_and_on_the_key(vault):
    link = vault.link(FIRST_LINK, ("a",))
    assert link == LedgerCipher(KEY).link(FIRST_LINK, ("a",))
    assert link != vault.link(link, ("a",))
    assert link != LedgerCipher(bytes(32)).link(FIRST_LINK, ("a",))


def test_a_mark_is_the_same_for_the_same_texts_and_key_alone(vault):
    assert vault.mark(["peru", "lima"]) == LedgerCipher(KEY).mark(["peru", "lima"])
    assert vault.mark(["peru", "lima"]) != vault.mark(["perulima"])
    assert vault.mark(["peru", "lima"]) != LedgerCipher(bytes(32)).mark(["peru", "lima"])


def test_a_key_of_another_length_is_refused():
    with pytest.raises(InputError, match="16 bytes; give 32"):
        LedgerCipher(bytes(16))


def test_a_new_key_is_random_and_for_its_owner_alone(tmp_path):
    file, other = KeyFile(tmp_path / "home" / "a.key"), KeyFile(tmp_path / "home" / "b.key")
    assert file.read() is None
    key = file.create()
    assert len(key) == 32
    assert file.read() == key != other.create()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {"a.key", "b.key"}


def test_a_key_that_is_there_is_never_replaced(tmp_path):
    file = KeyFile(tmp_path / "ledger.key")
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: KeyFile(file.path).create(), range(16)))
    assert keys == {file.read()}


@pytest.mark.parametrize("content", [b"", b"secret-words", bytes(32), b"\xff" * 64, b"ab" * 31])
def test_a_damaged_key_is_named_and_not_repeated(tmp_path, content):
    path = tmp_path / "ledger.key"
    path.write_bytes(content)
    with pytest.raises(IndexStateError, match=r"ledger\.key does not hold a key") as caught:
        KeyFile(path).read()
    assert "secret" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_key_cannot_be_made_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexStateError, match="nothing was recorded"):
        KeyFile(tmp_path / "file" / "ledger.key").create()


def test_a_key_is_read_from_digits():
    assert parse_key(f" {KEY.hex().upper()}\n") == KEY
    with pytest.raises(InputError, match="64 hexadecimal digits") as caught:
        parse_key("secret-words")
    assert "secret" not in str(caught.value)
