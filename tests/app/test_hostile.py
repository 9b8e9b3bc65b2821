"""Every route and every event of a server, called with what no browser and no client would send.

The server is started as a user would start it, with keys. Nothing of this may fail with a status
of 500 or a traceback, give away a file, touch what belongs to others, or change what is stored
without the administration key.
"""

import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.testclient import TestClient

from app import settings as settings_module
from app.page import blocks as page
from app.page.guard import COOKIE
from app.page_tools import TOOLS
from app.server.service import Service
from tests.app.conftest import ADMINISTRATION, READING

pytestmark = pytest.mark.kill  # it starts a server

PATIENCE = 60.0
QUESTION = "Who is the mayor of Quellin?"
DEEP = "[" * 20_000
HUGE = "x" * 1_200_000  # more than a request may take
NAMES = ("../../ledger.key", "%2e%2e%2fledger.key", "n" * 3_000, "x%00y", "%ff%fe", "0")


@dataclass
class Server:
    """A server in a process of its own.

    Attributes:
        process: The process.
        url: Where it answers.
        home: Its state.
        temporary: Its directory for temporary files.
        log: What it has said.
        secrets: What no answer may hold.
        asked: How many requests were made, by what they were aimed at.
    """

    process: subprocess.Popen
    url: str
    home: Path
    temporary: Path
    log: Path
    secrets: tuple[str, ...] = ()
    asked: dict[str, int] = field(default_factory=dict)

    def client(self, key=None, cookie=True):
        """Somebody with a key; with the page's cookie unless told otherwise."""
        token = base64.b64encode(f"x:{key}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"} if key else {}
        opened = cookie and key and httpx.get(self.url, headers=headers, timeout=PATIENCE)
        cookies = {COOKIE: opened.cookies[COOKIE]} if opened else {}
        return httpx.Client(base_url=self.url, headers=headers, cookies=cookies, timeout=PATIENCE)

    def check(self, aim, answer):
        """Count an answer and see that it gives nothing away."""
        self.asked[aim] = self.asked.get(aim, 0) + 1
        assert answer.status_code < 500, (answer.request.method, str(answer.request.url)[:200])
        self.check_text(answer.text)
        return answer

    def check_text(self, text):
        for secret in self.secrets:
            assert secret not in text

    def stored(self):
        """All that is kept, as the administrator sees it."""
        with self.client(ADMINISTRATION, cookie=False) as administrator:
            documents = administrator.get("/v1/documents").json()
            facts = administrator.get("/v1/forget").json()
            events = administrator.get("/v1/forget/audit").json()["data"]
        # Without what the server notes by itself: its own sweep, and what it withheld from whoever
        # may ask.
        audit = [event for event in events if event["kind"] not in ("withheld", "swept")]
        return documents, facts, audit, (self.home / "ledger.key").read_text()

    def uploads(self):
        """Files that visitors have brought and that still lie there."""
        folders = self.temporary.glob("fulcrum-*")
        return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    """A server with keys over a small random model, which holds a document and a forgotten fact."""
    folder = tmp_path_factory.mktemp("hostile")
    model, temporary, log = folder / "model", folder / "tmp", folder / "log"
    temporary.mkdir()
    tiny.model.save_pretrained(model)
    tiny.tokenizer.save_pretrained(model)
    environment = os.environ | {
        "FULCRUM_HOME": str(folder / "home"),
        "FULCRUM_CACHE": str(folder / "cache"),
        "FULCRUM_READ_KEY": READING,
        "FULCRUM_ADMIN_KEY": ADMINISTRATION,
        "FULCRUM_WITHOUT": '["rewriter", "filter"]',
        "TMPDIR": str(temporary),
    }
    command = [sys.executable, "-m", "app.cli", "--model", str(model), "serve", "--port", "0"]
    with log.open("w") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        )
    address = process.stdout.readline().split("page at ")[1].split("/, ")[0]
    running = Server(process, address, folder / "home", temporary, log)
    with running.client(ADMINISTRATION, cookie=False) as administrator:
        while (health := administrator.get("/health")).status_code != 200:
            assert health.json()["status"] == "loading"
        files = {"file": ("quellin.txt", "The mayor of Quellin is Ada Fenwick.", "text/plain")}
        assert administrator.post("/v1/documents", files=files).status_code == 200
        fact = {"sentence": "The capital of Chile is Santiago"}
        assert administrator.post("/v1/forget", json=fact).status_code == 201
    key = (running.home / "ledger.key").read_text().strip()
    running.secrets = (key, READING, ADMINISTRATION, "root:x:0:0")
    yield running
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    process.stdout.close()
    print(running.asked)  # noqa: T201 - for whoever runs this with -s
    assert "Traceback" not in log.read_text()
    running.check_text(log.read_text())


