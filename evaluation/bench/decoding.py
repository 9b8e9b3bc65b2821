"""Timings, each as a ratio to a baseline measured in the same run."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from transformers import DynamicCache

from control import prompts
from control.conflict.calibration import Calibration
from control.conflict.dial import answer
from control.decoding.generate import Decoding, two_branch_decoding
from control.decoding.rules import DEFAULT_TOKEN_RULE, RULES
from control.engines.transformers import LanguageModel
from evaluation.datasets.conflicts import Conflict
from evaluation.report import table
from training.runs import peak_bytes

QUESTION = "What is the capital of Peru?"
PASSAGES = [
    "Lima lies on the Pacific coast of Peru, in the valleys of three rivers. Founded in 1535, it "
    "is the seat of the government and by far the largest city of the country, home to about a "
    "third of its people. Its old centre is a world heritage site.",
    "Peru is a country in South America with the Pacific in the west and the Amazon basin in the "
    "east. Its people speak Spanish, Quechua and Aymara, and it exports copper, gold, fish meal "
    "and asparagus to many parts of the world.",
]


def decoding(
    language_model: LanguageModel, tokens: int, rounds: int, batch_size: int = 1
) -> dict[str, Any]:
    """Seconds per token: plain ``generate``, both branches, two separate forwards.

    The first token, which reads the prompt, is timed apart. Rounds are interleaved, and what is
    reported is the median.

    Args:
        language_model: The model.
        tokens: Tokens to decode after the first.
        rounds: Repetitions of each.
        batch_size: Questions at a time; a step of the whole batch counts as one token.
    """
    prompt = prompts.build(
        language_model.tokenizer, QUESTION, PASSAGES, language_model.room(tokens + 1)
    )
    ways: dict[str, Callable[[int], object]] = {
        "plain": lambda n: _plain(language_model, prompt, n, batch_size),
        "two_branches": lambda n: _two_branches(language_model, prompt, n, batch_size),
        "separate_forwards": lambda n: _separate_forwards(language_model, prompt, n, batch_size),
    }
    first: dict[str, list[float]] = {name: [] for name in ways}
    each: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            short, long = _seconds(way, 1), _seconds(way, tokens + 1)
            if turn:  # the first turn warms up
                first[name].append(short)
                each[name].append((long - short) / tokens)
    median = {name: statistics.median(values) for name, values in each.items()}
    return {
        **_machine(language_model),
        "batch_size": batch_size,
        "tokens": tokens,
        "rounds": rounds,
        "prompt_tokens": len(language_model.tokenizer(prompt.context).input_ids),
        "milliseconds_per_token": {name: 1000 * value for name, value in median.items()},
        "milliseconds_to_first_token": {
            name: 1000 * statistics.median(values) for name, values in first.items()
        },
        "ratio_to_plain": {name: _ratio(each[name], each["plain"]) for name in ways},
        "peak_memory_gb": peak_bytes() / 1e9,
    }


def dial(
    language_model: LanguageModel,
    calibration: Calibration,
    items: Sequence[Conflict],
    tokens: int,
    rounds: int,
) -> dict[str, Any]:
    """Seconds per answer of the dial at both ends, as a ratio to plain ``generate``.

    Every item is asked with its counterfactual and with its true passage, one at a time; what the
    dial finds to be a conflict and what not is reported apart. Answers end where they end.

    Args:
        language_model: The model.
        calibration: Of the model.
        items: Questions with both passages.
        tokens: Longest answer.
        rounds: Repetitions, interleaved; the median of each question counts.
    """
    ratios: dict[str, list[float]] = {"no_conflict": [], "conflict": []}
    seconds: dict[str, list[float]] = {"plain": [], "no_conflict": [], "conflict": []}
    for item in items:
        for passage in filter(None, (item.context, item.true_context)):
            prompt = prompts.build(
                language_model.tokenizer, item.question, [passage], language_model.room(tokens)
            )
            for alpha in (0.0, 1.0):
                how = Decoding(alpha=alpha, max_new_tokens=tokens)
                conflict, plain, ours = False, [], []
                for turn in range(rounds + 1):
                    took = _seconds(partial(_plain_answer, language_model, prompt), tokens)
                    started = time.perf_counter()
                    [settled] = answer(language_model, [prompt], how, calibration)
                    if turn:
                        plain.append(took)
                        ours.append(time.perf_counter() - started)
                    conflict = settled.conflict
                kind = "conflict" if conflict else "no_conflict"
                ratios[kind].append(_ratio(ours, plain))
                seconds[kind].append(statistics.median(ours))
                seconds["plain"].append(statistics.median(plain))
    return {
        **_machine(language_model),
        "tokens": tokens,
        "rounds": rounds,
        "answers": {kind: len(values) for kind, values in ratios.items()},
        "seconds_per_answer": {k: statistics.median(v) for k, v in seconds.items() if v},
        "ratio_to_plain": {k: statistics.median(v) for k, v in ratios.items() if v},
        "ratio_90th_percentile": {k: float(np.quantile(v, 0.9)) for k, v in ratios.items() if v},
        "peak_memory_gb": peak_bytes() / 1e9,
    }


def dial_table(result: dict[str, Any]) -> Table:
    """The dial's timings, for a terminal."""
    return table(
        f"{result['model']}, {result['dtype']}, {result['threads']} threads",
        ("", "answers", "s per answer", "ratio to plain", "90th percentile"),
        (
            (
                kind.replace("_", " "),
                str(result["answers"][kind]),
                f"{result['seconds_per_answer'][kind]:.2f}",
                f"{ratio:.2f}",
                f"{result['ratio_90th_percentile'][kind]:.2f}",
            )
            for kind, ratio in result["ratio_to_plain"].items()
        ),
        f"plain {result['seconds_per_answer']['plain']:.2f} s, "
        f"peak memory {result['peak_memory_gb']:.2f} GB",
    )


