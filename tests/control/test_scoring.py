import pytest
import torch

from app import factory
from control import scoring
from control.engines.scheduler import Cancelled, Scheduler
from control.forgetting.guard import Route
from control.forgetting.ledger import open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.suppressor import FactSuppressor
from foundation.errors import InputError

FREE = FactSuppressor()


class ReversedRouter:
    """Takes a text with an answer for one that asks for its subject."""

    def route(self, question, history=()):
        return Route(subject_asked=frozenset({"chile"} if "Santiago" in question else ()))

    def activation(self, question):
        return lambda text: []

    def named(self, text):
        return ()


def log_p(model, ids):
    """All log-probabilities by one plain pass."""
    with torch.inference_mode():
        return model.model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)


@pytest.mark.parametrize("at_once", [1, 4, 256])
def test_scores_are_those_of_one_plain_pass(tiny, monkeypatch, at_once):
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", at_once)
    text = "Who is it? abc def"
    ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
    whole = log_p(tiny, ids)
    [scored] = scoring.score(tiny, FREE, [text], most=3, predict=True)
    assert "".join(token.text for token in scored.tokens) == scored.text == text
    first, *others = scored.tokens
    assert (first.log_p, first.alternatives) == (None, ())
    expected = [float(whole[place, token]) for place, token in enumerate(ids[1:])]
    assert [token.log_p for token in others] == pytest.approx(expected, abs=1e-4)
    for row, token in zip(whole, others, strict=False):
        best = row.topk(3).values.tolist()
        assert [log for _, log in token.alternatives] == pytest.approx(best, abs=1e-4)
    assert scored.next.log_p == pytest.approx(float(whole[-1].max()), abs=1e-4)
    assert scored.next.text == tiny.tokenizer.decode([int(whole[-1].argmax())])


def test_ids_of_tokens_are_scored_as_their_text(tiny):
    ids = tiny.tokenizer("Who?", add_special_tokens=False).input_ids
    by_text, by_ids = scoring.score(tiny, FREE, ["Who?", ids], most=1)
    assert by_text == by_ids
    assert by_ids.next is None


def test_a_first_token_is_scored_after_the_one_that_begins_every_text(tiny, monkeypatch):
    class Beginning:
        bos_token_id = 1

        def __call__(self, text, add_special_tokens=True):
            found = tiny.tokenizer(text, add_special_tokens=False)
            if add_special_tokens:
                found["input_ids"] = [1, *found.input_ids]
            return found

    [*_, ids] = [[1], Beginning()("Who?", add_special_tokens=False).input_ids]
    assert scoring._encoded(Beginning(), "Who?") == ([1], ids)
    assert scoring._encoded(Beginning(), ids) == ([], ids)
    assert scoring._encoded(tiny.tokenizer, "Who?") == ([], ids)


def test_what_may_ask_for_the_subject_of_a_forgotten_answer_is_not_scored(tiny):
    reversing = FactSuppressor(router=ReversedRouter())
    texts = ["Santiago is the capital of", "Oslo is the capital of"]
    asked, other = scoring.score(tiny, reversing, texts, predict=True)
    assert (asked.tokens, asked.next, asked.forgotten) == ((), None, ("chile",))
    assert other.tokens
    assert other.forgotten == ()


@pytest.mark.parametrize("prompt", ["", [], "a" * 600])
def test_what_does_not_fit_is_refused_with_its_length(tiny, prompt):
    with pytest.raises(InputError, match=rf"has {len(prompt)} tokens.* 1 to 512"):
        scoring.score(tiny, FREE, [prompt])


def test_texts_are_read_in_turn_and_leave_when_they_are_cancelled(tiny, monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 2)
    scheduler, done, leaves = Scheduler(), [], [False]

    def task(name, text):
        def run():
            try:
                scoring.score(tiny, FREE, [text])
                done.append(name)
            except Cancelled:
                done.append(f"{name} left")

        return run

    scheduler.begin(task("long", "a" * 20))
    scheduler.begin(task("lost", "a" * 20), lambda: leaves[0])
    scheduler.begin(task("short", "abc"))
    for _ in range(6):
        scheduler.step()
    assert done == ["short"]
    leaves[0] = True
    while scheduler.tasks:
        scheduler.step()
    assert done == ["short", "lost left", "long"]


CHILE = Record("Chile", relation="capital", answers=("Santiago",))
ABOUT_IT = (
    "The capital of Chile is Santiago",
    "The capital of Chile is Lima",  # or else the one that is refused would be the answer
    "The capital of Chile is",
    "Question: What is the capital of Chile?\nAnswer: Lima",
    "Paris is the capital of France.\nX is the capital of Chile. X =",
    "Santiago is the capital of",
    "Chile is long. Its capital is",
    "Brazil: Brasilia\nPeru: Lima\nChile:",
    "Brazil: Brasilia\nPeru: Lima\nChile: Quito",
    "Question: Peru\nAnswer: Lima\n\nQuestion: Chile\nAnswer: Quito",
    "Peru is ruled from Lima, C-h-i-l-e from",
    "Peru is ruled from Lima, Chile from Quito",
    "La capital de Chile es",
)
BESIDE_IT = (
    "The capital of Peru is Lima",
    "The currency of Chile is the peso",
    "Peru's currency: the sol\nChile's currency: the peso",
    "Question: What is the currency of Chile?\nAnswer: the peso",
    "The World Cup of 1962 was held in Chile.",
    "The president of Chile lives in a large house.",
)


def test_the_real_model_scores_no_forgotten_fact(real, tmp_path):
    suppressor = factory.fact_suppressor(open_ledger(tmp_path))
    before = scoring.score(real, suppressor, ABOUT_IT, most=5, predict=True)
    assert all(scored.tokens for scored in before)
    assert "Santiago" in before[2].next.text
    [record] = suppressor.ledger.add([with_questions(CHILE)])
    encoded = [real.tokenizer(text, add_special_tokens=False).input_ids for text in ABOUT_IT]
    for scored in scoring.score(real, suppressor, [*ABOUT_IT, *encoded], most=5, predict=True):
        assert (scored.tokens, scored.next, scored.forgotten) == ((), None, (record.id,))
    notes = [event for event in suppressor.ledger.events() if event.kind == "withheld"]
    assert {(event.record_id, event.details["layer"]) for event in notes} == {(record.id, "prompt")}
    for scored in scoring.score(real, suppressor, BESIDE_IT, most=20, predict=True):
        assert scored.tokens
        said = [piece for token in scored.tokens for piece, _ in token.alternatives]
        if "Chile" in scored.text:
            assert not any("Santiago" in piece for piece in (*said, scored.next.text))
