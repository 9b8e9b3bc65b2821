"""Two-branch decoding: both prompts of every question in one batch, combined by a token rule."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from control.decoding import trace as tracing
from control.decoding.options import Alpha, Decoding
from control.decoding.repetition import RepetitionEnd
from control.decoding.rules import RULES, MixedStep, Rule, configured
from control.decoding.trace import DecodingTrace, TokenTrace
from control.engines import batch
from control.engines.batch import OnStep, SequenceGroup
from control.forgetting import guard as guarding
from control.forgetting.guard import LeakGuard, WatchedFacts
from control.prompts import Prompt, is_chat
from foundation.errors import InputError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from control.engines.transformers import LanguageModel

BASE_MODEL_STOPS = ["\n\n", "\nQuestion:"]  # a base model would go on with the next question
# In place of what the model's own generation_config says; `sampling_kwargs` brings the processors.
NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
UNSET: dict[str, Any] = dict.fromkeys(NEUTRAL)  # greedy decoding warns of any value

OnToken = Callable[[int, TokenTrace], None]
"""Called with the index of the answer and its new token."""


def generate(
    language_model: "LanguageModel",
    prompts: Sequence[Prompt],
    decoding: Decoding,
    alphas: Sequence[Alpha] | None = None,
    on_token: OnToken | None = None,
    watches: Sequence[WatchedFacts] | None = None,
) -> list[DecodingTrace]:
    """Answer every prompt by a token rule, once for each of ``alphas``, all in one batch.

    Args:
        language_model: Model and tokenizer.
        prompts: One per question.
        decoding: Rule, alpha and sampling.
        alphas: Several settings of the dial to answer at; each prompt is read only once.
            Defaults to ``decoding.alpha`` alone.
        on_token: Called with every token as it is chosen, for streaming.
        watches: The facts that the answer to each prompt must not state; ``None`` for no guard.

    Returns:
        The traces: all alphas of the first prompt, then all of the second, and so on.

    Raises:
        InputError: The rule is no token rule, or adaptive and fixed alphas are mixed.
    """
    if decoding.rule not in RULES:
        raise InputError(
            f"rule {decoding.rule} settles whole answers; decode with one of {', '.join(RULES)}, "
            "or ask control.conflict.dial"
        )
    settings = [decoding.alpha] if alphas is None else list(alphas)
    if len({alpha == "auto" for alpha in settings}) > 1:
        raise InputError("adaptive and fixed alphas cannot share a batch; decode them apart")
    tokenizer, model = language_model.tokenizer, language_model.model
    texts = [prompt.context for prompt in prompts]
    if any(prompt.memory != prompt.context for prompt in prompts):
        texts += [prompt.memory for prompt in prompts]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    traces = [
        DecodingTrace(prompt.passages > 0, tokenizer=tokenizer)
        for prompt in prompts
        for _ in settings
    ]
    ends = stop_ids(model)
    sampling = sampling_kwargs(decoding, model.device)
    watched = None if watches is None else [watch for watch in watches for _ in settings]
    guards = guarding.guards(watched, tokenizer, ends)

    model.generate(
        **encoded.to(model.device),
        custom_generate=two_branch_decoding,
        rule=configured(decoding.rule, decoding.rule_options),
        alpha=_alpha_column(settings, len(prompts), model.device),
        branches=len(texts) // len(prompts),
        copies=len(settings),
        on_step=recorder(traces, ends, on_token),
        guards=guards,
        stopping_criteria=StoppingCriteriaList(
            [
                RepetitionEnd(tokenizer, start=encoded.input_ids.shape[1]),
                *_base_model_stops(tokenizer),
            ]
        ),
        max_new_tokens=decoding.max_new_tokens,
        **sampling,
        **(NEUTRAL if sampling["do_sample"] else UNSET),
    )
    guarding.report(guards, traces)
    return traces


def recorder(
    traces: Sequence[DecodingTrace], ends: Collection[int], on_token: OnToken | None
) -> OnStep:
    """A step callback that appends every token to its answer's trace and hands it to ``on_token``.

    Args:
        traces: One for each answer.
        ends: Tokens that end an answer; they are left out.
        on_token: Called with the other tokens.
    """

    def record(answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        rows = tracing.rows(step, tokens)
        for index, token, row in zip(answers.tolist(), tokens.tolist(), rows, strict=True):
            if token not in ends:
                entry = traces[index].add(token, row)
                if on_token is not None:
                    on_token(index, entry)

    return record


def two_branch_decoding(
    model: "PreTrainedModel",
    input_ids: Tensor,
    logits_processor: "LogitsProcessorList",
    stopping_criteria: StoppingCriteriaList,
    generation_config: "GenerationConfig",
    rule: Rule,
    alpha: Tensor | None = None,
    branches: int = 2,
    copies: int = 1,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    guards: Sequence[LeakGuard] | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """The decoding loop, for ``model.generate(..., custom_generate=two_branch_decoding)``.

    One left-padded batch and one KV cache hold both branches of every sequence; each token costs
    one forward pass. Both branches continue with the same token.

    Args:
        model: A causal language model.
        input_ids: Left-padded prompts, shape (branches * n, length): the n with passages, then
            the n without.
        logits_processor: From ``generate``: temperature, top-p and whatever else was asked for;
            they see the mixed scores and the ids of the context branch.
        stopping_criteria: From ``generate``.
        generation_config: From ``generate``; ``do_sample`` and ``pad_token_id`` are used.
        rule: The token rule.
        alpha: Shape (n * copies, 1), or ``None`` for adaptive.
        branches: 2, or 1 if the prompts have no passages: the one branch then stands for both.
        copies: How many answers each prompt gets; they share its prefill.
        generator: Source of the sampling.
        on_step: Called with every step of the answers that have not finished.
        guards: One for each answer.
        model_kwargs: From ``generate``; the attention mask is used.

    Returns:
        Prompt and answer of the context branch, shape (n * copies, length + answer).
    """
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask.long()
    state = batch.read(model, input_ids, mask, groups=branches)
    if copies > 1:
        state.repeat(copies)
    group = SequenceGroup(
        state,
        input_ids.chunk(branches)[0].repeat_interleave(copies, dim=0),
        rule,
        alpha=alpha,
        branches=branches,
        logits_processor=logits_processor,
        stopping_criteria=stopping_criteria,
        do_sample=bool(generation_config.do_sample),
        generator=generator,
        on_step=on_step,
        guards=guards,
    )
    batch.decode(model, group)
    return group.gathered(_pad_id(generation_config))


def _alpha_column(settings: list[Alpha], prompts: int, device: torch.device) -> Tensor | None:
    if settings[0] == "auto":
        return None
    return torch.tensor(settings * prompts, device=device, dtype=torch.float32)[:, None]


@lru_cache(maxsize=8)  # the criterion goes through the vocabulary, which takes 40 ms
def stop_strings(tokenizer: "PreTrainedTokenizerBase", *texts: str) -> StopStringCriteria:
    """Ends an answer after one of these texts."""
    return StopStringCriteria(tokenizer, texts)


def stop_ids(model: "PreTrainedModel") -> set[int]:
    """The tokens that end an answer."""
    return _as_set(model.generation_config.eos_token_id)


def stopped(tokenizer: Any, ids: list[int]) -> bool:
    """Whether an answer ends where a base model would go on with another question."""
    return not is_chat(tokenizer) and tokenizer.decode(ids).endswith(tuple(BASE_MODEL_STOPS))


def sampling_kwargs(decoding: Decoding, device: torch.device) -> dict[str, Any]:
    """How tokens are drawn, as arguments of a `SequenceGroup` or of `two_branch_decoding`."""
    processors = LogitsProcessorList()
    if decoding.temperature > 0:
        processors.append(TemperatureLogitsWarper(decoding.temperature))
        processors.append(TopPLogitsWarper(decoding.top_p))
    return {
        "logits_processor": processors,
        "do_sample": decoding.temperature > 0,
        "generator": torch.Generator(device).manual_seed(decoding.seed),
    }


def generation_kwargs(
    language_model: "LanguageModel",
    decoding: Decoding,
    *criteria: StoppingCriteria,
    pad: int | None = None,
) -> dict[str, Any]:
    """Sampling and stopping criteria, as arguments of a `SequenceGroup`.

    Args:
        language_model: Model and tokenizer.
        decoding: Sampling.
        criteria: Besides the ends of an answer.
        pad: The token that fills up the beginning of shorter answers.
    """
    stops = StoppingCriteriaList([*criteria, RepetitionEnd(language_model.tokenizer, pad=pad)])
    if ends := stop_ids(language_model.model):
        stops.append(EosTokenCriteria(sorted(ends)))
    stops += _base_model_stops(language_model.tokenizer)
    sampling = sampling_kwargs(decoding, language_model.model.device)
    return {"stopping_criteria": stops, **sampling}


def _base_model_stops(tokenizer: "PreTrainedTokenizerBase") -> StoppingCriteriaList:
    """Ends the answers of a base model where it would go on with the next question."""
    stops = [] if is_chat(tokenizer) else [stop_strings(tokenizer, *BASE_MODEL_STOPS)]
    return StoppingCriteriaList(stops)


def _as_set(eos: int | list[int] | None) -> set[int]:
    return set(eos) if isinstance(eos, list) else {eos} if eos is not None else set()


def _pad_id(generation_config: "GenerationConfig") -> int:
    """The token that fills up finished sequences."""
    if generation_config.pad_token_id is not None:
        return generation_config.pad_token_id
    return min(_as_set(generation_config.eos_token_id), default=0)
