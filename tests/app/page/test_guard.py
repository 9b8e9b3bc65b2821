import asyncio
from types import SimpleNamespace

import pytest

from app.page.guard import COOKIE, PageGuard

VISITOR = "v" * 43


class Events:
    """Stands in for gradio: answers a session until it is done, or waits until the visitor goes."""

    def __init__(self, sends):
        self.sends, self.session = sends, None

    async def __call__(self, scope, receive, send):
        self.session = scope["query_string"].decode().removeprefix("session_hash=")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in self.sends:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"


@pytest.mark.parametrize(
    ("sends", "ends"),
    [([b'data: {"msg":"process_generating"}'], True), ([b'data: {"msg":"close_stream"}'], False)],
    ids=["before the answer", "after it"],
)
def test_a_visitor_who_goes_away_before_the_answer_ends_it(tmp_path, sends, ends):
    events, left = Events(sends), []
    guard = PageGuard(events, SimpleNamespace(fns={}), tmp_path, 1_000, left.append)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/gradio_api/queue/data",
        "query_string": b"session_hash=mine",
        "headers": [(b"cookie", f"{COOKIE}={VISITOR}".encode())],
    }

    async def receive():
        return {"type": "http.disconnect"}

    async def send(_):
        pass

    asyncio.run(guard(scope, receive, send))
    assert events.session != "mine"  # the name that others cannot know
    assert left == ([events.session] if ends else [])
