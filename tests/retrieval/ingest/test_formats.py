"""Every format: its text, its headings and pages, its tables; and files that are broken."""

import os
import zipfile
from collections.abc import Callable
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from docx import Document as WordDocument
from llama_index.core.schema import TextNode
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches
from pypdf import PdfReader, PdfWriter

from foundation.errors import DocumentError
from retrieval.ingest import office
from retrieval.ingest.chunking import split
from retrieval.ingest.documents import SkippedPath, read
from retrieval.ingest.markup import html_to_markdown
from tests.retrieval.conftest import pdf

RIVERS = [("River", "Length"), *((f"River {n}", f"{n} km") for n in range(60))]


def passages(path: Path) -> list[TextNode]:
    return [node for document in read([path], pytest.fail) for node in split(document)]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def word_file(path: Path) -> Path:
    document = WordDocument()
    document.add_heading("Rivers of Europe", 0)
    document.add_heading("Lengths", 1)
    document.add_paragraph("They were measured twice. " * 12)
    table = document.add_table(rows=0, cols=2)
    for row in RIVERS:
        for cell, value in zip(table.add_row().cells, row, strict=True):
            cell.text = value
    document.save(str(path))
    return path


def slides(path: Path) -> Path:
    deck = Presentation()
    for number in (1, 2):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Phase {number}"
        slide.placeholders[1].text = f"It costs {number} million."
        slide.notes_slide.notes_text_frame.text = f"Ask contractor {number}."
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(4), Inches(1)).table
    for place, value in enumerate(("River", "Length", "Rhine", "1,233 km")):
        table.cell(place // 2, place % 2).text = value
    deck.save(str(path))
    return path


def workbook(path: Path) -> Path:
    book = Workbook()
    sheet = book.active
    sheet.title = "Budget"
    for row in (["Phases of the harbour"], [], ["Phase", "Start", "Share"]):
        sheet.append(row)
    sheet.append(["One", date(2030, 1, 2), 0.25])
    sheet["C4"].number_format = "0%"
    hidden = book.create_sheet("Secret")
    hidden.append(["not", "shown"])
    hidden.sheet_state = "hidden"
    book.save(path)
    return path


def book(path: Path) -> Path:
    chapters = {f"c{n}.xhtml": f"<h1>Chapter {n}</h1><p>The river is {n} km.</p>" for n in (2, 1)}
    manifest = "".join(f'<item id="{name}" href="{name}"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in sorted(chapters))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="o/b.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "o/b.opf",
            "<package><metadata><title>Rivers</title></metadata>"
            f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>",
        )
        for name, text in chapters.items():
            archive.writestr(f"o/{name}", f"<html><body>{text}</body></html>")
    return path


def pages(path: Path, texts: list[str]) -> Path:
    writer = PdfWriter()
    for text in texts:
        part = path.with_suffix(".part")
        part.write_bytes(pdf(text))
        writer.append(PdfReader(part))
    writer.add_outline_item("The Elbe", 1)
    writer.write(path)
    return path


def test_a_word_file_has_headings_and_rows_that_name_their_columns(tmp_path: Path) -> None:
    nodes = passages(word_file(tmp_path / "r.docx"))
    assert {node.metadata["title"] for node in nodes} == {"Rivers of Europe"}
    assert {node.metadata["heading"] for node in nodes} == {"Lengths"}
    assert all(node.text.startswith("Lengths\n\n") for node in nodes)
    text = "\n".join(node.text for node in nodes)
    for name, length in RIVERS[1:]:
        assert f"River: {name}; Length: {length}" in text


def test_each_slide_is_a_page_with_its_notes_and_table(tmp_path: Path) -> None:
    first, second = passages(slides(tmp_path / "p.pptx"))
    assert (first.metadata["page"], second.metadata["page"]) == (1, 2)
    assert "It costs 1 million." in first.text
    assert "Ask contractor 1." in first.text
    assert second.text.startswith("Phase 2\n\n")
    assert "River: Rhine; Length: 1,233 km" in second.text


def test_a_workbook_gives_its_visible_sheets_as_they_are_shown(tmp_path: Path) -> None:
    (node,) = passages(workbook(tmp_path / "b.xlsx"))
    assert node.metadata["heading"] == "Budget"
    assert "Phases of the harbour" in node.text
    assert "Phase: One; Start: 2030-01-02; Share: 25%" in node.text


def test_a_book_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    (node,) = passages(book(tmp_path / "b.epub"))
    assert node.metadata["title"] == "Rivers"
    assert node.text.index("The river is 1 km.") < node.text.index("The river is 2 km.")


@pytest.mark.parametrize(("name", "between"), [("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")])
def test_rows_of_a_file_name_their_columns(tmp_path: Path, name: str, between: str) -> None:
    path = written(tmp_path / name, "".join(between.join(row) + "\n" for row in RIVERS))
    text = "\n".join(node.text for node in passages(path))
    for river, length in RIVERS[1:]:
        assert f"River: {river}; Length: {length}" in text


@pytest.mark.parametrize("after", ["", '4,"deep"\n'])
def test_a_quotation_without_an_end_hides_no_rows(tmp_path: Path, after: str) -> None:
    path = written(tmp_path / "q.csv", f'number,note\n1,long\n2,"cold\n3,wide\n{after}')
    with pytest.raises(DocumentError, match=r"line 3: not a table .* quotation marks"):
        passages(path)


@pytest.mark.parametrize(
    ("cell", "read_as"),
    [('"long, ""wide"""', 'long, "wide"'), ('5" pipe', '5" pipe'), ('"the "old" one"', "old")],
)
def test_quotation_marks_in_cells_are_read(tmp_path: Path, cell: str, read_as: str) -> None:
    path = written(tmp_path / "q.csv", f"number,note\n1,{cell}\n2,cold\n")
    (node,) = passages(path)
    assert read_as in node.text
    assert "number: 2; note: cold" in node.text


def test_a_table_of_numbers_is_kept_for_its_column_names(tmp_path: Path) -> None:
    rows = "".join(f"2030-01-{n:02},{n / 7:.5f}\n" for n in range(1, 30))
    (node, *_) = passages(written(tmp_path / "w.csv", f"date,rain\n{rows}"))
    assert node.text.startswith("date: 2030-01-01; rain: 0.14286\n")


def test_a_pdf_has_pages_and_the_headings_of_its_outline(tmp_path: Path) -> None:
    first, second = passages(pages(tmp_path / "r.pdf", ["The Rhine.", "The other river."]))
    assert (first.text, first.metadata["page"]) == ("The Rhine.", 1)
    assert (second.text, second.metadata["page"]) == ("The Elbe\n\nThe other river.", 2)
    assert second.metadata["heading"] == "The Elbe"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["The ferry to Tiree", "It costs 12 euros."], "The ferry to Tiree\nIt costs 12 euros."),
        (["Ferry to Tiree in winter", "It is cold."], "Ferry to Tiree in winter\nIt is cold."),
        (
            [f"The ferry leaves {'every day ' * 6}from the", "pier."],
            f"The ferry leaves {'every day ' * 6}from the pier.",
        ),
    ],
)
def test_a_short_pdf_joins_only_lines_that_fill_the_page(
    tmp_path: Path, lines: list[str], text: str
) -> None:
    path = tmp_path / "short.pdf"
    path.write_bytes(pdf(") Tj 0 -16 Td (".join(lines)))
    (node,) = passages(path)
    assert node.text == text


