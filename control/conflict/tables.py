"""Which cell of a table answers a question.

Passages have tables as rows that stand for themselves (`foundation.tables`). An encoder that reads
a passage at once misses most of their cells, since all rows look alike to it. So each row is read
alone, and a log-linear model chooses between the cells and "no answer": by the question's words
that tell the row, those that name the column, and what the reader takes for the answer in each row.
Its weights are fitted on `training/tables.jsonl` by `training.table_cells`.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import ModelError
from foundation.tables import Cell, cells, find_rows
from foundation.text import FUNCTION_WORDS, holds, words

Floats = NDArray[np.float64]

FILE = "tables.json"  # in the directory of a reader's adapter
STEM = 6  # letters that forms of a word have in common
THOUSANDS = re.compile(r"(?<=\d)[,'’\u00a0\u202f](?=\d{3}(?!\d))")
ASKING = FUNCTION_WORDS | words("what how when where why much many do does did can i you me")
CELL_FEATURES = (
    "row: share of the question's words, by rarity among the rows, in its other cells",
    "row: has more of them than any other row",
    "cell: share of its words that the question gives",
    "column: share of its name's words in the question",
    "column: has a larger share than any other column",
    "row and column: share of the question's words in the name and the row's other cells",
    "cell: is the first of its row",
    "cell: share of the other rows with the same value",
    "cell: log-odds against no answer in its row, by the reader",
    "row: the highest such log-odds",
    "column: its cells' log-probability among those of their row, by the reader, on average",
)
NO_ANSWER_FEATURES = (
    "the highest share of the question's words in a row",
    "the highest share of them in a row and the name of a column",
    "the highest log-odds of a cell, by the reader",
    "constant",
)


@dataclass(frozen=True)
class Table:
    """The rows of a passage, and how the reader reads each of them alone for a question.

    Attributes:
        rows: The cells of each row.
        log_p: For each row the log-probability of the likeliest span in each of its cells.
        nothing: For each row the log-probability that it answers nothing.
    """

    rows: list[list[Cell]]
    log_p: list[list[float]]
    nothing: list[float]


@dataclass(frozen=True)
class CellWeights:
    """The weights of the log-linear model.

    Attributes:
        cell: Of `CELL_FEATURES`.
        no_answer: Of `NO_ANSWER_FEATURES`.
    """

    cell: tuple[float, ...]
    no_answer: tuple[float, ...]

    def choose(self, question: str, table: Table) -> tuple[Cell, float]:
        """The likeliest cell, and how likely it answers rather than none, in [0, 1]."""
        of_cells, of_none = features(question, table)
        scores = of_cells @ np.array(self.cell)
        best = int(scores.argmax())
        margin = float(scores[best] - of_none @ np.array(self.no_answer))
        cell = [cell for row in table.rows for cell in row][best]
        return cell, float(1 / (1 + np.exp(-margin)))


def load_weights(directory: Path) -> CellWeights | None:
    """The weights beside an adapter; ``None`` where there are none.

    Raises:
        ModelError: They are not those of today's features.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        cell, no_answer = (given["cell"][name] for name in CELL_FEATURES), given["no answer"]
        return CellWeights(tuple(cell), tuple(no_answer[name] for name in NO_ANSWER_FEATURES))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: not the weights of today's features; fit them by `fulcrum train tables`"
        ) from error


def features(question: str, table: Table) -> tuple[Floats, Floats]:
    """What the model judges by.

    Args:
        question: The question.
        table: At least one row.

    Returns:
        Of the cells, row by row, shape (cells, `CELL_FEATURES`), and of no answer, shape
        (`NO_ANSWER_FEATURES`,).
    """
    asked = _stems(question) - ASKING
    told = [asked & _stems(" ".join(cell.value for cell in row)) for row in table.rows]
    held = {stem: sum(stem in one for one in told) for stem in asked}
    count = len(table.rows)
    # Smoothed as an inverse document frequency; a word that stands in no row tells none.
    rarity = {stem: np.log((count + 1) / (n + 0.5)) if n else 0.0 for stem, n in held.items()}
    total = sum(rarity.values()) or 1.0
    columns = dict.fromkeys(cell.column for row in table.rows for cell in row)
    # By column and row: the question's words in the row's other cells, and what they tell.
    beside = {name: [asked & _others(name, row) for row in table.rows] for name in columns}
    match = {
        name: [sum(rarity[stem] for stem in one) for one in several]
        for name, several in beside.items()
    }
    named = {name: _share(_stems(name), asked) for name in columns}
    likely = _by_column(table)
    found = []
    for at, (row, several, nothing) in enumerate(
        zip(table.rows, table.log_p, table.nothing, strict=True)
    ):
        for place, (cell, log_p) in enumerate(zip(row, several, strict=True)):
            matches = match[cell.column]
            same = sum(cell.value in [one.value for one in other] for other in table.rows) - 1
            found.append(
                (
                    matches[at] / total,
                    float(matches[at] > max([*matches[:at], *matches[at + 1 :], 0.0])),
                    _share(_stems(cell.value), asked),
                    named[cell.column],
                    float(_is_highest(cell.column, named)),
                    _share(asked, beside[cell.column][at] | _stems(cell.column)),
                    float(place == 0),
                    same / count,
                    log_p - nothing,
                    max(several) - nothing,
                    likely[cell.column],
                )
            )
    of_cells = np.array(found, np.float64)
    share, cover, odds = of_cells[:, 0].max(), of_cells[:, 5].max(), of_cells[:, 8].max()
    return of_cells, np.array([share, cover, odds, 1.0])


