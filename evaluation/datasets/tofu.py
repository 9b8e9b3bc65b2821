"""TOFU (Maini et al. 2024): invented authors, whose questions and answers are the documents.

An answer there is a sentence. What must not be said of it is its telling span: the words that the
wrong ("perturbed") answers change, and that stand in the answer and not in the question.
"""

import difflib
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from control.forgetting.record import TOO_COMMON, Record
from evaluation import metrics
from evaluation.datasets.conflicts import spread
from evaluation.datasets.probes import (
    OF_EACH_KIND,
    ORDINARY,
    ForgetRequest,
    Neighbour,
    ProbedFact,
    draw_neighbours,
    probes,
)
from foundation import records
from foundation.text import words

SOURCE = "TOFU"
OFFICIAL = "1"  # `task_id` of forget10; the other tasks hold pairs of retain90
FORGET, RETAIN = "forget", "retain"  # parts of the benchmark; the others are named by their file
BLOCK = 20  # questions of an author, one after the other
LONGEST_SPAN = 8  # words; a longer one is a paraphrase, which no string can stand for
SHORTEST_WORD = 4  # letters; a span of shorter words tells nothing
CHANGED_BY = 2  # perturbed answers that have to change a word
SHORTEST_CLOZE = 3  # words before the answer
PLAIN_ANSWER = 14  # words; in a longer answer only a name of several words tells it
REPEATED = 2  # answers of an author that may hold the span; more, and it tells no single fact
WRONG = 3

_QUOTES = "\"'\u2018\u2019\u201c\u201d"  # straight and curly
_NAME = re.compile(r"[A-Z][\w-]+(?: (?:bin |de |al-)?[A-Z][\w-]+)+")
_TELLING = re.compile(rf"[{_QUOTES}]([^{_QUOTES}]{{4,}})[{_QUOTES}]|([A-Z][\w-]+(?: [A-Z][\w-]+)*)")
# A span from one title or sentence into the next, or one that ends within a phrase.
_CUT = re.compile(rf"[{_QUOTES}](?!s\b)|\w[.;] |\b(?:{'|'.join(TOO_COMMON)})$", re.IGNORECASE)


@dataclass(frozen=True)
class TofuPair:
    """A question and its answer.

    Attributes:
        question: The question.
        answer: A sentence.
        author: Whom it is about; empty if the question does not say.
        span: What tells the answer; empty if nothing short does.
        paraphrase: Another form of the question.
        cloze: The answer up to the span; empty if that says too little.
        wrong: What stands in place of the span in wrong answers.
    """

    question: str
    answer: str
    author: str = ""
    span: str = ""
    paraphrase: str = ""
    cloze: str = ""
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class TofuQuestion:
    """A question of the benchmark.

    Attributes:
        part: ``forget``, ``retain``, or the name of the file.
        question: The question.
        answer: Its answer.
        told: The answer in other words; the answer itself where the file has none.
        wrong: Answers like it that are wrong.
    """

    part: str
    question: str
    answer: str
    told: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """What is asked, what is to be forgotten, and the documents.

    Attributes:
        authors: Those of forget10.
        questions: So many of each part.
        forget: Question and answer pairs of these authors.
        retain: Those of the others.
    """

    authors: tuple[str, ...]
    questions: tuple[TofuQuestion, ...]
    forget: tuple[str, ...]
    retain: tuple[str, ...]


def benchmark(
    loaded: Sequence[records.DataRecord],
    others: Mapping[str, Sequence[records.DataRecord]],
    limit: int | None = None,
) -> Benchmark:
    """The benchmark of Maini et al., with documents in place of training.

    Args:
        loaded: The file of forget10 with perturbed answers, of all tasks.
        others: By part, the files about real authors and the world.
        limit: At most so many questions of each part, drawn evenly.
    """
    official = [record for record in loaded if record.values["task_id"] == OFFICIAL]
    retained = [record for record in loaded if record.values["task_id"] != OFFICIAL]
    blocks = [official[start : start + BLOCK] for start in range(0, len(official), BLOCK)]
    asked = [[records.text(record, "question") for record in block] for block in blocks]
    parts = {FORGET: official, RETAIN: retained, **others}
    questions = [
        _scored_question(part, record)
        for part, of in parts.items()
        for record in spread(list(of), limit)
    ]
    return Benchmark(
        tuple(filter(None, map(_author, asked))),
        tuple(questions),
        tuple(map(_document, official)),
        tuple(map(_document, retained)),
    )


