"""Which facts an adapter was trained on: a record beside its weights, searched by forgotten facts.

Forgetting holds back what a model says and leaves weights as they are, so whoever forgets a fact
has to know which adapters learned it. The record (`learned_facts.json`) holds no text: of each fact
it has salted hashes of the words of the question and of answers, alone and together.

What that protects: nobody can read subjects or answers from the file, and files of two adapters
cannot be compared. What it does not: who guesses a name, or a fact, can check the guess, and names
can be guessed by trying a directory of them. So the file tells those who have it about as much as
the adapter's answers would, and goes where the adapter may go.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from control.forgetting.matcher import find_answers
from control.forgetting.names import NameMatcher
from control.forgetting.normalize import find, forms
from control.forgetting.record import Record
from control.forgetting.variants import views
from foundation.errors import DataError
from foundation.files import replacing
from foundation.text import FUNCTION_WORDS

log = logging.getLogger(__name__)

FILE = "learned_facts.json"
KIND = "fulcrum record of learned facts"
FORMAT = 1  # raised when fields change their meaning
SALT_BYTES = 16
# Of a hash that is kept: among 100,000 of them, one in ten million others is taken for one.
HASH_BYTES = 5


class LearnedFact(NamedTuple):
    """A fact that was learned from.

    Attributes:
        about: A text that names what it is about, such as its question.
        answers: The answer and its other names; empty where the text alone was learned from.
    """

    about: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LearnedFacts:
    """The record of an adapter.

    Attributes:
        trained_by: The command that trained it, without ``fulcrum train``.
        salt: Of the hashes.
        hashes: Of words and of pairs of words and answers.
    """

    trained_by: str
    salt: bytes
    hashes: frozenset[bytes]

    def holds(self, record: Record) -> bool:
        """Whether the adapter was trained on a fact, or on anything about a whole subject.

        Subject and answer are compared by all their names and without case, diacritics and
        punctuation, whichever of both was asked for; the relation is not compared.
        """
        names = [words for name in record.names for words in _forms(name)]
        if record.scope == "subject":
            return any(self._hold(_links(words)) for words in names)
        answers = [words for span in record.spans for words in _forms(span)]
        return any(
            self._hold(_pairs(name, answer)) or self._hold(_pairs(answer, name))
            for name in names
            for answer in answers
        )

    def _hold(self, parts: Iterable[tuple[str, ...]]) -> bool:
        return all(_hash(self.salt, *each) in self.hashes for each in parts)


def write(folder: Path, trained_by: str, facts: Iterable[LearnedFact]) -> Path:
    """Write the record of an adapter; the same facts give the same file.

    Args:
        folder: Of the adapter.
        trained_by: The command that trained it, without ``fulcrum train``.
        facts: What it learned from.

    Returns:
        The file.
    """
    known = sorted(set(facts))
    # Who does not have all of the facts cannot compute it.
    salt = sha256(json.dumps(known).encode()).digest()[:SALT_BYTES]
    hashes = sorted({_hash(salt, *parts) for fact in known for parts in _parts(fact)})
    values = {
        "kind": KIND,
        "format": FORMAT,
        "trained_by": trained_by,
        "salt": salt.hex(),
        "hashes": base64.b64encode(b"".join(hashes)).decode(),
    }
    with replacing(folder / FILE) as new:
        new.write_text(f"{json.dumps(values, indent=1)}\n", encoding="utf-8")
    return folder / FILE


def load(folder: Path) -> LearnedFacts | None:
    """The record of an adapter; ``None`` where it has none.

    Raises:
        DataError: The file cannot be read or is damaged.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes())
        if (values["kind"], values["format"]) != (KIND, FORMAT):
            raise ValueError(f"kind {values['kind']!r}, format {values['format']!r}")
        packed = base64.b64decode(values["hashes"], validate=True)
        if len(packed) % HASH_BYTES:
            raise ValueError("cut off")
        starts = range(0, len(packed), HASH_BYTES)
        hashes = frozenset(packed[start : start + HASH_BYTES] for start in starts)
        return LearnedFacts(str(values["trained_by"]), bytes.fromhex(values["salt"]), hashes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged, so it is not known what the adapter was trained on; write it "
            "again: fulcrum train ... --only-record"
        ) from error


