"""The date of a document: what it states, and what it does not."""

import json
import os
import zipfile
from datetime import date, timedelta
from pathlib import Path

import pytest
from docx import Document as WordDocument
from llama_index.core.schema import Document
from pptx import Presentation
from pypdf import PdfReader, PdfWriter

from foundation.errors import InputError
from retrieval.ingest.chunking import split
from retrieval.ingest.dates import parse_dated
from retrieval.ingest.dating import named_replaced, text_date, text_replaces
from retrieval.ingest.documents import ReadDocument, date_documents, plan_changes, read
from tests.retrieval.conftest import pdf

DOCUMENTS = [
    json.loads(line)
    for line in Path(__file__).with_name("dated_documents.jsonl").read_text("utf-8").splitlines()
]


def read_one(path: Path, text: str | None = None, **options: str) -> Document:
    if text is not None:
        path.write_text(text, encoding="utf-8")
    (document,) = read([path], pytest.fail, **options)
    return document


def date_of(path: Path, text: str | None = None, **options: str) -> str | None:
    return read_one(path, text, **options).metadata.get("date")


@pytest.mark.parametrize("ending", ["txt", "md"])
def test_documents_in_many_styles(tmp_path: Path, ending: str) -> None:
    """None has a wrong date, and few have none; what each replaces likewise."""
    wrong, missed, replaces = [], [], []
    for number, case in enumerate(DOCUMENTS):
        path = tmp_path / str(number) / f"{Path(case['file']).stem}.{ending}"
        path.parent.mkdir()
        found = read_one(path, case["text"]).metadata
        if found.get("date", "") != case["date"]:
            (wrong if "date" in found else missed).append((case["file"], found.get("date")))
        if found.get("replaces", "") != case["replaces"]:
            replaces.append((case["file"], found.get("replaces")))
    assert not wrong
    assert len(missed) <= 0.12 * len(DOCUMENTS), missed
    assert len(replaces) <= 0.05 * len(DOCUMENTS), replaces


def test_what_the_user_says_comes_before_the_text_and_a_line_before_the_user(
    tmp_path: Path,
) -> None:
    text = "Last updated 3 May 2021\n\nGuests pay."
    assert date_of(tmp_path / "a.txt", text) == "2021-05-03"
    for dated in ("2020-03-01", "2020-03", "2020"):
        assert date_of(tmp_path / "a.txt", text, dated=dated) == dated
    line = json.dumps({"text": text, "date": "4 June 2019", "replaces": ["Rules A", "2018"]})
    metadata = read_one(tmp_path / "a.jsonl", line, dated="2020").metadata
    assert (metadata["date"], metadata["replaces"]) == ("2019-06-04", "Rules A; 2018")
    assert date_of(tmp_path / "b.jsonl", json.dumps({"text": text})) == "2021-05-03"


@pytest.mark.parametrize(
    "dated", ["", "soon", "2021-13", "2021-02-30", "01.03.2021", "1399", "9998"]
)
def test_a_wrong_date_of_the_user_is_one_clear_line(tmp_path: Path, dated: str) -> None:
    with pytest.raises(InputError, match="--dated") as caught:
        parse_dated(dated)
    assert "\n" not in str(caught.value)
    (tmp_path / "a.txt").write_text("The Rhine.")
    with pytest.raises(InputError):
        list(read([tmp_path / "a.txt"], pytest.fail, dated=dated))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("---\ntitle: T\ndate: 2021-03-04\n---\n", "2021-03-04"),
        ("---\ndate: 2021-03-04\nlastmod: 2022-05-06T10:00:00Z\n---\n", "2022-05-06"),
        ("---\nexpiry_date: 2021-03-04\n---\n", None),
        ('+++\ntitle = "T"\ndate = 2020-01-02\n+++\n', "2020-01-02"),
        ("---\ntitle: Rhine\nstatus: 2021-02-31\n---\n", None),
    ],
)
def test_front_matter(tmp_path: Path, head: str, expected: str | None) -> None:
    document = read_one(tmp_path / "a.md", f"{head}\nThe Rhine is long.")
    assert document.metadata.get("date") == expected
    assert document.text == "The Rhine is long."


