"""The home directory, which holds all state and is private to its owner."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from data import DIRECTORY as DATA
from foundation.errors import InputError
from foundation.files import private_directory, restrict

if TYPE_CHECKING:
    from app.settings import Settings
    from control.forgetting.ledger import Ledger

log = logging.getLogger(__name__)

LANGUAGE_MODEL = "CAUSAL_LM"  # peft's name for what an adapter is for
STATE = (
    *("ledger*", ".ledger*", "conversations.key", ".conversations.key*"),
    *("forgotten.vectors*", "reservoir.db*", "index", "index/*"),
)


def prepare(home: Path) -> None:
    """Create the home, or make what is in it private.

    A directory that holds other files as well keeps its own permissions, since the user may share
    them on purpose; Fulcrum's own files in it are made private all the same.

    Raises:
        InputError: It cannot be created or written.
    """
    try:
        private_directory(home)
    except OSError as error:
        raise InputError(
            f"--home {home} cannot be created ({error.strerror}); choose another directory"
        ) from error
    if not os.access(home, os.W_OK):
        raise InputError(
            f"--home {home} cannot be written; it records what is withheld from answers, so copy "
            "it to a directory that can be written, and give that"
        )
    state = {path for pattern in STATE for path in home.glob(pattern)}
    private = [restrict(path) for path in state]
    alone = all(path in state or path.name.startswith(".") for path in home.iterdir())
    if not (restrict(home) if alone else all(private)):
        log.warning("other users may read %s; run as its owner: chmod -R go= %s", home, home)


def has_ledger(settings: "Settings") -> bool:
    """Whether there may be forgotten facts."""
    from control.forgetting.ledger import DATABASE

    return settings.ledger is not None or (settings.home / DATABASE).exists()


def adapters(settings: "Settings") -> dict[str, Path]:
    """The adapters of language models that are used here or shipped, by the name to show."""
    shipped = {
        f"data/adapters/{path.parent.name}": path.parent
        for path in sorted((DATA / "adapters").glob("*/adapter_config.json"))
        if json.loads(path.read_text(encoding="utf-8")).get("task_type") == LANGUAGE_MODEL
    }
    places = {path.resolve() for path in shipped.values()}
    used = (settings.adapter, settings.rewriter)
    own = {str(path): path for path in used if path is not None and path.resolve() not in places}
    return own | shipped


def ledger(settings: "Settings", trusted: bool = False) -> "Ledger":
    """Open the ledger of forgotten facts; imports nothing of language models.

    Args:
        settings: Say where it lies.
        trusted: Open it without verification, to tell what is wrong with it.
    """
    from control.forgetting.checkpoint import check_place
    from control.forgetting.ledger import open_ledger

    prepare(settings.home)
    key, elsewhere = settings.ledger_key, settings.ledger_checkpoint
    return open_ledger(
        settings.home,
        settings.ledger,
        None if key is None else key.get_secret_value(),
        None if elsewhere is None else check_place(elsewhere, "FULCRUM_LEDGER_CHECKPOINT"),
        trusted,
    )
