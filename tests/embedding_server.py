"""A small server with `/v1/embeddings`, whose vectors count words, and which fails as told."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.retrieval.conftest import BagOfWords


class EmbeddingServer(ThreadingHTTPServer):
    """The server, what it was asked, and how it answers.

    Attributes:
        models: The models that it has.
        key: What it wants to be shown, if anything.
        dimension: Of its vectors.
        failures: Statuses of the next answers, before it answers as it should.
        retry_after: What it says with them.
        body: What it answers instead, if anything.
        batches: The texts of each request.
        requests: How many there were, of any kind.
        headers: Of the last one.
    """

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.models, self.key, self.dimension = ["words"], None, 8192
        self.failures, self.retry_after, self.body = [], "0", None
        self.batches, self.requests, self.headers = [], 0, {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def do_GET(self):
        if self._refused():
            return
        if self.path == "/v1/models":
            self._answer(200, {"data": [{"id": name} for name in self.server.models]})
        else:
            self._answer(404, {"error": {"message": "no such path"}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self._refused():
            return
        if self.path != "/v1/embeddings" or asked["model"] not in self.server.models:
            self._answer(404, {"error": {"message": "not found"}})
        elif self.server.body is not None:
            self._answer(200, self.server.body)
        else:
            self.server.batches.append(asked["input"])
            fake = BagOfWords(dimension=self.server.dimension)
            data = [
                {"index": place, "embedding": fake._vector(text)}
                for place, text in enumerate(asked["input"])
            ]
            self._answer(200, {"data": data[::-1]})  # what counts is the index

    def _refused(self):
        server = self.server
        server.requests += 1
        server.headers = dict(self.headers)
        if server.failures:
            self._answer(server.failures.pop(0), {"error": {"message": "out\nof order"}})
        elif server.key and self.headers["authorization"] != f"Bearer {server.key}":
            self._answer(401, {"error": {"message": f"not {self.headers['authorization']}"}})
        else:
            return False
        return True

    def _answer(self, status, body):
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status == 429:
            self.send_header("retry-after", self.server.retry_after)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A server that runs until the block is left."""
    server = EmbeddingServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