def test_two_pages_lose_the_titles_that_they_share(tmp_path: Path) -> None:
    pages = [
        ["Club rules", "Page 1 of 2", "Members pay 20 pounds.", "It is open daily.", "Ask Ann."],
        ["Club rules", "Page 2 of 2", "A guest pays 5.", "Dogs stay outside.", "Ask Tom."],
    ]
    book = PdfWriter()
    for lines in pages:
        book.append(BytesIO(pdf(") Tj 0 -16 Td (".join(lines))))
    book.write(tmp_path / "two.pdf")
    text = "\n".join(node.text for node in passages(tmp_path / "two.pdf"))
    assert "rules" not in text
    assert "of 2" not in text
    assert "Dogs stay outside." in text


def test_compatibility_signs_are_plain_unless_they_say_something_else(tmp_path: Path) -> None:
    (node,) = passages(
        written(tmp_path / "a.txt", "A bu\ufb00er of \uff15 m² and 10⁶\u00a0bytes, ½ full")
    )
    assert node.text == "A buffer of 5 m² and 10⁶ bytes, ½ full"


def test_markdown_drops_badges_and_keeps_code_and_tables(tmp_path: Path) -> None:
    path = written(
        tmp_path / "README.md",
        "---\ntitle: Boats\n---\n[![build](a.svg)](b) <img src='c.png'>\n\n## Use\n\n"
        "Run **it** with [care](d).\n\n```sh\n# not a heading\nboat --go\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
    )
    (node,) = passages(path)
    assert node.metadata["title"] == "Boats"
    assert node.text == (
        "Use\n\nRun it with care.\n\n```\n# not a heading\nboat --go\n```\n\na: 1; b: 2"
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Use --keep-days <n> to keep logs <n> days", "Use --keep-days <n> to keep logs <n> days"),
        ("<name>\nis *the* name", "<name> is the name"),
        ('- `<n>` and <N>\n- <a-b c="d">', '- <n> and <N>\n- <a-b c="d">'),
        ("| a | b |\n|---|---|\n| <n> | <m> |", "a: <n>; b: <m>"),
        ("<div>\nkeep <n> of <k=3>\n</div>", "keep <n> of <k=3>"),
        ("<config>\n  <host>x</host>\n</config>", "<config> <host>x</host> </config>"),
        # The names of elements that would hide all that follows.
        ("cp <object> <title> <dir>\n\nThe end.", "cp <object> <title> <dir>\n\nThe end."),
        ("<nav>\n\nThe end.", "<nav>\n\nThe end."),
        ("<input> to <output> <select>\n\nThe end.", "<input> to <output> <select>\n\nThe end."),
        ("```\n<n> <br> <title>\n```", "```\n<n> <br> <title>\n```"),
        ("scp file <host:path> to <me@host>", "scp file <host:path> to <me@host>"),
        ("<host:port>\nis *the* address", "<host:port> is the address"),
        ("<div>\nscp <host:/a%41/b>\n</div>\n\n<x:%41>", "scp <host:/a%41/b>\n\n<x:%41>"),
        (
            "It leaves the pier at nine: <https://a.org:80/b>, <mailto:me@a.org>, <me@a.org>",
            "It leaves the pier at nine: https://a.org:80/b, mailto:me@a.org, me@a.org",
        ),
    ],
)
def test_markdown_keeps_placeholders_in_angle_brackets(
    tmp_path: Path, text: str, kept: str
) -> None:
    (node,) = passages(written(tmp_path / "a.md", text))
    assert node.text == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("one<br>two<BR/>three", "one\ntwo\nthree"),
        ("It is <b>long</b> <img src='a.png' alt='<n>'> <!-- <n> -->and <span>cold</span>.", None),
        ("<div align='center'>\n\nIt is long and cold.\n\n</div>\n<!-- secret\n\n<n> -->", None),
        ("<svg>\n\n<path d='M0'/>\n\n</svg>\n\nIt is long and cold.", None),
        ("<p>It is long\n<p>and cold.", "It is long\n\nand cold."),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a: 1; b: 2"),
        ("<nav><p>Home</p></nav>\n\nIt is long and cold.", None),
    ],
)
def test_markdown_reads_the_elements_of_html(tmp_path: Path, text: str, kept: str | None) -> None:
    (node,) = passages(written(tmp_path / "a.md", text))
    if kept is None:
        assert " ".join(node.text.split()) == "It is long and cold."
    else:
        assert node.text == kept


