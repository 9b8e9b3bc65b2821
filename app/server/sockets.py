"""The socket of a server."""

import errno
import socket

from foundation.errors import InputError

BACKLOG = 128


def bind_socket(host: str, port: int) -> socket.socket:
    """Create a socket that listens at host and port.

    Raises:
        InputError: The port is taken, or there is no such address here.
    """
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: no such address ({error.strerror})") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} of {host} is taken by another program; "
                "give another one by --port, or --port 0 for a free one"
            ) from error
        raise InputError(f"--host {host} --port {port}: {error.strerror}; give others") from error
    return listening


def url(host: str, listening: socket.socket) -> str:
    """Return the address of a server, for a browser on its own machine."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and '[' not in name else name}:{port}"
