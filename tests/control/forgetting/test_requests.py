import json

import pytest

from control.forgetting.questions import within
from control.forgetting.record import Record, checked
from control.forgetting.requests import propose, read
from foundation.errors import DataError, InputError

PERU = {"subject": "Peru", "relation": "capital", "answers": ["Lima"]}


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "facts.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


def test_records_are_read_with_all_their_fields(written):
    full = {
        **PERU,
        "aliases": ["Perú"],
        "questions": ["What is the capital of Peru?"],
        "answer_aliases": ["City of Kings"],
        "scope": "fact",
        "reason": "a request",
        "who": "me",
    }
    path = written(json.dumps(PERU), "", json.dumps(full, ensure_ascii=False))
    assert list(read(path)) == [
        Record("Peru", relation="capital", answers=("Lima",)),
        Record(**{name: tuple(v) if isinstance(v, list) else v for name, v in full.items()}),
    ]


def test_the_facts_of_evaluation_data_are_read(written):
    path = written(json.dumps({"fact": PERU, "probes": [{"kind": "direct"}], "neighbours": []}))
    assert [record.subject for record in read(path)] == ["Peru"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('["Peru"]', "list instead of an object"),
        ('{"relation": "capital", "answers": ["Lima"]}', "subject: .*required"),
        ('{"subject": "Peru", "relation": "capital", "answers": "Lima"}', "answers: .*tuple"),
        ('{"subject": "Peru", "relation": "capital", "answers": [5]}', "answers.0: .*string"),
        ('{"subject": "Peru", "alias": ["x"]}', "unknown field 'alias'.*aliases"),
        ('{"subject": "Peru", "relation": "capital", "answers": ["the"]}', "suppress all answers"),
        ('{"subject": "Peru", "scope": "all"}', "scope: .*'subject' or 'verbatim'"),
        ('{"fact": {"subject": ""}}', "only spaces"),
    ],
)
def test_an_invalid_line_is_named_in_the_error(written, line, message):
    found = read(written(json.dumps(PERU), line))
    assert next(found).subject == "Peru"
    with pytest.raises(DataError, match=rf"facts\.jsonl, line 2: .*{message}") as caught:
        list(found)
    assert len(str(caught.value)) < 300


def test_ten_megabytes_of_answer_are_refused(written):
    path = written(json.dumps({**PERU, "answers": ["x" * 10_000_000]}))
    with pytest.raises(DataError, match="line 1: answer has 10,000,000 characters") as caught:
        list(read(path))
    assert len(str(caught.value)) < 300


