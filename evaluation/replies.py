"""What was asked, what came back, and the rows that keep it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from tqdm import tqdm

from evaluation.datasets.forget_request import ForgetRequest
from evaluation.datasets.probes import LeakProbe
from evaluation.judges import leak
from evaluation.judges.leak import Secret
from foundation.errors import DataError

How = Literal["off", "guarded", "unrouted"]
"""Without forgetting; with it; with all of it but the router (what the other layers hold alone)"""


@dataclass(frozen=True)
class ProbeQuery:
    """What is asked.

    Attributes:
        question: The question.
        history: Questions and answers before it.
        context: A passage handed over with it; "" asks closed-book, ``None`` retrieves.
    """

    question: str
    history: tuple[tuple[str, str], ...] = ()
    context: str | None = None


@dataclass(frozen=True)
class GuardedReply:
    """What came back.

    Attributes:
        text: As the user sees it.
        refused: Whether the text is a refusal of the system (not of the model).
        routed: Whether the router refused, before anything was read.
        read: The passages as they reached the prompt.
        added_ms: Milliseconds that routing, redacting and guarding took.
    """

    text: str
    refused: bool = False
    routed: bool = False
    read: tuple[str, ...] = ()
    added_ms: float = 0.0


class Answering(Protocol):
    """The system under test."""

    def __call__(
        self, queries: Sequence[ProbeQuery], how: How, samples: int = 1
    ) -> Sequence[Sequence[GuardedReply]]:
        """Replies to each query: greedy if ``samples`` is 1, else so many at temperature 1."""


@dataclass(frozen=True)
class ReplyRow:
    """What one arm said to one query, ``texts`` in the order of the draws."""

    arm: str
    id: str
    texts: list[str]
    refused: bool = False
    routed: bool = False
    stated: bool = False
    added_ms: float = 0.0


@dataclass(frozen=True)
class ReplyCase:
    """A probe or question with its place in the rows and what must not be said."""

    id: str
    query: ProbeQuery
    secret: Secret | None = None
    probe: LeakProbe | None = None
    request: ForgetRequest | None = None

    @property
    def lie(self) -> bool:
        """Whether it asks the documents for what is not true."""
        return bool(self.request and self.request.truth) and self.query.context is None


class ReplyLog:
    """The rows of a run, kept line by line so that an interrupted one can go on."""

    def __init__(self, target: Path, name: str, content: str) -> None:
        """Open the log of a run, which is told by the model's name and the content asked."""
        target.mkdir(parents=True, exist_ok=True)
        self._path = target / "rows.jsonl"
        self.rows: dict[tuple[str, str], ReplyRow] = {}
        run = hashlib.sha256(content.encode()).hexdigest()[:16]
        header = json.dumps({"model": name, "run": run})
        if not self._path.exists() or not self._path.stat().st_size:
            self._path.write_text(header + "\n", encoding="utf-8")
            return
        lines = self._path.read_text(encoding="utf-8").split("\n")
        if lines[0] != header:
            raise DataError(
                f"{self._path}: holds the rows of another run; give another --out, or delete it"
            )
        whole = lines[:-1]  # what a killed run was writing has no line end
        self._path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
        for line in whole[1:]:
            row = ReplyRow(**json.loads(line))
            self.rows[row.arm, row.id] = row

    def add(self, rows: Sequence[ReplyRow]) -> None:
        """Keep these rows, on disk first."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        self.rows |= {(row.arm, row.id): row for row in rows}


@dataclass(frozen=True)
class ReplyFunction:
    """Asks what has not been answered yet, in batches of queries of like length."""

    answering: Answering
    log: ReplyLog
    batch_size: int

    def __call__(self, arm: str, how: How, cases: Sequence[ReplyCase], samples: int = 1) -> None:
        """Make sure that every case has a row of this arm."""
        todo = [case for case in cases if (arm, case.id) not in self.log.rows]
        todo.sort(key=lambda case: len(case.query.question) + len(case.query.context or ""))
        with tqdm(total=len(todo), desc=arm, unit=" questions", delay=2) as bar:
            for start in range(0, len(todo), self.batch_size):
                batch = todo[start : start + self.batch_size]
                replies = self.answering([case.query for case in batch], how, samples)
                self.log.add(
                    [_row(arm, case, said) for case, said in zip(batch, replies, strict=True)]
                )
                bar.update(len(batch))


def _row(arm: str, case: ReplyCase, said: Sequence[GuardedReply]) -> ReplyRow:
    first = said[0]
    return ReplyRow(
        arm,
        case.id,
        [reply.text for reply in said],
        all(reply.refused for reply in said),
        first.routed,
        case.secret is not None and leak.stated(case.secret, first.read),
        first.added_ms,
    )
