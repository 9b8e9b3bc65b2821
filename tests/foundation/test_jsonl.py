import pytest

from foundation.errors import DataError
from foundation.jsonl import JsonlStore


def test_what_was_added_is_there_at_the_next_opening(tmp_path):
    kept = JsonlStore(tmp_path / "deep" / "kept.jsonl", {"model": "a"})
    kept.add({"one": [1, "é"], "two": {"x": 0.5}})
    again = JsonlStore(tmp_path / "deep" / "kept.jsonl", {"model": "a"})
    assert "one" in again
    assert "three" not in again
    assert again["one"] == [1, "é"]
    assert again["two"] == {"x": 0.5}


def test_a_line_that_a_killed_run_left_half_written_is_dropped(tmp_path):
    path = tmp_path / "kept.jsonl"
    JsonlStore(path, {}).add({"whole": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write('["half", ')
    kept = JsonlStore(path, {})
    kept.add({"next": 2})
    again = JsonlStore(path, {})
    assert again["whole"] == 1
    assert again["next"] == 2
    assert "half" not in again


def test_the_values_of_another_run_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "kept.jsonl"
    JsonlStore(path, {"model": "a"}).add({"one": 1})
    with pytest.raises(DataError, match="another run"):
        JsonlStore(path, {"model": "b"})
    assert JsonlStore(path, {"model": "a"})["one"] == 1