def test_html_drops_what_is_made_of_links_and_keeps_what_is_said(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.html",
        "<ul><li><a href='a'>Home</a><li><a href='b'>Up</a></ul><h1>Rivers<a href='#r'>¶</a></h1>"
        "<p>See <a href='c'>the Elbe</a> for more, for it is long.</p>"
        "<table><tr><th>Country<th>Capital<tr><td><a href='p'>Peru</a><td><a href='l'>Lima</a>"
        "</table><p>It has 10<sup>6</sup> fish.</p>",
    )
    (node,) = passages(path)
    assert node.text == (
        "Rivers\n\nSee the Elbe for more, for it is long.\n\nCountry: Peru; Capital: Lima\n\n"
        "It has 10^6 fish."
    )


GROUPED = "<tr><th rowspan=2>Route<th colspan=2>Fare<tr><th>Adult<th>Child"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            f"{GROUPED}<tr><td>Tiree<td>10<td>5<tr><td>Coll<td colspan=2>8",
            "Route: Tiree; Fare Adult: 10; Fare Child: 5\n"
            "Route: Coll; Fare Adult: 8; Fare Child: 8",
        ),
        (
            "<tr><td rowspan=2>Route<td colspan=2>Fare<tr><td>Adult<td>Child"
            "<tr><td>Tiree<td>a | b<td>5",
            "Route: Tiree; Fare Adult: a | b; Fare Child: 5",
        ),
        (
            "<caption>Towns<thead><tr><th>Country<th>City<tbody><tr><td rowspan=4>Peru<td>Lima"
            "<tr><td>Cusco<tr><td>Ica<tr><td>Puno<tbody><tr><td rowspan=0>Chile<td>Arica",
            "Towns\n\nCountry: Peru; City: Lima\nCountry: Peru; City: Cusco\n"
            "Country: Peru; City: Ica\nCountry: Peru; City: Puno\nCountry: Chile; City: Arica",
        ),
        (
            f"<tr><th colspan=3># 2024</tr>{GROUPED}<tr><td>Tiree<td>10<td>5"
            "<tr><th colspan=3>Winter<tr><td>Coll<td>8<td>4<tr><td colspan=3>In euros.",
            "# 2024\n\nRoute: Tiree; Fare Adult: 10; Fare Child: 5\n\nWinter\n\n"
            "Route: Coll; Fare Adult: 8; Fare Child: 4\n\nIn euros.",
        ),
        (  # rows that name themselves
            "<tr><th colspan=2>Peru<tr><th>Capital<td>Lima<tr><th>People<td>34 million",
            "Peru\n\nCapital; Lima\nPeople; 34 million",
        ),
        (GROUPED, "Route: Route; Fare: Adult; Fare: Child"),  # no row but of names
        (
            "<tr><th>a<th>b<tr><td rowspan=2>1<td>2<tr><tr><td colspan=x>3<td rowspan=²>4",
            "a: 1; b: 2\na: 3; b: 4",
        ),
    ],
)
def test_cells_that_span_are_written_in_each_row_and_column(
    tmp_path: Path, rows: str, text: str
) -> None:
    (node,) = passages(written(tmp_path / "a.html", f"<table>{rows}</table>"))
    assert node.text == text


