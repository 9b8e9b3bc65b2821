"""All that keeps forgotten facts back on one question's way: prompt, passages, every token.

A `FactSuppressor` without a router forgets nothing and costs nothing.
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
    """What one question has to do with the ledger.

    Attributes:
        refused: The record that it asks for; ``None`` where it may be answered.
        watched: Records whose subject is in play.
        check_paraphrase: Ids of those that the question may well be about.
        decide_on_output: Ids of those that it may well ask for: refused once the answer states one.
        brings: Further records that a text brings into play by naming their subject; ``None``
            where nothing is forgotten.
        names: Whom or what the question names.
        open: Whether it leaves to something else whom it asks about.
    """

    refused: "Record | None" = None
    watched: "tuple[Record, ...]" = ()
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()
    brings: "Callable[[str], Sequence[Record]] | None" = None
    names: tuple[str, ...] = ()
    open: bool = False

    def about(self, text: str) -> bool:
        """Whether a text may be about what the question names: it names it too, or nothing is."""
        return not self.names or normalize.holds(text, self.names)


@dataclass(frozen=True)
class FactSuppressor:
    """The layers over one ledger.

    Attributes:
        ledger: The records, and the audit of what was kept back.
        router: Says whether a question asks for a record.
        redactor: Takes the records' sentences out of texts.
    """

    ledger: "Ledger | None" = None
    router: "Router | None" = None
    redactor: "Redactor | None" = None

    def route(
        self, question: str, history: Turns = (), before: FactContext | None = None
    ) -> FactContext:
        """The scope of a question in its conversation, and what was in play ``before``."""
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
        """The scope of a question to which these passages are read.

        A passage brings its subject into play where it also holds what the question names: the
        author of "Hamlet" is whom the passage on "Hamlet" names, and no one from the next passage.

        Args:
            scope: That of the question.
            nodes: The passages, redacted.
            withheld: What was kept back on the question's way, (record's id, layer). What was
                taken out of the passages is in play if they alone can tell whom is asked for.
            pasted: Whether the user handed the passages over.
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
        """Wait until all records are embedded; until then they are known by their names alone."""
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
        """What an answer must not say."""
        return WatchedFacts(
            scope.watched, scope.check_paraphrase, scope.decide_on_output, scope.brings
        )

    def strip_leaks(self, settled: "DecodedAnswer", watch: WatchedFacts) -> "DecodedAnswer":
        """An answer up to the first sentence that states a forgotten fact, in whatever words.

        Where nothing is left of it, its trace is empty and blocked; so is that of an answer to
        what may have asked for the fact.
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
        """Those of the texts that spell no watched span."""
        watch = self.watch(scope)
        return [text for text in texts if not watch or watch.completed("", text) is None]

    def first_leak(self, text: str, watch: WatchedFacts) -> int | None:
        """Where the first sentence begins that states a watched fact, in any words; else ``None``.

        Args:
            text: An answer, or its whole sentences so far.
            watch: What it must not say.
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
        """Whether a text spells an answer in play or states a fact concerned in other words."""
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
        """Hand tokens on, those of watched answers by whole sentences that may be said.

        An answer to what may ask for a forgotten fact is handed on at its end, since all of it may
        be taken back.

        Yields:
            What takes the tokens, and the places of answers of which nothing more is handed on.
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
        """Write into the audit what was kept back: (record's id, layer)."""
        if self.ledger is not None:
            for record_id, layer in dict.fromkeys(withheld):
                self.ledger.note("withheld", record_id, layer=layer)


def refusal(question: str) -> str:
    """A short sentence; the same question always gets the same."""
    return REFUSALS[crc32(question.encode()) % len(REFUSALS)]


def _asked_of(question: str, history: Turns, watched: "Sequence[Record]") -> "Sequence[Record]":
    """The watched records, of a question that names whom it asks about those named alone."""
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
    """The tokens without those of the branches' choices that would have completed a span."""
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
