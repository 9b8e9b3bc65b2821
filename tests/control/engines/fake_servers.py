"""Model servers for the tests: one scripted model behind each kind of API."""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = re.compile(r"<\|\w+\|>| ?\w+|\s|[^\w\s]")
LIKELY, UNLIKELY = -0.1, -6.0  # log-probabilities of the token that the script says, and of others
WINDOW = 2048
ENDLESS = 100_000  # events


@dataclass
class FakeModel:
    """A model that says what its script tells.

    Attributes:
        script: Texts of which the first that a prompt holds decides, and the answers.
        other: What it says where the next token is banned.
    """

    script: dict[str, str]
    other: str = " something"
    vocabulary: list[str] = field(default_factory=lambda: ["<|end|>"])

    def ids(self, text: str) -> list[int]:
        found = []
        for piece in PIECE.findall(text):
            if piece not in self.vocabulary:
                self.vocabulary.append(piece)
            found.append(self.vocabulary.index(piece))
        return found

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[each] for each in ids)

    def next(self, prompt: str, banned: Sequence[int] = ()) -> int:
        """The next token: 0 is the end."""
        answer, said = self._answer(prompt)
        ids, before = self.ids(answer), self.ids(said)
        token = ids[len(before)] if len(before) < len(ids) else 0
        if token in banned:
            [token] = self.ids(self.other)
        return token

    def log_p(self, prompt: str, token: int) -> float:
        return LIKELY if self.next(prompt) == token else UNLIKELY

    def _answer(self, prompt: str) -> tuple[str, str]:
        """The answer to a prompt, and what of it has been said."""
        asked, _, said = prompt.rpartition("<|assistant|>")
        asked = asked or prompt
        answer = next((a for text, a in self.script.items() if text in asked), "I do not know.")
        return answer, said if "<|assistant|>" in prompt else ""


def render(messages: Sequence[dict[str, str]]) -> str:
    prompt, last = "", None
    for last in messages:
        prompt += f"<|{last['role']}|>{last['content']}"
    return prompt if last and last["role"] == "assistant" else f"{prompt}<|assistant|>"


@dataclass
class FakeServer:
    """Its address, what it was asked, and what shall go wrong.

    Attributes:
        url: Of the API.
        model: The model.
        kind: ``llama``, ``completions``, ``chat`` or ``bare`` (a chat without log-probabilities).
        faults: For each of the next requests that generate or score: a status, or ``"hang"``,
            ``"malformed"``, ``"cut"``, ``"dropped"``, ``"filtered"``, ``"short"``, ``"quiet"``,
            ``"endless"``, ``"other model"``; ``None`` for none.
        requests: Path and body of each request.
        together: Tokens that ``completions`` tells in one event.
        adds_start: Whether it begins every text with one more token, asked or not.
        tells_ids: Whether it tells the ids of what it generates.
        answers_text: Whether it answers ``/detokenize`` as SGLang does, and not as vLLM.
        answers_as: The name of the model in its answers.
        content: What makes the content of a chat's event of its text.
        loading: So many of the next requests, but that for its models, are answered 503.
    """

    model: FakeModel
    kind: str
    key: str | None = None
    url: str = ""
    faults: deque[int | str | None] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    together: int = 1
    adds_start: bool = False
    tells_ids: bool = True
    answers_text: bool = False
    answers_as: str = "fake"
    content: Callable[[str], Any] = str
    loading: int = 0


