"""Two-branch decoding for plain ``transformers``, loaded by the path of the package ``control``.

    model.generate(**with_passages, memory_input_ids=..., memory_attention_mask=..., alpha=0.75,
                   custom_generate=control.__path__[0], trust_remote_code=True)

``transformers`` copies this one file into its module cache and runs the copy. It therefore imports
Fulcrum by absolute names, and Fulcrum must be installed in the same environment; rules and decoding
loop are Fulcrum's own, none is repeated here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

# Only an import inside "try" escapes the loader's own check, whose advice would be to install
# whatever else is published under the names "control" and "foundation".
try:
    from control.decoding.generate import Alpha, Decoding, two_branch_decoding
    from control.decoding.rules import DEFAULT_TOKEN_RULE, RULES, MixedStep, configured
    from foundation.errors import InputError
except ImportError as error:
    raise ImportError(
        f"this custom_generate runs Fulcrum, which cannot be imported here ({error}); "
        "install it into this environment: pip install FULCRUM_DIRECTORY"
    ) from error

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel
    from transformers.generation.streamers import BaseStreamer

SINGLE = ("streamer", "prefix_allowed_tokens_fn")  # options that follow one answer at a time


def generate(
    model: "PreTrainedModel",
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    memory_input_ids: Tensor | None = None,
    memory_attention_mask: Tensor | None = None,
    rule: str = DEFAULT_TOKEN_RULE,
    alpha: Alpha = 0.5,
    rule_options: Mapping[str, float | str] | None = None,
    inputs: Tensor | None = None,
    streamer: "BaseStreamer | None" = None,
    assistant_model: "PreTrainedModel | None" = None,
    **options: Any,
) -> Tensor:
    """Answer prompts with a dial between their passages and the model's memory.

    Args:
        model: A decoder-only model.
        input_ids: Prompts with the passages, shape (n, length), padded on the left.
        attention_mask: Same shape; may be left out where nothing is padded.
        memory_input_ids: The same prompts without the passages, shape (n, another length), padded
            on the left. Both texts must end alike: they go on with the same tokens.
        memory_attention_mask: Of ``memory_input_ids``.
        rule: A name in `control.decoding.rules.RULES`.
        alpha: 0 = passages only, 0.5 = plain RAG, 1 = memory only, or ``"auto"``.
        rule_options: Of the rule, by name.
        inputs: Another name for ``input_ids``.
        streamer: Given the prompt and then every token; for one sequence.
        assistant_model: Not supported.
        options: Whatever else ``generate`` takes: sampling, lengths, logits processors, stopping
            criteria, several return sequences. ``max_length`` counts the longer prompt.

    Returns:
        Prompts with the passages and their answers, as ``generate`` returns them: shape
        (n * return sequences, length + answer), shorter answers padded on the right.

    Raises:
        InputError: A prompt is missing or padded on the right, the numbers of prompts differ, or
            an option is one that two branches cannot follow.
    """
    if model.config.is_encoder_decoder:
        raise InputError("the model is an encoder-decoder; two branches need a decoder-only model")
    if assistant_model is not None:
        raise InputError(
            "assistant_model is not supported: it would guess tokens of one branch only; leave it"
        )
    setting = _setting(rule, alpha, rule_options or {})
    pad = model.generation_config.pad_token_id
    context = _prompts("input_ids", inputs if input_ids is None else input_ids, attention_mask, pad)
    memory = _prompts("memory_input_ids", memory_input_ids, memory_attention_mask, pad)
    if len(context[0]) != len(memory[0]):
        raise InputError(
            f"input_ids holds {len(context[0])} prompts and memory_input_ids {len(memory[0])}; "
            "give each prompt once with its passages and once without"
        )

    followers = {**options, "streamer": streamer}
    single = [name for name in SINGLE if followers.get(name) is not None]

    def decode(
        model: "PreTrainedModel",
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: "GenerationConfig",
        **model_kwargs: Any,
    ) -> Tensor:
        answers = len(input_ids) // 2
        _check(generation_config, answers, single)
        if streamer is not None:
            streamer.put(context[0].cpu())
        column = None
        if setting.alpha != "auto":
            column = torch.full((answers, 1), setting.alpha, device=input_ids.device)

        def stream(_answers: Tensor, tokens: Tensor, _step: MixedStep) -> None:
            if streamer is not None:
                streamer.put(tokens.cpu())

        return two_branch_decoding(
            model,
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            rule=configured(setting.rule, setting.rule_options),
            alpha=column,
            on_step=stream,
            **model_kwargs,
        )

    # Not handed the streamer: it would stream the prompts of the joint batch.
    ids, mask = (_stacked(*pair) for pair in zip(context, memory, strict=True))
    sequences = model.generate(
        input_ids=ids, attention_mask=mask, custom_generate=decode, **options
    )
    if streamer is not None:
        streamer.end()
    return sequences[:, ids.shape[1] - context[0].shape[1] :]


def _setting(rule: str, alpha: Alpha, options: Mapping[str, float | str]) -> Decoding:
    """Rule, alpha and options, once they are ones that can be used here."""
    if rule not in RULES:
        raise InputError(
            f"rule is {rule!r}; generate decodes token by token: choose one of {', '.join(RULES)}"
        )
    return Decoding(rule=rule, alpha=alpha, rule_options=options)


def _prompts(
    name: str, ids: Tensor | None, mask: Tensor | None, pad: int | None
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both of shape (n, length), once they are usable."""
    if ids is None:
        raise InputError(
            f"{name} is missing; give input_ids (prompts with the passages) "
            "and memory_input_ids (the same without them)"
        )
    if not isinstance(ids, Tensor) or ids.dim() != 2 or 0 in ids.shape:  # noqa: PLR2004
        shape = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(
            f"{name} is {shape}; give a tensor (prompts, length) that is not empty, as a tokenizer "
            'does with return_tensors="pt"'
        )
    mask_name = name.replace("input_ids", "attention_mask")
    if mask is None:
        if len(ids) > 1 and pad is not None and (ids[:, [0, -1]] == pad).any():
            raise InputError(f"{name} looks padded and has no {mask_name}; give that too")
        mask = torch.ones_like(ids)
    if mask.shape != ids.shape:
        raise InputError(
            f"{mask_name} is {tuple(mask.shape)} and {name} {tuple(ids.shape)}; give equal shapes"
        )
    if not mask[:, -1].all():
        raise InputError(
            f"{name} is padded on the right, where the answers begin; "
            'set tokenizer.padding_side = "left"'
        )
    return ids, mask.long()


def _check(config: "GenerationConfig", answers: int, single: list[str]) -> None:
    """Refuse what two branches cannot follow.

    Args:
        config: What ``generate`` made of all its arguments.
        answers: How many are decoded at once.
        single: Given options that follow one answer only.
    """
    if (config.num_beams or 1) > 1:
        raise InputError(
            f"num_beams is {config.num_beams}: beams are not supported, since both branches share "
            "every token and would have to be re-ordered together; use num_beams=1"
        )
    if config.return_dict_in_generate:
        raise InputError(
            "return_dict_in_generate is set, but only token ids are returned; leave it out "
            "(control.decoding.generate.generate returns a trace of every token)"
        )
    if single and answers > 1:
        raise InputError(f"{single[0]} follows one answer, not {answers}; generate them one by one")


def _stacked(context: Tensor, memory: Tensor) -> Tensor:
    """Both left-padded with zeros to the longer one and stacked, shape (2 n, longer length).

    What stands in the padding is never read: the masks, padded alike, are zero there.
    """
    memory = memory.to(context.device)
    width = max(context.shape[1], memory.shape[1])
    return torch.cat(
        [torch.nn.functional.pad(part, (width - part.shape[1], 0)) for part in (context, memory)]
    )
