import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from trl import SFTTrainer

from control.engines import adapters
from control.engines.adapters import use_adapter
from control.forgetting.learned_facts import stating, trained_on
from control.forgetting.record import Record
from control.module_models import label_probabilities
from retrieval.embedding import open_embedding
from retrieval.filter import JUDGEMENT, CrossEncoderLogits, EvidenceJudge, JudgeCalibration
from training import retrieval_modules, rewrites, runs, verdicts


def own(tiny):
    """The tiny model for one alone: training changes it."""
    return replace(tiny, model=copy.deepcopy(tiny.model), tokenizer=copy.deepcopy(tiny.tokenizer))


@pytest.fixture(scope="module")
def rewriter(tiny, tmp_path_factory):
    """An adapter from a training without a break."""
    return retrieval_modules.train_rewriter(
        own(tiny), tmp_path_factory.mktemp("whole") / "run", smoke=True
    )


def weights(adapter):
    return load_file(adapter / "adapter_model.safetensors")


def check_shipped(adapter, base):
    """The directory can be given away: it names the base model and no place on this machine."""
    config = (adapter / "adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(config)["base_model_name_or_path"] == base
    assert '"/' not in config
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert f"Adapter of {base}" in card
    assert f"over {retrieval_modules.SMOKE} examples" in card
    assert "{" not in card
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]  # no scratch is left


def test_a_trained_rewriter_fits_the_model_that_it_was_trained_on(tiny, fresh, rewriter):
    assert rewriter.name == "adapter"
    check_shipped(rewriter, "tiny")
    lm, ids = fresh(), torch.arange(5, 25)[None]
    read = adapters.read(lm, rewriter)
    by_peft = PeftModel.from_pretrained(fresh().model, str(rewriter)).eval()
    with torch.inference_mode():
        with use_adapter(read):
            worn_logits = lm.model(input_ids=ids).logits
        assert not torch.equal(worn_logits, tiny.model(input_ids=ids).logits)
        torch.testing.assert_close(worn_logits, by_peft(input_ids=ids).logits, rtol=0, atol=1e-4)


def test_a_trained_filter_judges(fresh, tmp_path):
    adapter = retrieval_modules.train_filter(fresh(), tmp_path / "run", smoke=True)
    check_shipped(adapter, "tiny")
    lm = fresh()
    read = adapters.read(lm, adapter)
    [likely] = label_probabilities(lm, ["Does it answer?"], ("n", "y"), read)
    assert 0 < likely < 1


def test_an_interrupted_training_goes_on_where_it_stopped(fresh, rewriter, tmp_path, monkeypatch):
    """It takes only the steps that are left and ends at the same weights as one without a break."""
    steps = []
    take = SFTTrainer.training_step

    def counted(self, *given, **named):
        steps.append(self.state.global_step)
        return take(self, *given, **named)

    def breaking(self, *given, **named):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return counted(self, *given, **named)

    monkeypatch.setattr(runs, "SAVE_STEPS", 1)
    monkeypatch.setattr(SFTTrainer, "training_step", breaking)
    with pytest.raises(KeyboardInterrupt):
        retrieval_modules.train_rewriter(fresh(), tmp_path / "run", smoke=True)
    assert not (tmp_path / "run" / "adapter").exists()
    monkeypatch.setattr(SFTTrainer, "training_step", counted)
    resumed = retrieval_modules.train_rewriter(fresh(), tmp_path / "run", smoke=True)
    assert steps == [0, 1, 2]
    found, wanted = weights(resumed), weights(rewriter)
    assert all(torch.isfinite(weight).all() for weight in wanted.values())
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5)


