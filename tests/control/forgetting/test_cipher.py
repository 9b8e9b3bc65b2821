import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from control.forgetting.cipher import FIRST_LINK, KeyFile, LedgerCipher, parse_key
from foundation.errors import IndexStateError, InputError

KEY = bytes(range(32))
PLACE = (7, "added", "abc")


@pytest.fixture
def cipher():
    return LedgerCipher(KEY)


def test_an_encrypted_text_decrypts_in_its_place_and_reveals_nothing(cipher):
    sealed = cipher.seal("Lima é a capital", PLACE)
    assert b"Lima" not in sealed
    assert cipher.open(sealed, PLACE) == "Lima é a capital"


def test_the_same_text_is_encrypted_differently_each_time(cipher):
    assert cipher.seal("Lima", PLACE) != cipher.seal("Lima", PLACE)


@pytest.mark.parametrize("place", [(8, "added", "abc"), (7, "added", "abd"), (7, "addeda", "bc")])
def test_it_does_not_decrypt_in_another_place(cipher, place):
    assert cipher.open(cipher.seal("Lima", PLACE), place) is None


def test_it_does_not_decrypt_with_another_key(cipher):
    assert LedgerCipher(bytes(32)).open(cipher.seal("Lima", PLACE), PLACE) is None


def test_it_does_not_decrypt_changed_or_truncated(cipher):
    sealed = cipher.seal("Lima", PLACE)
    for number in range(len(sealed)):
        changed = bytearray(sealed)
        changed[number] ^= 1
        assert cipher.open(bytes(changed), PLACE) is None
        assert cipher.open(sealed[:number], PLACE) is None


@pytest.mark.parametrize(
    "columns", [("ab", ""), ("", "ab"), ("a", b"b"), (b"a", "b"), ("a", "b", ""), ("b", "a")]
)
def test_no_other_columns_have_the_same_hash(cipher, columns):
    assert cipher.link(FIRST_LINK, columns) != cipher.link(FIRST_LINK, ("a", "b"))


def test_a_hash_depends_on_the_one_before_and_on_the_key(cipher):
    link = cipher.link(FIRST_LINK, ("a",))
    assert link == LedgerCipher(KEY).link(FIRST_LINK, ("a",))
    assert link != cipher.link(link, ("a",))
    assert link != LedgerCipher(bytes(32)).link(FIRST_LINK, ("a",))


def test_a_keyed_hash_depends_on_texts_and_key(cipher):
    assert cipher.keyed_hash(["peru", "lima"]) == LedgerCipher(KEY).keyed_hash(["peru", "lima"])
    assert cipher.keyed_hash(["peru", "lima"]) != cipher.keyed_hash(["perulima"])
    assert cipher.keyed_hash(["peru", "lima"]) != LedgerCipher(bytes(32)).keyed_hash(
        ["peru", "lima"]
    )


def test_a_key_of_another_length_is_refused():
    with pytest.raises(InputError, match="16 bytes; give 32"):
        LedgerCipher(bytes(16))


def test_a_new_key_is_random_and_private(tmp_path):
    file, other = KeyFile(tmp_path / "home" / "a.key"), KeyFile(tmp_path / "home" / "b.key")
    assert file.read() is None
    key = file.create()
    assert len(key) == 32
    assert file.read() == key != other.create()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {"a.key", "b.key"}


def test_an_existing_key_is_never_replaced(tmp_path):
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


def test_without_write_access_no_key_is_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexStateError, match="nothing was recorded"):
        KeyFile(tmp_path / "file" / "ledger.key").create()


def test_a_key_is_read_from_digits():
    assert parse_key(f" {KEY.hex().upper()}\n") == KEY
    with pytest.raises(InputError, match="64 hexadecimal digits") as caught:
        parse_key("secret-words")
    assert "secret" not in str(caught.value)
