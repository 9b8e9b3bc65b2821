"""The corpus of real documents, built from what packages bring.

``fulcrum eval retrieval --real-documents DIR`` fetches the packages of ``packages.toml`` with the
machine's own ``apt-get`` and ``pip`` and writes their files to ``DIR/PACKAGE/PATH``: compressed
files unpacked, manual pages as plain text. It needs a Debian of the same release, and ``groff`` for
the manual pages.
"""

import gzip
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from foundation.errors import DataError

PACKAGES = Path(__file__).with_name("packages.toml")
MANUAL_PAGE = "*/man/man*/*"
LEFT_OUT = (
    "*changelog*",
    "*.Debian*",
    "*/copyright",
    "*.js",
    "*.css",
    "*genindex*",
    "*/search.html",
)


@dataclass(frozen=True)
class Package:
    """A package of the corpus.

    Attributes:
        name: Its name, and the name of its folder in the corpus.
        origin: ``debian`` or ``pypi``.
        split: ``calibration`` or ``test``.
        files: Patterns of the files taken.
        version: Of a wheel.
    """

    name: str
    origin: str
    split: str
    files: tuple[str, ...]
    version: str = ""


def packages() -> list[Package]:
    """Return the packages of the corpus."""
    rows = tomllib.loads(PACKAGES.read_text(encoding="utf-8"))["package"]
    return [Package(**(row | {"files": tuple(row["files"])})) for row in rows]


def build(corpus: Path) -> int:
    """Write the files of all packages that ``corpus`` does not hold yet.

    Returns:
        How many files it holds.

    Raises:
        DataError: A package cannot be fetched.
    """
    for package in tqdm(packages(), "packages", unit=" packages"):
        folder = corpus / package.name
        if folder.exists():
            continue
        with tempfile.TemporaryDirectory(dir=corpus.parent) as work:
            new = Path(work) / "new"
            fetch = {"debian": _debian, "pypi": _wheel}
            for path, content in fetch[package.origin](package, Path(work)):
                target = new / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            corpus.mkdir(parents=True, exist_ok=True)
            new.rename(folder)
    return sum(1 for path in corpus.rglob("*") if path.is_file())


def _debian(package: Package, work: Path) -> Iterator[tuple[str, bytes]]:
    _run(["apt-get", "download", "-q", package.name], work)
    [archive] = work.glob("*.deb")
    unpacked = work / "unpacked"
    _run(["dpkg-deb", "-x", str(archive), str(unpacked)], work)
    yield from _taken(package, unpacked)


def _wheel(package: Package, work: Path) -> Iterator[tuple[str, bytes]]:
    wanted = f"{package.name}=={package.version}"
    _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", wanted], work)
    [archive] = work.glob("*.whl")
    unpacked = work / "unpacked"
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(unpacked)
    yield from _taken(package, unpacked)


def _taken(package: Package, unpacked: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the package's files that are taken, unpacked and readable."""
    wanted = [pattern for pattern in package.files if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in package.files if pattern.startswith("!")]
    for path in sorted(unpacked.rglob("*")):
        name = str(path.relative_to(unpacked))
        if path.is_symlink() or not path.is_file():
            continue
        if not any(fnmatch(name, pattern) for pattern in wanted):
            continue
        if any(fnmatch(name, pattern) for pattern in (*unwanted, *LEFT_OUT)):
            continue
        content = path.read_bytes()
        if name.endswith(".gz"):
            name, content = name.removesuffix(".gz"), gzip.decompress(content)
        if fnmatch(name, MANUAL_PAGE):
            content = _rendered(content)
        short = name.removeprefix("usr/share/").removeprefix("doc/")
        suffix = Path(short).suffix
        if not suffix or suffix[1:].isdigit():  # README, and page.7
            short += ".txt"
        if content.strip():
            yield short, content


def _rendered(page: bytes) -> bytes:
    """A manual page as plain text; one that only names another page is empty."""
    if page.startswith(b".so "):
        return b""
    return _run(["groff", "-man", "-t", "-Tutf8", "-P-cbou", "-rLL=100n"], Path(), page)


def _run(command: list[str], where: Path, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command; names come from packages.toml
            command, cwd=where, input=given, capture_output=True, check=True
        )
    except FileNotFoundError as error:
        raise DataError(
            f"{command[0]} is not installed; the corpus of real documents is built on Debian"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"])[-1]
        raise DataError(f"{' '.join(command)} failed: {reason}") from error
    return done.stdout
