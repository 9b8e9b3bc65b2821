"""The suppression of forgotten facts for one question: in its prompt, passages and every token.

A `FactSuppressor` without a router suppresses nothing and costs nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING
from zlib import crc32

from control.forgetting import normalize
from control.forgetting.guard import WatchedFacts
from control.forgetting.segments import NAMELIKE, Turns, following
from foundation import trace as trail
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from control.conflict.dial import DecodedAnswer
    from control.decoding.trace import Choice, TokenTrace
    from control.forgetting.ledger import Ledger
    from control.forgetting.record import Record
    from control.forgetting.redaction import Redactor
    from control.forgetting.router import Router

OnToken = Callable[[int, "TokenTrace"], None]

# "What is the country of birth of Astrid Lindgren?" asks that of her, and describes nobody else.
DIRECT = re.compile(
    r"\W*(?i:what|who)(?:['’]s| is| was| are| were) the (?:(?!of )[a-z]+ ){1,3}"
    r"(?:of (?:birth|death|origin|citizenship|foundation|residence|work) )?of (?:the )?"
    r"(?P<whom>[A-ZÀ-Þ][\w-]*(?: [A-ZÀ-Þ][\w-]*)*)(?=[?,.]|\s*$)"
)
MISSPELLED = 0.75  # least share of its letters that a name with a typo keeps
READ = "retrieval"  # the layer that takes sentences out of passages
POSSESSIVE = re.compile(r"['’]s?$")
SENTENCE_END = re.compile(r"[.!?…:;]['\")\]]*\s|\n")

# As of any fact that is not known: nothing tells that there is a record.
REFUSALS = (
    "I'm sorry, I don't have an answer to that.",
    "I'm afraid I can't answer that one.",
    "I don't have anything to say on that, I'm sorry.",
    "Sorry, I'm not able to answer that.",
)


@dataclass(frozen=True)
class FactContext:
    """The forgotten facts that one question concerns.

    Attributes:
        refused: The record that it asks for; ``None`` where it may be answered.
        watched: Active records: their subject is named.
        check_paraphrase: Ids of those whose paraphrases are suppressed too.
        decide_on_output: Ids of those that it may ask for: refused once the answer states one.
        brings: Further records that a text activates by naming their subject; ``None`` where
            nothing is forgotten.
        names: Names in the question.
        open: Whether its subject comes from elsewhere, such as a passage.
    """

    refused: "Record | None" = None
    watched: "tuple[Record, ...]" = ()
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()
    brings: "Callable[[str], Sequence[Record]] | None" = None
    names: tuple[str, ...] = ()
    open: bool = False

    def about(self, text: str) -> bool:
        """Whether a text has one of the question's names, or the question has none."""
        return not self.names or normalize.holds(text, self.names)


