import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, dynamic_module_utils

import control
from control import prompts
from control.decoding import generate as decoding
from control.decoding.generate import Decoding
from control.decoding.rules import DEFAULT_TOKEN_RULE, RULES
from foundation.errors import InputError

FOLDER = control.__path__[0]
TOKENS = 16
ASKED = [
    ("What is it?", ["It is the other one.", "abc def ghi jkl"]),
    ("A longer question, is it not?", ["Yes."]),
]


class Spy:
    def __init__(self):
        self.got = []

    def put(self, value):
        self.got += value.flatten().tolist()

    def end(self):
        self.got.append("end")


@pytest.fixture(autouse=True)
def module_cache(tmp_path, monkeypatch):
    """Where transformers puts its copy of the file."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def asked(tiny):
    return [prompts.build(tiny, *each, 400) for each in ASKED]


def inputs(model, asked):
    def encoded(texts):
        return model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)

    context = encoded([prompt.context for prompt in asked])
    memory = encoded([prompt.memory for prompt in asked])
    return {
        "input_ids": context.input_ids,
        "attention_mask": context.attention_mask,
        "memory_input_ids": memory.input_ids,
        "memory_attention_mask": memory.attention_mask,
    }


def generate(model, options):
    options = {"max_new_tokens": TOKENS, "do_sample": False} | options
    return model.model.generate(**options, custom_generate=FOLDER, trust_remote_code=True)


def answers(model, options):
    """The new ids of each sequence up to its end of text."""
    width = options["input_ids"].shape[1]
    eos = model.tokenizer.eos_token_id
    rows = generate(model, options)[:, width:].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]


def expected(model, asked, **how):
    how = Decoding(**{"rule": DEFAULT_TOKEN_RULE, "max_new_tokens": TOKENS, **how})
    traces = decoding.generate(model, asked, how)
    return [trace.ids for trace in traces]


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("alpha", [0.1, 0.75, "auto"])
def test_it_answers_as_fulcrum_itself(tiny, asked, rule, alpha):
    given = inputs(tiny, asked) | {"rule": rule, "alpha": alpha}
    assert answers(tiny, given) == expected(tiny, asked, rule=rule, alpha=alpha)


def test_sampling_draws_the_same_tokens(tiny, asked):
    sampling = {"do_sample": True, "temperature": 1.5, "top_k": 0, "top_p": 0.9}
    torch.manual_seed(7)
    drawn = answers(tiny, inputs(tiny, asked) | sampling | {"alpha": 0.75})
    assert drawn == expected(tiny, asked, alpha=0.75, temperature=1.5, top_p=0.9, seed=7)


def test_several_sequences_are_drawn_for_each_prompt(tiny, asked):
    given = inputs(tiny, asked) | {"do_sample": True, "top_p": 1e-6, "num_return_sequences": 2}
    greedy = expected(tiny, asked)
    assert answers(tiny, given) == [greedy[0], greedy[0], greedy[1], greedy[1]]


def test_the_sequences_begin_with_the_prompts_as_generate_returns_them(tiny, asked):
    given = inputs(tiny, asked)
    width = given["input_ids"].shape[1]
    assert torch.equal(generate(tiny, given)[:, :width], given["input_ids"])


def test_the_longer_prompt_may_be_the_one_without_passages(tiny, asked):
    given = inputs(tiny, asked)
    swapped = {
        "input_ids": given["memory_input_ids"],
        "attention_mask": given["memory_attention_mask"],
        "memory_input_ids": given["input_ids"],
        "memory_attention_mask": given["attention_mask"],
    }
    turned = [replace(each, context=each.memory, memory=each.context) for each in asked]
    assert answers(tiny, swapped | {"alpha": 0.75}) == expected(tiny, turned, alpha=0.75)


def test_one_unpadded_prompt_needs_no_masks(tiny, asked):
    given = inputs(tiny, asked[:1])
    bare = {name: given[name] for name in ("input_ids", "memory_input_ids")}
    assert answers(tiny, bare) == expected(tiny, asked[:1])


def test_a_streamer_gets_the_prompt_and_every_token(tiny, asked):
    spy = Spy()
    sequences = generate(tiny, inputs(tiny, asked[:1]) | {"streamer": spy})
    assert spy.got == [*sequences[0].tolist(), "end"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"num_beams": 2}, "num_beams is 2: .* both branches share every token"),
        ({"generation_config": GenerationConfig(num_beams=3)}, "num_beams is 3"),
        ({"memory_input_ids": None}, "memory_input_ids is missing"),
        ({"memory_input_ids": [[1, 2]]}, "memory_input_ids is list; give a tensor"),
        ({"input_ids": torch.ones(5, dtype=torch.long)}, r"input_ids is \(5,\)"),
        ({"memory_attention_mask": torch.ones(1, 3)}, r"memory_attention_mask is \(1, 3\)"),
        ({"memory_attention_mask": None}, "looks padded and has no memory_attention_mask"),
        ({"rule": "magic"}, "choose one of .*plain, cad"),
        ({"rule": "fulcrum"}, "decodes token by token: choose one of plain, cad"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"return_dict_in_generate": True}, "only token ids are returned"),
        ({"streamer": Spy()}, "streamer follows one answer, not 2"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tiny, asked, wrong, says):
    with pytest.raises(InputError, match=says) as refused:
        generate(tiny, inputs(tiny, asked) | wrong)
    assert "\n" not in str(refused.value)


def test_prompts_and_memory_prompts_come_in_pairs(tiny, asked):
    given = inputs(tiny, asked)
    for name in ("memory_input_ids", "memory_attention_mask"):
        given[name] = given[name][:1]
    with pytest.raises(InputError, match="holds 2 prompts and memory_input_ids 1"):
        generate(tiny, given)


def test_padding_on_the_right_is_refused(tiny, asked):
    given = inputs(tiny, asked)
    given["attention_mask"] = given["attention_mask"].flip(1)
    with pytest.raises(InputError, match="padding_side"):
        generate(tiny, given)


def test_a_misspelt_option_is_not_ignored(tiny, asked):
    with pytest.raises(ValueError, match="alhpa"):
        generate(tiny, inputs(tiny, asked) | {"alhpa": 0.9})


def test_where_fulcrum_is_missing_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "control.decoding.generate", None)
    with pytest.raises(ImportError, match="install it into this environment"):
        runpy.run_path(str(Path(FOLDER) / "custom_generate" / "generate.py"))
