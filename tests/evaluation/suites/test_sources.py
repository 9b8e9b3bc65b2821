"""The tasks on what sources claim: a system without faults scores 100 %, a useless one 0."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from control.answer import Answer, Source
from control.conflict.reader import DATE_QUESTION, REPLACES_QUESTION, Reading
from control.conflict.sources import Citation, SourceClaim
from control.conflict.verdict import Verdict
from control.decoding.generate import Decoding
from evaluation.datasets import sources
from evaluation.datasets.conflicts import BUILT_IN_CONFLICTS, conflicts
from evaluation.suites.sources import HIDDEN, TASKS, USUAL_TASKS, Run, SourceSystem, held_out, run
from evaluation.suites.sources.checks import Check, failures, holds, holds_only, shares
from foundation.errors import DataError, InputError
from training import reading

LIMIT = 10
RAMDOCS = [
    {
        "question": "What is Ona?",
        "documents": [
            {"text": "Ona is a river.", "type": "correct", "answer": "a river"},
            {"text": "Ona is a tower.", "type": "correct", "answer": "a tower"},
            {"text": "Ona is a goat.", "type": "misinfo", "answer": "a goat"},
        ],
        "gold_answers": ["a river", "a tower"],
        "wrong_answers": ["a goat"],
    }
]
WORSE = {
    "memory said to remember",
    "unanswered: answered",
    "left open: answered",
    "wrong or left open: cited",
    "conflict: false alarm",
}
"""Measures of what should not be: no system without faults has any."""


@dataclass(frozen=True)
class FakeAssistant:
    """Answers by a function of the query, and counts what it is asked."""

    answer: object
    reader: object
    support: object
    model: object

    def ask_batch(self, queries, decoding):
        return [self.answer(query, decoding) for query in queries]


@dataclass(frozen=True)
class FakeSystem(SourceSystem):
    def known(self, items, count, target):
        return items[:count]


def reply(query, text, claims=(), settled="", conflict=False, abstained=False):
    nodes = query.given or ()
    return Answer(
        question=query.question,
        rewritten=query.question,
        queries=[],
        answer=text,
        alpha=0.5,
        conflict=conflict,
        verdict=Verdict("this", "that", 0.5, "passages") if conflict else None,
        tokens=[],
        sources=[Source(node.node_id, "", None, True, "", node.text) for node in nodes],
        claims=list(claims),
        settled=settled,
        abstained=abstained,
        citations=[] if abstained else [Citation(0, len(text), ("a file",))],
    )


class Perfect:
    """Knows the records."""

    def __init__(self):
        self.pinned = None
        self.verdicts = {item.question: item for item in sources.verdicts()}
        self.versions = {
            item.question: item
            for beside in (False, True)
            for item in sources.versions(beside=beside)
        }
        self.corpus = {item.question: item for item in sources.only_documents()}
        self.files = {
            item.question: item
            for split in ("test", "calibration")
            for item in sources.files(split=split)
        }
        self.read_texts = {(item.question, item.text): item for item in sources.claims()}
        self.written = {item.question: item for item in sources.sentences()}
        self.conflicts = {item.question: item for item in conflicts(BUILT_IN_CONFLICTS, "test")}
        self.corrected = {
            (item.statement, question): item.answer
            for item in sources.corrections()
            for question in item.questions
        }
        self.asked = []

    def answer(self, query, decoding):
        self.asked.append(query.question)
        question = query.question
        if query.given is None:
            known = self.corpus.get(question)
            told = (
                known.answers[:1] if known else [each[0] for each in self.files[question].answers]
            )
            text = " and ".join(told) or "The documents do not say."
            return reply(query, text, abstained=not told)
        if question in self.verdicts and len(query.given) > 1:
            return self.verdict(query, self.verdicts[question])
        if question in self.versions:
            return self.version(query, self.versions[question])
        if question in self.conflicts:
            item = self.conflicts[question]
            contrary = query.given[0].text == item.context
            return reply(query, "That.", conflict=contrary)
        if question == RAMDOCS[0]["question"]:
            return reply(query, "It is a river, or a tower.")
        return reply(query, self.corrected.get((self.pinned, question), "It is 12."))

    def verdict(self, query, item):
        claims = [
            SourceClaim(query.given[place].node_id, claim.says[0])
            for claim in item.claims
            for place in claim.passages
        ]
        text = " or ".join(claim.says[0] for claim in item.claims)
        return reply(query, text, claims, "The documents disagree." if item.disagree else "")

    def version(self, query, item):
        follow = item.newest
        if query.sources.as_of:
            follow = item.as_of[1]
        claims = []
        for node in query.given:
            [place] = [
                at
                for at, document in enumerate(item.documents)
                if document.name == Path(node.metadata["source"]).name
            ]
            # In as few words as will do.
            claims += [
                SourceClaim(node.node_id, said, followed=place == follow)
                for said in item.accepted(place)[-1:]
            ]
        return reply(query, item.accepted(follow)[-1], claims)

    def read(self, asked):
        """Of documents themselves it reads nothing."""
        if {question for question, _ in asked} <= {DATE_QUESTION, REPLACES_QUESTION}:
            return [Reading() for _ in asked]
        known = [self.read_texts.get((q, text.removeprefix("Passage: "))) for q, text in asked]
        return [Reading(item.answers[0], 0, 1.0) if item else Reading() for item in known]

    def written_as(self, answer):
        return next(
            item
            for item in self.written.values()
            if all(sentence.text in answer for sentence in item.sentences)
        )

    def cite(self, answer, passages):
        citations = []
        for sentence in self.written_as(answer).sentences:
            start = answer.index(sentence.text)
            names = tuple(passages[place][0] for place in sentence.passages)
            citations.append(Citation(start, start + len(sentence.text), names))
        return citations

    @contextmanager
    def pin(self, statement):
        assert self.pinned is None
        self.pinned = statement
        yield
        self.pinned = None


class Useless(Perfect):
    """Is wrong about everything."""

    def answer(self, query, decoding):
        self.asked.append(query.question)
        item = self.verdicts.get(query.question)
        settled = "The documents disagree." if item is not None and not item.disagree else ""
        conflict = item is not None or (
            query.question in self.conflicts
            and query.given[0].text != self.conflicts[query.question].context
        )
        corpus = self.corpus.get(query.question)
        answered = query.given is None and corpus is not None and corpus.kind == "answered"
        changed = "Nonsense, pinned." if self.pinned else "Nonsense."
        return reply(query, changed, [], settled, conflict, abstained=answered)

    def read(self, asked):
        return [Reading("nonsense", 0, 1.0)] * len(asked)

    def cite(self, answer, passages):
        citations = []
        for sentence in self.written_as(answer).sentences:
            start = answer.index(sentence.text)
            wrong = tuple(
                name for place, (name, _) in enumerate(passages) if place not in sentence.passages
            )
            citations.append(Citation(start, start + len(sentence.text), wrong))
        return citations


def system_of(fake):
    assistant = FakeAssistant(
        fake.answer,
        SimpleNamespace(read=fake.read),
        SimpleNamespace(cite=fake.cite),
        SimpleNamespace(name="fake"),
    )
    system = FakeSystem(assistant, Decoding(), pin=fake.pin)
    return replace(system, over=lambda documents: system)


@pytest.fixture
def ramdocs(tmp_path):
    path = tmp_path / "ramdocs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in RAMDOCS), encoding="utf-8")
    return path


SHARED = [name for name in TASKS if name != "held-out"]  # which measures the reader alone


def measured(report, *leave_out):
    """Share of each measure, over all kinds and arms."""
    return {
        (task, row["measure"], row["of"], row.get("arm", "")): row["share"]
        for task in SHARED
        for row in report["tables"].get(task, [])
        if row["measure"] not in leave_out
    }


# Whether dates are found, and what values are, is up to code that no fake takes the place of.
REAL = ("date found", "newest has the latest date", "value", "relation")


def test_a_system_without_faults_scores_100_percent(tmp_path, ramdocs):
    report = run(Run(system_of(Perfect()), tmp_path, LIMIT), SHARED, ramdocs)
    scores = measured(report, *REAL, "neighbour still right, of those right")
    assert {task for task, *_ in scores} == set(SHARED) - {"values"}
    # of memory twice as many, with either passage; of values in notations and in words
    assert report["n"] == LIMIT * (len(SHARED) - 1) + 2 * LIMIT + len(RAMDOCS)
    for (task, measure, *_), share in scores.items():
        assert share == (0 if measure in WORSE else 100), (task, measure)
    lost = report["tables"].get("failures", [])
    assert {row["measure"] for row in lost} <= set(REAL)


def test_a_useless_system_scores_nothing(tmp_path, ramdocs):
    tasks = [name for name in SHARED if name != "values"]
    report = run(Run(system_of(Useless()), tmp_path, LIMIT), tasks, ramdocs)
    for (task, measure, *_), share in measured(report, *REAL).items():
        assert share == (100 if measure in WORSE else 0), (task, measure)
    for row in report["tables"]["failures"]:
        assert row["question"]
        assert row["expected"]


def like_length(texts):
    angles = np.array([len(text) for text in texts]) / 1000
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize(("sure", "found"), [(0.85, 100), (0.6, 0)])
def test_on_held_out_texts_the_reader_is_measured_alone(tmp_path, sure, found):
    known = {
        (one.question, one.text): one.answer
        for several in held_out.examples(like_length).values()
        for one in several
    }
    for question in held_out.nearest(like_length):  # of the documents that are like it one answers
        pairs = [(one.question, one.text) for one in question.asked]
        free = [pair for pair in pairs if pair not in known]
        if question.answers and free:
            known[free[0]] = min(question.answers)

    def read(asked):
        answers = [known.get(one, "") for one in asked]
        return [Reading(answer, 0, sure if answer else 0.1) for answer in answers]

    system = system_of(Perfect())
    system = replace(system, vectors=like_length)
    stated = {one.sentence for one in sources.table_statements() if one.kind == "right"}
    several = reading.parallel(held_out=True)[:40]
    stated |= {sentence for record in several for sentence in record["true"]}

    def cite(answer, passages):
        return [Citation(0, len(answer), tuple(name for name, _ in passages if answer in stated))]

    judged = {"reader": SimpleNamespace(read=read), "support": SimpleNamespace(cite=cite)}
    system = replace(system, assistant=replace(system.assistant, **judged))
    report = run(Run(system, tmp_path, 40), ["held-out"])
    cited = {row["sentences"]: row for row in report["tables"]["held-out: citations"]}
    assert {kind: row["cited"] for kind, row in cited.items()} == {
        "tables: right": 100,
        "tables: wrong": 0,
        "tables: absent": 0,
        "several things: true": 100,
        "several things: false": 0,
    }
    assert cited["several things: true"]["n"] == sum(len(record["true"]) for record in several)
    rows = report["tables"]["held-out"]
    assert [row["n"] for row in rows] == [40] * len(rows)
    assert all(row["exact span"] == 100 and row["AUROC"] == 1 for row in rows)
    assert all(row["answered, of those that answer"] == found for row in rows)
    assert all(row["answered, of those that do not"] == 0 for row in rows)
    by_bar = {row["from"]: row for row in report["tables"]["held-out: several documents"]}
    assert by_bar[0.7]["n"] == 40
    assert by_bar[0.7]["AUROC"] == 1
    assert by_bar[0.7]["answered, of those that one answers"] == found
    assert by_bar[0.9]["answered, of those that one answers"] == 0
    assert by_bar[0.7]["answered, of those that all leave open"] == 0


def test_shares_come_with_counts_and_intervals(tmp_path):
    report = run(Run(system_of(Perfect()), tmp_path, LIMIT), ["claims", "values"])
    rows = report["tables"]["claims"]
    assert {row["of"] for row in rows} == {"sentences", "passages", "all"}
    [every] = [row for row in rows if (row["measure"], row["of"]) == ("exact span", "all")]
    assert every["n"] == LIMIT
    assert every["ci"]["share"] == [100, 100]
    confusions = report["tables"]["values: confusions"]
    assert sum(row["n"] for row in confusions) == LIMIT
    for row in confusions:
        said = sum(row[f"said {relation}"] for relation in ("same", "compatible", "contradictory"))
        assert said == row["n"]
    assert set(HIDDEN) & set(report["tables"]) <= {"failures"}


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    first, again = Perfect(), Perfect()

    def stops(query, decoding):
        if len(first.asked) == 5:
            raise KeyboardInterrupt
        return first.answer(query, decoding)

    whole = system_of(first)
    stopping = replace(whole, assistant=replace(whole.assistant, answer=stops))
    with pytest.raises(KeyboardInterrupt):
        run(Run(stopping, tmp_path, LIMIT, batch_size=2), ["verdicts"])
    report = run(Run(system_of(again), tmp_path, LIMIT, batch_size=2), ["verdicts"])
    assert len(again.asked) == LIMIT - 4
    assert run(Run(system_of(Useless()), tmp_path, LIMIT), ["verdicts"]) == report


def test_rows_of_another_system_are_not_mixed_in(tmp_path):
    run(Run(system_of(Perfect()), tmp_path, 2), ["claims"])
    other = replace(system_of(Perfect()), identity="trained again")
    with pytest.raises(DataError, match="holds the rows of another run"):
        run(Run(other, tmp_path, 2), ["claims"])


def test_what_a_task_lacks_is_named(tmp_path):
    bare = replace(system_of(Perfect()), pin=None)
    bare = replace(bare, assistant=replace(bare.assistant, reader=None, support=None))
    for task, lacking in {
        "claims": "the reader",
        "held-out": "the reader",
        "sentences": "what finds citations",
        "corrections": "an assistant that takes corrections",
        "ramdocs": "its file",
    }.items():
        with pytest.raises(InputError, match=f"--task {task} needs {lacking}"):
            run(Run(bare, tmp_path, 1), [task])


def test_plain_rag_answers_without_the_reader(tmp_path, ramdocs):
    seen = []

    def answer(query, decoding):
        seen.append((decoding.rule, query.sources.policy))
        right = decoding.rule == "plain"
        return reply(query, "a river, a tower" if right else "a river, a tower, a goat")

    system = system_of(Perfect())
    system = replace(system, assistant=replace(system.assistant, answer=answer))
    report = run(Run(system, tmp_path), ["ramdocs"], ramdocs)
    assert seen == [("plain", None), *(("fulcrum", one) for one in (None, "majority", "all"))]
    scores = {row["arm"]: row for row in report["tables"]["ramdocs"]}
    assert {arm: row["share"] for arm, row in scores.items()} == {
        "plain": 100,
        "default": 0,
        "majority": 0,
        "all": 0,
    }
    assert scores["plain"]["p"] is None
    assert scores["all"]["p"] == 1  # one question shows nothing


def test_a_value_counts_with_and_without_its_article():
    assert holds("They wear orange wristbands, each an orange wristband.", ["an orange wristband"])
    assert holds("Orange wristband", ["an orange wristband"])
    assert not holds("a green wristband", ["an orange wristband"])
    assert holds_only("fifty-five", ["fifty-five"], ["fifty"])
    assert not holds_only("45 days, once 21 days", ["45 days"], ["21 days"])
    assert holds_only("45 days", ["45 days"], [""])


def test_arms_are_tested_against_the_baseline_on_the_same_records():
    checks = [
        Check("right", str(number), score, arm=arm)
        for arm, score in (("base", 0), ("other", 1))
        for number in range(10)
    ]
    base, other = shares(checks, "base")
    assert base["p"] is None
    assert other["p"] == pytest.approx(2 * 0.5**10)
    unlike = [check for check in checks if (check.arm, check.id) != ("other", "3")]
    assert [row["p"] for row in shares(unlike, "base")] == [None, None]


def test_what_should_not_be_is_a_failure_where_it_is():
    checks = [Check("harm", "1", 1, wanted=0), Check("harm", "2", 0, wanted=0)]
    assert [row["id"] for row in failures("task", checks)] == ["1"]


def test_the_usual_tasks_need_no_more_than_the_assistant():
    assert set(USUAL_TASKS) == set(TASKS) - {
        "corrections",
        "files-calibration",
        "held-out",
        "ramdocs",
    }


def test_the_command_offers_every_task():
    from app.cli.evaluate.sources import SOURCE_TASKS

    assert tuple(TASKS) == SOURCE_TASKS
