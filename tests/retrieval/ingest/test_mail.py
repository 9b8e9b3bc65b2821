"""E-mails as documents."""

from email.message import EmailMessage

import pytest

from foundation.errors import DocumentError
from retrieval.ingest.documents import read
from retrieval.ingest.readers import read_content


def mail(path, text="", html="", **headers):
    message = EmailMessage()
    headers = {"From": "Ada <ada@lamps.example>", "Subject": "Laptops"} | headers
    for name, value in headers.items():
        message[name] = value
    if text or not html:
        message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    path.write_bytes(message.as_bytes())
    return path, message


def test_a_message_is_read_with_its_headers_and_dated_as_it_was_sent(tmp_path):
    text = "Laptops are replaced after four years.\n\nAda"
    path, _ = mail(
        tmp_path / "a.eml", text, To="all@lamps.example", Date="Mon, 6 May 2024 09:12:00 +0200"
    )
    [document] = read([path], print)
    assert document.text.startswith("From: Ada <ada@lamps.example>\nTo: all@lamps.example\n")
    assert document.text.endswith(text)
    assert document.metadata["title"] == "Laptops"
    assert document.metadata["date"] == "2024-05-06"


def test_umlauts_long_subjects_and_html_are_decoded(tmp_path):
    subject = "Änderung der Prüfintervalle für alle Geräte im Werk Süd, gültig ab sofort " * 2
    html = "<p>Geprüft wird alle <b>90 Tage</b>.</p><table><tr><th>Werk</th></tr></table>"
    path, _ = mail(tmp_path / "a.eml", html=html, Subject=subject)
    [content] = read_content(path)
    assert content.title == subject.strip()
    assert "90 Tage" in content.text
    assert "<p>" not in content.text


def test_what_a_message_quotes_is_not_what_it_says(tmp_path):
    path, _ = mail(
        tmp_path / "a.eml",
        "It is five years now.\n\nOn Monday, Bo wrote:\n\n> Is it four years?\n> Bo\n\nAda",
    )
    [content] = read_content(path)
    assert "five years" in content.text
    assert "four years" not in content.text
    assert content.text.endswith("Ada")


def test_a_message_that_only_quotes_keeps_it(tmp_path):
    path, _ = mail(tmp_path / "a.eml", "> It is four years.")
    [content] = read_content(path)
    assert "It is four years." in content.text


def test_attached_files_are_named_since_they_are_not_read(tmp_path):
    path, message = mail(tmp_path / "a.eml", "The list is attached.")
    message.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="list.csv")
    path.write_bytes(message.as_bytes())
    told = []
    [document] = read([path], told.append)
    assert "1,2" not in document.text
    assert any("list.csv" in str(each) and "not read" in str(each) for each in told)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"Just a text that somebody has named so.\n", "has no headers of an e-mail"),
        (b"Subject: Hi\nFrom: a@b.example\n\n\n", "is an e-mail without text"),
        (
            b"Subject: Hi\nContent-Type: text/plain; charset=klingon-9\n"
            b"Content-Transfer-Encoding: 8bit\n\nNuq neH \xff\xfe\n",
            "cannot be decoded",
        ),
    ],
)
def test_what_is_no_readable_message_is_told_in_a_line(tmp_path, data, line):
    path = tmp_path / "a.eml"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=line):
        list(read_content(path))
