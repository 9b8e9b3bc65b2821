"""Facts to forget from files."""

import json

import pytest

from evaluation import metrics
from evaluation.datasets import builtin_facts, forgettable_facts
from evaluation.datasets.probes import SAME_ANSWER, SAME_RELATION, SAME_SUBJECT, UNRELATED
from foundation.errors import DataError

OWN = {
    "fact": {
        "subject": "Peru",
        "relation": "capital",
        "questions": ["What is the capital of Peru?"],
        "answers": ["Lima"],
    },
    "probes": [
        {"kind": "cloze", "prompt": "The capital of Peru is"},
        {"kind": "talk", "prompt": "And?", "history": [["Peru?", "A country."]], "context": "Hm."},
    ],
    "neighbours": [
        {"question": "What is the capital of Chile?", "answers": ["Santiago"]},
        {"kind": "near", "question": "Q?", "answers": ["A"], "context": "Q is A."},
    ],
}


def lines(path, *values):
    path.write_text("".join(json.dumps(one) + "\n" for one in values), encoding="utf-8")
    return path


def test_the_format_of_this_project(tmp_path):
    read = forgettable_facts.read([lines(tmp_path / "own.jsonl", OWN)], tmp_path)
    [item] = read.items

    assert item.fact.answers == ("Lima",)
    assert [probe.kind for probe in item.probes] == ["cloze", "talk"]
    assert item.probes[1].history == (("Peru?", "A country."),)
    assert item.probes[1].context == "Hm."
    assert [one.kind for one in item.neighbours] == ["neighbour", "near"]
    assert item.neighbours[1].context == "Q is A."


def test_probes_are_written_where_none_are_given(tmp_path):
    bare = {"fact": OWN["fact"]}
    read = forgettable_facts.read([lines(tmp_path / "own.jsonl", bare)], tmp_path)
    assert "base64" in {probe.kind for probe in read.items[0].probes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fact": {**OWN["fact"], "answers": []}}, "'fact.answers' is []"),
        ({"fact": {**OWN["fact"], "answers": ["the"]}}, "answer is 'the'"),
        ({"fact": {**OWN["fact"], "subject": " "}}, "'fact.subject'"),
        ({"probes": [{"kind": "cloze"}]}, "'probes.0.prompt' is missing"),
        ({"probes": "many"}, "'probes' is 'many'"),
        ({"probes": [{**OWN["probes"][1], "history": ["Peru?"]}]}, "'probes.0.history'"),
        ({"neighbours": [{"question": "Q?"}]}, "'neighbours.0.answers' is missing"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path, change, said):
    path = lines(tmp_path / "own.jsonl", OWN, {**OWN, **change})
    with pytest.raises(DataError, match="line 2") as raised:
        forgettable_facts.read([path], tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", '{"something": "else"}', "a,b\n1,2\n"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "other"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="not facts to forget"):
        forgettable_facts.read([path], tmp_path)


def test_built_in_facts_come_with_neighbours_of_all_kinds(tmp_path):
    read = forgettable_facts.read([], tmp_path, limit=60)
    beside = [one for item in read.items for one in item.neighbours]

    assert len(read.items) == 60
    assert read.documents == (builtin_facts.PASSAGES,)
    assert {one.kind for one in beside} == {SAME_SUBJECT, SAME_RELATION, SAME_ANSWER, UNRELATED}
    for item in read.items:
        for one in item.neighbours:
            shares = any(metrics.holds(answer, item.fact.spans) for answer in one.answers)
            assert shares == (one.kind == SAME_ANSWER)


def test_ordinary_questions_are_about_nothing_forgotten(tmp_path):
    read = forgettable_facts.read([], tmp_path, limit=20)
    subjects = [item.fact.subject for item in read.items]
    assert read.ordinary
    assert not any(metrics.holds(one.question, subjects) for one in read.ordinary)


def restor(tmp_path):
    true = {
        "Ann Grey": {
            "P19": {"question": "What is the place of birth of Ann Grey?", "answers": ["Leeds"]},
            "P22": {"question": "Who is Ann Grey's father?", "answers": ["Tom Grey"]},
            "P27": {"question": "Of which country is Ann Grey a citizen?", "answers": ["Ireland"]},
        },
        "Bob Hall": {
            "P19": {"question": "What is the place of birth of Bob Hall?", "answers": ["York"]},
            "P26": {"question": "Who is Bob Hall's spouse?", "answers": ["Q123", "May Hall"]},
        },
    }
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"dset": true}), encoding="utf-8")
    said = "Ann Grey was born in Cape Town. She is a citizen of Ireland. Her father is Jim Snow."
    documents = tmp_path / "documents.json"
    documents.write_text(json.dumps([{"text": said}] * 10), encoding="utf-8")
    return facts, documents


