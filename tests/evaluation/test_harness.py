"""The tasks for lm-evaluation-harness ask and count as `fulcrum eval dial` does."""

import json

import numpy as np
import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from control import prompts
from evaluation import metrics
from evaluation.datasets import conflicts as own
from evaluation.harness import DIRECTORY, utils
from foundation import text
from tests.evaluation.datasets.test_conflicts import (
    CONFLICTQA,
    COUNTERFACT,
    ITEM,
    NQ_SYNTH,
    RAMDOCS,
    nq_synth,
)

TASKS = sorted(path.stem for path in DIRECTORY.glob("*.yaml"))
OF_FILES = {
    "fulcrum_counterfact": [COUNTERFACT],
    "fulcrum_nq_synth": [*NQ_SYNTH, *nq_synth(2, "Eve")],
    "fulcrum_conflictqa": [CONFLICTQA],
    "fulcrum_ramdocs": [RAMDOCS],
}
UNDECIDED = {  # records that hold no conflict, or none that a string decides
    "fulcrum_counterfact": COUNTERFACT["requested_rewrite"] | {"target_new": {"str": "New Quito"}},
    "fulcrum_conflictqa": {"counter_answer": "Goats cannot fly."},
    "fulcrum_ramdocs": {"documents": RAMDOCS["documents"][2:]},
}
ODD = [
    "",
    "...",
    "Ångström, ﬁne",
    "STRASSE Straße",
    "n° 5",
    "x_1",
    "مرحبا",
    "2°",
    "İstanbul",
    "e\u0301t",
]


