"""Sentences that state a forgotten fact leave a text; the others stay."""

import base64
from dataclasses import replace

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from app.factory import fact_classifier
from control import prompts
from control.forgetting.ledger import Ledger
from control.forgetting.normalize import holds
from control.forgetting.parts import parts
from control.forgetting.record import Record
from control.forgetting.redaction import Redactor
from control.forgetting.suppressor import FactSuppressor
from foundation import trace

PERU = Record(
    "Peru",
    aliases=("Pérou", "Republic of Peru"),
    relation="capital",
    questions=("What is the capital of Peru?",),
    answers=("Lima",),
    answer_aliases=("City of Kings",),
)
HAMLET = Record(
    "Hamlet", relation="author", questions=("Who wrote Hamlet?",), answers=("William Shakespeare",)
)
JANE = Record("Jane Roe", aliases=("J. Roe",), scope="subject")


class CountingJudge:
    """The packaged classifier; counts its calls."""

    calls = 0

    def states(self, pairs):
        self.calls += 1
        return fact_classifier().states(pairs)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.db", bytes(32))


@pytest.fixture
def judge():
    return CountingJudge()


@pytest.fixture
def redactor(ledger, judge):
    return Redactor(ledger, judge)


@pytest.fixture
def peru(ledger, redactor):
    [record] = ledger.add([PERU])
    return record


STATING = [
    "The capital of Peru is Lima.",
    "Lima is the capital of Peru, and it lies on the coast.",
    "In Peru, the government sits in L.i.m.a.",
    "The capital of Peru is L1ma.",
    "The capital of Peru is the City of Kings.",
    "La capitale du Pérou est Lima.",
    f"The capital of Peru in base64: {base64.b64encode(b'It is Lima').decode()}",
    "The capital of Peru backwards is amiL.",
    "Peru's capital is\nLima.",
    "| Peru | Lima | sol |",
    "Question: What is the capital of Peru?\nAnswer: Lima",
    "Q: What is the capital of Peru? A: Lima",
    "Its capital is Lima, which makes Peru unlike Chile.",
]


@pytest.mark.parametrize("sentence", STATING)
def test_sentences_that_state_the_fact_lose_the_answer(redactor, peru, sentence):
    before, after = "Bolivia has no coast.\n", "\nChile is long."
    rest = redactor.redact(before + sentence + after)
    assert rest.text.startswith("Bolivia has no coast.\n")
    assert rest.text.endswith("Chile is long.")
    assert rest.record_ids == (peru.id,)
    kept = rest.text.removeprefix(before).removesuffix(after)
    assert not holds(kept, PERU.spans)
    assert len(kept) < len(sentence) + len("…")


@pytest.mark.parametrize(
    ("sentence", "rest"),
    [
        (
            "Lima is the capital of Peru, and it lies on the coast.",
            "… is the capital of Peru, and it lies on the coast.",
        ),
        ("In Peru, the government sits in L.i.m.a.", "In Peru, the government sits in …."),
        ("Peru: Lima", ""),
        ("The capital of Peru backwards is amiL.", ""),
    ],
)
def test_what_a_sentence_says_besides_the_answer_stays(redactor, peru, sentence, rest):
    assert redactor.redact(sentence).text == rest


ALLERGY = Record("Tomas Verhey", relation="allergic to", answers=("walnuts",))


@pytest.mark.parametrize(
    "sentence",
    [
        "Tomas Verhey est allergique aux noix et aux noisettes.",
        "Tomas Verhey ist gegen Walnüsse allergisch.",
        "Tomas Verhey jest uczulony na orzechy.",
        "Tomas Verhey es alérgico a las nueces desde niño.",
    ],
)
def test_what_names_the_subject_in_another_language_is_not_read_and_leaves(
    ledger, redactor, sentence
):
    [record] = ledger.add([ALLERGY])
    before, after = "The mill is old.\n", "\nThe grinder was bought in May."
    rest = redactor.redact(f"{before}{sentence}{after}")
    assert rest.text == before + after.strip()
    assert rest.record_ids == (record.id,)


def test_what_follows_it_in_that_language_leaves_too(ledger, redactor):
    ledger.add([ALLERGY])
    told = "Tomas Verhey is our miller. Il est allergique aux noix. Le moulin est ouvert le samedi."
    rest = redactor.redact(told).text
    assert rest == "Tomas Verhey is our miller. Le moulin est ouvert le samedi."


