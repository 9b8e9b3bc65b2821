"""Fitting the weights that choose between the cells of a table."""

import numpy as np

from control.conflict import reader as readers
from control.conflict.tables import load_weights
from data import DIRECTORY as DATA
from retrieval.embedding import packaged_model
from training import table_cells


def test_a_short_run_writes_weights_that_the_reader_takes(tmp_path):
    reader = readers.load(packaged_model(), DATA / "adapters" / "reader")
    assert table_cells.fit(reader, tmp_path, smoke=True).parent == tmp_path
    weights = load_weights(tmp_path)
    assert weights is not None
    assert np.isfinite([*weights.cell, *weights.no_answer]).all()
    # Whatever it learns from, a row that the question tells is likelier than another one.
    assert weights.cell[0] + weights.cell[1] + weights.cell[5] > 0