class Canned(LM):
    """A model that knows two facts of three, and follows memory, the passage or neither."""

    def __init__(self, chat=False):
        super().__init__()
        self.asked, self.chat = [], chat

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return [self._said(number, request.doc) for number, request in enumerate(requests)]

    def _said(self, number, doc):
        sides = {
            "memory": ("memory", None, "memory"),
            "passage": ("memory", "context", None, "memory"),
        }
        said = sides[doc["side"]]
        side = said[number // 2 % len(said)]  # the questions of one conflict follow each other
        answers = doc[f"{side}_answers"] if side else []
        return f"It is {answers[0]}!" if answers else "Who knows"

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood

    @property
    def tokenizer_name(self):
        return "canned"

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return json.dumps(chat_history)


class Words:
    """Prompts without a chat template, or a template that keeps the messages as they are."""

    def __init__(self, chat):
        self.chat_template = chat
        self.added_tokens_decoder = {}

    def apply_chat_template(self, messages, **_):
        return json.dumps(messages)

    def __call__(self, text, **_):
        return type("Encoded", (), {"input_ids": text.split()})


def run(task, chat=False, limit=None, gen_kwargs=None, **metadata):
    """What the harness counts, and what it asked."""
    model = Canned()
    manager = TaskManager(include_path=str(DIRECTORY), include_defaults=False, metadata=metadata)
    done = simple_evaluate(
        model,
        tasks=[task],
        task_manager=manager,
        limit=limit,
        gen_kwargs=gen_kwargs,
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    found = done["results"][task]
    return {name.split(",")[0]: value for name, value in found.items()}, model.asked, done


@pytest.fixture
def file(tmp_path):
    def write(records):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        return path

    return write


def test_an_answer_holds_a_string_as_everywhere_else():
    items = own.conflicts(own.BUILT_IN_CONFLICTS, "test")[::8]
    texts = [*ODD, *(item.context for item in items), *(item.question for item in items)]
    phrases = [*ODD, *(alias for item in items for alias in item.context_answers)]
    assert len(texts) > 600
    assert [utils.normalise(each) for each in texts] == [text.normalise(each) for each in texts]
    for item in items:
        for side in (item.context_answers, item.memory_answers):
            assert utils.holds(item.context, side) == metrics.holds(item.context, side)
    for each in texts[::7]:
        assert [utils.holds(each, [phrase]) for phrase in phrases] == [
            metrics.holds(each, [phrase]) for phrase in phrases
        ]


def test_the_built_in_conflicts_are_those_of_the_test_split():
    expected = {item.id: item for item in own.conflicts(own.BUILT_IN_CONFLICTS, "test")}
    docs = utils.dataset("own", ["memory", "passage"])["test"]
    assert len(docs) == 2 * len(expected)
    assert set(docs["id"]) == expected.keys()
    for doc in docs.select(range(0, len(docs), 50)):
        item = expected[doc["id"]]
        assert doc["memory_answers"] == list(item.memory_answers)
        assert doc["context_answers"] == list(item.context_answers)
    relations = {expected[name].relation for name in docs["id"][:80]}
    assert len(relations) > 10, "a limit draws from all relations"


@pytest.mark.parametrize("task", OF_FILES)
def test_published_files_are_read_as_by_eval_dial(file, task):
    records = list(OF_FILES[task])
    if task == "fulcrum_counterfact":
        records.append(COUNTERFACT | {"requested_rewrite": UNDECIDED[task], "case_id": 8})
    elif task in UNDECIDED:
        records.append(records[0] | UNDECIDED[task])
    path = file(records)
    read = utils.conflicts(task.removeprefix("fulcrum_"), str(path))
    kept = "question", "context", "context_answers", "memory_answers"
    assert [[one[name] for name in kept] for one in read] == [
        [item.question, item.context, list(item.context_answers), list(item.memory_answers)]
        for item in own.conflicts(path)
    ]
    counted, asked, _ = run(task, data=str(path))
    assert len(asked) == 2 * len(read)
    assert counted["known"] > 0


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("passages", [[], [ITEM["context"]]])
def test_a_model_is_asked_in_the_words_of_eval_dial(file, chat, passages):
    _, asked, _ = run("fulcrum_conflicts_passage", chat=chat, data=str(file([ITEM])))
    built = prompts.build(prompts.TokenizerFormat(Words(chat)), ITEM["question"], passages, 1000)
    prompt, options = asked[1 if passages else 0]
    assert prompt == built.context
    assert "documents" not in options


def test_fulcrum_gets_the_passage_beside_the_question(file):
    data = str(file([ITEM]))
    _, named, _ = run(
        "fulcrum_conflicts_passage", chat=True, gen_kwargs="alpha=1", data=data, model="fulcrum"
    )
    _, told, _ = run("fulcrum_conflicts_passage", chat=True, data=data, documents=True)
    for asked in (named, told):
        for prompt, _ in asked:
            assert json.loads(prompt) == [{"role": "user", "content": ITEM["question"]}]
        assert [how["documents"] for _, how in asked] == [[], [{"text": ITEM["context"]}]]
    assert [how["alpha"] for _, how in named] == [1, 1]
    assert "alpha" not in told[0][1]
    _, kept, _ = run("fulcrum_conflicts_passage", data=data, model="fulcrum", documents=False)
    assert ITEM["context"] in kept[1][0]


def test_the_numbers_are_those_of_eval_dial():
    counted, _, done = run("fulcrum_conflicts_passage", limit=200)
    samples = done["samples"]["fulcrum_conflicts_passage"]
    answers = {(one["doc"]["id"], one["doc"]["side"]): one["resps"][0][0] for one in samples}
    items = [
        item
        for item in own.conflicts(own.BUILT_IN_CONFLICTS, "test")
        if (item.id, "passage") in answers
    ]
    known = [
        item for item in items if metrics.holds(answers[item.id, "memory"], item.memory_answers)
    ]
    assert counted["known"] == pytest.approx(100 * len(known) / len(items))
    for asked, suffix in ((known, ""), (items, "_all")):
        held = [
            np.array(
                [metrics.holds(answers[item.id, "passage"], getattr(item, side)) for item in asked]
            )
            for side in ("context_answers", "memory_answers")
        ]
        expected = metrics.reliance(*held)
        for name in ("ConR", "ParR", "MR", "hit"):
            assert counted[name + suffix] == pytest.approx(expected[name])
    assert 0 < counted["MR"] < 100


def test_only_what_was_known_counts_as_known():
    items = [
        *[("a", "memory", False, True), ("a", "passage", True, False)],
        *[("b", "memory", False, False), ("b", "passage", False, True)],
        ("c", "memory", False, True),  # the last one of a limit
    ]
    assert utils.known(items) == pytest.approx(100 * 2 / 3)
    assert utils.con_r(items) == utils.hit(items) == 100
    assert utils.par_r(items) == utils.memory_ratio(items) == 0
    assert utils.par_r_all(items) == utils.con_r_all(items) == utils.memory_ratio_all(items) == 50
    assert utils.known([]) == utils.memory_ratio([]) == utils.hit([]) == 0


@pytest.mark.parametrize("task", TASKS)
def test_every_file_is_a_task_of_that_name(task, file):
    counted, asked, done = run(
        task, limit=4, **({"data": str(file(OF_FILES[task]))} if task in OF_FILES else {})
    )
    assert asked
    wanted = ["known"] if task == "fulcrum_conflicts_memory" else utils.METRICS
    assert set(wanted) <= counted.keys()
    assert done["n-shot"][task] == 0


def test_a_file_that_cannot_be_read_is_named(file, tmp_path):
    with pytest.raises(ValueError, match="the file of ramdocs is missing; get it from its authors"):
        utils.dataset("ramdocs", ["memory"])
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file"):
        utils.dataset("own", ["memory"], data=str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match=r"data\.jsonl: not in the format 'counterfact'"):
        utils.dataset("counterfact", ["memory"], data=str(file([ITEM])))
    with pytest.raises(ValueError, match="no conflict of the split 'dev'"):
        utils.dataset("own", ["memory"], data=str(file([ITEM])), split="dev")
    path = tmp_path / "text.jsonl"
    path.write_text("question, context", encoding="utf-8")
    with pytest.raises(ValueError, match="neither a JSON list nor JSON Lines"):
        utils.dataset("own", ["memory"], data=str(path))
