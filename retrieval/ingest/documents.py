"""Files and directories become LlamaIndex documents, one at a time, so that huge inputs stream."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import Document, MediaResource

from foundation.errors import DocumentError
from foundation.text import counted
from retrieval.ingest.cleaning import clean, has_words
from retrieval.ingest.content import Content, Scalar
from retrieval.ingest.dates import EARLIEST, FARTHEST, first_date, parse_dated, stated_date
from retrieval.ingest.dating import (
    DATE_KEY,
    KEY_PARTS,
    REPLACES_KEY,
    document_date,
    document_replaces,
    named_date,
    named_replaced,
    without_replaced,
)
from retrieval.ingest.readers import READERS, check_paths, read_content
from retrieval.ingest.tables import TABLE

ID_DIGITS = 16  # 64 bits of the hash: at 10^7 documents a collision has odds of 1 in 400,000
SHOWN_REASONS = 20  # a screen of them
TITLE_CHARACTERS = 160  # about 40 word pieces, which a 200-piece chunk leaves free of 256
# Titles are embedded and shown to the model with the text. Measured with MiniLM on 284 passages
# of the built-in relations: recall@1 0.37 without and 1.00 with the title where the text says
# "it" for its subject, 0.996 and 1.000 where it names the subject; a title that is only a file
# name changes nothing (0.993). All other metadata is noise to both.
TITLE_KEY = "title"
TRUST_KEY = "trust"
READ = "+"  # in a content hash, before the hash of what was read of the document
MARKDOWN = "text/markdown"  # the type of a document that is cut at its headings

OnRead = Callable[[int], object]
OnFile = Callable[[Path], object]
UNDATED = (
    "{path}: the date {stated!r} is none, more than "
    f"{FARTHEST} years ahead or before {EARLIEST}, so its document counts as undated; give "
    "YYYY-MM-DD, YYYY-MM or YYYY"
)
UNUSED_DATE = (
    "{path}: the field {key} of the front matter, {stated!r}, is no date, more than "
    f"{FARTHEST} years ahead or before {EARLIEST}, so it was not used; give YYYY-MM-DD, YYYY-MM or "
    "YYYY"
)
WORDLESS = "{path}: {junk:,} of {texts:,} texts in it have no words"
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
DAMAGED = (
    f"{{path}}: {{characters}} in it could not be read, with {UNREADABLE} in their place; if that "
    "matters, save the file as UTF-8"
)
UNUSED_TRUST = (
    "{path}: the field trust of the front matter is not read; trust is given where documents are "
    "added (--trust)"
)
# Fields of front matter that hold nothing but the document's date. Others that may, as "status"
# and "edition", hold other things as often.
DATE_FIELDS = {
    *("date", "dated", "lastmod", "updated", "modified", "revised", "issued", "published"),
    *("effective", "last updated", "last modified", "date published", "date modified"),
    "effective date",
}
LONGEST_SHOWN = 40  # characters of a field in a note
# From a title and a text to the words that date the text, and those that name what it replaces.
ReadDocument = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True)
class SkippedPath:
    """A file of a directory that could not be read, or any file of which a part could not.

    Attributes:
        path: The file.
        reason: Why it could not, as a line for the user.
        partly: Whether the rest of it was read, so that the file is not skipped.
    """

    path: Path
    reason: str
    partly: bool = False


def summarize_skipped(skipped: Sequence[SkippedPath]) -> list[str]:
    """Return which files, or parts of them, were skipped and why, one line for each reason."""
    reasons: dict[str, list[SkippedPath]] = {}
    for skip in skipped:
        reasons.setdefault(skip.reason.replace(str(skip.path), ""), []).append(skip)
    lines = [
        f"{alike[0].reason} (and {len(alike) - 1:,} more files likewise)"
        if alike[1:]
        else alike[0].reason
        for alike in list(reasons.values())[:SHOWN_REASONS]
    ]
    left = sum(len(alike) for alike in list(reasons.values())[SHOWN_REASONS:])
    return [*lines, f"and {left:,} more files for other reasons"] if left else lines


def read(
    paths: Iterable[Path | str],
    on_skipped: Callable[[SkippedPath], None],
    trust: float | None = None,
    on_read: OnRead = lambda _: None,
    on_file: OnFile = lambda _: None,
    dated: str | None = None,
) -> Iterator[Document]:
    """Yield the documents of files and directories, in the order given, directories sorted.

    A file of text or of rows of more than 2 MB becomes several documents, one for each part. A text
    without words, such as a hex dump, is skipped.

    A document's id is the ``id`` of its JSON line, else the first digits of its content hash.
    Its metadata holds ``title``, ``source`` (the file's path as given, unless a JSON line states
    its own source), ``content_hash``, and a JSON line's other fields that are text, numbers or
    booleans; further ``date``, if it is known (YYYY-MM-DD, YYYY-MM or YYYY), and ``replaces``, if
    the document says so. The content hash covers the content and the date, and not the file name,
    so a renamed copy is recognised.

    Args:
        paths: Files, or directories to walk; hidden files and directories in them are ignored.
        on_skipped: Called with each file of a directory that cannot be read, and with each file
            of which a part could not (``partly``).
        trust: How far the documents are trusted, in [0, 1], where a JSON line does not say it
            itself in its field ``trust``; kept in the metadata under that name.
        on_read: Called with the bytes of the files that were read since the last call, of which
            the sum is `total_bytes`.
        on_file: Called with each file before it is read.
        dated: The documents' date, YYYY-MM-DD, YYYY-MM or YYYY, where a JSON line does not say it
            itself in its field ``date``; by default it is found, if they state one.

    Raises:
        InputError: ``dated`` is no date.
        DocumentError: a path does not exist, a file that was named cannot be read, or a directory
            holds nothing readable, or a file that was named has no words.
    """
    given = [Path(path) for path in paths]
    check_paths(given)  # before any work, so that a wrong last path costs none
    dated = None if dated is None else parse_dated(dated)
    for path in given:
        yield from (
            _read_directory(path, on_skipped, trust, on_read, on_file, dated)
            if path.is_dir()
            else _read_file(path, on_skipped, trust, on_read, on_file, dated)
        )


def date_documents(
    documents: Iterable[Document],
    read_document: ReadDocument,
    stored_hash: Callable[[str], str] = lambda _: "",
) -> Iterator[Document]:
    """Yield documents; those without a date, or what they replace, get what their words tell of it.

    Of a file that became several documents, the beginning decides for all of them. What holds no
    date at all is not read, nor is what is stored already: that keeps what it was stored with.

    Args:
        documents: As `read` yields them.
        read_document: Finds the words.
        stored_hash: Returns the content hash under which a document of this id is stored; empty if
            there is none.
    """
    file, beginning, found = "", None, None
    for document in documents:
        source, known = document.metadata["source"], document.metadata
        if source != file or source.lower().endswith(".jsonl"):
            file, beginning, found = source, document, None
        stored = stored_hash(document.id_)
        if stored.partition(READ)[0] == known["content_hash"]:
            known["content_hash"] = stored
            yield document
            continue
        found = found or _read_dates(beginning or document, read_document)
        stated = {key: value for key, value in found.items() if value and key not in known}
        if stated:
            known |= stated
            # The same document, but one that has to be stored again.
            known["content_hash"] += READ + _hash([stated])[:ID_DIGITS]
            hidden = hidden_keys(known)
            document.excluded_embed_metadata_keys = hidden
            document.excluded_llm_metadata_keys = hidden
        yield document


def _read_dates(document: Document, read_document: ReadDocument) -> dict[str, str]:
    """The date and what it replaces, as the words of a document tell; empty where they do not."""
    known, date, replaced = document.metadata, "", ""
    if not (DATE_KEY in known and REPLACES_KEY in known) and first_date(document.text):
        dated, named = read_document(known[TITLE_KEY], document.text)
        own = dated in f"{known[TITLE_KEY]}\n{without_replaced(document.text)}"
        date, replaced = named_date(dated) if own else "", named_replaced(named)
    return {DATE_KEY: date, REPLACES_KEY: replaced}


def total_bytes(paths: Iterable[Path | str]) -> int:
    """Return the bytes of all files that `read` would look at; a path that is missing counts 0."""
    files = (
        file for path in map(Path, paths) for file in (_walk(path) if path.is_dir() else [path])
    )
    return sum(map(_size, files))


def plan_changes(
    batch: Sequence[Document], stored: Mapping[str, str]
) -> tuple[list[Document], set[str]]:
    """Compare a batch of documents with an index.

    Args:
        batch: In order; of the same id, the last one counts.
        stored: The index's documents that have an id or a content of the batch, id to content hash.

    Returns:
        The documents to store, and the ids of stored documents that must go first.
    """
    current = dict(stored)  # as the index will be
    holders = {content: document_id for document_id, content in current.items()}
    fresh: dict[str, Document] = {}
    replaced: set[str] = set()
    for document in batch:
        content = document.metadata["content_hash"]
        known = current.get(document.id_)
        if known == content:
            continue
        if known is not None:  # the same id with other content: the newer one counts
            holders.pop(known, None)
            del current[document.id_]
            fresh.pop(document.id_, None)
            if document.id_ in stored:
                replaced.add(document.id_)
        if content in holders:
            continue
        current[document.id_] = content
        holders[content] = document.id_
        fresh[document.id_] = document
    return list(fresh.values()), replaced


def _read_directory(
    directory: Path,
    on_skipped: Callable[[SkippedPath], None],
    trust: float | None,
    on_read: OnRead,
    on_file: OnFile,
    dated: str | None,
) -> Iterator[Document]:
    readable, skipped = 0, list[SkippedPath]()
    for path in _walk(directory):
        try:
            yield from _read_file(path, on_skipped, trust, on_read, on_file, dated)
            readable += 1
        except DocumentError as error:
            skipped.append(SkippedPath(path, str(error)))
            on_skipped(skipped[-1])
    if not readable:
        why = ". Also: ".join(summarize_skipped(skipped))
        why = why or f"it has no files; give {', '.join(READERS)} files"
        raise DocumentError(f"{directory} holds no documents: {why}")


def _walk(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder) / name


def _read_file(
    path: Path,
    on_skipped: Callable[[SkippedPath], None],
    trust: float | None,
    on_read: OnRead,
    on_file: OnFile,
    dated: str | None,
) -> Iterator[Document]:
    on_file(path)
    date = ""  # of the file's parts so far
    texts, junk, unreadable = 0, 0, 0
    size, seen = _size(path), 0
    try:
        for content in read_content(path):
            text = clean(content.text)
            if not text:
                raise DocumentError(f"{path} is empty; leave it out or give it some text")
            texts += 1
            unreadable += text.count(UNREADABLE)
            # A table of numbers says by its header what they are.
            if has_words(text) or (content.markdown and TABLE.search(text)):
                document = _document(path, content, text, trust, dated, date)
                for notice in [content.notice, *_unused_fields(path, content, trust, dated)]:
                    if notice:
                        on_skipped(SkippedPath(path, notice, partly=True))
                stated = content.details.get(DATE_KEY)
                if stated and path.suffix.lower() == ".jsonl" and not stated_date(stated):
                    reason = UNDATED.format(path=path, stated=stated)
                    on_skipped(SkippedPath(path, reason, partly=True))
                if content.document_id is None and path.suffix.lower() != ".jsonl":
                    date = str(document.metadata.get(DATE_KEY, ""))
                yield document
            else:
                junk += 1
            step = min(len(content.text), size - seen)
            seen += step
            on_read(step)
    finally:
        on_read(size - seen)
    if junk == texts:
        raise DocumentError(f"{path} has no words, such as a hex dump or base64; leave it out")
    faults = {
        WORDLESS.format(path=path, junk=junk, texts=texts): junk,
        DAMAGED.format(path=path, characters=counted(unreadable, "character")): unreadable,
    }
    for reason in (reason for reason, count in faults.items() if count):
        on_skipped(SkippedPath(path, reason, partly=True))


def _unused_fields(
    path: Path, content: Content, trust: float | None, dated: str | None
) -> Iterator[str]:
    """Yield what the user is told of fields of front matter that date or trust nothing."""
    for key, value in content.front_matter.items():
        name = KEY_PARTS.sub(" ", key).lower()
        stated = " ".join(str("" if value is None else value).split())
        if not stated:
            continue
        flag = isinstance(value, bool) and name != DATE_KEY  # "published: true"
        if name in DATE_FIELDS and not (dated or flag or stated_date(value)):
            yield UNUSED_DATE.format(path=path, key=key, stated=_cut(stated))
        elif name == TRUST_KEY and trust is None:
            yield UNUSED_TRUST.format(path=path)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0  # gone, or its folder is closed to us: reading it says so


def _document(
    path: Path,
    content: Content,
    text: str,
    trust: float | None,
    dated: str | None,
    date_before: str,
) -> Document:
    title = " ".join(clean(content.title or "").split())
    details = {
        clean(key): clean(value) if isinstance(value, str) else value
        for key, value in content.details.items()
    }
    date = details.pop(DATE_KEY, "")
    added: dict[str, Scalar | None] = {
        TRUST_KEY: details.pop(TRUST_KEY, trust),
        DATE_KEY: stated_date(date)
        if date
        else dated or document_date(content, text, shown_name(path.stem), date_before),
        REPLACES_KEY: details.pop(REPLACES_KEY, "") or document_replaces(content, text),
    }
    content_hash = _hash([title, text, details])
    document_id = clean(content.document_id or "") or content_hash[:ID_DIGITS]
    if stated := {key: value for key, value in added.items() if value is not None and value != ""}:
        details |= stated  # the same document, but one that has to be stored again
        content_hash = _hash([title, text, details])
    metadata = {
        "source": shown_name(path),
        **details,
        TITLE_KEY: (title or shown_name(path.stem))[:TITLE_CHARACTERS],
        "content_hash": content_hash,
    }
    return Document(
        id_=document_id,
        text_resource=MediaResource(text=text, mimetype=MARKDOWN if content.markdown else None),
        metadata=metadata,
        excluded_embed_metadata_keys=hidden_keys(metadata),
        excluded_llm_metadata_keys=hidden_keys(metadata),
        metadata_template="{value}",  # the bare title above the text, as on a page
    )


def _hash(stated: list[object]) -> str:
    text = json.dumps(stated, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shown_name(path: Path | str) -> str:
    """Return a file name as text that can be stored and printed, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "replace")


def hidden_keys(metadata: Iterable[str]) -> list[str]:
    """Return the metadata keys to keep from embedding and prompt: all but the title."""
    return [key for key in metadata if key != TITLE_KEY]
