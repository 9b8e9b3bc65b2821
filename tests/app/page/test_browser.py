import json
import os
from dataclasses import replace

import pytest

from app.page import browser, export
from app.page.browser import LARGEST, NOTHING, ConversationSeal
from app.page.conversation import ConversationTurn, without_forgotten
from control.answer import Answer, Source
from control.conflict.sources import Citation, SourceClaim
from control.conflict.verdict import Verdict
from control.decoding.trace import Choice, TokenTrace
from control.forgetting.record import Record

PERU = Record("Peru", relation="capital", questions=("Capital of Peru?",), answers=("Lima",))


def turn(text="It is Oslo.", number=1, **changed):
    choices = [Choice("Os", 0.9)]
    token = TokenTrace(text, float("nan"), 1.0, None, False, "both", False, choices, [], -0.1, None)
    given = {
        "verdict": Verdict("Cairo", "Oslo", None, "memory"),
        "claims": [SourceClaim("memory", "Oslo", group=0, followed=True), SourceClaim("n", "A|B")],
        "citations": [Citation(0, 5, ("n",))],
    }
    answer = Answer(
        *("Capital?", "Capital?", [], text, 0.5, True),
        tokens=[token],
        sources=[Source("n", "News", 0.8, True, "why", "Cairo\n\nit is.", page=3)],
        **{**given, **changed},
    )
    return ConversationTurn(number, "Capital?", answer=answer, live=False)


class TestKeptInTheBrowser:
    def test_it_comes_back_as_it_was_after_a_restart_too(self, tmp_path):
        sealed = ConversationSeal(tmp_path).seal([turn(), turn("Yes.", 2)])
        assert "Oslo" not in sealed
        found = ConversationSeal(tmp_path).open(sealed)
        assert export.to_json(found) == export.to_json([turn(), turn("Yes.", 2)])
        assert found[0].claims == turn().claims

    @pytest.mark.parametrize("text", ["", NOTHING, "a\0b", "AAAA", "é", "x" * 1000])
    def test_what_the_server_has_not_written_is_nothing(self, tmp_path, text):
        assert ConversationSeal(tmp_path).open(text) == []

    def test_another_server_and_another_version_open_nothing(self, tmp_path, monkeypatch):
        sealed = ConversationSeal(tmp_path / "one").seal([turn()])
        assert ConversationSeal(tmp_path / "other").open(sealed) == []
        monkeypatch.setattr(browser.export, "to_json", lambda _: '[{"question": "no number"}]')
        seal = ConversationSeal(tmp_path / "one")
        assert seal.open(seal.seal([turn()])) == []

    def test_a_long_conversation_keeps_its_newest_turns(self, tmp_path):
        long = os.urandom(LARGEST // 8).hex()  # what cannot be made smaller by much
        seal = ConversationSeal(tmp_path)
        turns = [turn(long, number) for number in (1, 2, 3)]
        kept = seal.seal(turns)
        assert len(kept) <= LARGEST
        found = [each.number for each in seal.open(kept)]
        assert found
        assert found == [1, 2, 3][-len(found) :]
        assert len(found) < len(turns)
        assert seal.seal([]) == NOTHING

    def test_without_a_place_for_the_key_it_is_kept_until_the_server_ends(self, tmp_path):
        (tmp_path / "file").write_text("")
        seal = ConversationSeal(tmp_path / "file")
        assert len(seal.open(seal.seal([turn()]))) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"claims": [SourceClaim("memory", "Lima")]},
            {"settled": "Memory says Lima."},
            {"notices": ["Lima was found"]},
            {"verdict": Verdict("Lima", "Cusco", 0.9, "memory")},
        ],
    )
    def test_turns_that_hold_what_was_forgotten_are_left_out(self, changed):
        turns = [turn(), turn(**changed), turn("In Lima.")]
        stopped = replace(turn("Lima"), answer=None, tokens=turn("Lima").answer.tokens)
        kept = without_forgotten([*turns, stopped], [Record("x", answers=("y",)), PERU])
        assert len(kept) == 1
        assert without_forgotten(turns, []) == turns


class TestExport:
    def test_markdown_to_read(self):
        text = export.to_markdown([turn(), ConversationTurn(2, "And?", error="failed", live=False)])
        assert text.startswith("## Capital?\n\nIt is Oslo.\n\ndial 0.5 · from my documents\n")
        assert "| Oslo | the model’s memory, [1] News, page 3 |" in text
        assert "[1] News, page 3\n\n> Cairo\n>\n> it is.\n" in text
        assert text.endswith("## And?\n\nfailed\n")

    def test_cells_of_the_table_stay_cells(self):
        claims = [SourceClaim("memory", "Oslo"), SourceClaim("n", "A|B\nC", group=1)]
        assert "| A\\|B C | [1] News, page 3 |" in export.to_markdown([turn(claims=claims)])

    def test_json_holds_everything(self):
        [found] = json.loads(export.to_json([turn()]))
        assert found["answer"]["claims"][0]["says"] == "Oslo"
        assert found["dial"] == "0.5"