@dataclass(frozen=True)
class FactSuppressor:
    """Suppresses the facts of one ledger.

    Attributes:
        ledger: The records, and the audit of what was withheld.
        router: Decides whether a question asks for a record.
        redactor: Removes sentences that state a record.
    """

    ledger: "Ledger | None" = None
    router: "Router | None" = None
    redactor: "Redactor | None" = None

    def route(
        self,
        question: str,
        history: Turns = (),
        before: FactContext | None = None,
        system: str = "",
    ) -> FactContext:
        """The facts that a question in its conversation concerns, with those of ``before``.

        An instruction by which it is answered, ``system``, may itself ask for a fact, complete the
        question ("Name the capital of what is named"), or say how to write the answer, which would
        hide a fact from the guard. So it is read as the beginning of the question too.
        """
        if system:
            alone = self.route(question, history, before)
            both = self.route(f"{system}\n{question}", history, alone)
            brings = _either(alone.brings, self.router.watching(system)) if self.router else None
            return replace(both, brings=brings, names=alone.names, open=alone.open)
        earlier = before or FactContext()
        if self.router is None or earlier.refused is not None:
            return earlier
        found = self.router.route(question, history)
        watched = dict.fromkeys((*earlier.watched, *_asked_of(question, history, found.watched)))
        if found.refused is not None:
            trail.withheld(found.refused.id, "prompt")
        check_paraphrase = earlier.check_paraphrase | found.check_paraphrase
        names = tuple(POSSESSIVE.sub("", name) for name in NAMELIKE.findall(question))
        watching = self.router.watching(question)
        is_open = not names and bool(following(question, ()))  # else its "it" may be who is named
        decide_on_output = earlier.decide_on_output | found.decide_on_output
        return FactContext(
            found.refused,
            tuple(watched),
            check_paraphrase,
            decide_on_output,
            watching,
            names,
            is_open,
        )

    def reading(
        self,
        scope: FactContext,
        nodes: "Sequence[NodeWithScore]",
        withheld: Iterable[tuple[str, str]] = (),
        pasted: bool = False,
    ) -> FactContext:
        """The facts that a question concerns once these passages are in its prompt.

        A passage activates the records of its subject where it also has a name of the question: the
        author of "Hamlet" is named by the passage on "Hamlet", and not by the next passage.

        Args:
            scope: Of the question.
            nodes: The passages, redacted.
            withheld: Withheld so far, (record's id, layer). Facts redacted from the passages are
                active if only they can tell the question's subject.
            pasted: Whether the user gave the passages.
        """
        if scope.brings is None:
            return scope
        texts = [f"{node.metadata.get('title', '')}\n{node.node.get_content()}" for node in nodes]
        brought = [record for text in texts if scope.about(text) for record in scope.brings(text)]
        if pasted or scope.open:
            brought += self._records(id for id, layer in withheld if layer == READ)
        check_paraphrase = scope.check_paraphrase | {record.id for record in brought}
        watched = tuple(dict.fromkeys((*scope.watched, *brought)))
        return replace(scope, watched=watched, check_paraphrase=check_paraphrase)

    def _records(self, ids: Iterable[str]) -> "Iterator[Record]":
        for record_id in dict.fromkeys(ids):
            if self.ledger is not None:
                with suppress(InputError):  # removed by another process since
                    yield self.ledger.record(record_id)

    def wait(self) -> None:
        """Wait until all records are embedded; until then only their names are matched."""
        if self.router is not None:
            self.router.wait()

    def redacted(self, nodes: "Sequence[NodeWithScore]") -> "list[NodeWithScore]":
        """The passages without the sentences that state a forgotten fact."""
        if self.redactor is None:
            return list(nodes)
        with trail.step("redact"):
            return self.redactor.nodes(nodes)

    def said(self, history: Turns) -> list[tuple[str, str]]:
        """The conversation without such sentences: it may be older than the record."""
        return [(self._text(asked), self._text(answered)) for asked, answered in history]

    def _text(self, text: str) -> str:
        return text if self.redactor is None else self.redactor.redact(text).text

    def watch(self, scope: FactContext) -> WatchedFacts:
        """The facts that an answer must not state."""
        return WatchedFacts(
            scope.watched, scope.check_paraphrase, scope.decide_on_output, scope.brings
        )

    def strip_leaks(self, settled: "DecodedAnswer", watch: WatchedFacts) -> "DecodedAnswer":
        """An answer cut before the first sentence that states a forgotten fact, in any words.

        Where nothing is left, its trace is empty and blocked; so is that of an answer to a question
        that may have asked for the fact.
        """
        if not watch:
            return settled
        trace = settled.trace
        cut = 0 if trace.blocked else self.first_leak(trace.text, watch)
        if cut is not None:
            told = [record.id for record in watch.in_play(trace.text)]
            cut = cut if watch.decide_on_output.isdisjoint(told) else 0
            trace = replace(trace.until(cut), blocked=not trace.text[:cut].strip())
            trace.withheld = list(dict.fromkeys([*trace.withheld, *told]))
            return replace(settled, trace=trace, verdict=None)
        trace.tokens = _without_choices(trace.tokens, watch)
        verdict = settled.verdict
        if verdict and self.first_leak(str(verdict), watch) is not None:
            verdict = None
        return replace(settled, verdict=verdict)

    def sayable(self, texts: Sequence[str], scope: FactContext) -> list[str]:
        """The texts that contain no watched span."""
        watch = self.watch(scope)
        return [text for text in texts if not watch or watch.completed("", text) is None]

    def first_leak(self, text: str, watch: WatchedFacts) -> int | None:
        """Where the first sentence begins that states a watched fact, in any words; else ``None``.

        Args:
            text: An answer, or its complete sentences so far.
            watch: The facts that it must not state.
        """
        if not watch.in_play(text):
            return None
        start = 0
        for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
            # With all that came before, since a later sentence may say only "it".
            if self._stated(text[:end], watch):
                return start
            start = end
        return None

    def _stated(self, text: str, watch: WatchedFacts) -> bool:
        """Whether a text contains an active answer or paraphrases a fact."""
        in_play = watch.in_play(text)
        if any(normalize.holds(text, record.spans) for record in in_play):
            return True
        worded = [record for record in in_play if record.id in watch.check_paraphrase]
        redactor = self.redactor
        return redactor is not None and any(redactor.states(text, record) for record in worded)

    @contextmanager
    def buffer_stream(
        self, on_token: OnToken, watches: Sequence[WatchedFacts]
    ) -> Iterator[tuple[OnToken, set[int]]]:
        """Stream tokens, those of watched answers by complete sentences without a leak.

        An answer to a question that may ask for a forgotten fact is streamed at its end, since all
        of it may be withheld.

        Yields:
            A callback for the tokens, and the places of answers that are streamed no further.
        """
        held: dict[int, list[TokenTrace]] = {}
        texts: dict[int, str] = {}
        lost = set[int]()

        def release(at: int) -> None:
            if at in lost or self.first_leak(texts.get(at, ""), watches[at]) is not None:
                lost.add(at)
                return
            for token in held.pop(at, []):
                on_token(at, token)

        def hold(at: int, token: "TokenTrace") -> None:
            if not watches[at]:
                on_token(at, token)
                return
            held.setdefault(at, []).append(token)
            texts[at] = texts.get(at, "") + token.text
            if SENTENCE_END.search(token.text + " ") and not watches[at].decide_on_output:
                release(at)

        yield hold, lost
        for at in list(held):
            release(at)

    def note(self, withheld: Sequence[tuple[str, str]]) -> None:
        """Write into the audit what was withheld: (record's id, layer)."""
        if self.ledger is not None:
            for record_id, layer in dict.fromkeys(withheld):
                self.ledger.note("withheld", record_id, layer=layer)