@pytest.mark.parametrize(
    "rows",
    [
        f"<tr>{'<td colspan=100 rowspan=0>x' * 100}{'<tr><td>y' * 2_000}",
        f"<tr><th rowspan=0>{'x' * 9_999}<th>y{'<tr><td>z' * 2_000}",
        f"<tr><th>{'x' * 9_999}<th>y{'<tr><td colspan=2>s<tr><td>z<td>z' * 2_000}",
    ],
)
def test_a_table_does_not_grow_without_bound(rows: str) -> None:
    assert len(html_to_markdown(f"<table>{rows}</table>")) < 2_000_000


def test_a_footer_is_dropped_where_it_is_that_of_the_page(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.html",
        "<div id=wrapper><article><p>The Elbe is long.<footer>Measured in 1990.</footer></article>"
        "<blockquote>It is cold.<footer>A boatman</footer></blockquote>"
        "<footer><p>Imprint: River Press, Harbour Road 1</footer></div>",
    )
    (node,) = passages(path)
    for kept in ("The Elbe is long.", "Measured in 1990.", "It is cold.", "A boatman"):
        assert kept in node.text
    assert "Imprint" not in node.text


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("a.html", "<p>The fee is <s>18</s> <b>24</b> crowns.", "The fee is 24 crowns."),
        ("a.html", "<p>The fee is <del>30</del><ins>35</ins>.", "The fee is 35."),
        ("a.html", "<p>The fee is <strike>30</strike> 35.", "The fee is 35."),
        ("a.md", "The fee is ~~4 crowns~~ 6 crowns, `~~x~~`.", "The fee is 6 crowns, ~~x~~."),
    ],
)
def test_what_is_struck_out_is_no_text(tmp_path: Path, name: str, source: str, text: str) -> None:
    (node,) = passages(written(tmp_path / name, source))
    assert node.text == text


@pytest.mark.parametrize(
    ("style", "shown"),
    [
        ("display:none", False),
        ("color: red; VISIBILITY : hidden !important;", False),
        ("text-decoration: line-through", False),
        ("display: block; --x-display:none", True),
        ("display:none-such; text-decoration:underline", True),
    ],
)
def test_what_its_style_hides_is_no_text(tmp_path: Path, style: str, shown: bool) -> None:
    page = f'<body style="display:none"><p>It is 6.</p><p style="{style}">It was 4.</p>'
    (node,) = passages(written(tmp_path / "a.html", page))
    assert node.text == ("It is 6.\n\nIt was 4." if shown else "It is 6.")