def test_the_version_in_front_matter_is_kept_as_it_is_written(tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.md", "---\ntitle: T\nversion: 1.10\n---\nThe Rhine is long.")
    assert document.metadata["version"] == "1.10"
    merged = "---\nbase: &b\n  version: 1.5\n<<: *b\ntitle: T\n---\nThe Rhine is long."
    assert read_one(tmp_path / "b.md", merged).metadata["version"] == "1.5"
    toml = '+++\ntitle = "T"\nversion = 1.10\n+++\nThe Rhine is long.'
    assert read_one(tmp_path / "c.md", toml).metadata["version"] == "1.10"


@pytest.mark.parametrize(
    ("name", "head", "text", "expected"),
    [
        ("a", "version: 2024-02-01", "The Rhine.", "2024-02-01"),  # nothing else is stated
        ("a", "version: 2030", "The Rhine.", None),  # a number
        ("a", "version: 2024-02-01\ndate: 2023-05-06", "The Rhine.", "2023-05-06"),
        ("a", "version: 2024-02-01", "Last updated 3 May 2021\n\nThe Rhine.", "2021-05-03"),
        ("2022-03-04-rhine", "version: 2024-02-01", "The Rhine.", "2022-03-04"),
        ("a", "version: 3.4.2021", "The Rhine.", None),
        ("a", "api-version: 2024-02-01", "The Rhine.", None),
    ],
)
def test_a_version_that_is_a_date_dates_a_document_without_another(
    tmp_path: Path, name: str, head: str, text: str, expected: str | None
) -> None:
    document = read_one(tmp_path / f"{name}.md", f"---\n{head}\n---\n{text}")
    assert document.metadata.get("date") == expected
    if head.startswith("version: 2024"):
        assert document.metadata["version"] == "2024-02-01"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("refund-policy-2022", "2022"),
        ("2023-04_minutes", "2023-04"),
        ("20210503 offer", "2021-05-03"),
        ("report 3 May 2021", "2021-05-03"),
        ("budget 2019-2020", None),
        ("IMG_123420215", None),
        ("plan-9999", None),
    ],
)
def test_file_names(tmp_path: Path, name: str, expected: str | None) -> None:
    path = tmp_path / f"{name}.txt"
    assert date_of(path, "Guests pay at the desk.") == expected
    assert date_of(path, "As of 3 May 2016, guests pay.") == "2016-05-03"


def test_the_time_of_the_file_is_no_date(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The Rhine is long.")
    os.utime(path, (1e9, 1e9))
    assert date_of(path) is None


TO_COME = (date.today() + timedelta(days=40)).isoformat()


@pytest.mark.parametrize(
    ("text", "dated"),
    [
        (f"Effective date: {TO_COME}\n\nGuests pay.", TO_COME),
        (f"Fares\n\nIssued on 3 May 2021. Valid from {TO_COME}.\n\nGuests pay.", TO_COME),
        (f"These rules come into force on {TO_COME}. Guests pay.", TO_COME),
        (f"Tariff\n3 May 2021\nThis tariff is valid from {TO_COME}.", TO_COME),
        (f"Gym\nThese opening hours come into force on {TO_COME}.\nMon 7.30", TO_COME),
        (f"Notice\n\nThe fee is 9 euros.\nThe new law comes into force on {TO_COME}.", ""),
        (f"Notice\n\nThe fee is 9 euros.\nA discount is valid from {TO_COME}.", ""),
        (f"Notice\n\nThe fee is 9 euros.\nNo longer valid from {TO_COME}.", ""),
        (f"Notice\n\nThe fee is 9 euros.\nThis ticket is valid to {TO_COME}.", ""),
        (f"Tariff, valid from 3 May 2021.\nNew prices apply from {TO_COME}.", "2021-05-03"),
        (f"Ostwell\n3 May 2021\n\nDear guest, the fee applies from {TO_COME}.", "2021-05-03"),
        (f"Minutes of the meeting of 3 May 2021\n\nThe fee applies from {TO_COME}.", "2021-05-03"),
        (f"Tariff, valid until {TO_COME}.\n\nGuests pay.", ""),
        (f"Last updated: {TO_COME}\n\nGuests pay.", ""),
        ("Effective date: 2099-01-01\n\nGuests pay.", ""),
    ],
)
def test_of_dates_to_come_only_that_from_which_a_document_first_holds_is_its_own(
    text: str, dated: str
) -> None:
    assert text_date(text) == dated


@pytest.mark.parametrize(
    ("field", "dated"),
    [
        ("date", TO_COME),
        ("effective date", TO_COME),
        ("valid_from", TO_COME),
        ("valid until", None),
        ("valid_to", None),
        ("review_date", None),
    ],
)
def test_a_field_may_date_a_document_to_come(tmp_path: Path, field: str, dated: str) -> None:
    text = f"---\n{field}: {TO_COME}\n---\nGuests pay."
    assert date_of(tmp_path / "a.md", text) == dated
    assert parse_dated(TO_COME) == TO_COME


def test_dates_of_long_ago_are_none() -> None:
    assert text_date("Issued on 3 May 1399\n\nGuests pay.") == ""
    assert text_date("Issued on 3 May 1400\n\nGuests pay.") == "1400-05-03"


@pytest.mark.parametrize(
    "text",
    [
        "Log\n\nWritten on day 1444 of the voyage. The crew is well.",
        "Rules\n\nThese rules apply from day 1444 of the voyage.",
        "Status of day 1444: two pumps work.",
        "Minutes of the meeting in room 1510\n\nThe fee is 20 crowns.",
        "Order no. 1812\n\nThirty barrels of tar.",
        "Order #1812\n\nThirty barrels of tar.",
        "Permit\n\nThis permit is valid for 1500 vehicles.",
    ],
)
def test_a_number_that_nothing_marks_as_a_year_is_no_date(tmp_path: Path, text: str) -> None:
    assert date_of(tmp_path / "a.txt", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Travel Handbook 2019\n\nGuests pay.",
        "Terms of use, version 2019\n\nGuests pay.",
        "Handbook (2019)\n\nGuests pay.",
        "Policy, 2019\n\nGuests pay.",
        "2019 Edition\n\nGuests pay.",
        "Minutes of the AGM 2019\n\nThe fee is 20.",
        "Fees\n\nValid from 2019: adults 20 crowns.",
        "Fees\n\nLast updated: 2019",
        "Rules\n\nIn force since 2019 throughout the harbour.",
        "Rules\n\nRevised in 2019 after the fire.",
        "Tariff\n\nPrices valid for 2019.",
    ],
)
def test_a_year_alone_that_is_marked_as_one_is_a_date(tmp_path: Path, text: str) -> None:
    assert date_of(tmp_path / "a.txt", text) == "2019"


