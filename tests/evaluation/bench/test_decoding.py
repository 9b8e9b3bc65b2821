import json

from control import prompts
from evaluation import report
from evaluation.bench import decoding


def test_the_report_compares_each_way_with_plain_generation(tiny, tmp_path, monkeypatch):
    def seconds(way, tokens):
        """As a clock would tell that never stands still: a second for each token."""
        way(tokens)
        return float(tokens)

    monkeypatch.setattr(decoding, "_seconds", seconds)
    result = decoding.decoding(tiny, tokens=4, rounds=2)
    report.write_json(result, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["ratio_to_plain"]["plain"] == 1
    assert written["ratio_to_plain"].keys() == {"plain", "two_branches", "separate_forwards"}
    assert set(written["milliseconds_per_token"].values()) == {1000.0}
    assert set(written["milliseconds_to_first_token"].values()) == {1000.0}
    assert written["peak_memory_gb"] > 0


def test_one_batch_says_what_two_separate_forwards_say(tiny):
    prompt = prompts.build(tiny, "Who?", ["abc def"], 400)
    together = decoding._two_branches(tiny, prompt, tokens=12, batch_size=3)[:, -12:]
    assert together.T.tolist() == decoding._separate_forwards(tiny, prompt, 12, batch_size=3)
