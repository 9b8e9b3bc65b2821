"""Atomic replacement of files, and private files."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600
OTHERS = 0o077  # the permission bits of everybody but the owner
TEMPORARY = "fulcrum-{process}-{purpose}-"


@contextmanager
def replacing(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, else it is removed.

    Write a file or create a directory there. Readers see the old state or the new one, never a
    half-written one, even if the process is killed.

    Args:
        path: What is written.
        private: Whether only its owner may read the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    new = scratch / path.name
    try:
        yield new
        if private:
            new.chmod(PRIVATE_FILE)
        if path.is_dir():
            os.replace(path, scratch / f"{path.name}-old")
        os.replace(new, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def private_directory(path: Path) -> None:
    """Create a directory that only its owner may enter; an existing one is unchanged.

    Raises:
        OSError: It cannot be created.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def private_file(path: Path) -> None:
    """Create an empty file that only its owner may read, or restrict an existing one.

    Raises:
        OSError: It cannot be created.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, PRIVATE_FILE))
    restrict(path)


def version_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does.

    Raises:
        OSError: There is none, or its directory cannot be read.
    """
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def restrict(path: Path) -> bool:
    """Remove all permissions on a file or directory but its owner's.

    Returns:
        Whether it is private now: not if the file system has no permissions, if it belongs to
        somebody else, or if a directory is shared on purpose (sticky, as ``/tmp``).
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if mode & OTHERS and not mode & stat.S_ISVTX:
            path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    try:
        return not path.stat().st_mode & OTHERS
    except FileNotFoundError:  # a journal that its database has removed meanwhile
        return True


def temporary_directory(purpose: str) -> "tempfile.TemporaryDirectory[str]":
    """A directory that its owner alone may enter; its name says which process it belongs to."""
    prefix = TEMPORARY.format(process=os.getpid(), purpose=purpose)
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def remove_abandoned() -> None:
    """Remove the temporary directories of processes that were killed."""
    name = re.compile(TEMPORARY.format(process=r"(\d+)", purpose=".*"))
    for path in Path(tempfile.gettempdir()).glob("fulcrum-*"):
        if (match := name.match(path.name)) and not _is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