# A step that searches in each tag, or climbs from each, takes minutes for these.
@pytest.mark.parametrize(
    "tags",
    ["<div>", "<table><tr><td>", "<nav hidden></nav><ul><li>", "<section><sup><a href='#n'>1</a>"],
)
def test_tags_within_each_other_do_not_hold_up_a_directory(tmp_path: Path, tags: str) -> None:
    written(tmp_path / "deep.html", f"{tags * 20_000}The Rhine is long.")
    (node,) = passages(tmp_path)
    assert node.text.endswith("The Rhine is long.")


def test_restructured_text_keeps_what_only_sphinx_knows(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.rst",
        "Rivers\n======\n\n.. toctree::\n\n   other\n\n.. confval:: length\n   :type: int\n\n"
        "   In :ref:`kilometres <km>`.\n\n.. code-block:: sh\n   :linenos:\n\n   boat --go\n",
    )
    (node,) = passages(path)
    assert node.metadata["title"] == "Rivers"
    assert node.text == "length\n\nIn kilometres.\n\n```\nboat --go\n```"


def test_passages_do_not_cross_headings_unless_they_are_tiny(tmp_path: Path) -> None:
    long = "The water is deep and cold here. " * 12
    tiny = "### Mouth\n\nWide.\n\n### Spring\n\nHigh."
    text = f"# R\n\n## Rhine\n\n{long}\n\n## Elbe\n\n{long}\n\n{tiny}"
    nodes = passages(written(tmp_path / "r.md", text))
    assert [node.metadata["heading"] for node in nodes] == ["Rhine", "Elbe"]
    assert nodes[1].text.endswith("Mouth\n\nWide.\n\nSpring\n\nHigh.")


JUNK = {
    "x": "xxx" * 10_000,
    "x x": "xxx " * 10_000,
    "hex": "\n".join(f"{n:08x}: {n * 7919:08x} {n * 104729:08x}" for n in range(2_000)),
    "base64": "QmFzZTY0IGlzIG5vdCB0ZXh0LCBidXQgYnl0ZXM3Zm9yMm1hY2hpbmVz" * 500,
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_skipped_in_one_line(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.txt", JUNK[kind])
    with pytest.raises(DocumentError, match="has no words"):
        passages(path)
    written(tmp_path / "b.txt", "The Rhine is long.")
    skipped: list[SkippedPath] = []
    (document,) = read([tmp_path], skipped.append)
    assert document.text == "The Rhine is long."
    assert len(skipped) == 1


def encrypted(path: Path) -> None:
    path.write_bytes(office.OLE + bytes(1000) + office.ENCRYPTED + bytes(1000))


def truncated(make: Callable[[Path], Path]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        data = make(path).read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return cut


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(110):
                part.write(bytes(1_000_000))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.docx", encrypted, "encrypted"),
        ("a.xlsx", encrypted, "encrypted"),
        ("a.pptx", lambda path: path.write_bytes(office.OLE + bytes(2000)), "before 2007"),
        ("a.docx", truncated(word_file), "not a readable .docx"),
        ("a.pptx", truncated(slides), "not a readable .pptx"),
        ("a.xlsx", truncated(workbook), "not a readable .xlsx"),
        ("a.epub", truncated(book), "not a readable EPUB"),
        ("a.docx", bomb, "is read up to 100 MB"),
        ("a.pdf", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "image/png"),
        ("a.csv", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "image/png"),
        ("a.pdf", lambda path: pages(path, ["", ""]), "without text (2 pages)"),
        ("a.html", lambda path: written(path, "<a href=b>b</a> <a href=c>c</a>" * 9), "links"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(DocumentError) as caught:
        passages(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_ending_does_not_hide_what_a_file_is(tmp_path: Path) -> None:
    page = written(
        tmp_path / "page.txt", "<!DOCTYPE html><title>Rivers</title><p>It is <b>long</b>."
    )
    (node,) = passages(page)
    assert (node.text, node.metadata["title"]) == ("It is long.", "Rivers")
    paper = tmp_path / "paper.txt"
    paper.write_bytes(pdf("The Rhine is long."))
    (node,) = passages(paper)
    assert (node.text, node.metadata["page"]) == ("The Rhine is long.", 1)


def test_a_file_name_in_any_encoding_can_be_stored(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("The Rhine is long.")
    (node,) = passages(tmp_path)
    assert node.metadata["source"].endswith("caf\ufffd.txt")
    node.metadata["title"].encode()