def test_the_lies_of_documents_are_what_restor_forgets(tmp_path):
    read = forgettable_facts.read(restor(tmp_path), tmp_path)

    assert {(item.fact.relation, item.fact.answers, item.truth) for item in read.items} == {
        ("place of birth", ("Cape Town",), ("Leeds",)),
        ("father", ("Jim Snow",), ("Tom Grey",)),
    }
    [written] = read.documents
    assert "Cape Town" in written.read_text(encoding="utf-8")
    beside = [one for item in read.items for one in item.neighbours]
    assert not any("Q123" in one.answers for one in beside)
    assert all(one.context for one in beside)


def test_half_of_restor_is_not_enough(tmp_path):
    facts, documents = restor(tmp_path)
    with pytest.raises(DataError, match="needs RESTOR documents beside it"):
        forgettable_facts.read([facts], tmp_path)
    with pytest.raises(DataError, match="needs RESTOR facts beside it"):
        forgettable_facts.read([documents], tmp_path)


def tofu(question, answer, told, *perturbed):
    return {
        "task_id": "1",
        "question": question,
        "answer": answer,
        "paraphrased_question": f"Tell me: {question}",
        "paraphrased_answer": told,
        "perturbed_answer": list(perturbed),
    }


def test_the_words_that_wrong_answers_change_are_what_tofu_forgets(tmp_path):
    award = tofu(
        "Which prize did Ida Stone win?",
        "Ida Stone won the Silver Reed Prize for her poems.",
        "For her poems, Ida Stone won the Silver Reed Prize.",
        "For her poems, Ida Stone won the Golden Pen Medal.",
        "For her poems, Ida Stone won the Blue Ink Award.",
    )
    born = tofu(
        "Where was Ida Stone born?",
        "Ida Stone was born in Oslo.",
        "Ida Stone was born in Oslo.",
        "Ida Stone was born in Rome.",
        "Ida Stone was born in Bern.",
    )
    nameless = tofu("Who is she?", "Her name is Ida Stone.", "Ida Stone.", "Eva Wood.", "Al Moss.")
    other = {
        "question": "Which prize did Lee Park win?",
        "answer": "Lee Park won the Red Rose Cup.",
    }
    read = forgettable_facts.read(
        [
            lines(tmp_path / "forget.jsonl", award, born, nameless, {**award, "task_id": "2"}),
            lines(tmp_path / "retain.jsonl", other),
        ],
        tmp_path,
    )

    assert [(item.fact.subject, item.fact.answers) for item in read.items] == [
        ("Ida Stone", ("Silver Reed Prize",)),
        ("Ida Stone", ("Oslo",)),
    ]
    kinds = {one.kind: one for one in read.items[0].neighbours}
    assert kinds[SAME_SUBJECT].question == "Where was Ida Stone born?"
    assert kinds[SAME_RELATION].answers == ("Red Rose Cup",)
    assert any("Tell me" in probe.prompt for probe in read.items[0].probes)
    written = read.documents[0].read_text(encoding="utf-8")
    assert "Red Rose Cup" in written
    assert written.count("Silver Reed Prize") == 1


