import os
import subprocess
import sys

import pytest

from foundation import cores
from foundation.errors import InputError

COUNTED = """
import sys
from foundation import cores
if sys.argv[1] == "before":
    import faiss, torch
cores.limit(int(sys.argv[2]))
import faiss, torch
from threading import Thread
seen = [torch.get_num_threads(), faiss.omp_get_max_threads()]
thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
thread.start(); thread.join()
print(*seen)
"""


@pytest.fixture
def environment(monkeypatch):
    """What `cores.limit` changes, without effect on this process."""
    chosen = []
    monkeypatch.setattr(cores, "use", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return chosen


@pytest.mark.parametrize(
    ("idle", "free"), [([0.0] * 4, 4), ([100.0] * 4, 1), ([100.0, 0, 0, 100.0], 2), ([70.0] * 4, 1)]
)
def test_the_cores_that_others_use_are_not_free(monkeypatch, idle, free):
    monkeypatch.setattr("psutil.cpu_percent", lambda *_, **__: idle)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(cores, "allowed", lambda: 4)
    assert cores.free() == free


def test_a_quota_bounds_what_is_free(monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda *_, **__: [0.0] * 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "allowed", lambda: 2)
    assert cores.free() == 2


def test_a_given_number_counts_before_the_environment_and_that_before_the_load(
    monkeypatch, environment
):
    monkeypatch.setattr(cores, "free", lambda: 1)
    monkeypatch.setattr(cores, "allowed", lambda: 8)
    cores.limit(None)
    cores.limit(None, alone=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    cores.limit(None)
    cores.limit(5)
    assert environment == [1, 8, 3, 5]


def test_a_wrong_number_in_the_environment_is_named(monkeypatch, environment):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    with pytest.raises(InputError, match="OMP_NUM_THREADS is '0'; give a number from 1 up"):
        cores.limit(None)


@pytest.mark.kill
@pytest.mark.parametrize("when", ["later", "before"])
def test_the_libraries_keep_to_the_number(when):
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED, when, "1"], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["1", "1", "1"]
