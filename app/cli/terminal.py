"""Prints answers to a terminal."""

import re
import textwrap
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.described import agrees
from control.answer import Answer, Source, source_names
from control.conflict.calibration import Calibration
from control.conflict.sources import MEMORY
from control.engines.base import Engine
from control.engines.hub import RECOMMENDED
from control.forgetting.clearing import ClearedCitation, ClearedToken
from control.notices import WITHOUT_SUPPORT, of_model

# Colour is never the only signal: memory is underlined, passages are bold.
STYLES = {"context": "bold cyan", "memory": "underline magenta", "both": ""}
# Neither a model nor a document writes to a terminal directly, nor turns the direction of its text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
AGREE = "Memory and passages agree here."
CLAIMED = {  # whether memory claims something, and whether a passage does
    (True, True): "",
    (True, False): "A sure answer was found in memory alone, not in the passages.",
    (False, True): "Only the passages claim an answer; memory knows of none.",
    (False, False): "No sure answer was found in the passages or in memory that could be compared.",
}
# Claims are found in the passages without the answer; support is looked for with it.
APART = " That a passage supports the answer means that it states what the answer says."
EXCERPT = 160  # characters of a passage
SENTENCE = 50  # characters of a sentence of the answer


def token(console: Console, trace: ClearedToken) -> None:
    """Print one token as it is decoded."""
    text = CONTROL.sub("", trace.text)
    word = text.lstrip()
    space = text.removesuffix(word)
    console.print(Text.assemble(space, (word, STYLES[trace.source])), end="", soft_wrap=True)


def summary(console: Console, answer: Answer) -> None:
    """Print what follows the answer: legend, verdict, sources, notices, time."""
    if not answer.tokens:  # a refusal, of which no token was printed
        console.print(_text(answer.answer))
    console.print()
    if answer.rewritten != answer.question:
        console.print(_text(f"Understood as: {answer.rewritten}", "dim"))
    if answer.sources:
        console.print()
        if console.color_system is not None:  # without colours it would explain nothing
            console.print(_legend())
        if verdict := _verdict(answer):
            console.print(verdict)
        if len({claim.group for claim in answer.claims}) > 1:
            console.print(_claims(answer))
        console.print(_sources(answer))
        lacks = not all(each.passages for each in answer.citations)
        if lacks and not set(WITHOUT_SUPPORT) & set(answer.notices):
            console.print(_unsupported(answer))
    for notice in answer.notices:
        console.print(_text(f"Note: {notice}.", "yellow"))
    console.print(Text(f"{answer.seconds['total']:.1f} s", style="dim"))


def _text(text: str, style: str = "") -> Text:
    """Text of a model or a document, for a terminal."""
    return Text(CONTROL.sub("", text), style=style)


def recommend(console: Console, cache: Path) -> None:
    """Say, once for each cache directory, that the packaged model is small."""
    _once(
        console,
        cache / "small-model-note",
        "This was the packaged model of 135 million parameters, for trying Fulcrum out. For use, "
        f"give a larger one: fulcrum --model {RECOMMENDED} ask ... (said once)",
    )


def tell_of_model(console: Console, model: Engine, calibration: Calibration, cache: Path) -> None:
    """Say what holds for every answer of a model, once for each cache directory and model."""
    for notice in of_model(model.name, calibration):
        said = cache / f"calibration-note-{model.identity}"
        _once(console, said, f"Note: {notice}. (said once for this model)")


def _once(console: Console, said: Path, text: str) -> None:
    """Print a text unless a file says that it was printed before."""
    if said.exists():
        return
    console.print(_text(text, "dim"))
    said.parent.mkdir(parents=True, exist_ok=True)
    said.touch()


def _verdict(answer: Answer) -> Text:
    if answer.settled:
        return _text(answer.settled, "bold")
    if answer.verdict is not None:
        return _text(str(answer.verdict), "bold")
    if answer.conflict:
        return Text("Memory and passages disagree here.")
    if agrees(answer.claims):
        return Text(AGREE)
    claiming = {claim.source == MEMORY for claim in answer.claims}
    supported = any(each.passages for each in answer.citations)
    apart = APART if supported and False not in claiming else ""
    return Text(CLAIMED[True in claiming, False in claiming] + apart)


