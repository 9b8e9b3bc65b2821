"""One reader for each file format, from a path to the texts in the file."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.errors import DocumentError
from retrieval.ingest import encodings

Scalar = str | int | float | bool

MARKDOWN_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$|^(\S.*)\n=+[ \t]*$", re.MULTILINE)
HTML_UNREAD = ("script", "style", "noscript", "template", "title", "svg")
HTML_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav"),
    *("ol", "option", "p", "pre", "section", "summary", "table", "tr", "ul"),
)
# A document is cut and embedded whole: one of 10 million characters takes 0.3 GB meanwhile.
LONGEST_TEXT = 10_000_000
LONGEST_LINE = 2 * LONGEST_TEXT  # bytes; JSON spells some characters in six of them
LONGEST_HTML = 20_000_000  # bytes; its tree takes 50 times as much memory
BLOCK_EDGE = "\x1e"  # ASCII record separator: no page holds it as text


@dataclass(frozen=True)
class Content:
    """One text of a file; ``title`` and ``document_id`` are ``None`` if the file has none."""

    text: str
    title: str | None = None
    document_id: str | None = None
    details: dict[str, Scalar] = field(default_factory=dict)


def check_paths(paths: Iterable[Path]) -> None:
    """Check that files and directories are there, and that the files' endings are known.

    Raises:
        DocumentError: One is missing, or is a file of another kind.
    """
    for path in paths:
        if not path.exists():
            raise DocumentError(f"{path} does not exist; check the path")
        if not path.is_dir():
            _reader(path)


def read_content(path: Path) -> Iterator[Content]:
    """Yield the text of a file, or one for each line of a ``.jsonl`` file.

    A ``.txt`` or ``.md`` file beyond ``encodings.PART_BYTES`` gives several, so that files of any
    size stream.

    The whole file is checked before its first text is yielded, so a wrong last line costs no work.

    Raises:
        DocumentError: the ending is not supported, or the file is empty, binary, damaged,
            protected, too big, or without text.
    """
    reader = _reader(path)
    try:
        if not path.is_file():
            raise DocumentError(f"{path} is not a regular file; give a file or a directory")
        if path.stat().st_size == 0:
            raise DocumentError(f"{path} is empty; leave it out or give it some text")
        for content in reader(path):
            if len(content.text) > LONGEST_TEXT:
                raise DocumentError(
                    f"{path} holds a text of {len(content.text) / 1e6:.0f} million characters, and "
                    f"a document may have {LONGEST_TEXT / 1e6:.0f} million; split it into several"
                )
            yield content
    except OSError as error:
        raise DocumentError(
            f"{path} cannot be opened ({error.strerror or error}); check its permissions"
        ) from error


def _plain(path: Path) -> Iterator[Content]:
    for text in encodings.read_texts(path):
        yield Content(text)


def _markdown(path: Path) -> Iterator[Content]:
    title = None
    for text in encodings.read_texts(path):
        heading = MARKDOWN_HEADING.search(text.replace("\r\n", "\n"))
        title = title or (heading and (heading[1] or heading[2]))
        yield Content(text, title=title)


def _html(path: Path) -> Iterator[Content]:
    from bs4 import BeautifulSoup  # heavy, and few runs read HTML

    if path.stat().st_size > LONGEST_HTML:
        raise DocumentError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB, and HTML is read up to "
            f"{LONGEST_HTML / 1e6:.0f} MB; give its text as .txt, which may be of any size"
        )
    data = path.read_bytes()
    if b"\0" in data and not encodings.has_byte_order_mark(data):
        raise DocumentError(f"{path} holds binary data, not HTML; give a text version of it")
    page = BeautifulSoup(data, "html.parser")  # bytes, so that <meta charset> is honoured
    if page.contains_replacement_characters:
        raise encodings.unknown_encoding(path)
    title = page.title.get_text(" ", strip=True) if page.title else None
    for tag in page.find_all(HTML_UNREAD):
        tag.decompose()
    # Only blocks end a line: inline tags and the line ends of the source fall inside sentences.
    for tag in page.find_all(HTML_BLOCKS):
        tag.insert_before(BLOCK_EDGE)
        tag.insert_after(BLOCK_EDGE)
    for cell in page.find_all(("td", "th")):
        cell.insert_after(" ")
    blocks = (" ".join(block.split()) for block in page.get_text().split(BLOCK_EDGE))
    yield Content("\n".join(block for block in blocks if block), title=title)


def _pdf(path: Path) -> Iterator[Content]:
    from pypdf import PdfReader  # heavy, and few runs read PDF

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every flaw that it repairs
    try:
        reader = PdfReader(path)
        # Many files are encrypted with an empty password; they open for everybody.
        if reader.is_encrypted and not reader.decrypt(""):
            raise _encrypted(path)
        text = "\n\n".join(page.extract_text() for page in reader.pages)
        title = reader.metadata.title if reader.metadata else None
    except (OSError, DocumentError):
        raise
    except Exception as error:
        # pypdf answers damage with many kinds of exception, also KeyError and RecursionError.
        if type(error).__name__ == "DependencyError":  # AES without the package "cryptography"
            raise _encrypted(path) from error
        raise DocumentError(f"{path} is not a readable PDF; open and export it anew") from error
    if not text.strip():
        raise DocumentError(f"{path} is a PDF without text, probably a scan; run OCR on it first")
    yield Content(text, title=title)


def _encrypted(path: Path) -> DocumentError:
    return DocumentError(f"{path} is an encrypted PDF; remove its password first")


def _json_lines(path: Path) -> Iterator[Content]:
    found = sum(1 for _ in _parsed_lines(path))
    if not found:
        raise DocumentError(f'{path} is empty; give it lines such as {{"text": "..."}}')
    yield from _parsed_lines(path)


def _parsed_lines(path: Path) -> Iterator[Content]:
    with path.open("rb") as file:
        encoding = "utf-8-sig"
        lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise DocumentError(
                    f"{where}: longer than {LONGEST_LINE / 1e6:.0f} MB; "
                    "split its text into several documents"
                )
            try:
                text = line.decode(encoding).strip()
            except UnicodeDecodeError as error:
                raise DocumentError(f"{where}: not UTF-8; save the file as UTF-8") from error
            encoding = "utf-8"
            if text:
                yield _parsed_line(text, where)


def _parsed_line(line: str, where: str) -> Content:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{where}: not valid JSON; write one object on each line") from error
    if not isinstance(record, dict):
        raise DocumentError(f'{where}: not an object; write {{"text": "..."}}')
    text, title, document_id = (record.pop(key, None) for key in ("text", "title", "id"))
    if not isinstance(text, str) or not text.strip():
        state = "is missing" if text is None else f"is {_shown(text)}"
        raise DocumentError(f'{where}: the field "text" {state}; it must be a non-empty string')
    if title is not None and not isinstance(title, str):
        raise DocumentError(f'{where}: the field "title" is {_shown(title)}; it must be a string')
    if document_id is not None and (
        isinstance(document_id, bool)
        or not isinstance(document_id, str | int)
        or not str(document_id).strip()
    ):
        raise DocumentError(
            f'{where}: the field "id" is {_shown(document_id)}; '
            "it must be a non-empty string or a whole number"
        )
    trust = record.get("trust")
    if trust is not None and (
        isinstance(trust, bool) or not isinstance(trust, int | float) or not 0 <= trust <= 1
    ):
        raise DocumentError(
            f'{where}: the field "trust" is {_shown(trust)}; '
            "it must be a number from 0 (doubtful) to 1 (reliable)"
        )
    return Content(
        text,
        title=title,
        document_id=None if document_id is None else str(document_id).strip(),
        details={key: value for key, value in record.items() if isinstance(value, Scalar)},
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    longest = 40
    return text if len(text) <= longest else f"{text[:longest]}..."


READERS: dict[str, Callable[[Path], Iterator[Content]]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".jsonl": _json_lines,
}


def _reader(path: Path) -> Callable[[Path], Iterator[Content]]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        kinds = f"{', '.join(READERS)} or a directory of them"
        if not path.suffix:
            raise DocumentError(f"{path} has no suffix that tells how to read it; give {kinds}")
        raise DocumentError(f"{path} ends in {path.suffix!r}, which cannot be read; give {kinds}")
    return reader
