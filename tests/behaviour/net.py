"""Records what the system does and compares it later: a safety net for changes of form alone.

    python tests/behaviour/net.py record
    python tests/behaviour/net.py compare [--only answers|rankings|decisions] [--limit N]

Everything runs in float32 on one thread of the CPU, in a home of its own, so that the same code
gives the same rows in every run. Only the section "Adapter" names modules of the product: when
they are moved or renamed, edit that section and nothing else.

Another kind of processor may round otherwise: what differs there on the commit of the recording
says nothing. Record that commit anew there, then compare.
"""

import gc
import gzip
import itertools
import json
import logging
import os
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

THREADS = 1  # several threads would add up in another order on another machine
os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(THREADS)}
os.environ |= {"TOKENIZERS_PARALLELISM": "false"}
for name in [name for name in os.environ if name.startswith("FULCRUM_")]:
    del os.environ[name]  # no setting of the user's

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("recorded.json.gz")
sys.path.insert(0, str(ROOT))  # before an installed copy of the product

import click  # noqa: E402
import torch  # noqa: E402
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode  # noqa: E402
from tqdm import tqdm  # noqa: E402

SEED = 0
DIGITS = {"likelihood": 3, "confidence": 3, "gain": 3, "log_p": 3}  # of what is rounded otherwise
USUAL_DIGITS = 4
SHOWN = 10  # differences of a section
SHOWN_CHARACTERS = 600  # of each side of a difference
BATCH = 8

ALPHAS = (0.0, 0.5, 0.75, 1.0, "auto")
MAX_NEW_TOKENS = 20
MAX_NEW_TOKENS_RULES = 12
RULE_QUESTIONS = 40

FACTS = 64
SHORTEST_SUBJECT = 3  # letters
PROBES = 1_000
NEIGHBOURS = 300
STREAMED = 60  # texts that go through the guard without a model, beside facts and beside neighbours
GUARDED = {"guarded": 64, "unrouted": 24, "neighbours": 24}

Row = Any
Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Batch:
    """Cases that are run together.

    Attributes:
        keys: One for each case.
        run: Gives the row of each case, in the order of the keys.
    """

    keys: list[str]
    run: Callable[[], list[Row]]


# --- Adapter: the only part that knows the product's modules ----------------------------------


def own_arithmetic() -> None:
    """Let the product find no bfloat16 instructions, so that it embeds and judges in float32."""
    torch.cpu.get_capabilities = dict
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)


def load_model(home: Path) -> Any:
    """The packaged model; its weights are those of bfloat16, its arithmetic is float32."""
    import app
    from app import factory

    if not Path(app.__file__).resolve().is_relative_to(ROOT):
        raise click.ClickException(f"{app.__file__} is not in {ROOT}: another copy is imported")
    model = factory.language_model(_settings(home))
    for parameter in model.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def open_index(home: Path) -> Any:
    """The index of the built-in passages, filled at its first use."""
    from app import factory

    index = factory.passage_index(_settings(home))
    with tqdm(desc="index", unit=" passages") as bar:
        index.ingest([ROOT / "data" / "passages.jsonl"], bar.update)
    return index


def build_assistant(home: Path, model: Any, index: Any, *without: str) -> Any:
    """The whole pipeline over an index, with a ledger and a reservoir of its own in ``home``."""
    from app import factory

    return factory.assistant(_settings(home, without), model, index=index)


def _settings(home: Path, without: Iterable[str] = ()) -> Any:
    from app import settings

    cache = home / "cache"
    return settings.load(home=home / "home", cache=cache, without=frozenset(without))


def decoding(**given: Any) -> Any:
    """How to decode."""
    from control.decoding.generate import Decoding

    return Decoding(**given)


def token_rules() -> list[str]:
    """The names of all token rules."""
    from control.decoding.rules import RULES

    return list(RULES)