def refusal(question: str) -> str:
    """A short sentence; the same question always gets the same."""
    return REFUSALS[crc32(question.encode()) % len(REFUSALS)]


def _either(
    *parts: "Callable[[str], Sequence[Record]] | None",
) -> "Callable[[str], Sequence[Record]]":
    """Says which records any of the parts says that a text activates."""

    def brought(text: str) -> "Sequence[Record]":
        return list(dict.fromkeys(record for part in parts if part for record in part(text)))

    return brought


def _asked_of(question: str, history: Turns, watched: "Sequence[Record]") -> "Sequence[Record]":
    """The watched records; where the question names its subject, only those named."""
    direct = DIRECT.match(question)
    if direct is None:
        return watched
    whom = normalize.plain(direct["whom"])
    said = "\n".join([question, *(text for turn in history for text in turn)])
    return [
        record
        for record in watched
        if normalize.holds(said, record.names)
        or any(
            SequenceMatcher(None, whom, normalize.plain(name)).ratio() >= MISSPELLED
            for name in record.names
        )
    ]


def _without_choices(tokens: "Sequence[TokenTrace]", watch: WatchedFacts) -> "list[TokenTrace]":
    """The tokens without those choices of the branches that would complete a span."""
    cleared, text = [], ""

    def sayable(choices: "Sequence[Choice]") -> "list[Choice]":
        return [choice for choice in choices if watch.completed(text, choice.text) is None]

    for token in tokens:
        cleared.append(
            replace(
                token,
                context_choices=sayable(token.context_choices),
                memory_choices=sayable(token.memory_choices),
            )
        )
        text += token.text
    return cleared
