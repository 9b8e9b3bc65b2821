import subprocess
import sys

import numpy as np
import pytest

from control.forgetting import fact_index
from control.forgetting.fact_index import QuestionIndex


def unit(draw, count):
    vectors = draw.normal(size=(count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("partitioned", [False, True])
def test_the_nearest_is_found_and_gone_once_removed(monkeypatch, partitioned):
    monkeypatch.setattr(fact_index, "FLAT_LIMIT", 1_000 if partitioned else 10_000)
    monkeypatch.setattr(fact_index, "CENTRES", "IVF8,SQfp16")
    draw = np.random.default_rng(0)
    vectors = unit(draw, 3_000)
    held = QuestionIndex()
    for start in range(0, 3_000, 500):  # two forms of each record
        keys = [f"r{number}" for number in range(start // 2, (start + 500) // 2)]
        held.add(keys, [2] * 250, vectors[start : start + 500])
    assert len(held) == 3_000
    for number in (0, 7, 1_499):
        [row] = held.search(vectors[[2 * number + 1]], 3)
        assert row[0] == f"r{number}"
    held.remove("r7")
    held.remove("r7")
    [row] = held.search(vectors[[15]], 3)
    assert "r7" not in row
    assert len(held) == 2_998


def test_an_empty_index_finds_nothing():
    assert QuestionIndex().search(np.zeros((2, 16), np.float32), 3) == [[], []]


ENDS_WHILE_EMBEDDING = """
import threading
import numpy as np
from control.forgetting.fact_index import FactIndex
from control.forgetting.ledger import Changes
from control.forgetting.questions import with_questions
from control.forgetting.record import Record

begun = threading.Event()

def embed(texts):
    if threading.current_thread() is not threading.main_thread():
        begun.set()
        index._stopping.wait()
        print("embedded", flush=True)
    return np.ones((len(texts), 4), np.float32)

index = FactIndex(embed)
facts = [
    Record(f"Land {n}", relation="capital", answers=(f"Town {n}",), id=str(n)) for n in range(300)
]
with index.lock:
    index.apply(Changes(1, list(map(with_questions, facts))))
    index.embed()
begun.wait()
"""


@pytest.mark.kill
def test_a_program_that_ends_waits_for_no_more_than_one_part_of_the_texts():
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_WHILE_EMBEDDING], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "embedded\n", "")


FAILS_ONCE_THE_INTERPRETER_ENDS = """
import threading
from concurrent.futures import ThreadPoolExecutor
from control.forgetting.fact_index import FactIndex
from control.forgetting.ledger import Changes
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from foundation.errors import ModelError

begun = threading.Event()

def embed(texts):
    begun.set()
    threading.main_thread().join()
    try:
        ThreadPoolExecutor().submit(print)
    except RuntimeError as error:
        print("not loaded", flush=True)
        raise ModelError(f"cannot be loaded ({error})") from error

class NoVectors:
    get = staticmethod(lambda texts: {})

index = FactIndex(embed, vector_cache=NoVectors())
with index.lock:
    fact = Record("Peru", relation="capital", answers=("Lima",), id="1")
    index.apply(Changes(1, [with_questions(fact)]))
begun.wait()
"""


def test_a_model_that_does_not_load_any_more_as_the_program_ends_is_no_error():
    ended = subprocess.run(
        [sys.executable, "-c", FAILS_ONCE_THE_INTERPRETER_ENDS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "not loaded\n", "")
