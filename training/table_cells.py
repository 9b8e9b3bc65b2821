"""Fits the weights that choose between the cells of a table (`control.conflict.tables`)."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from control.conflict.reader import Reader
from control.conflict.tables import CELL_FEATURES, FILE, NO_ANSWER_FEATURES, features
from foundation.files import replacing
from training import reading

SMOKE = 8  # tables of a trial run
AT_ONCE = 32  # questions whose rows are read together
DECAY = 1e-3  # of the squared weights, each feature having a variance of 1
STEPS = 200  # of L-BFGS at most; it is convex and ends before


def fit(reader: Reader, target: Path, seed: int = 0, smoke: bool = False) -> Path:
    """Fit the weights for a reader by maximum likelihood, and write them.

    Args:
        reader: Reads the rows; its own weights are not used.
        target: Directory in which `control.conflict.tables.FILE` is written.
        seed: Of the order of the rows.
        smoke: A few tables only.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    examples = [
        one
        for table in reading.tables()[: SMOKE if smoke else None]
        for one in reading.of_table(table, draw)
    ]
    cells, no_answer, right = [], [], []
    for first in tqdm(range(0, len(examples), AT_ONCE), desc="tables"):
        part = examples[first : first + AT_ONCE]
        tables = reader.read_rows([(one.question, one.text) for one in part])
        for place, table in tables.items():
            starts = [cell.start for row in table.rows for cell in row]
            one = part[place]
            if one.answer and one.start not in starts:
                continue  # a cell with a semicolon
            of_cells, of_none = features(one.question, table)
            cells.append(of_cells)
            no_answer.append(of_none)
            right.append(starts.index(one.start) if one.start in starts else len(starts))
    weights = _maximum_likelihood(cells, no_answer, right)
    with replacing(target / FILE) as new:
        named = {
            "cell": dict(zip(CELL_FEATURES, weights[: len(CELL_FEATURES)], strict=True)),
            "no answer": dict(zip(NO_ANSWER_FEATURES, weights[len(CELL_FEATURES) :], strict=True)),
        }
        new.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    return target / FILE


def _maximum_likelihood(
    cells: list[NDArray[np.float64]], no_answer: list[NDArray[np.float64]], right: list[int]
) -> list[float]:
    """Weights of the cells' features and of no answer's.

    Args:
        cells: Of each question the cells' features, shape (cells, features).
        no_answer: Of each those of no answer, shape (features,); the last one is constant.
        right: The index of the cell that answers; the number of cells where none does.
    """
    every = np.concatenate(cells)
    mean, scale = every.mean(0), every.std(0)
    constant = np.stack(no_answer).std(0) == 0
    scale_none = np.where(constant, 1.0, np.stack(no_answer).std(0))
    cell = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)
    none = torch.zeros(len(scale_none), dtype=torch.float64, requires_grad=True)
    given = [
        (torch.tensor((one - mean) / scale), torch.tensor(other / scale_none), answer)
        for one, other, answer in zip(cells, no_answer, right, strict=True)
    ]
    optimiser = torch.optim.LBFGS([cell, none], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        losses = [
            -torch.cat([one @ cell, (other @ none)[None]]).log_softmax(0)[answer]
            for one, other, answer in given
        ]
        value = torch.stack(losses).mean() + DECAY * (cell.square().sum() + none.square().sum())
        value.backward()
        return value

    optimiser.step(loss)
    of_cells = cell.detach().numpy() / scale
    of_none = none.detach().numpy() / scale_none
    of_none[-1] += float(of_cells @ mean)  # what the mean of the cells' features is worth
    return [round(float(each), 4) for each in (*of_cells, *of_none)]
