"""What a terminal shows of an answer's sources."""

import io

from rich.console import Console

from app.cli import terminal
from control.answer import Answer, Source
from control.conflict.sources import Citation, SourceClaim

FILLER = "Much is said of the machine before. " * 10


def shown(answer):
    console = Console(file=io.StringIO(), width=800)
    terminal.summary(console, answer)
    return console.file.getvalue()


def source(name, text):
    return Source(name, name, 0.9, True, "read by the model", text)


def answered(text, *citations, **changed):
    sources = [source("a", f"{FILLER}The pump runs for 45 minutes. {FILLER}"), source("b", "No.")]
    values = {"claims": [SourceClaim("a", "45 minutes")], "citations": list(citations)}
    return Answer("?", "?", [], text, 0.5, False, None, [], sources, **{**values, **changed})


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
