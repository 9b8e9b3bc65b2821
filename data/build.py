"""Build the corpus, its questions and its conflicts from the fact tables.

Each relation is two files in ``data/relations``: ``NAME.csv`` holds the facts, ``NAME.toml`` the
wordings. The build reads nothing else, draws every choice from a hash of the fact itself and so
writes the same bytes on every machine::

    python data/build.py            # writes the .jsonl files beside it
    python data/build.py --check    # exits 1 if the committed files differ from what it would write

``NAME.csv``: ``subject, answer, aliases`` (further right answers, separated by ``|``) and any
further columns that the wordings use. An optional column ``group`` keeps a swapped answer within
its own kind. ``NAME.toml``: ``split`` ("calibration" or "test"), ``source``, and ``title``,
``questions`` and ``passages``, ``str.format`` templates over the columns.
``aliases_are = "alternatives"`` says that the aliases are not other names of the answer but other
right answers (a country's second language): a passage that says one does not say the others.
"""

import argparse
import csv
import json
import random
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.conversations import Fact, conversations

HERE = Path(__file__).parent
WORDS_MIN, WORDS_MAX = 40, 150
SPLITS = ("calibration", "test")


def slug(text: str) -> str:
    """Lower-case ASCII words of ``text`` joined by hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "-".join(re.findall(r"[a-z0-9]+", ascii_text.lower()))


def mentions(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words, whatever the case."""
    return _whole_words(phrase).search(text) is not None


@cache
def _whole_words(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE)


def sentence_case(text: str) -> str:
    """Upper-case the first letter of every sentence, for answers such as "gold" at a beginning."""
    return re.sub(r"(^|(?<=[.!?] ))([a-z])", lambda match: match.group(2).upper(), text)


def answers_of(row: dict[str, str]) -> list[str]:
    """The answer of a fact, then its aliases."""
    return [row["answer"], *(alias for alias in row.get("aliases", "").split("|") if alias)]


def swapped(row: dict[str, str], rows: list[dict[str, str]], draw: random.Random) -> dict[str, str]:
    """Another fact of the same relation whose answer is wrong for ``row``."""
    right = {answer.casefold() for answer in answers_of(row)}
    others = [
        other
        for other in rows
        if other.get("group", "") == row.get("group", "")
        and not right & {answer.casefold() for answer in answers_of(other)}
        and not any(mentions(other["answer"], a) or mentions(a, other["answer"]) for a in right)
        and not mentions(row["subject"], other["answer"])
    ]
    if not others:
        raise ValueError(f"{row['subject']!r}: no other answer to swap in")
    return draw.choice(others)


def facts(relation: str) -> Iterator[tuple[dict, dict, dict, Fact]]:
    """Yield ``(passage, question, conflict)`` records, and the fact, for each row of a relation.

    Raises:
        ValueError: A passage is too short or too long, lacks its answer, or its counterfactual
            still holds the right answer.
    """
    spec = tomllib.loads((HERE / "relations" / f"{relation}.toml").read_text(encoding="utf-8"))
    if spec["split"] not in SPLITS:
        raise ValueError(f"{relation}: split is {spec['split']!r}, must be one of {SPLITS}")
    with (HERE / "relations" / f"{relation}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seen = set()
    for row in rows:
        name = f"{relation}-{slug(row['subject'])}"
        if name in seen:
            raise ValueError(f"{name}: this subject stands twice in {relation}.csv")
        seen.add(name)
        draw = random.Random(name)  # noqa: S311 - a reproducible choice, nothing secret
        wording = draw.choice(spec["passages"])
        question = sentence_case(draw.choice(spec["questions"]).format(**row))
        other = swapped(row, rows, draw)
        fill = " ".join(wording.split())
        text = sentence_case(fill.format(**row))
        counter = sentence_case(fill.format(**{**row, "answer": other["answer"]}))
        right = answers_of(row)
        wrong = answers_of(other)
        if spec.get("aliases_are") == "alternatives":
            wrong = [answer for answer in wrong if mentions(counter, answer)]
        words = len(text.split())
        if not WORDS_MIN <= words <= WORDS_MAX:
            raise ValueError(f"{name}: {words} words, must be {WORDS_MIN} to {WORDS_MAX}: {text}")
        if not mentions(text, row["answer"]):
            raise ValueError(f"{name}: the passage lacks its answer {row['answer']!r}")
        if left := [answer for answer in right if mentions(counter, answer)]:
            raise ValueError(f"{name}: the counterfactual still says {left}: {counter}")
        if mentions(text, other["answer"]):
            raise ValueError(f"{name}: the passage already says {other['answer']!r}: {text}")
        if mentions(question, row["answer"]):
            raise ValueError(f"{name}: the question gives its answer away: {question}")
        title = spec["title"].format(**row)
        yield (
            {"id": name, "title": sentence_case(title), "text": text, "relation": relation},
            {
                "id": name,
                "question": question,
                "answers": right,
                "relation": relation,
                "split": spec["split"],
                "passage_id": name,
            },
            {
                "id": name,
                "question": question,
                "context": counter,
                "context_answers": wrong,
                "memory_answers": right,
                "true_context": text,
                "relation": relation,
                "split": spec["split"],
            },
            Fact(name, relation, spec["split"], row, question, right),
        )


def build() -> dict[str, str]:
    """The files as ``{name: JSON Lines text}``."""
    records: dict[str, list[dict]] = {"passages": [], "questions": [], "conflicts": []}
    known: list[Fact] = []
    for path in sorted((HERE / "relations").glob("*.toml")):
        for passage, question, conflict, fact in facts(path.stem):
            known.append(fact)
            records["passages"].append(passage)
            records["questions"].append(question)
            records["conflicts"].append(conflict)
    records["conversations"] = list(conversations(known))
    return {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in records.items()
    }


def main() -> int:
    """Write the files, or with ``--check`` compare them with the committed ones."""
    parser = argparse.ArgumentParser(description="Build the corpus from data/relations.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    check = parser.parse_args().check
    stale = []
    for name, text in build().items():
        path = HERE / name
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run python data/build.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
