"""A conversation kept in the visitor's browser, so that a reload of the page brings it back.

The browser gets it sealed: without this server nobody reads it there, and the server opens nothing
that it has not written. What was forgotten since is left out when it comes back.
"""

import base64
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from app.page import export
from app.page.conversation import ConversationTurn
from control.forgetting.cipher import KEY_BYTES, KeyFile, LedgerCipher
from foundation.errors import IndexStateError

KEY = "conversations.key"  # in the home
PLACE = ("conversation",)
LARGEST = (
    500_000  # characters; half of the smallest `body_limit`, and a tenth of what browsers keep
)
NOTHING = "none"  # gradio keeps what was there when it is to store an empty text

TURNS = TypeAdapter(list[ConversationTurn])

log = logging.getLogger(__name__)


class ConversationSeal:
    """Seals conversations, and opens what it has sealed, also after a restart."""

    def __init__(self, home: Path) -> None:
        """Read the key, or create it.

        Args:
            home: Where it is kept.
        """
        file = KeyFile(home / KEY)
        try:
            key = file.read() or file.create()
        except IndexStateError:
            log.warning("%s cannot be used; conversations end with the server", file.path)
            key = os.urandom(KEY_BYTES)
        self._cipher = LedgerCipher(key)

    def seal(self, turns: Sequence[ConversationTurn]) -> str:
        """Return the newest turns as a text for the browser; ``NOTHING`` without any."""
        for first in range(len(turns)):
            packed = zlib.compress(export.to_json(turns[first:]).encode("utf-8", "surrogatepass"))
            sealed = self._cipher.seal(base64.b64encode(packed).decode(), PLACE)
            text = base64.b64encode(sealed).decode()
            if len(text) <= LARGEST:
                return text
        return NOTHING

    def open(self, text: str) -> list[ConversationTurn]:
        """Return the turns of a text; none of one that this server has not sealed."""
        try:
            packed = self._cipher.open(base64.b64decode(text), PLACE)
            return TURNS.validate_json(zlib.decompress(base64.b64decode(packed or "")))
        except (ValueError, zlib.error, ValidationError):  # another version of the page wrote it
            return []