def hostile(server):
    """Values that are no value of an input, whatever it is."""
    targets = (server.home / "ledger.key", "/proc/self/environ", "/etc/passwd")
    for target in map(str, targets):
        file = {"path": target, "meta": {"_type": "gradio.FileData"}, "orig_name": "x"}
        yield from (file, [file], {"value": file}, [[file]], {**file, "url": f"file://{target}"})
    yield from (0, -1, 10**400, 1e308, True, [], {}, [[]], {"__type__": "update"}, "\ud800")


TEXTS = ("a\0b", "", "/etc/passwd")  # strange, but texts: these are answered


def valid(component):
    """A value that the page itself could send."""
    if isinstance(component, gr.Radio):
        return component.choices[0][1]
    if isinstance(component, gr.Slider):
        return component.minimum
    if isinstance(component, gr.Textbox):
        return QUESTION
    return "0.5" if isinstance(component, gr.HTML) else None


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """The page as the server builds it, to read off its events and routes."""
    settings = settings_module.load(home=tmp_path_factory.mktemp("page"))
    outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    service = Service(settings)
    with page.mount_page(outer, service, TOOLS) as guarded:
        yield guarded._blocks, outer
    service.end()


def said(server, client, session):
    """All that the server sends to a session until what it was asked is done."""
    lines = []
    params = {"session_hash": session}
    with client.stream("GET", "/gradio_api/queue/data", params=params) as stream:
        for line in stream.iter_lines():
            lines.append(line)
            if "close_stream" in line or "unexpected_error" in line:
                break
    text = "\n".join(lines)
    server.check_text(text)
    return text


def bodies(server, event, number):
    """Bodies of an event, each wrong somewhere; such as JSON allows, and some that it does not."""
    right = [valid(component) for component in event.inputs]
    body = {"data": right, "fn_index": number, "session_hash": "mine"}
    for place, component in enumerate(event.inputs):
        # What a browser sends as the state is passed over: one value shows it.
        values = itertools.islice(hostile(server), 1 if isinstance(component, gr.State) else None)
        for value in (*values, *(() if place else TEXTS)):
            yield {**body, "data": [*right[:place], value, *right[place + 1 :]]}
    yield from ({**body, "data": data} for data in (None, "x", {}, [*right, "more"], [right]))
    yield from ({**body, "session_hash": name} for name in (None, "", 7, [], {}, "a b", "x" * 99))
    yield from ({**body, "fn_index": name} for name in (None, -1, "0", 10**9, True, [number]))
    nested = {"id": {"path": str(server.home / "ledger.key"), "meta": {"_type": "gradio.FileData"}}}
    wrong = (nested, "x", [1], {"target": 1}, {"id": [1]})
    yield from ({**body, "event_data": happened} for happened in wrong)
    yield {**body, "event_data": {"action": "remove", "id": "no such thing\0"}}
    yield {**body, "trigger_id": "x"}
    yield {**body, "oauth_token": "x", "batched": True, "simple_format": True, "event_id": "x"}


def try_events(server, blocks, key):
    """Every event by every body; what is let through is followed to its end."""
    names = itertools.count()
    with server.client(key) as client:
        for number, event in blocks.fns.items():
            for each in bodies(server, event, number):
                session = f"s{next(names)}"
                own = {"session_hash": session} if each["session_hash"] == "mine" else {}
                body = {**each, **own}
                for route in ("queue/join", "run/predict"):
                    content = json.dumps(body)  # escapes half characters, as JSON may
                    answer = client.post(
                        f"/gradio_api/{route}",
                        content=content,
                        headers={"Content-Type": "application/json"},
                    )
                    server.check(f"event {number}", answer)
                    if answer.status_code == 200 and route == "queue/join":
                        said(server, client, session)
            for content in (b"", b"{", b"null", DEEP.encode(), json.dumps({"data": HUGE}).encode()):
                answer = client.post("/gradio_api/queue/join", content=content)
                assert server.check(f"event {number}", answer).status_code in (400, 401, 413)


