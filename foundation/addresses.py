"""Addresses of OpenAI-compatible servers, checked before anything is loaded."""

from urllib.parse import urlsplit

from foundation.errors import ModelError

EXAMPLE = "http://127.0.0.1:8000/v1"


def check_address(option: str, address: str, variable: str) -> None:
    """Check that an address can be that of a server.

    Args:
        option: That gave the address, for messages.
        address: Of the server, up to ``/v1``.
        variable: Environment variable of the key, for messages.

    Raises:
        ModelError: It cannot.
    """
    if not _is_usable(address):
        raise ModelError(
            f"{option.split(maxsplit=1)[0]} names no server: give its URL up to /v1, as in "
            f"{EXAMPLE}, with #name where it has several models; a key goes into {variable}"
        )


def _is_usable(address: str) -> bool:
    """Whether an address is that of a server, and holds no password that messages would show."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0 and not (parts.username or parts.query)
    except ValueError:  # its port is no number
        return False