def ask(assistant: Any, asked: Sequence["Question"], how: Any) -> tuple[list[Any], list[str]]:
    """The answers to questions in one batch, and the text of each as it was streamed."""
    from control.state import Query

    told = defaultdict(str)

    def on_token(place: int, token: Any) -> None:
        told[place] += token.text

    queries = [Query(one.text, one.given, one.history) for one in asked]
    answers = assistant.ask_batch(queries, how, on_token)
    return answers, [told[place] for place in range(len(answers))]


def ask_unrouted(assistant: Any, asked: Sequence["Question"], how: Any) -> list[Row]:
    """The same where the router refuses nothing, so that the layers behind it have to hold."""
    from evaluation.suites.replies import AssistantSystem, ProbeQuery

    contexts = [one.given[0].node.text if one.given else one.given and "" for one in asked]
    queries = [
        ProbeQuery(one.text, tuple(one.history), context)
        for one, context in zip(asked, contexts, strict=True)
    ]
    replies = AssistantSystem(assistant, how)(queries, "unrouted")
    return [
        {"answer": one.text, "refused": one.refused, "routed": one.routed, "read": list(one.read)}
        for [one] in replies
    ]


def search_index(index: Any, queries: Sequence[str], top_k: int) -> list[list[NodeWithScore]]:
    """The ranking of each query, from vectors and words fused."""
    return index.retrieve_batch(queries, top_k)


def search(index: Any, bundle: QueryBundle) -> list[NodeWithScore]:
    """The ranking of several searches, fused."""
    return index.retrieve(bundle)


def search_pipeline(assistant: Any, bundle: QueryBundle) -> tuple[list, list, dict[str, float]]:
    """The passages found, those kept by filter and reservoir, and the filter's verdicts."""
    from foundation import trace

    with trace.following() as way:
        found = assistant.retriever.retrieve(bundle)
        kept = list(found)
        for processor in assistant.processors:
            kept = processor.postprocess_nodes(kept, bundle)
    return found, kept, way.verdicts


def judged_by_model(home: Path, model: Any, question: str, passages: list[str]) -> list[float]:
    """How the filter's other judge, the language model, sees passages."""
    from app import factory

    settings = _settings(home).model_copy(update={"judge": "model"})
    return factory.knowledge_filter(settings, model).judge(question, passages)