def routes(server, outer):
    """All methods and paths of the page's and the API's routes."""
    [mount_page] = [route.app for route in outer.routes if isinstance(route, Mount)]
    found = set(mount_page.openapi()["paths"])
    assert "/gradio_api/queue/join" in found
    with server.client(ADMINISTRATION, cookie=False) as client:
        described = client.get("/v1/openapi.json").json()["paths"]
    for path in sorted(found | set(described) | {"/nowhere", "/docs", "/dev/reload"}):
        for name in NAMES if "{" in path else NAMES[:1]:
            parts = path.split("{")
            yield parts[0] + "".join(name + part.partition("}")[2] for part in parts[1:])
    yield from (f"/gradio_api/file={server.home}/ledger.key", "/gradio_api/file=/etc/passwd")
    yield from (
        f"/{what}/..%2f..%2f..%2f..%2fetc/passwd" for what in ("static", "assets", "svelte")
    )
    yield f"/gradio_api/proxy={server.url}/v1/forget"
    yield f"/?deep_link={quote('../../..')}&page=nowhere"


ENDLESS = ("/gradio_api/heartbeat/",)  # the server keeps them open as long as the page is


def try_routes(server, outer, key):
    """Every route by every method, with bodies that are none."""
    contents = (b"", b"null", b'{"model": ["x"], "messages": "\\ud800"}', b"\xff\0", DEEP.encode())
    kinds = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "\xe4")
    with server.client(key) as client:
        for path in routes(server, outer):
            if path.startswith(ENDLESS) and key:
                continue
            for method in ("GET", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE"):
                server.check(path, client.request(method, path))
            for content, kind in zip(contents, itertools.cycle(kinds)):
                headers = {"Content-Type": kind.encode("latin-1")}
                server.check(path, client.post(path, content=content, headers=headers))
                answer = client.request("DELETE", path, content=content, headers=headers)
                server.check(path, answer)


HEADERS = (
    {"Origin": "http://["},
    {"Origin": "null"},
    {"Host": "["},
    {"Host": "localhost:99999999"},
    {"Authorization": b"Basic \xff\xfe"},
    {"Authorization": "Basic ===="},
    {"Authorization": b"Bearer \xe4\xf6"},
    {"Cookie": "fulcrum_visitor=\x01; =; ;;"},
    {"X-Forwarded-Host": "["},
    {"X-Forwarded-Proto": "https, ["},
    {"X-Forwarded-For": "[, 999.999.999.999"},
    {"X-Gradio-Server": "http://["},
    {"Content-Type": "text/\x0b"},
    {"Range": "bytes=9-1"},
)


@pytest.mark.parametrize("key", [None, READING, ADMINISTRATION], ids=["none", "reader", "admin"])
def test_hostile_headers_are_answered_without_a_fault(server, key):
    with server.client(key) as client:
        for header, path in itertools.product(HEADERS, ("/", "/config", "/health", "/v1/models")):
            for method in ("GET", "POST"):
                with contextlib.suppress(httpx.LocalProtocolError):  # not even the client sends it
                    server.check("headers", client.request(method, path, headers=header))


@pytest.mark.parametrize("key", [None, READING], ids=["none", "reader"])
def test_nothing_changes_without_the_administration_key(server, blocks, key):
    page_blocks, outer = blocks
    before, uploads = server.stored(), server.uploads()
    with server.client(ADMINISTRATION) as administrator:
        [pending] = upload(administrator, "pending.jsonl", b"Not read yet.").json()
        with victim(server) as waiting:
            try_events(server, page_blocks, key)
            if key:
                assert_no_use_of(server, key, pending)
            waiting.check()
        try_routes(server, outer, key)
        assert server.uploads() == [*uploads, Path(pending)]
        assert server.stored() == before
    Path(pending).unlink()


def test_an_administrator_gets_no_file_and_no_fault_either(server, blocks):
    page_blocks, outer = blocks
    with victim(server) as waiting:
        try_events(server, page_blocks, ADMINISTRATION)
        waiting.check()
    try_routes(server, outer, ADMINISTRATION)


def upload(client, name, content):
    return client.post("/gradio_api/upload", files={"files": (name, content)})


def assert_no_use_of(server, key, pending):
    """A reader can neither upload nor name what an administrator has uploaded."""
    file = {"path": pending, "meta": {"_type": "gradio.FileData"}, "orig_name": "pending.jsonl"}
    with server.client(key) as reader:
        assert server.check("upload", upload(reader, "x.exe", b"MZ")).status_code == 403
        for number, data in ((15, [[file], 0.5, None]), (22, [file, 20])):
            body = {"data": data, "fn_index": number, "session_hash": "theirs"}
            answer = reader.post("/gradio_api/queue/join", json=body)
            assert server.check("upload", answer).status_code == 403
    assert Path(pending).read_bytes() == b"Not read yet."


UPLOADS = (
    {"data": {"files": "no file"}},
    {"files": {"other": ("x.txt", b"x")}},
    {"content": b"--x\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
)
NAMES_ODD = ("..", "../../x.txt", "/etc/x.txt", "n" * 400, "a\nb.txt", ".", "\u202etxt.exe")


def test_uploads_that_are_none_are_refused_and_odd_names_lead_nowhere(server):
    before = server.uploads()
    with server.client(ADMINISTRATION) as administrator:
        for request in UPLOADS:
            answer = administrator.post("/gradio_api/upload", **request)
            assert server.check("upload", answer).status_code in (200, 400, 422)
        for name in NAMES_ODD:
            answer = server.check("upload", upload(administrator, name, b"text"))
            kept = answer.json() if answer.status_code == 200 else []
            assert all(server.temporary in Path(path).resolve().parents for path in kept)
        [one] = upload(administrator, "one.jsonl", b"{}").json()
        file = {"path": one, "meta": {"_type": "gradio.FileData"}}
        for number, data in ((15, [file, 0.5, None]), (22, [[file], 4])):  # several, and one
            body = {"data": data, "fn_index": number, "session_hash": "shape"}
            answer = administrator.post("/gradio_api/queue/join", json=body)
            assert server.check("upload", answer).status_code == 400
    for path in set(server.uploads()) - set(before):
        path.unlink()


@contextlib.contextmanager
def victim(server):
    """Another reader, who has asked a question whose answer is then to be there, whole."""

    class Waiting:
        def check(self):
            text = said(server, client, "victim")
            assert "process_completed" in text
            assert "stopped" not in text
            assert QUESTION in text

    with server.client(READING) as client:
        data = [QUESTION, None, "0.5", False, None, "memory", ""]
        body = {"data": data, "fn_index": 0, "session_hash": "victim"}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        with server.client(READING) as other:
            for name in ("victim", "vic", "", "v"):
                for number in (11, 12, 27):  # stop, a new conversation, leaving
                    body = {"data": [], "fn_index": number, "session_hash": name}
                    server.check("sessions", other.post("/gradio_api/run/predict", json=body))
                body = {"session_hash": name, "fn_index": 0, "event_id": "x"}
                server.check("sessions", other.post("/gradio_api/cancel", json=body))
                assert QUESTION not in said(server, other, name or "x")
        yield Waiting()


def test_a_session_belongs_to_the_visitor_who_opened_it(server):
    with server.client(READING, cookie=False) as nobody:
        body = {"data": [], "fn_index": 11, "session_hash": "mine"}
        answer = nobody.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 403
        assert nobody.get("/gradio_api/heartbeat/mine").status_code == 403


def test_gradio_itself_refuses_files_that_were_not_uploaded(blocks, tmp_path, capfd):
    """The second lock: what the page's guard should one day let through."""
    _, outer = blocks
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}, "orig_name": "x"}
    body = {"data": [file], "fn_index": 10, "session_hash": "mine"}
    answer = TestClient(outer).post("/gradio_api/run/predict", json=body)
    assert answer.status_code == 500
    assert list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("secret.txt")) == []
    assert "Traceback" not in capfd.readouterr().err


def test_keys_are_gone_from_the_environment(server):
    environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()
    assert b"FULCRUM_HOME" in environment
    for key in (READING, ADMINISTRATION):
        assert key.encode() not in environment


def test_all_state_is_its_owners_alone(server):
    kept = [server.home, *server.home.rglob("*"), *server.temporary.glob("fulcrum-*")]
    assert len(kept) > 5
    assert [str(path) for path in kept if path.stat().st_mode & 0o077] == []