def _legend() -> Text:
    return Text.assemble(
        ("from the passages", STYLES["context"]),
        " · ",
        ("from the model's memory", STYLES["memory"]),
        " · from both",
    )


def _claims(answer: Answer) -> Table:
    """Who says what, since when, and which of it the answer follows."""
    numbers: dict[str, int] = {
        source.id: number for number, source in enumerate(shown(answer), start=1)
    }
    table = Table(box=None, padding=(0, 1), show_header=False)
    for group in dict.fromkeys(claim.group for claim in answer.claims):
        members = [claim for claim in answer.claims if claim.group == group]
        who = [
            "memory" if claim.source == MEMORY else f"[{numbers.get(claim.source, '?')}]"
            for claim in members
        ]
        dates = sorted({claim.date for claim in members if claim.date})
        followed = any(claim.followed for claim in members)
        table.add_row(
            Text("→" if followed else " "),
            _text(members[0].says, "bold" if followed else ""),
            Text(", ".join(who)),
            Text(", ".join(dates), style="dim"),
        )
    return table


def shown(answer: Answer) -> list[Source]:
    """The passages that are listed: those read, given, or with a claim."""
    claiming = {claim.source for claim in answer.claims}
    return [
        source
        for source in answer.sources
        if source.kept or source.score is None or source.id in claiming
    ]


def _sources(answer: Answer) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    table.add_column(overflow="fold")
    listed, names = shown(answer), source_names(answer.sources)
    claimed = {claim.source: claim.says for claim in answer.claims}
    for number, source in enumerate(listed, start=1):
        score = "given" if source.score is None else f"{source.score:.2f}"
        excerpt = _excerpt(source.text, claimed.get(source.id, ""))
        line = _text(excerpt, "dim")
        if name := names[source.id]:
            line = Text.assemble(_text(name, "bold"), "  ", line)
        if not source.kept:
            line.append(f"  ({source.reason})", style="yellow")
        if supported := _supported(answer, source.id):
            line.append_text(_text(f"  (supports {supported})", "green"))
        table.add_row(f"[{number}]", score, line)
    if others := len(answer.sources) - len(listed):
        were = "was" if others == 1 else "were"
        table.add_row("", "", Text(f"{others} more {were} found and not read", style="dim"))
    return table


def _excerpt(text: str, claim: str) -> str:
    """The beginning of a passage, or where that lacks what it claims, what stands around that."""
    text, claim = " ".join(text.split()), " ".join(claim.split())
    at = max(text.find(claim), 0)
    start = 0
    if at + len(claim) > EXCERPT:
        start = text.find(" ", max(at - EXCERPT // 2, 0), at) + 1 or at
    end = start + EXCERPT
    if end < len(text):
        end = max(text.rfind(" ", at + len(claim), end), at + len(claim))
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _supported(answer: Answer, passage: str) -> str:
    """What of the answer a passage supports; empty if it supports no sentence."""
    cited = [each for each in answer.citations if passage in each.passages]
    if len(cited) == len(answer.citations):
        return "the answer" if cited else ""
    return " and ".join(f"“{_beginning(answer, each)}”" for each in cited)


def _unsupported(answer: Answer) -> Text:
    """The sentences of the answer that no passage supports."""
    lacking = [each for each in answer.citations if not each.passages]
    if len(lacking) == len(answer.citations):
        return Text("No passage supports the answer.")
    told = " and ".join(f"“{_beginning(answer, each)}”" for each in lacking)
    return _text(f"No passage supports {told}.")


def _beginning(answer: Answer, citation: ClearedCitation) -> str:
    """How a sentence of the answer begins, enough to find it."""
    sentence = " ".join(answer.answer[citation.start : citation.end].split())
    return textwrap.shorten(sentence, SENTENCE, placeholder="…")
