"""E-mail: a message as mail programs save it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from email import errors, message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from foundation.errors import DocumentError
from retrieval.ingest.content import Content, check_size, guard
from retrieval.ingest.dates import first_date, is_possible
from retrieval.ingest.encodings import COMMON_ENCODING
from retrieval.ingest.markup import html_to_markdown

LARGEST_MAIL = 50_000_000  # bytes, with what is attached
UNDATED = "its Date header, {stated!r}, is no date or is in the future, so it counts as undated"
HEADERS = ("From", "To", "Cc", "Subject")
# What the parser raises for malformed headers and unknown character sets.
UNREADABLE = (ValueError, LookupError, AttributeError, OverflowError, errors.MessageError)
NEXT_MAIL = re.compile(rb"\n\r?\n(?=From [^\n]+\n[\w-]+:)")  # in a file that begins with "From "
# What an answer quotes, and whose it is: that message claims it, and at its own date.
QUOTED = re.compile(
    r"(?m)^(?:(?=(?:(?:On|Am|Le)\b|[^\n@]*@)[^\n]*(?:\n(?!>)[^\n]*)?\b(?:wrote|schrieb|a écrit)\b)"
    r"[^\n>][^\n]*(?:(?<![.!?])\n(?!>)[^\n]*)?:\s*\n(?=>)|(?!>From [^\n]*(?:\n(?!>)|\Z)))"
    r"(?:>[^\n]*(?:\n|\Z))+"
)
ESCAPED = re.compile(r"(?m)^>(?=From )")  # in transport; not a quote if it stands alone
# Where an unmarked copy of the message before begins, or one that the author sends on.
COPIED = re.compile(
    r"(?m)^(?:(?P<forwarded>-{5,} ?(?:Forwarded [Mm]essage|Weitergeleitete Nachricht) ?-{5,}"
    r"|Begin forwarded message:|-{5,} ?Message transféré ?-{5,})"
    r"|-{5,} ?(?:Original Message|Ursprüngliche Nachricht|Message d['’]origine) ?-{5,}"
    r"|(?:_{10,}\s+)?\**(?:From|Von|De)\s?:[^\n]+\n\s*\**(?:Sent|Date|Gesendet|Datum|Envoyé)\s?:"
    r"[^\n]+\n\s*\**(?:To|An|À)\s?:)"
)
# A header of a message that was saved as text, and a line that parts it from the one before.
HEADER = re.compile(r"(?i)(From|To|Cc|Bcc|Date|Sent|Subject|Reply-To):(.*)")
RULE = re.compile(r"[-=_*~]{3}")
FEWEST_HEADERS = 3


class _Policy(policy.EmailPolicy):
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, _decoded(value.encode("utf-8", "surrogateescape"))


def read_eml(path: Path) -> Iterator[Content]:
    """Yield the text of a message after its sender and recipients, dated as it was sent.

    Of a file with several of them (mbox), each.

    Raises:
        DocumentError: it is too big, no message, or without text.
    """
    check_size(path, path.stat().st_size, LARGEST_MAIL, "e-mail")
    data = path.read_bytes()
    messages = NEXT_MAIL.split(data) if data.startswith(b"From ") else [data]
    contents, faults = list[Content](), list[DocumentError]()
    for each in messages:
        try:
            contents.append(_read_message(path, each))
        except DocumentError as fault:
            faults.append(fault)
    if not contents:
        raise faults[0]
    if faults:
        told = f"{path}: {len(faults)} of its {len(messages)} e-mails are not read: {faults[0]}"
        contents.append(replace(contents.pop(), notice=told))
    yield from contents


def _read_message(path: Path, data: bytes) -> Content:
    try:
        message: Any = message_from_bytes(data, EmailMessage, policy=_Policy())
        return _content(path, message)
    except UNREADABLE as error:
        line = f"{path} is an e-mail that cannot be decoded ({error}); save its text as .txt"
        raise DocumentError(line) from error


def read_saved(text: str) -> list[Content]:
    """The messages of a text that begins with the headers of one; none of any other text.

    Each has its own sender, title and date, also one that a later one has below it as a copy.
    """
    if not HEADER.match(text.lstrip()):
        return []
    lines = text.strip().splitlines()
    found = list(_headers(lines))
    if not found or found[0][0]:
        return []
    messages = list[Content]()
    for (start, end), (stop, _) in pairwise([*found, (len(lines), 0)]):
        fields: dict[str, str] = {}
        for line in lines[start:end]:
            header = HEADER.match(line)
            name = header[1].lower() if header else next(reversed(fields))
            fields[name] = f"{fields.get(name, '')} {header[2] if header else line}".strip()
        body = lines[end : stop - 1 if RULE.match(lines[stop - 1]) else stop]
        date = first_date(fields.get("date") or fields.get("sent", ""))
        heading = _heading(*(fields.get(name, "") for name in ("from", "to", "cc")))
        if own := _own("\n".join(body).strip()):
            dated = {"date": date} if date else {}
            messages.append(
                Content(f"{heading}{own}", fields.get("subject") or None, front_matter=dated)
            )
    return messages


def _headers(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the headers of messages begin and end: after a blank line or a rule, before a blank."""
    at, before = 0, ""
    while at < len(lines):
        end = at
        while end < len(lines) and (
            HEADER.match(lines[end])
            or (end > at and lines[end][:1].isspace() and lines[end].strip())
        ):
            end += 1
        count = sum(HEADER.match(line) is not None for line in lines[at:end])
        ended = end < len(lines) and not lines[end].strip()
        if count >= FEWEST_HEADERS and ended and (not before or RULE.match(before)):
            yield at, end
        at = max(end, at + 1)
        before = lines[at - 1].strip()