def cell_lines(question: str, text: str, told: str, says: str) -> list[str]:
    """The cell that answers, with its column and what names its row, in place of the whole row.

    A row is named by its first cell, and by those of its others that have more of the question's
    words.

    Args:
        question: The question.
        text: A passage.
        told: A row of it as it would be told, or a part of one, with its columns.
        says: The claim in it.

    Returns:
        The best form first, such as "Single Oslo - Moss: Adult (EUR) 6.40" and then "Ticket: Single
        Oslo - Moss; Adult (EUR): 6.40"; none where no row is told, or no cell surely is the claim.
    """
    told = " ".join(told.split()).removesuffix(".")
    if ": " not in told:
        return []
    for start, end in find_rows(text):
        row = " ".join(text[start:end].split())
        if told in row or told.endswith(row):  # the title of a document may stand before it
            found = cells(text, start, end)
            cell = _cell_of(question, found, says)
            return [] if cell is None else _forms(found, cell, _naming(question, found, cell))
    return []


def _forms(row: Sequence[Cell], cell: Cell, naming: Sequence[Cell]) -> list[str]:
    """A cell after those that name its row, as a line and as a shorter row."""
    names = [each.value if each is row[0] else _titled(each) for each in naming]
    line = ": ".join(filter(None, [", ".join(names), _titled(cell)]))
    kept = [each for each in row if each is cell or each in naming]
    return [line, "; ".join(_titled(each, ":") for each in kept)]


def _naming(question: str, row: Sequence[Cell], cell: Cell) -> list[Cell]:
    """The other cells that tell a row from others."""
    asked, found = (_stems(question) - ASKING) - _stems(cell.column), list[Cell]()
    for each in row:
        given = asked & _stems(each.value)
        if each is not cell and (given or each is row[0]) and any(map(str.isalnum, each.value)):
            found.append(each)
            asked -= given
    if len(found) > 1 and found[0] is row[0] and not any(map(str.isalpha, row[0].value)):
        return found[1:]  # a rank or another number, where the question has words of the row
    return found


def _cell_of(question: str, row: Sequence[Cell], says: str) -> Cell | None:
    """The cell that holds a claim; of several the one whose column the question names."""
    holding = [each for each in row if each.value == says]
    holding = holding or [each for each in row if holds(each.value, [says])]
    asked = _stems(question) - ASKING
    shares = [_share(_stems(each.column), asked) for each in holding]
    best = max(shares, default=0.0)
    return holding[shares.index(best)] if shares.count(best) == 1 else None


def _titled(cell: Cell, sign: str = "") -> str:
    return f"{cell.column}{sign} {cell.value}" if cell.column else cell.value


def _by_column(table: Table) -> dict[str, float]:
    """By column, how likely the reader finds its cells among those of their row, on average."""
    found: dict[str, list[float]] = {}
    for row, several in zip(table.rows, table.log_p, strict=True):
        among = np.logaddexp.reduce(several)
        for cell, log_p in zip(row, several, strict=True):
            found.setdefault(cell.column, []).append(float(log_p - among))
    return {column: float(np.mean(each)) for column, each in found.items()}


def _others(column: str, row: Sequence[Cell]) -> frozenset[str]:
    """The stems of a row but for those of one column."""
    return _stems(" ".join(cell.value for cell in row if cell.column != column))


def _is_highest(column: str, named: Mapping[str, float]) -> bool:
    return named[column] > max((one for name, one in named.items() if name != column), default=0.0)


def _share(some: Collection[str], others: Collection[str]) -> float:
    return len(frozenset(some) & frozenset(others)) / max(1, len(some))


@lru_cache(maxsize=4_096)
def _stems(text: str) -> frozenset[str]:
    """The beginnings of its words; numbers are whole, without signs between thousands."""
    together = THOUSANDS.sub("", text)
    return frozenset(word if word.isdigit() else word[:STEM] for word in words(together))
