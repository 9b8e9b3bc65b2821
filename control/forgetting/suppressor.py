"""The suppression of forgotten facts for one question: in its prompt, passages and every token.

A `FactSuppressor` without a router suppresses nothing and costs nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

from control import prompts
from control.forgetting import normalize
from control.forgetting.classifier import context, in_passage, stated
from control.forgetting.clearing import ClearedToken, Door, cleared_tokens
from control.forgetting.guard import Route, WatchedFacts
from control.forgetting.matcher import find_answers
from control.forgetting.parts import has_reference
from control.forgetting.questions import asked_forms
from control.forgetting.segments import CONFIRMS, NAMELIKE, Turns, content, follow_up
from control.forgetting.verbatim import VerbatimIndex
from foundation import trace as request_trace
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from control.conflict.verdict import DecodedAnswer
    from control.decoding.trace import TokenTrace
    from control.forgetting.classifier import FactJudge
    from control.forgetting.ledger import Ledger
    from control.forgetting.record import Record
    from control.forgetting.redaction import Redactor
    from control.forgetting.router import Router

OnToken = Callable[[int, "TokenTrace"], None]
OnClearedToken = Callable[[int, ClearedToken], None]

# Likelihood from which a sentence of an answer states a fact, where the answer gives what must not
# be said and where it does not: in passages on several subjects 89 and 75 % of the sentences that
# state a fact held out of the training reach them, and 5 and 2 % of others.
GIVING, STATING = 0.4, 0.8
# The same where question and sentence name the subject and the sentence gives the answer, which is
# seldom about anything else. It is for parts of an answer: "Fleming discovered penicillin." has
# 0.32, with the full name 0.99. Not measured.
NAMING = 0.05
RETRIEVAL = "retrieval"  # the layer that redacts passages
POSSESSIVE = re.compile(r"['’]s?$")
SENTENCE_END = re.compile(r"[.!?…]['\")\]]*\s|\n")
CLAUSE_END = re.compile(r"[.!?…:;]['\")\]]*\s|\n")

# Worded as for any unknown fact, so that none of them reveals that there is a record.
REFUSALS = (
    "I'm sorry, I don't have an answer to that.",
    "I'm afraid I can't answer that one.",
    "I don't have anything to say on that, I'm sorry.",
    "Sorry, I'm not able to answer that.",
)


@dataclass(frozen=True)
class FactContext(Route):
    """The forgotten facts that one question concerns.

    Attributes:
        activate: Further records that a text activates by naming their subject; ``None`` where
            nothing is forgotten.
        question: As it was asked.
        names: Names in the question.
        subject_missing: Whether it leaves its subject to the passages or the conversation.
    """

    activate: "Callable[[str], Sequence[Record]] | None" = None
    question: str = ""
    names: tuple[str, ...] = ()
    subject_missing: bool = False

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
        judge: Decides whether a sentence states a record; without it, facts that the model
            volunteers to other questions are told.
    """

    ledger: "Ledger | None" = None
    router: "Router | None" = None
    redactor: "Redactor | None" = None
    judge: "FactJudge | None" = None

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
            of_system = self.router.activation(system) if self.router else None
            return replace(
                both,
                activate=_either(alone.activate, of_system) if self.router else None,
                question=alone.question,
                names=alone.names,
                subject_missing=alone.subject_missing,
            )
        earlier = before or FactContext()
        if self.router is None or earlier.refused is not None:
            return earlier
        routed = self.router.route(question, history)
        if routed.refused is not None:
            request_trace.withheld(routed.refused.id, "prompt")
        names = tuple(POSSESSIVE.sub("", name) for name in NAMELIKE.findall(question))
        described = earlier.described | routed.described
        return FactContext(
            routed.refused,
            tuple(dict.fromkeys((*earlier.watched, *routed.watched))),
            routed.likelihood,
            earlier.check_paraphrase | routed.check_paraphrase,
            earlier.decide_on_output | routed.decide_on_output,
            described - earlier.certain - routed.certain,
            earlier.subject_asked | routed.subject_asked,
            self.router.activation(question),
            earlier.question or question,
            names,
            # With a name in the question, its "it" may stand for that name.
            subject_missing=not names and follow_up(question),
        )

    def activate_from_passages(
        self,
        facts: FactContext,
        nodes: "Sequence[NodeWithScore]",
        withheld: Iterable[tuple[str, str]] = (),
        pasted: bool = False,
    ) -> FactContext:
        """Watch also the facts that the passages in the prompt activate.

        A passage activates the records of its subject where it also has a name of the question: the
        author of "Hamlet" is named by the passage on "Hamlet", and not by the next passage.

        Args:
            facts: Those of the question.
            nodes: The passages, redacted.
            withheld: Withheld so far, (record's id, layer). Facts redacted from the passages are
                active if only they can tell the question's subject.
            pasted: Whether the user gave the passages.
        """
        if facts.activate is None:
            return facts
        texts = [f"{prompts.origin(node.metadata)}\n{node.node.get_content()}" for node in nodes]
        activated = [
            record for text in texts if facts.about(text) for record in facts.activate(text)
        ]
        if pasted or facts.subject_missing:
            activated += self._records(id for id, layer in withheld if layer == RETRIEVAL)
        check_paraphrase = facts.check_paraphrase | {record.id for record in activated}
        watched = tuple(dict.fromkeys((*facts.watched, *activated)))
        described = facts.described - {record.id for record in activated}
        return replace(
            facts, watched=watched, check_paraphrase=check_paraphrase, described=described
        )

    def without_claimed(
        self, facts: FactContext, claims: "Iterable[tuple[str, str, str]]"
    ) -> FactContext:
        """Facts without those that are only described and whose answer a passage gives otherwise.

        "In which country is Cork?" is much like what asks for a fact about Galway, and has the same
        answer. Where a passage answers it that does not name the fact's subject, or does in other
        sentences than the one that says what the question asks about, the answer tells nothing of
        the fact; what tells it has been redacted.

        Args:
            facts: Those of the question.
            claims: Redacted passages, with what they are from, the sentence that answers, and the
                answer.
        """
        free = {
            record.id
            for record in facts.watched
            if record.id in facts.described
            for text, sentence, answer in claims
            if find_answers(answer, record)
            and _tells_another(facts.question, record, text, sentence)
        }
        watched = tuple(record for record in facts.watched if record.id not in free)
        return replace(facts, watched=watched, described=facts.described - free)

    def _records(self, ids: Iterable[str]) -> "Iterator[Record]":
        for record_id in dict.fromkeys(ids):
            if self.ledger is not None:
                with suppress(InputError):  # removed by another process since
                    yield self.ledger.record(record_id)

    def wait(self) -> None:
        """Wait until all records are embedded; until then only their names are matched."""
        if self.router is not None:
            self.router.wait()

    def redact_passages(self, nodes: "Sequence[NodeWithScore]") -> "list[NodeWithScore]":
        """The passages without the sentences that state a forgotten fact."""
        if self.redactor is None:
            return list(nodes)
        with request_trace.step("redact"):
            return self.redactor.nodes(nodes)

    def redact_history(self, history: Turns) -> list[tuple[str, str]]:
        """The conversation without such sentences: it may be older than the record."""
        return [(self._redact(question), self._redact(answer)) for question, answer in history]

    def _redact(self, text: str) -> str:
        return text if self.redactor is None else self.redactor.redact(text).text

    def watch(self, facts: FactContext) -> WatchedFacts:
        """The facts that an answer must not state, and the texts that it must not repeat."""
        if self.redactor is not None:
            self.redactor.refresh()
        return WatchedFacts(
            facts.watched,
            facts.check_paraphrase,
            facts.decide_on_output,
            facts.activate,
            self._wording,
            facts.question,
            tuple(self._named(facts.question)),
        )

    def without_wording(self, text: str) -> str:
        """A text with "…" where it repeats the wording of a text that is kept back."""
        return self._wording.cut(text)

    @property
    def _wording(self) -> VerbatimIndex:
        return VerbatimIndex() if self.redactor is None else self.redactor.wording

    def released(self, decoded: "DecodedAnswer", watch: WatchedFacts) -> "DecodedAnswer":
        """An answer that was ended only because of a text's wording is told as far as it goes.

        By engines that cannot ban a token; its content may be told, so it is not refused.
        """
        trace = decoded.trace
        if not (trace.blocked and trace.text.strip() and trace.withheld):
            return decoded
        blocked = not watch.wording.records.keys() >= set(trace.withheld)
        return replace(decoded, trace=replace(trace, blocked=blocked))

    def strip_leaks(self, decoded: "DecodedAnswer", watch: WatchedFacts) -> "DecodedAnswer":
        """An answer cut before the first sentence that states a forgotten fact, in any words.

        Where nothing is left, its trace is empty and blocked; so is that of an answer to a question
        that may have asked for the fact.
        """
        if not watch:
            return decoded
        trace = decoded.trace
        cut = 0 if trace.blocked else self.first_leak(trace.text, watch)
        if cut is not None:
            active = [record.id for record in watch.active_records(trace.text)]
            cut = cut if watch.decide_on_output.isdisjoint(active) else 0
            trace = replace(trace.until(cut), blocked=not trace.text[:cut].strip())
            text = decoded.trace.text
            told = [*self._volunteered(text, watch), *watch.wording.repeated(text)]
            withheld = [*trace.withheld, *active, *(record.id for record in told)]
            trace.withheld = list(dict.fromkeys(withheld))
            return replace(decoded, trace=trace, verdict=None)
        verdict = decoded.verdict
        if verdict and self.first_leak(str(verdict), watch) is not None:
            verdict = None
        return replace(decoded, verdict=verdict)

    def may_ask_again(self, watch: WatchedFacts) -> bool:
        """Whether an answer that was withheld may be asked for once more, in a few words.

        Not where the question may ask for a forgotten fact, or asks to confirm anything: in a "yes"
        nothing can be guarded.
        """
        return not watch.decide_on_output and CONFIRMS.search(watch.question) is None

    @cached_property
    def door(self) -> Door:
        """What clears all that is shown."""
        return Door(self.redactor, self.ledger)

    def leak_free(self, texts: Sequence[str], facts: FactContext) -> list[str]:
        """The texts that contain no watched answer."""
        watch = self.watch(facts)
        return [text for text in texts if not watch or watch.completed("", text) is None]

    def first_leak(self, text: str, watch: WatchedFacts) -> int | None:
        """Where the first sentence begins that states a watched fact, in any words; else ``None``.

        Or with which the text, an answer or its complete sentences so far, repeats too much of a
        wording that is kept back.
        """
        active = watch.active_records(text)
        named = [record for record in self._about(text, watch) if record not in active]
        copied = bool(watch.wording.repeated(text))
        if not active and not named and not copied:
            return None
        for start, end in _sentences(text):
            # Checked with all that precedes it, since a later sentence may say only "it".
            told = text[:end]
            if self._states(told, watch) or self._volunteered(told, watch, named):
                return start
            if copied and watch.wording.repeated(told):
                return start
        return None

    def _named(self, text: str) -> "Sequence[Record]":
        """The records whose subject a text names, without those of a subject as a whole."""
        if self.router is None or self.judge is None:
            return ()
        return [record for record in self.router.named(text) if record.spans]

    def _about(self, text: str, watch: WatchedFacts) -> "Sequence[Record]":
        """The records whose subject a text or its question names."""
        return list(dict.fromkeys((*self._named(text), *watch.named)))

    def _volunteered(
        self, text: str, watch: WatchedFacts, records: "Sequence[Record] | None" = None
    ) -> "Sequence[Record]":
        """The records that a text states, although the question does not ask for them.

        "Which country is Lisbon in?" may be answered by "Portugal", and "Lisbon is in Portugal" is
        not what is kept back; "Lisbon is the capital of Portugal" is.

        Args:
            text: Complete sentences of an answer.
            watch: Of the question.
            records: Those to look for; by default those whose subject text or question names.
        """
        found = self._about(text, watch) if records is None else records
        given = [record for record in found if find_answers(text, record)]
        *_, (start, end) = _sentences(text.rstrip(), SENTENCE_END)
        last = text[start:end]
        sure = [one for one in given if one in watch.named and normalize.holds(last, one.names)]
        rest = [one for one in given if one not in sure]
        return [*self._judged(text, sure, NAMING), *self._judged(text, rest, GIVING)]

    def _states(self, text: str, watch: WatchedFacts) -> bool:
        """Whether a text contains an active answer or paraphrases a fact."""
        active = watch.active_records(text)
        if any(watch.gives_new(text, one) for one in active):
            return True
        repeated = [one for one in active if find_answers(text, one)]
        if self._judged(text, repeated, GIVING, watch.question):
            return True
        others = [one for one in active if one not in repeated]
        compared = [one for one in others if one.id in watch.check_paraphrase]
        return bool(self._judged(text, compared, STATING))

    def _judged(
        self, text: str, records: "Sequence[Record]", least: float, asked: str | None = None
    ) -> "Sequence[Record]":
        """Those of the records that the last sentence of a text states.

        Args:
            text: Complete sentences.
            records: The records.
            least: Likelihood from which it states one.
            asked: The question, where a text that names nothing need not be about the record.
        """
        # What follows a colon is read alone, and with what is before it: "Belgium: ... the euro."
        readings = [
            [part for start, end in _sentences(text, ends) if (part := text[start:end].strip())]
            for ends in (CLAUSE_END, SENTENCE_END)
        ]
        readings = readings[: 1 + (readings[0] != readings[1])]
        if self.judge is None or not records or not readings[0]:
            return ()
        asked_about = [asked is None or normalize.holds(asked, one.names) for one in records]
        pairs = [
            (_last_of(sentences, record, about), stated(record))
            for sentences in readings
            for record, about in zip(records, asked_about, strict=True)
        ]
        likely = self.judge.states(pairs)
        surest = [max(likely[place :: len(records)]) for place in range(len(records))]
        return [record for record, p in zip(records, surest, strict=True) if p >= least]

    @contextmanager
    def buffer_stream(
        self, on_token: OnClearedToken, watches: Sequence[WatchedFacts]
    ) -> Iterator[tuple[OnToken, set[int]]]:
        """Stream tokens, those of watched answers by complete sentences without a leak.

        An answer to a question that may ask for a forgotten fact is streamed at its end, since all
        of it may be withheld.

        Yields:
            A callback for the tokens, and the indices of answers that are streamed no further.
        """
        buffered: dict[int, list[TokenTrace]] = {}
        texts: dict[int, str] = {}
        stopped = set[int]()

        def flush(index: int) -> None:
            if index in stopped or self.first_leak(texts[index], watches[index]) is not None:
                stopped.add(index)
                return
            tokens = buffered.pop(index)
            new = sum(len(token.text) for token in tokens)
            before = texts[index][: len(texts[index]) - new]
            for token in cleared_tokens(tokens, watches[index], before):
                on_token(index, token)

        def buffer(index: int, token: "TokenTrace") -> None:
            if not watches[index]:
                on_token(index, ClearedToken(token))
                return
            buffered.setdefault(index, []).append(token)
            texts[index] = texts.get(index, "") + token.text
            if CLAUSE_END.search(token.text + " ") and not watches[index].decide_on_output:
                flush(index)

        yield buffer, stopped
        for index in list(buffered):
            flush(index)

    def record_withheld(self, withheld: Sequence[tuple[str, str]]) -> None:
        """Record in the audit what was withheld: (record's id, layer)."""
        if self.ledger is not None:
            for record_id, layer in dict.fromkeys(withheld):
                self.ledger.note("withheld", record_id, layer=layer)


