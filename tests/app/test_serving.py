"""`fulcrum serve` as a command: what stops it from starting, what survives a kill."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from app import cli, factory
from app.cli import serve as serving
from app.server.sockets import bind_socket
from foundation.errors import ModelError, UnavailableError

PAUSE = 0.2  # seconds between looks at a server that loads; without, they would slow it down
KILLS, WRITTEN = 1, 4
CHAT = "/v1/chat/completions"


def question(text, **more):
    messages = [{"role": "user", "content": text}]
    return {"model": "fulcrum", "max_tokens": 24, "messages": messages, **more}


CHILE = question("What is the capital of Chile?")


@pytest.fixture
def serve(home, cache):
    """Start the command in a process of its own, at a free port; its address is what it prints."""
    started = []
    environment = os.environ | {"FULCRUM_HOME": str(home), "FULCRUM_CACHE": str(cache)}

    def start(*options):
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        line = process.stdout.readline()
        address = line.split("page at ")[1].split("/, ")[0]
        client = httpx.Client(base_url=address, timeout=None)  # noqa: S113 - a busy machine is slow
        while (health := client.get("/health")).status_code != 200:
            assert health.json()["status"] == "loading", health.text
            time.sleep(PAUSE)
        assert process.stdout.readline() == "Fulcrum: ready\n"
        return process, client

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def refused(capsys, *arguments):
    assert cli.main(["serve", *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_port_that_is_taken_is_told_in_one_line(capsys):
    taken = bind_socket("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    line = refused(capsys, "--port", port)
    assert port in line
    assert "--port 0" in line
    taken.close()


def test_other_machines_are_let_in_with_keys_alone(capsys):
    assert "FULCRUM_READ_KEY" in refused(capsys, "--host", "0.0.0.0", "--port", "0")  # noqa: S104


def test_an_address_of_nobody_is_told_in_one_line(capsys):
    assert "no such address" in refused(capsys, "--host", "nowhere.invalid")


def test_whether_it_is_ready_is_told_once(capsys, service, monkeypatch):
    running = SimpleNamespace(should_exit=False)
    serving.load(service(loaded=False), running)
    out, err = capsys.readouterr()
    assert out == "Fulcrum: ready\n"
    assert err.startswith("Fulcrum: the dial has not been calibrated for tiny")
    assert err.count("\n") == 1

    def broken(*_, **__):
        raise ModelError("the model [x]\nis broken")

    monkeypatch.setattr(factory, "assistant", broken)
    serving.load(service(loaded=False), running)
    assert capsys.readouterr() == ("", "Fulcrum: not ready: the model [x] is broken\n")
    running.should_exit = True
    serving.load(service(loaded=False), running)
    assert capsys.readouterr() == ("", "")


def test_a_model_server_that_is_away_is_tried_again(capsys, service, monkeypatch):
    monkeypatch.setattr(serving, "RETRY_SECONDS", 0)
    away = [UnavailableError("the server is loading"), UnavailableError("the server is loading")]
    opens = factory.assistant

    def assistant(*given, **named):
        if away:
            raise away.pop()
        return opens(*given, **named)

    monkeypatch.setattr(factory, "assistant", assistant)
    started = service(loaded=False)
    serving.load(started, SimpleNamespace(should_exit=False))
    out, err = capsys.readouterr()
    assert out == "Fulcrum: ready\n"
    assert err.startswith(
        "Fulcrum: not ready, tried again every 0 seconds: the server is loading\n"
    )
    assert err.count("the server is loading") == 1
    assert started.state.name == "ready"


def write(client, kill, told, enough):
    """Add documents until the server is gone; ``told`` are those that it said it has."""
    with contextlib.ExitStack() as at_end:
        at_end.callback(enough.set)  # whoever waits for it goes on, whatever happened here
        at_end.enter_context(contextlib.suppress(httpx.HTTPError))
        for number in range(10_000):
            name = f"{kill}-{number}.txt"
            files = {"file": (name, f"The tower of town {name} is tall.", "text/plain")}
            assert client.post("/v1/documents", files=files).json()["documents"] == 1
            told.add(name)
            if number >= WRITTEN:
                enough.set()


def ask(client):
    """Ask until the server is gone."""
    with contextlib.suppress(httpx.HTTPError):
        while client.post(CHAT, json=CHILE).status_code == 200:
            pass


@pytest.mark.kill
@pytest.mark.model
def test_killed_while_it_answers_and_writes_it_comes_back_whole(serve):
    told = set()
    process, client = serve()
    fact = {"sentence": "The capital of Chile is Santiago"}
    assert client.post("/v1/forget", json=fact).status_code == 201
    for kill in range(KILLS):
        enough = threading.Event()
        busy = [
            threading.Thread(target=write, args=(client, kill, told, enough)),
            threading.Thread(target=ask, args=(client,)),
        ]
        for thread in busy:
            thread.start()
        enough.wait()
        assert len(told) > WRITTEN
        process.kill()
        for thread in busy:
            thread.join()
        process, client = serve()
        listed = client.get("/v1/documents", params={"limit": 1_000}).json()["data"]
        assert told <= {each["source"] for each in listed}
        assert client.get("/v1/forget/verify").json()["whole"]
        answer = client.post(CHAT, json=CHILE).json()
        assert answer["choices"][0]["finish_reason"] == "content_filter"
        assert "Santiago" not in json.dumps(answer)


@pytest.mark.kill
@pytest.mark.model
def test_told_to_stop_it_gives_the_answer_under_way(serve):
    process, client = serve()
    asked = question("What is the capital of Peru?", stream=True, documents=[])
    with client.stream("POST", CHAT, json=asked) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        *_, last = (line for line in lines if line)
    assert last == "data: [DONE]"
    assert process.wait() == -signal.SIGTERM  # passed on once all is done


@pytest.mark.kill
@pytest.mark.model
@pytest.mark.ray
def test_replicas_of_its_own_answer_and_end_with_it(serve):
    process, client = serve("--replicas", "2")
    assert client.post(CHAT, json=CHILE).json()["choices"][0]["message"]["content"]
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert "stopped" in process.stdout.read()
