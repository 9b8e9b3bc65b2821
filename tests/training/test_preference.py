import pytest

from control import prompts
from control.decoding import generate
from control.decoding.generate import Decoding
from foundation.errors import InputError
from training import preference
from training.conflicts import Context, ContextCase
from training.corpus import CorpusFact

CASE = ContextCase(
    CorpusFact(
        "id", "What is the capital of Norway?", ("Oslo", "Christiania"), "It is Oslo.", "capital"
    ),
    Context(("It is Oslo.",), ("Oslo", "Christiania"), ("Bonn",)),
    Context(("It is Bern.",), ("Bern", "Berne"), ()),
    Context(("Germany has Bonn.", "Norway has fjords."), (), ("Bonn", "Norway")),
)


@pytest.mark.parametrize(
    ("answer", "follows"),
    [("Berne.", True), ("Oslo.", False), ("Bern, once Christiania.", False), ("Bonn.", False)],
)
def test_adherence_takes_the_passages_answer_alone(answer, follows):
    assert preference.adheres(answer, CASE) is follows


@pytest.mark.parametrize(
    ("answer", "firm"),
    [
        ("Oslo.", True),
        ("The capital of Norway is Oslo.", True),  # the question's own words are no distractor
        ("Oslo, not Bonn.", False),
        ("Bonn.", False),
        ("I don't know.", False),
    ],
)
def test_robustness_takes_the_right_answer_without_what_the_passages_offer(answer, firm):
    assert preference.is_robust(answer, CASE) is firm


def test_answers_are_those_of_plain_rag(tiny):
    """One branch without a trace says the same as the decoding that shows every token."""
    texts = [(f"Where is {name}?", (f"{name} is in {name}land.",)) for name in ("Arl", "Bexhill")]
    cases = [
        (ContextCase(CorpusFact(q, q, ("x",), *given, "town"), *[context] * 3), context)
        for q, given in texts
        for context in [Context(given, (), ())]
    ]
    room = tiny.room(preference.MAX_NEW_TOKENS)
    how = Decoding(rule="plain", max_new_tokens=preference.MAX_NEW_TOKENS)
    wanted = generate.generate(
        tiny, [prompts.build(tiny, q, given, room) for q, given in texts], how
    )
    said = preference.answers(tiny, cases)
    assert all(said)
    assert said == [trace.text.strip() for trace in wanted]


def test_passages_that_do_not_fit_are_not_silently_left_out(tiny):
    with pytest.raises(InputError, match="2 passages do not fit"):
        preference.build_prompt(tiny, "Who?", ["a" * 200, "b" * 400])
