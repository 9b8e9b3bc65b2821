"""What the tests of the dial and of the assistant share."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

from control.assistant import Assistant
from tests.control.fakes import FixedRetriever

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "initializer_range",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
WINDOWS = {
    "mistral": (MistralConfig, {"sliding_window": 8}),
    "qwen2": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
}


@pytest.fixture(scope="session", params=["full", "eager", *WINDOWS])
def model(request, tiny):
    """The tiny model, by two ways to attend, and two that look back eight tokens.

    They do so in all layers or in one of both.
    """
    if request.param == "full":
        return tiny
    if request.param == "eager":
        other = copy.deepcopy(tiny.model)
        other.set_attn_implementation("eager")
        return replace(tiny, name=request.param, model=other)
    kind, window = WINDOWS[request.param]
    config = kind(**{name: getattr(tiny.model.config, name) for name in SIZES}, **window)
    torch.manual_seed(0)
    return replace(tiny, name=request.param, model=AutoModelForCausalLM.from_config(config).eval())


@pytest.fixture
def assistant(tiny, always):
    """One that finds these passages."""
    return lambda *texts: Assistant(tiny, always(1, model=tiny.identity), FixedRetriever(*texts))