def decoding_table(result: dict[str, Any]) -> Table:
    """The timings of decoding, for a terminal."""
    return table(
        f"{result['model']}, {result['dtype']}, {result['threads']} threads, "
        f"batch {result['batch_size']}",
        ("", "ms to first token", "ms per token", "ratio to plain"),
        (
            (
                name.replace("_", " "),
                f"{result['milliseconds_to_first_token'][name]:.0f}",
                f"{result['milliseconds_per_token'][name]:.1f}",
                f"{ratio:.2f}",
            )
            for name, ratio in result["ratio_to_plain"].items()
        ),
        f"peak memory {result['peak_memory_gb']:.2f} GB",
    )


def _machine(language_model: LanguageModel) -> dict[str, Any]:
    return {
        "model": language_model.name,
        "dtype": str(language_model.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _ratio(ours: list[float], baseline: list[float]) -> float:
    """Median of the ratios of the rounds: each compares two neighbours in time."""
    return statistics.median(a / b for a, b in zip(ours, baseline, strict=True))


def _plain_answer(language_model: LanguageModel, prompt: prompts.Prompt, tokens: int) -> None:
    """Plain RAG to its end, by the library's own generation."""
    encoded = _encoded(language_model, [prompt.context])
    language_model.model.generate(**encoded, do_sample=False, max_new_tokens=tokens)


def _seconds(way: Callable[[int], object], tokens: int) -> float:
    started = time.perf_counter()
    way(tokens)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def _plain(
    language_model: LanguageModel, prompt: prompts.Prompt, tokens: int, batch_size: int
) -> Tensor:
    encoded = _encoded(language_model, [prompt.context] * batch_size)
    return language_model.model.generate(**encoded, **_exactly(tokens))


def _two_branches(
    language_model: LanguageModel, prompt: prompts.Prompt, tokens: int, batch_size: int
) -> Tensor:
    texts = [prompt.context] * batch_size + [prompt.memory] * batch_size
    encoded = _encoded(language_model, texts)
    alpha = torch.full((batch_size, 1), 0.5, device=language_model.model.device)
    return language_model.model.generate(
        **encoded,
        **_exactly(tokens),
        custom_generate=two_branch_decoding,
        rule=RULES[DEFAULT_TOKEN_RULE],
        alpha=alpha,
    )


@torch.inference_mode()
def _separate_forwards(
    language_model: LanguageModel, prompt: prompts.Prompt, tokens: int, batch_size: int
) -> list[list[int]]:
    """Two forwards after each other for every token, as the released CK-PLUG code does."""
    model, rule = language_model.model, RULES[DEFAULT_TOKEN_RULE]
    alpha = torch.full((batch_size, 1), 0.5, device=model.device)
    inputs = [
        _encoded(language_model, [text] * batch_size)["input_ids"]
        for text in (prompt.context, prompt.memory)
    ]
    caches = [DynamicCache(config=model.config) for _ in inputs]
    said: list[list[int]] = []
    for _ in range(tokens):
        log_p = [
            model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            .logits[:, -1]
            .float()
            .log_softmax(dim=-1)
            for ids, cache in zip(inputs, caches, strict=True)
        ]
        token = rule(log_p[0], log_p[1], alpha).scores.argmax(dim=-1)
        said.append(token.tolist())
        inputs = [token[:, None]] * 2
    return said


def _exactly(tokens: int) -> dict[str, Any]:
    return {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}


def _encoded(language_model: LanguageModel, texts: list[str]) -> Any:
    encoded = language_model.tokenizer(
        texts, return_tensors="pt", padding=True, add_special_tokens=False
    )
    return encoded.to(language_model.model.device)