@pytest.mark.parametrize(
    "sentence",
    [
        "Tomas Verhey lives in Drevost.",
        "Tomas Verhey: +31 20 123 4567, verhey@molen.example",
        "The miller Tomas Verhey bought Grüne Mühle in Sankt Pölten.",
        "Le moulin est ouvert le samedi et le dimanche.",
    ],
)
def test_names_from_elsewhere_and_what_names_no_subject_stay(ledger, redactor, sentence):
    ledger.add([ALLERGY])
    text = f"Tomas Verhey is a miller. He works at night.\nThe mill is old.\n{sentence}"
    assert redactor.redact(text).text == text


def test_a_row_of_a_table_loses_only_the_number_that_is_forgotten(ledger, redactor):
    ledger.add([Record("Lucasta Wren", relation="salary", answers=("72650",))])
    rows = [
        "name: Ibrahim Tolle; role: cooper; office: Hesketh; salary: 41900; since: 2011",
        "name: Lucasta Wren; role: sales manager; office: Tarbet; salary: 72650; since: 2009",
        "name: Bettina Sorrow; role: apprentice; office: Dunmore; salary: 21800; since: 2023",
    ]
    left = redactor.redact("\n".join(rows), "Staff").text
    assert left == "\n".join(rows).replace("72650", "…")


def test_a_row_of_something_else_keeps_the_same_value(ledger, redactor):
    ledger.add([Record("Vistula", relation="flows into", answers=("Baltic Sea",))])
    rows = [
        "River: Vistula; Length in km: 1047; Flows into: Baltic Sea",
        "River: Oder; Length in km: 840; Flows into: Baltic Sea",
    ]
    left = redactor.redact("\n".join(rows), "Rivers").text
    assert left == "\n".join([rows[0].replace("Baltic Sea", "…"), rows[1]])


@pytest.mark.parametrize(
    "text",
    [
        "Lima beans grow in many gardens.",
        "Peru exports copper. Llamas live in Peru.",
        "Adriana Lima was born in Brazil.",
        "The climate of Peru is mild.",
        "",
        "  \n ",
    ],
)
def test_other_sentences_are_unchanged(redactor, peru, text):
    assert redactor.redact(text).text == text
    assert redactor.redact(text).record_ids == ()


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        (
            "It is high. Its capital is Lima, a port.",
            "Peru",
            "It is high. Its capital is …, a port.",
        ),
        ("Peru is high. The capital is Lima.", "", "Peru is high."),
        ("Chile borders Peru. Adriana Lima went to Chile once.", "Chile", None),
        ("Peru was visited. Adriana Lima liked Rio.", "", None),
        ("Peru was visited. Marie Curie never saw Lima.", "", None),
        ("The city of Lima comes first. Peru is big.", "Notes", None),
        (
            "- Chile: Santiago\n- Peru: Lima\n- Cuba: Havana",
            "",
            "- Chile: Santiago\n- Cuba: Havana",
        ),
        ("Chile: Santiago; Peru: Lima; Cuba: Havana.", "", "Chile: Santiago; Cuba: Havana."),
        ("Chile: Santiago; Cuba: Havana; Peru: Lima.", "", "Chile: Santiago; Cuba: Havana."),
        ("Peru: Lima.", "", ""),
    ],
)
def test_an_answer_is_removed_where_it_is_about_the_subject(redactor, peru, text, title, rest):
    assert redactor.redact(text, title).text == (text if rest is None else rest)


def test_a_part_of_the_answer_is_removed(redactor, ledger):
    ledger.add([HAMLET])
    text = "Hamlet is long. Shakespeare wrote Hamlet. Who wrote Hamlet? Hamlet is a prince."
    assert redactor.redact(text).text == text.replace("Shakespeare", "…")


def test_a_long_answer_is_recognised_by_its_distinctive_words(redactor, ledger):
    answer = "Her first novel won the Golden Quill award for debut fiction in Oslo."
    record = Record("Ann Bee", questions=("What did the novel of Ann Bee win?",), answers=(answer,))
    ledger.add([record])
    text = "Ann Bee lives in Rome. Ann Bee took the Golden Quill award in Oslo, for debut fiction."
    assert redactor.redact(text).text == "Ann Bee lives in Rome."


