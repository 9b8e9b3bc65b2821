"""What a server on a socket does with requests that mean it no good."""

import json
import random
import socket
import threading
import time

import httpx
import pytest

from app.server import http as server_module
from app.server.service import AT_ONCE
from tests.app.conftest import ADMINISTRATION, READING, count_forwards

PATIENCE = 60.0
PAUSE = 0.01  # seconds between two looks
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
SECRET = "Santiago"
FORWARDS = 20  # after which answers are under way


def talk(port, sent):
    """Send bytes and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65_536):
            received += part
    return received


def test_a_server_that_others_reach_answers_nothing_without_a_key(running):
    server = running(read_key=READING, admin_key=ADMINISTRATION)
    for path in ("/v1/models", "/v1/documents", "/v1/forget", "/metrics", "/v1/openapi.json", "/"):
        assert httpx.get(server.url + path, timeout=PATIENCE).status_code == 401
    health = httpx.get(server.url + "/health", timeout=PATIENCE)
    assert health.json() == {"status": "ready"}
    reading = {"Authorization": f"Bearer {READING}"}
    for method, path in (
        ("GET", "/v1/forget"),
        ("GET", "/v1/forget/audit"),
        ("POST", "/v1/forget"),
        ("DELETE", "/v1/forget/x"),
        ("DELETE", "/v1/documents/x"),
        ("POST", "/v1/documents"),
    ):
        answer = httpx.request(method, server.url + path, headers=reading, timeout=PATIENCE)
        assert answer.status_code == 403, (method, path)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(running):
    server = running()
    answer = httpx.post(server.url + CHAT, content=b"x" * 2_000_000, timeout=PATIENCE)
    assert answer.status_code == 413
    assert "1 MB" in answer.json()["error"]["message"]

    def endless():
        for _ in range(40):
            yield b"x" * 50_000

    answer = httpx.post(server.url + CHAT, content=endless(), headers=JSON, timeout=PATIENCE)
    assert answer.status_code == 413


def test_a_head_that_does_not_come_to_its_end_is_cut_off(running):
    server = running(header_seconds=0.3)
    assert talk(server.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""
    assert httpx.get(server.url + "/health", timeout=PATIENCE).status_code == 200


def test_names_of_uploads_lead_nowhere(running, tmp_path):
    server = running()
    kept = {}
    for name in ("../../outside.txt", "/etc/outside.txt", "..\\..\\outside.txt", "a\0b.txt"):
        files = {"file": (name, f"Text of {len(kept)}: trolls are tall.".encode(), "text/plain")}
        answer = httpx.post(server.url + "/v1/documents", files=files, timeout=PATIENCE)
        assert answer.status_code in (200, 400), answer.text
        kept[name] = answer.status_code
    assert 200 in kept.values()
    assert not list(tmp_path.rglob("outside.txt"))
    listed = httpx.get(server.url + "/v1/documents", timeout=PATIENCE).json()["data"]
    assert {each["source"] for each in listed} == {"outside.txt", "a_00b.txt"}


def test_a_client_that_leaves_frees_its_turn(running):
    server = running()
    forwards = count_forwards(server.service)
    body = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]}
    body |= {"documents": [], "max_tokens": 1000, "stream": True}
    sent = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            connection.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
            connection.recv(1)
    whole = httpx.post(server.url + CHAT, json={**body, "max_tokens": 2, "stream": False})
    assert whole.status_code == 200
    assert forwards[0] < 1000  # one of the answers would have taken as many


def test_a_thousand_malformed_requests_are_refused_without_a_fault(running, caplog):
    server = running()
    asked = httpx.post(
        server.url + "/v1/forget",
        json={"sentence": f"The capital of Chile is {SECRET}"},
        timeout=PATIENCE,
    )
    assert asked.status_code == 201
    draw, statuses = random.Random(0), set()  # noqa: S311 - nothing secret
    paths = ("/v1/embeddings", CHAT, "/v1/completions", "/v1/forget", "/v1/documents", "/v1/x")
    kinds = ("application/json", "text/plain", "x/y", "multipart/form-data")
    good = json.dumps({"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]})
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        for number in range(900):
            damaged = bytearray(good.encode())
            for _ in range(draw.randint(1, 12)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            # Cut, so that none of them is a question after all.
            body = bytes(damaged[: draw.randrange(len(damaged))])
            answer = client.request(
                draw.choice(("POST", "PUT", "DELETE", "PATCH")),
                draw.choice(paths),
                content=body,
                headers={"content-type": draw.choice(kinds)},
            )
            statuses.add(answer.status_code)
            assert SECRET not in answer.text, number
    for _ in range(100):
        line = bytes(draw.randrange(256) for _ in range(draw.randint(1, 200)))
        received = talk(server.port, line + b"\r\n\r\n")
        assert received[:12] in (b"", b"HTTP/1.1 400"), received
    assert all(400 <= status < 500 for status in statuses), statuses
    assert httpx.get(server.url + "/health", timeout=PATIENCE).status_code == 200
    assert SECRET not in caplog.text


@pytest.mark.parametrize("clients", [8])
def test_clients_at_once_are_all_answered(running, clients):
    server = running()
    body = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]}
    body |= {"documents": [], "max_tokens": 6}
    found = []

    def ask():
        found.append(httpx.post(server.url + CHAT, json=body, timeout=PATIENCE).json())

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = {one["choices"][0]["message"]["content"] for one in found}
    assert len(found) == clients
    assert len(said) == 1


def wait_until(happened):
    """Wait for something, and fail where it does not come."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until
        time.sleep(PAUSE)


