"""Files that are either whole or absent."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, else it is removed.

    Write a file or create a directory there. Readers see the old state or the new one, never a
    half-written one, even if the process is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    new = scratch / path.name
    try:
        yield new
        if path.is_dir():
            os.replace(path, scratch / f"{path.name}-old")
        os.replace(new, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
