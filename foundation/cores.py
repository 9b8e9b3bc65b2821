"""How many threads this process computes with.

torch, OpenBLAS, MKL and FAISS start one thread for each core in every process. With more running
threads than cores, those that wait for each other at the end of an operation hold the cores that
the others need, and a question takes many times as long.
"""

import os
import sys

from foundation.errors import InputError

# Read by OpenMP (torch, FAISS, llama.cpp's threads follow torch's), OpenBLAS, MKL and tokenizers
# when they are loaded, and by child processes.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
# Seconds over which the load is measured: ten ticks of the clock that Linux counts a core's time
# in. The load average would count a command that ended half a minute ago.
MEASURED = 0.1


def allowed() -> int:
    """The cores that this process may use: by its affinity and its container's CPU quota."""
    import joblib

    return int(joblib.cpu_count())


def free() -> int:
    """Those of the allowed cores that no other process uses at present, at least one."""
    import psutil

    busy = psutil.cpu_percent(MEASURED, percpu=True)
    if hasattr(os, "sched_getaffinity"):  # on Linux
        busy = [busy[core] for core in os.sched_getaffinity(0) if core < len(busy)]
    idle = sum(100 - each for each in busy) / 100
    return max(1, min(allowed(), round(idle)))


def use(threads: int) -> None:
    """Compute with so many threads, in libraries that are loaded already and in later ones."""
    import threadpoolctl

    os.environ |= dict.fromkeys(VARIABLES, str(threads))
    threadpoolctl.threadpool_limits(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def limit(threads: int | None, alone: bool = False) -> None:
    """Set the number of threads, once for all that this process does.

    Args:
        threads: So many; ``None`` is what ``OMP_NUM_THREADS`` says, else the free cores.
        alone: Without a number take all allowed cores: a process that runs for days is not to
            depend on how busy the machine is when it starts.

    Raises:
        InputError: ``OMP_NUM_THREADS`` is no number.
    """
    given = os.environ.get(VARIABLES[0], "").split(",")[0].strip()  # one for each nested level
    if threads is None and given:
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"OMP_NUM_THREADS is {given!r}; give a number from 1 up, or unset it")
        threads = int(given)
    use(threads or (allowed() if alone else free()))