def trained_on(adapters: Mapping[str, Path], record: Record) -> dict[str, bool | None]:
    """Which adapters were trained on a fact.

    Args:
        adapters: Their directories, by the name that is shown.
        record: The fact.

    Returns:
        By name; ``None`` where it is not known.
    """
    found = dict[str, bool | None].fromkeys(adapters)
    for name, folder in adapters.items():
        with suppress(DataError):
            if learned := load(folder):
                found[name] = learned.holds(record)
    return found


def notices(adapters: Mapping[str, Path], records: Sequence[Record]) -> list[str]:
    """What whoever forgets facts has to know of adapters, a line each.

    Args:
        adapters: Their directories, by the name that is shown.
        records: The facts that are forgotten.
    """
    lines, unknown = [], []
    for name, folder in adapters.items():
        try:
            learned = load(folder)
        except DataError as error:
            lines.append(f"Whether the adapter {name} was trained on it is not known: {error}.")
            continue
        if learned is None:
            unknown.append(name)
        elif count := sum(map(learned.holds, records)):
            what = f"{count:,} of these facts"
            if len(records) == 1:
                what = "texts about it" if records[0].scope == "subject" else "this fact"
            lines.append(
                f"The adapter {name} was trained on {what}: what it answers is held back, but its "
                "weights keep what they learned; train it again (fulcrum train "
                f"{learned.trained_by} --without-forgotten --out DIR) or remove it."
            )
    if unknown:
        log.info(
            "whether these adapters were trained on it is not known, since they have no %s: %s",
            *(FILE, ", ".join(unknown)),
        )
    return lines


def stating(records: Sequence[Record]) -> Callable[[str], bool]:
    """What tells whether a text states one of these facts: it names subject and answer.

    Args:
        records: Forgotten facts, with their ids.
    """
    by_id = {record.id: record for record in records}
    names = NameMatcher()
    for record in records:
        names.add(record.id, record.names)

    def states(text: str) -> bool:
        return any(
            record.scope == "subject"
            or bool(find(text, record.spans) or find_answers(text, record))
            for record in map(by_id.__getitem__, names.find(text))
        )

    return states


def named(texts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of many names that texts name, compared as the records are."""
    held = {link for text in texts for link in _held(text)}
    return [name for name in names if any(held.issuperset(_links(form)) for form in _forms(name))]


def _parts(fact: LearnedFact) -> Iterator[tuple[str, ...]]:
    """What is hashed of a fact: the words that may name its subject, alone and with each answer."""
    yield from _held(fact.about)
    about = {word for view in views(fact.about) for word in _telling(view.words)}
    for words in {words for answer in fact.answers for words in _forms(answer)}:
        yield from _links(words)
        yield from _pairs(about, words)


def _held(text: str) -> Iterator[tuple[str, ...]]:
    """All that a name of one word, or one of several, has in a text that holds it."""
    for view in views(text):
        words = _telling(view.words)
        yield from (("word", word) for word in words)
        yield from _links(words)


def _links(words: Sequence[str]) -> list[tuple[str, ...]]:
    """A name of one word as it is, one of several by each two that follow each other."""
    if len(words) == 1:
        return [("word", words[0])]
    return [("words", *two) for two in pairwise(words)]


def _pairs(about: Iterable[str], answer: Iterable[str]) -> list[tuple[str, ...]]:
    """Each word of what a fact is about with the whole answer."""
    said = " ".join(answer)
    return [("pair", word, said) for word in about]


def _forms(name: str) -> set[tuple[str, ...]]:
    """The spellings of a name, each as its words."""
    return {words for form in forms(name) if (words := tuple(_telling(form.split())))}


def _telling(words: Iterable[str]) -> list[str]:
    return [word for word in words if word not in FUNCTION_WORDS]


def _hash(salt: bytes, *parts: str) -> bytes:
    return sha256(salt + "\0".join(parts).encode()).digest()[:HASH_BYTES]
