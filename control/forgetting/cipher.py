"""The key of the ledger, and what it is used for: encryption, hash chain and keyed hashes."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from foundation.errors import IndexStateError, InputError
from foundation.files import private_directory, version_of

KEY_BYTES = 32  # AES-256 and HMAC-SHA256 take keys of this length
NONCE_BYTES = 12  # as NIST SP 800-38D (GCM) recommends; drawn at random for each message
FIRST_LINK = bytes(hashlib.sha256().digest_size)  # the hash before the first event of a chain
CODEC = ("utf-8", "surrogatepass")  # user input may hold unpaired surrogates
VARIABLE = "FULCRUM_LEDGER_KEY"
KEY = "ledger.key"  # in the home


class LedgerCipher:
    """Encrypts texts, chains events, hashes facts and signs, each with its own key, by HKDF."""

    def __init__(self, key: bytes) -> None:
        """Derive the keys.

        Raises:
            InputError: the key does not have ``KEY_BYTES`` bytes.
        """
        if len(key) != KEY_BYTES:
            raise InputError(f"the ledger's key has {len(key)} bytes; give {KEY_BYTES}")
        self._cipher = AESGCM(derived(key, b"payload"))
        self._chain = derived(key, b"chain")
        self._hash_key = derived(key, b"mark")
        self._signing_key = derived(key, b"certificate")

    def seal(self, text: str, place: Iterable[str | int]) -> bytes:
        """Encrypt a text, bound to a place such as one row of a table."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(*CODEC), _joined(place))

    def open(self, sealed: bytes, place: Iterable[str | int]) -> str | None:
        """Decrypt a text; ``None`` with another key or place, or if it was changed."""
        nonce, message = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, message, _joined(place)).decode(*CODEC)
        except (InvalidTag, ValueError):  # ValueError: truncated within the nonce
            return None

    def link(self, previous: bytes, columns: Iterable[str | int | bytes]) -> bytes:
        """Return an event's hash: HMAC-SHA256 of the hash before it and of all its columns."""
        return hmac.digest(self._chain, previous + _joined(columns), "sha256")

    def keyed_hash(self, texts: Iterable[str]) -> str:
        """Return a hash by which texts are recognised only with the key."""
        return hmac.digest(self._hash_key, _joined(texts), "sha256").hex()

    def signer(self) -> Ed25519PrivateKey:
        """Return the key that signs what others check by its public key."""
        return Ed25519PrivateKey.from_private_bytes(self._signing_key)


class KeyFile:
    """A key file readable by its owner only, created when the first fact is recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """Return the key, or ``None`` if there is no file.

        Raises:
            IndexStateError: the file cannot be read or holds something else.
        """
        try:
            text = self.path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise IndexStateError(
                f"{self.path} cannot be read ({error.strerror}); the ledger needs this key"
            ) from error
        except UnicodeDecodeError:
            text = ""
        key = _from_hex(text)
        if key is None:
            raise IndexStateError(
                f"{self.path} does not hold a key of {2 * KEY_BYTES} hexadecimal digits; "
                f"put a copy of it back, or set {VARIABLE}"
            )
        return key

    def state(self) -> tuple[int, ...] | None:
        """What changes when the file does, or ``None`` if there is none."""
        with suppress(OSError):
            return version_of(self.path)
        return None

    def create(self) -> bytes:
        """Create and return a key, or return the one that another process has just created.

        Raises:
            IndexStateError: the file cannot be written.
        """
        folder, prefix = self.path.parent, f".{self.path.name}-"
        try:
            private_directory(folder)
            with NamedTemporaryFile("w", encoding="ascii", dir=folder, prefix=prefix) as file:
                file.write(f"{secrets.token_hex(KEY_BYTES)}\n")
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileExistsError):  # a link never replaces an existing key
                    os.link(file.name, self.path)
        except OSError as error:
            raise IndexStateError(
                f"{self.path} cannot be written ({error.strerror}), so nothing was recorded; "
                "check permissions and the space on the disk, or choose another --home"
            ) from error
        key = self.read()
        if key is None:
            raise IndexStateError(f"{self.path} vanished as soon as it was written; try again")
        return key


def parse_key(text: str) -> bytes:
    """Parse a key; no message repeats it.

    Raises:
        InputError: it is not ``KEY_BYTES`` bytes in hexadecimal digits.
    """
    key = _from_hex(text)
    if key is None:
        raise InputError(
            f"{VARIABLE} is not a key; give {2 * KEY_BYTES} hexadecimal digits, "
            "as they stand in the file ledger.key"
        )
    return key


def _from_hex(text: str) -> bytes | None:
    digits = text.strip()
    return bytes.fromhex(digits) if re.fullmatch(r"[0-9a-fA-F]{64}", digits) else None


def derived(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose, of ``KEY_BYTES`` bytes."""
    info = b"fulcrum ledger " + purpose
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def _joined(parts: Iterable[str | int | bytes]) -> bytes:
    """Join parts so that different lists give different bytes."""
    # The type of each part counts too: SQLite stores bytes in a text column but never finds them.
    joined = list[bytes]()
    for part in parts:
        if isinstance(part, str):
            kind, encoded = b"s", part.encode()
        elif isinstance(part, bytes):
            kind, encoded = b"b", part
        else:
            kind, encoded = type(part).__name__[:1].encode(), f"{part}".encode()
        joined += (kind, len(encoded).to_bytes(8, "big"), encoded)
    return b"".join(joined)