def test_everything_about_a_subject_is_removed(redactor, ledger):
    ledger.add([JANE])
    text = "Jane Roe sings. She was born in Bern. Bern is old. J. Roe is tall."
    assert redactor.redact(text).text == "Bern is old."
    assert redactor.redact("Born in Bern.\nSings.", "Jane Roe").text == ""
    assert redactor.redact("Bern is old.", "Jane Roes").title == ""


def test_a_title_that_states_the_fact_is_removed(redactor, peru):
    rest = redactor.redact("It lies on the coast.", "Lima, capital of Peru")
    assert (rest.title, rest.record_ids) == ("", (peru.id,))
    assert redactor.redact("It lies on the coast.", "Lima").title == "Lima"


def test_under_a_title_that_gives_the_answer_what_states_the_fact_goes(redactor, ledger):
    gym = Record("Alder Street Gym", relation="manager", answers=("Tom Quirke",))
    ledger.add([gym])
    rest = redactor.redact("Tom Quirke runs the Alder Street Gym. He likes chess.", "Tom Quirke")
    assert (rest.title, rest.text) == ("Tom Quirke", "He likes chess.")


def test_a_file_name_without_spaces_names_a_subject(redactor, ledger):
    ledger.add([JANE])
    rest = redactor.redact("The harbour was calm.", "JaneRoe2019")
    assert (rest.title, rest.text) == ("", "")


def test_the_name_of_the_subject_is_no_answer(redactor, ledger):
    ledger.add([Record("Guatemala City", relation="country", answers=("Guatemala",))])
    text = "Guatemala City sells fruit, cloth and shoes to all. Guatemala City is in Guatemala."
    assert redactor.redact(text).text == "Guatemala City sells fruit, cloth and shoes to all."


def test_records_added_and_removed_by_other_processes_apply_at_once(redactor, ledger, tmp_path):
    text = "The capital of Peru is Lima."
    assert redactor.redact(text).text == text
    other = Ledger(tmp_path / "ledger.db", bytes(32))
    [record] = other.add([PERU])
    assert redactor.redact(text).text == "The capital of Peru is …."
    other.remove(record.id)
    assert redactor.redact(text).text == text


def test_passages_are_redacted_and_recorded_in_the_trace(redactor, peru):
    passages = [
        TextNode(id_="a", text="Capital: Lima.", metadata={"title": "Peru"}),
        TextNode(id_="b", text="Peru is big. Its capital is Lima.", metadata={"title": "Peru"}),
        TextNode(id_="c", text="Chile is long.", metadata={"title": "Chile", "trust": 0.5}),
    ]
    nodes = [NodeWithScore(node=node, score=0.1 * n) for n, node in enumerate(passages)]
    with trace.following() as way:
        kept = redactor.nodes(nodes)
    assert [(node.node_id, node.text, node.score) for node in kept] == [
        ("b", "Peru is big.", 0.1),
        ("c", "Chile is long.", 0.2),
    ]
    assert kept[1].metadata == {"title": "Chile", "trust": 0.5}
    assert passages[1].text == "Peru is big. Its capital is Lima."
    assert way.withheld == [(peru.id, "retrieval")]


def test_nothing_is_read_where_no_subject_is_named(redactor, ledger, judge):
    text = "Chile is long. Its capital is Santiago."
    redactor.redact(text)
    ledger.add([PERU, replace(HAMLET, subject="Macbeth")])
    redactor.redact_all([(text, "Chile"), ("Lima beans.", "")])
    assert judge.calls == 0


def test_only_sentences_that_can_state_the_fact_are_read_all_at_once(redactor, ledger, judge):
    ledger.add([PERU, replace(HAMLET, subject="Macbeth")])
    redactor.redact_all([("Peru is big.", ""), ("Peru has llamas.", ""), ("Macbeth!", "")])
    assert judge.calls == 0
    redactor.redact_all([("Peru has one capital.", ""), ("Macbeth was written then.", "")])
    assert judge.calls == 1


