"""Uploaded files: safe names, and parsing in a process of limited time and memory."""

import json
import multiprocessing
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import DocumentError
from foundation.files import temporary_directory

if TYPE_CHECKING:
    from llama_index.core.schema import Document

LONGEST_NAME = 120  # characters; every file system takes 255 bytes
UNSAFE = re.compile(r"[^\w .()+,=@-]+")
NAMELESS = "document"
PARSER = "app.server.uploads"  # imported once by the server that forks the parsers


@dataclass(frozen=True)
class ParserLimits:
    """The limits of parsing one file.

    Attributes:
        seconds: Of time, and of processor time.
        memory: Bytes of memory beyond what an idle parser has, and of the text that comes out.
    """

    seconds: float = 60.0
    memory: int = 1_500_000_000


def safe_name(given: str) -> str:
    """Return the name of an uploaded file without directories and special characters."""
    last = re.split(r"[/\\]", given)[-1]
    stem, dot, ending = UNSAFE.sub("_", last).strip(" .").rpartition(".")
    if not dot:
        stem, ending = ending, ""
    stem = stem.strip(" .") or NAMELESS
    return f"{stem[: LONGEST_NAME - len(ending[:10]) - 1]}{dot}{ending[:10]}"


def documents(
    path: Path,
    limits: ParserLimits,
    trust: float | None = None,
    dated: str | None = None,
    on_notice: Callable[[str], object] = lambda _: None,
) -> Iterator["Document"]:
    """Yield the documents of a file, which is parsed as a whole in a process of its own.

    Args:
        path: The file; its documents say that they come from ``path.name``.
        limits: Of that process.
        trust: Of the documents, in [0, 1], where they do not state it themselves.
        dated: Their date, as for `retrieval.ingest.documents.read`.
        on_notice: Called, after the last document, with each line on a part of the file that could
            not be used.

    Raises:
        DocumentError: As `retrieval.ingest.documents.read`, or the file takes more than the limits.
    """
    from llama_index.core.schema import Document

    with temporary_directory("parsed") as folder:
        parsed = Path(folder) / "documents.jsonl"
        _parse_in_subprocess(path, parsed, limits, trust, dated)
        with parsed.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith('{"error"'):
                    raise DocumentError(json.loads(line)["error"])
                if line.startswith('{"notice"'):
                    on_notice(json.loads(line)["notice"])
                    continue
                yield Document.from_json(line)


def _parse_in_subprocess(
    path: Path, parsed: Path, limits: ParserLimits, trust: float | None, dated: str | None
) -> None:
    # A fork server has a single thread; a fork of this process, which has many, might inherit a
    # lock that is never released.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PARSER, "retrieval.ingest.documents"])
    process = context.Process(target=_parse, args=(path, parsed, limits, trust, dated), daemon=True)
    process.start()
    try:
        process.join(limits.seconds)
        if process.is_alive():
            raise DocumentError(
                f"{path.name} takes longer than {limits.seconds:.0f} s to read; give its text as "
                ".txt, or several smaller files"
            )
        if process.exitcode != 0:
            raise DocumentError(
                f"{path.name} cannot be read: its parser ended early, for want of time or memory "
                f"({limits.seconds:.0f} s, {limits.memory / 1e9:.1f} GB); give its text as .txt, "
                "or several smaller files"
            )
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def _parse(
    path: Path, parsed: Path, limits: ParserLimits, trust: float | None, dated: str | None
) -> None:
    """Write the documents of a file, one a line, then notices, or an error as the last line."""
    from retrieval.ingest.documents import SkippedPath, read, summarize_skipped

    _limit_process(limits)
    unused: list[SkippedPath] = []
    with parsed.open("w", encoding="utf-8") as lines:
        try:
            for document in read([path], unused.append, trust, dated=dated):
                if document.metadata.get("source") == str(path):
                    document.metadata["source"] = path.name
                lines.write(document.to_json() + "\n")
        except DocumentError as error:
            message = str(error).replace(str(path), path.name)
        except MemoryError:
            message = (
                f"{path.name} takes more than {limits.memory / 1e9:.1f} GB of memory to read; give "
                "its text as .txt, or several smaller files"
            )
        else:
            for notice in summarize_skipped(unused):
                lines.write(json.dumps({"notice": notice.replace(str(path), path.name)}) + "\n")
            return
        lines.write(json.dumps({"error": message}) + "\n")


def _limit_process(limits: ParserLimits) -> None:
    """Apply the limits to this process."""
    used = Path("/proc/self/statm")  # on Linux
    pages = int(used.read_text().split()[0]) if used.exists() else 0
    memory = pages * resource.getpagesize() + limits.memory
    seconds = int(limits.seconds) + 1
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, limits.memory),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))