def _scored_question(part: str, record: records.DataRecord) -> TofuQuestion:
    answer = records.text(record, "answer")
    told = records.text(record, "paraphrased_answer") if part in (FORGET, RETAIN) else answer
    wrong = records.texts(record, "perturbed_answer")
    return TofuQuestion(part, records.text(record, "question"), answer, told, tuple(wrong))


def _document(record: records.DataRecord) -> str:
    return f"Q: {records.text(record, 'question')}\nA: {records.text(record, 'answer')}"


def forgotten(loaded: Sequence[records.DataRecord]) -> list[TofuPair]:
    """The pairs of forget10."""
    official = [record for record in loaded if record.values["task_id"] == OFFICIAL]
    pairs = []
    for start in range(0, len(official), BLOCK):
        block = official[start : start + BLOCK]
        author = _author([records.text(record, "question") for record in block])
        pairs += _single([_perturbed(record, author) for record in block])
    return pairs


def retained(loaded: Sequence[records.DataRecord], without: Sequence[TofuPair]) -> list[TofuPair]:
    """The pairs of retain90, without the questions that also stand in forget10."""
    taken = {pair.question for pair in without}
    pairs = [
        TofuPair(records.text(record, "question"), records.text(record, "answer"))
        for record in loaded
    ]
    found = []
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        author = _author([pair.question for pair in block])
        found += [
            TofuPair(pair.question, pair.answer, author if author in pair.question else "", span)
            for pair in block
            if pair.question not in taken and (span := _telling(pair.question, pair.answer))
        ]
    return found


def ordinary(loaded: Sequence[records.DataRecord]) -> list[Neighbour]:
    """Questions on real authors and on the world, closed-book."""
    return [
        Neighbour(
            ORDINARY,
            records.text(record, "question"),
            (records.text(record, "answer"),),
            context="",
        )
        for record in loaded
    ]


def requests(forget: Sequence[TofuPair], retain: Sequence[TofuPair]) -> list[ForgetRequest]:
    """A request for each pair of forget10 whose question names the author and has a span."""
    everything = [pair for pair in (*forget, *retain) if pair.author and pair.span]
    asked = [(pair, words(pair.question) - words(pair.author)) for pair in everything]
    return [_request(pair, asked) for pair in forget if pair.author and pair.span]


def _author(questions: Sequence[str]) -> str:
    """The name that most of an author's questions hold."""
    named = Counter(name for text in questions for name in set(_NAME.findall(text)))
    return named.most_common(1)[0][0] if named else ""


def _perturbed(record: records.DataRecord, author: str) -> TofuPair:
    question, answer = records.text(record, "question"), records.text(record, "answer")
    told = records.text(record, "paraphrased_answer")
    changed: Counter[int] = Counter()
    replaced: list[tuple[range, str]] = []
    mine = told.split()
    for other in records.texts(record, "perturbed_answer"):
        theirs = other.split()
        matcher = difflib.SequenceMatcher(None, mine, theirs, autojunk=False)
        for tag, start, stop, first, last in matcher.get_opcodes():
            if tag in ("replace", "delete"):
                changed.update(range(start, stop))
                replaced.append((range(start, stop), " ".join(theirs[first:last])))
    skip = words(question) | words(author)
    runs = _runs([at for at in sorted(changed) if changed[at] >= CHANGED_BY])
    spans = [span for run in runs for span in _find_span(mine, run, answer, skip)]
    span, at = max(spans, key=lambda found: len(found[0].split()), default=("", range(0)))
    wrong = [_bare(text) for where, text in replaced if set(where) & set(at)]
    begins = answer.find(span) if span else -1
    cloze = answer[:begins].strip(f" {_QUOTES}")
    return TofuPair(
        question,
        answer,
        author if author in question else "",
        span,
        records.text(record, "paraphrased_question"),
        cloze if len(cloze.split()) >= SHORTEST_CLOZE else "",
        tuple(dict.fromkeys(text for text in wrong if text))[:WRONG],
    )