def refusal(question: str) -> str:
    """A short sentence that refuses; the same question always gets the same one."""
    return REFUSALS[crc32(question.encode()) % len(REFUSALS)]


def _tells_another(question: str, record: "Record", text: str, sentence: str) -> bool:
    """Whether what a passage says in a sentence is about something else than a record's subject."""
    if not normalize.holds(text, record.names):
        return True
    if has_reference(sentence) or normalize.holds(sentence, record.names):
        return False
    own = normalize.words_of((*asked_forms(record), *record.names))
    return normalize.holds(sentence, content(question) - own)


def _sentences(text: str, ends: re.Pattern[str] = CLAUSE_END) -> Iterator[normalize.Place]:
    """The sentences of an answer, by default with what follows a colon as one of them."""
    return pairwise([0, *(match.end() for match in ends.finditer(text)), len(text)])


def _last_of(sentences: Sequence[str], record: "Record", about: bool) -> str:
    """The last of the sentences, as it is judged by a record.

    Args:
        sentences: Of an answer.
        record: The record.
        about: Whether the question is about it; then an answer that names nothing is, too.
    """
    naming = {n for n, one in enumerate(sentences) if normalize.holds(one, record.names)}
    last = len(sentences) - 1
    before = context(sentences, last, naming, not naming)
    return in_passage(sentences[last], before, record.subject if about and not naming else "")


def _either(
    *parts: "Callable[[str], Sequence[Record]] | None",
) -> "Callable[[str], Sequence[Record]]":
    """Gives the records that a text activates by any of the parts."""

    def activated(text: str) -> "Sequence[Record]":
        return list(dict.fromkeys(record for part in parts if part for record in part(text)))

    return activated
