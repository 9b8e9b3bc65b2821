import json
import re
import tomllib
from collections import Counter
from itertools import chain

import pytest

from data.build import HERE
from retrieval.rewriter import Rewrite, parse_rewrite
from training import rewrites

COUNT = 2000


@pytest.fixture(scope="module")
def pairs():
    return rewrites.build_pairs(COUNT)


@pytest.fixture(scope="module")
def splits():
    """Relation to split."""
    return {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8"))["split"]
        for path in (HERE / "relations").glob("*.toml")
    }


def test_the_same_seed_gives_the_same_pairs_and_another_gives_others(pairs):
    assert rewrites.build_pairs(200) == rewrites.build_pairs(200)
    assert rewrites.build_pairs(200, seed=1) != rewrites.build_pairs(200)
    assert rewrites.build_pairs(200) == pairs[:200]


def test_no_pair_comes_twice_and_each_kind_has_its_share(pairs):
    assert len({pair.record()["prompt"] for pair in pairs}) == len(pairs) == COUNT
    shares = Counter(pair.kind for pair in pairs)
    for kind, share in rewrites.KINDS.items():
        assert shares[kind] / COUNT == pytest.approx(share, abs=0.06), kind


def test_what_the_model_is_taught_to_write_is_what_is_read_back(pairs):
    for pair in pairs:
        wanted = Rewrite(pair.clear or pair.question, pair.queries)
        assert parse_rewrite(pair.record()["completion"], pair.question) == wanted


def test_a_follow_up_comes_with_its_conversation_and_is_made_clear(pairs):
    follow_ups = [pair for pair in pairs if pair.kind == "follow_up"]
    assert all(pair.history and pair.clear for pair in follow_ups)
    assert all(pair.clear != pair.question for pair in follow_ups)


def test_only_later_searches_build_on_an_earlier_one(pairs):
    for pair in pairs:
        assert "#" not in pair.queries[0]
        assert any("#1" in query for query in pair.queries) == (pair.kind == "two_hop")


def test_no_template_is_left_unfilled(pairs):
    for pair in pairs:
        texts = [pair.question, pair.clear or "", *pair.queries, *chain(*pair.history)]
        assert not any("{" in text or "}" in text or "~" in text for text in texts), pair


def test_subjects_come_from_the_calibration_relations_alone(splits):
    bank = rewrites.wording_bank()
    used = {spec["relation"] for spec in bank.values() if "relation" in spec}
    assert used
    assert {splits[relation] for relation in used} == {"calibration"}


def test_no_wording_of_the_test_split_is_learned(splits):
    bank = rewrites.wording_bank()
    learned = set(map(bare, rewrites.OTHERS))
    for spec in bank.values():
        for _noun, *wordings in spec["attributes"]:
            learned |= {bare(wording.removeprefix(rewrites.VAGUE)) for wording in wordings}
        for phrase, question, _leads in spec.get("bridges", ()):
            learned |= {bare(phrase), bare(question)}
    asked = tomllib.loads((HERE / "conversations.toml").read_text(encoding="utf-8"))
    kept_back = {bare(wording) for wording in asked["other"]}
    for relation, split in splits.items():
        if split == "test":
            spec = asked[relation]
            wordings = [*spec["follow_up"], *spec["vague"], *spec.get("hop", ())]
            wordings += [spec["place"]] if "place" in spec else []
            wordings += [asked["comparison"][relation]] if relation in asked["comparison"] else []
            kept_back |= {bare(wording) for wording in wordings}
    assert not learned & kept_back


def test_no_question_of_the_test_split_is_learned(pairs):
    kept_back = {
        record["question"].casefold()
        for name in ("questions.jsonl", "conversations.jsonl")
        for record in map(json.loads, (HERE / name).read_text(encoding="utf-8").splitlines())
        if record["split"] == "test"
    }
    for pair in pairs:
        assert pair.question.casefold() not in kept_back
        assert (pair.clear or "").casefold() not in kept_back


def bare(wording):
    """A wording with every slot the same."""
    return re.sub(r"\{\w+\}", "*", wording.replace("{the}", "")).casefold()
