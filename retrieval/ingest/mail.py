"""E-mail: a message as mail programs save it."""

import re
from collections.abc import Iterator
from email import errors, policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

from foundation.errors import DocumentError
from retrieval.ingest.content import Content, check_size
from retrieval.ingest.dates import is_possible
from retrieval.ingest.markup import html_to_markdown

LARGEST_MAIL = 50_000_000  # bytes, with what is attached
SHOWN_HEADERS = ("From", "To", "Cc", "Subject")
# What the parser raises for malformed headers and unknown character sets.
UNREADABLE = (ValueError, LookupError, AttributeError, errors.MessageError)
# What an answer quotes of the message before, and the line that says whose it is. That message
# claims it, and at its own date.
QUOTED = re.compile(r"^(?:[^\n>]*:\n+)?(?:>[^\n]*(?:\n|$))+", re.MULTILINE)


def read_eml(path: Path) -> Iterator[Content]:
    """Yield the text of a message after its sender, recipients and subject, dated as it was sent.

    Raises:
        DocumentError: it is too big, no message, or without text.
    """
    check_size(path, path.stat().st_size, LARGEST_MAIL, "e-mail")
    with path.open("rb") as file:
        message = BytesParser(policy=policy.default).parse(file)
    try:
        content = _content(path, message)
    except UNREADABLE as error:
        raise DocumentError(
            f"{path} is an e-mail that cannot be decoded ({error}); save its text as .txt"
        ) from error
    yield content


def _content(path: Path, message: EmailMessage) -> Content:
    shown = [f"{name}: {message[name]}" for name in SHOWN_HEADERS if message[name]]
    if not shown:
        raise DocumentError(f"{path} has no headers of an e-mail; name a text file .txt")
    body = message.get_body(("plain", "html"))
    text = str(body.get_content()) if body else ""
    markdown = body is not None and body.get_content_subtype() == "html"
    text = (html_to_markdown(text) if markdown else text).replace("\r\n", "\n").strip()
    if not text:
        raise DocumentError(f"{path} is an e-mail without text; leave it out")
    own = QUOTED.sub("", text).strip()
    sent = getattr(message["Date"], "datetime", None)
    date = sent.date().isoformat() if sent else ""
    attached = [part.get_filename() or part.get_content_type() for part in _attached(message)]
    return Content(
        "\n\n".join(["\n".join(shown), own or text]),
        title=" ".join(str(message["Subject"] or "").split()) or None,
        markdown=markdown,
        front_matter={"date": date} if is_possible(date) else {},
        notice=f"{path}: what is attached is not read: {', '.join(attached)}; ingest it by itself"
        if attached
        else "",
    )


def _attached(message: EmailMessage) -> Iterator[EmailMessage]:
    """The files sent with a message; pictures of its own text are none."""
    return (
        part
        for part in message.iter_attachments()
        if isinstance(part, EmailMessage) and part.get_content_disposition() == "attachment"
    )