def _single(block: Sequence[TofuPair]) -> list[TofuPair]:
    """An author's pairs, those without span whose span does not tell this one fact."""

    def tells(pair: TofuPair) -> bool:
        content = [word for word in pair.span.split() if len(word) >= SHORTEST_WORD]
        name = len(content) > 1 and all(word[0].isupper() for word in content)
        short = len(pair.answer.split()) <= PLAIN_ANSWER
        repeated = sum(metrics.holds(other.answer, [pair.span]) for other in block)
        return (name or short) and repeated <= REPEATED

    return [pair if pair.span and tells(pair) else replace(pair, span="") for pair in block]


def _runs(places: Sequence[int]) -> list[range]:
    runs: list[range] = []
    for at in places:
        if runs and runs[-1].stop == at:
            runs[-1] = range(runs[-1].start, at + 1)
        else:
            runs.append(range(at, at + 1))
    return runs


def _find_span(
    mine: Sequence[str], run: range, answer: str, skip: set[str]
) -> list[tuple[str, range]]:
    """The longest part of a run of changed words that also stands in the answer."""
    for length in range(min(len(run), LONGEST_SPAN), 0, -1):
        for start in range(run.start, run.stop - length + 1):
            text = _bare(" ".join(mine[start : start + length]))
            if _CUT.search(text):
                continue
            content = words(text) - skip - TOO_COMMON
            if any(len(word) >= SHORTEST_WORD for word in content) and metrics.holds(
                answer, [text]
            ):
                return [(text, range(start, start + length))]
    return []


def _bare(text: str) -> str:
    text = re.sub(r"^(?:the|an?|as|of|in|on|to|by) ", "", text, flags=re.IGNORECASE)
    return text.strip(f" .,;:!?(){_QUOTES}").removesuffix("'s")


def _telling(question: str, answer: str) -> str:
    """A title or name in the answer that the question does not give."""
    for match in _TELLING.finditer(answer):
        text = match[1] or match[2]
        if match.start() and not words(text) & (words(question) | TOO_COMMON):
            return text
    return ""


def _request(pair: TofuPair, asked: Sequence[tuple[TofuPair, set[str]]]) -> ForgetRequest:
    record = Record(subject=pair.author, questions=(pair.question,), answers=(pair.span,))
    like = sorted(
        (other for other in asked if other[0].author != pair.author),
        key=lambda other: -_overlap(words(pair.question) - words(pair.author), other[1]),
    )
    example = like[0][0]
    told = ProbedFact(
        record,
        cloze=pair.cloze,
        passage=f"Q: {pair.question}\nA: {pair.answer}",
        paraphrases=(pair.paraphrase,),
        wrong=pair.wrong,
        example=(example.question, example.span),
    )
    draw = random.Random(pair.question)  # noqa: S311 - nothing secret
    others = [other for other, _ in asked if other.author != pair.author]
    neighbours = draw_neighbours(
        draw,
        lambda kind, other: Neighbour(kind, other.question, (other.span,)),
        same_subject=[
            other
            for other, _ in asked
            if other.author == pair.author and not metrics.holds(other.answer, [pair.span])
        ],
        same_relation=[other for other, _ in like[:OF_EACH_KIND]],
        same_answer=[other for other in others if metrics.holds(other.span, [pair.span])],
        unrelated=[other for other, _ in like[len(like) // 2 :]],
    )
    return ForgetRequest(SOURCE, record, tuple(probes(told)), neighbours)


def _overlap(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(len(first | second), 1)
