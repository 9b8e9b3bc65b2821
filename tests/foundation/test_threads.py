import subprocess
import sys

import pytest

ENDS_WITHIN_TORCH = """
import threading, torch
from foundation.threads import BackgroundThread

stopping, begun = threading.Event(), threading.Event()

def multiply():
    matrix = torch.rand(300, 300)
    while not stopping.is_set():
        matrix = (matrix @ matrix).softmax(-1)
        begun.set()
    print("finished", flush=True)

BackgroundThread(multiply, "multiplying", stopping.set)
begun.wait()
"""


@pytest.mark.kill
def test_a_program_waits_for_the_threads_behind_it():
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_WITHIN_TORCH], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "finished\n", "")
