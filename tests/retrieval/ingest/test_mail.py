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
    assert document.text.startswith("Ada <ada@lamps.example> wrote to all@lamps.example:\n\n")
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


def saved(path, *lines):
    path.write_bytes("\n".join(lines).encode("latin-1"))
    [content] = read_content(path)
    return content


HEADERS = ("From: Ada <ada@lamps.example>", "Subject: Laptops")


@pytest.mark.parametrize(
    "header",
    [
        "On Mon, 6 May 2024 at 09:12, Iven <iven@lamps.example> wrote:",
        "On Mon, 6 May 2024 at 09:12, Iven of Lamps\n<iven@lamps.example> wrote:\n",
        "On Mon, 6 May 2024 at 09:12, Iven of Lamps <iven@lamps.example>\nwrote:",
        "Iven <iven@lamps.example> wrote:",
        "Am Mo., 6. Mai 2024 um 09:12 Uhr schrieb Iven <iven@lamps.example>:",
        "Am 06.05.24 um 09:12 schrieb Iven\n<iven@lamps.example>:",
        "Le lun. 6 mai 2024 à 09:12, Iven <iven@lamps.example> a écrit :",
        "Le lun. 6 mai 2024 à 09:12, Iven\n<iven@lamps.example> a écrit\xa0:",
    ],
)
def test_who_wrote_what_is_quoted_is_dropped_with_it(tmp_path, header):
    path, _ = mail(tmp_path / "a.eml", f"Five years.\n\n{header}\n> Four years?\n> Iven\n\nAda")
    [content] = read_content(path)
    assert content.text.partition("\n\n")[2].split() == ["Five", "years.", "Ada"]


@pytest.mark.parametrize(
    "header",
    [
        "-----Original Message-----\nFrom: Iven",
        "-----Ursprüngliche Nachricht-----\nVon: Iven",
        "From: Iven <iven@lamps.example>\nSent: Monday, 6 May 2024\nTo: Ada\nSubject: Laptops",
        "________________________________\nVon: Iven\nGesendet: Montag\nAn: Ada\nBetreff: Laptops",
        "De : Iven\nEnvoyé : lundi\nÀ : Ada\nObjet : Laptops",
    ],
)
def test_an_unmarked_copy_below_is_dropped_unless_it_is_all(tmp_path, header):
    path, _ = mail(tmp_path / "a.eml", f"Five years.\n\n{header}\n\nFour years?")
    [content] = read_content(path)
    assert content.text.endswith("\n\nFive years.")
    path, _ = mail(tmp_path / "b.eml", f"{header}\n\nFour years?\n\n> Five years?")
    [content] = read_content(path)
    assert content.text.endswith(f"{header}\n\nFour years?\n\n> Five years?")


def test_a_copy_in_html_is_dropped(tmp_path):
    header = "<b>From:</b> Iven<br><b>Sent:</b> Monday<br><b>To:</b> Ada<br><b>Subject:</b> Lamps"
    path, _ = mail(tmp_path / "a.eml", html=f"<p>Five years.</p><p>{header}</p><p>Four years?</p>")
    [content] = read_content(path)
    assert content.text.endswith("\n\nFive years.")
    header = 'On Mon, Iven &lt;<a href="mailto:i@x.example">i@x.example</a>&gt; wrote:'
    quoted = f"<div>{header}<br></div><blockquote>Four years?<br><br>Iven</blockquote>"
    path, _ = mail(tmp_path / "b.eml", html=f"<div>Five years.</div>{quoted}")
    [content] = read_content(path)
    assert content.text.endswith("\n\nFive years.")


@pytest.mark.parametrize("own", ["For your information.\n\n", ""])
def test_a_message_sent_on_is_kept_whole(tmp_path, own):
    sent_on = (
        "-------- Forwarded Message --------\nFrom: Bo\nDate: Monday\nTo: Ada\n\n> Four?\n\nYes."
    )
    path, _ = mail(tmp_path / "a.eml", own + sent_on)
    [content] = read_content(path)
    assert content.text.endswith(f"\n\n{own}{sent_on}")


def test_what_the_author_writes_beside_a_quote_is_kept(tmp_path):
    text = "This is my answer:\n> Four years?\nFive.\n> From when?\n\n>From Monday on.\n"
    path, _ = mail(tmp_path / "a.eml", text)
    [content] = read_content(path)
    assert content.text.endswith("\n\nThis is my answer:\nFive.\n\nFrom Monday on.")


def test_a_quoted_line_that_begins_with_from_is_a_quote(tmp_path):
    path, _ = mail(tmp_path / "a.eml", "Five.\n\n>Four years.\n>From Monday on.\n")
    [content] = read_content(path)
    assert content.text.endswith("\n\nFive.")


def test_a_second_text_is_read_and_attached_messages_are_named(tmp_path):
    content = saved(
        tmp_path / "a.eml",
        *HEADERS,
        *("Content-Type: multipart/mixed; boundary=x", "", "--x", "", "First.", "--x"),
        *("Content-Type: message/rfc822", "", "Subject: Old", "", "Four years.", "--x"),
        *("Content-Type: text/plain", "", "Second.", "--x--"),
    )
    assert content.text.endswith("\n\nFirst.\n\nSecond.")
    assert "not read: message/rfc822" in content.notice


def test_html_is_read_where_the_plain_text_is_empty(tmp_path):
    path, message = mail(tmp_path / "a.eml", " ")
    message.add_alternative("<p>Five <b>years</b>.</p>", subtype="html")
    path.write_bytes(message.as_bytes())
    [content] = read_content(path)
    assert content.markdown
    assert content.text.endswith("\n\nFive years.")