@pytest.mark.parametrize(
    ("words", "expected"),
    [("day 1444", None), ("no. 1812", None), ("season 2019", "2019"), ("as of 2019", "2019")],
)
def test_a_number_in_the_words_that_were_read_is_no_date(
    tmp_path: Path, words: str, expected: str | None
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"Rules of the harbour, {words}. Guests pay at the desk.")
    (document,) = _dated([path], lambda *_: (words, ""))
    assert document.metadata.get("date") == expected


def test_figures_of_unknown_order_give_the_year() -> None:
    assert text_date("Last updated: 3/4/2021") == "2021"
    assert text_date("Last updated: 3/4/2021\n\nThe fair was on 2/28/2020.") == "2021-03-04"


def test_a_month_in_unusual_letters_is_no_error() -> None:
    assert text_date("Issued on 3 Apr\u0131l 2021\n\nLast updated 4 May 2020") == "2020-05-04"
    assert text_date("Issued on 3 AUGUST 2021") == "2021-08-03"


def test_a_web_page_is_dated_by_its_footer_or_its_tags(tmp_path: Path) -> None:
    page = "<html><head>{}</head><body><p>The Rhine is long.</p>{}</body></html>"
    footer = "<footer>Contact us. <p>Last updated on Nov 12, 2023.</p></footer>"
    tag = '<meta property="article:published_time" content="2020-02-03T10:00:00Z">'
    expires = '<meta name="expires" content="2020-02-03">'
    assert date_of(tmp_path / "a.html", page.format(tag, footer)) == "2023-11-12"
    assert date_of(tmp_path / "b.html", page.format(tag, "")) == "2020-02-03"
    assert date_of(tmp_path / "c.html", page.format(expires, "")) is None