def test_a_server_told_to_stop_answers_everybody_in_json(running, monkeypatch):
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 0.0)
    server = running()
    begun, stopping, found = threading.Event(), threading.Event(), []

    def hold(number):
        if number > FORWARDS:
            begun.set()
            stopping.wait(PATIENCE)

    count_forwards(server.service, hold)
    body = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]}
    body |= {"documents": [], "max_tokens": 400}

    def ask(stream):
        found.append(
            httpx.post(server.url + CHAT, json=body | {"stream": stream}, timeout=PATIENCE)
        )

    asking = [
        threading.Thread(target=ask, args=(number % 2 == 1,)) for number in range(AT_ONCE + 4)
    ]
    for thread in asking:
        thread.start()
    assert begun.wait(PATIENCE)
    wait_until(lambda: server.service.waiting >= 4)
    closed = server.service.abandon
    monkeypatch.setattr(server.service, "abandon", lambda: (closed(), stopping.set()))
    server.stop()
    for thread in asking:
        thread.join()
    for answer in found:
        if answer.headers["content-type"].startswith("text/event-stream"):
            *_, told, done = [line for line in answer.text.splitlines() if line]
            assert done == "data: [DONE]"
            error = json.loads(told.removeprefix("data: "))["error"]
        else:
            assert answer.status_code == 503
            error = answer.json()["error"]
        assert "shutting down" in error["message"]
    assert len(found) == len(asking)


def test_one_client_does_not_keep_another_waiting(running):
    """One asks five hundred things at once; another one's question waits for a place, no more."""
    server = running()
    body = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]}
    body |= {"documents": [], "max_tokens": 40}
    statuses = []

    def flood():
        statuses.append(httpx.post(server.url + CHAT, json=body, timeout=PATIENCE).status_code)

    flooding = [threading.Thread(target=flood) for _ in range(500)]
    for thread in flooding:
        thread.start()
    wait_until(lambda: server.service.waiting >= AT_ONCE)
    other = httpx.HTTPTransport(local_address="127.0.0.2")  # by its address another client
    with httpx.Client(transport=other, timeout=PATIENCE) as client:
        answers = []
        for _ in range(3):
            before = len(statuses)
            answers.append(client.post(server.url + CHAT, json=body).status_code)
            answered = sum(status == 200 for status in statuses[before:])
            assert answered <= 3 * AT_ONCE  # those under way, and those that began with it
    for thread in flooding:
        thread.join()
    assert answers == [200] * 3
    assert set(statuses) == {200, 429}
