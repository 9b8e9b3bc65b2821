"""What a terminal shows of an answer's sources."""

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from app.cli import terminal
from control.answer import Answer, Source
from control.conflict.calibration import ANY_MODEL
from control.conflict.sources import Citation, SourceClaim

FILLER = "Much is said of the machine before. " * 10


def shown(answer, **options):
    console = Console(file=io.StringIO(), width=800, **options)
    terminal.summary(console, answer)
    return console.file.getvalue()


def source(name, text):
    return Source(name, name, 0.9, True, "read by the model", text)


def answered(text, *citations, **changed):
    sources = [source("a", f"{FILLER}The pump runs for 45 minutes. {FILLER}"), source("b", "No.")]
    values = {"claims": [SourceClaim("a", "45 minutes")], "citations": list(citations)}
    values = {"sources": sources, **values, **changed}
    return Answer("?", "?", [], text, 0.5, False, None, [], **values)


def test_of_a_long_passage_what_stands_around_its_claim_is_shown():
    assert "The pump runs for 45 minutes." in shown(answered("Yes."))
    assert "The pump" not in shown(answered("Yes.", claims=[]))


def test_a_passage_says_which_sentences_it_supports_and_the_others_are_named():
    text = "It runs for 45 minutes. It is red."
    both = shown(answered(text, Citation(0, 23, ["a"]), Citation(24, 34, ["a"])))
    assert "(supports the answer)" in both
    assert "No passage supports" not in both
    one = shown(answered(text, Citation(0, 23, ["a"]), Citation(24, 34)))
    assert "(supports “It runs for 45 minutes.”)" in one
    assert "No passage supports “It is red.”." in one
    assert "No passage supports the answer." in shown(answered(text, Citation(0, 23)))
    assert "support" not in shown(answered(text))


def passages_claim(*groups, followed=True):
    return [SourceClaim(f"p{g}", f"says {g}", group=g, followed=followed) for g in groups]


def memory_claims(group):
    return SourceClaim("memory", f"says {group}", group=group)


AGREE = "Memory and passages agree here."


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ([*passages_claim(0), memory_claims(0)], True),
        ([*passages_claim(0), memory_claims(1)], False),  # the table contradicts it
        ([*passages_claim(0, followed=False), memory_claims(0)], False),
        ([*passages_claim(0), *passages_claim(1, followed=False), memory_claims(1)], False),
        ([*passages_claim(0), *passages_claim(1, followed=False), memory_claims(0)], True),
        ([SourceClaim("memory", "says 0", followed=True)], False),
    ],
    ids=["same", "other", "not followed", "with the other", "with the followed", "alone"],
)
def test_memory_and_passages_agree_where_they_claim_the_same_and_the_answer_follows_it(
    claims, said
):
    assert (AGREE in shown(answered("Yes.", claims=claims))) == said


def test_that_no_claim_was_found_and_that_a_passage_supports_the_answer_make_sense_together():
    supported = Citation(0, 4, ["a"])
    both = " ".join(shown(answered("Yes.", supported, claims=[])).split())
    assert "No sure answer was found in the passages or in memory that could be compared." in both
    assert "(supports the answer)" in both
    assert "supports the answer means that it states what the answer says" in both
    assert "means that" not in shown(answered("Yes.", claims=[]))
    assert "means that" not in shown(answered("Yes.", supported))


def test_that_a_model_was_not_calibrated_is_said_once_for_each_model(tmp_path):
    def said(identity, calibrated=False):
        model = SimpleNamespace(name="small.gguf", identity=identity)
        calibration = SimpleNamespace(model=identity if calibrated else ANY_MODEL)
        console = Console(file=io.StringIO(), width=800)
        terminal.tell_of_model(console, model, calibration, tmp_path / "cache")
        return console.file.getvalue()

    assert said("one", calibrated=True) == ""
    assert "not been calibrated for small.gguf" in said("one")
    assert said("one") == ""
    assert "not been calibrated" in said("two")


def test_no_control_character_of_a_document_reaches_the_terminal():
    bad = "\x1b]0;pwned\x07 \x1b[31mred \u202edekcab"
    sources = [Source("a", f"T{bad}", None, False, "why", f"Text {bad}", file=f"f{bad}")]
    answer = answered(
        bad,
        Citation(0, 3),
        claims=[SourceClaim("a", bad), SourceClaim("memory", f"other {bad}", group=1)],
        sources=sources,
        notices=[bad],
        settled=bad,
    )
    for said in (shown(answer), shown(replace(answer, settled="", rewritten=bad))):
        assert not {"\x1b", "\x07", "\u202e"} & set(said)


def test_an_excerpt_begins_and_ends_with_a_word():
    said = shown(answered("Yes."))
    [excerpt] = re.findall(r"…(.*)…", said)
    assert "45 minutes" in excerpt
    assert set(excerpt.split()) <= set(f"{FILLER} The pump runs for 45 minutes.".split())


def test_the_colours_are_explained_where_they_are_shown():
    answer = answered("Yes.")
    assert "from the model's memory" not in shown(answer)
    coloured = shown(answer, force_terminal=True, color_system="standard", _environ={})
    assert "from the model's memory" in coloured


def test_passages_that_were_not_read_are_counted_in_words_that_fit():
    kept, other = source("a", "Yes."), replace(source("b", "No."), kept=False)
    for others, said in ((1, "1 more was found and not read"), (2, "2 more were found and not")):
        sources = [kept, *(replace(other, id=f"b{number}") for number in range(others))]
        assert said in shown(answered("Yes.", sources=sources))


def test_a_passage_without_a_title_leaves_no_hole():
    sources = [replace(source("a", "Please wait."), title="")]
    assert "[1]  0.90  Please wait." in shown(answered("Yes.", sources=sources, claims=[]))
