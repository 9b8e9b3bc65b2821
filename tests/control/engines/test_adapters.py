import copy
import json
import threading
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from control.engines import adapters
from control.engines.adapters import use_adapter, use_adapters_per_row
from foundation.errors import ModelError

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def lm(tiny):
    """The tiny model, all one's own."""
    return replace(tiny, model=copy.deepcopy(tiny.model))


@pytest.fixture
def trained(tiny, tmp_path):
    """Write an adapter of random weights; its directory and the outputs that PEFT gives it."""

    def write(name, seed=1):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=TARGETS,
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        wrapped = get_peft_model(copy.deepcopy(tiny.model), config).eval()
        wrapped.save_pretrained(str(tmp_path / name))
        return tmp_path / name, outputs(wrapped)

    return write


def outputs(model, times=1):
    ids = torch.arange(5, 25).reshape(2, 10).repeat(times, 1)
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_the_adapter_is_applied_inside_the_block_only(lm, trained):
    before = outputs(lm.model)
    directory, wanted = trained("one")
    adapter = adapters.read(lm, directory)
    assert torch.equal(outputs(lm.model), before)  # reading alone changes nothing
    with use_adapter(adapter):
        inside = outputs(lm.model)
    torch.testing.assert_close(inside, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(inside, before, atol=1e-3)
    assert torch.equal(outputs(lm.model), before)


def test_an_exception_inside_removes_the_adapter_too(lm, trained):
    before = outputs(lm.model)
    adapter = adapters.read(lm, trained("one")[0])
    with pytest.raises(RuntimeError, match="out of memory"), use_adapter(adapter):
        raise RuntimeError("out of memory")
    assert torch.equal(outputs(lm.model), before)
    with use_adapter(adapter):  # and it can be worn again
        assert not torch.equal(outputs(lm.model), before)


def test_rows_of_one_batch_use_adapters_of_their_own(lm, trained):
    one, two = (adapters.read(lm, trained(name, seed)[0]) for name, seed in (("a", 1), ("b", 2)))
    alone = {}
    for adapter in (None, one, two):
        with use_adapter(adapter):
            alone[adapter] = outputs(lm.model)
    rows = {None: torch.tensor([0, 5]), one: torch.tensor([3, 2]), two: torch.tensor([4])}
    with use_adapters_per_row(rows):  # row 1 is nobody's
        together = outputs(lm.model, times=3)
    for adapter, own in rows.items():
        torch.testing.assert_close(together[own], alone[adapter][own % 2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[one], alone[two], atol=1e-3)
    assert torch.equal(outputs(lm.model), alone[None])


def test_two_adapters_of_one_model_do_not_mix(lm, trained):
    before = outputs(lm.model)
    one, two = (adapters.read(lm, trained(name, seed)[0]) for name, seed in (("a", 1), ("b", 2)))
    with use_adapter(one):
        first = outputs(lm.model)
    with use_adapter(two):
        second = outputs(lm.model)
    with use_adapter(one):
        assert torch.equal(outputs(lm.model), first)
    assert not torch.equal(first, second)
    assert torch.equal(outputs(lm.model), before)


def test_without_an_adapter_the_model_is_unchanged(lm):
    before = outputs(lm.model)
    with use_adapter(None):
        assert torch.equal(outputs(lm.model), before)


def test_the_base_model_is_kept_once(lm, trained):
    """The copies are those of the changed weights alone."""
    adapter = adapters.read(lm, trained("one")[0])
    layers = lm.model.config.num_hidden_layers
    assert len(adapter.changed) == len(TARGETS) * layers
    assert not any("lora" in name for name, _ in lm.model.named_modules())


def test_a_second_user_waits_until_the_first_has_removed_it(lm, trained):
    before = outputs(lm.model)
    adapter = adapters.read(lm, trained("one")[0])
    order = []
    asked = threading.Event()

    def second():
        asked.set()
        with use_adapter(adapter):
            order.append("second")

    other = threading.Thread(target=second)
    with use_adapter(adapter):
        other.start()
        assert asked.wait(10)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    assert torch.equal(outputs(lm.model), before)


def test_one_adapter_of_a_model_is_used_at_a_time(lm, tiny, trained):
    """Two at once would each take the other's weights for the model's own and put them back."""
    one, two = (adapters.read(lm, trained(name, seed)[0]) for name, seed in (("a", 1), ("b", 2)))
    elsewhere = adapters.read(replace(tiny, model=copy.deepcopy(tiny.model)), trained("c")[0])
    with use_adapter(one):
        assert two.lock.locked()
        assert not elsewhere.lock.locked()
    assert not two.lock.locked()


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_without_an_adapter_is_refused(lm, tmp_path, there):
    directory = tmp_path / "none"
    if there:
        directory.mkdir()
    with pytest.raises(ModelError, match=r"none: holds no adapter_config.json; give a PEFT"):
        adapters.read(lm, directory)


def test_an_adapter_of_another_base_model_is_refused_and_the_model_stays_plain(lm, trained):
    before = outputs(lm.model)
    directory, _ = trained("one")
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps({**config, "r": 16}))
    with pytest.raises(ModelError, match=r"one: cannot be put on tiny \(.*\); give") as refused:
        adapters.read(lm, directory)
    assert "\n" not in str(refused.value)
    assert torch.equal(outputs(lm.model), before)
    assert not any("lora" in name for name, _ in lm.model.named_modules())
    with use_adapter(adapters.read(lm, trained("two")[0])):  # a fitting one still works
        assert not torch.equal(outputs(lm.model), before)