def _content(path: Path, message: EmailMessage) -> Content:
    sender, to, copied, subject = (" ".join(str(message[each] or "").split()) for each in HEADERS)
    if not any((sender, to, copied, subject)):
        raise DocumentError(f"{path} has no headers of an e-mail; name a text file .txt")
    attached, notices = list[str](), list[str]()
    if not (texts := list(_texts(message, attached, notices))):
        kinds = [part.get_content_type() for part in message.walk()]
        what = "a calendar invitation" if "text/calendar" in kinds else "an e-mail"
        raise DocumentError("; ".join([f"{path} is {what} without text", *notices, "leave it out"]))
    markdown = any(m for _, m in texts)
    text = "\n\n".join(guard(t) if markdown and not m else t for t, m in texts)
    date, stated = "", [str(value) for name, value in message.raw_items() if name.lower() == "date"]
    with suppress(*UNREADABLE):
        date = message["Date"].datetime.date().isoformat()
    if stated and not is_possible(date):
        notices.append(UNDATED.format(stated=stated[0].strip()))
    if attached:
        notices.append(f"what is attached is not read: {', '.join(attached)}; ingest it by itself")
    return Content(
        f"{_heading(sender, to, copied)}{_own(text)}",
        title=subject or None,
        markdown=markdown,
        front_matter={"date": date} if is_possible(date) else {},
        notice=f"{path}: {'; '.join(notices)}" if notices else "",
    )


def _heading(sender: str, to: str, copied: str) -> str:
    """A line that says who wrote to whom; as "From: Ada" a reader takes it for an answer."""
    if not (sender or to or copied):
        return ""
    written = " to ".join(filter(None, [f"{sender or 'Someone'} wrote", to]))
    return f"{written}{f', with a copy to {copied}' if copied else ''}:\n\n"


def _texts(part: MIMEPart, attached: list[str], notices: list[str]) -> Iterator[tuple[str, bool]]:
    """The texts of a part and whether they are Markdown; note what is attached or unread."""
    kind, name = part.get_content_type(), part.get_filename()
    if part.get_content_disposition() == "attachment" or kind.startswith("message/"):
        attached.append(name or kind)
    elif part.is_multipart():
        parts = [list(_texts(each, attached, notices)) for each in part.iter_parts()]
        if kind == "multipart/alternative":  # the plain one if it has text
            parts = sorted(parts, key=lambda texts: (not texts, any(m for _, m in texts)))[:1]
        yield from chain(*parts)
    elif kind in ("text/plain", "text/html"):
        data: Any = part.get_payload(decode=True)
        charset = part.get_content_charset("us-ascii")
        try:
            text = _decoded(data) if charset == "us-ascii" else data.decode(charset, "replace")
        except UNREADABLE as error:
            notices.append(f"its part {kind} cannot be decoded ({error})")
            return
        text = html_to_markdown(text) if kind == "text/html" else text.replace("\r\n", "\n")
        yield from [(text.strip(), kind == "text/html")] if text.strip() else []
    elif name and not kind.startswith("image/"):  # pictures of the text are not attached
        attached.append(name)


def _own(text: str) -> str:
    """What the author says or sends on, without what is quoted; all if that is nothing."""
    copied = COPIED.search(text)
    end = copied.start() if copied else len(text)
    own = ESCAPED.sub("", QUOTED.sub("", text[:end])).strip()
    return f"{own}\n\n{text[end:]}" if own and copied and copied["forwarded"] else own or text


def _decoded(data: bytes) -> str:
    """Decode what states no character set."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(COMMON_ENCODING, "replace")