def test_an_unreadable_file_is_named_in_the_error(tmp_path, written):
    with pytest.raises(DataError, match=r"missing\.jsonl cannot be read"):
        list(read(tmp_path / "missing.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read(tmp_path))
    with pytest.raises(DataError, match="holds no record"):
        list(read(written("", " ")))
    path = written("x")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read(path))


FACTS = [
    ("Forget that the capital of Peru is Lima", "Peru", "capital", ["Lima"]),
    ("Lima is the capital of Peru.", "Peru", "capital", ["Lima"]),
    ("Please forget the fact that Lima was Peru’s capital!", "Peru", "capital", ["Lima"]),
    ("peru's capital is lima", "peru", "capital", ["lima"]),
    ("Peru has Lima as its capital", "Peru", "capital", ["Lima"]),
    ("Gold has the chemical symbol Au", "Gold", "chemical symbol", ["Au"]),
    ("The wife of James is Anna", "James", "wife", ["Anna"]),
    ("James' wife is Anna", "James", "wife", ["Anna"]),
    ("Tim Cook is CEO of Apple", "Apple", "CEO", ["Tim Cook"]),
    ("The place of birth of Jane Roe is Oslo", "Jane Roe", "place of birth", ["Oslo"]),
    ("Don't say that Jane Roe was born in Oslo", "Jane Roe", "place of birth", ["Oslo"]),
    ("Jane Roe was born on 3 May 1950", "Jane Roe", "date of birth", ["3 May 1950"]),
    ("Jane Roe died in 1999", "Jane Roe", "date of death", ["1999"]),
    (
        "Jane Roe was born on 3 May 1950 in Oslo",
        "Jane Roe",
        "date and place of birth",
        ["3 May 1950", "Oslo"],
    ),
    (
        "Jane Roe was born in Oslo in 1950",
        "Jane Roe",
        "date and place of birth",
        ["1950", "Oslo"],
    ),
    ("Kestrel Optics was founded in 1987", "Kestrel Optics", "when founded", ["1987"]),
    ("The treaty was signed on 3 March 1648", "The treaty", "when signed", ["3 March 1648"]),
    ("The OV-7 was designed in Graz.", "The OV-7", "where designed", ["Graz"]),
    (
        "Kestrel Optics was founded in 1987 in Tromso",
        "Kestrel Optics",
        "when and where founded",
        ["1987", "Tromso"],
    ),
    ("Jane Roe was married in Oslo", "Jane Roe", "where married", ["Oslo"]),
    ("The firm was founded after the war", "The firm", "description", ["founded after the war"]),
    ("Kestrel Optics was founded by Ann Roe", "Kestrel Optics", "founder", ["Ann Roe"]),
    ("Jane Austen wrote Emma", "Emma", "author", ["Jane Austen"]),
    ("Emma was written by Jane Austen", "Emma", "author", ["Jane Austen"]),
    ("The author of The Time Machine is Wells", "The Time Machine", "author", ["Wells"]),
    ("Jane Roe lives in Oslo", "Jane Roe", "place of residence", ["Oslo"]),
    ("Jane Roe is employed by Acme", "Jane Roe", "employer", ["Acme"]),
    ("Jane Roe is married to John Doe", "Jane Roe", "spouse", ["John Doe"]),
    ("The Eiffel Tower is in Paris", "The Eiffel Tower", "location", ["Paris"]),
    ("The ball of Ada is on 14 September 2024", "The ball of Ada", "date", ["14 September 2024"]),
    ("The party was in 1998", "The party", "date", ["1998"]),
    ("The flight is at 10:30", "The flight", "date", ["10:30"]),
    ("The sale is until 5 June 2024", "The sale", "date", ["5 June 2024"]),
    ("The fair is from 3 May to 5 June 2024", "The fair", "date", ["3 May", "5 June 2024"]),
    ("The fair is on Saturday in Oslo", "The fair", "date and location", ["Saturday", "Oslo"]),
    ("The talk is in room 3.12 at noon", "The talk", "date and location", ["noon", "room 3.12"]),
    ("The bank is at 1200 High Street", "The bank", "location", ["1200 High Street"]),
    ("The office is in room 3.12", "The office", "location", ["room 3.12"]),
    ("The firm is from Oslo", "The firm", "description", ["from Oslo"]),
    ("Jane Roe is a doctor", "Jane Roe", "description", ["doctor"]),
    ("MV Gannet is commanded by Tobias Wrenn", "MV Gannet", "commanded by", ["Tobias Wrenn"]),
    ("The Danube flows into the Black Sea", "The Danube", "flows into", ["Black Sea"]),
    ("The guest network of Belvane is called Heron", "Belvane", "guest network", ["Heron"]),
    ("The head of Acme is advised by Ken Lowe", "The head of Acme", "advised by", ["Ken Lowe"]),
    ("Jane Roe owns a yacht", "Jane Roe", "owns", ["yacht"]),
    ("Ada Roe is allergic to mussels", "Ada Roe", "allergic to", ["mussels"]),
    ("Ada Roe is afraid of heights", "Ada Roe", "afraid of", ["heights"]),
    ("Ada Roe is jealous of Ida Krag", "Ada Roe", "jealous of", ["Ida Krag"]),
    ("Ada Roe is responsible for the archive", "Ada Roe", "responsible for", ["archive"]),
    ("Ada Roe is in love with Emil Krag", "Ada Roe", "in love with", ["Emil Krag"]),
    ("Ada Roe is fluent in Danish", "Ada Roe", "fluent in", ["Danish"]),
    ("Ada Roe was very good at chess", "Ada Roe", "very good at", ["chess"]),
    ("Ada Roe is known as the Magpie", "Ada Roe", "known as", ["Magpie"]),
    ("The valve is made of brass", "The valve", "made of", ["brass"]),
    ("The invoice is due on 3 May 2024", "The invoice", "due on", ["3 May 2024"]),
    ("Ada Roe has an allergy to mussels", "Ada Roe", "allergy to", ["mussels"]),
    ("Ada Roe can't eat gluten", "Ada Roe", "can't eat", ["gluten"]),
    ("Ada Roe does not speak Danish", "Ada Roe", "does not speak", ["Danish"]),
    ("Tim Cook is head of Apple", "Apple", "head", ["Tim Cook"]),
    ("Jane Roe is a doctor at Acme", "Jane Roe", "description", ["doctor at Acme"]),
    ("The insurer of St Odran's Library is Acme", "St Odran's Library", "insurer", ["Acme"]),
    ("Acme is the insurer of St Odran’s Library", "St Odran’s Library", "insurer", ["Acme"]),
    ("The motto of King's Lynn Club is Onward", "King's Lynn Club", "motto", ["Onward"]),
    ("The landlord of the Dog's Head is Tom Pike", "Dog's Head", "landlord", ["Tom Pike"]),
    ("The Mayor of King's Lynn is Jo Roe", "King's Lynn", "Mayor", ["Jo Roe"]),
    ("The CEO of the Dogs' Home is Jo Roe", "Dogs' Home", "CEO", ["Jo Roe"]),
    ("The insurer of Brannock is St Odran's Trust", "Brannock", "insurer", ["St Odran's Trust"]),
    ("Ada's insurer is St Odran's Trust", "Ada", "insurer", ["St Odran's Trust"]),
    ("The date of birth of Ada's son is 3 May", "Ada's son", "date of birth", ["3 May"]),
    ("The name of Ada's dog is Rex", "Ada's dog", "name", ["Rex"]),
    ("Ada's birthday is 3 May", "Ada", "birthday", ["3 May"]),
    ("The king's motto is Onward", "The king", "motto", ["Onward"]),
    ("The king's motto of 1950 was Onward", "The king", "motto of 1950", ["Onward"]),
    ("The Duke of York's house is Elm Lodge", "The Duke of York", "house", ["Elm Lodge"]),
    ("Elm Lodge is the Duke of York's house", "Duke of York", "house", ["Elm Lodge"]),
    ("Lima is Peru's capital of culture", "Peru", "capital of culture", ["Lima"]),
]


@pytest.mark.parametrize(("sentence", "subject", "relation", "answers"), FACTS)
def test_a_sentence_proposes_its_fact(sentence, subject, relation, answers):
    record = checked(propose(sentence))
    assert record.scope == "fact"
    assert (record.subject, record.relation) == (subject, relation)
    assert list(record.answers) == answers
    assert record.questions
    assert all(within(subject) in question or subject in question for question in record.questions)
    assert not any(answer in question for question in record.questions for answer in answers)


@pytest.mark.parametrize(
    "sentence",
    [
        "forget everything about Jane Roe",
        "Please forget all you know about Jane Roe.",
        "I want you to forget anything about “Jane Roe”",
        "Could you please forget Jane Roe",
        "forget about Jane Roe",
    ],
)
def test_a_sentence_proposes_a_whole_subject(sentence):
    record = checked(propose(sentence))
    assert (record.subject, record.scope, record.answers) == ("Jane Roe", "subject", ())


def test_the_questions_are_those_of_the_relation():
    born = propose("Jane Roe was born on 3 May 1950 in Oslo").questions
    assert {"When was Jane Roe born?", "Where was Jane Roe born?"} <= set(born)
    assert "Who wrote Emma?" in propose("Jane Austen wrote Emma").questions
    planned = propose("The wedding of Jane Roe is on 3 May 2024 in Oslo").questions
    assert {
        "When is the wedding of Jane Roe?",
        "Where is the wedding of Jane Roe?",
    } <= set(planned)


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("The safe is in the cellar", "Where is the safe?"),
        ("A spare key lies in the cellar", "Where is a spare key?"),
        ("The safe was opened on 3 May 1950", "When was the safe opened?"),
        ("The safe was opened by Jane Roe", "Who opened the safe?"),
        ("The safe is made of brass", "What is the safe made of?"),
        ("Ada Roe is allergic to mussels", "To what is Ada Roe allergic?"),
        ("Ada Roe is engaged to Ole Holm", "Who is Ada Roe engaged to?"),
        ("Ada Roe is based in Graz", "Where is Ada Roe based?"),
        ("The invoice is due on 3 May 2024", "When is the invoice due?"),
        ("Ada Roe cannot eat gluten", "What can Ada Roe not eat?"),
        ("Ada Roe has a fear of heights", "What does Ada Roe have a fear of?"),
        ("The Hague is in the Netherlands", "Where is The Hague?"),
        ("A Tale of Two Cities was written by Dickens", "Who wrote A Tale of Two Cities?"),
    ],
)
def test_an_article_within_a_question_is_small_unless_a_name_begins_with_it(sentence, question):
    assert question in propose(sentence).questions


@pytest.mark.parametrize(
    "sentence",
    [
        "blah blah",
        "Lima",
        "Where does Jane Roe live?",
        "Lima is not the capital of Peru",
        "forget that it rained",
        "forget",
        "nobody ought to learn any more that it was in 1887 that Ann Holm built the first kiln",
        "Please remove what you know about the fact that the repair is 31,400 euros",
        "Everyone knows that the capital of Peru is Lima",
        "Vergiss, dass die Hauptstadt von Ghana Accra ist",
    ],
)
def test_a_sentence_of_no_known_form_names_the_options(sentence):
    with pytest.raises(InputError, match="give subject, relation and answers"):
        propose(sentence)


@pytest.mark.parametrize("sentence", ["", "  \n", "...", '""'])
def test_an_empty_sentence_is_refused(sentence):
    with pytest.raises(InputError, match="the sentence is empty"):
        propose(sentence)


def test_ten_megabytes_of_sentence_are_refused():
    with pytest.raises(InputError, match="10,000,000 characters, the limit is 2,000"):
        propose("the capital of " * 666_666 + "is Lima !!")