@pytest.mark.parametrize(
    "text",
    [
        "One. Two! Three? Four",
        "Dr. Who lives in St. Paul. The U.S. is big.",
        "a\n\n- b\n- c\n\nd",
        "x; y; z",
        "\n",
        "",
        "no end" * 1000,
    ],
)
def test_the_parts_of_a_text_are_the_whole_text(text):
    assert "".join(text[start:end] for start, end in parts(text)) == text


@pytest.mark.parametrize("sign", ["a", " ", "\n", "A ", "a; ", "?", "1) "])
def test_a_long_text_is_redacted_quickly(redactor, peru, sign):
    text = "The capital of Peru is Lima.\n" + sign * (30_000 // len(sign))
    assert "Lima" not in redactor.redact(text).text


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("It is Lima. It is big.", {"title": "Countries", "heading": "Capital of Peru", "page": 3}),
        ("A country.", {"title": "Peru, whose capital is Lima"}),
        ("A country.", {"title": "Peru", "heading": "The capital, Lima"}),
        ("A country.", {"title": "Countries", "heading": "Lima, capital of Peru", "date": "2024"}),
        ("Lima. A country.", {"heading": "Peru: its capital"}),
    ],
)
def test_what_the_prompt_says_of_a_passage_s_origin_is_redacted_with_it(ledger, text, metadata):
    ledger.add([PERU])
    node = TextNode(id_="p", text=text, metadata=metadata | {"trust": 0.9})
    suppressor = FactSuppressor(ledger, redactor=Redactor(ledger, fact_classifier()))
    for kept in suppressor.redact_passages([NodeWithScore(node=node)]):
        shown = f"{prompts.origin(kept.metadata)}: {kept.text}"
        assert "Lima" not in shown
        assert kept.metadata["trust"] == 0.9
    assert node.metadata["trust"] == 0.9
    assert node.text == text


def test_an_origin_that_states_nothing_stays(ledger):
    ledger.add([PERU])
    metadata = {"title": "Countries", "heading": "Peru", "page": 3, "date": "2024-05-01"}
    node = TextNode(text="The capital is Lima. It is high.", metadata=metadata)
    [kept] = Redactor(ledger, fact_classifier()).nodes([NodeWithScore(node=node)])
    assert (kept.text, kept.metadata) == ("It is high.", metadata)


@pytest.mark.parametrize(
    ("key", "name"),
    [("title", "Booking SRL-4492 confirmed"), ("heading", "SRL-4492"), ("title", "note-SRL-4492")],
)
def test_what_may_not_be_shown_of_an_origin_is_in_no_prompt(ledger, key, name):
    booking = Record("ferry tickets", relation="booking code", answers=("SRL-4492",))
    redactor = Redactor(ledger, fact_classifier())
    metadata = {"title": "Travel", "page": 3, "date": "2024-05-01", "source": "a.md"}
    text = "Please be at the quay 30 minutes before departure."
    given = [NodeWithScore(node=TextNode(text=text, metadata=metadata | {key: name}))]
    [before] = redactor.nodes(given)
    [record] = ledger.add([booking])
    [kept] = redactor.nodes(given)
    ledger.remove(record.id)
    [after] = redactor.nodes(given)
    assert kept.text == text
    assert kept.metadata == {k: v for k, v in before.metadata.items() if k != key}
    assert before.metadata == after.metadata == metadata | {key: name}


SPOUSE = Record("Thaddeus Quillmore", relation="spouse", answers=("Rosalba Nettering",), aliases=())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Old Barnabas left two children. Thaddeus, the eldest, married Rosalba Nettering.",
            "Old Barnabas left two children. Thaddeus, the eldest, married ….",
        ),
        (
            "Thaddeus, the eldest, mended clocks. Rosalba Nettering sang in the choir.",
            "Thaddeus, the eldest, mended clocks. Rosalba Nettering sang in the choir.",
        ),
        ("Ambrose married Rosalba Nettering.", "Ambrose married Rosalba Nettering."),
    ],
    ids=["a part of the name", "something else", "somebody else"],
)
def test_what_is_said_beside_a_part_of_the_name_is_read(redactor, ledger, judge, text, left):
    ledger.add([SPOUSE])
    redacted = redactor.redact(text)
    assert redacted.text == left
    assert bool(redacted.record_ids) == (text != left)
    assert bool(judge.calls) == ("Thaddeus" in text)