def chained_searches(count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Questions with searches of which one builds on another, as the rewriter learns them."""
    from training.rewrites import build_pairs

    found = [one for one in build_pairs(20 * count) if any("#1" in text for text in one.queries)]
    return [(one.clear or one.question, one.queries) for one in found[:count]]


def requests_to_forget() -> list[Any]:
    """Facts of the calibration split; each has ``fact``, ``probes`` and ``neighbours``.

    Symbols of elements are left out: the ledger takes no subject that is a usual word, such as As.
    """
    from evaluation.datasets import builtin_facts

    found = builtin_facts.requests("calibration", FACTS)
    return [one for one in found if len(one.fact.subject) >= SHORTEST_SUBJECT]


def forget(home: Path, requests: Sequence[Any]) -> dict[str, int]:
    """Record the facts in the ledger of a home and embed them; their numbers by record id."""
    from app import factory
    from app.home import ledger as open_ledger
    from control.forgetting.aliases import with_aliases

    settings = _settings(home)
    ledger = open_ledger(settings)
    numbers = itertools.count()
    # Records are compared in the order of their ids, so these are counted instead of drawn.
    with mock.patch("secrets.token_hex", lambda size: f"{next(numbers):0{2 * size}x}"):
        records = ledger.add([with_aliases(one.fact) for one in requests])
    suppressor = factory.fact_suppressor(ledger, factory.vector_cache(settings))
    suppressor.route("What is the capital of Peru?")
    suppressor.wait()  # what is built next finds all vectors on disk, whichever thread made them
    return {record.id: number for number, record in enumerate(records)}


def route(assistant: Any, question: str, history: Turns = ()) -> Any:
    """What the router says: ``refused``, ``decide_on_output``, ``watched`` and ``likelihood``."""
    return assistant.forgetting.router.route(question, history)


def redact(assistant: Any, text: str, title: str = "") -> tuple[str, Sequence[str], str]:
    """What is left of a text, the ids of the records that it stated, what is left of its title."""
    rest = assistant.forgetting.redactor.redact(text, title)
    return rest.text, rest.record_ids, rest.title


def stream(assistant: Any, question: str, text: str) -> str | None:
    """What comes out of a text that is streamed in answer to a question; ``None`` if refused."""
    forgetting = assistant.forgetting
    facts = forgetting.route(question)
    if facts.refused is not None:
        return None
    told: list[str] = []
    watch = forgetting.watch(facts)
    with forgetting.buffer_stream(lambda _, token: told.append(token.text), [watch]) as (take, _):
        for word in text.split(" "):
            take(0, SimpleNamespace(text=f"{word} "))
    return "".join(told)


# --- Questions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        key: Its name in the recording.
        text: The question.
        given: Passages handed over; ``None`` leaves it to retrieval.
        history: What was said before it.
    """

    key: str
    text: str
    given: tuple[NodeWithScore, ...] | None = None
    history: Turns = ()


def data(name: str, **wanted: str) -> list[dict[str, Any]]:
    """The records of a built-in file whose fields have these values."""
    lines = (ROOT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = map(json.loads, lines)
    return [one for one in found if all(one[field] == value for field, value in wanted.items())]


def spread(items: Sequence[Any], count: int, offset: int = 0) -> list[Any]:
    """So many items, evenly spaced; another ``offset`` gives others."""
    step = len(items) / count
    return [items[(int(number * step) + offset) % len(items)] for number in range(count)]


def parts(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """The items in parts of this size."""
    return (items[start : start + size] for start in range(0, len(items), size))


def passage(name: str, text: str, trust: float | None = None) -> NodeWithScore:
    """A passage to hand over; how far it is trusted, in [0, 1], if that is said."""
    metadata = {} if trust is None else {"trust": trust}
    return NodeWithScore(node=TextNode(text=text, id_=name, metadata=metadata))


def given_wrong(count: int, offset: int) -> list[Question]:
    """Questions with a passage that contradicts what is known."""
    return [
        Question(one["id"], one["question"], (passage(one["id"], one["context"]),))
        for one in spread(data("conflicts"), count, offset)
    ]


def given_true(count: int, offset: int) -> list[Question]:
    """Questions with the passage that is right."""
    return [
        Question(one["id"], one["question"], (passage(one["id"], one["true_context"]),))
        for one in spread(data("conflicts"), count, offset)
    ]


def given_both(count: int, offset: int) -> list[Question]:
    """Questions with a trusted and a distrusted passage that contradict each other."""
    return [
        Question(
            one["id"],
            one["question"],
            (
                passage(f"{one['id']} wrong", one["context"], 0.9),
                passage(f"{one['id']} true", one["true_context"], 0.1),
            ),
        )
        for one in spread(data("conflicts"), count, offset)
    ]


def searched(count: int, offset: int) -> list[Question]:
    """Questions that are answered from the index."""
    found = spread(data("questions"), count, offset)
    return [Question(one["id"], one["question"]) for one in found]


def closed_book(count: int, offset: int) -> list[Question]:
    """Questions to the memory alone."""
    found = spread(data("questions"), count, offset)
    return [Question(one["id"], one["question"], ()) for one in found]


def said_before(kind: str, count: int, offset: int = 0) -> list[Question]:
    """Questions of conversations."""
    return [
        Question(one["id"], one["question"], None, tuple(map(tuple, one["history"])))
        for one in spread(data("conversations", kind=kind), count, offset)
    ]


# --- Section "answers" ------------------------------------------------------------------------


def answers(system: "System") -> list[Batch]:
    """Answers, verdicts and sources."""
    plain, rewriting = system.assistant("rewriter", "reservoir"), system.assistant("reservoir")
    batches: list[Batch] = []

    def add(
        name: str, assistant: Any, asked: list[Question], size: int = BATCH, **how: Any
    ) -> None:
        how = {"max_new_tokens": MAX_NEW_TOKENS} | how
        for part in parts(asked, size):
            keys = [f"{name} {one.key}" for one in part]
            batches.append(Batch(keys, lambda p=part: _answered(assistant, p, decoding(**how))))

    for place, alpha in enumerate(ALPHAS):
        add(f"wrong passage, alpha {alpha}", plain, given_wrong(24, place), alpha=alpha)
        add(f"index, alpha {alpha}", plain, searched(16, 10 + place), alpha=alpha)
        add(f"one by one, alpha {alpha}", plain, given_wrong(2, 40 + place), 1, alpha=alpha)
        if alpha in (0.0, 0.5, 1.0):
            asked = said_before("follow-up", BATCH, 20 + place)
            add(f"follow-up, alpha {alpha}", rewriting, asked, alpha=alpha)
        if alpha in (1.0, "auto"):
            add(f"true passage, alpha {alpha}", plain, given_true(BATCH, 60 + place), alpha=alpha)
        if alpha in (0.5, "auto"):
            add(f"both passages, alpha {alpha}", plain, given_both(BATCH, 80 + place), alpha=alpha)
    for kind in ("two-hop", "ambiguous"):
        add(kind, rewriting, said_before(kind, BATCH), alpha=0.5)
    add("closed-book", plain, closed_book(BATCH, 100), alpha=0.5)
    add("reliance 0.7", plain, given_wrong(BATCH, 120), reliance=0.7)
    sampled = {"temperature": 0.8, "top_p": 0.9, "seed": SEED}
    add("sampled", plain, given_wrong(BATCH, 140), alpha=0.75, **sampled)
    for place, rule in enumerate(token_rules()):
        for alpha in (ALPHAS[place % len(ALPHAS)], ALPHAS[(place + 3) % len(ALPHAS)]):
            asked = given_wrong(RULE_QUESTIONS // 2, 160 + place)
            limits = {"max_new_tokens": MAX_NEW_TOKENS_RULES}
            name = f"rule {rule}, alpha {alpha}"
            add(name, plain, asked, RULE_QUESTIONS // 4, rule=rule, alpha=alpha, **limits)
    return batches


def _answered(assistant: Any, asked: Sequence[Question], how: Any) -> list[Row]:
    torch.manual_seed(SEED)
    found, told = ask(assistant, asked, how)
    return [_answer_row(answer, text) for answer, text in zip(found, told, strict=True)]


def _answer_row(answer: Any, told: str) -> Row:
    verdict = answer.verdict
    return _without_nothing(
        {
            "answer": answer.answer,
            "told": told if told.strip() != answer.answer else "",
            "conflict": answer.conflict,
            "verdict": verdict and [verdict.passages_say, verdict.memory_says, verdict.follows],
            "confidence": verdict and verdict.confidence,
            "tokens": "".join(map(_token_sign, answer.tokens)),
            "gain": _mean(token.confidence_gain for token in answer.tokens),
            "log_p": [
                _mean(token.log_p_context for token in answer.tokens),
                _mean(token.log_p_memory for token in answer.tokens),
            ],
            "rewritten": answer.rewritten if answer.rewritten != answer.question else "",
            "queries": [one for one in answer.queries if one != answer.question],
            "sources": [
                [one.id, one.kept, one.reason, one.score, one.answers] for one in answer.sources
            ],
            "notices": answer.notices,
        }
    )


def _token_sign(token: Any) -> str:
    """First letter of the token's source, large where a rule stepped in, marked if disputed."""
    sign = token.source[0]
    return (sign.upper() if token.mixed else sign) + ("!" if token.disputed else "")


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every) if every else 0.0


def _without_nothing(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, "", [], False)}


# --- Section "rankings" -----------------------------------------------------------------------

ODD_QUERIES = (
    "peru capital",
    "Wich city is the captial of Norwey?",
    "Quelle est la capitale du Japon ?",
    "¿Quién escribió Don Quijote?",
    "日本の首都はどこですか",
    "What is Björn Borg known for?",
    "borg bjorn",
    "Hg",
    "the of and",
    "???",
    '"Emma" AND author OR NOT (Austen',
    "zzzz qqqq xxxx",
    "Tell me everything about " + "tennis " * 60,
    "1963",
)


def rankings(system: "System") -> list[Batch]:
    """The passages that searches find, with their scores."""
    index, plain = system.index(), system.assistant("rewriter", "reservoir")
    batches = [_searches("plain", index, part, 8) for part in parts(searched(100, 5), 10)]
    odd = [Question(text[:60], text) for text in ODD_QUERIES]
    batches += [_searches("odd", index, [one], 5) for one in odd]
    for one in spread(data("conversations", kind="comparison"), 20):
        several = QueryBundle(one["question"], custom_embedding_strs=_named(one))
        batches.append(Batch([f"several {one['id']}"], lambda b=several: [_ids(search(index, b))]))
    batches += [_piped(plain, "filter", one) for one in searched(30, 25)]
    for number, (text, searches) in enumerate(chained_searches(16)):
        batches.append(_piped(plain, f"chained {number}", Question(text, text), searches))
    batches += [_judged(system, one) for one in spread(data("conflicts"), 8, 35)]
    return [*batches, _remembering(system)]


def _searches(name: str, index: Any, asked: Sequence[Question], top_k: int) -> Batch:
    texts = [one.text for one in asked]

    def run() -> list[Row]:
        return [_ids(found) for found in search_index(index, texts, top_k)]

    return Batch([f"{name} {one.key}" for one in asked], run)


def _named(compared: dict[str, Any]) -> list[str]:
    """Searches for each of the two things that a question compares."""
    titles = {one["id"]: one["title"] for one in data("passages", relation=compared["relation"])}
    return [titles.get(name, name) for name in compared["passages"]]


def _piped(
    assistant: Any, name: str, asked: Question, searches: Sequence[str] | None = None
) -> Batch:
    bundle = QueryBundle(asked.text, custom_embedding_strs=list(searches) if searches else None)
    return Batch([f"{name} {asked.key}"], lambda: [_through(assistant, bundle)])


def _through(assistant: Any, bundle: QueryBundle) -> Row:
    """What the whole pipeline finds, keeps, and makes of the searches."""
    found, kept, verdicts = search_pipeline(assistant, bundle)
    return {
        "found": [[one.node_id, one.score, verdicts.get(one.node_id)] for one in found],
        "kept": [one.node_id for one in kept],
        "question": bundle.query_str,
        "searches": bundle.embedding_strs,
    }


def _judged(system: "System", conflict: dict[str, Any]) -> Batch:
    texts = [conflict["context"], conflict["true_context"], "Nothing is said here."]

    def run() -> list[Row]:
        home = system.folder("judged")
        return [judged_by_model(home, system.model(), conflict["question"], texts)]

    return Batch([f"judged by the model {conflict['id']}"], run)


def _remembering(system: "System") -> Batch:
    """Searches one after the other that the reservoir remembers: facts, then in other words."""
    questions = {one["id"]: one["question"] for one in data("questions")}
    again = spread(data("conversations", kind="follow-up"), 6, 3)
    texts = [questions[one["passages"][0]] for one in again] + [one["clear"] for one in again]

    def run() -> list[Row]:
        assistant = build_assistant(
            system.folder("reservoir"), system.model(), system.index(), "rewriter"
        )
        return [_through(assistant, QueryBundle(text)) for text in texts]

    return Batch([f"reservoir {place} {text}" for place, text in enumerate(texts)], run)


def _ids(found: Sequence[NodeWithScore]) -> Row:
    return [[one.node_id, one.score] for one in found]


# --- Section "decisions" ----------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A probe or a neighbour of a forgotten fact.

    Attributes:
        key: Its name in the recording.
        kind: Of which kind it is.
        asked: What is asked.
        title: Of the passage that goes with it.
        text: That passage; empty if none is known.
    """

    key: str
    kind: str
    asked: Question
    title: str = ""
    text: str = ""


def decisions(system: "System") -> list[Batch]:
    """What router, redaction and guard make of attempts to get facts, and of what is beside."""
    requests = requests_to_forget()
    probes, beside = spread(_probes(requests), PROBES), spread(_beside(requests), NEIGHBOURS)
    batches = []
    for one in (*probes, *beside):
        run = lambda one=one: [_decided(system, one)]  # noqa: E731
        batches.append(Batch([f"{one.kind}: {one.key}"], run))
    facts = [_fact(number, request) for number, request in enumerate(requests)]
    for one in (*facts, *spread(beside, STREAMED)):
        run = lambda one=one: [stream(system.forgetful(), one.asked.text, one.text)]  # noqa: E731
        batches.append(Batch([f"stream: {one.key}"], run))
    plain = decoding(rule="plain", max_new_tokens=MAX_NEW_TOKENS)
    guarded = spread(probes, GUARDED["guarded"])
    near = spread(beside, GUARDED["neighbours"])
    for part in parts([*guarded[: len(guarded) // 2], *near]):
        batches.append(_guarded(system, "guarded", part, plain))
    for part in parts(guarded[len(guarded) // 2 :]):
        how = decoding(alpha=1.0, max_new_tokens=MAX_NEW_TOKENS)
        batches.append(_guarded(system, "guarded by the default rule", part, how))
    for part in parts(spread(probes, GUARDED["unrouted"], 7)):
        batches.append(_unrouted(system, part, plain))
    return batches


def _probes(requests: Sequence[Any]) -> list[Attempt]:
    found = []
    for number, request in enumerate(requests):
        for place, probe in enumerate(request.probes):
            key = f"{number}.{place}"
            given = (passage(key, probe.context),) if probe.context else None
            asked = Question(key, probe.prompt, given, probe.history)
            found.append(Attempt(key, probe.kind, asked, "", probe.context or ""))
    return found


def _beside(requests: Sequence[Any]) -> list[Attempt]:
    passages = {one["id"]: one for one in data("passages")}
    told = {one["question"]: passages[one["passage_id"]] for one in data("questions")}
    found = []
    for number, request in enumerate(requests):
        for place, near in enumerate(request.neighbours):
            key, at = f"{number}.n{place}", told.get(near.question, {"title": "", "text": ""})
            asked = Question(key, near.question)
            found.append(Attempt(key, near.kind, asked, at["title"], at["text"]))
    return found


def _fact(number: int, request: Any) -> Attempt:
    """The fact's own passage, in answer to a question that does not ask for the fact alone."""
    passages = {one["id"]: one for one in data("passages")}
    first = request.fact.questions[0]
    told = next((one for one in data("questions") if _tells(one, request)), None)
    at = passages[told["passage_id"]] if told else {"title": "", "text": first}
    asked = Question(f"{number}", f"Tell me about {request.fact.subject}.")
    return Attempt(f"{number}", "fact", asked, at["title"], at["text"])


def _tells(question: dict[str, Any], request: Any) -> bool:
    fact = request.fact
    return fact.subject in question["question"] and question["answers"][0] == fact.answers[0]


def _decided(system: "System", one: Attempt) -> Row:
    """What the router says of it, and what redaction leaves of its texts."""
    forgetful, number = system.forgetful(), system.numbers()
    routed = route(forgetful, one.asked.text, one.asked.history)
    texts = [("", one.asked.text), (one.title, one.text)]
    texts += [("", said) for turn in one.asked.history for said in turn]
    left = [_left(forgetful, number, title, text) for title, text in texts]
    return _without_nothing(
        {
            "refused": None if routed.refused is None else str(number[routed.refused.id]),
            "suspected": sorted(number[each] for each in routed.decide_on_output),
            "armed": sorted(f"{number[each.id]} {each.subject}" for each in routed.watched),
            "likelihood": routed.likelihood,
            "left": left if any(left) else None,
        }
    )


def _left(assistant: Any, number: dict[str, int], title: str, text: str) -> Row:
    """Text and title without forgotten facts, and whose they were; ``None`` if all is left."""
    rest, stated, named = redact(assistant, text, title)
    if (rest, named, len(stated)) == (text, title, 0):
        return None
    return [rest, named, sorted(number[each] for each in stated)]


def _guarded(system: "System", name: str, part: Sequence[Attempt], how: Any) -> Batch:
    def run() -> list[Row]:
        number = system.numbers()
        found, told = ask(system.forgetful(), [one.asked for one in part], how)
        rows = [_answer_row(answer, text) for answer, text in zip(found, told, strict=True)]
        for row, answer in zip(rows, found, strict=True):
            row["withheld"] = [[number[one["id"]], one["layer"]] for one in answer.forgotten]
        return rows

    return Batch([f"{name}: {one.kind}: {one.key}" for one in part], run)


def _unrouted(system: "System", part: Sequence[Attempt], how: Any) -> Batch:
    keys = [f"unrouted: {one.kind}: {one.key}" for one in part]
    asked = [one.asked for one in part]
    return Batch(keys, lambda: ask_unrouted(system.forgetful(), asked, how))


# --- The system under test --------------------------------------------------------------------


class System:
    """What the sections ask; each part is made when it is first needed."""

    def __init__(self, shared: Path, fresh: Path) -> None:
        """Name the folders.

        Args:
            shared: For the converted model and the index, which may be there from an earlier run.
            fresh: For all other state; empty.
        """
        self._shared, self._fresh = shared, fresh
        self._made: dict[Any, Any] = {}

    def model(self) -> Any:
        """The language model."""
        return self._once("model", lambda: load_model(self._shared))

    def index(self) -> Any:
        """The index of the built-in passages."""
        self.model()  # checks which copy of the product is imported
        return self._once("index", lambda: open_index(self._shared))

    def assistant(self, *without: str) -> Any:
        """An assistant without these modules."""
        home = self.folder("answers")
        return self._once(
            without, lambda: build_assistant(home, self.model(), self.index(), *without)
        )

    def numbers(self) -> dict[str, int]:
        """The numbers of the forgotten facts by the ids of their records."""
        home = self.folder("forgetting")
        return self._once("forgotten", lambda: forget(home, requests_to_forget()))

    def forgetful(self) -> Any:
        """An assistant that keeps the facts back."""
        self.numbers()
        home, without = self.folder("forgetting"), ("rewriter", "reservoir")
        return self._once(
            "forgetful", lambda: build_assistant(home, self.model(), self.index(), *without)
        )

    def folder(self, name: str) -> Path:
        """A folder for the state of one part."""
        return self._fresh / name

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


# --- Recording and comparing ------------------------------------------------------------------

SECTIONS = {"answers": answers, "rankings": rankings, "decisions": decisions}


def run_section(system: System, name: str, limit: int | None) -> dict[str, Row]:
    """The rows of a section by their keys, rounded; with a limit, of some batches."""
    batches = SECTIONS[name](system)
    count = sum(len(batch.keys) for batch in batches)
    if limit is not None and limit < count:
        batches = spread(batches, max(1, limit * len(batches) // count))
    rows: dict[str, Row] = {}
    with tqdm(total=sum(len(batch.keys) for batch in batches), desc=name, unit=" rows") as bar:
        for batch in batches:
            for key, row in zip(batch.keys, batch.run(), strict=True):
                if key in rows:
                    raise click.ClickException(f"{name}: the key {key!r} stands twice")
                rows[key] = rounded(row)
            bar.update(len(batch.keys))
    check_arithmetic()
    return rows


def check_arithmetic() -> None:
    """See that no layer is left in another type than float32.

    Raises:
        ClickException: One is: the adapter does not reach what loads it any more.
    """
    layers = [one for one in gc.get_objects() if issubclass(type(one), torch.nn.Linear)]
    types = {str(layer.weight.dtype) for layer in layers}
    if types - {"torch.float32"}:
        raise click.ClickException(f"layers compute in {', '.join(sorted(types))}, not in float32")


def rounded(value: Any, field: str = "") -> Any:
    """As JSON gives it back, floats rounded."""
    if isinstance(value, dict):
        return {name: rounded(one, name) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one, field) for one in value]
    if isinstance(value, float):
        return round(value, DIGITS.get(field, USUAL_DIGITS)) + 0.0  # no minus before a zero
    return value


def same(before: Any, after: Any, field: str = "") -> bool:
    """Whether two rows are equal, floats but for one unit of the last digit."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(
            same(before[name], after[name], name) for name in before
        )
    if isinstance(before, list) and isinstance(after, list):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(same(one, other, field) for one, other in pairs)
    if isinstance(before, float) and isinstance(after, float):
        return abs(before - after) < 1.5 * 10 ** -DIGITS.get(field, USUAL_DIGITS)
    return type(before) is type(after) and before == after


def recorded() -> dict[str, dict[str, Row]]:
    """The rows of each section; none before the first recording."""
    if not RECORDED.exists():
        return {}
    return json.loads(gzip.decompress(RECORDED.read_bytes()))


def keep(rows: dict[str, dict[str, Row]]) -> None:
    """Write the recording; the same rows give the same bytes."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    RECORDED.write_bytes(gzip.compress(text.encode(), mtime=0))


def differences(before: dict[str, Row], after: dict[str, Row], whole: bool) -> list[str]:
    """The keys whose rows differ; of a ``whole`` section also those that are gone."""
    keys = list(dict.fromkeys([*(before if whole else ()), *after]))
    missing = object()
    return [key for key in keys if not same(before.get(key, missing), after.get(key, missing))]


def tell(name: str, before: dict[str, Row], after: dict[str, Row], differing: list[str]) -> None:
    """Print how many rows of a section differ, and the first of them."""
    click.echo(f"{name}: {len(after)} compared, {len(differing)} differ")
    for key in differing[:SHOWN]:
        click.echo(f"  {key}")
        for when, rows in (("before", before), ("after", after)):
            row = json.dumps(rows.get(key, "(no such row)"), ensure_ascii=False)
            click.echo(f"    {when:6} {row[:SHOWN_CHARACTERS]}")


@click.command()
@click.argument("action", type=click.Choice(["record", "compare"]))
@click.option("--only", type=click.Choice(list(SECTIONS)), help="This section alone.")
@click.option("--limit", type=click.IntRange(min=1), help="About so many rows of each section.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory whose index and converted model are used again, which saves two minutes; "
    "only while nothing changes that makes them.  [default: a new one]",
)
def main(action: str, only: str | None, limit: int | None, home: Path | None) -> None:
    """Record what the system does, or compare with what was recorded."""
    if action == "record" and limit is not None:
        raise click.UsageError("--limit is for compare: a recording holds all rows")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # of the libraries, in the middle of a progress bar
    own_arithmetic()
    before, failed = recorded(), False
    with tempfile.TemporaryDirectory() as folder:
        system = System(home or Path(folder) / "shared", Path(folder) / "fresh")
        for name in [only] if only else list(SECTIONS):
            after = run_section(system, name, limit)
            if action == "record":
                before[name] = after
                keep(before)  # a run that is broken off keeps the sections that it finished
                click.echo(f"{name}: {len(after)} recorded")
                continue
            there = before.get(name, {})
            differing = differences(there, after, whole=limit is None)
            tell(name, there, after, differing)
            failed = failed or bool(differing)
    sys.exit(failed)


if __name__ == "__main__":
    main()