def test_properties_inside_files(tmp_path: Path) -> None:
    writer = PdfWriter(clone_from=PdfReader(_written(tmp_path / "r.pdf", pdf("The Rhine."))))
    writer.add_metadata({"/CreationDate": "D:20190203101112+01'00'"})
    writer.write(tmp_path / "s.pdf")
    assert date_of(tmp_path / "s.pdf") == "2019-02-03"
    word = WordDocument()
    word.add_paragraph("The Rhine is long.")
    word.save(str(tmp_path / "template.docx"))
    assert date_of(tmp_path / "template.docx") is None  # 2013, the day of the library's template
    word.core_properties.modified = word.core_properties.created + timedelta(days=3000)
    word.save(str(tmp_path / "written.docx"))
    assert str(date_of(tmp_path / "written.docx")) == "2022-03-11"
    word.sections[0].footer.paragraphs[0].text = "Version 2, 4 June 2021"
    word.save(str(tmp_path / "footer.docx"))
    assert date_of(tmp_path / "footer.docx") == "2021-06-04"
    deck = Presentation()
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = "Rivers"
    deck.save(str(tmp_path / "a.pptx"))
    assert date_of(tmp_path / "a.pptx") is None


@pytest.mark.parametrize("stated", ["soon", "2031-02-31", "1066"])
def test_a_json_line_with_an_unusable_date_is_kept_and_said_to_be_undated(
    tmp_path: Path, stated: str
) -> None:
    path, skipped = tmp_path / "a.jsonl", []
    path.write_text(json.dumps({"text": "The Rhine is long.", "date": stated}), encoding="utf-8")
    (document,) = read([path], skipped.append)
    assert "date" not in document.metadata
    assert [each.path for each in skipped] == [path]
    assert repr(stated) in skipped[0].reason


def test_a_damaged_property_is_no_date(tmp_path: Path) -> None:
    word = WordDocument()
    word.add_paragraph("The Rhine is long.")
    word.save(str(tmp_path / "a.docx"))
    with (
        zipfile.ZipFile(tmp_path / "a.docx") as old,
        zipfile.ZipFile(tmp_path / "b.docx", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"<x" if name == "docProps/core.xml" else old.read(name))
    assert date_of(tmp_path / "b.docx") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("This policy replaces the policy of 4 May 2020.", "2020-05-04"),
        ("It supersedes the Travel Handbook 2021.", "Travel Handbook 2021"),
        ("This version replaces all earlier ones.", "*"),
        ("This policy replaces, from 1 May 2021, each desk.", ""),
        ("This policy has been replaced by the Travel Handbook 2021.", ""),
        ("The new pump replaces the pump of 4 May 2020.", ""),
        ("This function replaces every old character of the string.", ""),
    ],
)
def test_what_a_document_replaces(text: str, expected: str) -> None:
    assert text_replaces(f"Rules for guests\n\n{text} Guests pay at the desk.") == expected


def test_another_date_replaces_the_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The Rhine.")
    first, same, other = (
        next(read([path], pytest.fail, dated=dated)) for dated in ("2020", "2020", "2021")
    )
    assert first.id_ == other.id_
    stored = {first.id_: first.metadata["content_hash"]}
    assert plan_changes([same], stored) == ([], set())
    assert plan_changes([other], stored) == ([other], {first.id_})


def test_passages_carry_the_date_and_parts_of_a_file_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.ingest.encodings.PART_BYTES", 2000)
    path = tmp_path / "a.txt"
    path.write_text(
        "Valid from 1 March 2022\n\n" + "Guests pay at the desk when they leave.\n" * 200
    )
    documents = list(read([path], pytest.fail))
    assert len(documents) > 1
    nodes = [node for document in documents for node in split(document)]
    assert {node.metadata["date"] for node in nodes} == {"2022-03-01"}


LETTER = "Harbour Office, 4 May 2021. Dear members, the pier of 1890 is closed. Our rules are void."


