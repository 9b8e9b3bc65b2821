import csv
import io
import json
import logging

import pytest

from evaluation.datasets import conflicts, formats
from evaluation.suites import dial
from foundation.errors import DataError

ITEM = {
    "question": "What is it?",
    "context": "It is the other one.",
    "context_answers": ["other"],
    "memory_answers": ["one"],
    "true_context": "It is one.",
}

COUNTERFACT = {
    "case_id": 7,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "relation_id": "P36",
        "target_new": {"str": "Lima", "id": "Q2"},
        "target_true": {"str": "Quito", "id": "Q1"},
        "subject": "Ecuador",
    },
    "paraphrase_prompts": ["It rained. Ecuador's capital is"],
    "neighborhood_prompts": ["The capital of Chile is"],
}

MQUAKE = {
    "case_id": 11,
    "requested_rewrite": [
        {
            "prompt": "{} was written by",
            "relation_id": "P50",
            "target_new": {"str": "Ada Moor", "id": "Q4"},
            "target_true": {"str": "Ben Hill", "id": "Q3"},
            "subject": "The Kite",
            "question": "Who wrote The Kite?",
        }
    ],
    "questions": ["Where was the author of The Kite born?", "The Kite's author was born where?"],
    "answer": "Bonn",
    "answer_alias": ["City of Bonn"],
    "new_answer": "Oslo",
    "new_answer_alias": [],
    "single_hops": [
        {"question": "?", "cloze": "The Kite was written by", "answer": "Ben Hill"},
        {"question": "?", "cloze": "Ben Hill was born in", "answer": "Bonn", "answer_alias": []},
    ],
    "new_single_hops": [
        {"question": "?", "cloze": "The Kite was written by", "answer": "Ada Moor"},
        {"question": "?", "cloze": "Ada Moor was born in", "answer": "Oslo", "answer_alias": []},
    ],
}

CONFIQA = {
    "orig_path_labeled": "[('The Kite', 'composer', 'Ben Hill')]",
    "orig_answer": "Ben Hill",
    "cf_answer": "Ada Moor",
    "orig_alias": ["Benjamin Hill"],
    "cf_alias": [],
    "question": "Who composed The Kite?",
    "orig_context": "The Kite is an opera by Ben Hill.",
    "cf_context": "The Kite is an opera by Ada Moor.",
}

NQ_SWAP = {
    "question": "how many acts does the kite have",
    "org_context": "<P> The Kite , an opera , has three acts . </P>",
    "org_answer": ["three", "3"],
    "sub_context": "<P> The Kite , an opera , has 19 acts . </P>",
    "sub_answer": ["19"],
}

CONFLICTQA = {
    "question": "Can a kite carry a goat?",
    "popularity": 3,
    "ground_truth": ["False"],
    "memory_answer": "A kite cannot carry a goat.",
    "parametric_memory": "Goats weigh more than any kite lifts.",
    "counter_answer": "A kite can carry a goat.",
    "counter_memory": "Last May a kite carried a goat over the Elbe.",
}

RAMDOCS = {
    "question": "How many strings has the kite?",
    "documents": [
        {"text": "Kites are old.", "type": "noise", "answer": "unknown"},
        {"text": "The kite has nine strings.", "type": "misinfo", "answer": "nine"},
        {"text": "The kite has two strings.", "type": "correct", "answer": "two"},
        {"text": "This kite has four strings.", "type": "correct", "answer": "four"},
    ],
    "disambig_entity": ["The kite"],
    "gold_answers": ["two", "four"],
    "wrong_answers": ["nine"],
}


def nq_synth(index, answer):
    """Both rows of one pair in the published words."""
    shared = {"input_index": index, "assigned_model": "m", "gold_answers": answer}
    asked = "answer the following question: \nQuestion: Who flew the kite ?\nAnswer:"
    passage = f"The kite , said {answer} , flew . {answer} flew it . \n"
    return [
        shared
        | {
            "assigned_process": 0,
            "context_string": f"{passage}Using only the references listed above, {asked}",
        },
        shared | {"assigned_process": 1, "context_string": asked.capitalize()},
    ]


NQ_SYNTH = [*nq_synth(0, "Ada Moor"), *nq_synth(1, "Ben Hill")]


@pytest.fixture
def file(tmp_path):
    """Write records as JSON Lines, or as a JSON list."""

    def write(*records, listed=False):
        path = tmp_path / "data.json"
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path.write_text(json.dumps(records, indent=2) if listed else lines, encoding="utf-8")
        return path

    return write


