"""One reader for each file format, from a path to the texts in the file."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from foundation.errors import DocumentError
from retrieval.ingest import encodings
from retrieval.ingest.content import LONGEST_TEXT, Content, Scalar
from retrieval.ingest.dating import REPLACES_KEY, shown_replaces
from retrieval.ingest.mail import read_eml, read_saved
from retrieval.ingest.markup import read_epub, read_html, read_markdown, read_rst
from retrieval.ingest.office import read_docx, read_pptx, read_xlsx
from retrieval.ingest.pdf import read_pdf
from retrieval.ingest.tables import read_csv

LONGEST_LINE = 2 * LONGEST_TEXT  # bytes; JSON spells some characters in six of them
SNIFFED_BYTES = 4096
HTML_STARTS = (b"<!doctype html", b"<html")
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a]")
TEXT_FORMATS = {".txt", ".md", ".rst", ".csv", ".tsv", ".jsonl"}


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

    A file of text or of rows beyond ``encodings.PART_BYTES`` gives several, so that files of any
    size stream. A file whose content shows another format than its ending is read as what it is.

    A file is checked before its first text is yielded, so a wrong last line costs no work.

    Raises:
        DocumentError: the format is not supported, or the file is empty, binary, damaged,
            protected, too big, or without text.
    """
    _reader(path)
    ending = path.suffix.lower()
    try:
        if not path.is_file():
            raise DocumentError(f"{path} is not a regular file; give a file or a directory")
        if path.stat().st_size == 0:
            raise DocumentError(f"{path} is empty; leave it out or give it some text")
        for content in READERS[_format(path, ending)](path):
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


def _format(path: Path, ending: str) -> str:
    """Return the ending that fits the first bytes of a file.

    Raises:
        DocumentError: they show a format that cannot be read, such as an image.
    """
    import filetype

    with path.open("rb") as file:
        start = file.read(SNIFFED_BYTES)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if ending in TEXT_FORMATS - {".md"} and text.startswith(HTML_STARTS):
        return ".html"
    kind = filetype.guess(start)
    if kind is None or encodings.has_byte_order_mark(start):
        return ending
    shown = f".{kind.extension}"
    if shown in READERS:
        return shown
    if ending in TEXT_FORMATS and not BINARY.search(start):
        return ending  # a text may begin with the letters that mark a format
    if shown == ".zip" and ending in {".docx", ".pptx", ".xlsx", ".epub"}:
        return ending  # the parts by which they are told come later in the file
    if kind.mime in {"application/x-ole-storage", "application/msword", "application/vnd.ms-excel"}:
        return ending
    raise DocumentError(
        f"{path} holds binary data ({kind.mime}) and not what its ending says; "
        f"give {', '.join(READERS)} or a directory of them"
    )


def _plain(path: Path) -> Iterator[Content]:
    for text in encodings.read_texts(path):
        yield from read_saved(text) or [Content(text)]


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
    replaces = record.get(REPLACES_KEY)
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
        details={
            **{key: value for key, value in record.items() if isinstance(value, Scalar)},
            **({REPLACES_KEY: shown_replaces(replaces)} if replaces else {}),
        },
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    longest = 40
    return text if len(text) <= longest else f"{text[:longest]}..."


READERS: dict[str, Callable[[Path], Iterator[Content]]] = {
    ".txt": _plain,
    ".md": read_markdown,
    ".rst": read_rst,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".xlsx": read_xlsx,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".epub": read_epub,
    ".eml": read_eml,
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