def test_a_trained_cross_encoder_judges_passages(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval_modules, "SMOKE", 16)
    monkeypatch.setattr(retrieval_modules, "DEVELOPMENT_EXAMPLES", 24)
    adapter = retrieval_modules.train_cross_encoder(tmp_path / "run", smoke=True)
    check_shipped(adapter, "all-MiniLM-L6-v2")
    fitted = JudgeCalibration.load(adapter / JUDGEMENT)
    judge = EvidenceJudge(fitted, open_embedding(), CrossEncoderLogits(adapter))
    likely = judge("Who wrote Emma?", ["Emma\nJane Austen wrote Emma.", "Sony\nSony is in Japan."])
    assert len(likely) == 2
    assert all(0 < one < 1 for one in likely)
    assert 0 < fitted.threshold < 1
    alone = judge("Who wrote Emma?", ["Sony\nSony is in Japan."])
    assert alone == pytest.approx(likely[1:], abs=0.01)


def found(cosines, ranks, answers, logits=None):
    arrays = np.array(cosines, float), np.array(ranks), np.array(answers, bool)
    read = None if logits is None else np.array(logits, float)
    return retrieval_modules.FoundPassages(*arrays, read)


def test_the_judge_by_cosine_believes_near_passages_of_high_rank():
    source = found([0.9, 0.8, 0.5, 0.4] * 20, [1, 2, 1, 2] * 20, [1, 1, 0, 0] * 20)
    fitted = retrieval_modules.fit_judge({"one": source})
    assert fitted.cosine > 0
    far = found([0.9, 0.9] * 20, [1, 9] * 20, [1, 0] * 20)
    assert retrieval_modules.fit_judge({"one": source, "far": far}).rank > 0
    assert 0 < fitted.threshold < 1


def test_the_judge_by_the_reader_believes_it_where_cosine_and_rank_tell_nothing():
    source = found([0.5] * 40, [1, 1] * 20, [1, 0] * 20, [2, -2] * 20)
    fitted = retrieval_modules.fit_judge({"one": source})
    assert fitted.logit > 0
    assert fitted.threshold > 0.5  # nothing that answers is unlikely
    [row] = retrieval_modules.transfer({"one": source})
    assert row["reader"] == 1
    assert row["cosine"] == 0.5


def test_each_source_is_judged_by_a_fit_without_it():
    agreeing = found([0.9, 0.1] * 20, [1, 2] * 20, [1, 0] * 20)
    contrary = found([0.9, 0.1] * 20, [2, 1] * 20, [0, 1] * 20)
    rows = {
        row["source"]: row
        for row in retrieval_modules.transfer({"agreeing": agreeing, "contrary": contrary})
    }
    assert rows["agreeing"]["left out"] == rows["contrary"]["left out"] == 0
    assert rows["agreeing"]["cosine"] == 1
    assert rows["contrary"]["rank"] == 1


def test_the_rewriter_keeps_whom_it_was_asked_about_and_no_answers(rewriter):
    pairs = retrieval_modules.rewriter_pairs(smoke=True)
    [name, *_] = [fact.about for fact in rewrites.learned(pairs)]
    adapters = {"ours": rewriter}
    assert trained_on(adapters, Record(name, scope="subject")) == {"ours": True}
    assert trained_on(adapters, Record("Jane Roe", scope="subject")) == {"ours": False}
    fact = Record(name, relation="capital", answers=(name,))
    assert trained_on(adapters, fact) == {"ours": False}


def test_examples_that_state_a_forgotten_fact_are_left_out():
    def forget(record):
        return stating([replace(record, id="1")])

    [subject, *_] = [
        fact.about for fact in rewrites.learned(retrieval_modules.rewriter_pairs(smoke=True))
    ]
    record = Record(subject, scope="subject")
    pairs = retrieval_modules.rewriter_pairs(smoke=True, states=forget(record))
    assert 0 < len(pairs) < retrieval_modules.SMOKE
    assert subject not in [fact.about for fact in rewrites.learned(pairs)]

    learned = verdicts.learned(retrieval_modules.filter_examples(smoke=True))
    answers = learned[0].answers
    example = next(
        each
        for each in retrieval_modules.filter_examples(smoke=True)
        if any(answer in each.text for answer in answers)
    )
    record = Record(example.title.partition(":")[0], relation="what is asked", answers=answers)
    examples = retrieval_modules.filter_examples(smoke=True, states=forget(record))
    assert len(examples) == retrieval_modules.SMOKE
    assert example not in examples
