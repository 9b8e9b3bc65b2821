"""The trace of one question: seconds of each step, notices, probabilities of its passages.

Any package may record a step of the question that is being answered, without knowing who answers
it. Outside of `following`, recording does nothing.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class RequestTrace:
    """What was recorded for one question.

    Attributes:
        seconds: Time of each step by its name; a step within a step counts for itself alone.
        notices: What the user should know, one sentence each.
        verdicts: By a passage's id, the probability that it holds a clear answer.
        passed: Ids of the passages that the filter kept.
        counts: How often something happened, by its name.
        withheld: Forgotten facts that were suppressed: their ids, and the layer that did it.
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
        """Add the time since the last call to the innermost open step; open or close a step."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
        if step is None:
            self._open.pop()
        else:
            self._open.append(step)


_current: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)


@contextmanager
def following(request_trace: RequestTrace | None = None) -> Iterator[RequestTrace]:
    """Record what happens inside the block in this trace, by default a new one."""
    request_trace = request_trace or RequestTrace()
    token = _current.set(request_trace)
    try:
        yield request_trace
    finally:
        _current.reset(token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Add the block's time to a step of the current trace."""
    current = _current.get()
    if current is None:
        yield
        return
    current._turn(name)
    try:
        yield
    finally:
        current._turn(None)


def notice(sentence: str) -> None:
    """Add a notice for the user, one sentence."""
    if (current := _current.get()) is not None:
        current.notices.append(sentence)


def verdict(passage_id: str, probability: float, kept: bool) -> None:
    """Record how likely a passage holds a clear answer, in [0, 1], and whether it was kept."""
    if (current := _current.get()) is not None:
        current.verdicts[passage_id] = probability
        if kept:
            current.passed.add(passage_id)


def count(name: str, times: int = 1) -> None:
    """Add to a count, such as that of passages from the index."""
    if (current := _current.get()) is not None:
        current.counts[name] += times


def withheld(record_id: str, layer: str) -> None:
    """Record that a forgotten fact was suppressed, and by which layer."""
    if (current := _current.get()) is not None and (record_id, layer) not in current.withheld:
        current.withheld.append((record_id, layer))
