import json
from dataclasses import replace

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from trl import DPOTrainer, SFTTrainer

from control.engines import adapters
from control.engines.adapters import use_adapter
from control.forgetting.learned_facts import trained_on
from control.forgetting.record import Record
from foundation.errors import DataError, InputError, ModelError
from training import knowpo, probing
from training.knowpo import split
from training.pairs import DPO_RATIOS, SFT_RATIOS
from training.recipe import Recipe, with_ratios

RECIPE = Recipe(
    sft_examples=12,
    sft_ratios={**dict.fromkeys(SFT_RATIOS, 1), "empty, known": 2},
    pairs=10,
    dpo_ratios=dict.fromkeys(DPO_RATIOS, 1),
    sft_epochs=1,
    batch=2,
    rank=2,
    development=2,
    evaluations=2,
)


@pytest.fixture(autouse=True)
def asked(monkeypatch, memories, facts):
    """Memories without a model: a random one knows nothing."""
    known = dict(zip((fact.id for fact in facts), memories, strict=True))
    monkeypatch.setattr(probing, "probe", lambda _, those, *__: [known[fact.id] for fact in those])


@pytest.fixture
def run(facts, embed, tmp_path):
    def train(model, name="run", recipe=RECIPE, corpus=facts):
        return knowpo.train(model, corpus, embed, tmp_path / name, tmp_path / "cache", recipe)

    return train


def weights(adapter):
    return load_file(adapter / "adapter_model.safetensors")


def test_a_run_leaves_an_adapter_its_data_and_its_cards(tiny, fresh, run):
    adapter = run(fresh())
    target = adapter.parent
    found = {path.name for path in target.iterdir()}
    assert found == {"adapter", "data", "logs", "run.json", "sft"}
    config = (adapter / "adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(config)["base_model_name_or_path"] == "tiny"
    assert '"/' not in config
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "KnowPO adapter of tiny" in card
    assert "{" not in card
    assert (adapter / "curve.png").stat().st_size
    data = (target / "data" / "README.md").read_text(encoding="utf-8")
    assert data.count("- chosen:") == 10
    for stage, count in (("sft", 12), ("dpo", 10)):
        rows = (target / "data" / f"{stage}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(rows) == count
        assert list((target / "logs" / stage).rglob("events*"))
    lm, ids = fresh(), torch.arange(5, 25)[None]
    by_peft = PeftModel.from_pretrained(fresh().model, str(adapter)).eval()
    with torch.inference_mode(), use_adapter(adapters.read(lm, adapter)):
        told = lm.model(input_ids=ids).logits
        assert not torch.equal(told, tiny.model(input_ids=ids).logits)
        torch.testing.assert_close(told, by_peft(input_ids=ids).logits, rtol=0, atol=1e-4)


def test_the_stages_and_development_share_no_fact(fresh, facts, run):
    target = run(fresh()).parent
    stages = [
        {
            json.loads(line)["fact"]
            for line in (target / "data" / f"{stage}.jsonl").read_text("utf-8").splitlines()
        }
        for stage in ("sft", "dpo")
    ]
    held = {fact.id for fact in split(facts, RECIPE)["development"]}
    assert not stages[0] & stages[1]
    assert not held & (stages[0] | stages[1])


def test_the_model_is_as_it_was(tiny, fresh, run):
    lm = fresh()
    run(lm)
    for (name, found), wanted in zip(
        lm.model.state_dict().items(), tiny.model.state_dict().values(), strict=True
    ):
        assert torch.equal(found, wanted), name


def test_an_interrupted_run_goes_on_where_it_stopped(fresh, run, monkeypatch):
    """Ends at the weights of a run without a break, and takes no step of a finished stage again."""
    wanted = weights(run(fresh(), "whole"))
    taken = {"sft": [], "dpo": []}
    steps = {SFTTrainer: SFTTrainer.training_step, DPOTrainer: DPOTrainer.training_step}

    def watched(kind, stage, broken):
        def step(self, *given, **named):
            if broken and self.state.global_step == 3:
                raise KeyboardInterrupt
            taken[stage].append(self.state.global_step)
            return steps[kind](self, *given, **named)

        monkeypatch.setattr(kind, "training_step", step)

    watched(SFTTrainer, "sft", broken=False)
    watched(DPOTrainer, "dpo", broken=True)
    with pytest.raises(KeyboardInterrupt):
        run(fresh(), "broken")
    assert taken == {"sft": [0, 1, 2, 3, 4, 5], "dpo": [0, 1, 2]}
    watched(DPOTrainer, "dpo", broken=False)
    found = weights(run(fresh(), "broken"))
    assert taken["sft"] == [0, 1, 2, 3, 4, 5]
    assert taken["dpo"][3:] == [3, 4]
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5)


def test_a_directory_holds_one_run(fresh, run, facts):
    run(fresh())
    for changed in (
        {"recipe": replace(RECIPE, pairs=5)},
        {"corpus": facts[1:]},
    ):
        with pytest.raises(DataError, match="another model, corpus or recipe"):
            run(fresh(), **changed)


def test_too_little_memory_is_told_before_anything_is_done(fresh, run, monkeypatch, tmp_path):
    free = psutil.virtual_memory()._replace(available=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ModelError, match=r"needs about \d+\.\d GB .* but 0\.0 GB are free"):
        run(fresh())
    assert not (tmp_path / "run" / "data").exists()


def test_a_model_that_knows_nothing_stops_the_run_with_the_count(fresh, run, monkeypatch):
    nothing = probing.Memory("No.", ("No.",), "No.")
    monkeypatch.setattr(probing, "probe", lambda _, those, *__: [nothing] * len(those))
    with pytest.raises(DataError, match=r"knows none of \d+ facts"):
        run(fresh())


def test_shares_are_set_by_kind():
    recipe = with_ratios(Recipe(), ["ignorance, relevant=2.5", "empty, known=0"])
    assert recipe.dpo_ratios["ignorance, relevant"] == 2.5
    assert recipe.sft_ratios["empty, known"] == 0
    assert recipe.sft_ratios["relevant"] == SFT_RATIOS["relevant"]


@pytest.mark.parametrize("change", ["relevant", "nonsense=1", "relevant=-1", "relevant=nan"])
def test_a_wrong_share_is_one_line(change):
    with pytest.raises(InputError, match="--ratio"):
        with_ratios(Recipe(), [change])


def test_a_fact_that_was_trained_on_names_the_adapter_and_no_other_does(run, fresh, facts):
    adapter = run(fresh())
    shares = split(facts, RECIPE)
    adapters = {"sft": adapter.parent / "sft", "both": adapter}

    def names(fact):
        subject = fact.question.split()[-1].rstrip("?")
        record = Record(subject, relation="what it is", answers=fact.answers[:1])
        return [name for name, trained in trained_on(adapters, record).items() if trained]

    assert names(shares["sft"][0]) == ["sft", "both"]
    assert names(shares["dpo"][0]) == ["both"]
    assert names(shares["development"][0]) == []
