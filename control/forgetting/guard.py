"""The guard in decoding: tokens that would complete a forgotten answer are not chosen.

An answer is banned only for active records, those whose subject is named, and only at the token
that would complete it: the same answer to another question stays allowed. So do the words of the
question itself, which tell nothing new; were they banned where they are a forgotten answer alone,
that would tell that they are one. Whether a sentence that repeats them states the fact is decided
when it is complete. The decoded and normalised text is compared, so that every tokenisation,
spelling and obfuscation counts; once a token was banned, similar spellings count, too. What must
not be told in its own words (`control.forgetting.verbatim`) is watched in every answer.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from control.decoding.contrastive import FLOOR
from control.forgetting.matcher import find_misspelled, find_values, find_words
from control.forgetting.normalize import Place, hides, holds, plain, words_of
from control.forgetting.record import Record
from control.forgetting.verbatim import NEAR, VerbatimIndex

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from control.decoding.trace import Trace

LOOK_BACK = 64  # tokens; an answer spelled letter by letter takes one for each letter
MOST_BANS = 12  # tokens banned at one position before the answer is ended


@dataclass(frozen=True)
class Route:
    """The records that a question concerns.

    Attributes:
        refused: The record that it asks for; ``None`` where it may be answered.
        watched: Active records: their answers must not be stated.
        likelihood: That the question asks for a record, in [0, 1]; the highest over all of them.
        check_paraphrase: Ids of the watched records whose paraphrases are suppressed too.
        decide_on_output: Ids of those that it may ask for: refused if the output states one.
        described: Ids of records that it may ask for by describing the subject, with too little
            likelihood to refuse it.
        subject_asked: Ids of records whose answer it gives, and whose subject it may ask for.
    """

    refused: Record | None = None
    watched: tuple[Record, ...] = ()
    likelihood: float = 0.0
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()
    described: frozenset[str] = frozenset()
    subject_asked: frozenset[str] = frozenset()

    @property
    def certain(self) -> frozenset[str]:
        """Ids of the watched records that are not only described."""
        return frozenset(record.id for record in self.watched) - self.described


@dataclass(frozen=True)
class WatchedFacts:
    """The facts that one answer must not state.

    Attributes:
        records: The active records.
        check_paraphrase: Ids of those whose paraphrases are suppressed too.
        decide_on_output: Ids of those that the question may ask for: an answer that is about to
            state one is ended.
        activate: Gives further records that a text activates by naming their subject, since an
            answer can name one that the question did not.
        wording: The texts of which only the wording is kept back, whatever the question.
        question: As it was asked; its own words are not banned.
        named: Records of which the question names the subject, whether or not it asks for them:
            what is shown beside the answer does not hold theirs.
    """

    records: tuple[Record, ...] = ()
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()
    activate: Callable[[str], Sequence[Record]] | None = None
    wording: VerbatimIndex = field(default_factory=VerbatimIndex)
    question: str = ""
    named: tuple[Record, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is watched."""
        return bool(self.records) or self.activate is not None or bool(self.wording)

    def active_records(self, text: str) -> list[Record]:
        """The active records, with those that ``text`` activates by naming their subject."""
        activated = self.activate(text) if self.activate else ()
        return list(dict.fromkeys((*self.records, *activated)))

    def completed(self, text: str, new: str, withheld: Collection[str] = ()) -> Record | None:
        """The record of which ``new`` completes an answer that ``text`` does not contain yet.

        Or of whose wording it repeats more than may be told. A spelling similar to a name counts as
        the answer: a model that cannot write "Anouk Trewin" writes "Anouc Trew". Where the question
        may ask for the record, or the model was about to state it, one similar to other words, too.

        Args:
            text: The answer so far.
            new: What would follow it.
            withheld: Ids of the records that the answer was about to state.
        """
        whole = text + new
        border = len(text.rstrip())
        for record in self.active_records(whole):
            asked = record.id in self.decide_on_output or record.id in withheld
            places = self._new_words(whole, record) + self._misspelled(whole, record, not asked)
            if any(end > border for _, end in places):
                return record
        return self.wording.completed(text, new) if self.wording else None

    def gives_new(self, text: str, record: Record) -> bool:
        """Whether a text gives an answer of a record that the question does not give itself.

        In the same words, as the same value, or encoded. Where the question may ask for the record,
        every answer is new: "Paris or Lyon?" is answered in its own words.
        """
        repeats = self._repeats(record)
        if self._new_words(text, record):
            return True
        if hides(text, record.spans) and not (repeats and holds(self.question, record.spans)):
            return True
        values = find_values(text, record)
        return bool(values) and not (repeats and find_values(self.question, record))

    def _new_words(self, text: str, record: Record) -> list[Place]:
        """Where the words of an answer stand that the question does not say, or begin to say."""
        found = find_words(text, record)
        if not found or not self._repeats(record):
            return found
        said = [plain(self.question[start:end]) for start, end in find_words(self.question, record)]
        return [
            (start, end)
            for start, end in found
            if not any(one.startswith(plain(text[start:end])) for one in said)
        ]

    def _misspelled(self, text: str, record: Record, names: bool) -> list[Place]:
        """Where words are spelled much like an answer that neither question nor subject has."""
        known = words_of((self.question, *record.names))
        return [
            (start, end)
            for start, end in find_misspelled(text, record, names)
            if not all(
                any(one.startswith(word) for one in known)
                for word in plain(text[start:end]).split()
            )
        ]

    def _repeats(self, record: Record) -> bool:
        """Whether an answer may repeat what the question says."""
        return bool(self.question) and record.id not in self.decide_on_output