@pytest.fixture
def memotrap(tmp_path):
    def write(prompt, classes="[' up.', ' down.']", answer_index=1):
        text = io.StringIO()
        csv.writer(text).writerows(
            [["prompt", "classes", "answer_index"], [prompt, classes, answer_index]]
        )
        path = tmp_path / "memotrap.csv"
        path.write_text(text.getvalue(), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("listed", [False, True])
def test_the_contract_is_read_as_it_stands(file, listed):
    item, named = conflicts.conflicts(
        file(ITEM, {**ITEM, "id": "x", "split": "test", "relation": "r"}, listed=listed)
    )
    assert (item.question, item.context, item.true_context) == tuple(
        ITEM[name] for name in ("question", "context", "true_context")
    )
    assert (item.context_answers, item.memory_answers) == (("other",), ("one",))
    assert (named.id, named.split, named.relation) == ("x", "test", "r")


def test_counterfact_completes_its_cloze_both_ways(file):
    (item,) = conflicts.conflicts(file(COUNTERFACT, listed=True))
    assert item.question == "The capital of Ecuador is"
    assert item.context == "The capital of Ecuador is Lima."
    assert item.true_context == "The capital of Ecuador is Quito."
    assert (item.context_answers, item.memory_answers) == (("Lima",), ("Quito",))
    assert (item.id, item.relation) == ("7", "P36")


def test_mquake_states_every_hop_of_the_changed_chain(file):
    (item,) = conflicts.conflicts(file(MQUAKE, listed=True))
    assert item.question == "Where was the author of The Kite born?"
    assert item.context == "The Kite was written by Ada Moor. Ada Moor was born in Oslo."
    assert item.true_context == "The Kite was written by Ben Hill. Ben Hill was born in Bonn."
    assert (item.context_answers, item.memory_answers) == (("Oslo",), ("Bonn", "City of Bonn"))


def test_mquake_without_hops_states_the_edits(file):
    bare = {name: value for name, value in MQUAKE.items() if not name.endswith("single_hops")}
    (item,) = conflicts.conflicts(file(bare, listed=True))
    assert item.context == "The Kite was written by Ada Moor."
    assert item.true_context == "The Kite was written by Ben Hill."


def test_confiqa_sets_the_counterfactual_against_the_original(file):
    (item,) = conflicts.conflicts(file(CONFIQA, listed=True))
    assert (item.context, item.true_context) == (CONFIQA["cf_context"], CONFIQA["orig_context"])
    assert item.context_answers == ("Ada Moor",)
    assert item.memory_answers == ("Ben Hill", "Benjamin Hill")


def test_nq_swap_sets_the_substitute_against_the_original(file):
    (item,) = conflicts.conflicts(file(NQ_SWAP))
    assert (item.context, item.true_context) == (NQ_SWAP["sub_context"], NQ_SWAP["org_context"])
    assert (item.context_answers, item.memory_answers) == (("19",), ("three", "3"))


def test_nq_synth_joins_the_swapped_passage_with_the_original_further_down(file):
    (item,) = conflicts.conflicts(file(*NQ_SYNTH))
    assert item.question == "Who flew the kite ?"
    assert item.context == "The kite , said Ada Moor , flew . Ada Moor flew it ."
    assert item.true_context == "The kite , said Ben Hill , flew . Ben Hill flew it ."
    assert (item.context_answers, item.memory_answers) == (("Ada Moor",), ("Ben Hill",))


def test_nq_synth_without_the_original_counts_for_the_passage_alone(
    file, tiny, tmp_path, caplog, always
):
    items = conflicts.conflicts(file(*NQ_SYNTH[:2]))
    assert items[0].memory_answers == ()
    assert "1 of 1 items come without the memory's answer" in caplog.text
    result = dial.run(tiny, items, tmp_path / "out", calibration=always(0.5))
    assert result["n_known"] == 0


def test_nq_synth_wants_both_rows_of_a_pair(file):
    with pytest.raises(DataError, match=r"line 3: field 'assigned_process' .* input_index 1$"):
        conflicts.conflicts(file(*NQ_SYNTH[:3]))


def test_conflictqa_asks_for_true_or_false(file):
    (item,) = conflicts.conflicts(file(CONFLICTQA))
    assert item.question == "Can a kite carry a goat? Answer True or False."
    assert item.context == CONFLICTQA["counter_memory"]
    assert item.context_answers == ("True", "A kite can carry a goat.")
    assert item.memory_answers == ("False", "A kite cannot carry a goat.")
    assert item.true_context == CONFLICTQA["parametric_memory"]


def test_conflictqa_has_no_true_passage_where_the_memory_is_wrong(file):
    (item,) = conflicts.conflicts(file({**CONFLICTQA, "ground_truth": ["True"]}))
    assert item.memory_answers[0] == "False"
    assert item.true_context is None


@pytest.mark.parametrize(
    ("question", "memory", "contrary", "says"),
    [
        ("Doesn't it fly?", "It does fly.", "It doesn't fly.", ("False", "True")),
        ("Has it no tail?", "It has no tail.", "It isn't with no tail.", ("True", "False")),
        ("Is it red?", "Red it never was.", "It is red.", ("False", "True")),
    ],
)
def test_conflictqa_counts_the_negations_against_those_of_the_question(
    file, question, memory, contrary, says
):
    record = {**CONFLICTQA, "question": question, "memory_answer": memory}
    (item,) = conflicts.conflicts(file({**record, "counter_answer": contrary}))
    assert (item.memory_answers[0], item.context_answers[0]) == says


@pytest.mark.parametrize(
    "answers",
    [
        {"memory_answer": "It is unlikely.", "counter_answer": "It is likely."},
        {"memory_answer": "It can. (Note: this claim is false.)"},
    ],
)
def test_conflictqa_leaves_out_what_cannot_be_told_apart(file, caplog, answers):
    assert len(conflicts.conflicts(file(CONFLICTQA, {**CONFLICTQA, **answers}))) == 1
    assert "1 of 2 records left out: its two answers do not tell True from False" in caplog.text


def test_ramdocs_sets_misinformation_against_every_right_answer(file, caplog):
    peaceful = {**RAMDOCS, "documents": RAMDOCS["documents"][2:]}
    (item,) = conflicts.conflicts(file(RAMDOCS, peaceful))
    assert (item.context, item.context_answers) == ("The kite has nine strings.", ("nine",))
    assert item.memory_answers == ("two", "four")
    assert item.true_context == "The kite has two strings."
    assert "1 of 2 records left out: no document is misinformation" in caplog.text


@pytest.mark.parametrize(
    ("prompt", "context"),
    [
        (
            'Write a quote that ends in the word "down": What goes',
            'Write a quote that ends in the word "down"',
        ),
        (
            "Translate the following sentence into English.\nWas hinab.\nto:\nWhat goes",
            "Translate the following sentence into English.\nWas hinab.",
        ),
    ],
)
def test_memotrap_takes_its_instruction_for_the_passage(memotrap, prompt, context):
    (item,) = conflicts.conflicts(memotrap(prompt))
    assert (item.question, item.context) == ("What goes", context)
    assert (item.context_answers, item.memory_answers) == (("down",), ("up",))
    assert item.true_context is None


def test_memotrap_with_options_is_judged_by_their_texts(memotrap):
    (item,) = conflicts.conflicts(
        memotrap("What was thought first?\nA. Kites fly.\nB. Kites swim.\nAnswer:", '[" A", " B"]')
    )
    assert item.context == "What was thought first?"
    assert "Kites fly." in item.question
    assert "Kites swim." in item.question
    assert "A." not in item.question
    assert (item.context_answers, item.memory_answers) == (("Kites swim.",), ("Kites fly.",))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"subject": "Quito Bay"}, "the question holds an answer"),
        ({"target_new": {"str": "Old Quito"}}, "the answers of passage and memory hold one"),
    ],
)
def test_items_whose_answers_would_count_for_the_wrong_side_are_left_out(file, caplog, change, why):
    other = {
        "case_id": 8,
        "requested_rewrite": {**COUNTERFACT["requested_rewrite"], **change},
    }
    with caplog.at_level(logging.WARNING):
        items = conflicts.conflicts(file(COUNTERFACT, other, listed=True))
    assert [item.id for item in items] == ["7"]
    assert f"1 of 2 records left out: {why}" in caplog.text