def test_a_part_in_an_unknown_character_set_costs_only_itself(tmp_path):
    content = saved(
        tmp_path / "a.eml",
        *HEADERS,
        *("Content-Type: multipart/mixed; boundary=x", "", "--x"),
        *("Content-Type: text/plain; charset=klingon-9", "", "Nuq neH", "--x"),
        *("Content-Type: text/plain", "", "Five years.", "--x--"),
    )
    assert content.text.endswith("\n\nFive years.")
    assert "text/plain cannot be decoded (unknown encoding: klingon-9)" in content.notice


def test_raw_letters_of_latin_1_are_decoded(tmp_path):
    content = saved(tmp_path / "a.eml", "From: Jörg <j@x.example>", "Subject: Prüfung", "", "fünf")
    assert content.title == "Prüfung"
    assert content.text == "Jörg <j@x.example> wrote:\n\nfünf"
    content = saved(tmp_path / "b.eml", "To: a@x.example", "Cc: b@x.example", "", "fünf")
    assert content.text == "Someone wrote to a@x.example, with a copy to b@x.example:\n\nfünf"
    assert saved(tmp_path / "c.eml", "Subject: Prüfung", "", "fünf").text == "fünf"


@pytest.mark.parametrize(
    "date",
    ["soon", "Mon, 6 May 9024 09:12:00 +0200", "Mon, 6 May 99999999999999999999 09:12:00 +0000"],
)
def test_an_impossible_date_is_told(tmp_path, date):
    content = saved(tmp_path / "a.eml", *HEADERS, f"Date: {date}", "", "Five years.")
    assert f"its Date header, {date!r}, is no date or is in the future" in content.notice
    assert not content.front_matter


def test_of_several_mails_in_a_file_each_is_read(tmp_path):
    start = "From ada@lamps.example Mon May  6 09:12:00 2024"
    five = (start, *HEADERS, "Date: Mon, 6 May 2024 09:12:00 +0200", "", "Five years.", "")
    path = tmp_path / "a.eml"
    path.write_text("\n".join([*five, start, *HEADERS, "", "Six years.", ""]))
    first, second = read_content(path)
    assert first.text.endswith("\n\nFive years.")
    assert first.front_matter == {"date": "2024-05-06"}
    assert second.text.endswith("\n\nSix years.")
    assert not second.front_matter
    path.write_text("\n".join([*five, start, *HEADERS, ""]))
    [content] = read_content(path)
    assert content.notice.startswith(f"{path}: 1 of its 2 e-mails are not read: ")


THREAD = """
From: Ida Brandt <ida@brenn.example>
To: All
Date: Tue, 4 Mar 2025 09:12:00 +0100
Subject: Re: Canoe hire

The hire of a canoe now costs 18 euros.

> The hire of a canoe costs 15 euros.

-----Original Message-----
From: Ole Dahl
Sent: 12 January 2024 10:00
To: Ida Brandt; Crew
Subject: Canoe hire

The hire of a canoe costs 15 euros.
------------------------------------
From: Ida Brandt
To: Ole Dahl
Date: soon
Subject: Keys

From: is a word here.
"""


def test_a_text_of_mails_is_read_as_mails_each_with_its_date(tmp_path):
    path = tmp_path / "thread.txt"
    path.write_text(THREAD)
    assert [(each.title, each.front_matter, each.text) for each in read_content(path)] == [
        (
            "Re: Canoe hire",
            {"date": "2025-03-04"},
            "Ida Brandt <ida@brenn.example> wrote to All:\n\n"
            "The hire of a canoe now costs 18 euros.",
        ),
        (
            "Canoe hire",
            {"date": "2024-01-12"},
            "Ole Dahl wrote to Ida Brandt; Crew:\n\nThe hire of a canoe costs 15 euros.",
        ),
        ("Keys", {}, "Ida Brandt wrote to Ole Dahl:\n\nFrom: is a word here."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "From: Ada\nTo: Ben\n\nLaptops.",  # two headers are no message
        f"A thread, saved in 2025.\n{THREAD}",
        "From: Ada\nTo: Ben\nDate: 2024-05-06\nLaptops are replaced after four years.",
    ],
)
def test_a_text_that_begins_with_something_else_is_read_as_it_is(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    [content] = read_content(path)
    assert content.text == text


def test_of_an_invitation_the_text_is_read(tmp_path):
    path, message = mail(tmp_path / "a.eml", "We meet on Monday.")
    message.add_alternative("BEGIN:VCALENDAR", subtype="calendar")
    path.write_bytes(message.as_bytes())
    [content] = read_content(path)
    assert content.text.endswith("\n\nWe meet on Monday.")
    with pytest.raises(DocumentError, match="is a calendar invitation without text"):
        saved(path, *HEADERS, "Content-Type: text/calendar", "", "BEGIN:VCALENDAR")


def test_long_lines_are_read_soon(tmp_path):
    text = tmp_path / "a.txt"
    for line in ("On " * 100_000, "@" * 300_000, "On a b:\n" * 50_000, ":\n\n" * 100_000):
        saved(tmp_path / "a.eml", *HEADERS, "", line)
        for more in (line, "---\n" * 50_000, "\n" * 300_000, "From: a\n" * 50_000):
            text.write_text(f"From: a\nTo: b\nDate: c\n\n{more}")
            list(read_content(text))