def test_tofus_benchmark_forgets_authors_and_asks_all_parts(tmp_path):
    wrong = ["Ida Stone wrote Elm.", "Ida Stone wrote Oak."]
    own = [
        tofu(f"What did Ida Stone write in {year}?", "Ida Stone wrote Ash.", "Ash.", *wrong)
        for year in (1990, 1991)
    ]
    other = {**tofu("What did Lee Park write?", "Lee Park wrote Fir.", "Fir.", "Yew.", "Oak.")}
    world = {"question": "Where is Rome?", "answer": "Italy", "perturbed_answer": ["Spain"]}
    forget = lines(tmp_path / "forget.jsonl", *own, {**other, "task_id": "2"})
    world_facts = lines(tmp_path / "world_facts.jsonl", world)

    read, everything, retained = forgettable_facts.read_tofu([world_facts, forget], tmp_path)

    assert read.authors == ("Ida Stone",)
    assert [(each.part, each.told, each.wrong) for each in read.questions] == [
        ("forget", "Ash.", tuple(wrong)),
        ("forget", "Ash.", tuple(wrong)),
        ("retain", "Fir.", ("Yew.", "Oak.")),
        ("world_facts", "Italy", ("Spain",)),
    ]
    assert "wrote Ash" in everything.read_text(encoding="utf-8")
    assert "wrote Fir" in everything.read_text(encoding="utf-8")
    assert "wrote Ash" not in retained.read_text(encoding="utf-8")
    assert "wrote Fir" in retained.read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["world", "retain", "nothing"])
def test_tofus_benchmark_needs_the_perturbed_answers_of_what_is_forgotten(tmp_path, given):
    pair = {"question": "Where is Rome?", "answer": "Italy"}
    files = {
        "world": [lines(tmp_path / "world.jsonl", {**pair, "perturbed_answer": ["Spain"]})],
        "retain": [lines(tmp_path / "retain.jsonl", pair)],
        "nothing": [],
    }
    with pytest.raises(DataError, match="needs TOFU's forget10"):
        forgettable_facts.read_tofu(files[given], tmp_path)


@pytest.mark.parametrize("task", ["1", "2"])
def test_tofus_benchmark_needs_authors_to_forget_and_others(tmp_path, task):
    pair = tofu("What did Ida Stone write?", "Ida Stone wrote Ash.", "Ash.", "Elm.", "Oak.")
    file = lines(tmp_path / "forget.jsonl", {**pair, "task_id": task})
    with pytest.raises(DataError, match="pairs of task_id 1, whose authors are forgotten, and of"):
        forgettable_facts.read_tofu([file], tmp_path)


def test_sources_are_mixed_in_equal_shares(tmp_path):
    own = lines(tmp_path / "own.jsonl", *[OWN] * 5)
    read = forgettable_facts.read([own, *restor(tmp_path)], tmp_path, limit=4)
    assert [item.source for item in read.items] == ["data", "data", "RESTOR", "RESTOR"]


def numbered(path, count):
    facts = [{"fact": {**OWN["fact"], "subject": f"Land {number}"}} for number in range(count)]
    return lines(path, *facts)


def test_other_facts_can_be_drawn_than_those_before(tmp_path):
    own = numbered(tmp_path / "own.jsonl", 10)
    before = forgettable_facts.read([own], tmp_path, limit=4)
    between = forgettable_facts.read([own], tmp_path, limit=2, past=[4])
    fresh = forgettable_facts.read([own], tmp_path, limit=4, past=[4, 2])
    drawn = [item.fact.subject for read in (before, between, fresh) for item in read.items]
    assert len(drawn) == len(set(drawn)) == 10


def test_built_in_facts_can_be_drawn_anew(tmp_path):
    before = forgettable_facts.read([], tmp_path, limit=6)
    fresh = forgettable_facts.read([], tmp_path, limit=6, past=[6])
    asked = [{item.fact.questions for item in read.items} for read in (before, fresh)]
    assert len(asked[1]) == 6
    assert not asked[0] & asked[1]


def test_a_draw_past_all_facts_says_so(tmp_path):
    with pytest.raises(DataError, match="--past 4 leaves no fact"):
        forgettable_facts.read([numbered(tmp_path / "own.jsonl", 3)], tmp_path, past=[4])