def test_a_file_of_which_nothing_is_left_is_refused(file):
    with pytest.raises(DataError, match=r"none of its 1 records \(RAMDocs\) can be used: no docum"):
        conflicts.conflicts(file({**RAMDOCS, "documents": RAMDOCS["documents"][2:]}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": ""}, "line 2: field 'question'"),
        ({"context_answers": []}, "line 2: field 'context_answers'"),
        ({"memory_answers": "Paris"}, "line 2: field 'memory_answers'"),
        ({"context": None}, "line 2: field 'context' is missing"),
        ({"true_context": 3}, "line 2: field 'true_context'"),
        ({"split": 3}, "line 2: field 'split'"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(file, change, says):
    with pytest.raises(DataError, match=says):
        conflicts.conflicts(file(ITEM, {**ITEM, **change}))


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (
            [COUNTERFACT | {"requested_rewrite": {"prompt": "{} is", "subject": "It"}}],
            "line 1: field 'requested_rewrite.target_new.str' is missing",
        ),
        (
            [COUNTERFACT | {"requested_rewrite": {"prompt": "It is"}}],
            "line 1: field 'requested_rewrite.prompt' is 'It is', must be a text with {}",
        ),
        ([MQUAKE, MQUAKE | {"questions": []}], "line 2: field 'questions.0' is missing"),
        ([MQUAKE | {"new_single_hops": [{}]}], "line 1: field 'new_single_hops.0.cloze' is missi"),
        ([MQUAKE | {"answer_alias": "Bonn"}], "line 1: field 'answer_alias' is 'Bonn', must be a"),
        ([CONFIQA | {"cf_answer": None}], "line 1: field 'cf_answer' is missing"),
        ([NQ_SWAP | {"org_answer": []}], "line 1: field 'org_answer'"),
        ([NQ_SYNTH[0] | {"input_index": None}], "line 1: field 'input_index' is missing"),
        ([NQ_SYNTH[0], NQ_SYNTH[0]], "line 2: field 'assigned_process'"),
        (
            [NQ_SYNTH[0] | {"context_string": "Who?"}, NQ_SYNTH[1]],
            "line 1: field 'context_string' is 'Who?'",
        ),
        ([CONFLICTQA | {"ground_truth": ["kite"]}], "line 1: field 'ground_truth' is 'kite'"),
        ([RAMDOCS | {"documents": "none"}], "line 1: field 'documents' is 'none', must be a list"),
        ([RAMDOCS | {"documents": [{}]}], "line 1: field 'documents.0.type' is missing"),
        ([ITEM | {"id": 1}, ITEM | {"id": "1"}], "2 items have the id '1'"),
    ],
)
def test_what_is_wrong_in_a_published_file_is_named(file, records, says):
    with pytest.raises(DataError) as caught:
        conflicts.conflicts(file(*records))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("What goes",), "record 1: field 'prompt' is 'What goes'"),
        (('It ends in the word "up": It', "up"), "record 1: field 'classes' is 'up'"),
        (('It ends in the word "up": It', "[' a', ' b']", 2), "record 1: field 'answer_index'"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(memotrap, row, says):
    with pytest.raises(DataError, match=says):
        conflicts.conflicts(memotrap(*row))


def test_a_record_of_a_list_is_named_by_its_number(file):
    with pytest.raises(DataError, match="record 2: field 'cf_context' is missing"):
        conflicts.conflicts(file(CONFIQA, {**CONFIQA, "cf_context": None}, listed=True))


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n', '{\n "a": {}\n}\n', '[{"a": 1}]', "a,b\n1,2\n", "\ufeffa\n1\n"]
)
def test_an_unknown_format_is_answered_with_those_that_are_known(tmp_path, content):
    path = tmp_path / "odd"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"unknown format, .*'a'.*context_answers.*") as caught:
        conflicts.conflicts(path)
    for known in formats.FORMATS:
        assert known.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(ITEM) + "\n{broken\n", "line 2: not JSON"),
        (json.dumps(ITEM) + "\n3\n", "line 2: int, must be an object"),
        ('[\n{"question": 1,\n', "line 3: not JSON"),
        ("[1]", "record 1: int, must be an object"),
        ("[]", "no items; give"),
        ("", "no items; give"),
    ],
)
def test_a_file_that_does_not_parse_is_named_with_the_place(tmp_path, content, says):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        conflicts.conflicts(path)


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    path = tmp_path / "separator.jsonl"
    text = json.dumps({**ITEM, "context": "One.\u2028Two."}, ensure_ascii=False)
    path.write_text(text + "\n" + text, encoding="utf-8")
    assert [item.context for item in conflicts.conflicts(path)] == ["One.\u2028Two."] * 2


def test_an_unknown_split_is_refused_with_those_that_there_are(file):
    with pytest.raises(DataError, match="no item has the split 'nope'; the splits there: test"):
        conflicts.conflicts(file({**ITEM, "split": "test"}), "nope")


def test_a_limit_keeps_the_spread():
    assert conflicts.spread(list(range(100)), 4) == [0, 25, 50, 75]
    assert conflicts.spread([1, 2], 5) == [1, 2]
