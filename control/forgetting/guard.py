"""At decoding time: tokens that would complete a forgotten answer are not said.

A span is banned only for the records that are watched, those whose subject is in play, and only at
the token that would complete it: an answer that a retained fact shares stays sayable elsewhere.
What is compared is the text, decoded and normalised, so every tokenisation, spelling and disguise
of a span is one case.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from control.decoding.contrastive import FLOOR
from control.forgetting import normalize
from control.forgetting.record import Record

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from control.decoding.trace import Trace

LOOK_BACK = 64  # tokens; a span that is spelled out letter by letter takes as many as it has
MOST_BANS = 12  # at one place: what is still possible then says little


@dataclass(frozen=True)
class WatchedFacts:
    """What one answer must not say.

    Attributes:
        records: The watched records.
        check_paraphrase: Ids of those that must not be said in other words either.
        decide_on_output: Ids of those that the question may well ask for: an answer that is about
            to state one was asked for it, and ends.
        arm: Further records whose subject a text names, since an answer can bring a subject into
            play that the question did not.
    """

    records: tuple[Record, ...] = ()
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()
    arm: Callable[[str], Sequence[Record]] | None = None

    def __bool__(self) -> bool:
        """Whether anything is watched."""
        return bool(self.records) or self.arm is not None

    def in_play(self, text: str) -> list[Record]:
        """The watched records, with those whose subject ``text`` names."""
        brought = self.arm(text) if self.arm else ()
        return list(dict.fromkeys((*self.records, *brought)))

    def completed(self, text: str, new: str) -> Record | None:
        """The record of which ``new`` completes a span that ``text`` does not hold yet."""
        whole = text + new
        border = len(text.rstrip())
        for record in self.in_play(whole):
            if any(end > border for _, end, _ in normalize.find(whole, record.spans)):
                return record
        return None


@dataclass
class LeakGuard:
    """Watches over the tokens of one answer.

    Attributes:
        watch: What must not be said.
        tokenizer: Of the model.
        ends: Tokens that end an answer.
        ids: The answer so far.
        withheld: Ids of the records that it was about to state.
        blocked: Whether it had nothing else to say.
    """

    watch: WatchedFacts
    tokenizer: "PreTrainedTokenizerBase"
    ends: frozenset[int]
    ids: list[int] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    blocked: bool = False

    def allowed(self, scores: "Tensor", token: int, draw: "Callable[[Tensor], int]") -> int:
        """The token to say: ``token``, or what is drawn instead of it.

        Args:
            scores: Of the next token, shape (vocabulary,).
            token: The one drawn from them.
            draw: Draws a token from such scores.

        Returns:
            A token that completes no span; one that ends the answer where none was found, or where
            the question may have asked for the span.
        """
        text = self._text(())
        remaining = None
        for _ in range(MOST_BANS):
            if token in self.ends:
                return token
            record = self.watch.completed(text, self._text((token,))[len(text) :])
            if record is None:
                self.ids.append(token)
                return token
            if remaining is None:
                remaining = scores.clone()
                self.withheld.append(record.id)
                if record.id in self.watch.decide_on_output:
                    break
            remaining[token] = FLOOR
            token = draw(remaining)
        self.blocked = True
        return min(self.ends, default=token)

    def going_on(self, ids: Sequence[int]) -> "LeakGuard":
        """One for an answer that begins with ``ids`` and goes on from there."""
        return replace(self, ids=list(ids), withheld=list(self.withheld))

    def _text(self, more: Sequence[int]) -> str:
        return self.tokenizer.decode([*self.ids[-LOOK_BACK:], *more], skip_special_tokens=True)


def guards(
    watches: Sequence[WatchedFacts] | None,
    tokenizer: "PreTrainedTokenizerBase",
    ends: Collection[int],
) -> list[LeakGuard] | None:
    """A guard for each answer that begins; ``None`` where all may be said.

    Args:
        watches: What each answer must not say.
        tokenizer: Of the model.
        ends: Tokens that end an answer.
    """
    if watches is None:
        return None
    return [LeakGuard(watch, tokenizer, frozenset(ends)) for watch in watches]


def report(guards: Sequence[LeakGuard] | None, traces: "Sequence[Trace]") -> None:
    """Write on each trace what its guard withheld."""
    for guard, trace in zip(guards or (), traces, strict=False):
        trace.withheld, trace.blocked = guard.withheld, guard.blocked