def test_what_no_known_form_tells_is_read_from_the_words(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text(LETTER)
    asked = []

    def read_document(title: str, text: str) -> tuple[str, str]:
        asked.append((title, text))
        return "4 May 2021", "the rules of 3 June 2019"

    plain, dated = (
        next(iter(found)) for found in (read([path], pytest.fail), _dated([path], read_document))
    )
    assert asked == [("letter", LETTER)]
    assert (dated.metadata["date"], dated.metadata["replaces"]) == ("2021-05-04", "2019-06-03")
    stored = {plain.id_: plain.metadata["content_hash"]}
    assert plan_changes([dated], stored) == ([dated], {plain.id_})
    assert {node.get_content("embed") for node in split(dated)} == {f"letter\n\n{LETTER}"}


@pytest.mark.parametrize("words", ["", "next week", "4 May 1021"])
def test_words_that_are_no_date_are_none(tmp_path: Path, words: str) -> None:
    path = tmp_path / "letter.txt"
    path.write_text(LETTER)
    (document,) = _dated([path], lambda *_: (words, ""))
    assert not {"date", "replaces"} & document.metadata.keys()


def test_only_what_holds_a_date_and_lacks_its_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Guests pay at the desk.")
    (tmp_path / "b.txt").write_text("Valid from 1 March 2022, in place of the earlier ones")
    (tmp_path / "c.jsonl").write_text(
        "".join(
            json.dumps({"text": f"In {year} it was cold.", **stated}) + "\n"
            for year, stated in (
                (2019, {}),
                (2020, {"date": "2021", "replaces": "2018"}),
                (2021, {}),
            )
        )
    )
    texts = []

    def read_document(title: str, text: str) -> tuple[str, str]:
        texts.append(text)
        return ("2015", "all earlier ones") if "Valid" in text else ("", "")

    dates = [
        (document.metadata.get("date"), document.metadata.get("replaces"))
        for document in _dated([tmp_path], read_document)
    ]
    assert texts[1:] == ["In 2019 it was cold.", "In 2021 it was cold."]
    assert dates == [
        (None, None),
        ("2022-03-01", "*"),
        (None, None),
        ("2021", "2018"),
        (None, None),
    ]


def test_the_beginning_of_a_file_dates_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.ingest.encodings.PART_BYTES", 2000)
    path = tmp_path / "a.txt"
    path.write_text(LETTER + "\n" + "In 2020 guests paid when they left.\n" * 200)
    texts = []

    def read_document(title: str, text: str) -> tuple[str, str]:
        texts.append(text)
        return "4 May 2021", ""

    found = [document.metadata["date"] for document in _dated([path], read_document)]
    assert len(found) > 1
    assert set(found) == {"2021-05-04"}
    assert len(texts) == 1


CIRCULAR = "This circular supersedes Circular 9 dated 3 June 2024 and is valid from 1 May 2025."


def test_the_date_of_what_is_replaced_is_not_the_document_s_own(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert date_of(path, f"Circular 14\n\n{CIRCULAR}") == "2025-05-01"
    assert date_of(path, f"Circular 14\n\n{CIRCULAR.partition(' and')[0]}.") is None
    (document,) = _dated([path], lambda *_: ("3 June 2024", "Circular 9 dated 3 June 2024"))
    assert "date" not in document.metadata
    assert document.metadata["replaces"] == "2024-06-03; Circular 9"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("the tariff of 1 May 2019", "2019-05-01"),
        (
            "Travel rules, first edition of 10 October 2022",
            "2022-10-10; Travel rules, first edition",
        ),
        ("All earlier price lists", "*"),
        ("Rules for Guests 2020", "Rules for Guests 2020"),
        ("", ""),
    ],
)
def test_what_the_words_name(words: str, expected: str) -> None:
    assert named_replaced(words) == expected


def _dated(paths: list[Path], read_document: ReadDocument) -> list[Document]:
    return list(date_documents(read(paths, pytest.fail), read_document))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# Minutes\n\nDate: 12 May 2025\n\nThe fee is 21.\n\nNext meeting: 8 July 2025",
            "2025-05-12",
        ),
        (
            "# Rules\n\nValid from 12 May 2025. To be reviewed by 8 July 2025.\n\nText.",
            "2025-05-12",
        ),
        ("Board meeting, 12 May 2025\n\nText.\n\nNext board meeting 8 July 2025", "2025-05-12"),
    ],
)
def test_what_is_to_come_is_not_the_date_of_a_document(text: str, expected: str) -> None:
    assert text_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Talmera, a 7 de agosto de 2024\n\nEstimados socios, la cuota es de 20.", "2024-08-07"),
        ("Brzezin, dnia 21 stycznia 2024 r.\n\nSzanowni Panstwo, oplata wynosi 20.", "2024-01-21"),
        ("Datum: 4 mei 2023\n\nGeachte leden, de contributie is 20 euro.", "2023-05-04"),
        ("Stand: 15. Februar 2025\n\nDie Geb\u00fchr ist 20 Euro.", "2025-02-15"),
    ],
)
def test_letter_heads_in_other_languages(text: str, expected: str) -> None:
    assert text_date(text) == expected


def test_this_document_replaces_another_whatever_it_is_called() -> None:
    text = "This tariff replaces the version of 1 April 2022 and is valid from 1 May 2023."
    assert text_replaces(text) == "2022-04-01"
    assert text_replaces("The tariff of Leeds replaces the version of 1 April 2022.") == ""
