"""A server on a real socket, in a thread of its own."""

import threading

from app.page_tools import TOOLS
from app.server.http import HEADER_SECONDS, server
from app.server.site import Site
from app.server.sockets import bind_socket, url


class Running:
    """Page and API over a service, until it is stopped.

    Attributes:
        service: The assistant behind them.
        url: Where they are.
        port: Of ``url``.
    """

    def __init__(self, service, page=True, header_seconds=HEADER_SECONDS):
        self.service = service
        self._socket = bind_socket("127.0.0.1", 0)
        self.url = url("127.0.0.1", self._socket)
        self.port = self._socket.getsockname()[1]
        self._server = server(Site(service, page, TOOLS), header_seconds)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()

    def stop(self):
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
