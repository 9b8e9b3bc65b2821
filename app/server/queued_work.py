"""What clients want of the assistant, as it waits in the queue."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control.answer import Answer
    from control.assistant import Assistant
    from control.decoding.generate import Decoding
    from control.forgetting.suppressor import OnClearedToken
    from control.scoring import ScoredText
    from control.state import Query


@dataclass(frozen=True, kw_only=True)
class QueuedWork(ABC):
    """Work for the assistant: who wants it, and whether its result is still wanted."""

    client: str
    cancelled: threading.Event
    abandoned: threading.Event

    def is_over(self) -> bool:
        """Whether nobody wants the result, or the server stops."""
        return self.cancelled.is_set() or self.abandoned.is_set()

    @abstractmethod
    def result(self, assistant: "Assistant") -> Any:
        """What the assistant makes of it."""


@dataclass(frozen=True, kw_only=True)
class QueuedQuestions(QueuedWork):
    """Questions to be answered."""

    queries: "Sequence[Query]"
    decoding: "Decoding"
    on_token: "OnClearedToken | None"

    def result(self, assistant: "Assistant") -> "list[Answer]":
        """The answers."""
        return assistant.ask_batch(self.queries, self.decoding, self.on_token)


@dataclass(frozen=True, kw_only=True)
class QueuedPrompts(QueuedWork):
    """Prompts whose tokens the model alone is to score."""

    prompts: "Sequence[str | Sequence[int]]"
    most: int
    predict: bool

    def result(self, assistant: "Assistant") -> "list[ScoredText]":
        """The scores."""
        from control import scoring

        return scoring.score(
            assistant.model, assistant.forgetting, self.prompts, self.most, self.predict
        )
