"""Trains the classifier of forgotten facts (`control.forgetting.classifier`).

From facts with messages and sentences written for it (``facts.jsonl``), from plain facts, such as
that a river flows into a sea, whose messages and sentences were written for each relation
(``plain_facts.jsonl``), and from the questions of `training.fact_questions`. One in eight of the
written facts and relations is held out.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from control.forgetting.classifier import (
    LONGEST,
    asked,
    asked_backwards,
    context,
    in_conversation,
    in_passage,
    stated,
)
from control.forgetting.matcher import find_answers
from control.forgetting.normalize import find
from control.forgetting.questions import question_forms
from control.forgetting.record import Record
from control.forgetting.segments import mask
from control.forgetting.text_redaction import MASK
from control.forgetting.word_translation import translated
from data import DIRECTORY as DATA
from training.encoders import EPOCHS_ON, SMOKE, Embed, EncoderTask, tune, vectors
from training.fact_questions import build_cases

READER = DATA / "adapters" / "reader"  # of the same rank
WRITTEN = Path(__file__).with_name("facts.jsonl")
PLAIN = Path(__file__).with_name("plain_facts.jsonl")
DEVELOPMENT = 8  # one in so many written facts and relations is held out
RANK, EPOCHS = 64, 3
# At the rate of the other encoders it learned nothing but how frequent the labels are.
LEARNING_RATE = 4e-4
ORIGIN = """\
It goes on from the encoder of the adapter `reader`. `training/fact_classifier.py` builds the
examples, from facts with messages and sentences written for it (`training/facts.jsonl`), plain ones
(`training/plain_facts.jsonl`) and templates. What it is worth: `docs/forgetting.md`."""
MADE = 4_000  # of the made questions that are learned from
WITH_RELATION = 0.8  # share of the records that say their relation
MASKED = 0.5  # share of the stating sentences that are also shown with the answer masked
LOWERED = 0.3  # share of the questions about other subjects in small letters
TEXTS = ("passages", "prose")  # on several subjects; that tell a fact in passing
BACKWARDS = ("reverse", "same answer")  # kinds of made questions that say the answer
HIDDEN = 0.5  # share of the sentences of passages that are preceded by "…" for the answer
UNTITLED = 0.5  # share of the sentences and passages that name the subject, shown without the title
RENAMED = 6  # texts of each fact that are also held against one of another name
CHANGED = 0.5  # share of those texts whose other name is the same but for a word
NEAREST = 8  # subjects that are looked through for another name
EACH_PLAIN = 2  # texts of a kind of each plain fact


class FactExample(NamedTuple):
    """A text, what is known of the fact, and whether the text asks for it or states it.

    Attributes:
        kind: Of the text.
        text: A message or a sentence.
        fact: As `control.forgetting.classifier` writes it.
        concerns: Whether it asks for the fact or gives it away.
    """

    kind: str
    text: str
    fact: str
    concerns: bool


def written(held_out: bool = False, path: Path = WRITTEN) -> list[dict[str, Any]]:
    """The written facts, or the relations of ``PLAIN``: to learn from, or those held out."""
    with path.open(encoding="utf-8") as file:
        return [
            fact
            for number, fact in enumerate(map(json.loads, file))
            if (number % DEVELOPMENT == 0) == held_out
        ]


def record_of(fact: dict[str, Any]) -> Record:
    """A written fact as a record."""
    return Record(
        fact["subject"],
        tuple(fact["aliases"]),
        fact["relation"],
        tuple(fact["questions"]),
        (fact["answer"],),
        tuple(fact["answer_aliases"]),
    )


def of_fact(fact: dict[str, Any], draw: random.Random) -> Iterator[FactExample]:
    """The messages and sentences of a written fact, each with one of the forms of its record."""
    record = record_of(fact)
    for kind, concerns in (("asking", True), ("beside", False)):
        for each in fact[kind]:
            text = in_conversation(each["text"], tuple(map(tuple, each.get("history", ()))))
            yield FactExample(kind, text, asked(as_entered(record, text, draw)), concerns)
    for kind, concerns in (("stating", True), ("not_stating", False)):
        for each in fact[kind]:
            bare = bool(find(each["sentence"], record.names)) and draw.random() < UNTITLED
            title = "" if bare else each["title"]
            text = in_passage(each["sentence"], title=title)
            told = stated(as_entered(record, text, draw))
            yield FactExample(kind, text, told, concerns)
            places = find_answers(each["sentence"], record) if concerns else []
            if places and draw.random() < MASKED:
                masked = in_passage(mask(each["sentence"], places, MASK), title=title)
                yield FactExample("masked", masked, told, False)


def of_passages(fact: dict[str, Any], draw: random.Random) -> Iterator[FactExample]:
    """The sentences of passages on a fact and on similar ones, each with what precedes it."""
    record = record_of(fact)
    for name, each in ((kind, one) for kind in TEXTS for one in fact[kind]):
        texts = [one["text"] for one in each["sentences"]]
        naming = {place for place, text in enumerate(texts) if find(text, record.names)}
        bare = bool(naming) and draw.random() < UNTITLED
        titled = bool(find(each["title"], record.names)) and not bare
        hides = draw.random() < HIDDEN
        before = [mask(text, find_answers(text, record), MASK) if hides else text for text in texts]
        told = stated(as_entered(record, " ".join([each["title"], *texts]), draw))
        for place, one in enumerate(each["sentences"]):
            if bare and one["states"] and min(naming) > place:
                continue  # nothing says whom it is about
            preceding = context(before, place, naming, titled)
            text = in_passage(one["text"], preceding, "" if bare else each["title"])
            kind = f"stating in {name}" if one["states"] else f"beside in {name}"
            yield FactExample(kind, text, told, one["states"])


def of_others(fact: dict[str, Any], draw: random.Random) -> Iterator[FactExample]:
    """Messages that ask the same of something similar, or something similar of the subject."""
    record = record_of(fact)
    for each in fact["others"]:
        told = asked(as_entered(record, each["text"], draw))
        yield FactExample("others", each["text"], told, False)


def of_other_names(
    fact: dict[str, Any], names: Sequence[Record], draw: random.Random
) -> Iterator[FactExample]:
    """Texts that concern a fact, held against the same fact of another subject.

    Half of the other subjects are called as this one is, but for a word.

    Args:
        fact: The fact.
        names: Records of similar subjects.
        draw: Draws texts and subjects.
    """
    record = record_of(fact)
    texts = [
        *(
            (True, in_conversation(one["text"]), one["text"])
            for one in fact["asking"]
            if "history" not in one
        ),
        *(
            (
                False,
                in_passage(one["sentence"], title=one["title"]),
                f"{one['title']} {one['sentence']}",
            )
            for one in fact["stating"]
        ),
    ]
    for is_message, text, named in draw.sample(texts, min(RENAMED, len(texts))):
        other = draw.choice(names)
        renamed = _renamed(record, other.subject, other.aliases)
        words = [word for word in record.subject.split() if word[0].isupper() or word[0].isdigit()]
        changed = [word for word in words if find(named, [word])]
        if len(words) > 1 and changed and draw.random() < CHANGED:
            word = draw.choice(changed)
            others = [one for one in other.subject.split() if one[0].isupper() or one[0].isdigit()]
            if others and others[-1] not in words:
                renamed = _renamed(record, record.subject.replace(word, others[-1]), ())
        renamed = as_entered(renamed, named, draw) if renamed.questions else renamed
        lowered = text.lower() if is_message and draw.random() < LOWERED else text
        fact_text = asked(renamed) if is_message else stated(renamed)
        yield FactExample("other name", lowered, fact_text, False)


def of_relation(relation: dict[str, Any], draw: random.Random) -> Iterator[FactExample]:
    """Texts of the plain facts of a relation, and the same texts about another subject.

    In a text ``{s}`` stands for the subject, ``{a}`` for the answer, ``{w}`` for a wrong one and
    ``{o}`` for another subject.
    """
    for fact in relation["facts"]:
        subject, question = fact["subject"], relation["question"].format(s=fact["subject"])
        record = Record(subject, (), relation["relation"], (question,), (fact["answer"],))
        for kind, concerns in (("asking", True), ("beside", False)):
            for text in _filled(relation, kind, fact, subject, draw):
                told = asked(as_entered(record, text, draw))
                yield FactExample(f"{kind} plainly", text, told, concerns)
        for kind, concerns in (("stating", True), ("not_stating", False)):
            for text in map(_capitalised, _filled(relation, kind, fact, subject, draw)):
                told = stated(as_entered(record, text, draw))
                title = subject if draw.random() < UNTITLED else ""
                yield FactExample(f"{kind} plainly", in_passage(text, title=title), told, concerns)
        other = draw.choice([one for one in relation["facts"] if one["subject"] != subject])
        name = "plainly of another"
        for text in _filled(relation, "asking", other, subject, draw):
            yield FactExample(name, text, asked(as_entered(record, text, draw)), False)
        for text in map(_capitalised, _filled(relation, "stating", other, subject, draw)):
            yield FactExample(name, text, stated(as_entered(record, text, draw)), False)


def _filled(
    relation: dict[str, Any], kind: str, fact: dict[str, str], apart: str, draw: random.Random
) -> list[str]:
    """Texts of a kind about a fact, with another subject in them than ``apart``."""
    facts = relation["facts"]
    others = [one["subject"] for one in facts if one["subject"] not in (fact["subject"], apart)]
    wrong = [one["answer"] for one in facts if one["answer"] != fact["answer"]]
    return [
        text.format(
            s=fact["subject"], a=fact["answer"], o=draw.choice(others), w=draw.choice(wrong)
        )
        for text in draw.sample(relation[kind], EACH_PLAIN)
    ]


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _renamed(record: Record, subject: str, aliases: Sequence[str]) -> Record:
    """A record about another subject; without its questions that do not name the subject."""
    questions = []
    for text in record.questions:
        places = [(start, end) for start, end, _ in find(text, record.names)]
        questions += [mask(text, places, subject)] if places else []
    return replace(record, subject=subject, aliases=tuple(aliases), questions=tuple(questions))


def _similar(facts: Sequence[dict[str, Any]], embed: Embed) -> list[list[Record]]:
    """For each fact, records of the most similar other subjects."""
    vectors = embed([f"{fact['subject']}: {fact['relation']}" for fact in facts])
    found = []
    for fact, row in zip(facts, vectors @ vectors.T, strict=True):
        nearest = [facts[int(place)] for place in np.argsort(-row)]
        others = [one for one in nearest if one["subject"] != fact["subject"]]
        found.append([record_of(one) for one in others[:NEAREST]])
    return found


def as_entered(record: Record, text: str, draw: random.Random) -> Record:
    """A record as users enter them: with its questions, with its relation alone, or with both.

    Of its aliases it has those that the text uses, and some of the others or none, so that a record
    without aliases is not taken for another one.
    """
    aliases = [one for one in record.aliases if find(text, [one])]
    others = [one for one in record.aliases if one not in aliases]
    aliases += draw.sample(others, draw.randint(0, len(others)))
    record = replace(record, aliases=tuple(aliases))
    if draw.random() >= WITH_RELATION:
        return replace(record, relation="")
    own = draw.sample(record.questions, draw.randint(0, len(record.questions)))
    return replace(record, questions=tuple(own or question_forms(record.subject, record.relation)))


def made() -> Iterator[FactExample]:
    """The made questions."""
    for case in build_cases():
        for each in case.questions:
            backwards = each.kind in BACKWARDS
            text = in_conversation(translated(each.text) or each.text, each.history)
            fact = asked_backwards(case.record) if backwards else asked(case.record)
            yield FactExample(each.kind, text, fact, each.asks)


def build(embed: Embed, seed: int = 0) -> list[FactExample]:
    """All examples to learn from, in random order.

    Args:
        embed: The vectors that find similar subjects.
        seed: Of choice and order.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    examples = list(made())
    examples = draw.sample(examples, min(MADE, len(examples)))
    facts = written()
    for fact, names in zip(facts, _similar(facts, embed), strict=True):
        examples += [*of_fact(fact, draw), *of_passages(fact, draw), *of_others(fact, draw)]
        examples += of_other_names(fact, names, draw)
    for relation in written(path=PLAIN):
        examples += of_relation(relation, draw)
    draw.shuffle(examples)
    return examples


def train(target: Path, seed: int = 0, smoke: bool = False, start: Path | None = None) -> Path:
    """Train the adapter; arguments, result and errors as of `training.encoders.tune`.

    Where it goes on from an adapter, for one epoch at half the learning rate.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from retrieval.embedding import packaged_model

    tokenizer = AutoTokenizer.from_pretrained(packaged_model())
    examples: Sequence[FactExample] = build(vectors, seed)[: SMOKE if smoke else None]
    rows = [
        {
            **tokenizer(each.fact, each.text, truncation="longest_first", max_length=LONGEST),
            "labels": int(each.concerns),
        }
        for each in examples
    ]
    task = EncoderTask(
        "facts",
        AutoModelForSequenceClassification,
        "SEQ_CLS",
        "classifier",
        ("labels",),
        RANK,
        EPOCHS if start is None else EPOCHS_ON,
        LEARNING_RATE if start is None else LEARNING_RATE / 2,
        ORIGIN,
        READER,
        "random",
    )
    return tune(task, tokenizer, rows, target, seed, smoke, start)