@dataclass
class LeakGuard:
    """Checks the tokens of one answer.

    Attributes:
        watch: The facts that it must not state.
        tokenizer: Of the model.
        ends: Tokens that end an answer.
        ids: The answer so far.
        withheld: Ids of the records that it was about to state.
        blocked: Whether no allowed token was found, so that it ended.
    """

    watch: WatchedFacts
    tokenizer: "PreTrainedTokenizerBase"
    ends: frozenset[int]
    ids: list[int] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    blocked: bool = False

    def allowed(self, scores: "Tensor", token: int, draw: "Callable[[Tensor], int]") -> int:
        """The allowed token: ``token``, or one drawn instead of it.

        Args:
            scores: Of the next token, shape (vocabulary,).
            token: The token drawn from them.
            draw: Draws a token from such scores.

        Returns:
            A token that completes no banned answer; one that ends the text where none was found, or
            where the question may have asked for the banned answer.
        """
        text = self._text(())
        remaining = None
        for _ in range(MOST_BANS):
            if token in self.ends:
                return token
            record = self.watch.completed(text, self._text((token,))[len(text) :], self.withheld)
            if record is None:
                self.ids.append(token)
                return token
            if remaining is None:
                remaining = scores.clone()
                self.withheld += [] if record.id in self.withheld else [record.id]
                if record.id in self.watch.decide_on_output:
                    break
            remaining[token] = FLOOR
            token = draw(remaining)
        self.blocked = True
        return min(self.ends, default=token)

    def going_on(self, ids: Sequence[int]) -> "LeakGuard":
        """A guard for an answer that begins with ``ids``."""
        return replace(self, ids=list(ids), withheld=list(self.withheld))

    def _text(self, more: Sequence[int]) -> str:
        last = NEAR if self.watch.wording else LOOK_BACK
        return self.tokenizer.decode([*self.ids[-last:], *more], skip_special_tokens=True)


def guards(
    watches: Sequence[WatchedFacts] | None,
    tokenizer: "PreTrainedTokenizerBase",
    ends: Collection[int],
) -> list[LeakGuard] | None:
    """A guard for each answer; ``None`` without watched facts."""
    if watches is None:
        return None
    return [LeakGuard(watch, tokenizer, frozenset(ends)) for watch in watches]


def report(guards: Sequence[LeakGuard] | None, traces: "Sequence[Trace]") -> None:
    """Set on each trace what its guard withheld."""
    for guard, trace in zip(guards or (), traces, strict=False):
        trace.withheld, trace.blocked = guard.withheld, guard.blocked
