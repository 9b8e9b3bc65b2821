"""What happened on one question's way: seconds of each step, notices, verdicts on passages.

The storeys do not know each other; whoever does a step writes on the trail of the question that is
being answered, and whoever answers it reads the trail. Outside an answer, writing does nothing.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class RequestTrace:
    """The record of one question.

    Attributes:
        seconds: Time of each step by its name; a step within a step counts for itself alone.
        notices: What the user should know, one sentence each.
        verdicts: By a passage's id, the probability that it holds a clear answer.
        passed: Ids of the passages that the filter kept.
        counts: How often something happened, by its name.
        withheld: What was kept back: a forgotten fact's id, and the layer that held it.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    notices: list[str] = field(default_factory=list)
    verdicts: dict[str, float] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    withheld: list[tuple[str, str]] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    def _turn(self, step: str | None) -> None:
        """Book the time since the last turn on the step that is open; open or close one."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
        if step is None:
            self._open.pop()
        else:
            self._open.append(step)


_current: ContextVar[RequestTrace | None] = ContextVar("trail", default=None)


@contextmanager
def following(trail: RequestTrace | None = None) -> Iterator[RequestTrace]:
    """Follow the trail of the question that is answered inside the block; a new one by default."""
    trail = trail or RequestTrace()
    token = _current.set(trail)
    try:
        yield trail
    finally:
        _current.reset(token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Book the block's time on a step of the current trail."""
    trail = _current.get()
    if trail is None:
        yield
        return
    trail._turn(name)
    try:
        yield
    finally:
        trail._turn(None)


def notice(sentence: str) -> None:
    """Tell the user something about this answer."""
    if (trail := _current.get()) is not None:
        trail.notices.append(sentence)


def verdict(passage_id: str, probability: float, kept: bool) -> None:
    """Record how likely a passage holds a clear answer, in [0, 1], and whether it stays."""
    if (trail := _current.get()) is not None:
        trail.verdicts[passage_id] = probability
        if kept:
            trail.passed.add(passage_id)


def count(name: str, times: int = 1) -> None:
    """Count something, such as the passages that came from outside."""
    if (trail := _current.get()) is not None:
        trail.counts[name] += times


def withheld(record_id: str, layer: str) -> None:
    """Record that a forgotten fact was kept back, and by which layer."""
    if (trail := _current.get()) is not None and (record_id, layer) not in trail.withheld:
        trail.withheld.append((record_id, layer))