@contextmanager
def serving(
    model: FakeModel, kind: str, key: str | None = None, **behaviour: Any
) -> Iterator[FakeServer]:
    """Run a server until the block ends."""
    fake = FakeServer(model, kind, key, **behaviour)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.fake = fake
    http.daemon_threads = True
    fake.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers as the kind of server that its `FakeServer` is."""

    protocol_version = "HTTP/1.1"

    @property
    def fake(self) -> FakeServer:
        return self.server.fake

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self._allowed() or self._loading():
            return
        if self.path == "/v1/models":
            meta = {"n_params": 1, "n_vocab": 9}
            self._json({"data": [{"id": "fake", "meta": meta, "max_model_len": WINDOW}]})
        elif self.path == "/props" and self.fake.kind == "llama":
            settings = {"n_ctx": WINDOW}
            self._json({"default_generation_settings": settings, "chat_template": "x"})
        else:
            self._json({"error": {"message": "no such path"}}, 404)

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size))
        self.fake.requests.append((self.path, body))
        if not self._allowed() or self._loading():
            return
        answer = {
            "llama": {
                "/apply-template": self._template,
                "/tokenize": self._llama_tokens,
                "/v1/completions": self._llama,
            },
            "completions": {
                "/tokenize": self._tokens,
                "/detokenize": self._text,
                "/v1/completions": self._completions,
                "/v1/chat/completions": self._chat,
            },
            "chat": {"/v1/chat/completions": self._chat},
            "bare": {"/v1/chat/completions": self._chat},
        }[self.fake.kind].get(self.path)
        if answer is None:
            self._json({"error": {"message": "no such path"}}, 404)
        else:
            answer(body)

    def _allowed(self) -> bool:
        if self.fake.key and self.headers.get("authorization") != f"Bearer {self.fake.key}":
            self._json({"error": {"message": "wrong key"}}, 401)
            return False
        return True

    def _loading(self) -> bool:
        if not self.fake.loading or self.path == "/v1/models":
            return False
        self.fake.loading -= 1
        self._json({"error": {"message": "Loading model"}}, 503)
        return True

    def _json(self, told: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(told).encode(), status)

    def _send(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _template(self, body: dict[str, Any]) -> None:
        self._json({"prompt": render(body["messages"])})

    def _llama_tokens(self, body: dict[str, Any]) -> None:
        text = body["content"]
        if not body.get("parse_special", True):
            text = text.replace("<|", "< |")
        ids = self.fake.model.ids(text)
        self._json({"tokens": [{"id": i, "piece": self.fake.model.vocabulary[i]} for i in ids]})

    def _tokens(self, body: dict[str, Any]) -> None:
        start = "<|start|>" if self.fake.adds_start and "prompt" in body else ""
        text = start + body["prompt"] if "prompt" in body else render(body["messages"])
        self._json({"tokens": self.fake.model.ids(text), "max_model_len": WINDOW})

    def _text(self, body: dict[str, Any]) -> None:
        text = self.fake.model.text(body["tokens"])
        if self.fake.answers_text and body.get("skip_special_tokens", True):
            text = re.sub(r"<\|\w+\|>", "", text)
        self._json({"text" if self.fake.answers_text else "prompt": text})

    def _faulty(self) -> bool:
        """Whether something went wrong before anything was said."""
        fault = self.fake.faults[0] if self.fake.faults else None
        if fault == "hang":
            self.fake.faults.popleft()
            time.sleep(3)
        elif fault == "malformed":
            self.fake.faults.popleft()
            self._send(b"data: {not json\n\n")
            return True
        elif isinstance(fault, int):
            self.fake.faults.popleft()
            self._json({"error": {"message": "on purpose"}}, fault)
            return True
        return False

    def _events(self, choices: Sequence[dict[str, Any]]) -> None:
        fault = self.fake.faults.popleft() if self.fake.faults else None
        name = "another" if fault == "other model" else self.fake.answers_as
        half = len(choices) // 2
        nothing = {"text": "", "delta": {}, "finish_reason": None}
        choices = {
            "filtered": [*choices[:half], nothing | {"finish_reason": "content_filter"}],
            "short": [choices[0], nothing | {"finish_reason": "length"}],
            "quiet": [nothing] * ENDLESS,
        }.get(str(fault), choices)
        self.send_response(200)
        if fault == "dropped":
            self.send_header("content-length", "100000")
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
            endless = [choices[0]] * ENDLESS if fault == "endless" else []
            for at, choice in enumerate([*endless, *choices]):
                if fault in ("cut", "dropped") and at == half:
                    return
                if fault == "quiet":
                    time.sleep(0.05)
                event = json.dumps({"model": name, "choices": [choice]})
                self.wfile.write(f"data: {event}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

    def _generated(
        self, prompt: str, most: int, banned: Sequence[int] = ()
    ) -> tuple[list[tuple[int, float]], str]:
        said, reason = [], "length"
        while len(said) < most:
            token = self.fake.model.next(prompt, banned)
            if token == 0:
                reason = "stop"
                break
            said.append((token, self.fake.model.log_p(prompt, token)))
            prompt += self.fake.model.vocabulary[token]
        return said, reason

    def _llama(self, body: dict[str, Any]) -> None:
        if self._faulty():
            return
        given = body["prompt"]
        prompt = given[0] + self.fake.model.text(given[1:])
        if "grammar" in body:
            told = []
            for token in map(int, re.findall(r"<\[(\d+)\]>", body["grammar"])):
                told.append(_content(self.fake.model, token, self.fake.model.log_p(prompt, token)))
                prompt += self.fake.model.vocabulary[token]
            choice = {"text": "", "logprobs": {"content": told}, "finish_reason": "length"}
            self._json({"model": "fake", "choices": [choice]})
            return
        banned = [token for token, _ in body["logit_bias"]]
        said, reason = self._generated(prompt, body["max_tokens"], banned)
        events = [
            {
                "text": self.fake.model.vocabulary[token],
                "logprobs": {"content": [_content(self.fake.model, token, log_p)]},
                "finish_reason": None,
            }
            for token, log_p in said
        ]
        self._events([*events, {"text": "", "logprobs": None, "finish_reason": reason}])

    def _completions(self, body: dict[str, Any]) -> None:
        if self._faulty():
            return
        prompt = self.fake.model.text(body["prompt"])
        if body.get("echo"):
            so_far, scores = "", []
            for token in body["prompt"]:
                scores.append(self.fake.model.log_p(so_far, token) if so_far else None)
                so_far += self.fake.model.vocabulary[token]
            choice = {"text": prompt, "logprobs": {"token_logprobs": [*scores, -1.0]}}
            self._json({"model": "fake", "choices": [choice | {"finish_reason": "length"}]})
            return
        banned = [int(token) for token in body.get("logit_bias") or {}]
        said, reason = self._generated(prompt, body["max_tokens"], banned)
        if reason == "stop":
            said.append((0, LIKELY))  # the end of text is told as a token without text
        events = []
        for at in range(0, len(said), self.fake.together):
            told = said[at : at + self.fake.together]
            names = [self.fake.model.vocabulary[token] for token, _ in told]
            parts = [re.sub(r"[^\x00-\x7f]", "\N{REPLACEMENT CHARACTER}", each) for each in names]
            logprobs = {
                "tokens": parts,
                "token_logprobs": [log_p for _, log_p in told],
                "top_logprobs": [
                    {name: log_p} for name, (_, log_p) in zip(parts, told, strict=True)
                ],
            }
            event = {
                "text": "".join(names).removesuffix(self.fake.model.vocabulary[0]),
                "token_ids": [token for token, _ in told] if self.fake.tells_ids else None,
                "logprobs": logprobs,
                "finish_reason": None,
            }
            events.append(event)
        events[-1]["finish_reason"] = reason
        self._events(events)

    def _chat(self, body: dict[str, Any]) -> None:
        if self._faulty():
            return
        if self.fake.kind == "bare" and (
            body.get("logprobs") or body["messages"][-1]["role"] == "assistant"
        ):
            self._json({"error": {"message": "not supported"}}, 400)
            return
        said, reason = self._generated(render(body["messages"]), body["max_tokens"])
        events = []
        for token, log_p in said:
            written = self.fake.content(self.fake.model.vocabulary[token])
            event: dict[str, Any] = {"delta": {"content": written}}
            if body.get("logprobs"):
                event["logprobs"] = {"content": [_content(self.fake.model, token, log_p)]}
            events.append(event | {"finish_reason": None})
        last: dict[str, Any] = {"delta": {}, "finish_reason": reason}
        if body.get("logprobs") and reason == "stop":  # vLLM tells the end of text as a token
            last["logprobs"] = {"content": [_content(self.fake.model, 0, LIKELY)]}
        self._events([*events, last])


def _content(model: FakeModel, token: int, log_p: float) -> dict[str, Any]:
    piece = model.vocabulary[token]
    entry = {"id": token, "token": piece, "bytes": [*piece.encode()], "logprob": log_p}
    return entry | {"top_logprobs": [dict(entry)]}
